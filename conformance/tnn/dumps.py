"""A folder of blob dumps as a candidate: every layer replayed in float64 on the inputs it was really given.

A dump names the layers that ran. Some of the proto's are missing because a convolution absorbed its
activation; some are new: ARM inserts ``*_layout_reformat`` layers that copy a blob into another memory layout
or precision. Each step has the arrays a verdict needs: what the candidate produced, what float64 makes of the
same operands, and the magnitude of the numbers involved. Nothing upstream is blamed on a step.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.tnn.evaluation import evaluate_layer, magnitude
from conformance.tnn.graph import TnnGraph
from conformance.tnn.proto import Layer
from conformance.tnn.text import DumpName, parse_dump_name, read_dump
from refimpl.errors import FileError

Array = NDArray[Any]
ACTIVATION_LAYERS = ("ReLU", "ReLU6")
"""What a convolution may absorb."""
HALF_UNIT_OF_TEXT = 5e-10
"""Half of the last of the nine decimals."""
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
    magnitude
        The scale of the step's rounding, broadcastable to ``expected``; for linear layers
        abs(W) ∗ abs(x) + abs(b).
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
    magnitude: Array
    layers: tuple[Layer, ...] = ()

    @property
    def error(self) -> Array:
        """The introduced error, element by element; infinite where shapes or NaN disagree."""
        if self.produced.shape != self.expected.shape:
            return np.full(self.expected.shape or (1,), np.inf)
        with np.errstate(invalid="ignore"):
            difference = np.abs(self.produced.astype(np.float64) - self.expected)
        same = (self.produced == self.expected) | (np.isnan(self.produced) & np.isnan(self.expected))
        return np.where(same, 0.0, np.where(np.isnan(difference), np.inf, difference))

    def units(self, unit_roundoff: float) -> float:
        """Return the largest error in units of ``unit_roundoff`` of the numbers summed, beside the text's.

        0 is exact; a sum of K products makes at most K + 1 of them in any order, in practice a few.
        """
        error = self.error
        if self.produced.shape != self.expected.shape:
            return float("inf")
        with np.errstate(invalid="ignore"):
            ratio = error / (unit_roundoff * self.magnitude + HALF_UNIT_OF_TEXT)
        # An infinite operand makes the magnitude infinite too: an infinite error stays one.
        return float(np.where(np.isfinite(error), np.where(error == 0, 0.0, ratio), np.inf).max(initial=0))


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
    names = [parse_dump_name(path.name) for path in sorted(folder.iterdir())]
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


def replay(graph: TnnGraph, folder: Path, inputs: Mapping[str, Array] | None = None) -> Iterator[Step]:
    """Replay every dumped layer in float64 on its own dumped operands.

    Parameters
    ----------
    graph
        The graph that ran.
    folder
        The dumps.
    inputs
        What the inputs of the graph were meant to be; compared if given.

    Yields
    ------
    Step
        In the order the layers ran: for each, its operands where they are not what was stored, produced or
        meant, then its outputs.

    Raises
    ------
    FileError
        The folder does not fit the graph, or a file in it is short, long or no numbers.
    """
    matched = match_layers(graph, read_folder(folder))
    known = {
        _file_name(name): buffer.numbers().astype(np.float64) for name, buffer in graph.constants.items()
    }
    origin = dict.fromkeys(known, CONSTANT)
    for name, array in (inputs or {}).items():
        known[_file_name(name)], origin[_file_name(name)] = np.asarray(array, np.float64), INPUT
    for item in matched:
        operands = {name.blob: read_dump(Path(folder) / name.file_name) for name in item.dumped.inputs}
        yield from _operand_steps(item, operands, known, origin)
        for step in _output_steps(graph, item, operands, Path(folder)):
            known[step.tensor], origin[step.tensor] = step.produced.astype(np.float64), TRANSFER
            yield step


def _operand_steps(
    item: MatchedLayer, operands: Mapping[str, Array], known: dict[str, Array], origin: Mapping[str, str]
) -> Iterator[Step]:
    """Yield the operands that are not exactly what was stored, produced or meant."""
    for blob, values in operands.items():
        expected = known.setdefault(blob, values.astype(np.float64))
        if values.shape != expected.shape or not np.array_equal(values, expected, equal_nan=True):
            dumped = item.dumped
            kind = origin.get(blob, TRANSFER)
            yield Step(
                dumped.index, dumped.name, kind, blob, {}, values, expected, np.abs(expected), item.layers
            )


def _output_steps(
    graph: TnnGraph, item: MatchedLayer, operands: Mapping[str, Array], folder: Path
) -> Iterator[Step]:
    dumped = item.dumped
    wide = tuple(operands[name.blob].astype(np.float64) for name in dumped.inputs)
    if item.layers:
        expected, scales = _replayed(graph, item.layers, wide)
    else:
        expected, scales = wide, tuple(np.abs(array) for array in wide)
    kind = item.layers[0].type if item.layers else REFORMAT
    for name, array, scale in zip(dumped.outputs, expected, scales, strict=True):
        produced = read_dump(folder / name.file_name)
        yield Step(dumped.index, dumped.name, kind, name.blob, operands, produced, array, scale, item.layers)


def _replayed(
    graph: TnnGraph, chain: Sequence[Layer], operands: tuple[Array, ...]
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Run a layer and what it absorbed; the magnitude stays that of the sum before the activation."""
    # NaN and infinity are the candidate's values here like others.
    with np.errstate(all="ignore"):
        results = evaluate_layer(graph, chain[0], operands)
        scale = magnitude(graph, chain[0], operands, results)
        for layer in chain[1:]:
            results = evaluate_layer(graph, layer, results)
    return results, (scale,) * len(results)


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
    for name, reordered in (("NC4HW4 read as NCHW", packed_layout), ("NCHW read as NC4HW4", unpacked_layout)):
        seen = reordered(step.expected)
        if seen is None or np.array_equal(seen, step.expected):
            continue
        if np.abs(seen - step.produced).max(initial=0) <= tolerance:
            return name
    return ""
