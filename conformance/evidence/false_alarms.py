"""Correct implementations that differ in all that may differ: the judge must pass every one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np

from conformance.bounds import CPU, FLOAT16, FLOAT32, ONNX_RUNTIME, Declaration
from conformance.candidates.candidate import Candidate
from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate
from conformance.candidates.onnx_runtime import LEVELS, RuntimeOptions
from conformance.evidence.baselines import alarms
from conformance.graph import onnx_export
from conformance.graph.evaluation import evaluate_node, run
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.pytorch_replay import PyTorchReplay, import_torch
from conformance.judge.network import verify
from conformance.pictures.inputs import rendered_input
from refimpl import MobileInst, MobileInstConfig, Recording, Step, Weights, record
from refimpl.errors import MissingDependencyError
from refimpl.ops.operation import Array
from refimpl.weights.folding import fold_batch_norm

SIZE = (64, 96)
NARROW = {"dim": 32, "num_queries": 5, "num_classes": 7}
PRESETS = (
    "topformer-tiny",
    "topformer-small",
    "topformer-base",
    "seaformer-tiny",
    "seaformer-small",
    "sparseinst-topformer-tiny",
)
ILL_CONDITIONED = "topformer-tiny, ill-conditioned"

CANCELLED = 3e3
"""What the ill-conditioned network adds and subtracts; its activations are of order one."""

Operands = Sequence[Array | None]
Compute = Callable[[Step, Operands], tuple[Array, ...]]


@dataclass(frozen=True)
class CorrectRun:
    """One correct implementation on one network and input.

    Attributes
    ----------
    network
        A preset, or `ILL_CONDITIONED`.
    implementation
        ``onnxruntime``, or one of `IMPLEMENTATIONS`.
    seed
        Of the picture.
    level, threads
        Of ONNX Runtime.
    """

    network: str
    implementation: str
    seed: int
    level: str = "all"
    threads: int = 1


@dataclass(frozen=True)
class Outcome:
    """What the judge and the baselines said of a correct run.

    Attributes
    ----------
    run
    headline
        The judge's, if it failed.
    deviation
        The largest distance of an output from float64, relative to its largest element.
    baselines
        Whether each comparison with fixed tolerances calls it wrong.
    """

    run: CorrectRun
    headline: str | None
    deviation: float
    baselines: Mapping[str, bool]


def correct_runs(inputs: int) -> list[CorrectRun]:
    """Return all implementations on all networks, on so many pictures each."""
    runs = []
    for network in (*PRESETS, ILL_CONDITIONED):
        for seed in range(inputs):
            runs += [
                CorrectRun(network, "onnxruntime", seed, level, threads)
                for level in LEVELS
                for threads in (1, 2)
            ]
            runs += [CorrectRun(network, name, seed) for name in IMPLEMENTATIONS]
    return runs


def judge(
    runs: Sequence[CorrectRun],
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Outcome]:
    """Judge correct runs; those whose runtime is not installed are left out."""
    outcomes = []
    for done, outcome in enumerate(_outcomes(runs, workers)):
        if outcome is not None:
            outcomes.append(outcome)
        progress(done + 1, len(runs))
    return outcomes


def _outcomes(runs: Sequence[CorrectRun], workers: int) -> Iterable[Outcome | None]:
    if workers == 1:
        yield from map(judge_one, runs)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(judge_one, runs, chunksize=8)


def judge_one(run: CorrectRun) -> Outcome | None:
    """Judge one correct run; None if its runtime is not installed."""
    config, weights = network(run.network)
    (images,) = rendered_input(SIZE, seed=run.seed).values()
    try:
        candidate = _candidate(run, config, weights, images)
    except MissingDependencyError:
        return None
    outputs = candidate.run(images)
    truth = dict(MobileInst(config, weights.astype(np.float64))(images.astype(np.float64)).items())
    report = verify(candidate, config, weights, {run.network: images}, name=run.implementation)
    failed = report.headline() if report.verdict == "fail" else None
    deviation = max(_deviation(outputs[name], expected) for name, expected in truth.items())
    return Outcome(run, failed, deviation, alarms(outputs, truth))


def _deviation(values: Array, expected: Array) -> float:
    return float(np.abs(values.astype(np.float64) - expected).max() / np.abs(expected).max())


@functools.cache
def network(name: str) -> tuple[MobileInstConfig, Weights]:
    """Return a narrow network of `PRESETS`, or the ill-conditioned one."""
    preset = name.partition(",")[0]
    fields = {**NARROW, "kernel_dim": 16, "mask_convs": 1} if preset.startswith("sparse") else NARROW
    config = MobileInstConfig.preset(preset, **fields)
    weights = Weights.seeded(config, seed=1)
    return config, ill_conditioned(weights) if name == ILL_CONDITIONED else weights


def ill_conditioned(weights: Weights) -> Weights:
    """Return weights of almost the same network that loses three to four digits in every inverted residual.

    A channel that is always 1 adds a large constant to each projection, and the batch norm's mean takes it
    away again: exactly in exact arithmetic, but not after the sum was rounded.
    """
    arrays = {name: np.array(array) for name, array in weights.items()}
    for name in weights:
        if name.endswith("conv.4.c.weight"):
            block = name.removesuffix("conv.4.c.weight")
            arrays[f"{block}conv.2.bn.weight"][0], arrays[f"{block}conv.2.bn.bias"][0] = 0.0, 1.0
            arrays[name][:, 0] = CANCELLED
            arrays[f"{block}conv.4.bn.running_mean"] += np.float32(CANCELLED)
    return Weights(arrays)


def _candidate(run: CorrectRun, config: MobileInstConfig, weights: Weights, images: Array) -> Candidate:
    if run.implementation == "onnxruntime":
        options = RuntimeOptions(level=run.level, threads=run.threads)
        return OnnxRuntimeCandidate(_exported(run.network), options=options)
    if run.implementation.startswith("folded"):
        weights = Weights(fold_batch_norm(weights))
    return IMPLEMENTATIONS[run.implementation](record(MobileInst(config, weights), images))


@functools.cache
def _exported(name: str) -> OnnxGraph:
    config, weights = network(name)
    return OnnxGraph.load(
        onnx_export.export(MobileInst(config, weights), np.zeros((1, 3, *SIZE), np.float32))
    )


# --- implementations that compute a recording step by step ----------------------------------------


class SteppedCandidate(Candidate):
    """A recorded network whose every step is computed by some function, all results kept.

    Parameters
    ----------
    recording
        The network in the dtype it is to be computed in.
    compute
        Gets a step and its operands, returns its results.
    declaration
        The arithmetic that this is.
    """

    declaration = Declaration()

    def __init__(self, recording: Recording, compute: Compute, declaration: Declaration) -> None:
        self.recording = recording
        self.compute = compute
        self.declaration = declaration

    def run(self, images: Array) -> dict[str, Array]:
        """Return the outputs by name."""
        tensors = self.capture(images)
        return {name: tensors[tensor] for name, tensor in self.recording.outputs.items()}

    def capture(self, images: Array) -> dict[str, Array]:
        """Return the result of every step."""
        graph = self.recording.graph
        given = {**graph.initializers, **dict.fromkeys(graph.inputs.values(), images)}
        return run(self.recording.steps, given, self.compute, keep=graph.places)


def _plain(step: Step, operands: Operands) -> tuple[Array, ...]:
    return evaluate_node(step, operands)


def _shuffled(step: Step, operands: Operands) -> tuple[Array, ...]:
    """Sum products in another order."""
    a, b = _factors(step, operands)
    if a is None or b is None:
        return _plain(step, operands)
    axis = 1 if step.operation == "Conv" else -2
    order = np.random.default_rng(a.size).permutation(b.shape[axis])
    other = (a[:, order], b[:, order]) if step.operation == "Conv" else (a[..., order], b[..., order, :])
    return _plain(step, [*other, *operands[2:]])


def _blocked(step: Step, operands: Operands) -> tuple[Array, ...]:
    """Sum products in blocks of four, one block after another."""
    a, b = _factors(step, operands)
    if a is None or b is None:
        return _plain(step, operands)
    parts = [_plain(step, [*block]) for block in _blocks(step, a, b)]
    total = functools.reduce(np.add, (part[0] for part in parts))
    bias = operands[2] if len(operands) > 2 else None
    return (total if bias is None else total + bias.reshape(1, -1, 1, 1),)


def _blocks(step: Step, a: Array, b: Array) -> Iterator[tuple[Array, Array]]:
    axis = 1 if step.operation == "Conv" else -2
    for start in range(0, b.shape[axis], 4):
        part = slice(start, start + 4)
        yield (a[:, part], b[:, part]) if step.operation == "Conv" else (a[..., part], b[..., part, :])


def _factors(step: Step, operands: Operands) -> tuple[Array | None, Array | None]:
    """Return the factors of a step that sums over channels, else None."""
    sums = step.operation == "MatMul" or (step.operation == "Conv" and step.attributes["group"] == 1)
    return (operands[0], operands[1]) if sums else (None, None)


def _half_storage(step: Step, operands: Operands) -> tuple[Array, ...]:
    """Compute in float32 and keep every tensor as float16."""
    wide = [x.astype(np.float16).astype(np.float32) if _is_float(x) else x for x in operands]  # type: ignore[union-attr]
    return tuple(y.astype(np.float16).astype(np.float32) if _is_float(y) else y for y in _plain(step, wide))


def _half(recording: Recording) -> SteppedCandidate:
    return SteppedCandidate(recording, _half_storage, Declaration(FLOAT32, FLOAT16, CPU))


def _is_float(x: Array | None) -> bool:
    return x is not None and x.dtype.kind == "f"


def _pytorch(recording: Recording) -> SteppedCandidate:
    """Return PyTorch's own operators, eagerly."""
    torch = import_torch()
    replay = PyTorchReplay(recording)

    def compute(step: Step, operands: Operands) -> tuple[Array, ...]:
        tensors = [None if x is None else torch.from_numpy(np.array(x)) for x in operands]
        with torch.inference_mode():
            return tuple(y.numpy() for y in replay.compute(step, tensors))

    return SteppedCandidate(recording, compute, Declaration(runtime=ONNX_RUNTIME))


IMPLEMENTATIONS: dict[str, Callable[[Recording], SteppedCandidate]] = {
    "numpy": lambda recording: SteppedCandidate(recording, _plain, Declaration()),
    "shuffled": lambda recording: SteppedCandidate(recording, _shuffled, Declaration()),
    "blocked": lambda recording: SteppedCandidate(recording, _blocked, Declaration()),
    "folded": lambda recording: SteppedCandidate(recording, _plain, Declaration()),
    "float16 storage": _half,
    "folded, float16 storage": _half,
    "pytorch": _pytorch,
}
"""Name → what computes a recording so."""
