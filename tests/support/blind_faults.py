"""How the judge does on mistakes never seen before: drawn by a seed, in another implementation's exports.

`python tests/support/blind_faults.py --count 60 --seed 1` alters one node or constant of an export, by either
of PyTorch's exporters, of the independent modules; where and how is chosen by the seed, from kinds that know
nothing of the catalogue. The table says by kind how many were detected, localised, described, and how many
verdicts mislead.
"""

from __future__ import annotations

import argparse
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate
from conformance.evidence.fault_score import EXPORTERS, NOT_EXPORTED, Case, case, told
from conformance.evidence.faulty_models import verifying
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.network import verify
from conformance.reports.report import InputReport
from refimpl.errors import MobileInstError

Array = NDArray[Any]
NETWORKS = ("topformer-tiny", "seaformer-tiny", "sparseinst-topformer-tiny")
WEIGHTS = 5
"""Their seed."""
HARM = 1e-3
"""Of an output's largest element: a mistake that moves no output further is not counted."""
UNARY = ("Relu", "Sigmoid", "Tanh", "HardSwish", "Softplus", "Neg", "Abs", "Elu", "Identity")
BINARY = ("Add", "Sub", "Mul")


class NotHere(Exception):
    """The kind of mistake cannot be at the place that was drawn."""


# --- what goes wrong ------------------------------------------------------------------------------

Alter = Callable[[Array, np.random.Generator], Array]


def _rows(w: Array, rng: np.random.Generator) -> slice:
    start = int(rng.integers(0, max(len(w) - 1, 1)))
    return slice(start, start + max(len(w) // 4, 1))


def _scaled(w: Array, rng: np.random.Generator) -> Array:
    w[_rows(w, rng)] *= rng.uniform(1.1, 1.6)
    return w


def _everywhere(w: Array, rng: np.random.Generator) -> Array:
    return w * rng.uniform(0.5, 0.95)


def _negated(w: Array, rng: np.random.Generator) -> Array:
    w[_rows(w, rng)] *= -1
    return w


def _emptied(w: Array, rng: np.random.Generator) -> Array:
    w[_rows(w, rng)] = 0
    return w


def _shuffled(w: Array, rng: np.random.Generator) -> Array:
    return np.take(w, rng.permutation(len(w)), 0)


def _rolled(w: Array, rng: np.random.Generator) -> Array:
    axis = int(rng.integers(w.ndim))
    return np.roll(w, int(rng.integers(1, max(w.shape[axis], 2))), axis)


def _mirrored(w: Array, rng: np.random.Generator) -> Array:
    return np.flip(w, int(rng.integers(w.ndim)))


def _few_bits(w: Array, rng: np.random.Generator) -> Array:
    step = np.abs(w).max() / rng.choice([7, 15, 31])
    return np.rint(w / step) * step


def _noisy(w: Array, rng: np.random.Generator) -> Array:
    return w + rng.normal(size=w.shape) * 0.05 * np.abs(w).max()


def _one(w: Array, rng: np.random.Generator) -> Array:
    place = tuple(int(rng.integers(length)) for length in w.shape)
    w[place] += 3 * np.abs(w).max()
    return w


def _shifted(w: Array, rng: np.random.Generator) -> Array:
    return w + rng.uniform(0.1, 0.3) * np.abs(w).max()


CONSTANTS: dict[str, Alter] = {
    "slice scaled": _scaled,
    "scaled": _everywhere,
    "slice negated": _negated,
    "slice zero": _emptied,
    "rows shuffled": _shuffled,
    "rolled": _rolled,
    "mirrored": _mirrored,
    "few bits": _few_bits,
    "noise": _noisy,
    "one element": _one,
    "shifted": _shifted,
}


def alter_constant(model: onnx.ModelProto, rng: np.random.Generator, kind: str) -> None:
    """Alter a float constant of at least eight elements."""
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    floats = [name for name, array in arrays.items() if array.dtype == np.float32 and array.size >= 8]
    name = floats[int(rng.integers(len(floats)))]
    array = CONSTANTS[kind](arrays[name].copy(), rng).astype(np.float32)
    _store(model, name, array)


def swap_constants(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Give a constant the values of another of its shape."""
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    floats = [name for name, array in arrays.items() if array.dtype == np.float32 and array.size >= 8]
    name = floats[int(rng.integers(len(floats)))]
    alike = [other for other in floats if other != name and arrays[other].shape == arrays[name].shape]
    if not alike:
        raise NotHere
    _store(model, name, arrays[alike[int(rng.integers(len(alike)))]])


def _store(model: onnx.ModelProto, name: str, array: Array) -> None:
    (tensor,) = (each for each in model.graph.initializer if each.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))


def _drawn(model: onnx.ModelProto, rng: np.random.Generator, operators: Sequence[str]) -> tuple[int, Any]:
    """Return a node of an operator, itself drawn so that rare ones come too."""
    present = sorted({node.op_type for node in model.graph.node} & set(operators))
    if not present:
        raise NotHere
    op_type = present[int(rng.integers(len(present)))]
    places = [i for i, node in enumerate(model.graph.node) if node.op_type == op_type]
    place = places[int(rng.integers(len(places)))]
    return place, model.graph.node[place]


FLOATS = ("epsilon", "alpha", "beta")
WAYS: dict[str, Sequence[Any]] = {
    "mode": ("nearest", "linear", "cubic"),
    "coordinate_transformation_mode": ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"),
    "count_include_pad": (0, 1),
    "approximate": ("none", "tanh"),
}


def alter_attribute(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Give an attribute another value."""
    operators = ("Conv", "MaxPool", "AveragePool", "Resize", "BatchNormalization", "LayerNormalization")
    _, node = _drawn(model, rng, (*operators, "HardSigmoid", "Softmax", "Gelu", "LeakyRelu"))
    names = [
        each.name for each in node.attribute if each.name in (*FLOATS, *WAYS, "pads", "dilations", "axis")
    ]
    if not names:
        raise NotHere
    name = names[int(rng.integers(len(names)))]
    value = helper.get_node_attr_value(node, name)
    if name in FLOATS:
        other: Any = value * rng.choice([0.5, 1.3, 1e3 if name == "epsilon" else 2.0])
    elif name == "axis":
        other = value - 1
    elif name in WAYS:
        text = value.decode() if isinstance(value, bytes) else value
        others = [way for way in WAYS[name] if way != text]
        other = others[int(rng.integers(len(others)))]
    elif name == "pads" and any(value):
        half = len(value) // 2
        other = [0] * half + [a + b for a, b in zip(value[:half], value[half:], strict=True)]
    else:
        raise NotHere
    (old,) = (each for each in node.attribute if each.name == name)
    node.attribute.remove(old)
    node.attribute.append(helper.make_attribute(name, other))


def other_function(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Compute another function of one operand."""
    _, node = _drawn(model, rng, (*UNARY, "HardSigmoid", "Clip", "Erf", "Softmax"))
    others = [name for name in UNARY if name != node.op_type]
    node.op_type = others[int(rng.integers(len(others)))]
    del node.input[1:], node.attribute[:]


def other_arithmetic(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Compute another operation of two operands."""
    _, node = _drawn(model, rng, BINARY)
    others = [name for name in BINARY if name != node.op_type]
    node.op_type = others[int(rng.integers(len(others)))]


def left_out(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Leave out a node: its first operand is handed on."""
    operators = (
        "Relu",
        "Clip",
        "Softmax",
        "Add",
        "Mul",
        "LayerNormalization",
        "BatchNormalization",
        "Sigmoid",
    )
    _, node = _drawn(model, rng, (*operators, "HardSigmoid", "HardSwish", "Div"))
    node.op_type = "Identity"
    del node.input[1:], node.attribute[:]


def twice(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Compute a node on its own result once more."""
    operators = (
        "Softmax",
        "LayerNormalization",
        "BatchNormalization",
        "Sigmoid",
        "HardSigmoid",
        "Add",
        "Mul",
    )
    place, node = _drawn(model, rng, operators)
    again = onnx.NodeProto()
    again.CopyFrom(node)
    again.name = "again"
    node.output[0] = "once"
    again.input[0] = "once"
    model.graph.node.insert(place + 1, again)


def inserted(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Do something to a node's result that should not be done."""
    place, node = _drawn(
        model, rng, ("Conv", "MatMul", "Add", "Relu", "Resize", "LayerNormalization", "Gemm")
    )
    name, node.output[0] = node.output[0], "before"
    extras: list[Callable[[], onnx.NodeProto]] = [
        lambda: helper.make_node(UNARY[int(rng.integers(len(UNARY) - 1))], ["before"], [name], name="extra"),
        lambda: helper.make_node("Mul", ["before", "factor"], [name], name="extra"),
        lambda: helper.make_node("Clip", ["before", "", "factor"], [name], name="extra"),
    ]
    extra = extras[int(rng.integers(len(extras)))]()
    factor = np.float32(rng.uniform(0.2, 0.9))
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(factor), "factor"))
    model.graph.node.insert(place + 1, extra)


def rewired(model: onnx.ModelProto, rng: np.random.Generator, captured: Mapping[str, Array]) -> None:
    """Feed a node another tensor of the same shape."""
    place, node = _drawn(model, rng, ("Conv", "Add", "MatMul", "Concat", "Mul", "Relu"))
    before = [name for other in model.graph.node[:place] for name in other.output]
    operands = [i for i, name in enumerate(node.input) if name in before and name in captured]
    if not operands:
        raise NotHere
    which = operands[int(rng.integers(len(operands)))]
    shape = captured[node.input[which]].shape
    alike = [
        name
        for name in before
        if name in captured
        and captured[name].shape == shape
        and not np.array_equal(captured[name], captured[node.input[which]])
    ]
    if not alike:
        raise NotHere
    node.input[which] = alike[int(rng.integers(len(alike)))]


KINDS: dict[str, Callable[[onnx.ModelProto, np.random.Generator, Mapping[str, Array]], None]] = {
    **{
        f"constant: {kind}": (lambda model, rng, _, kind=kind: alter_constant(model, rng, kind))
        for kind in CONSTANTS
    },
    "constant: of another": lambda model, rng, _: swap_constants(model, rng),
    "attribute": lambda model, rng, _: alter_attribute(model, rng),
    "other function": lambda model, rng, _: other_function(model, rng),
    "other arithmetic": lambda model, rng, _: other_arithmetic(model, rng),
    "left out": lambda model, rng, _: left_out(model, rng),
    "twice": lambda model, rng, _: twice(model, rng),
    "inserted": lambda model, rng, _: inserted(model, rng),
    "rewired": rewired,
}

# --- the score ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Blind:
    """One unseen mistake, judged."""

    kind: str
    network: str
    exporter: str
    number: int
    detected: bool
    localised: bool
    described: bool
    misleading: bool
    expected: str | None
    report: InputReport
    model: onnx.ModelProto


def trials(count: int, seed: int, start: int = 0) -> Iterator[Blind]:
    """Draw mistakes from the ``start``-th on until ``count`` do harm, and judge each; kinds take turns."""
    done, number = 0, start
    while done < count:
        kind = list(KINDS)[number % len(KINDS)]
        found = trial(kind, seed, number)
        number += 1
        if found is not None:
            done += 1
            yield found


def trial(kind: str, seed: int, number: int) -> Blind | None:
    """Judge one mistake; None where it has no place, cannot run or does no harm."""
    rng = np.random.default_rng((seed, number))
    network = NETWORKS[int(rng.integers(len(NETWORKS)))]
    exporters = [name for name in EXPORTERS[1:] if network not in NOT_EXPORTED.get(name, ())]
    exporter = exporters[int(rng.integers(len(exporters)))]
    it = case(network, exporter, WEIGHTS)
    model = onnx.ModelProto()
    model.CopyFrom(it.model)
    try:
        KINDS[kind](model, rng, it.captured)
        del model.graph.value_info[:]
        candidate = OnnxRuntimeCandidate(OnnxGraph.load(model), threads=1)
        outputs, captured = candidate.run(it.images), candidate.capture(it.images)
    except (NotHere, MobileInstError):
        return None
    if not _does_harm(it, outputs):
        return None
    report = verify(candidate, it.config, it.weights, {"scene": it.images}).leading
    expected = _expected(it, captured)
    blamed = it.held(report.first_fault.step) if report.first_fault else None
    described, misleading = told(report, it.beside(expected), blamed == expected)
    failed = report.verdict == "fail"
    placed = blamed == expected
    return Blind(
        kind, network, exporter, number, failed, placed, described, misleading, expected, report, model
    )


def _does_harm(it: Case, outputs: Mapping[str, Array]) -> bool:
    return any(
        outputs[name].shape != it.captured[name].shape
        or not np.isfinite(outputs[name]).all()
        or np.abs(outputs[name] - it.captured[name]).max() > HARM * np.abs(it.captured[name]).max()
        for name in outputs
    )


def _expected(it: Case, captured: Mapping[str, Array]) -> str | None:
    """Return the first step whose tensor, as it was before the mistake, is held under no name any more."""
    held = {(array.shape, array.tobytes()) for array in captured.values()}
    for step, name in it.places.items():
        right_one = it.captured[name]
        if (right_one.shape, right_one.tobytes()) not in held:
            return step
    return None


def table(found: Sequence[Blind]) -> str:
    """Return the score by kind, in Markdown."""
    lines = ["| mistake | judged | detected | localised | described | misleading |", "|---|" + "--:|" * 5]
    kinds = Counter(each.kind for each in found)
    for kind in [*kinds, "all"]:
        group = [each for each in found if kind in (each.kind, "all")]
        counts = [
            sum(getattr(each, name) for each in group)
            for name in ("detected", "localised", "described", "misleading")
        ]
        lines.append(f"| {kind} | {len(group)} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines)


def write(found: Sequence[Blind], folder: Path) -> None:
    """Write the models, what judges them, and the commands, which write Markdown and JSON beside them."""
    folder.mkdir()
    commands = []
    for place, each in enumerate(found, start=1):
        it = case(each.network, each.exporter, WEIGHTS)
        onnx.save(each.model, folder / f"{place:02}.onnx")
        it.weights.save(folder / f"{each.network}.safetensors")
        np.save(folder / f"{each.network}.npy", it.images)
        words = verifying(folder, each.network, f"{place:02}.onnx")
        words += ["--markdown", str(folder / f"{place:02}.md"), "--json", str(folder / f"{place:02}.json")]
        commands.append(shlex.join(words))
    (folder / "commands.sh").write_text("\n".join(commands) + "\n", encoding="utf-8")


def main() -> None:
    """Judge, and print the table and what was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="the first draw: 12 begins with nodes")
    parser.add_argument("--verbose", action="store_true", help="every verdict, not only what was missed")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="the models too, with commands.sh")
    given = parser.parse_args()
    found = []
    for each in trials(given.count, given.seed, given.start):
        found.append(each)
        if given.verbose or not (each.localised and each.described) or each.misleading:
            print(f"{each.kind}, {each.network} by {each.exporter}, draw {each.number}: {each.expected}")
            blamed = each.report.first_fault and each.report.first_fault.step
            print(f"    {each.report.verdict}, blamed {blamed}, problems {each.report.problems}")
            for diagnosis in each.report.diagnoses[:1]:
                print(f"    diagnosis {diagnosis.named} at {diagnosis.call}")
            for said in each.report.evidence:
                print(f"    {said[:160]}", flush=True)
    print(table(found))
    if given.write:
        write(found, given.write)


if __name__ == "__main__":
    main()
