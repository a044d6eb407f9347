"""Candidates that must fail and candidates that must pass: ``python -m conformance.evidence.catalogue``.

Prints the table of ``docs/catalogue.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from conformance.evidence import catalogue_networks, catalogue_runtimes
from conformance.reports.report import Report

WRONG = {**catalogue_runtimes.wrong(), **catalogue_networks.wrong()}
RIGHT = {**catalogue_runtimes.right(), **catalogue_networks.right()}
"""Name → what judges the candidate, in memory and without a cache."""

LONGEST = 70
"""Characters of a reason in the table."""


def row(name: str, judge: Callable[[], Report]) -> tuple[str, str]:
    """Return the verdict on a candidate, and its row: name, verdict, why."""
    report = judge()
    _, _, said = report.headline().partition("candidate ")
    why = " ".join(said.replace("|", "∣").replace("`", "'").split())
    why = why if len(why) <= LONGEST else f"{why[: LONGEST - 1]}…"
    return report.verdict, f"| {name} | {report.verdict} | {why} |"


def table(title: str, entries: dict[str, Callable[[], Report]], wanted: str) -> Iterator[str]:
    """Yield the lines of a table, and last how many verdicts are those wanted."""
    yield f"## {title}\n"
    yield "| candidate | verdict | in the verdict's words |"
    yield "|---|---|---|"
    right = 0
    for name, judge in entries.items():
        verdict, line = row(name, judge)
        right += verdict == wanted
        yield line
    yield f"\n{right} of {len(entries)} {wanted}.\n"


def main() -> None:
    """Print both tables."""
    for line in (*table("Must fail", WRONG, "fail"), *table("Must pass", RIGHT, "pass")):
        print(line)


if __name__ == "__main__":
    main()
