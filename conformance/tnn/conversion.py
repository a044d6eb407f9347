"""Did the conversion keep the meaning? A TNN graph compared with its ONNX source, layer by layer.

Blob names are the ONNX tensor names. Every layer is replayed in float64 on the *source's* values of its
operands and compared with the source's value of its output, so a layer answers for itself alone. What is
allowed is what storing costs: constants rounded to their stored type, scalars to six digits; and what the
converter computes ahead of time, of constants alone, may err by the roundings that this adds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.bounds.carry import passed_on
from conformance.bounds.propagation import carried_bounds
from conformance.graph.evaluation import evaluate_node, run, widened, widened_all
from conformance.graph.findings import REMARK
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.onnx_graph import evaluate as evaluate_onnx
from conformance.tnn.attributes import LostAttribute, lost_attributes
from conformance.tnn.devices import remarks
from conformance.tnn.evaluation import evaluate_layer, magnitude
from conformance.tnn.fields import Parameters
from conformance.tnn.graph import TnnGraph
from conformance.tnn.model import BFLOAT16, RawBuffer
from conformance.tnn.proto import InputDeclaration, Layer
from conformance.tnn.traps import TRAPS, Source, Trap, source_of
from refimpl.errors import MobileInstError, ShapeError
from refimpl.graph import Node

Array = NDArray[Any]
SIX_DIGITS = 5e-6
"""Largest relative error of a number written with six significant digits."""
STORED_ROUNDOFF = {0: 2.0**-24, 1: 2.0**-11, BFLOAT16: 2.0**-8}
FOLDINGS = 8
"""Roundings a stored constant may have gone through: a batch norm folded in float32 takes about five."""
INPUT_SCALES = (1.0, 30.0)
"""Two probes: small values, and ones that reach the bounds of clips."""


@dataclass(frozen=True, eq=False)
class Meaning:
    """How one layer, or one constant of the map, compares with its source.

    Attributes
    ----------
    name, type
        The layer's, or the constant's and "constant".
    tensor
        The tensor compared.
    error
        Largest absolute difference from the source.
    ratio
        Largest difference over what storing allows: up to 1 is rounding, above is another meaning.
    index
        Where the ratio is largest.
    message
        What went wrong when there was nothing to compare ("" otherwise).
    traps
        The converter traps behind it: those a replay confirms, else those no replay can judge.
    attributes
        The attributes of the source that the layer has other values of, as a replay confirms.
    """

    name: str
    type: str
    tensor: str
    error: float
    ratio: float
    index: tuple[int, ...] = ()
    message: str = ""
    traps: tuple[Trap, ...] = ()
    attributes: tuple[LostAttribute, ...] = ()

    @property
    def kept(self) -> bool:
        """Whether the layer means what its source does."""
        return self.ratio <= 1


@dataclass(frozen=True, eq=False)
class Conversion:
    """The comparison of a whole graph.

    Attributes
    ----------
    meanings
        One per output of a layer that is a tensor of the source, and per constant of the map, in graph order.
    unmatched
        Blobs that are no tensor of the source; the layers that make them are judged through the next that is.
    lost_outputs
        Outputs of the source that the TNN graph has not.
    remarks
        What keeps it from running on some device or all, which is no other meaning.
    """

    meanings: tuple[Meaning, ...]
    unmatched: tuple[str, ...]
    lost_outputs: tuple[str, ...]
    remarks: tuple[str, ...] = ()

    @property
    def faults(self) -> tuple[Meaning, ...]:
        """The layers that mean something else, the first first."""
        return tuple(meaning for meaning in self.meanings if not meaning.kept)

    @property
    def kept(self) -> bool:
        """Whether the conversion kept the meaning: no fault, no output lost, and every output compared."""
        return not self.faults and not self.lost_outputs


def compare_conversion(
    graph: TnnGraph, source: OnnxGraph, inputs: Mapping[str, Array] | None = None, *, seed: int = 0
) -> Conversion:
    """Compare a converted graph with its source.

    Parameters
    ----------
    graph
        The converted graph.
    source
        The ONNX graph.
    inputs
        Values to compare on; by default two probes of seeded normal numbers, of scale 1 and 30.
    seed
        Of the probes.

    Raises
    ------
    ShapeError
        The two graphs take other inputs, so they are of different models.
    UnsupportedOperationError
        A form of a layer or node that is not evaluated.
    """
    _check_same_inputs(graph, source)
    draws = [dict(inputs)] if inputs is not None else _probes(graph, source, seed)
    written = source_of(source.model)
    runs = [_Comparison(graph, source, written, draw).run() for draw in draws]
    # Per row the worse of the probes.
    worst = tuple(max(rows, key=lambda row: row.ratio) for rows in zip(*runs, strict=True))
    made = {name for node in source.nodes for name in node.outputs}
    known = made | set(source.inputs) | set(source.initializers)
    blobs = [name for layer in graph.proto.layers for name in layer.outputs]
    unmatched = tuple(name for name in (*blobs, *graph.constants) if name not in known)
    lost = tuple(name for name in source.outputs if name not in graph.proto.outputs)
    return Conversion(worst, unmatched, lost, remarks(graph))


def _check_same_inputs(graph: TnnGraph, source: OnnxGraph) -> None:
    ours = {item.name: item.dims for item in graph.proto.inputs}
    theirs = {name: info.shape for name, info in source.declared.items()}
    fits = set(ours) == set(theirs) and all(_fits(ours[name], shape) for name, shape in theirs.items())
    if not fits:
        raise ShapeError(f"the TNN graph takes {ours}, the ONNX graph {theirs}; they are of different models")


def _fits(dims: tuple[int, ...], declared: tuple[int | str | None, ...] | None) -> bool:
    """Tell whether dims are those declared, dynamic lengths being any."""
    if declared is None:
        return True
    return len(dims) == len(declared) and all(
        not isinstance(n, int) or n == m for n, m in zip(declared, dims, strict=True)
    )


def _probes(graph: TnnGraph, source: OnnxGraph, seed: int) -> list[dict[str, Array]]:
    """Return values for the inputs, of the dtypes the source declares; what counts is 0 or 1."""
    generator = np.random.default_rng(seed)

    def drawn(item: InputDeclaration, scale: float) -> Array:
        dtype = source.declared[item.name].dtype or np.dtype(np.float32)
        if dtype.kind != "f":
            return generator.integers(0, 2, item.dims).astype(dtype)
        return (scale * generator.standard_normal(item.dims)).astype(np.float32)

    return [{item.name: drawn(item, scale) for item in graph.proto.inputs} for scale in INPUT_SCALES]


class _Comparison:
    """One run of both graphs on the same inputs."""

    def __init__(
        self, graph: TnnGraph, source: OnnxGraph, written: Source, inputs: Mapping[str, Array]
    ) -> None:
        self.graph, self.source, self.written = graph, source, written
        self.blobs = {name: np.asarray(array).astype(np.float64) for name, array in inputs.items()}
        constants = widened_all(source.initializers)
        self.truth = constants | self.blobs | evaluate_onnx(source, dict(inputs), np.float64)
        self.folded = self._folding_bounds()

    def run(self) -> list[Meaning]:
        """Return the rows, in the same order for every input."""
        rows = [self._constant(name, buffer) for name, buffer in self.graph.constants.items()]
        meanings = [row for row in rows if row is not None]
        for layer in self.graph.proto.layers:
            meanings += self._layer(layer)
        return meanings

    def _folding_bounds(self) -> dict[str, Array]:
        """Return what float32 arithmetic may do to what the source computes of constants alone."""
        given = self.source.initializers
        bounds: dict[str, Array | None] = {}
        for node in self.source.nodes:
            if all(name in given or name in bounds for name in node.uses):
                outputs = tuple(self.truth[name] for name in node.outputs)
                before = [bounds.get(name, 0.0) for name in node.inputs]
                operands = node.operands(self.truth)
                bounds.update(
                    zip(node.outputs, carried_bounds(node, operands, before, outputs), strict=False)
                )
        return {name: bound for name, bound in bounds.items() if bound is not None and np.any(bound)}

    def _folding_roundings(self, layer: Layer) -> dict[str, Array]:
        """Return what these roundings make of a layer's outputs, where its constants may hold them."""
        nodes = self._read_nodes_behind(layer)
        errors: dict[str, Any] = dict(self.folded)
        if not any(name in errors for node in nodes for name in node.uses):
            return {}
        for node in nodes:
            if errors.keys().isdisjoint(node.outputs):
                outputs = tuple(self.truth[name] for name in node.outputs)
                before = [errors.get(name, 0.0) for name in node.inputs]
                after = passed_on(node, list(node.operands(self.truth)), before, outputs)
                errors.update(zip(node.outputs, after, strict=False))
        return {name: errors[name] for name in layer.outputs if errors.get(name) is not None}

    def _constant(self, name: str, buffer: RawBuffer) -> Meaning | None:
        values = widened(buffer.numbers())
        self.blobs[name] = self.truth.get(name, values)
        if name not in self.truth:
            return None
        stored = STORED_ROUNDOFF.get(buffer.dtype, 0.0) * np.abs(values)
        allowed = FOLDINGS * stored + self.folded.get(name, 0.0)
        return _compared(name, "constant", name, values, self.truth[name], allowed)

    def _layer(self, layer: Layer) -> list[Meaning]:
        operands = tuple(self.blobs[name] for name in layer.inputs)
        try:
            results = evaluate_layer(self.graph, layer, operands)
        except ShapeError as error:
            return self._failed(layer, str(error))
        scale = magnitude(self.graph, layer, operands, results)
        folded = self._folding_roundings(layer)
        meanings = []
        for name, result in zip(layer.outputs, results, strict=True):
            # Those after it are judged on the source's values, so that they answer for themselves alone.
            self.blobs[name] = self.truth.get(name, result)
            if name in self.truth:
                allowed = storage_roundoff(self.graph, layer) * scale + folded.get(name, 0.0)
                row = _compared(layer.name, layer.type, name, result, self.truth[name], allowed)
                meanings.append(row if row.kept else self._diagnosed(row, layer, operands, result, allowed))
        return meanings

    def _failed(self, layer: Layer, message: str) -> list[Meaning]:
        missing = [name for name in layer.outputs if name not in self.truth]
        if missing:
            raise ShapeError(
                f"{message}; and its outputs {missing} are no tensors of the source to go on with"
            )
        self.blobs.update((name, self.truth[name]) for name in layer.outputs)
        traps = self._caught(layer)
        return [
            Meaning(layer.name, layer.type, name, np.inf, np.inf, message=message, traps=traps)
            for name in layer.outputs
        ]

    def _diagnosed(
        self, row: Meaning, layer: Layer, operands: tuple[Array, ...], result: Array, allowed: Array
    ) -> Meaning:
        """Name the traps: those whose replay gives what the layer gives, else those no replay can judge."""
        caught = self._caught(layer)
        confirmed = tuple(
            trap for trap in caught if trap.meaning and self._confirms(trap, layer, result, allowed)
        )
        others = tuple(trap for trap in caught if trap.meaning is None)
        lost = self._lost_attributes(layer, operands, result, allowed)
        return replace(row, traps=confirmed or (() if lost else others), attributes=lost)

    def _lost_attributes(
        self, layer: Layer, operands: tuple[Array, ...], result: Array, allowed: Array
    ) -> tuple[LostAttribute, ...]:
        nodes = self._read_nodes_behind(layer)
        if len(nodes) != 1:
            return ()
        (node,) = nodes

        def keeps(replayed: Array) -> bool:
            return _compared("", "", "", result, replayed, allowed).kept

        given = node.operands(self.truth)
        behind = self.written.producer(node.outputs[0])
        written = () if behind is None else behind.attributes
        return lost_attributes(self.graph, layer, operands, node, written, given, keeps)

    def _caught(self, layer: Layer) -> tuple[Trap, ...]:
        nodes = self._nodes_behind(layer)
        return tuple(
            trap
            for trap in TRAPS
            if trap.severity != REMARK and any(trap.catches(self.written, node) for node in nodes)
        )

    def _confirms(self, trap: Trap, layer: Layer, result: Array, allowed: Array) -> bool:
        assert trap.meaning is not None
        for node in self._nodes_behind(layer):
            if not trap.catches(self.written, node):
                continue
            operands = [self.truth[name] for name in node.inputs if name]
            try:
                replayed = trap.meaning(self.written, node, operands)
            except MobileInstError:
                continue
            after = self._continued(layer, node, replayed)
            if after is not None and _compared("", "", "", result, after, allowed).kept:
                return True
        return False

    def _continued(self, layer: Layer, node: Node, replayed: Array) -> Array | None:
        """Return the layer's output as the source would make it from the replayed node's output."""
        if node.outputs[0] in layer.outputs:
            return replayed
        place = self.source.places.get(node.outputs[0])
        if place is None:
            return None
        behind = {item.outputs for item in self._nodes_behind(layer)}
        rest = [item for item in self.source.nodes[place + 1 :] if item.outputs in behind]
        given = {**self.truth, node.outputs[0]: replayed}
        values = run(rest, given, lambda item, operands: evaluate_node(item, operands, np.float64))
        return values.get(layer.outputs[0])

    def _nodes_behind(self, layer: Layer) -> list[Node]:
        """Return the source's nodes between the layer's inputs and its outputs."""
        return self.written.between(layer.inputs, layer.outputs)

    def _read_nodes_behind(self, layer: Layer) -> list[Node]:
        """Return the same in the form of ONNX's latest version, less what is no operation there."""
        behind = [self.source.producer(node.outputs[0]) for node in self._nodes_behind(layer)]
        return [node for node in behind if node is not None]


def storage_roundoff(graph: TnnGraph, layer: Layer) -> float:
    """Return the relative error that storing the layer's constants and scalars may make."""
    resource = graph.resources.get(layer.name)
    buffers = [] if resource is None else list(resource.buffers.values())
    buffers += [graph.constants[name] for name in layer.inputs if name in graph.constants]
    # Even without constants of its own, a fused layer stands for several nodes with float32 constants.
    stored = max((STORED_ROUNDOFF.get(item.dtype, 0.0) for item in buffers), default=STORED_ROUNDOFF[0])
    return FOLDINGS * stored + (SIX_DIGITS if _has_decimals(layer.parameters) else 0.0)


def _has_decimals(parameters: Parameters) -> bool:
    return any(isinstance(value, float) for value in vars(parameters).values())


def _compared(name: str, kind: str, tensor: str, result: Array, truth: Array, allowed: Array) -> Meaning:
    if result.shape != truth.shape:
        message = f"shape {result.shape}, in the source {truth.shape}"
        return Meaning(name, kind, tensor, np.inf, np.inf, message=message)
    result, truth = result.astype(np.float64), truth.astype(np.float64)
    with np.errstate(invalid="ignore"):
        error = np.where(result == truth, 0.0, np.abs(result - truth))
    # The smallest normal float32 is a floor: a product of tiny numbers may have been flushed.
    ratio = error / (allowed + np.finfo(np.float32).tiny)
    ratio = np.where(np.isnan(result) & np.isnan(truth), 0.0, np.where(np.isnan(ratio), np.inf, ratio))
    if ratio.size == 0:
        return Meaning(name, kind, tensor, 0.0, 0.0)
    index = np.unravel_index(int(ratio.argmax()), ratio.shape)
    position = tuple(int(i) for i in index)
    return Meaning(name, kind, tensor, float(error[position]), float(ratio[position]), position)
