"""A phone's model of integers throughout, with its file as the graph that it should compute."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from conformance.bounds import Declaration
from conformance.candidates.candidate import OwnGraph
from conformance.candidates.executorch import EXECUTORCH_RUNTIME, ExecutorchCandidate
from conformance.candidates.litert import LITERT_RUNTIME, LitertCandidate
from conformance.candidates.mnn import MADE, MNN_RUNTIME, OPERAND, MnnCandidate
from conformance.candidates.ncnn import NCNN_RUNTIME
from conformance.candidates.openvino import OPENVINO_RUNTIME
from conformance.candidates.phone_runtime import STATIC, PhoneCandidate, only_array
from conformance.conversion.executorch_graph import executorch_graph
from conformance.conversion.litert_graph import litert_graph
from conformance.conversion.mnn_graph import mnn_graph, operand_name
from conformance.conversion.mnn_model import read_mnn
from conformance.conversion.ncnn_graph import ends_of, ncnn_graph
from conformance.conversion.ncnn_model import read_ncnn
from conformance.conversion.openvino_graph import openvino_graph
from conformance.conversion.openvino_model import read_openvino
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.quantized import QUANTIZE
from refimpl.errors import ConfigurationError, ShapeError
from refimpl.graph import Node
from refimpl.ops.operation import Array


class IntegerGraph(ABC):
    """A file of integers, and the runtime that computes it.

    Parameters
    ----------
    candidate
        The file in its runtime.
    graph
        What the file means.
    """

    integer: ClassVar[bool] = True
    """Whether its results are integers, and judged in their steps."""
    steps_lost: ClassVar[Mapping[str, float]] = {}
    """Operator → the steps that its kernels lose beside rounding, if not half a one."""

    @property
    def tolerance(self) -> str:
        """What a verdict allows, in words."""
        return "each integer may be off by one step of its scale; errors are in steps"

    def __init__(self, candidate: PhoneCandidate, graph: OnnxGraph) -> None:
        self.candidate, self.graph = candidate, graph
        self.grids = {node.outputs[0]: self._grid(node) for node in graph.nodes if node.op_type == QUANTIZE}

    @property
    def declaration(self) -> Declaration:
        """Of the float operations between the integers."""
        return self.candidate.declaration

    @abstractmethod
    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs, as the numbers that they stand for."""

    @abstractmethod
    def capture(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return every result of integers, under the names of the graph, and the outputs."""

    def own_graph(self, feeds: Mapping[str, Array]) -> OwnGraph:
        """Return what the file means."""
        return OwnGraph(self.graph, self.graph, feeds)

    def close(self) -> None:
        """End the process."""
        self.candidate.close()

    def _grid(self, node: Node) -> tuple[Array, Array, int]:
        """Return scale, zero point and axis of what makes integers."""
        scale, point = (self.graph.initializers[name] for name in node.inputs[1:3])
        return scale, point, node.attributes.get("axis", 0)

    def _integers(self, name: str, numbers: Array) -> Array:
        """Return the integers that stand for numbers."""
        scale, point, dtype = self._along(name, numbers.ndim)
        ends = np.iinfo(dtype)
        return np.clip(np.rint(numbers / scale) + point, ends.min, ends.max).astype(dtype)

    def _along(self, name: str, ndim: int) -> tuple[Array, Array, np.dtype[Any]]:
        scale, point, axis = self.grids[name]
        shape = (-1, *(1,) * (ndim - 1 - axis)) if scale.size > 1 else ()
        return scale.astype(np.float64).reshape(shape), point.astype(np.int64).reshape(shape), point.dtype


class LitertIntegers(IntegerGraph):
    """A ``.tflite`` whose tensors are integers, its input and outputs included."""

    def __init__(self, candidate: LitertCandidate) -> None:
        self.held = held = candidate.model
        shapes = {name: held.shapes[place] for name, place in held.inputs.items()}
        super().__init__(candidate, OnnxGraph.load(litert_graph(held, shapes, list(held.outputs))))

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs."""
        return self._outputs(self._asked("run", feeds))

    def capture(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return what each operator makes, and the input."""
        found = self._asked("capture", feeds)
        return {**{name: found[name] for name in self.grids if name in found}, **self._outputs(found)}

    def _asked(self, method: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
        numbers = only_array(feeds)
        (place,) = self.held.inputs.values()
        name = self.held.names[place]
        given = self._integers(name, numbers) if place in self.held.integers else numbers
        _, arrays = self.candidate.process.ask(method, {"images": given})
        return {**arrays, name: given}

    def _outputs(self, found: Mapping[str, Array]) -> dict[str, Array]:
        return {name: self._numbers(found[name], place) for name, place in self.held.outputs.items()}

    def _numbers(self, integers: Array, place: int) -> Array:
        if place not in self.held.integers:
            return integers
        scale, point, _ = self._along(self.held.names[place], integers.ndim)
        return np.asarray((integers.astype(np.float64) - point) * scale, np.float32)


class OpenVinoIntegers(IntegerGraph):
    """An IR with FakeQuantize, whose results are shown as floats on the grid of the integers."""

    def __init__(self, candidate: PhoneCandidate) -> None:
        layers = read_openvino(candidate.settings.model)
        inputs = {each.names[0]: each.shapes[0] for each in layers if each.kind == "Parameter"}
        ends = [each.inputs[0] for each in layers if each.kind == "Result"]
        outputs = [layers[place].names[port] for place, port in ends]
        super().__init__(candidate, OnnxGraph.load(openvino_graph(layers, inputs, outputs)))

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs."""
        found = self.candidate.run(only_array(feeds))
        return {name: found[name] for name in self.graph.outputs if name in found}

    def capture(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return what each FakeQuantize makes."""
        found = self.candidate.capture(only_array(feeds))
        made = {name: self._integers(name, found[name]) for name in self.grids if name in found}
        return {**made, **{name: found[name] for name in self.graph.outputs if name in found}}


class ExecutorchIntegers(IntegerGraph):
    """A ``.pte`` whose instructions make integers of floats, and floats of them again."""

    def __init__(self, candidate: ExecutorchCandidate) -> None:
        program = candidate.program
        shapes = {f"input {n}": program.tensors[place].shape for n, place in enumerate(program.inputs)}
        super().__init__(candidate, OnnxGraph.load(executorch_graph(program, shapes, [*program.outputs])))

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs."""
        return self.candidate.run(only_array(feeds))

    def capture(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the integers that instructions make, and the outputs."""
        found = self.candidate.capture(only_array(feeds))
        return {name: found[name] for name in (*self.grids, *self.graph.outputs) if name in found}


class MnnIntegers(IntegerGraph):
    """A ``.mnn`` whose tensors have scales; MNN says which operators it computes in integers.

    Parameters
    ----------
    candidate
        Its results are shown as floats on the grid of the integers.

    Raises
    ------
    UnsupportedOperationError
        An operator is not read, or is of integers in an older way.
    ShapeError
        A side of its input is not fixed.
    """

    # Its means are cut off, not rounded; its bilinear factors are 128ths, half a one off along either axis.
    steps_lost: ClassVar = {"AveragePool": 0.6, "GlobalAveragePool": 0.6, "Resize": 2.5}

    def __init__(self, candidate: MnnCandidate) -> None:
        held = read_mnn(candidate.settings.model)
        shapes = {
            held.names[each.outputs[0]]: [*map(int, each.told["dims"])]
            for each in held.operators
            if each.kind == "Input"
        }
        if any(side < 1 for shape in shapes.values() for side in shape):
            raise ShapeError(
                f"{candidate.settings.model} takes {[*shapes.values()]}; fix the sides of its input"
            )
        candidate.capture({name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
        self.operators = held.operators
        self.names = held.names
        meaning = mnn_graph(held, shapes, held.outputs, candidate.in_integers, candidate.given_integers)
        super().__init__(candidate, OnnxGraph.load(meaning))

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs."""
        return self.candidate.run(only_array(feeds))

    def capture(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the results of operators that compute in integers, and the outputs."""
        found = self.candidate.capture(only_array(feeds))
        shown = self._shown([(name, found[name]) for name, kind, *_ in self.candidate.nodes if MADE in kind])
        integers = {
            name: self._integers(name, numbers) for name, numbers in shown.items() if name in self.grids
        }
        return integers | {name: found[name] for name in self.graph.outputs if name in found}

    def _shown(self, made: Sequence[tuple[str, Array]]) -> dict[str, Array]:
        """Return integers by the graph's names: results, and the operand of what has but one."""
        named = dict(made)
        shown = {}
        for each in self.operators:
            given = [array for name, array in made if name.startswith(f"{each.name}{OPERAND}")]
            if given and len(each.inputs) == 1:
                shown[operand_name(each)] = given[-1]
            for number, place in enumerate(each.outputs):
                name = f"{each.name}:{number}" if number else each.name
                if name in named:
                    shown[self.names[place]] = named[name]
        return shown


PICTURE: Sequence[int | str] = (1, "channels", "height", "width")
"""What a model takes of which it is not known."""


class NcnnIntegers(IntegerGraph):
    """A ``.param`` with layers of integers: they make them of floats, and nearly all give floats again.

    So each layer is judged as floats are, on what it was given. A number near the middle of two integers may
    become either.
    """

    integer: ClassVar = False

    def __init__(self, candidate: PhoneCandidate) -> None:
        model = candidate.settings.model
        layers = read_ncnn(model)
        self.ends = ends_of(layers)
        outputs = [f"output {place}" for place in range(len(self.ends))]
        shapes = {name: shape or PICTURE for name, shape in candidate.settings.shapes.items()}
        shapes = shapes or {"input": PICTURE}
        meaning = ncnn_graph(layers, shapes, outputs, as_it_runs=True)
        shown = {top for layer in layers for top in layer.tops} | {*outputs}
        graph = OnnxGraph.load(meaning)
        hidden = {name for node in graph.nodes for name in node.outputs} - shown
        super().__init__(candidate, replace(graph, hidden=frozenset(hidden)))

    @property
    def tolerance(self) -> str:
        """Of the float operations, and of the integers between."""
        return f"{self.declaration}; what is near the middle of two integers may become either"

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs, with an axis for the batch."""
        return self._outputs(self.candidate.run(only_array(feeds)))

    def capture(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return every blob, and the outputs."""
        found = self.candidate.capture(only_array(feeds))
        return found | self._outputs(found)

    def _outputs(self, found: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs, with an axis for the batch."""
        return {f"output {place}": found[name][None] for place, name in enumerate(self.ends) if name in found}


_MADE: Mapping[str, Callable[..., IntegerGraph]] = {
    ".mnn": MnnIntegers,
    ".param": NcnnIntegers,
    ".pte": ExecutorchIntegers,
    ".tflite": LitertIntegers,
    ".xml": OpenVinoIntegers,
}
_RUNTIMES = {
    each.suffix: each
    for each in (EXECUTORCH_RUNTIME, LITERT_RUNTIME, MNN_RUNTIME, NCNN_RUNTIME, OPENVINO_RUNTIME)
}
INTEGERS = tuple(_MADE)
"""Suffixes of the files that are read so."""


def integer_graph(
    model: Path, text: str, interpreter: Sequence[str] = (), timeout: float | None = None
) -> IntegerGraph:
    """Return the candidate of a file of integers, ``NAME:option=value,…`` saying how it is run.

    Raises
    ------
    ConfigurationError
        It is another runtime's file, or its integers are not those of the whole model.
    MobileInstError
        As of `PhoneRuntime.candidate`.
    """
    runtime = _RUNTIMES[model.suffix]
    name, _, options = text.partition(":")
    if name != runtime.name:
        raise ConfigurationError(f"{model} is a model of {runtime.name}; give --candidate {runtime.name}:…")
    if runtime.settings(f"{model},{options}").values["weights"] != STATIC:
        raise ConfigurationError(
            f"--graph-only judges a {model.suffix} if all of it is of integers: declare weights={STATIC}; "
            "any other is judged beside its network"
        )
    made = runtime.candidate(f"{model},{options}", interpreter, timeout)
    return _MADE[model.suffix](made)
