"""What a property is, and how one is run: cases drawn by Hypothesis, a failure shrunk to the smallest."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import hypothesis
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from conformance.trackers.candidate import Candidate, NotOffered
from conformance.trackers.line_process import CommandFailure
from conformance.trackers.protocol import AnswerError

Array = NDArray[Any]
MOST_ATTEMPTS, MOST_SECONDS = 600, 20.0
"""Cases tried, and time spent, after the first failure to find a smaller one."""


@dataclass(frozen=True)
class Call:
    """One question asked of the candidate, the name of its method, and its arguments."""

    kind: str
    arguments: tuple[Any, ...]
    answer: Any = None


class Recorder(Candidate):
    """A candidate that writes down what it is asked, and passes it on."""

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.calls: list[Call] = []
        self.notations = candidate.notations
        self.leaves_unmatched = candidate.leaves_unmatched

    def associate(self, previous: Array, current: Array) -> Any:
        """Pass on, copies kept, as the candidate may write into its input."""
        kept = (previous.copy(), current.copy())
        return self._recorded("associate", kept, self.candidate.associate, previous, current)

    def video(self, *arguments: Any) -> Any:
        """Pass on."""
        return self._recorded("video", arguments, self.candidate.video, *arguments)

    def online(self, *arguments: Any) -> Any:
        """Pass on."""
        return self._recorded("online", arguments, self.candidate.online, *arguments)

    def identify(self, *arguments: Any) -> Any:
        """Pass on."""
        return self._recorded("identify", arguments, self.candidate.identify, *arguments)

    @contextmanager
    def writing(self, notation: str) -> Iterator[None]:
        """Pass on."""
        with self.candidate.writing(notation):
            yield

    def restart(self) -> None:
        """Pass on."""
        self.candidate.restart()

    def _recorded(self, kind: str, kept: tuple[Any, ...], ask: Callable[..., Any], *arguments: Any) -> Any:
        self.calls.append(Call(kind, kept))
        answer = ask(*arguments)
        self.calls[-1] = Call(kind, kept, answer)
        return answer


@dataclass(frozen=True)
class Property:
    """A named property: what it says, where its cases come from, and the check that raises where it fails.

    Attributes
    ----------
    name, statement : str
    cases : strategy
    check : callable
        Takes the candidate and a case.
    share : float
        Cases that take long, or have few kinds, are drawn that much more rarely.
    history : bool
        Whether a failure may depend on what was asked before, so that a counterexample is all of it.
    """

    name: str
    statement: str
    cases: st.SearchStrategy[Any]
    check: Callable[[Candidate, Any], None]
    share: float = 1.0
    history: bool = False


@dataclass(frozen=True)
class Outcome:
    """What running a property gave.

    Attributes
    ----------
    holds : bool or None
        None if the candidate does not offer what the property needs.
    cases : int
        Cases tried.
    message : str
        What is wrong with the smallest counterexample.
    request : dict or None
        The smallest counterexample as a request of the command protocol.
    misbehaved : bool
        The candidate gave no answer that can be read, or none at all.
    calls : list of Call
        Everything asked in the smallest counterexample.
    history : bool
        See `Property`.
    """

    name: str
    statement: str
    holds: bool | None
    cases: int
    message: str = ""
    request: dict[str, Any] | None = None
    misbehaved: bool = False
    calls: Sequence[Call] = field(default=(), repr=False)
    history: bool = False

    @property
    def line(self) -> str:
        """The request as one line of JSON, to paste."""
        return "" if self.request is None else json.dumps(self.request)


class _Failure:
    """The smallest counterexample so far of a property that fails."""

    def __init__(self, case: Any, error: Exception, calls: list[Call], began: float) -> None:
        self.case, self.error, self.calls, self.began = case, error, calls, began

    @property
    def message(self) -> str:
        text = str(self.error)
        return text if isinstance(self.error, AssertionError) else f"{type(self.error).__name__}: {text}"


class _Run:
    """One property being run; called by Hypothesis with each case."""

    def __init__(self, wanted: Property, candidate: Candidate) -> None:
        self.wanted, self.candidate = wanted, candidate
        self.tried = 0
        self.attempts = 0
        self.failure: _Failure | None = None

    def __call__(self, case: Any) -> None:
        began = time.monotonic() if self.failure is None else self.failure.began
        self.attempts += self.failure is not None
        if self.attempts > MOST_ATTEMPTS or time.monotonic() - began > MOST_SECONDS:
            return
        recorder = Recorder(self.candidate)
        try:
            self.wanted.check(recorder, case)
        except (hypothesis.errors.UnsatisfiedAssumption, NotOffered):
            raise
        except Exception as error:
            self.failure = _Failure(case, error, recorder.calls, began)
            if isinstance(error, CommandFailure):
                # What follows is asked of a process that answers; without one there is nothing to shrink.
                self.candidate.recover()
            raise
        self.tried += 1


def check_property(
    wanted: Property, candidate: Candidate, cases: int = 100, seed: int = 0, shrink: bool = True
) -> Outcome:
    """Run one property; a failure is shrunk to the smallest counterexample found.

    Parameters
    ----------
    wanted : Property
    candidate : Candidate
    cases : int
        Most cases to draw, besides those tried while shrinking.
    seed : int
    shrink : bool
        False returns the first counterexample, which is faster.

    Raises
    ------
    CommandFailure
        The command misbehaves, and does not recover when it is started anew.
    """
    run = _Run(wanted, candidate)
    try:
        with np.errstate(all="ignore"):
            _drawn(run, max(2, round(cases * wanted.share)), seed, shrink)()
    except NotOffered as reason:
        return Outcome(wanted.name, wanted.statement, None, 0, str(reason))
    except Exception as error:
        if run.failure is None:
            raise
        if isinstance(error, CommandFailure) and error is not run.failure.error:
            raise CommandFailure(
                f"{run.failure.error}, in {wanted.name}; started anew, it does not recover: {error}"
            ) from None
    failure = run.failure
    if failure is None:
        return Outcome(wanted.name, wanted.statement, True, run.tried)
    return Outcome(
        wanted.name,
        wanted.statement,
        False,
        run.tried,
        failure.message,
        failure.case.request(),
        isinstance(failure.error, CommandFailure | AnswerError),
        failure.calls,
        wanted.history,
    )


def _drawn(run: _Run, cases: int, seed: int, shrink: bool) -> Callable[[], None]:
    """The run as a test of Hypothesis."""
    phases = [hypothesis.Phase.generate, *([hypothesis.Phase.shrink] if shrink else [])]

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=cases,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        phases=phases,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(run.wanted.cases)
    def test(case: Any) -> None:
        run(case)

    found: Callable[[], None] = test
    return found
