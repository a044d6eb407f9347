"""The `.tnnproto`: TNN's graph as text, read strictly and written back byte for byte.

Each line is wrapped in ``"`` … ``,"``. Line 1 holds the number of blobs and the magic; then come the inputs,
the names of all blobs, the outputs, the number of layers, and one line per layer. Source: TNN's model
interpreter and packer, and real files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from conformance.tnn.fields import Parameters
from conformance.tnn.layers import layer_type
from refimpl.errors import FileError
from refimpl.graph import Node

MAGIC_V1 = 0xFABC0002
MAGIC = 0xFABC0004
MAGICS = (MAGIC_V1, MAGIC)
INPUT_DTYPES = {0: "float32", 1: "float16", 2: "int8", 3: "int32", 4: "bfloat16"}
_HEADER_LINES = 5


@dataclass(frozen=True)
class InputDeclaration:
    """An input of the graph: its name, its dimensions, and the number of its dtype (`INPUT_DTYPES`)."""

    name: str
    dims: tuple[int, ...]
    dtype: int = 0


@dataclass(frozen=True, kw_only=True)
class Layer(Node):
    """A layer: ``outputs = type(inputs; parameters)``; its constants are in the model, under its name."""

    parameters: Parameters

    @property
    def type(self) -> str:
        """TNN's name of what it does."""
        return self.op_type


@dataclass(frozen=True)
class Proto:
    """A `.tnnproto`: layers stand in the order they run; ``blobs`` names every tensor, constants included."""

    inputs: tuple[InputDeclaration, ...]
    blobs: tuple[str, ...]
    outputs: tuple[str, ...]
    layers: tuple[Layer, ...]
    magic: int = MAGIC


def read_proto(path: Path) -> Proto:
    """Read a `.tnnproto`.

    Raises
    ------
    FileError
        No such file, or anything in it that is not of the format: with the byte offset of the line.
    UnsupportedOperationError
        A layer type outside the vocabulary.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror})") from error
    return parse_proto(content, str(path))


def parse_proto(content: bytes, source: str) -> Proto:
    """Parse the bytes of a `.tnnproto`; ``source`` names it in errors (those of `read_proto`)."""
    lines = _split_lines(content, source)
    if len(lines) < _HEADER_LINES:
        raise FileError(
            f"{source}: {len(lines)} lines, expected at least {_HEADER_LINES}; the file is truncated"
        )
    blob_count, magic = _parse_first_line(lines[0])
    inputs = _parse_inputs(lines[1], magic)
    blobs, outputs = tuple(lines[2].words), tuple(lines[3].words)
    if blob_count != len(blobs):
        raise lines[2].error(f"line 1 announces {blob_count} blobs, here are {len(blobs)}")
    layer_count = lines[4].integer(0) if len(lines[4].words) == 1 else -1
    layer_lines = lines[_HEADER_LINES:]
    if layer_count != len(layer_lines):
        raise lines[4].error(
            f"the number of layers is {' '.join(lines[4].words)!r}, but {len(layer_lines)} lines follow"
        )
    layers = tuple(_parse_layer(line) for line in layer_lines)
    proto = Proto(inputs, blobs, outputs, layers, magic)
    _check_wiring(proto, lines)
    return proto


def write_proto(proto: Proto) -> bytes:
    """Return the bytes of the `.tnnproto`, those `onnx2tnn` writes."""
    lines = [
        f"1 {len(proto.blobs)} 1 {proto.magic}",
        " : ".join(_input_words(declaration, proto.magic) for declaration in proto.inputs),
        " " + " ".join(proto.blobs),
        " ".join(proto.outputs),
        f" {len(proto.layers)}",
        *(_layer_words(layer) for layer in proto.layers),
    ]
    return "".join(f'"{line} ,"\n' for line in lines).encode()


def _input_words(declaration: InputDeclaration, magic: int) -> str:
    dims = [str(dim) for dim in declaration.dims]
    if magic == MAGIC_V1:
        return " ".join([declaration.name, *dims])
    return " ".join([declaration.name, str(len(dims)), *dims, str(declaration.dtype)])


def _layer_words(layer: Layer) -> str:
    counts = [str(len(layer.inputs)), str(len(layer.outputs))]
    return " ".join(
        [layer.type, layer.name, *counts, *layer.inputs, *layer.outputs, *layer.parameters.write()]
    )


@dataclass(frozen=True)
class _Line:
    """One line without its wrapping, and where it stands."""

    words: list[str]
    number: int
    offset: int
    source: str

    def error(self, reason: str) -> FileError:
        return FileError(f"{self.source}: line {self.number} (byte {self.offset}): {reason}")

    def integer(self, index: int) -> int:
        word = self.words[index] if index < len(self.words) else ""
        digits = word.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 10):
            raise self.error(f"word {index + 1} is {word!r}, expected an integer")
        return int(word)


def _split_lines(content: bytes, source: str) -> list[_Line]:
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise FileError(f"{source}: byte {error.start} is no UTF-8 text; is this the .tnnmodel?") from error
    lines, offset = [], 0
    for number, raw in enumerate(text.split("\n"), start=1):
        stripped = raw.strip()
        if stripped:
            lines.append(_unwrap(stripped, number, offset, source))
        offset += len(raw.encode()) + 1
    return lines


def _unwrap(text: str, number: int, offset: int, source: str) -> _Line:
    line = _Line([], number, offset, source)
    if len(text) < 3 or not (text.startswith('"') and text.endswith(',"')):
        raise line.error(f'expected "… ,", got {text[:60]!r}; the file is truncated or no .tnnproto')
    inner = text[1:-2]
    if '"' in inner or "," in inner:
        raise line.error(
            "a quote or a comma inside the line; TNN cannot hold them in names, rename the tensors"
        )
    line.words.extend(inner.split())
    return line


def _parse_first_line(line: _Line) -> tuple[int, int]:
    if len(line.words) != 4:
        raise line.error(f"expected 4 words ('1 <blobs> 1 <magic>'), got {line.words[:8]}")
    magic = line.integer(3)
    if magic not in MAGICS:
        raise line.error(f"magic {magic:#x}, expected {MAGIC:#x} or, in version 1, {MAGIC_V1:#x}")
    return line.integer(1), magic


def _parse_inputs(line: _Line, magic: int) -> tuple[InputDeclaration, ...]:
    groups: list[list[int]] = [[]]
    for index, word in enumerate(line.words):
        if word == ":":
            groups.append([])
        else:
            groups[-1].append(index)
    inputs = tuple(_parse_input(line, group, magic) for group in groups)
    names = [declaration.name for declaration in inputs]
    if len(set(names)) != len(names):
        raise line.error(f"an input is declared twice: {names}")
    return inputs


def _parse_input(line: _Line, group: list[int], magic: int) -> InputDeclaration:
    if len(group) < 2:
        raise line.error("an input needs a name and dimensions")
    name, numbers = line.words[group[0]], [line.integer(index) for index in group[1:]]
    dtype = 0
    if magic == MAGIC:
        rank, *dims = numbers
        if rank != len(dims) - 1:
            raise line.error(f"input {name!r} has rank {rank}, so {rank} dimensions and a dtype; got {dims}")
        numbers, dtype = dims[:-1], dims[-1]
    if dtype not in INPUT_DTYPES:
        raise line.error(f"input {name!r} has dtype {dtype}, expected one of {INPUT_DTYPES}")
    if any(dim < 1 for dim in numbers):
        raise line.error(f"input {name!r} has dimensions {numbers}; TNN needs static ones, all at least 1")
    return InputDeclaration(name, tuple(numbers), dtype)


def _parse_layer(line: _Line) -> Layer:
    if len(line.words) < 4:
        raise line.error(f"a layer needs a type, a name and two counts, got {line.words}")
    type_name, name = line.words[:2]
    where = f"{line.source}: line {line.number} (byte {line.offset}), layer {name!r}"
    description = layer_type(type_name, where)
    input_count = _blob_count(line, 2, description.inputs, "inputs")
    output_count = _blob_count(line, 3, description.outputs, "outputs")
    blobs, words = line.words[4:], line.words[4 + input_count + output_count :]
    if len(blobs) < input_count + output_count:
        raise line.error(
            f"{type_name} {name!r} announces {input_count + output_count} blobs, the line has {len(blobs)}"
        )
    try:
        parameters = description.parameters.read(words)
    except FileError as error:
        raise line.error(f"{type_name} {name!r}: {error}; {description.parameters.grammar()}") from error
    outputs = tuple(blobs[input_count : input_count + output_count])
    return Layer(name, type_name, tuple(blobs[:input_count]), outputs, parameters=parameters)


def _blob_count(line: _Line, index: int, allowed: tuple[int, int], what: str) -> int:
    count = line.integer(index)
    if not allowed[0] <= count <= allowed[1]:
        raise line.error(
            f"{line.words[0]} {line.words[1]!r} has {count} {what}, expected {allowed[0]} to {allowed[1]}"
        )
    return count


def _check_wiring(proto: Proto, lines: Sequence[_Line]) -> None:
    """Check that names are unique, every blob is declared, and every output is computed or is an input."""
    declared = set(proto.blobs)
    if len(declared) != len(proto.blobs):
        raise lines[2].error("a blob is listed twice")
    written = {declaration.name for declaration in proto.inputs}
    names: set[str] = set()
    for layer, line in zip(proto.layers, lines[_HEADER_LINES:], strict=True):
        unknown = [blob for blob in (*layer.inputs, *layer.outputs) if blob not in declared]
        if unknown:
            raise line.error(f"layer {layer.name!r} uses blobs that line 3 does not list: {unknown}")
        if layer.name in names:
            raise line.error(f"a second layer named {layer.name!r}; its constants could not be told apart")
        rewritten = written.intersection(layer.outputs)
        if rewritten or len(set(layer.outputs)) != len(layer.outputs):
            raise line.error(f"layer {layer.name!r} writes a blob that exists already: {sorted(rewritten)}")
        names.add(layer.name)
        written.update(layer.outputs)
    missing = [name for name in proto.outputs if name not in written]
    if missing or not proto.outputs:
        raise lines[3].error(f"outputs that no layer computes: {missing or 'none declared'}")
