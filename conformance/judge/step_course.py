"""The course of a verdict on a candidate whose tensors are found beside a reference's, step by step."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from conformance.bounds import Declaration
from conformance.candidates.candidate import FUSION_REACH, NEEDED_OUTPUTS, OwnGraph
from conformance.faults import ShapedGraph
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.quantized import is_quantized
from conformance.judge.alignment import CandidateTensors
from conformance.judge.conditioning import explain_large_errors
from conformance.judge.course import Course, Judged, first_wrong
from conformance.judge.diagnosis import diagnose, steps_behind, unexplained
from conformance.judge.fast_convolution import FastConvolution, winograd_explains
from conformance.judge.hidden_numbers import read_numbers
from conformance.judge.node_reading import SILENT, Side, read_nodes
from conformance.judge.outputs import further_outputs, misnamed
from conformance.judge.replay import DATA_MOVEMENT
from conformance.judge.steps import compare_steps, of_one_key
from conformance.judge.stored_finely import stored_finely
from conformance.judge.strangers import like_nothing, not_finite
from conformance.judge.stretch import Stretch, wrong_stretch
from conformance.judge.unreached import Idle, read_limits, unreached
from conformance.judge.weight_comparison import compare_constants, compare_weights
from conformance.pictures.inputs import Resized, not_resized
from conformance.reports.report import Comparison, Diagnosis, Fault, PlacedNode
from refimpl import Recording
from refimpl.graph import Graph
from refimpl.ops.operation import Array


class Stepped(Judged, Protocol):
    """What is judged step by step."""

    @property
    def captures_all(self) -> bool:
        """Whether a tensor that it does not capture is one that it does not compute."""


@dataclass
class StepCourse(Course):
    """One input's way, beside what the candidate should compute.

    Attributes
    ----------
    weights
        Name → weight, as the reference has it.
    folded, reach
        As of `conformance.judge.steps.compare_steps`.
    needed
        Names of the outputs that it must give.
    resized
        The picture, resized in other ways.
    mistaken
        Step → the weight that the candidate's file has otherwise than rounding explains, and how.
    explained
        Whether a fast algorithm explains all that fails.
    finely
        As of `conformance.judge.replay.Replay`.
    unreached
        Limits that the input does not reach and no node was read for; None where something is wrong.
    """

    candidate: Stepped
    weights: Mapping[str, Array] = field(default_factory=dict)
    folded: Mapping[str, Array] | None = None
    reach: int = FUSION_REACH
    needed: Collection[str] = NEEDED_OUTPUTS
    resized: Resized = not_resized
    mistaken: Mapping[str, str] = field(default_factory=dict)
    explained: bool = False
    finely: Collection[str] = ()
    unreached: Mapping[str, Idle] | None = None

    @property
    def declared(self) -> Declaration:
        """What its steps are computed with."""
        return self.candidate.declaration

    def further(self) -> list[str]:
        """Return the outputs besides the reference's."""
        return further_outputs(self.outputs, self.shipped, self.needed)

    def compare_steps(self, own: OwnGraph | None) -> None:
        """Look for every step of the reference."""
        further = ", ".join(self.further())
        self.remarks += [f"its outputs {further} are further ones, and not judged"] * bool(further)
        self.remarks += misnamed(self.outputs)
        self.steps, self.fault = self._compared(self.declared, own)
        self.remarks += of_one_key(self.recording, self.steps) if self.candidate.captures_all else []
        self._name_mistaken()
        self.fault = self.fault or _output_fault(self.outputs, self.recording)
        if not self.candidate.captures_all:
            self._look_at_strangers()
        if first_wrong([*self.outputs, *self.nodes, *self.steps]) is None:
            self.remarks += explain_large_errors(self.recording, self.outputs, self.steps)
            self._look_at_what_is_hidden(own)

    def _look_at_what_is_hidden(self, own: OwnGraph | None) -> None:
        """Read the limits that this input does not reach, and other numbers, in the candidate's nodes."""
        idle = unreached(self.recording)
        held = {row.name: row.candidate for row in self.steps if row.candidate}
        graph = own.graph if own else None
        # Of outputs alone it is said that nothing inside was seen.
        self.unreached = {} if self._shows_only_outputs else idle
        weights, integer = self.candidate.declaration.weights, getattr(self.candidate, "integer", False)
        # Ranges of integers are limits of their own.
        if graph is None or weights is not None or integer or is_quantized(graph):
            return
        sides = ShapedGraph.of_recording(self.recording), ShapedGraph.of_onnx(graph, self.captured)
        wrong, unread = read_limits(*sides, idle, held, self.declared.storage.unit_roundoff)
        self.unreached = {name: which for name, which in self.unreached.items() if name in unread}
        # What computes in less rounds its constants to it.
        formats = (self.declared.storage, self.candidate.declaration.arithmetic)
        coarsest = max(formats, key=lambda format: format.unit_roundoff)
        wrong |= {} if wrong else read_numbers(*sides, held, coarsest, self.captured)
        if wrong:
            first = next(step for step, name in self.recording.results() if name in wrong)
            node = sides[1].producer(held.get(first.outputs[0], ""))
            nodes = (node.name,) if node else ()
            self.fault = self.fault or Fault(first.outputs[0], first.operation, "network", nodes)
            self.problems += list(wrong.values())

    def _name_mistaken(self) -> None:
        """Let the steps fail of which the file has the weight wrong, whatever hides it in their bound."""
        self.steps = [
            row.made_systematic(f"its {self.mistaken[row.name]}") if row.name in self.mistaken else row
            for row in self.steps
        ]
        first = first_wrong(self.steps)
        # What is wrong with others explains nothing where the first goes wrong.
        self.evidence += [said for name, said in self.mistaken.items() if first and name == first.name]
        others = (name for name in self.mistaken if first is None or name != first.name)
        self.remarks += [f"{name}: its {self.mistaken[name]}" for name in others]
        if first is not None and (self.fault is None or self.fault.step != first.name):
            self.fault = Fault(first.name, first.operation, "network", ())

    def held_outputs(self) -> dict[str, str]:
        """Return output → the candidate's tensor that is given for it, of those that it should hold."""
        return {row.name: row.candidate for row in self.outputs if row.candidate is not None}

    def _compared(
        self, declared: Declaration, own: OwnGraph | None = None
    ) -> tuple[list[Comparison], Fault | None]:
        found = self._found(declared, own)
        if declared.otherwise is None:
            return found
        self.finely = stored_finely(self.recording, found[0], own)
        return self._found(declared, own, self.finely) if self.finely else found

    def folded_of(self, finely: Collection[str]) -> Mapping[str, Array] | None:
        """Return by how much constants may be off, where what is in ``finely`` is stored finely."""
        return self.folded

    def _found(
        self, declared: Declaration, own: OwnGraph | None, finely: Collection[str] = ()
    ) -> tuple[list[Comparison], Fault | None]:
        return compare_steps(
            self.recording,
            self.held_outputs(),
            CandidateTensors(self.captured),
            declared,
            captures_all=self.candidate.captures_all,
            own=own,
            nodes=self.nodes if own else (),
            folded=self.folded_of(finely),
            reach=self.reach,
            finely=finely,
        )

    def _look_at_strangers(self) -> None:
        """Say which of the candidate's tensors are like none of the network's: they were not judged."""
        placed = {row.candidate for row in (*self.outputs, *self.steps)}
        inside = {name: array for name, array in self.captured.items() if name not in self.shipped}
        strangers = {name: array for name, array in inside.items() if name not in placed}
        self.problems += not_finite(strangers)
        if strangers:
            self.remarks.append(like_nothing(strangers, len(inside)))

    def tensor_of(self, name: str) -> str | None:
        """Return the step of which it is the tensor."""
        held = (row.name for row in self.steps if row.candidate == name and row.verdict == "pass")
        return next(held, None)

    def diagnose(self) -> None:
        """Name the mistake, and move the fault to where it is made."""
        fast = self._winograd()
        if fast is None:
            self._explain()
            return
        self.evidence.append(fast.said)
        self.explained = fast.fault is None
        if fast.fault is not None:
            shown, self.steps, self.fault = self.steps, fast.steps, fast.fault
            self._explain()
            self.steps = shown

    def _explain(self) -> None:
        own = self.candidate.own_graph(self.given(self.feeds))
        graph = None if own is None else own.graph
        wrong = first_wrong([*self.outputs, *self.steps]) is not None
        if graph and self.weights and wrong:
            self.evidence += compare_weights(self.weights, graph.initializers)
        # Without the tensors around the failing step every mistake of the whole network could be the one.
        if self.candidate.captures_all:
            stretch = wrong_stretch(self.recording, self.steps, self.captured, graph) if graph else None
            if own and graph and self.fault:
                known = {**own.feeds, **self.captured}
                self._read(stretch or self._guessed(self.fault, graph), ShapedGraph.of_onnx(graph, known))
            found = (self.recording, self.steps, self.outputs, self.captured, self.shipped)
            placed = (stretch.step, stretch.tensor) if stretch else None
            explained = diagnose(*found, self._declared_at_fault(), placed, self.resized)
            self.diagnoses = explained.diagnoses
            self.evidence += explained.evidence
            self.evidence += unexplained(self.diagnoses, self.evidence) if wrong else []
            self.fault = _placed(self.fault, self.diagnoses, self.steps, self.recording)

        elif self.fault and self._shows_only_outputs:
            self._explain_outputs(self.fault)

    @property
    def _shows_only_outputs(self) -> bool:
        """Whether nothing inside is seen."""
        held = {row.candidate for row in self.steps if row.candidate}
        return {row.candidate for row in self.outputs}.issuperset(held)

    def fed_otherwise(self) -> str:
        """Say which other picture gives all its outputs; empty where none does, or it is given no picture."""
        return ""

    def _explain_outputs(self, fault: Fault) -> None:
        """Say what is wrong with all outputs, or up to where one mistake that explains them must be."""
        wrong = [row for row in self.outputs if row.verdict == "fail"]
        said = self.fed_otherwise() if len(wrong) == len(self.outputs) else ""
        if said:
            self.evidence.append(said)
            fed = [*self.recording.inputs.values()]
            first = next(step for step in self.recording.steps if step.inputs[0] in fed)
            self.fault = replace(fault, step=first.outputs[0], operation=first.operation)
            return
        behind = [self._behind(row) for row in wrong]
        right = set[str]().union(*(self._behind(row) for row in self.outputs if row.verdict == "pass"))
        common = set.intersection(*behind) - right if behind[1:] else set[str]()
        last = next((step.name for step in reversed(self.recording.steps) if step.name in common), None)
        if last:
            self.evidence.append(
                f"one mistake that explains {len(wrong)} wrong outputs is at {last} or before it"
            )

    def _behind(self, row: Comparison) -> set[str]:
        """Return the steps that compute an output of what depends on the input."""
        steps = self.recording.graph.between((), [self.recording.outputs[row.name]])
        moving = self.recording.graph.dependent(self.recording.inputs.values())
        return {step.name for step in steps if not moving.isdisjoint(step.outputs)}

    def _declared_at_fault(self) -> Declaration:
        """Return what the first wrong step is computed with."""
        declared, fault = self.declared, self.fault
        fine = fault is not None and any(
            step.outputs[0] in self.finely for step, name in self.recording.results() if name == fault.step
        )
        return declared.finely() if fine else declared

    def _winograd(self) -> FastConvolution | None:
        """Return which of Winograd's convolutions explains what fails first."""
        if self.folded is not None:
            return None  # both sides are computed in float64, by nobody's convolutions
        cure = getattr(self.candidate, "without_winograd", "")
        found = (self.recording, self.steps, self.captured, self.declared)
        return winograd_explains(*found, self._compared, cure)

    def _guessed(self, fault: Fault, graph: OnnxGraph) -> Stretch:
        """Return the stretch of the tensor that was taken for the first wrong step's."""
        calls, _ = steps_behind(self.recording, self.steps, self.captured, fault.step)
        nodes = [node for node in graph.nodes if node.name in fault.candidate_nodes]
        return Stretch(fault.step, "", calls, nodes)

    def _read(self, stretch: Stretch, graph: ShapedGraph) -> None:
        """Say what the candidate's nodes and constants at the first fault have of their own."""
        origins = _origins(self.recording.graph, self.recording.weights)
        ours = Side(stretch.calls, ShapedGraph.of_recording(self.recording), origins)
        theirs = Side(stretch.nodes, graph)
        self.subgraphs = {"reference": _placed_nodes(ours), "candidate": _placed_nodes(theirs)}
        self.evidence += read_nodes(ours, theirs)
        if not any(said.startswith("weight") for said in self.evidence):
            self.evidence += compare_constants(ours, theirs, self.weights)


def _placed_nodes(side: Side) -> list[PlacedNode]:
    """Return the nodes but those that only make or move constants."""
    return [
        PlacedNode(node.name, node.op_type, tuple(node.uses), node.outputs)
        for node in side.nodes
        if node.op_type not in SILENT or any(name not in side.constants for name in node.uses)
    ]


def _origins(graph: Graph, weights: Sequence[str]) -> dict[str, str]:
    """Return the tensors that are weights otherwise arranged, each with its weight."""
    found = {name: name for name in weights}
    for node in graph.nodes:
        if node.op_type in DATA_MOVEMENT and node.inputs[0] in found and len(node.outputs) == 1:
            found[node.outputs[0]] = found[node.inputs[0]]
    return found


def _output_fault(rows: Sequence[Comparison], recording: Recording) -> Fault | None:
    """Return the first wrong output: every step is right, but what is done to the last."""
    for row in rows:
        if row.verdict == "fail":
            tensor = recording.outputs[row.name]
            operation = next(step.operation for step, name in recording.results() if name == tensor)
            return Fault(tensor, operation, "network", ())
    return None


def _placed(
    fault: Fault | None, diagnoses: Sequence[Diagnosis], steps: Sequence[Comparison], recording: Recording
) -> Fault | None:
    """Move a fault to the absent step before it at which the likeliest mistake was made.

    A step that a candidate left out is missing from its tensors, and shows at the next.
    """
    call = diagnoses[0].call if fault and diagnoses else None
    made = next((step.outputs for step in recording.steps if step.name == call), ())
    absent = next((row for row in steps if row.name in made and row.verdict == "absent"), None)
    if fault is None or absent is None:
        return fault
    return replace(fault, step=absent.name, operation=absent.operation)
