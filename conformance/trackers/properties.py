"""All properties of a tracker, those first that find most; and how they are run on one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from conformance.trackers.association_properties import association_properties
from conformance.trackers.candidate import Candidate
from conformance.trackers.identity_properties import identity_properties
from conformance.trackers.line_process import CommandFailure
from conformance.trackers.online_properties import online_properties
from conformance.trackers.optimality_properties import greedy_properties, optimality_properties
from conformance.trackers.precision import precision_named
from conformance.trackers.property import Outcome, Property, check_property
from conformance.trackers.video_properties import video_properties
from refimpl.errors import ConfigurationError

FIRST = ("optimal_brute_force", "most_similar_first", "kernel_reuse", "lifecycle", "tie_rule", "streaming")
"""Properties that catch most mutants (docs/check-tracker-power.md), and are tried first."""
MOST_MISBEHAVIOUR = 3
"""Properties in a row in which a command may misbehave before it is given up."""


def properties(
    method: str = "optimal",
    precision: str = "float64",
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
) -> list[Property]:
    """Properties of a tracker that claims ``method``, "optimal" or "greedy", and computes in ``precision``.

    Parameters
    ----------
    method, precision : str
    only, skip : list of str
        Names of properties; ``only`` empty means all.

    Raises
    ------
    ConfigurationError
        An unknown method, precision or property, or none left.
    """
    if method not in ("optimal", "greedy"):
        raise ConfigurationError(f"method {method!r} is unknown; choose 'optimal' or 'greedy'")
    format_ = precision_named(precision)
    chosen = optimality_properties(format_) if method == "optimal" else greedy_properties(format_)
    every = [
        *chosen,
        *association_properties(method, format_),
        *video_properties(format_),
        *online_properties(format_),
    ]
    every.sort(key=lambda one: FIRST.index(one.name) if one.name in FIRST else len(FIRST))
    return _chosen(every, f"{method} trackers in {precision}", only, skip)


def rival_properties(only: Sequence[str] = (), skip: Sequence[str] = ()) -> list[Property]:
    """Properties of a tracker that gives detections identities: of its association, then of identities.

    Raises
    ------
    ConfigurationError
        An unknown property, or none left.
    """
    format_ = precision_named("float64")
    associations = [*optimality_properties(format_), *association_properties("optimal", format_)]
    return _chosen([*identity_properties(), *associations], "trackers of detections", only, skip)


def _chosen(every: Sequence[Property], what: str, only: Sequence[str], skip: Sequence[str]) -> list[Property]:
    names = [one.name for one in every]
    if unknown := [name for name in (*only, *skip) if name not in names]:
        raise ConfigurationError(
            f"there is no property {', '.join(unknown)} of {what}; choose from {', '.join(names)}"
        )
    wanted = [one for one in every if (not only or one.name in only) and one.name not in skip]
    if not wanted:
        raise ConfigurationError("no property is left; give fewer --skip or another --only")
    return wanted


def check_candidate(
    candidate: Candidate,
    method: str = "optimal",
    cases: int = 100,
    seed: int = 0,
    wanted: Sequence[Property] | None = None,
) -> Iterator[Outcome]:
    """Run properties; outcomes come one by one, for a progress display.

    Parameters
    ----------
    candidate : Candidate
    method : str
    cases : int
        Cases drawn for each property; those that take long draw fewer.
    seed : int
    wanted : list of Property or None
        None is all of ``method``.

    Raises
    ------
    CommandFailure
        A command does not answer the smallest question, or misbehaves in several properties in a row.
    """
    candidate.recover()
    patience = Patience()
    for one in properties(method) if wanted is None else wanted:
        outcome = check_property(one, candidate, cases, seed)
        patience.spend(outcome)
        yield outcome


class Patience:
    """Ends where a command misbehaves in `MOST_MISBEHAVIOUR` properties in a row."""

    def __init__(self) -> None:
        self._in_a_row: list[str] = []

    def spend(self, outcome: Outcome) -> None:
        """Take the next outcome.

        Raises
        ------
        CommandFailure
        """
        if outcome.holds is not None:
            self._in_a_row = [*self._in_a_row, outcome.name] if outcome.misbehaved else []
        if len(self._in_a_row) == MOST_MISBEHAVIOUR:
            names = ", ".join(self._in_a_row)
            raise CommandFailure(f"{outcome.message}; so in {names}; last asked {outcome.line:.300}")


def catch_table(candidates: Mapping[str, Any], cases: int = 50, seed: int = 0) -> dict[str, list[str]]:
    """Which properties each known-bad tracker fails: name → names of properties."""
    return {name: caught_by(make, cases, seed) for name, make in candidates.items()}


def caught_by(make: Any, cases: int = 50, seed: int = 0) -> list[str]:
    """Names of the properties that a known-bad tracker, made anew for each, fails."""
    outcomes = [check_property(wanted, make(), cases, seed, shrink=False) for wanted in properties()]
    return [outcome.name for outcome in outcomes if outcome.holds is False]


def catch_table_markdown(table: Mapping[str, Sequence[str]]) -> str:
    """Write `catch_table` as a Markdown table, one row per known-bad tracker."""
    rows = [
        f"| {name.replace('_', ' ')} | {', '.join(caught) or '**nothing**'} |"
        for name, caught in table.items()
    ]
    return "\n".join(["| known-bad tracker | properties that catch it |", "|---|---|", *rows]) + "\n"
