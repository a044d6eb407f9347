"""A quantised graph beside the float graph it was made from: each layer's noise, expected or a mistake.

Both are computed in float64. Each step of the float graph is computed on what the quantised one has in place
of its operands: what that has of the result differs by the layer's own quantisation. Its scales say how far
it may: half a step of each weight, carried to the result, and half a step of the result; what lies beyond
the range is cut off. More is a mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from conformance.bounds.carry import passed_on
from conformance.bounds.worst_element import worst_of
from conformance.graph.evaluation import evaluate_node, run
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.recorded import graph_recording
from conformance.judge.any_graph import digest_of, model_of
from conformance.judge.replay import DATA_MOVEMENT
from conformance.reports.report import Comparison, Fault, InputReport, Noise, Report
from refimpl import Recording, Step
from refimpl.graph import Node
from refimpl.ops import OPERATIONS, TRAITS, Trait
from refimpl.ops.operation import Array

RESULT_GRID = {"QuantizeLinear": (1, 2), "QLinearConv": (6, 7), "QLinearMatMul": (6, 7)}
"""Operator → places of the operands that are its result's scale and zero point."""
WEIGHT_GRID = {"DequantizeLinear": (0, 1, 2), "QLinearConv": (3, 4, 5), "QLinearMatMul": (3, 4, 5)}
"""Operator → places of integer weights, their scale and zero point."""
QUANTISED = {*RESULT_GRID, *WEIGHT_GRID, "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"}
INPUT = "input"
"""What stands where a row names an operator, if none makes the tensor."""
SLACK = 1.001
"""Half steps: scales are float32, and ties go either way."""
SATURATES = 10.0
"""How many times the noise of rounding what is cut off may add before the range is called a mistake."""
ASKED = 5
"""Of how many layers, those with most noise of their own, it is computed what each alone costs."""


def is_quantised(graph: OnnxGraph) -> bool:
    """Tell whether a graph has operators on integers that stand for floats."""
    return any(node.op_type in QUANTISED for node in graph.nodes)


def verify_quantised(
    after: OnnxGraph,
    before: OnnxGraph,
    feeds: Mapping[str, Array],
    *,
    label: str,
    names: tuple[str, str] = ("candidate", "reference"),
    progress: Callable[[str], None] = lambda stage: None,
) -> Report:
    """Judge a quantised graph by the noise that its scales let expect.

    Parameters
    ----------
    after
        The quantised graph: DequantizeLinear and QuantizeLinear, or operators on integers.
    before
        The float graph that was quantised.
    feeds
        Input → array; of the kind that ranges were taken from.
    label, names
        What to call the input, and the two graphs.
    progress
        Called with a few words before each stage.

    Returns
    -------
    Report
        Its steps have ``noise``; outputs are among them.

    Raises
    ------
    ShapeError, UnsupportedOperationError
        As of `conformance.judge.against.verify_against`.
    """
    progress("float64")
    recording, quantised = graph_recording(before, feeds), graph_recording(after, feeds)
    judge = _Judge(recording, _Grids(quantised))
    progress("layer by layer")
    judge.judge()
    progress("what each layer costs")
    rows = judge.with_costs()
    first = next((row for row in rows if row.verdict == "fail"), None)
    fault = None if first is None else _fault(first, recording, quantised)
    shape = next((array.shape for array in feeds.values()), ())
    item = InputReport(
        *(label, shape, digest_of(feeds), [], rows, [], fault),
        remarks=list(_remarks(recording, rows)),
        evidence=[
            said for said in judge.said if first is None or said.startswith(tuple(judge.blamed(first)))
        ],
    )
    tolerance = (
        "each layer may differ by half a step of its weights, carried to its result, half a step of the "
        f"result, and what its range cuts off, up to {SATURATES:g} × the noise of rounding"
    )
    return Report([item], names[0], model_of(after), tolerance, reference=names[1])


def _fault(row: Comparison, recording: Recording, quantised: Recording) -> Fault:
    maker = recording.graph.producer(row.name)
    theirs = (quantised.graph.producer(name) for name in (row.name, row.candidate or ""))
    nodes = tuple(dict.fromkeys(node.name for node in theirs if node is not None))
    return Fault(row.name, row.operation, "meaning", nodes, (maker.name,) if maker else ())


def _remarks(recording: Recording, rows: list[Comparison]) -> Iterator[str]:
    """Say what is left of each output, and which layers cost most of it."""
    right = all(row.verdict != "fail" for row in rows)
    what = "quantisation's own error, as its scales let expect" if right else "signal to noise"
    left = {row.name: row.noise for row in rows if row.noise}
    outputs = [f"{name} {left[name].total:.1f} dB" for name in recording.outputs.values() if name in left]
    if outputs:
        yield f"{what}: {', '.join(outputs)}"
    costly = [(row.noise.alone, row.name) for row in rows if row.noise and row.noise.alone is not None]
    if costly:
        yield "costs most, alone: " + ", ".join(
            f"{name} ({alone:.1f} dB)" for alone, name in sorted(costly)[:3]
        )


@dataclass(frozen=True)
class _Grid:
    """The numbers that integers stand for.

    Attributes
    ----------
    step, point
        Scale and zero point, as they broadcast to the integers.
    lowest, highest
        The ends of their range.
    """

    step: Array
    point: Array
    lowest: Array
    highest: Array

    def numbers(self, integers: Array) -> Array:
        """Return what integers stand for."""
        return np.asarray((integers.astype(np.float64) - self.point) * self.step)


def _grid(integers: Array, scale: Array, point: Array | None, axis: int) -> _Grid:
    def along(x: Array) -> Array:
        many = x.size > 1
        return x.reshape(-1, *(1,) * (integers.ndim - 1 - axis % integers.ndim)) if many else x.reshape(())

    limits = np.iinfo(integers.dtype)
    step = along(np.asarray(scale, np.float64))
    zero = np.zeros(()) if point is None else along(np.asarray(point, np.float64))
    return _Grid(step, zero, (limits.min - zero) * step, (limits.max - zero) * step)


class _Grids:
    """What the quantised graph has in place of the float graph's tensors."""

    def __init__(self, quantised: Recording) -> None:
        self.run = quantised
        self.tensors = quantised.tensors
        self.quantisers: dict[str, Step] = {}
        self.stands_for: dict[str, str] = {}
        for step in quantised.steps:
            if step.op_type in ("QuantizeLinear", "DynamicQuantizeLinear"):
                self.quantisers.setdefault(step.inputs[0], step)

    def result(self, name: str) -> tuple[str, Array, _Grid | None] | None:
        """Return the tensor in a float tensor's place, its numbers, and their grid if they lie on one."""
        name = self.stands_for.get(name, name)
        step = self.quantisers.get(name) or self.run.graph.producer(f"{name}_quantized")
        grid = None if step is None else self._of_result(step)
        if step is not None and grid is not None:
            integers = step.outputs[0]
            users = self.run.graph.consumers.get(integers, [])
            back = [user.outputs[0] for user in users if user.op_type == "DequantizeLinear"]
            used = self.tensors[back[0]] if back else grid.numbers(self.tensors[integers])
            return integers, used, grid
        values, maker = self.tensors.get(name), self.run.graph.producer(name)
        if values is None or values.dtype.kind != "f":
            return None
        if maker is not None and maker.op_type == "DequantizeLinear":
            return maker.inputs[0], values, self.read_by(maker, maker.inputs[0])
        return name, values, None

    def _of_result(self, step: Node) -> _Grid | None:
        integers = self.tensors[step.outputs[0]]
        if step.op_type == "DynamicQuantizeLinear":
            return _grid(integers, self.tensors[step.outputs[1]], self.tensors[step.outputs[2]], 0)
        if step.op_type not in RESULT_GRID or integers.dtype.kind not in "iu":
            return None
        return self._at(step, integers, RESULT_GRID[step.op_type])

    def float_operands(self, step: Node) -> dict[str, Array]:
        """Return the operands of a step that are floats there, though quantised elsewhere."""
        maker = self.run.graph.producer(step.outputs[0])
        taken = () if maker is None else maker.inputs
        names = [name for name in step.uses if name in taken and name in self.quantisers]
        return {name: self.tensors[name] for name in names}

    def read_by(self, step: Node, integers: str) -> _Grid:
        """Return the grid with which a DequantizeLinear reads integers."""
        return self._at(step, self.tensors[integers], (1, 2))

    def _at(self, step: Node, integers: Array, places: tuple[int, int]) -> _Grid:
        scale, point = (
            self.tensors.get(step.inputs[place]) if place < len(step.inputs) else None for place in places
        )
        assert scale is not None
        axis = int(
            step.attributes.get("axis", 1 if step.op_type in ("QuantizeLinear", "DequantizeLinear") else 0)
        )
        return _grid(integers, scale, point, axis)

    def weights(self, constants: Mapping[str, Array]) -> dict[str, tuple[Array, _Grid]]:
        """Return the float graph's constants that are integers here, with these and their grids."""
        found: dict[str, tuple[Array, _Grid]] = {}
        held = set(self.run.weights)
        for step in (step for step in self.run.steps if step.op_type in WEIGHT_GRID):
            place, scale, point = WEIGHT_GRID[step.op_type]
            integers = step.inputs[place]
            name = _longest_prefix(integers, constants) if integers in held else None
            if name is not None and self.tensors[integers].size == constants[name].size:
                found[name] = self.tensors[integers], self._at(step, self.tensors[integers], (scale, point))
        # Where only integers are multiplied, no operator names the weights' scale.
        for name in constants.keys() - found.keys():
            parts = (self.tensors.get(f"{name}_{part}") for part in ("quantized", "scale", "zero_point"))
            array, step_size, zero = parts
            if array is not None and step_size is not None and array.size == constants[name].size:
                found[name] = array, _grid(array, step_size, zero, -1)
        return found


def _longest_prefix(name: str, names: Mapping[str, Array]) -> str | None:
    return max((each for each in names if name.startswith(each)), key=len, default=None)


@dataclass
class _Judge:
    """The float graph computed on what the quantised one has.

    Attributes
    ----------
    recording
        The float graph's own run.
    grids
        The quantised one's.
    rows
        A row for each tensor, in order.
    said
        What is wrong with scales and zero points.
    """

    recording: Recording
    grids: _Grids
    rows: list[Comparison] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    noises: dict[str, Array] = field(default_factory=dict)
    wrong: set[str] = field(default_factory=set)

    def judge(self) -> None:
        """Go through the steps."""
        recording = self.recording
        self.moving = recording.graph.dependent(recording.inputs.values())
        names = (*recording.weights, *recording.constants)
        constants = {
            name: recording.tensors[name] for name in names if recording.tensors[name].dtype.kind == "f"
        }
        self.values = {name: recording.tensors[name] for name in names}
        self.errors: dict[str, Array | float | None] = {}
        for name, (integers, grid) in self.grids.weights(constants).items():
            self.errors[name] = np.broadcast_to(SLACK * grid.step / 2, constants[name].shape)
            self._check_weight(name, constants[name], integers, grid)
        for name in recording.inputs.values():
            self._place(name, INPUT, recording.tensors[name], 0.0, 0.0)
        for step in recording.steps:
            self._compute(step)

    def _check_weight(self, name: str, weight: Array, integers: Array, grid: _Grid) -> None:
        problem = weight_problem(weight, integers.reshape(weight.shape), grid)
        if problem:
            self.wrong.add(name)
            self.said.append(f"{name}: {problem}")

    def _compute(self, step: Step) -> None:
        operands = step.operands({**self.values, **self.grids.float_operands(step)})
        outputs = evaluate_node(step, operands, np.float64)
        before = [self.errors.get(name, 0.0) for name in step.inputs]
        carried = passed_on(step, list(operands), before, outputs)
        variance = _variance(step, operands, before, outputs, carried)
        for name, value, error in zip(step.outputs, outputs, carried, strict=False):
            if value.dtype.kind == "f" and value.size:
                self._place(name, step.op_type, value, error, variance)
            else:
                self.values[name], self.errors[name] = value, error

    def _place(
        self, name: str, operation: str, value: Array, error: Array | float | None, variance: Array | float
    ) -> None:
        """Compare a tensor with what the quantised graph has, and go on with that."""
        found = None if self._is_cut_off_behind(name) else self.grids.result(name)
        if found is None or found[1].size != value.size:
            self.values[name], self.errors[name] = value, error
            if operation not in (INPUT, *DATA_MOVEMENT) and name in self.moving:
                self.rows.append(Comparison.absent(name, operation, value.shape, "absent"))
            return
        own, held, grid = found
        held = held.reshape(value.shape).astype(np.float64)
        self.values[name], self.errors[name] = held, 0.0
        if name not in self.moving:
            if grid is not None:
                self._check_weight(name, value, self.grids.tensors[own], grid)
            return
        self.noises[name] = held - value
        self.rows.append(self._row(name, operation, own, held, value, error, variance, grid))

    def _is_cut_off_behind(self, name: str) -> bool:
        """Tell whether a tensor's integers stand for the ReLU or Clip behind it, by their range."""
        users = self.recording.graph.consumers.get(name, [])
        after = users[0].outputs[0] if len(users) == 1 and users[0].op_type in ("Relu", "Clip") else None
        if after is None or self.grids.result(after) is not None:
            return False
        self.grids.stands_for[after] = name
        return True

    def _row(
        self,
        name: str,
        operation: str,
        own: str,
        held: Array,
        value: Array,
        error: Array | float | None,
        variance: Array | float,
        grid: _Grid | None,
    ) -> Comparison:
        truth = self.recording.tensors[name]
        beyond = np.zeros(value.shape) if grid is None else _beyond(value, grid)
        half, least = (0.0, 0.0) if grid is None else (SLACK * grid.step / 2, grid.step**2 / 12)
        allowed = (np.inf if error is None else error) + half + beyond + 1e-6 * np.abs(value)
        worst = worst_of(held, value, np.broadcast_to(allowed, value.shape))
        row = Comparison.judged(
            *(name, operation, own, truth, float(np.abs(held - truth).max(initial=0.0)), worst.index),
            introduced=worst.error,
            allowed=worst.bound if worst.judged else None,
            utilisation=worst.utilisation if worst.judged else None,
        )
        rounding = float(np.mean(variance + least))
        noise = Noise(
            total=decibels(truth, held - truth),
            introduced=decibels(value, held - value),
            expected=_ratio(float(np.mean(np.square(value))), rounding),
            saturated=float(np.mean(beyond > 0)),
        )
        row = replace(row, noise=noise)
        if row.verdict == "fail" and grid is not None:
            self._say_of_grid(name, own, grid)
        cut_off = float(np.mean(np.square(beyond)))
        if row.verdict == "pass" and cut_off > SATURATES * rounding > 0:
            largest = float(np.abs(value).max())
            reason = (
                f"its range {_ends(grid)} cuts off {noise.saturated:.1%} of its numbers, up to {largest:.3g}"
            )
            self.said.append(f"{name}: {reason}")
            return row.made_systematic(reason)
        uses_wrong = self.wrong.intersection(self._operands_of(name))
        return row.made_systematic(f"its weight {min(uses_wrong)} is wrong") if uses_wrong else row

    def _operands_of(self, name: str) -> tuple[str, ...]:
        maker = self.recording.graph.producer(name)
        return () if maker is None else tuple(maker.inputs)

    def _say_of_grid(self, name: str, integers: str, grid: _Grid) -> None:
        """Say how what reads the integers reads them otherwise than they were written."""
        for user in self.grids.run.graph.consumers.get(integers, []):
            if user.op_type != "DequantizeLinear":
                continue
            other = self.grids.read_by(user, integers)
            if not np.array_equal(other.step, grid.step):
                factor = float(np.median(other.step / grid.step))
                self.said.append(f"{name}: {user.name} reads it with {factor:.6g} × its scale")
            if not np.array_equal(other.point, grid.point):
                shift = float(np.median(other.point - grid.point))
                self.said.append(f"{name}: {user.name} reads it with its zero point {shift:+g}")

    def blamed(self, row: Comparison) -> set[str]:
        """Return what the sentences about a row begin with."""
        return {f"{name}:" for name in (row.name, *self._operands_of(row.name))}

    def with_costs(self) -> list[Comparison]:
        """Return the rows, those with most noise of their own with what it alone costs the outputs."""
        noisy = [row for row in self.rows if row.noise and np.isfinite(row.noise.introduced)]
        asked = {
            row.name
            for row in sorted(noisy, key=lambda row: row.noise.introduced if row.noise else 0)[:ASKED]
        }
        return [
            replace(row, noise=replace(row.noise, alone=self._alone(row.name)))
            if row.noise and row.name in asked
            else row
            for row in self.rows
        ]

    def _alone(self, name: str) -> float:
        """Return the worst output's signal to noise if nothing but one tensor were off."""
        recording, graph = self.recording, self.recording.graph
        behind = graph.dependent([name])
        nodes = [
            step
            for step in recording.steps
            if not behind.isdisjoint(step.outputs) and name not in step.outputs
        ]
        given = {**recording.tensors, name: recording.tensors[name] + self.noises[name]}
        made = run(nodes, given, lambda node, operands: evaluate_node(node, operands, np.float64))
        outputs = [tensor for tensor in recording.outputs.values() if tensor in behind]
        floats = [tensor for tensor in outputs if recording.tensors[tensor].dtype.kind == "f"]
        truths = recording.tensors
        return min((decibels(truths[each], made[each] - truths[each]) for each in floats), default=np.inf)


def _beyond(value: Array, grid: _Grid) -> Array:
    return np.asarray(np.maximum(np.maximum(grid.lowest - value, value - grid.highest), 0.0))


def _ends(grid: _Grid | None) -> str:
    assert grid is not None
    return f"{float(np.min(grid.lowest)):.3g} … {float(np.max(grid.highest)):.3g}"


def _variance(
    step: Step,
    operands: tuple[Array | None, ...],
    errors: list[Array | float | None],
    outputs: tuple[Array, ...],
    carried: tuple[Array | float | None, ...],
) -> Array | float:
    """Return the expected square of what the operands' half steps make of the first result."""
    if Trait.PRODUCTS in TRAITS[step.op_type] and step.op_type != "Einsum":
        pairs = [
            None
            if x is None
            else (np.square(x), np.broadcast_to(np.square(0.0 if e is None else e) / 3, x.shape))
            for x, e in zip(operands, errors, strict=True)
        ]
        first, second, *rest = pairs
        assert first is not None
        assert second is not None
        attributes = {
            key: value**2 if key in ("alpha", "beta") else value for key, value in step.attributes.items()
        }
        function = OPERATIONS[step.op_type]
        addend = [None if pair is None else pair[1] for pair in rest]
        total = function(first[0], second[1], *addend, **attributes)
        return np.asarray(total + function(first[1], second[0], **attributes))
    bound = carried[0] if carried else 0.0
    return 0.0 if bound is None else np.square(bound) / 3


def decibels(signal: Array, noise: Array) -> float:
    """Return the ratio of signal to noise; infinite without noise."""
    return _ratio(float(np.sum(np.square(signal, dtype=np.float64))), float(np.sum(np.square(noise))))


def _ratio(signal: float, noise: float) -> float:
    if noise == 0:
        return np.inf
    return float(10 * np.log10(signal / noise)) if signal > 0 else -np.inf


def weight_problem(weight: Array, integers: Array, grid: _Grid) -> str:
    """Say what is wrong with a weight's scale or zero point; empty if each number is within half a step.

    Parameters
    ----------
    weight
        As the float graph has it.
    integers
        What stands for it, in its shape.
    grid
        What they stand for.
    """
    held = grid.numbers(integers)
    limits = np.iinfo(integers.dtype)
    inside = (integers > limits.min) & (integers < limits.max)
    step = np.broadcast_to(grid.step, weight.shape)
    wrong = (np.abs(held - weight) > SLACK * step / 2 + 1e-7 * np.abs(weight)) & inside
    if not wrong.any():
        return ""
    axis = _axis_of(grid.step, weight.ndim)
    if axis is None or weight.ndim == 1:
        return _how(weight, held, step)
    by_channel = [np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1) for x in (weight, held, step, wrong)]
    channels = np.flatnonzero(by_channel[3].any(axis=1))
    first, more = int(channels[0]), f"; so are {channels.size - 1} more" if channels.size > 1 else ""
    factors = np.array([_factor(*pair) for pair in zip(by_channel[0], by_channel[1], strict=True)])
    right = by_channel[2][:, 0] / factors
    others = [other for other in channels[1:] if np.isclose(right[other], by_channel[2][first, 0], rtol=1e-2)]
    that = f", that of channel {others[0]}" if others else ""
    said = _how(*(x[first] for x in by_channel[:3]))
    return f"channel {first}: {said}{that if 'scale' in said else ''}{more}"


def _axis_of(step: Array, ndim: int) -> int | None:
    """Return the axis along which a scale varies; None if it is one number."""
    if step.size == 1:
        return None
    return ndim - step.ndim + int(np.argmax(step.shape))


def _factor(weight: Array, held: Array) -> float:
    """Return by what the numbers held are the weight's."""
    size = float(np.vdot(weight, weight))
    return float(np.vdot(weight, held)) / size if size else 1.0


def _how(weight: Array, held: Array, step: Array) -> str:
    """Say how a wrong channel, or the whole weight, is wrong: by its zero point, its scale, or otherwise."""
    shift = round(float(np.median((held - weight) / step)))
    if shift and (np.abs(held - weight - shift * step) <= SLACK * step / 2).all():
        return f"its zero point is {abs(shift)} too {'small' if shift > 0 else 'large'}"
    factor = _factor(weight, held)
    if (np.abs(held / factor - weight) <= SLACK * step / abs(factor)).all():
        return f"its scale is {factor:.4g} × what its numbers need"
    return f"its numbers are up to {float((np.abs(held - weight) / step).max()):.3g} steps off"
