"""A folder of blob dumps as a candidate: every layer replayed in float64 on the inputs it was really given.

A dump names the layers that ran. Some of the proto's are missing because a convolution absorbed its
activation; some are new: ARM inserts ``*_layout_reformat`` layers that copy a blob into another memory layout
or precision. Each step has the arrays a verdict needs: what the candidate produced, what float64 makes of the
same operands, and the magnitude of the numbers involved. Nothing upstream is blamed on a step.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.bounds import BFLOAT16, FLOAT32
from conformance.bounds.worst_element import Worst, absolute_error, unlike_rounding, worst_of
from conformance.tnn.graph import TnnGraph
from conformance.tnn.proto import Layer
from conformance.tnn.recording import TRUNCATED
from conformance.tnn.rounding import DUMP_TEXT, Allowed, Declared, allowed_of, declared
from conformance.tnn.text import DumpName, parse_dump_name, read_dump
from refimpl.errors import FileError

Array = NDArray[Any]
ACTIVATION_LAYERS = ("ReLU", "ReLU6")
"""What a convolution may absorb."""
SUMS = ("Convolution", "Convolution1D", "Deconvolution", "InnerProduct", "MatMul")
"""Layers whose bounds are so loose that a fault could hide in them."""
REFORMAT = "layout reformat"
CONSTANT = "constant"
TRANSFER = "transfer"
INPUT = "input"
_REFORMAT_NAME = re.compile(r".+_\d+_layout_reformat(__from_model_input__)?")


@dataclass(frozen=True)
class DumpedLayer:
    """A layer as the folder shows it: its blobs by operand."""

    index: int
    name: str
    inputs: tuple[DumpName, ...]
    outputs: tuple[DumpName, ...]

    @property
    def is_reformat(self) -> bool:
        """Whether the runtime inserted it to change the memory layout."""
        return _REFORMAT_NAME.fullmatch(self.name) is not None


@dataclass(frozen=True)
class MatchedLayer:
    """A dumped layer and the proto's it ran: a convolution with what it absorbed; none for a reformat."""

    dumped: DumpedLayer
    layers: tuple[Layer, ...]


@dataclass(frozen=True, eq=False)
class Step:
    """One thing the candidate did, and what float64 makes of it.

    Attributes
    ----------
    index
        Of the dumped layer.
    name
        Of the layer; for a constant or a transfer, of the layer that read it.
    type
        The layer's type, or `REFORMAT`, `CONSTANT` (a constant operand against the model file), `TRANSFER`
        (an operand against what its producer dumped), `INPUT` (an input against the one that was meant).
    tensor
        The blob produced or read.
    operands
        What it was made from: blob name → values as dumped.
    produced
        What the candidate has, float32 as dumped.
    expected
        What it should be, float64; of another shape than ``produced`` if the candidate's is wrong.
    bound
        How far a correct candidate's may be, broadcastable to ``expected``; None where there is no bound.
    systematic
        Whether the error is no rounding although it is within the bound: biased, or too large all over.
    layers
        The proto's layers that ran.
    """

    index: int
    name: str
    type: str
    tensor: str
    operands: Mapping[str, Array]
    produced: Array
    expected: Array
    bound: Array | None
    systematic: bool = False
    layers: tuple[Layer, ...] = ()

    @property
    def worst(self) -> Worst:
        """The element that uses most of its bound; an infinite error where the shape is wrong."""
        if self.produced.shape != self.expected.shape:
            return Worst(np.inf, 0.0, np.inf, ())
        return worst_of(self.produced, self.expected, np.inf if self.bound is None else self.bound)

    @property
    def verdict(self) -> str:
        """``pass``, ``fail`` or ``not judged`` (no bound)."""
        worst = self.worst
        if self.systematic or worst.utilisation > 1:
            return "fail"
        return "pass" if self.bound is not None and worst.judged else "not judged"


def read_folder(folder: Path) -> list[DumpedLayer]:
    """List the layers of a folder of blob dumps, in the order they ran.

    Raises
    ------
    FileError
        No such folder, a file that is no dump, or layers, inputs or outputs that are missing or doubled.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileError(f"{folder}: no folder; give the one passed to TNNTest -op")
    files = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    names = list(map(parse_dump_name, files))
    if not names:
        raise FileError(f"{folder}: empty; TNN must be compiled with DUMP_INPUT_BLOB and DUMP_OUTPUT_BLOB")
    by_index: dict[int, list[DumpName]] = {}
    for name in names:
        by_index.setdefault(name.index, []).append(name)
    missing = sorted(set(range(max(by_index) + 1)) - set(by_index))
    if missing:
        raise FileError(
            f"{folder}: the dumps of layers {missing[:10]} are missing; run again into an empty folder"
        )
    return [_dumped_layer(by_index[index], folder) for index in sorted(by_index)]


def _dumped_layer(names: Sequence[DumpName], folder: Path) -> DumpedLayer:
    index, layers = names[0].index, sorted({name.layer for name in names})
    if len(layers) > 1:
        raise FileError(
            f"{folder}: layer {index} is there twice, as {layers}; two runs wrote here, use an empty folder"
        )
    sides = []
    for is_input in (True, False):
        side = sorted((name for name in names if name.is_input == is_input), key=lambda name: name.operand)
        if [name.operand for name in side] != list(range(len(side))):
            files = [name.file_name for name in side]
            raise FileError(f"{folder}: blobs of layer {index} {layers[0]!r} are missing or doubled: {files}")
        sides.append(tuple(side))
    if not sides[1]:
        raise FileError(f"{folder}: layer {index} {layers[0]!r} has no output; the run broke off there")
    return DumpedLayer(index, layers[0], *sides)


def match_layers(graph: TnnGraph, dumped: Sequence[DumpedLayer]) -> list[MatchedLayer]:
    """Find the proto's layers for every dumped one.

    Raises
    ------
    FileError
        Layer names that cannot be told apart in file names; dumped layers that the proto has not, or whose
        blobs are others (another model); layers of the proto that are neither dumped nor absorbed.
    """
    by_name = {_file_name(layer.name): layer for layer in graph.proto.layers}
    if len(by_name) != len(graph.proto.layers):
        raise FileError(
            "two layers have the same name once / and : are _; rename them to tell their dumps apart"
        )
    own = {layer.name for layer in dumped}
    aliases: dict[str, str] = {}
    matched = []
    for layer in dumped:
        if layer.name not in by_name and layer.is_reformat:
            _check_reformat(layer)
            aliases[layer.outputs[0].blob] = aliases.get(layer.inputs[0].blob, layer.inputs[0].blob)
            matched.append(MatchedLayer(layer, ()))
            continue
        if layer.name not in by_name:
            raise FileError(
                f"layer {layer.index} {layer.name!r} is not in the proto; the dump is of another model"
            )
        chain = _absorbed(graph, by_name[layer.name], layer, own)
        _check_blobs(layer, chain, aliases)
        matched.append(MatchedLayer(layer, chain))
    ran = {layer.name for item in matched for layer in item.layers}
    lost = [layer.name for layer in graph.proto.layers if layer.name not in ran]
    if lost:
        raise FileError(
            f"layers of the proto that the dump has not: {lost[:10]}; the run broke off, or "
            "it is another model"
        )
    return matched


def _file_name(name: str) -> str:
    """Return a name as it stands in file names."""
    return name.replace("/", "_").replace(":", "_")


def _check_reformat(layer: DumpedLayer) -> None:
    if len(layer.inputs) != len(layer.outputs):
        raise FileError(
            f"layer {layer.index} {layer.name!r} turns {len(layer.inputs)} blobs into {len(layer.outputs)}"
        )


def _absorbed(graph: TnnGraph, layer: Layer, dumped: DumpedLayer, own: set[str]) -> tuple[Layer, ...]:
    """Follow a convolution's output through the activations it absorbed, to the blob that was dumped."""
    chain = [layer]
    wanted = dumped.outputs[0].blob
    while _file_name(chain[-1].outputs[0]) != wanted:
        users = [item for item in graph.proto.layers if chain[-1].outputs[0] in item.inputs]
        absorbs = (
            len(users) == 1 and users[0].type in ACTIVATION_LAYERS and _file_name(users[0].name) not in own
        )
        if not absorbs:
            break
        chain.append(users[0])
    return tuple(chain)


def _check_blobs(dumped: DumpedLayer, chain: Sequence[Layer], aliases: Mapping[str, str]) -> None:
    read = [aliases.get(name.blob, name.blob) for name in dumped.inputs]
    written = [name.blob for name in dumped.outputs]
    expected = [[_file_name(name) for name in names] for names in (chain[0].inputs, chain[-1].outputs)]
    if [read, written] != expected:
        raise FileError(
            f"layer {dumped.index} {dumped.name!r} reads {read} and writes {written}, in the proto "
            f"{expected[0]} and {expected[1]}; the dump is of another model"
        )


def replay(
    graph: TnnGraph, folder: Path, inputs: Mapping[str, Array] | None = None, arithmetic: str = "float32"
) -> Iterator[Step]:
    """Replay every dumped layer in float64 on its own dumped operands.

    Parameters
    ----------
    graph
        The graph that ran.
    folder
        The dumps.
    inputs
        What the inputs of the graph were meant to be; compared if given.
    arithmetic
        What the run is declared to compute and store in: float32, float16 or bfloat16.

    Yields
    ------
    Step
        In the order the layers ran: for each, its operands where they are not what was stored, produced or
        meant, then its outputs.

    Raises
    ------
    FileError
        The folder does not fit the graph, or a file in it is short, long or no numbers.
    ConfigurationError
        Another arithmetic.
    """
    judge = _Replay(graph, Path(folder), declared(arithmetic))
    judge.know({name: buffer.numbers() for name, buffer in graph.constants.items()}, CONSTANT)
    judge.know(inputs or {}, INPUT)
    for item in match_layers(graph, read_folder(folder)):
        yield from judge.steps(item)


class _Replay:
    """What is known of each blob, and where from, as the layers go by."""

    def __init__(self, graph: TnnGraph, folder: Path, how: Declared) -> None:
        self.graph, self.folder, self.how = graph, folder, how
        self.known: dict[str, Array] = {}
        self.origin: dict[str, str] = {}

    def know(self, arrays: Mapping[str, Array], origin: str) -> None:
        """Note what blobs should be."""
        for name, array in arrays.items():
            self.known[_file_name(name)] = np.asarray(array).astype(np.float64)
            self.origin[_file_name(name)] = origin

    def steps(self, item: MatchedLayer) -> Iterator[Step]:
        """Judge the operands and the outputs of one layer."""
        read = {name.blob: read_dump(self.folder / name.file_name) for name in item.dumped.inputs}
        operands = {blob: self._in_its_rank(blob, values) for blob, values in read.items()}
        for blob, values in operands.items():
            yield from self._operand(item, blob, values)
        for name, allowed in zip(item.dumped.outputs, self._allowed(item, operands), strict=True):
            produced = read_dump(self.folder / name.file_name)
            self.know({name.blob: produced}, TRANSFER)
            yield self._output(item, name.blob, operands, produced, allowed)

    def _in_its_rank(self, blob: str, values: Array) -> Array:
        """Return a constant in the model file's rank: a device dumps it in that which it computes with."""
        known = self.known.get(blob, values)
        alike = _without_leading_ones(values.shape) == _without_leading_ones(known.shape)
        return values.reshape(known.shape) if alike else values

    def _operand(self, item: MatchedLayer, blob: str, values: Array) -> Iterator[Step]:
        """Yield an operand that is not exactly what was stored, produced or meant."""
        expected = self.known.setdefault(blob, values.astype(np.float64))
        if values.shape == expected.shape and np.array_equal(values, expected, equal_nan=True):
            return
        dumped, kind = item.dumped, self.origin.get(blob, TRANSFER)
        yield Step(
            dumped.index,
            dumped.name,
            kind,
            blob,
            {},
            values,
            expected,
            self._stored(expected, kind),
            layers=item.layers,
        )

    def _stored(self, array: Array, kind: str) -> Array:
        """Return what storing and printing may do: half-precision runtimes truncate constants."""
        reduced = self.how.arithmetic != FLOAT32
        roundings = {CONSTANT: TRUNCATED, INPUT: 1.0, REFORMAT: 1.0}.get(kind, 0.0) if reduced else 0.0
        with np.errstate(invalid="ignore"):
            size = np.maximum(np.abs(array), self.how.storage.smallest_normal)
            return np.asarray(roundings * self.how.storage.unit_roundoff * size + 2 * DUMP_TEXT)

    def _allowed(self, item: MatchedLayer, operands: Mapping[str, Array]) -> list[Allowed]:
        wide = {name: array.astype(np.float64) for name, array in operands.items()}
        if not item.layers:
            return [Allowed(array, self._stored(array, REFORMAT), None) for array in wide.values()]
        read = [wide[name.blob] for name in item.dumped.inputs]
        chain = item.layers
        named = dict(zip(chain[0].inputs, read, strict=True))
        return allowed_of(self.graph, chain, named, _text, self.how)

    def _output(
        self,
        item: MatchedLayer,
        blob: str,
        operands: Mapping[str, Array],
        produced: Array,
        allowed: Allowed,
    ) -> Step:
        kind = item.layers[0].type if item.layers else REFORMAT
        bound = None if allowed.bound is None else allowed.bound + (DUMP_TEXT if item.layers else 0.0)
        step = Step(
            item.dumped.index,
            item.dumped.name,
            kind,
            blob,
            operands,
            produced,
            allowed.expected,
            bound,
            layers=item.layers,
        )
        return replace(step, systematic=self._is_systematic(step, allowed))

    def _is_systematic(self, step: Step, allowed: Allowed) -> bool:
        """Tell whether a sum's errors are no rounding; truncated constants bias those of half precision."""
        if step.type not in SUMS or step.bound is None or allowed.scale is None:
            return False
        tested = self.how.arithmetic == FLOAT32 and step.worst.utilisation <= 1
        suspicion = (
            unlike_rounding(step.produced, step.expected, step.bound, allowed.scale) if tested else None
        )
        return suspicion is not None


def _text(array: Array) -> Array:
    return np.full(array.shape, DUMP_TEXT)


def packed_layout(array: Array) -> Array | None:
    """Return what a reader that expects NCHW sees of memory in NC4HW4, or None when that is not possible.

    NC4HW4 keeps four channels together: (N, C / 4, H, W, 4).
    """
    if array.ndim < 3 or array.shape[1] % 4:
        return None
    grouped = array.reshape(array.shape[0], array.shape[1] // 4, 4, -1)
    return np.ascontiguousarray(grouped.swapaxes(2, 3)).reshape(array.shape)


def unpacked_layout(array: Array) -> Array | None:
    """Return what a reader that expects NC4HW4 sees of memory in NCHW: the inverse of `packed_layout`."""
    if array.ndim < 3 or array.shape[1] % 4:
        return None
    grouped = array.reshape(array.shape[0], array.shape[1] // 4, -1, 4)
    return np.ascontiguousarray(grouped.swapaxes(2, 3)).reshape(array.shape)


def misread_layout(step: Step, tolerance: float) -> str:
    """Return which layout mistake explains a step ("" for none): the expected values, in another order.

    ``tolerance`` is absolute, the error a correct step may have.
    """
    if step.produced.shape != step.expected.shape:
        return ""
    layouts = {
        "NC4HW4 read as NCHW": packed_layout(step.expected),
        "NCHW read as NC4HW4": unpacked_layout(step.expected),
        "every fourth element, as NC4HW4 read flat": _every_fourth(step.expected),
    }
    return _explained(step, layouts, tolerance)


def difference(step: Step, tolerance: float) -> str:
    """Say how a tensor came of what it should be, "" if in no known way.

    Another layout, another order, a rounding, an offset, a factor.

    ``tolerance`` is absolute, the error a correct step may have.
    """
    if step.produced.shape != step.expected.shape or not step.expected.size:
        return ""
    given, wanted = step.produced.astype(np.float64), step.expected
    if not (np.isfinite(given).all() and np.isfinite(wanted).all()):
        return misread_layout(step, tolerance)
    ways = {
        "cut off to bfloat16": _cut_off(wanted),
        "rounded to float16": _in_half(wanted),
        "rounded to bfloat16": BFLOAT16.rounded(wanted),
    }
    computed = {f"all larger by {np.mean(given - wanted):.4g}": wanted + np.mean(given - wanted)}
    if np.any(wanted):
        factor = float(np.vdot(given, wanted) / np.vdot(wanted, wanted))
        computed[f"all times {factor:.4g}"] = wanted * factor
    found = misread_layout(step, tolerance) or _explained(step, ways, tolerance)
    # A sum or product was rounded once more, and its term or factor is an estimate.
    found = found or _explained(step, computed, tolerance + 4 * FLOAT32.unit_roundoff * np.abs(given).max())
    reordered = np.abs(np.sort(given, axis=None) - np.sort(wanted, axis=None)).max() <= tolerance
    return found or ("the same values in another order" if reordered else "")


def _explained(step: Step, ways: Mapping[str, Array | None], tolerance: float) -> str:
    """Return the first of the ways whose result the tensor is, if the right one is another."""

    def far(first: Array, second: Array) -> bool:
        return bool(absolute_error(first, second).max(initial=0.0) > tolerance)

    found = (
        name
        for name, seen in ways.items()
        if seen is not None and far(seen, step.expected) and not far(seen, step.produced)
    )
    return next(found, "")


def _every_fourth(x: Array) -> Array | None:
    """Return what reading NC4HW4 of one pixel flat gives: elements 0, 4, 8, … and zeros between."""
    flat = x.reshape(-1)
    spread = np.zeros(4 * flat.size)
    spread[::4] = flat
    return spread[: flat.size].reshape(x.shape)


def _cut_off(x: Array) -> Array:
    """Return float32 numbers whose lower sixteen bits are dropped."""
    bits = x.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
    return bits.view(np.float32).astype(np.float64)


def _in_half(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return x.astype(np.float16).astype(np.float64)


def _without_leading_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[next((place for place, size in enumerate(shape) if size != 1), len(shape)) :]


def dumped_outputs(graph: TnnGraph, folder: Path) -> dict[str, Array]:
    """Return the outputs of the graph as the folder has them (errors: those of `replay`)."""
    found = {}
    for item in match_layers(graph, read_folder(folder)):
        for name in item.dumped.outputs:
            found[name.blob] = Path(folder) / name.file_name
    missing = [name for name in graph.proto.outputs if _file_name(name) not in found]
    if missing:
        raise FileError(f"{folder}: no dump of outputs {missing}; the run broke off")
    return {name: read_dump(found[_file_name(name)]) for name in graph.proto.outputs}
