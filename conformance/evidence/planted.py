"""Does the judge find a small mistake at its place, whichever runtime computes?

A mistake is planted in an ONNX model of a network (`conformance.evidence.planting`). The wrong model is run
by the candidate, and judged as what the right one is. The place is right if what is blamed is the first that
the judge can see of the mistake.
"""

from __future__ import annotations

import functools
import tempfile
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from conformance.bounds import FLOAT32, Declaration
from conformance.candidates.converters import CONVERTERS, convert
from conformance.candidates.kinds import Request, graph_candidate, make
from conformance.candidates.onnx_runtime import OnnxRuntimeGraph
from conformance.candidates.phone_runtime import STATIC
from conformance.conversion.meanings import MEANINGS, with_integers
from conformance.evidence.fault_score import MODELS, SIZE
from conformance.evidence.planted_files import WrongFiles
from conformance.evidence.planting import FLOAT_KINDS, KINDS, Planted, plant
from conformance.graph.evaluation import evaluate_node, widened_all
from conformance.graph.onnx_export import export
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.quantizing import quantized_for_npu
from conformance.judge.any_graph import graph_recording
from conformance.judge.network import verify
from conformance.judge.quantized import judge_units, only_as_shipped, steps_between
from conformance.judge.unrounded import verify_unrounded
from conformance.pictures.inputs import rendered_input
from conformance.reports.report import Comparison, InputReport
from refimpl import MobileInst, MobileInstConfig, Weights, record
from refimpl.errors import MobileInstError
from refimpl.graph import Graph
from refimpl.ops.operation import Array

LEAST = 2.0
"""Steps of its result, or roundings of its largest element, that a mistake must exceed to be counted."""
CALIBRATING = 2
"""Pictures on which ranges are taken."""
MOST_DRAWS = 20
"""Draws for each mistake asked for, before no more are found."""


@dataclass(frozen=True)
class Trial:
    """One planted mistake, judged.

    Attributes
    ----------
    network, kind, detail
        Where and what.
    size
        How much the first wrong result differs, in steps or in roundings of its largest element.
    expected
        The tensors of which any may be blamed: up to the first that the judge sees of it.
    blamed
        The one that is; None: the verdict is no failure, or names no place.
    detected
        Whether anything fails.
    listed
        Whether the wrong node is among those that the verdict lists there.
    """

    network: str
    kind: str
    detail: str
    size: float
    expected: tuple[str, ...]
    blamed: str | None
    detected: bool
    listed: bool = False

    @property
    def counted(self) -> bool:
        """Whether it is large enough to be found."""
        return self.size > LEAST

    @property
    def localised(self) -> bool:
        """Whether the right place is blamed."""
        return self.listed or self.blamed in self.expected


@dataclass(frozen=True)
class Result:
    """What was found of one network.

    Attributes
    ----------
    trials
        Of each mistake.
    refused
        How many models the runtime did not take.
    alarms
        Network → what of the right model fails.
    """

    trials: list[Trial]
    refused: int
    alarms: dict[str, str]


class Subject(ABC):
    """A right model, and how a wrong one beside it is judged.

    Parameters
    ----------
    network
        One of `conformance.evidence.fault_score.MODELS`.
    candidate
        What runs it, as after ``--candidate``.
    seed
        Of the weights and the pictures.
    interpreter
        The words that start the Python in which it runs; none: this one.
    """

    kinds: Sequence[str]
    model: onnx.ModelProto

    def __init__(self, network: str, candidate: str, seed: int, interpreter: Sequence[str] = ()) -> None:
        self.network, self.candidate, self.interpreter = network, candidate, interpreter
        self.config = MobileInstConfig.preset(network, **MODELS[network])
        self.weights = Weights.seeded(self.config, seed).folded().astype(np.float32)
        (self.images,) = rendered_input(SIZE, seed=seed).values()
        self.float_model = export(MobileInst(self.config, self.weights), self.images)

    @functools.cached_property
    def graph(self) -> OnnxGraph:
        """The right model, read."""
        return OnnxGraph.load(self.model)

    @property
    @abstractmethod
    def alarm(self) -> str:
        """What of the right model fails, empty if nothing does."""

    @abstractmethod
    def trial(self, planted: Planted) -> Trial:
        """Judge a mistake; raise `MobileInstError` if the candidate refuses the model."""


class FloatSubject(Subject):
    """A network in float32, judged as the network; parameters as of `Subject`."""

    kinds = FLOAT_KINDS

    def __init__(self, network: str, candidate: str, seed: int, interpreter: Sequence[str] = ()) -> None:
        super().__init__(network, candidate, seed, interpreter)
        self.model = self.float_model
        self.tensors = graph_recording(self.graph, {"images": self.images}).tensors
        self.files = WrongFiles(candidate, self.model)
        self.right, self.captured, self.unit_roundoff = self._judged(self.model)

    @functools.cached_property
    def steps(self) -> Mapping[str, str]:
        """Output → the step under whose name it is judged."""
        return record(MobileInst(self.config, self.weights), self.images).outputs

    @property
    def alarm(self) -> str:
        """The place that is blamed, or what else is wrong."""
        if self.right.verdict != "fail":
            return ""
        return self.right.first_fault.step if self.right.first_fault else "; ".join(self.right.problems)

    def trial(self, planted: Planted) -> Trial:
        """Judge it as the network that it should be.

        What is too small to be counted is not run. What changes nothing that the runtime computes has no
        size: ncnn's converter knows an attention by its shape, and takes its scores' factor for granted.
        """
        size, wrong = self._effect(planted)
        if size <= LEAST:
            return Trial(self.network, planted.kind, planted.detail, size, (), None, False)
        report, captured, _ = self._judged(planted.model)
        if captured.keys() == self.captured.keys() and all(
            np.array_equal(captured[name], array) for name, array in self.captured.items()
        ):
            size = 0.0
        seen = {row.name for row in self.right.steps if row.verdict in ("pass", "fail")}
        seen |= {output for output, step in self.steps.items() if step in seen}
        expected = tuple(self.steps.get(name, name) for name in first_seen(self.graph, wrong, seen))
        found = (size, expected, *_blamed(report, planted.nodes))
        return Trial(self.network, planted.kind, planted.detail, *found)

    def _judged(self, model: onnx.ModelProto) -> tuple[InputReport, dict[str, Array], float]:
        """Return the verdict on a model, every tensor, and the unit roundoff of its arithmetic."""
        with tempfile.TemporaryDirectory(prefix="planted-") as folder:
            path = Path(folder) / "model.onnx"
            onnx.save(model, path)
            given = Request("", self.config, self.weights, path, threads=1, interpreter=self.interpreter)
            candidate = make(self.files.candidate_of(model, path), given)
            report = verify(candidate, self.config, self.weights, {"scene": self.images}).leading
            captured = dict(candidate.capture(self.images))
            return report, captured, candidate.declaration.arithmetic.unit_roundoff

    def _effect(self, planted: Planted) -> tuple[float, list[str]]:
        """Return the largest change among the altered nodes' results, in roundings, and those results."""
        wrong = OnnxGraph.load(planted.model)
        known = {**self.tensors, **widened_all(wrong.initializers)}
        size = 0.0
        names: list[str] = []
        for node in (node for node in wrong.nodes if node.name in planted.nodes):
            results = evaluate_node(node, node.operands(known), np.float64)
            names += node.outputs
            size = max(size, *map(self._roundings, node.outputs, results))
        return size, names

    def _roundings(self, name: str, result: Array) -> float:
        right = self.tensors[name]
        if right.shape != result.shape:
            return np.inf
        largest = float(np.abs(right).max(initial=0.0)) * self.unit_roundoff
        return float(np.abs(result - right).max(initial=0.0)) / largest if largest else np.inf


class StaticSubject(FloatSubject):
    """A network that a phone's runtime quantises throughout, its file beside the right ONNX model.

    Parameters as of `Subject`.
    """

    @functools.cached_property
    def steps(self) -> Mapping[str, str]:
        """Nothing: its tensors are judged under the model's own names."""
        return {}

    def _judged(self, model: onnx.ModelProto) -> tuple[InputReport, dict[str, Array], float]:
        """Return the verdict on what a model is converted to, what that computes, and float32's roundoff."""
        name, _, options = self.candidate.partition(":")
        given = dict(word.partition("=")[::2] for word in options.split(","))
        converter = CONVERTERS[name]
        with tempfile.TemporaryDirectory(prefix="planted-") as folder:
            path = Path(folder) / "model.onnx"
            onnx.save(model, path)
            made = path.with_suffix(converter.suffixes[0])
            convert(converter, path, made, STATIC, given.get("delegate"))
            shapes = {"images": self.images.shape}
            after = OnnxGraph.load(MEANINGS[made.suffix](made, shapes, list(self.graph.outputs)))
            stored, _ = with_integers(made)
        feeds = {"images": self.images}
        report = verify_unrounded(after, self.graph, {"scene": feeds}, stored=stored)
        # Layers are counted by kind: one that is another may change the names of all.
        tensors = enumerate(graph_recording(after, feeds).tensors.values())
        return report.leading, {str(place): array for place, array in tensors}, FLOAT32.unit_roundoff


class QuantizedSubject(Subject):
    """A network quantised for Snapdragon's NPU, each integer result judged; parameters as of `Subject`.

    ``quantization`` is one of `conformance.graph.quantizing.FORMATS`.
    """

    kinds = tuple(KINDS)

    def __init__(
        self, network: str, candidate: str, seed: int, quantization: str, interpreter: Sequence[str] = ()
    ) -> None:
        super().__init__(network, candidate, seed, interpreter)
        first = seed + 1
        pictures = [_picture(first + place) for place in range(CALIBRATING)]
        self.model = quantized_for_npu(self.float_model, pictures, quantization)
        self.tensors = self._runtime(self.graph).capture(self._feeds)
        self.right = self._rows(self.tensors)

    @property
    def alarm(self) -> str:
        """The integer results of the right model that fail."""
        shipped = self._runtime(self.graph).run(self._feeds)
        rows, _ = only_as_shipped(self.graph, self.right, shipped, self.tensors)
        return ", ".join(sorted(_failing(rows)))

    def trial(self, planted: Planted) -> Trial:
        """Judge each integer result as the right model's; what fails there, too, is not the mistake's.

        What changes nothing that the runtime computes, as a way to resize that it does not know, has no size.
        """
        wrong = OnnxGraph.load(planted.model)
        captured = self._runtime(wrong).capture(self._feeds)
        failing, already = _failing(self._rows(captured)), _failing(self.right)
        blamed = next((name for name in failing if name not in already), None)
        same = all(np.array_equal(self.tensors[name], array) for name, array in captured.items())
        size, expected = (0.0, ()) if same else self._effect(wrong)
        return Trial(self.network, planted.kind, planted.detail, size, expected, blamed, blamed is not None)

    def _effect(self, wrong: OnnxGraph) -> tuple[float, tuple[str, ...]]:
        """Return by how much the first result is off that is counted, else the one most off."""
        apart = steps_between(self.graph, wrong, self._feeds, self.tensors)
        first = next((name for name, size in apart.items() if size > LEAST), None)
        first = first or max(apart, key=lambda name: apart[name], default=None)
        return (0.0, ()) if first is None else (apart[first], (first,))

    @property
    def _feeds(self) -> dict[str, Array]:
        return {"images": self.images}

    def _runtime(self, graph: OnnxGraph) -> OnnxRuntimeGraph:
        return graph_candidate(self.candidate, graph, Declaration(), 1, None, self.interpreter)

    def _rows(self, captured: Mapping[str, Array]) -> list[Comparison]:
        return judge_units(self.graph, self._feeds, captured)[0]


def _failing(rows: Iterable[Comparison]) -> list[str]:
    return [row.name for row in rows if row.verdict == "fail"]


def _picture(seed: int) -> Array:
    (images,) = rendered_input(SIZE, seed=seed).values()
    return images


def _blamed(report: InputReport, nodes: Collection[str]) -> tuple[str | None, bool, bool]:
    """Return what is blamed, whether anything fails, and whether one of some nodes is listed there."""
    fault, failed = report.first_fault, report.verdict == "fail"
    return (
        (None, failed, False)
        if fault is None
        else (fault.step, failed, not {*nodes}.isdisjoint(fault.candidate_nodes))
    )


def first_seen(graph: Graph, wrong: Collection[str], seen: Collection[str]) -> list[str]:
    """Return some tensors and what is computed of them, up to the first on each way that are seen.

    What a runtime fused with the wrong node may be blamed as that node itself, or as what it became.
    """
    found: dict[str, None] = {}
    waiting = list(wrong)
    while waiting:
        name = waiting.pop()
        if name not in found and name not in seen:
            waiting += [each for user in graph.consumers.get(name, []) for each in user.outputs]
        found[name] = None
    return list(found)


def judge_planted(
    count: int,
    candidate: str,
    networks: Sequence[str],
    seed: int = 0,
    quantization: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    interpreter: Sequence[str] = (),
) -> Result:
    """Plant mistakes until enough are large enough to be counted, and judge each.

    Parameters
    ----------
    count
        How many, over all networks and kinds, which take turns.
    candidate
        What runs the models, as after ``--candidate``.
    networks
        Of `conformance.evidence.fault_score.MODELS`.
    seed
        Of the weights, the pictures and the mistakes.
    quantization
        One of `conformance.graph.quantizing.FORMATS`; None: float32 models.
    progress
        Called with how many are counted, and of how many.
    interpreter
        The words that start the Python in which the candidate runs; none: this one.

    Raises
    ------
    MobileInstError
        The candidate refuses a right model.
    """
    subjects = [_subject(network, candidate, seed, quantization, interpreter) for network in networks]
    trials: list[Trial] = []
    refused = 0
    for number in range(count * MOST_DRAWS):
        done = sum(trial.counted for trial in trials)
        progress(done, count)
        if done == count:
            break
        subject = subjects[number % len(subjects)]
        kind = subject.kinds[number // len(subjects) % len(subject.kinds)]
        planted = plant(subject.model, kind, np.random.default_rng((seed, number)))
        try:
            trials += [subject.trial(planted)] if planted else []
        except MobileInstError:
            refused += 1
    alarms = {subject.network: subject.alarm for subject in subjects if subject.alarm}
    return Result(trials, refused, alarms)


def _subject(
    network: str, candidate: str, seed: int, quantization: str | None, interpreter: Sequence[str]
) -> Subject:
    if quantization is None:
        static = f"weights={STATIC}" in candidate.partition(":")[2].split(",")
        return (StaticSubject if static else FloatSubject)(network, candidate, seed, interpreter)
    return QuantizedSubject(network, candidate, seed, quantization, interpreter)


def by_kind(trials: Sequence[Trial]) -> dict[str, tuple[int, int, int, int]]:
    """Return kind → how many were planted, counted, detected and at the right place; and of all."""
    counts = Counter(trial.kind for trial in trials)
    table = {}
    for kind in [*counts, "all"]:
        group = [trial for trial in trials if kind in (trial.kind, "all")]
        counted = [trial for trial in group if trial.counted]
        found = (sum(trial.detected for trial in counted), sum(trial.localised for trial in counted))
        table[kind] = (len(group), len(counted), *found)
    return table
