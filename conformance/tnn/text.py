"""TNN's text: inputs, the output of `TNNTest`, blob dumps and the text of `model_check`.

Numbers are parsed in C (`numpy.fromstring`), no Python loop sees a line; what was announced is counted, so a
short, long or torn file is an error and never an array. NaN and infinity are values, ``-nan`` too: judging
them is not the reader's task.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.files import atomic_write
from conformance.foreign_names import plain_name, shown
from refimpl.errors import FileError, NonFiniteError

Array = NDArray[Any]
OUTPUT_DTYPES = {32: np.dtype(np.float32), 33: np.dtype(np.int32)}
CHECK_DTYPES = {0: np.dtype(np.float32), 3: np.dtype(np.int32)}
_OUTPUT_HEADER = re.compile(rb"(\S+) mat_type: (\d{1,9}) dims: ([\d ]+)\Z")
_DUMP_NAME = re.compile(
    r"(?P<index>\d{5})-(?P<layer>.+)-(?P<side>in|out)-(?P<operand>\d+)-(?P<blob>.+)-dims-(?P<dims>\d+(?:-\d+)*)\.txt"
)
_MOST_ELEMENTS = 2**31


def numbers(text: bytes, count: int, source: str, dtype: np.dtype | type = np.float32) -> Array:
    """Parse exactly ``count`` numbers separated by white space.

    Raises
    ------
    FileError
        Something that is no number, or fewer or more numbers than ``count``.
    """
    with warnings.catch_warnings():
        # Older NumPy only warns about text it cannot parse.
        warnings.simplefilter("error", DeprecationWarning)
        try:
            values = np.fromstring(text, dtype=np.float64, sep=" ")
        except (ValueError, DeprecationWarning) as error:
            raise FileError(
                f"{source}: {_first_bad_word(text)}; the file is damaged or no numbers"
            ) from error
    if values.size != count:
        what = "short" if values.size < count else "long"
        raise FileError(f"{source}: {values.size} numbers, expected {count}; the file is too {what}")
    if not np.issubdtype(dtype, np.integer):
        with np.errstate(over="ignore"):
            return values.astype(dtype)
    if not np.all(np.isfinite(values)) or np.any(values != np.rint(values)):
        raise FileError(f"{source}: fractions or NaN among integers")
    return values.astype(dtype)


def _first_bad_word(text: bytes) -> str:
    # Only on the way to an error: which word, and at which byte.
    for match in re.finditer(rb"\S+", text):
        try:
            float(match[0])
        except ValueError:
            return f"byte {match.start()}: {match[0][:40].decode(errors='replace')!r} is no number"
    return "the text is not of numbers separated by white space"


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a file that must be there and not be empty, else `FileError`."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror})") from error
    if not content.strip():
        raise FileError(f"{path}: empty; the run that should have written it failed")
    return content


def read_input(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Read an input text as `TNNTest` does for a graph whose inputs have ``shapes``.

    With several inputs `TNNTest` reads each from the start of the same file, so the file must hold as many
    numbers as the largest takes.

    Raises
    ------
    FileError
        Missing, short or long, or not numbers. (The runtime would read zeros and exit with 0.)
    """
    counts = {name: math.prod(shape) for name, shape in shapes.items()}
    values = numbers(read_bytes(path), max(counts.values()), str(path))
    return {name: values[: counts[name]].reshape(shape) for name, shape in shapes.items()}


def write_input(path: Path, inputs: Mapping[str, Array]) -> None:
    """Write an input text with the 9 digits that give every float32 back.

    Raises
    ------
    NonFiniteError
        NaN or infinity: the runtime would stop reading there without a word.
    FileError
        Several inputs that are not prefixes of one another: `TNNTest` reads each from the start of the same
        file.
    """
    flat = {name: np.asarray(array, np.float32).ravel() for name, array in inputs.items()}
    longest = max(flat.values(), key=len)
    for name, values in flat.items():
        if not np.isfinite(values).all():
            raise NonFiniteError(
                f"input {name!r} holds NaN or infinity; TNNTest would silently stop reading there"
            )
        if not np.array_equal(values, longest[: values.size]):
            raise FileError(
                f"{path}: input {name!r} is not a prefix of the largest input, and TNNTest reads every input "
                "from the start of one file; concatenate the inputs into one in the model, or use model_check"
            )
    with atomic_write(path) as temporary:
        temporary.write_bytes(_lines(longest, "%.9g"))


def _lines(values: Array, pattern: str) -> bytes:
    # One formatting call for all values: the format is repeated, not the call.
    flat = np.asarray(values).ravel()
    return ((pattern + "\n") * flat.size % tuple(flat.tolist())).encode()


def read_output(path: Path) -> dict[str, Array]:
    """Read what `TNNTest -op` wrote: each output by name, shaped, float32 or int32.

    Raises
    ------
    FileError
        Missing, empty, short or long, an unknown ``mat_type``, or not of the format.
    """
    return parse_output(read_bytes(path), str(path))


def parse_output(content: bytes, source: str) -> dict[str, Array]:
    """Parse the text of `read_output`; ``source`` names it in errors."""
    first, _, left = content.partition(b"\n")
    count = _count(first, source)
    headers: list[tuple[str, np.dtype, tuple[int, ...]]] = []
    for number in range(count):
        line, _, left = left.partition(b"\n")
        headers.append(_output_header(line.strip(), f"{source}: line {number + 2}"))
    return _shaped(headers, left, source)


def write_output(path: Path, outputs: Mapping[str, Array]) -> None:
    """Write outputs as `TNNTest` does: alphabetical, ``%.6f``."""
    ordered = [(name, np.asarray(outputs[name])) for name in sorted(outputs)]
    chunks = [f"{len(ordered)}\n".encode()]
    for name, array in ordered:
        kind = 33 if np.issubdtype(array.dtype, np.integer) else 32
        word = plain_name(name, "word", str(path))
        chunks.append(
            f"{word} mat_type: {kind} dims: {array.ndim} {' '.join(map(str, array.shape))}\n".encode()
        )
    chunks += [
        _lines(array, "%d" if np.issubdtype(array.dtype, np.integer) else "%.6f") for _, array in ordered
    ]
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"".join(chunks))


def _count(line: bytes, source: str) -> int:
    word = line.strip()
    if not word.isdigit() or len(word) > 6 or int(word) < 1:
        raise FileError(f"{source}: line 1 is {word[:40]!r}, expected the number of blobs")
    return int(word)


def _output_header(line: bytes, where: str) -> tuple[str, np.dtype, tuple[int, ...]]:
    match = _OUTPUT_HEADER.match(line)
    if match is None:
        raise FileError(f"{where} is {line[:80]!r}, expected '<name> mat_type: <type> dims: <rank> <dims>'")
    kind = int(match[2])
    if kind not in OUTPUT_DTYPES:
        raise FileError(f"{where}: mat_type {kind}, expected 32 (float32) or 33 (int32)")
    return match[1].decode(errors="replace"), OUTPUT_DTYPES[kind], _dims(match[3].split(), where)


def _dims(words: Sequence[bytes], where: str) -> tuple[int, ...]:
    rank, *dims = (int(word) if len(word) <= 10 else _MOST_ELEMENTS for word in words)
    if rank != len(dims):
        raise FileError(f"{where}: rank {rank}, but {len(dims)} dimensions")
    if math.prod(dims) >= _MOST_ELEMENTS:
        raise FileError(f"{where}: dimensions {dims}, more elements than any TNN blob")
    return tuple(dims)


def _shaped(
    headers: Sequence[tuple[str, np.dtype, tuple[int, ...]]], text: bytes, source: str
) -> dict[str, Array]:
    names = [name for name, _, _ in headers]
    if len(set(names)) != len(names):
        raise FileError(f"{source}: a blob is there twice: {names}")
    sizes = [math.prod(dims) for _, _, dims in headers]
    values = numbers(text, sum(sizes), source, np.float64)
    parts = np.split(values, np.cumsum(sizes)[:-1])
    result = {}
    for (name, dtype, dims), part in zip(headers, parts, strict=True):
        if np.issubdtype(dtype, np.integer) and (
            not np.isfinite(part).all() or np.any(part != np.rint(part))
        ):
            raise FileError(f"{source}: blob {name!r} is of integers but holds fractions or NaN")
        with np.errstate(over="ignore"):
            result[name] = part.astype(dtype).reshape(dims)
    return result


def read_check(path: Path) -> dict[str, Array]:
    """Read the text of `model_check`: a number of blobs, then ``name rank dims… dtype`` and values of each.

    Raises
    ------
    FileError
        Missing, empty, short or long, an unknown dtype, or not of the format.
    """
    content, source = read_bytes(path), str(path)
    first, _, left = content.partition(b"\n")
    result: dict[str, Array] = {}
    for _ in range(_count(first, source)):
        line, _, left = left.partition(b"\n")
        name, dtype, dims = _check_header(line, source)
        if name in result:
            raise FileError(f"{source}: blob {name!r} is there twice")
        size = math.prod(dims)
        values, left = _take_lines(left, size)
        result[name] = numbers(values, size, f"{source}: blob {name!r}", dtype).reshape(dims)
    if left.strip():
        raise FileError(f"{source}: {len(left)} bytes left over after the last blob")
    return result


def read_check_folder(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[Array, Array]]:
    """Read what `model_check -do` wrote: blob → (values on CPU, on the device), 6 significant digits.

    Raises
    ------
    FileError
        A file of one of the blobs is missing, short or long, or not numbers.
    """
    return {
        name: (_checked(folder, "cpu", name, shape), _checked(folder, "device", name, shape))
        for name, shape in shapes.items()
    }


def _checked(folder: Path, side: str, name: str, shape: tuple[int, ...]) -> Array:
    file = f"{side}_{name.replace('/', '_').replace(':', '_')}.txt"
    path = Path(folder) / plain_name(file, "file", f"blob {shown(name)}")
    return numbers(read_bytes(path), math.prod(shape), str(path)).reshape(shape)


def _check_header(line: bytes, source: str) -> tuple[str, np.dtype, tuple[int, ...]]:
    name, *words = line.split() or [b""]
    if len(words) < 2 or not all(word.isdigit() for word in words):
        raise FileError(f"{source}: {line[:80]!r}, expected '<name> <rank> <dims> <dtype>'")
    kind = int(words[-1]) if len(words[-1]) < 4 else -1
    if kind not in CHECK_DTYPES:
        raise FileError(f"{source}: blob {name.decode(errors='replace')!r} has dtype {kind}, expected 0 or 3")
    return name.decode(errors="replace"), CHECK_DTYPES[kind], _dims(words[:-1], f"{source}: {line[:80]!r}")


def _take_lines(text: bytes, count: int) -> tuple[bytes, bytes]:
    """Split after ``count`` lines; the newlines are counted by NumPy."""
    ends = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n"))
    cut = int(ends[count - 1]) + 1 if 0 < count <= ends.size else (0 if count == 0 else len(text))
    return text[:cut], text[cut:]


def write_check(path: Path, blobs: Mapping[str, Array]) -> None:
    """Write blobs in the text of `model_check`."""
    chunks = [f"{len(blobs)}\n".encode()]
    for name, array in blobs.items():
        integer = np.issubdtype(np.asarray(array).dtype, np.integer)
        dims = " ".join(map(str, np.shape(array)))
        chunks.append(
            f"{plain_name(name, 'word', str(path))} {np.ndim(array)} {dims} {3 if integer else 0}\n".encode()
        )
        chunks.append(_lines(array, "%d" if integer else "%.9g"))
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"".join(chunks))


@dataclass(frozen=True)
class DumpName:
    """What the name of a blob dump says; `blob` and `layer` with ``/`` and ``:`` turned to ``_``."""

    index: int
    layer: str
    is_input: bool
    operand: int
    blob: str
    dims: tuple[int, ...]

    @property
    def file_name(self) -> str:
        """The name of the file."""
        side = "in" if self.is_input else "out"
        dims = "-".join(map(str, self.dims))
        return f"{self.index:05d}-{self.layer}-{side}-{self.operand}-{self.blob}-dims-{dims}.txt"


def parse_dump_name(file_name: str) -> DumpName:
    """Parse ``00012-layer-in-0-blob-dims-1-16-32-48.txt``, else `FileError`."""
    match = _DUMP_NAME.fullmatch(file_name)
    if match is None:
        raise FileError(
            f"{file_name!r} is no blob dump (<index>-<layer>-in|out-<operand>-<blob>-dims-<dims>.txt)"
        )
    dims = tuple(int(dim[:10]) for dim in match["dims"].split("-"))
    index, operand = int(match["index"]), int(match["operand"][:9])
    return DumpName(index, match["layer"], match["side"] == "in", operand, match["blob"], dims)


def read_dump(path: Path) -> Array:
    """Read one blob dump, shaped by its file name, else `FileError`."""
    dims = parse_dump_name(Path(path).name).dims
    if math.prod(dims) >= _MOST_ELEMENTS:
        raise FileError(f"{path}: dimensions {dims}, more elements than any TNN blob")
    return numbers(read_bytes(path), math.prod(dims), str(path)).reshape(dims)


def write_dump(folder: Path, name: DumpName, values: Array) -> None:
    """Write one blob dump into ``folder``, ``%.9f`` as the runtime does."""
    file = plain_name(name.file_name, "file", str(folder))
    with atomic_write(Path(folder) / file) as temporary:
        temporary.write_bytes(_lines(values, "%.9f"))
