"""How good the judge is: faults put into correct models, and how many it detects, localises and names."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

import numpy as np
import onnx

from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate
from conformance.evidence.baselines import alarms
from conformance.faults import CATALOGUE, Injection, ShapedGraph, injected, injections
from conformance.faults.injection import OPSET
from conformance.graph import onnx_export
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.network import verify
from conformance.judge.replay import DATA_MOVEMENT
from conformance.pictures.inputs import rendered_input
from conformance.reports.report import InputReport, is_telling
from refimpl import MobileInstConfig, Network, Recording, Weights, record
from refimpl.errors import MobileInstError
from refimpl.graph import Graph, Node
from refimpl.ops.operation import Array

SIZE = (96, 160)
INDEPENDENT_SIZE = (128, 192)
"""TorchScript's exporter writes TopFormer's adaptive pooling only where its windows are of one size."""
OWN = "own"
EXPORTERS = (OWN, "torchscript", "dynamo")
"""Whose model takes the faults: the project's own export, or an independent implementation's, by the extra
``torch``, through either of PyTorch's exporters."""
NOT_EXPORTED = {"torchscript": ("sparseinst-topformer-tiny", "topformer-base")}
"""Exporter → networks it refuses: a pyramid pools to 6×6."""
NARROW: dict[str, Any] = {"dim": 32, "num_queries": 7, "num_classes": 5}
MODELS: dict[str, dict[str, Any]] = {
    "topformer-tiny": NARROW,
    "seaformer-tiny": NARROW,
    "sparseinst-topformer-tiny": {**NARROW, "kernel_dim": 16, "mask_convs": 1},
    "topformer-base": {**NARROW, "mask_decoder": "fpn", "mask_convs": 1, "local_pooling": "avg8"},
}
"""Preset → fields: narrow networks, small enough for hundreds of runs."""
RIVALS: dict[str, dict[str, Any]] = {
    "solov2-lite-r18": {
        "dim": 8,
        "head_dim": 16,
        "mask_dim": 8,
        "kernel_dim": 8,
        "norm_groups": 4,
        "num_classes": 3,
        "grids": (7, 6, 5, 4, 4),
    },
    "condinst-topformer-base": {"dim": 8, "mask_dim": 8, "kernel_dim": 2, "norm_groups": 4, "num_classes": 3},
    "yolact-topformer-base": {"dim": 8, "head_dim": 8, "mask_dim": 8, "kernel_dim": 4, "num_classes": 3},
    "maskrcnn-r50": {"dim": 8, "head_dim": 16, "mask_dim": 8, "num_classes": 3},
}
"""The same of the rivals, for the faults that only they can have; asked for by name."""
KNOWN = {**MODELS, **RIVALS}

HARMLESS = 2.0
"""A faulty model's outputs may be this many times as far from float64 as the right model's own, before the
fault does harm."""


@dataclass(frozen=True)
class Case:
    """A correct network with an input, in float64, as ONNX, and as ONNX Runtime computes it.

    Attributes
    ----------
    name, config, weights, images
    recording
        The reference's run.
    reference
        Its outputs in float64.
    model
        The export that takes the faults.
    graph
        The export as the faults see it.
    outputs, captured
        What ONNX Runtime computes of it.
    places
        The reference's tensor → the export's that it is.
    independent
        The export is another implementation's.
    """

    name: str
    config: MobileInstConfig
    weights: Weights
    images: Array
    recording: Recording
    reference: dict[str, Array]
    model: onnx.ModelProto
    graph: ShapedGraph
    outputs: dict[str, Array]
    captured: dict[str, Array]
    places: Mapping[str, str]
    independent: bool

    def injected(self, injection: Injection) -> onnx.ModelProto:
        """Return the export with a fault in it; in the project's own the names give no hint to the judge."""
        faulty = injected(self.model, injection)
        return faulty if self.independent else anonymous(faulty)

    def beside(self, expected: str | None) -> set[str]:
        """Return the calls at which a diagnosis is at the right place, by the first wrong tensor."""
        call = self.recording.graph.producer(expected) if expected else None
        return set() if call is None else near(self.recording.graph, call)

    def held(self, step: str) -> str:
        """Return a step, or the first behind it that the export holds: Gemm is a product and a sum."""
        while step not in self.places:
            users = self.recording.graph.consumers.get(step, [])
            if len(users) != 1:
                break
            step = users[0].outputs[0]
        return step


@functools.cache
def case(name: str, exporter: str = OWN, seed: int = 0) -> Case:
    """Return one of `KNOWN` with seeded weights, in an export of `EXPORTERS`."""
    config = MobileInstConfig.preset(name, **KNOWN[name])
    weights = Weights.seeded(config, seed)
    independent = exporter != OWN
    (images,) = rendered_input(INDEPENDENT_SIZE if independent else SIZE, seed=seed).values()
    recording = record(Network(config, weights), images)
    truth = Network(config, weights.astype(np.float64))(images.astype(np.float64))
    model = (
        _implementation()(name, KNOWN[name], weights, images, exporter)
        if independent
        else onnx_export.to_onnx(recording, name, OPSET)
    )
    candidate = OnnxRuntimeCandidate(OnnxGraph.load(model), threads=1)
    outputs, captured = dict(candidate.run(images)), dict(candidate.capture(images))
    if independent:
        report = verify(candidate, config, weights, {"scene": images}).leading
        places = {row.name: row.candidate for row in report.steps if row.candidate}
        graph = ShapedGraph.of_onnx(OnnxGraph.load(model), {**captured, "images": images})
    else:
        named = {tensor: output for output, tensor in recording.outputs.items()}
        places = {name: named.get(name, name) for name in recording.tensors}
        graph = ShapedGraph.of_recording(recording)
    return Case(
        name,
        config,
        weights,
        images,
        recording,
        dict(truth.items()),
        model,
        graph,
        outputs,
        captured,
        places,
        independent,
    )


def _implementation() -> Callable[..., onnx.ModelProto]:
    """Return the function that exports another implementation's network; nothing here knows it by name."""
    (point,) = entry_points(group="mobileinst.implementations")
    exported: Callable[..., onnx.ModelProto] = point.load()
    return exported


@dataclass(frozen=True)
class Trial:
    """One fault in one model.

    Attributes
    ----------
    fault, category, detail
        What was injected.
    model, call
        Where.
    harmless
        No output is further from float64 than rounding carries it.
    detected
        The verdict is ``fail``.
    expected, blamed
        The first tensor that the faulty model lacks, and the one the judge blames.
    diagnoses
        The names the judge gives, the likeliest first.
    described
        A mistake was found that explains the tensor at this call or beside it, or what differs was told at
        the right step: a weight, an attribute, a node, a relation.
    misleading
        The first diagnosis is at another place, or what differs was told of another step.
    baselines
        Whether each comparison with fixed tolerances sees it.
    left_out
        The catalogue that judged lacked this fault.
    """

    fault: str
    category: str
    detail: str
    model: str
    call: str
    harmless: bool
    detected: bool
    expected: str | None
    blamed: str | None
    diagnoses: tuple[str, ...]
    described: bool
    misleading: bool
    baselines: Mapping[str, bool]
    left_out: bool = False

    @property
    def localised(self) -> bool:
        """The exact step is blamed."""
        return self.detected and self.blamed == self.expected

    @property
    def named(self) -> bool:
        """The fault is among the diagnoses."""
        return self.fault in self.diagnoses


@dataclass(frozen=True)
class Task:
    """Which fault to put where: the ``number``-th of its injections into a model.

    ``left_out``: the catalogue that judges lacks this fault, so that it is one that nobody foresaw.
    """

    model: str
    fault: str
    number: int
    left_out: bool = False
    exporter: str = OWN


def tasks(models: Sequence[str], per_fault: int, exporter: str = OWN) -> list[Task]:
    """Return up to ``per_fault`` injections of each fault into each model, evenly from first to last."""
    chosen = []
    for model in _exported(models, exporter):
        for fault in CATALOGUE.values():
            count = len(injections(fault, case(model, exporter).graph))
            places = {round(i * (count - 1) / max(per_fault - 1, 1)) for i in range(min(per_fault, count))}
            chosen += [Task(model, fault.name, place, exporter=exporter) for place in sorted(places)]
    return chosen


def _exported(models: Sequence[str], exporter: str) -> list[str]:
    return [model for model in models if model not in NOT_EXPORTED.get(exporter, ())]


def quick_tasks(models: Sequence[str], seed: int = 0, exporter: str = OWN) -> list[Task]:
    """Return one injection of each fault, into one of the models that it fits."""
    rng = np.random.default_rng(seed)
    chosen = []
    for fault in CATALOGUE.values():
        counts = {
            model: len(injections(fault, case(model, exporter).graph))
            for model in _exported(models, exporter)
        }
        fitting = [model for model, count in counts.items() if count]
        if fitting:
            model = fitting[int(rng.integers(len(fitting)))]
            chosen.append(Task(model, fault.name, int(rng.integers(counts[model])), exporter=exporter))
    return chosen


def run(
    chosen: Sequence[Task], workers: int = 1, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Trial]:
    """Inject every fault chosen and judge what comes of it."""
    trials = []
    for trial in _results(chosen, workers):
        trials.append(trial)
        progress(len(trials), len(chosen))
    return trials


def _results(chosen: Sequence[Task], workers: int) -> Iterable[Trial]:
    if workers == 1:
        yield from map(trial, chosen)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(trial, chosen, chunksize=1)


def trial(task: Task) -> Trial:
    """Put one fault into its model and judge it."""
    chosen = case(task.model, task.exporter)
    injection = injections(CATALOGUE[task.fault], chosen.graph)[task.number]
    try:
        candidate = OnnxRuntimeCandidate(OnnxGraph.load(chosen.injected(injection)), threads=1)
        outputs, captured = candidate.run(chosen.images), candidate.capture(chosen.images)
    except MobileInstError as error:
        return _crashed(task, injection, str(error))
    with _without(task.fault if task.left_out else ""):
        report = verify(candidate, chosen.config, chosen.weights, {"scene": chosen.images}).inputs[0]
    expected = _expected(chosen, captured, report)
    blamed = chosen.held(report.first_fault.step) if report.first_fault else None
    beside = chosen.beside(expected) if chosen.independent else near(chosen.graph, injection.call)
    described, misleading = told(report, beside, blamed == expected)
    return Trial(
        fault=task.fault,
        category=injection.fault.category,
        detail=injection.variant.detail,
        model=task.model,
        call=injection.call.name,
        harmless=is_harmless(chosen, outputs),
        detected=report.verdict == "fail",
        expected=expected,
        blamed=blamed,
        diagnoses=tuple(diagnosis.fault for diagnosis in report.diagnoses),
        described=described,
        misleading=misleading and task.fault not in {diagnosis.fault for diagnosis in report.diagnoses},
        baselines=alarms(outputs, chosen.reference),
        left_out=task.left_out,
    )


@contextmanager
def _without(fault: str) -> Iterator[None]:
    """Take a fault out of the catalogue for a while."""
    kept = dict(CATALOGUE)
    CATALOGUE.pop(fault, None)
    try:
        yield
    finally:
        CATALOGUE.clear()
        CATALOGUE.update(kept)


def near(graph: Graph, call: Node) -> set[str]:
    """Return a call's name and those beside it: who feeds it and who uses it, what moves data passed over."""
    found = {call.name}
    for way in (_feeding, _using):
        waiting = way(graph, call)
        while waiting:
            other = waiting.pop()
            if other.name not in found:
                found.add(other.name)
                waiting += way(graph, other) if other.op_type in DATA_MOVEMENT else []
    return found


def _feeding(graph: Graph, call: Node) -> list[Node]:
    return [maker for name in call.uses if (maker := graph.producer(name)) is not None]


def _using(graph: Graph, call: Node) -> list[Node]:
    return [user for name in call.outputs for user in graph.consumers.get(name, [])]


def told(report: InputReport, beside: Collection[str], localised: bool) -> tuple[bool, bool]:
    """Tell whether a verdict describes what is wrong, and whether it misleads.

    Parameters
    ----------
    report
    beside
        The calls at which a diagnosis is at the right place.
    localised
        Whether the right step is blamed.
    """
    explained = any(diagnosis.call in beside for diagnosis in report.diagnoses)
    telling = list(filter(is_telling, report.evidence))
    misled = report.diagnoses[0].call not in beside if report.diagnoses else bool(telling) and not localised
    return explained or (bool(telling) and localised), misled and not explained


def anonymous(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model whose nodes and inner tensors have lost their names: they are no hint to the judge."""
    renamed = onnx.ModelProto()
    renamed.CopyFrom(model)
    graph = renamed.graph
    kept = {"", *(value.name for value in (*graph.input, *graph.output))}
    inner = [name for node in graph.node for name in node.output] + [x.name for x in graph.initializer]
    names = {name: f"t{number}" for number, name in enumerate(inner) if name not in kept}
    for number, node in enumerate(graph.node):
        node.name = f"n{number}"
        for operands in (node.input, node.output):
            operands[:] = [names.get(name, name) for name in operands]
    for value in (*graph.initializer, *graph.value_info):
        value.name = names.get(value.name, value.name)
    return renamed


def _crashed(task: Task, injection: Injection, error: str) -> Trial:
    """A model that does not run is found out by running it; no judge is needed, and it counts as harmless."""
    fault, variant = injection.fault, injection.variant
    detail = f"{variant.detail}; does not run: {error}"
    return Trial(
        fault=task.fault,
        category=fault.category,
        detail=detail,
        model=task.model,
        call=injection.call.name,
        harmless=True,
        detected=True,
        expected=None,
        blamed=None,
        diagnoses=(),
        described=False,
        misleading=False,
        baselines={},
    )


def is_harmless(chosen: Case, outputs: Mapping[str, Array]) -> bool:
    """Tell whether a faulty model's outputs are no further from float64 than rounding carries them."""
    return all(
        name in outputs
        and outputs[name].shape == expected.shape
        and _deviation(outputs[name], expected) <= HARMLESS * _deviation(chosen.outputs[name], expected)
        for name, expected in chosen.reference.items()
    )


def _deviation(values: Array, expected: Array) -> float:
    return float(np.abs(values.astype(np.float64) - expected).max(initial=0.0))


def _expected(chosen: Case, captured: Mapping[str, Array], report: InputReport) -> str | None:
    """Return the first judged tensor of the right model that the faulty one holds under no name, bit for bit,
    or does not give as the output that it is.
    """
    held = {_fingerprint(array) for array in captured.values()}
    for row in report.steps:
        name = chosen.places.get(row.name)
        if name is None:
            continue
        same = _same_output(chosen, captured, name) if name in chosen.outputs else None
        if not (_fingerprint(chosen.captured[name]) in held if same is None else same):
            return row.name
    changed = (
        tensor
        for name, tensor in chosen.recording.outputs.items()
        if not _same_output(chosen, captured, name)
    )
    return next(changed, None)


def _same_output(chosen: Case, captured: Mapping[str, Array], name: str) -> bool:
    return name in captured and np.array_equal(captured[name], chosen.captured[name])


def _fingerprint(array: Array) -> tuple[tuple[int, ...], bytes]:
    return array.shape, hashlib.sha256(np.ascontiguousarray(array).tobytes()).digest()


@dataclass(frozen=True)
class Score:
    """Figures of some trials; harmless ones are counted apart."""

    faults: int
    harmless: int
    detected: int
    localised: int
    named: int
    first: int
    described: int
    misleading: int
    baselines: dict[str, int]


def score(trials: Iterable[Trial]) -> Score:
    """Count what the judge and the baselines found."""
    everything = list(trials)
    harmful = [trial for trial in everything if not trial.harmless]
    names = next((trial.baselines for trial in harmful), {})
    return Score(
        faults=len(harmful),
        harmless=len(everything) - len(harmful),
        detected=sum(trial.detected for trial in harmful),
        localised=sum(trial.localised for trial in harmful),
        named=sum(trial.named for trial in harmful),
        first=sum(trial.diagnoses[:1] == (trial.fault,) for trial in harmful),
        described=sum(trial.described for trial in harmful),
        misleading=sum(trial.misleading for trial in harmful),
        baselines={name: sum(trial.baselines[name] for trial in harmful) for name in names},
    )


def by_category(trials: Sequence[Trial]) -> dict[str, Score]:
    """Return the score of each category."""
    categories = dict.fromkeys(trial.category for trial in trials)
    return {name: score(trial for trial in trials if trial.category == name) for name in categories}
