"""Candidates for the network, wrong and right: exports with a mistake, stored results, black boxes, dumps."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from conformance.bounds import Declaration
from conformance.bounds.envelope import envelope, perturbed
from conformance.candidates.candidate import NEEDED_OUTPUTS, OUTPUTS, Candidate
from conformance.candidates.dumps import DumpCandidate
from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate
from conformance.candidates.onnx_runtime import LEVELS, RuntimeOptions
from conformance.candidates.plain import PythonCandidate
from conformance.evidence.false_alarms import ILL_CONDITIONED, IMPLEMENTATIONS, SIZE, network
from conformance.faults import CATALOGUE, ShapedGraph, injected, injections
from conformance.faults.injection import OPSET
from conformance.graph import onnx_export
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.network import verify
from conformance.pictures.inputs import rendered_input
from conformance.reports.report import Report
from refimpl import MobileInst, Recording, Weights, record
from refimpl.ops.operation import Array
from refimpl.weights.folding import fold_batch_norm

PRESET = "topformer-tiny"
Outputs = dict[str, Array]

FAULTS = (
    "activation/missing",
    "attention/scale missing",
    "attention/softmax over the wrong axis",
    "convolution/kernel flipped",
    "convolution/padded at the end",
    "decoder/position x and y swapped",
    "decoder/residual missing",
    "layout/reshaped instead of transposed",
    "normalization/variance instead of deviation",
    "postprocessing/sigmoid already applied",
    "preprocessing/BGR",
    "resize/corners aligned",
    "weights/int8 per tensor",
    "weights/channels reordered",
)
"""Of `conformance.faults`: one or two of each category."""


@functools.cache
def images(batch: int = 1) -> Array:
    """Return rendered pictures, float32 (batch, 3, 64, 96)."""
    scenes = [next(iter(rendered_input(SIZE, seed=seed).values())) for seed in range(batch)]
    return np.concatenate(scenes).astype(np.float32)


@functools.cache
def recording(dtype: type = np.float64, batch: int = 1) -> Recording:
    """Return the network's run."""
    config, weights = network(PRESET)
    return record(MobileInst(config, weights.astype(dtype)), images(batch).astype(dtype))


def exported(batch: int = 1) -> onnx.ModelProto:
    """Return the network as ONNX, to be changed."""
    return onnx_export.to_onnx(recording(np.float32, batch), PRESET, OPSET)


@dataclass(frozen=True)
class Trial:
    """A candidate for a network, and how many of the pictures it is given at once."""

    candidate: Candidate
    batch: int = 1
    preset: str = PRESET

    def report(self) -> Report:
        """Judge the candidate, in memory and without a cache."""
        config, weights = network(self.preset)
        return verify(self.candidate, config, weights, {"scene": images(self.batch)})


def _in_onnx_runtime(model: onnx.ModelProto, level: str = "all") -> OnnxRuntimeCandidate:
    return OnnxRuntimeCandidate(OnnxGraph.load(model), options=RuntimeOptions(level=level, threads=1))


def right_outputs(given: Array) -> Outputs:
    """Return what a right black box gives."""
    config, weights = network(PRESET)
    return {name: np.asarray(array) for name, array in MobileInst(config, weights)(given).items()}


def _black_box(change: Callable[[Outputs], Outputs]) -> Trial:
    return Trial(PythonCandidate(lambda given: change(right_outputs(given))))


# --- wrong ------------------------------------------------------------------------------------------


def _faulty(name: str) -> Trial:
    """Return the network with a mistake at the last place where it changes anything."""
    run = recording(np.float32)
    for injection in reversed(injections(CATALOGUE[name], ShapedGraph.of_recording(run))):
        candidate = _in_onnx_runtime(injected(exported(), injection))
        outputs, own = candidate.run(images()), right_outputs(images())
        if any(np.abs(outputs[key] - own[key]).max() > 1e-3 for key in NEEDED_OUTPUTS):
            return Trial(candidate)
    raise LookupError(f"{name} changes nothing")


def _stored(place: Callable[[onnx.NodeProto], bool]) -> Trial:
    """Return a model that holds the result of a node as a constant."""
    model = exported()
    node = next(node for node in model.graph.node if place(node))
    value = _in_onnx_runtime(model).capture(images())[node.output[0]]
    constant = numpy_helper.from_array(value)
    node.CopyFrom(helper.make_node("Constant", [], [node.output[0]], name=node.name, value=constant))
    return Trial(_in_onnx_runtime(model))


def _first_result_again() -> Trial:
    memory: list[Outputs] = []

    def run(given: Array) -> Outputs:
        memory.append(right_outputs(given))
        return memory[0]

    return Trial(PythonCandidate(run))


def _not_repeatable() -> Trial:
    calls: list[int] = []

    def change(made: Outputs) -> Outputs:
        calls.append(0)
        return {**made, "masks": made["masks"] + np.float32(1e-6 * len(calls))}

    return _black_box(change)


def _rewrites_its_input() -> Trial:
    def run(given: Array) -> Outputs:
        made = right_outputs(given)
        given *= 2
        return made

    return Trial(PythonCandidate(run))


def _raises() -> Trial:
    def run(given: Array) -> Outputs:
        raise ValueError("no such tensor")

    return Trial(PythonCandidate(run))


def _captures_another_run() -> Trial:
    candidate = PythonCandidate(right_outputs, lambda given: right_outputs(given[..., ::-1].copy()))
    return Trial(candidate)


def _learnt_its_input() -> Trial:
    seen = images().tobytes()

    def run(given: Array) -> Outputs:
        made = right_outputs(given)
        return made if given.tobytes() == seen else {**made, "masks": 1.01 * made["masks"]}

    return Trial(PythonCandidate(run))


@functools.cache
def _rounding(name: str) -> float:
    """Return the root mean square of what perturbed runs do to an output."""
    truth = recording().tensors[recording().outputs[name]]
    runs = perturbed(recording(), Declaration(), samples=4, seed=7)
    return float(np.sqrt(np.mean([np.square(run[name] - truth) for run in runs])))


@functools.cache
def _allowed() -> Mapping[str, float]:
    return envelope(recording(), Declaration())


def _shifted(name: str) -> Trial:
    return _black_box(lambda made: {**made, name: made[name] + np.float32(3 * _rounding(name))})


def _half_the_envelope(name: str) -> Trial:
    signs = np.random.default_rng(0).choice([-0.5, 0.5], recording().tensors[recording().outputs[name]].shape)
    return _black_box(lambda made: {**made, name: (made[name] + signs * _allowed()[name]).astype(np.float32)})


def _dumped(change: Callable[[Outputs], Outputs]) -> Trial:
    """Return a folder of dumps: every tensor of a right run, changed."""
    captured = dict(_in_onnx_runtime(exported()).capture(images()))
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, array) in enumerate(change(captured).items()):
            file = name if name in OUTPUTS else f"t{number}"
            if array.dtype.kind == "f":
                np.save(Path(folder) / f"{file}.npy", array)
        return Trial(DumpCandidate(Path(folder), NEEDED_OUTPUTS, optional=OUTPUTS))


def _inside(change: Callable[[Array], Array]) -> Callable[[Outputs], Outputs]:
    return lambda made: {
        name: array if name in OUTPUTS or array.dtype.kind != "f" else change(array)
        for name, array in made.items()
    }


def _outputs(change: Callable[[Array], Array]) -> Callable[[Outputs], Outputs]:
    return lambda made: {name: change(array) if name in OUTPUTS else array for name, array in made.items()}


def wrong() -> dict[str, Callable[[], Trial]]:
    """Return name → what makes it, of candidates that must fail."""
    entries: dict[str, Callable[[], Trial]] = {}
    for name in FAULTS:
        entries[name] = functools.partial(_faulty, name)
    entries["first convolution stored"] = lambda: _stored(lambda node: node.op_type == "Conv")
    entries["masks stored"] = lambda: _stored(lambda node: "masks" in node.output)
    entries["one softmax stored"] = lambda: _stored(lambda node: node.op_type == "Softmax")
    entries["black box, the first result again"] = _first_result_again
    entries["black box, not repeatable"] = _not_repeatable
    entries["black box, rewrites its input"] = _rewrites_its_input
    entries["black box, raises"] = _raises
    entries["black box, right on the input it was shown"] = _learnt_its_input
    entries["black box, captures another run"] = _captures_another_run
    entries["black box, no masks"] = lambda: _black_box(
        lambda made: {name: array for name, array in made.items() if name != "masks"}
    )
    entries["black box, masks of another size"] = lambda: _black_box(
        lambda made: {**made, "masks": made["masks"][:, :, :-1]}
    )
    entries["black box, one NaN"] = lambda: _black_box(
        lambda made: {**made, "masks": np.where(made["masks"] == made["masks"].max(), np.nan, made["masks"])}
    )
    entries["black box, kernels and queries exchanged"] = lambda: _black_box(
        lambda made: {**made, "kernels": made["global_queries"], "global_queries": made["kernels"]}
    )
    for name in NEEDED_OUTPUTS:
        entries[f"black box, {name} three roundings too large"] = functools.partial(_shifted, name)
        entries[f"black box, {name} off by half the envelope"] = functools.partial(_half_the_envelope, name)
    entries["dump, NaN inside"] = lambda: _dumped(_inside(lambda array: np.full_like(array, np.nan)))
    entries["dump, outputs of zero"] = lambda: _dumped(_outputs(np.zeros_like))
    entries["dump, outputs of another picture"] = lambda: _dumped(
        _outputs(lambda array: np.roll(array, 1, -1))
    )
    return entries


# --- right ------------------------------------------------------------------------------------------


def _implemented(name: str) -> Trial:
    config, weights = network(PRESET)
    if name.startswith("folded"):
        weights = Weights(fold_batch_norm(weights))
    return Trial(IMPLEMENTATIONS[name](record(MobileInst(config, weights), images())))


def _in_onnx_runtime_of(preset: str) -> Trial:
    config, weights = network(preset)
    return Trial(_in_onnx_runtime(onnx_export.export(MobileInst(config, weights), images())), preset=preset)


def _renamed() -> Trial:
    """Return a model of which only the input has kept its name."""
    model = exported()
    names = {"": "", model.graph.input[0].name: "pixels"}
    for tensor in model.graph.initializer:
        tensor.name = names.setdefault(tensor.name, f"t{len(names)}")
    for node in model.graph.node:
        node.name = ""
        node.input[:] = [names.setdefault(name, f"t{len(names)}") for name in node.input]
        node.output[:] = [names.setdefault(name, f"t{len(names)}") for name in node.output]
    for info in (*model.graph.input, *model.graph.output):
        info.name = names[info.name]
    del model.graph.value_info[:]
    return Trial(_in_onnx_runtime(model))


def _reordered() -> Trial:
    model = exported()
    order = [onnx.ValueInfoProto.FromString(info.SerializeToString()) for info in model.graph.output]
    del model.graph.output[:]
    model.graph.output.extend(reversed(order))
    return Trial(_in_onnx_runtime(model))


def _without_queries() -> Trial:
    model = exported()
    kept = [info for info in model.graph.output if info.name != "global_queries"]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    return Trial(_in_onnx_runtime(model))


def right() -> dict[str, Callable[[], Trial]]:
    """Return name → what makes it, of candidates that must pass."""
    entries: dict[str, Callable[[], Trial]] = {}
    for name in IMPLEMENTATIONS:
        if name != "pytorch":
            entries[f"NumPy: {name}"] = functools.partial(_implemented, name)
    for level in LEVELS:
        entries[f"ONNX Runtime, optimisation {level}"] = functools.partial(
            lambda level: Trial(_in_onnx_runtime(exported(), level)), level
        )
    for preset in ("seaformer-tiny", "sparseinst-topformer-tiny", ILL_CONDITIONED):
        entries[f"ONNX Runtime: {preset}"] = functools.partial(_in_onnx_runtime_of, preset)
    entries["ONNX, every name another"] = _renamed
    entries["ONNX, outputs in another order"] = _reordered
    entries["ONNX, without the global queries"] = _without_queries
    entries["ONNX, two pictures at once"] = lambda: Trial(_in_onnx_runtime(exported(2)), batch=2)
    entries["black box: NumPy"] = lambda: Trial(PythonCandidate(right_outputs))
    entries["black box: ONNX Runtime"] = lambda: Trial(PythonCandidate(_in_onnx_runtime(exported()).run))
    entries["black box: folded norms"] = _black_box_folded
    entries["dump of every tensor"] = lambda: _dumped(lambda made: made)
    entries["dump of outputs"] = lambda: _dumped(
        lambda made: {name: array for name, array in made.items() if name in OUTPUTS}
    )
    return entries


def _black_box_folded() -> Trial:
    config, weights = network(PRESET)
    folded = MobileInst(config, Weights(fold_batch_norm(weights)))
    return Trial(PythonCandidate(lambda given: dict(folded(given).items())))


TRIALS = {**wrong(), **right()}
"""Name → what makes the candidate."""
