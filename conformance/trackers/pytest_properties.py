"""The properties as tests of one's own: a pytest parametrisation for Python callables or a command."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from conformance.trackers.candidate import CallableCandidate, Candidate
from conformance.trackers.command_candidate import CommandCandidate
from conformance.trackers.line_process import CommandFailure
from conformance.trackers.pasted_languages import LANGUAGES
from conformance.trackers.pasted_tests import pasted_test
from conformance.trackers.properties import Patience, properties, rival_properties
from conformance.trackers.property import Outcome, Property, check_property
from refimpl.errors import ConfigurationError

if TYPE_CHECKING:
    import pytest


def tracker_properties(
    associate: Callable[..., Any] | None = None,
    video: Callable[..., Any] | None = None,
    online: Callable[..., Any] | None = None,
    identify: Callable[..., Any] | None = None,
    *,
    command: str | None = None,
    method: str = "optimal",
    precision: str = "float64",
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    cases: int = 100,
    seed: int = 0,
    timeout: float = 30.0,
    language: str = "python",
) -> pytest.MarkDecorator:
    """Parametrise a test with the properties of a tracker, as its argument ``tracker_property``.

    Parameters
    ----------
    associate : callable or None
        (n, dim) and (m, dim) arrays → (n,) integers, as `Candidate.associate`.
    video, online : callable or None
        As `Candidate.video` and `Candidate.online`; properties of what is None are skipped.
    identify : callable or None
        As `Candidate.identify`; given, the properties are those of trackers that give detections identities
        (`rival_properties`), whose association may leave kernels unmatched.
    command : str or None
        In place of callables: a tracker in any language (docs/check-tracker.md).
    method, precision, only, skip
        See `properties`.
    cases, seed : int
        Cases drawn for each property, and which.
    timeout : float
        Seconds to wait for each answer of the command.
    language : str
        In which a counterexample is written as a test to paste: see `LANGUAGES`.

    Returns
    -------
    pytest.MarkDecorator
        The test's argument is a `TrackerProperty`; called, it fails the test unless the property holds.

    Raises
    ------
    ConfigurationError
        Neither callables nor a command, or both; an unknown method, precision, property or language; pytest
        is not installed.

    Examples
    --------
    >>> from refimpl.association import associate
    >>> @tracker_properties(lambda previous, current: associate(previous, current).permutation)
    ... def test_my_tracker(tracker_property):
    ...     tracker_property()
    """
    callables = (associate, video, online, identify)
    if (command is None) == all(one is None for one in callables):
        raise ConfigurationError("give callables or a command, and not both")
    if language not in LANGUAGES:
        raise ConfigurationError(f"language {language!r} is unknown; choose one of {', '.join(LANGUAGES)}")
    wanted = properties(method, precision, only, skip) if identify is None else rival_properties(only, skip)
    shared = _Shared(lambda: _candidate(callables, command, timeout))
    trial = _Trial(shared, method, cases, seed, language)
    bound = [TrackerProperty(one, trial) for one in wanted]
    decorator: pytest.MarkDecorator = _pytest().mark.parametrize(
        "tracker_property", bound, ids=[one.wanted.name for one in bound]
    )
    return decorator


def _candidate(callables: Sequence[Any], command: str | None, timeout: float) -> Candidate:
    if command is not None:
        return CommandCandidate(command, timeout)
    candidate = CallableCandidate(*callables)
    candidate.leaves_unmatched = callables[-1] is not None
    return candidate


class _Shared:
    """The candidate that all properties ask: made when first asked, ended with the interpreter."""

    def __init__(self, make: Callable[[], Candidate]) -> None:
        self._make = make
        self._candidate: Candidate | None = None
        self.patience = Patience()
        self.given_up = ""

    def candidate(self) -> Candidate:
        """Return the candidate, which answers.

        Raises
        ------
        CommandFailure
        """
        if self._candidate is None:
            made = self._make()
            if isinstance(made, CommandCandidate):
                weakref.finalize(self, made.close)
            made.recover()
            self._candidate = made
        return self._candidate


@dataclass(frozen=True)
class _Trial:
    shared: _Shared
    method: str
    cases: int
    seed: int
    language: str

    def outcome(self, wanted: Property) -> Outcome:
        """Run a property; a command that is beyond hope is asked no more.

        Raises
        ------
        CommandFailure
        """
        try:
            outcome = check_property(wanted, self.shared.candidate(), self.cases, self.seed)
            self.shared.patience.spend(outcome)
        except CommandFailure as failure:
            self.shared.given_up = str(failure)
            raise
        return outcome


@dataclass(frozen=True)
class TrackerProperty:
    """A property of one's own tracker; calling it fails the test at hand unless the property holds."""

    wanted: Property
    trial: _Trial

    def __call__(self) -> None:
        """Run the property; fail with the smallest counterexample, skip what is not offered."""
        __tracebackhide__ = True
        pytest = _pytest()
        if self.trial.shared.given_up:
            pytest.skip(f"the tracker was given up before: {self.trial.shared.given_up}")
        outcome, given_up = None, ""
        try:
            outcome = self.trial.outcome(self.wanted)
        except CommandFailure as failure:
            given_up = str(failure)
        if outcome is None:
            # Out of the handler, or pytest would show the error twice.
            pytest.fail(given_up, pytrace=False)
        elif outcome.holds is None:
            pytest.skip(outcome.message)
        elif not outcome.holds:
            pytest.fail(self._told(outcome), pytrace=False)

    def _told(self, outcome: Outcome) -> str:
        pasted = pasted_test(outcome, self.trial.language, self.trial.method)
        return (
            f"{outcome.name}, {outcome.statement}: {outcome.message:.1000}\n"
            f"Smallest counterexample found, to paste:\n{pasted or outcome.line}"
        )


def _pytest() -> Any:
    """Return pytest, which only tests need."""
    try:
        import pytest
    except ImportError:
        raise ConfigurationError(
            "tracker_properties needs pytest: pip install 'mobileinst-reference[test]'"
        ) from None
    return pytest
