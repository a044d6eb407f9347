"""The result of a verification: plain records, their JSON, and an exception for tests."""

from __future__ import annotations

import dataclasses
import functools
import html
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from conformance.json_files import finite
from conformance.reports.failure_message import failure_message
from conformance.reports.summary import summary
from refimpl.errors import VerificationError
from refimpl.ops.operation import Array


@dataclass(frozen=True)
class Detail:
    """Where the error of one tensor is, and how much of the bound its elements use.

    Attributes
    ----------
    tensor
        Its name.
    error_map
        Largest absolute error over all but the last two axes, in at most 64×64 blocks; None if not finite.
    exact
        How many elements have no error at all.
    histogram
        How many elements with an error have log₁₀(error / bound) between two of ``edges``; the first and last
        count those beyond.
    unbounded
        How many elements have an error where none is allowed, or are not finite.
    """

    tensor: str
    error_map: list[list[float | None]]
    exact: int
    histogram: list[int]
    edges: list[float]
    unbounded: int = 0


@dataclass(frozen=True)
class Noise:
    """A quantised tensor's ratios of signal to noise, in decibels.

    Attributes
    ----------
    total
        Beside the float graph's own run, everything upstream included.
    introduced
        Beside the same step on the quantised graph's own operands.
    expected
        What the scales of its weights and its result let expect of that.
    saturated
        Share of its numbers that lie beyond its range.
    alone
        What would be left of the worst output if nothing else were quantised; of those with most noise only.
    """

    total: float
    introduced: float
    expected: float
    saturated: float
    alone: float | None = None


@dataclass(frozen=True)
class Comparison:
    """One tensor of the reference beside the candidate's.

    Attributes
    ----------
    name
        The reference's name.
    operation
        The operation that computes it.
    candidate
        The candidate's name; None if it holds no such tensor.
    shape
        The reference's shape.
    max_abs_error, relative_error
        Largest absolute difference from the reference's own run, everything upstream included, and that over
        the reference's largest element; None without a counterpart.
    worst_index
        Where the largest difference is.
    introduced_error
        Difference from the same step computed in float64 on the candidate's own inputs, where it is largest
        compared with its bound; None for outputs.
    tolerance
        What is allowed there: of the introduced error for a step or node, of ``max_abs_error`` for an output.
    utilisation
        The largest ratio of error to what is allowed, over all elements; up to 1 it is rounding. None if
        there is no bound.
    verdict
        ``pass``, ``fail``, ``inherited`` (wrong, but the operands it was computed from are, and nothing is
        known of the step), ``absent`` (the candidate holds no such tensor and is right after it) or ``not
        judged`` (no bound).
    systematic
        Whether it fails though every element is within its bound: the errors are unlike rounding's.
    reason
        In what they are.
    detail
        A closer look, for the one tensor worth it.
    noise
        Of a quantised tensor beside a float graph's.
    """

    name: str
    operation: str
    candidate: str | None
    shape: tuple[int, ...]
    max_abs_error: float | None
    relative_error: float | None
    worst_index: tuple[int, ...] | None
    introduced_error: float | None
    tolerance: float | None
    utilisation: float | None
    verdict: str
    systematic: bool = False
    reason: str | None = None
    detail: Detail | None = None
    noise: Noise | None = None

    @classmethod
    def absent(
        cls, name: str, operation: str, shape: tuple[int, ...], verdict: str, candidate: str | None = None
    ) -> Self:
        """Return the row of a tensor that has no counterpart, or one of another shape."""
        nothing = (None,) * 6
        return cls(name, operation, candidate, shape, *nothing, verdict=verdict)

    def made_systematic(self, reason: str) -> Self:
        """Return the row as failed by the statistics of its errors."""
        return dataclasses.replace(self, verdict="fail", systematic=True, reason=reason)

    @classmethod
    def judged(
        cls,
        name: str,
        operation: str,
        candidate: str,
        truth: Array,
        error: float,
        place: tuple[int, ...],
        *,
        introduced: float | None = None,
        allowed: float | None = None,
        utilisation: float | None = None,
    ) -> Self:
        """Return the row of a tensor with its counterpart: errors, their place, their share of the allowed.

        The share is None where there is no bound.
        """
        scale = _largest(truth) if error else 1.0
        return cls(
            name=name,
            operation=operation,
            candidate=candidate,
            shape=truth.shape,
            max_abs_error=error,
            relative_error=error / scale if scale else error,
            worst_index=place,
            introduced_error=introduced,
            tolerance=allowed,
            utilisation=utilisation,
            verdict="not judged" if utilisation is None else "pass" if utilisation <= 1 else "fail",
        )


@dataclass(frozen=True)
class Fault:
    """Where the candidate leaves the reference.

    Attributes
    ----------
    step
        The first tensor of the reference, in order of computation, that the candidate does not compute.
    operation
        The operation that produces it.
    question
        ``network``: the candidate does not compute what MobileInst does there. ``graph``: the runtime does
        not compute what the candidate's own graph says. ``meaning``: the candidate does not compute what
        another graph does.
    candidate_nodes
        The candidate's nodes between the last tensors that agree and the one nearest to it.
    reference_nodes
        The reference's there, where it is a graph of somebody's.
    """

    step: str
    operation: str
    question: str
    candidate_nodes: tuple[str, ...] = ()
    reference_nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """A mistake that explains the first fault: with it, the step computes what the candidate has.

    Attributes
    ----------
    fault
        Its name in the catalogue, ``category/what went wrong``.
    happens
        What is computed instead, in one line.
    detail
        Its parameters here, such as ``epsilon = 0.001``.
    call
        The operation it is at: the failing one, or one between it and the last tensors that agree.
    utilisation
        Error over bound if that mistake is made; at most 1.
    source
        Where the mistake is documented.
    """

    fault: str
    happens: str
    detail: str
    call: str
    utilisation: float
    source: str

    @property
    def named(self) -> str:
        """The fault with its parameters, as a headline has it."""
        return ", ".join(part for part in (self.fault, self.detail) if part)


@dataclass(frozen=True)
class MarginHistogram:
    """How many decisions have log₁₀(margin / allowed error) between two ``edges``, or beyond the ends.

    Attributes
    ----------
    edges
        One more than there are counts. Below 0 rounding may flip a decision, above 0 it may not.
    agreed, tied, flipped
        Decisions that come out as the reference's, otherwise within the allowed error, and otherwise.
    """

    edges: list[float]
    agreed: list[int]
    tied: list[int]
    flipped: list[int]

    def __add__(self, other: MarginHistogram) -> MarginHistogram:
        """Count the decisions of both, which have the same edges."""
        counts = (
            [mine + others for mine, others in zip(getattr(self, name), getattr(other, name), strict=True)]
            for name in ("agreed", "tied", "flipped")
        )
        return MarginHistogram(self.edges, *counts)


@dataclass(frozen=True)
class MaskPicture:
    """One instance's mask beside the candidate's.

    Attributes
    ----------
    image, query
        Which: the picture of the batch, and the query.
    iou
        Of the two masks.
    rows
        One character for each pixel: ``.`` outside and ``#`` inside in both; ``-`` only in the reference's
        mask, ``+`` only in the candidate's; the same within the allowed error: ``<`` and ``>``.
    """

    image: int
    query: int
    iou: float
    rows: list[str]


@dataclass(frozen=True)
class Decision:
    """One kind of decision that users make of the outputs.

    Attributes
    ----------
    kind
        ``kept instances``, ``labels``, ``mask pixels``, ``boundary pixels`` (those of the mask pixels with a
        neighbour that the reference decides otherwise) or ``track identity``.
    count
        How many decisions there are.
    ties
        How many come out otherwise where the allowed error reaches that far: reported, not failed.
    flips
        How many come out otherwise and should not.
    smallest_margin
        The reference's smallest distance to a flip, in ``unit``.
    largest_flipped_margin
        Of the flips; None without.
    smallest_iou
        Of the masks, with the reference's.
    unit
        What margins are differences in.
    allowed
        By how much rounding may move such a difference, at most.
    near
        How many decisions lie so near to a flip that rounding may decide them.
    histogram
        The margins over the allowed error; None without decisions.
    picture
        The mask with the smallest IoU.
    not_judged
        Why there is nothing to compare; None if there is.
    """

    kind: str
    count: int
    ties: int
    flips: int
    smallest_margin: float | None
    largest_flipped_margin: float | None
    smallest_iou: float | None = None
    unit: str = ""
    allowed: float | None = None
    near: int = 0
    histogram: MarginHistogram | None = None
    picture: MaskPicture | None = None
    not_judged: str | None = None

    @property
    def verdict(self) -> str:
        """``pass``, ``tie``, ``fail`` or ``not judged``."""
        if self.not_judged:
            return "not judged"
        return "fail" if self.flips else "tie" if self.ties else "pass"

    def __str__(self) -> str:
        """Say it in one line."""
        if self.not_judged:
            return f"{self.kind}: not judged, {self.not_judged}"
        parts = [f"{self.kind}: {self.count} decided, {self.flips} flipped, {self.ties} tied"]
        if self.smallest_margin is not None:
            parts.append(f"smallest margin {self.smallest_margin:.1e} in {self.unit}")
        if self.allowed is not None:
            parts.append(f"allowed error {self.allowed:.1e}")
        if self.largest_flipped_margin is not None:
            parts.append(f"largest margin flipped {self.largest_flipped_margin:.1e}")
        if self.smallest_iou is not None:
            parts.append(f"smallest mask IoU {self.smallest_iou:.4f}")
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Return the decision with its verdict as plain data."""
        plain: dict[str, Any] = finite({"verdict": self.verdict, **dataclasses.asdict(self)})
        return plain


def merged(decisions: Sequence[Decision]) -> Decision:
    """Return the decisions of one kind on several inputs as one; what is judged of them counts."""
    judged = [decision for decision in decisions if not decision.not_judged]
    if len(judged) <= 1:
        return (judged or list(decisions))[0]
    histograms = [decision.histogram for decision in judged if decision.histogram]
    worst = min(judged, key=lambda decision: 1.0 if decision.smallest_iou is None else decision.smallest_iou)
    return dataclasses.replace(
        judged[0],
        count=sum(decision.count for decision in judged),
        ties=sum(decision.ties for decision in judged),
        flips=sum(decision.flips for decision in judged),
        near=sum(decision.near for decision in judged),
        smallest_margin=_extreme(min, (decision.smallest_margin for decision in judged)),
        largest_flipped_margin=_extreme(max, (decision.largest_flipped_margin for decision in judged)),
        smallest_iou=worst.smallest_iou,
        allowed=_extreme(max, (decision.allowed for decision in judged)),
        histogram=functools.reduce(operator.add, histograms) if histograms else None,
        picture=worst.picture,
    )


def _extreme(choose: Callable[..., float], values: Iterable[float | None]) -> float | None:
    given = [value for value in values if value is not None]
    return choose(given) if given else None


FEW = 20
"""If only one of so many steps is judged, it is a verdict on outputs."""


@dataclass(frozen=True)
class PlacedNode:
    """A node at the first fault, of either side, as a picture shows it: what it computes of what."""

    name: str
    operation: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


UNRELATED = "is off by"
"""How a clause of the evidence begins that tells no relation, only a size."""
BOTH_LISTED = " there; the reference "
"""Between what either side computes, where they are written too differently to be compared."""
NO_MISTAKE = "no known mistake fits"


def is_telling(evidence: str) -> bool:
    """Tell whether a sentence of the evidence says what differs, and not only that something does."""
    return not any(words in evidence for words in (UNRELATED, BOTH_LISTED, NO_MISTAKE))


@dataclass(frozen=True)
class InputReport:
    """The comparisons on one input, whose bytes have the SHA-256 given.

    Attributes
    ----------
    outputs
        The shipped run's outputs against the reference's.
    steps
        Is it MobileInst? The reference's tensors, found in the candidate.
    nodes
        Does the runtime compute its own graph? The outputs of the candidate's nodes.
    problems
        What else is wrong, in the order of the checks.
    diagnoses
        Mistakes that explain the first fault, the likeliest first; empty if none of the catalogue does.
    decisions
        What users make of the outputs, with the reference's margins.
    remarks
        What is worth knowing and no fault.
    evidence
        What differs there, read from the numbers alone: weights, nodes, how the tensor relates to the right.
    covered
        The share of the multiply–accumulates that was judged, alone or fused; None if there are none.
    subgraphs
        ``reference`` and ``candidate`` → the nodes from the last tensors that agree to the first wrong one.
    ended
        Whether the last of the problems is that its process ended, hung, or answered what is no answer.
    """

    name: str
    shape: tuple[int, ...]
    sha256: str
    outputs: list[Comparison]
    steps: list[Comparison]
    nodes: list[Comparison]
    first_fault: Fault | None
    problems: list[str] = field(default_factory=list)
    diagnoses: list[Diagnosis] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    evidence: list[str] = field(default_factory=list)
    covered: float | None = None
    subgraphs: dict[str, list[PlacedNode]] = field(default_factory=dict)
    ended: bool = False

    @property
    def verdict(self) -> str:
        """``pass``, ``fail``, or ``not judged`` where nothing of it could be, or its process ended."""
        wrong = len(self.problems) > self.ended or any(row.verdict == "fail" for row in self.outputs)
        if self.first_fault or wrong or any(decision.flips for decision in self.decisions):
            return "fail"
        if self.ended:
            return "not judged"
        rows = self.outputs if self.outputs_only else [*self.outputs, *self.steps, *self.nodes]
        return "pass" if not rows or any(row.verdict == "pass" for row in rows) else "not judged"

    @property
    def likely(self) -> str:
        """Say what is wrong in a few words: a known mistake and where, else what the numbers tell."""
        known = next((diagnosis for diagnosis in self.diagnoses if diagnosis.source), None)
        if known is None:
            constants = [said for said in self.evidence if said.startswith(("weight ", "constant "))]
            told = [*filter(is_telling, self.evidence), *constants]
            told += [found.detail or found.named for found in self.diagnoses]
            return next(iter(told), "")
        return f"{known.named} at {known.call}" if self._is_elsewhere(known.call) else known.named

    def _is_elsewhere(self, call: str) -> bool:
        """Tell whether a call is another than the one that is blamed."""
        fault = self.first_fault
        if fault is None or call in fault.candidate_nodes:
            return False
        return call.partition("/")[0].removesuffix(".c") != fault.step.partition("/")[0]

    @property
    def silent(self) -> list[str]:
        """The outputs that cannot tell: rounding may move them by more than they vary, or without bound."""
        return [row.name for row in self.outputs if row.verdict == "not judged"]

    @property
    def systematic_reason(self) -> str:
        """Why the first wrong step fails though each of its elements is within its bound; empty if not so."""
        row = next((row for row in (*self.steps, *self.nodes) if row.verdict == "fail"), None)
        return f"; each element is within its bound, but {row.reason}" if row and row.reason else ""

    @property
    def silence(self) -> str:
        """Which outputs cannot tell, and why."""
        return (
            f"outputs {', '.join(self.silent)} cannot tell: in this precision and on these weights rounding "
            "may move them by more than they vary"
        )

    @property
    def coverage(self) -> str:
        """How much was judged, in words: a verdict on outputs alone cannot see what hides inside."""
        rows, what = (self.steps, "steps") if self.steps else (self.nodes, "results of nodes")
        counts = Counter(row.verdict for row in rows)
        judged = 0 if self.outputs_only else counts["pass"] + counts["fail"]
        if not judged:
            return "outputs only, nothing inside was judged"
        parts = [f"{judged} of {len(rows)} {what} judged"]
        parts += [
            f"{count} {verdict}" for verdict, count in counts.items() if verdict not in ("pass", "fail")
        ]
        if judged < len(rows) and self.covered is not None:
            parts.append(f"{100 * self.covered:.0f} % of the multiply–accumulates judged")
        few = "outputs only but for some: " * (judged * FEW < len(rows))
        return few + "; ".join(parts)

    @property
    def outputs_only(self) -> bool:
        """Whether the candidate gave outputs and nothing inside."""
        outputs = {row.candidate for row in self.outputs if row.candidate}
        inside = any(row.candidate and row.candidate not in outputs for row in (*self.steps, *self.nodes))
        return bool(outputs) and not inside

    @property
    def inherited(self) -> int:
        """How many steps are wrong only because their operands are."""
        return sum(row.verdict == "inherited" for row in self.steps)

    @property
    def flipped(self) -> str:
        """What flips, in words: ``4 track identity, 1 labels``; empty if nothing does."""
        return ", ".join(f"{item.flips} {item.kind}" for item in self.decisions if item.flips)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data; numbers that are not finite become strings."""
        plain: dict[str, Any] = finite({"verdict": self.verdict, **_plain(self)})
        plain["decisions"] = [decision.to_json() for decision in self.decisions]
        return plain


@dataclass(frozen=True)
class Report:
    """The verdict on a candidate over all inputs.

    Attributes
    ----------
    inputs
    candidate
        What it is called.
    model
        What is known of it.
    tolerance
        What the verdict allows, in words.
    command
        The command line that shows it again.
    reference
        What it is beside, where that is not the network.
    """

    inputs: list[InputReport]
    candidate: str
    model: dict[str, Any]
    tolerance: str
    command: str | None = None
    reference: str | None = None

    @property
    def verdict(self) -> str:
        """``fail`` if any input's is, else ``not judged`` if any input's is, else ``pass``."""
        found = {report.verdict for report in self.inputs}
        return next((verdict for verdict in ("fail", "not judged") if verdict in found), "pass")

    @property
    def exit_code(self) -> int:
        """0, 1 if it does not conform, 2 if that could not be judged."""
        return {"pass": 0, "fail": 1}.get(self.verdict, 2)

    @property
    def leading(self) -> InputReport:
        """The first failing input's report, or the first that is not judged, or the first of all."""
        worst = self.verdict
        return next((report for report in self.inputs if report.verdict == worst), self.inputs[0])

    @property
    def decisions(self) -> list[Decision]:
        """The decisions on all inputs together, one of each kind."""
        kinds: dict[str, list[Decision]] = {}
        for report in self.inputs:
            for decision in report.decisions:
                kinds.setdefault(decision.kind, []).append(decision)
        return [merged(decisions) for decisions in kinds.values()]

    def __str__(self) -> str:
        """Say the verdict, where and why, and how much was judged, in ten lines of 80 columns."""
        return "\n".join(summary(self))

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the verdict in ten lines."""
        return f"<pre>{html.escape(str(self))}</pre>"

    def html(self) -> str:
        """Return one self-contained page."""
        from conformance.reports.html_report import html_report

        return html_report(self)

    def junit(self) -> str:
        """Return JUnit XML, one test case for each tensor."""
        from conformance.reports.junit_report import junit_report

        return junit_report(self)

    def markdown(self) -> str:
        """Return a summary for a CI job in Markdown."""
        from conformance.reports.markdown_report import markdown_report

        return markdown_report(self)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data.

        ``outputs``, ``steps`` and ``first_fault`` are those of `leading`, ``decisions`` those on all inputs.
        """
        inputs = [report.to_json() for report in self.inputs]
        leading = inputs[self.inputs.index(self.leading)]
        return {
            "verdict": self.verdict,
            "candidate": self.candidate,
            "model": self.model,
            "tolerance": self.tolerance,
            "command": self.command,
            "headline": self.headline(),
            **{
                key: leading[key]
                for key in ("outputs", "steps", "nodes", "first_fault", "problems", "diagnoses")
            },
            "decisions": [decision.to_json() for decision in self.decisions],
            "inputs": inputs,
        }

    def raise_on_failure(self) -> None:
        """Raise `VerificationError` with `failure_message`, unless the verdict is ``pass``."""
        # Pytest then shows the line of the test, not this one.
        __tracebackhide__ = True
        if self.verdict != "pass":
            raise VerificationError(self.failure_message())

    def failure_message(self) -> str:
        """Return the headline, a table of the first failing tensors and how to see it again."""
        return failure_message(self)

    def headline(self) -> str:
        """Say the verdict in one line."""
        report = self.leading
        if report.verdict == "pass":
            count = f"{len(self.inputs)} input{'s' * (len(self.inputs) > 1)}"
            silent = f"; {report.silence}" if report.silent else ""
            beside = f"means what {self.reference} does" if self.reference else "conforms"
            return f"PASS  {self.candidate} {beside} on {count}; {report.coverage}{silent}"
        if report.verdict == "not judged":
            why = report.problems[-1] if report.ended else report.silence
            return f"NOT JUDGED  {self.candidate} on {report.name}: {why}"
        if report.problems:
            return f"FAIL  {self.candidate} on {report.name}: {'; '.join(report.problems)}"
        if report.first_fault:
            fault = report.first_fault
            beside = self.reference or "the reference"
            place = f"leaves {beside} at {fault.step} ({fault.operation}) on {report.name}"
            likely = f": {report.likely}" if report.likely else ""
            return f"FAIL  {self.candidate} {place}{likely}{report.systematic_reason}"
        wrong = [row.name for row in report.outputs if row.verdict == "fail"]
        wrong = wrong or [decision.kind for decision in report.decisions if decision.flips]
        return f"FAIL  {self.candidate} on {report.name}: outputs {', '.join(wrong)}"


def _plain(value: Any) -> Any:
    """Return records as dictionaries; as `dataclasses.asdict`, which copies every number one by one."""
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value)) if value and not isinstance(value[0], _NUMBERS) else value
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return value


_NUMBERS = (int, float)


def _largest(array: Array) -> float:
    if array.dtype.kind not in "fiu":
        return 1.0
    return max(float(array.max(initial=0)), -float(array.min(initial=0)))
