"""Candidates that must fail and candidates that must pass: ``python -m conformance.evidence.catalogue``.

Prints the table of ``docs/catalogue.md``; given names, what is said of these. ``--write NAME FOLDER``
writes a network of them, for ``mobileinst verify``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from conformance.evidence import catalogue_networks, catalogue_runtimes
from conformance.evidence.catalogue_files import write_candidate
from conformance.evidence.catalogue_networks import Trial
from conformance.evidence.program import end_with
from conformance.reports.report import Report
from refimpl.errors import ConfigurationError, MobileInstError


def _judged(entries: dict[str, Callable[[], Trial]]) -> dict[str, Callable[[], Report]]:
    return {name: partial(_report, make) for name, make in entries.items()}


def _report(make: Callable[[], Trial]) -> Report:
    return make().report()


WRONG = {**catalogue_runtimes.wrong(), **_judged(catalogue_networks.wrong())}
RIGHT = {**catalogue_runtimes.right(), **_judged(catalogue_networks.right())}
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


def main() -> int:
    """Print both tables, or the verdicts on some candidates, or the command that judges a written one."""
    parser = argparse.ArgumentParser(description="Judge the catalogue.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these, each with its whole verdict")
    parser.add_argument(
        "--write",
        nargs=2,
        action="append",
        metavar=("NAME", "FOLDER"),
        default=[],
        help="only write one to a new folder; repeatable",
    )
    given = parser.parse_args()
    try:
        for name, folder in given.write:
            print(write_candidate(name, Path(folder)))
        if given.write:
            return 0
        return _headlines(given.names) if given.names else _tables()
    except MobileInstError as error:
        parser.error(str(error))


def _headlines(names: list[str]) -> int:
    """Print the verdicts; return the largest exit code."""
    codes = []
    for name in names:
        if name not in WRONG | RIGHT:
            raise ConfigurationError(f"the catalogue has no {name!r}; docs/catalogue.md lists all")
        report = (WRONG | RIGHT)[name]()
        print(report.headline())
        codes.append(report.exit_code)
    return max(codes)


def _tables() -> int:
    for line in (*table("Must fail", WRONG, "fail"), *table("Must pass", RIGHT, "pass")):
        print(line)
    return 0


if __name__ == "__main__":
    end_with(main)
