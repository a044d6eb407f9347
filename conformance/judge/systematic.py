"""Outputs alone, over several inputs: an error that rounding makes once, but not always in one direction.

The envelope allows an output several times what the worst of a few perturbed runs shows. A bias, or half of
the envelope everywhere, hides in it. Over several inputs rounding averages out; a systematic error does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import scipy  # scipy.special is loaded at its first use: half of the import time

from conformance.bounds.declaration import Declaration
from conformance.bounds.envelope import perturbed
from conformance.candidates.arrays import attempted
from conformance.candidates.candidate import Candidate
from conformance.judge.alignment import in_layout_of
from conformance.judge.movement import another
from conformance.reports.report import InputReport
from refimpl import Recording
from refimpl.errors import CandidateError, MobileInstError, ProcessError
from refimpl.ops.operation import Array

INPUTS, RUNS = 8, 4
"""Inputs on which a candidate is run, and perturbed runs of the reference on each."""

MOST = 2.0
"""Roundings that the average over the inputs may be off: 5.7 deviations, were the candidate's own error as
large as the envelope's. That of right runtimes is some ten times smaller."""

SHIFTED = 3
"""Roundings of the bias for which the power is stated."""

UNSEEN = (
    "outputs only: a wrong step is not seen that these inputs do not reach, that changes outputs by less "
    "than this, or that another undoes; capture tensors inside (docs/check-your-port.md)"
)
ONE_RUN = "outputs of one run only: a systematic error within the envelope is not seen, nor what hides inside"

Measures = dict[str, float]
Truth = Callable[[Array], Recording]


def judged_over_several(
    candidate: Candidate,
    reports: Sequence[InputReport],
    inputs: Mapping[str, Array],
    truth: Truth,
    progress: Callable[[str], None],
) -> list[InputReport]:
    """Return the reports, the first with what several inputs show of a candidate that gives outputs only.

    Parameters
    ----------
    candidate
        What was judged; it is run on the inputs given and on others of the judge's own, `INPUTS` in all.
    reports, inputs
        The verdicts, and label → images (B, 3, H, W).
    truth
        Images → the run of what the candidate should be, in float64.
    progress
        Called with a few words before each input.
    """
    first, *others = reports
    if not all(report.outputs_only and report.verdict == "pass" for report in reports):
        return list(reports)
    if not getattr(candidate, "reruns", True):
        return [replace(first, remarks=[*first.remarks, ONE_RUN]), *others]
    found = _Outputs(
        {row.name: row.candidate for row in first.outputs if row.verdict == "pass" and row.candidate}
    )
    try:
        for number, images in enumerate(_several(inputs), start=1):
            progress(f"systematic error, input {number} of {INPUTS}")
            found.look(
                attempted(candidate.run, images, passed=MobileInstError), truth(images), candidate.declaration
            )
    except CandidateError as error:
        said, ended = f"on an input of the judge's own, {error}", isinstance(error, ProcessError)
        return [replace(first, problems=[said], ended=ended), *others]
    told = replace(first, problems=found.problems, remarks=[*first.remarks, *found.remarks])
    return [told, *others]


def _several(inputs: Mapping[str, Array]) -> Iterator[Array]:
    """Yield the inputs given, then the first with its numbers in other orders."""
    given = [np.array(images, np.float32) for images in inputs.values()][:INPUTS]
    yield from given
    for seed in range(1, INPUTS + 1 - len(given)):
        yield (another({"images": given[0]}, seed) or {"images": given[0]})["images"]


@dataclass
class _Outputs:
    """The candidate's error and the envelope's, measured on input after input."""

    names: Mapping[str, str]
    own: dict[str, list[Measures]] = field(default_factory=dict)
    expected: dict[str, list[Measures]] = field(default_factory=dict)

    def look(self, given: Mapping[str, Array], recording: Recording, declaration: Declaration) -> None:
        """Measure both on one input."""
        truths = {name: recording.tensors[recording.outputs[name]] for name in self.names}
        for name, truth in truths.items():
            output = given.get(self.names[name])
            if output is None or output.size != truth.size:
                raise CandidateError(f"it gives no output {self.names[name]!r} of shape {truth.shape}")
            self.own.setdefault(name, []).append(_measures(in_layout_of(output, truth) - truth, truth))
        # One seed an input: a rounding that all inputs shared would be a bias itself.
        seed = len(self.expected.get(next(iter(truths)), ()))
        for run in perturbed(recording, declaration, samples=RUNS, seed=seed):
            for name, truth in truths.items():
                rounding = declaration.storage.unit_roundoff * _size(truth)
                measured = _measures(run[name] - truth, truth)
                joined = {kind: float(np.hypot(measure, rounding)) for kind, measure in measured.items()}
                self.expected.setdefault(name, []).append(joined)

    @property
    def problems(self) -> list[str]:
        """What is off by more than rounding is on average."""
        found = []
        for name in self.own:
            measures = self._roundings(name)
            worst = max(measures, key=lambda kind: measures[kind])
            if not measures[worst] <= MOST:
                found.append(
                    f"its output {name!r} is off systematically: {worst} over {INPUTS} inputs is "
                    f"{measures[worst]:.2g} times what rounding makes on one, {MOST:g} allowed"
                )
        return found

    @property
    def remarks(self) -> list[str]:
        """What the test can find, and what outputs cannot show."""
        if self.problems:
            return []
        largest = max(max(self._roundings(name).values()) for name in self.own)
        return [
            f"outputs over {INPUTS} inputs: no error that they share exceeds {largest:.2g} roundings, "
            f"{MOST:g} allowed; a bias of {SHIFTED} would be found with probability {power(SHIFTED):.1%}",
            UNSEEN,
        ]

    def _roundings(self, name: str) -> Measures:
        """Return each measure's average, in units of what it is where only rounding is at work."""
        own, expected = self.own[name], self.expected[name]
        found = {}
        for kind in own[0]:
            numbers = [each[kind] for each in own]
            average = _root_mean_square(numbers) if kind == SPREAD else float(np.mean(numbers))
            scale = _root_mean_square([each[kind] for each in expected])
            found[kind] = abs(average) / scale if scale else float(np.inf if average else 0)
        return found


def power(roundings: float) -> float:
    """Return how likely a bias of so many roundings is found, were the rest of the error the envelope's."""
    return float(scipy.special.ndtr((roundings - MOST) * np.sqrt(INPUTS)))


SPREAD = "its size"


def _measures(error: Array, truth: Array) -> Measures:
    """Return how far an error is a shift, away from zero, a factor, and large."""
    size = _size(truth)
    return {
        "its mean": float(error.mean()),
        "its mean away from zero": float((error * np.sign(truth)).mean()),
        "its share of the output": float((error * truth).mean()) / size if size else 0.0,
        SPREAD: _size(error),
    }


def _size(array: Array) -> float:
    return _root_mean_square(array.astype(np.float64).ravel())


def _root_mean_square(numbers: Sequence[float] | Array) -> float:
    return float(np.sqrt(np.mean(np.square(numbers))))
