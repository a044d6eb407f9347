"""Wrong results that released versions of ONNX Runtime give: does the judge catch them?

`python -m conformance.evidence.runtime_bugs` installs each version that `bug_graphs` names into a folder of
its own, and judges each graph in its version and in the installed one, in other processes. A row says how far
the version is off what is right, whether the judge says so, and where.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx.reference import ReferenceEvaluator

from conformance.candidates.child_process import next_line, python_command, safe_environment
from conformance.candidates.onnx_runtime import OnnxRuntimeGraph, RuntimeOptions
from conformance.evidence.bug_graphs import BUGS, Bug, Small
from conformance.evidence.models import write_page
from conformance.evidence.program import end_with
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.any_graph import verify_graph
from conformance.reports.report import Report
from conformance.silent_onnxruntime import onnxruntime
from refimpl.errors import FileError, MobileInstError
from refimpl.ops.operation import Array

CACHE, PAGE = Path("build/onnxruntime"), Path("docs/runtime-bugs.md")
LONGEST = 600.0
"""Seconds that an installation or a verdict may take."""
LEAST = 1e-3
"""By which share of the largest right number a result must be off to be called wrong."""
MOST_SAID = 24
"""Characters of a place in the table."""
OLD_NUMPY = (1, 19)
"""Versions before this one need NumPy 1."""


@dataclass(frozen=True)
class Row:
    """What a version makes of a graph, and the judge of that.

    Attributes
    ----------
    off
        The largest difference from what is right, as a share of the largest right number; infinite for
        another shape or NaN; None: it does not run.
    verdict
        Of the judge, or ``refused``.
    place
        The node it names.
    """

    off: float | None
    verdict: str
    place: str = ""

    @property
    def wrong(self) -> bool:
        """Whether the version is wrong."""
        return self.off is not None and self.off > LEAST

    @property
    def caught(self) -> bool:
        """Whether it is wrong and called so."""
        return self.wrong and self.verdict == "fail"


def judged(bug: Bug) -> Row:
    """Judge a graph in the ONNX Runtime that this process has."""
    small = bug.make()
    try:
        candidate = OnnxRuntimeGraph(OnnxGraph.load(small.model), RuntimeOptions(threads=1))
        made = candidate.run(small.feeds)
        report = verify_graph(candidate, small.feeds)
    except MobileInstError as error:
        return Row(None, "refused", str(error))
    wanted = dict(zip(candidate.graph.outputs, right(small), strict=True))
    return Row(max(_off(made[name], each) for name, each in wanted.items()), report.verdict, _place(report))


def right(small: Small) -> Sequence[Array]:
    """Return what a graph's outputs are by the official case, else by onnx's reference."""
    return small.right or ReferenceEvaluator(small.model).run(None, dict(small.feeds))


def _off(made: Array, wanted: Array) -> float:
    if made.shape != wanted.shape:
        return np.inf
    wide, true = made.astype(np.float64), np.asarray(wanted, np.float64)
    same = (wide == true) | (np.isnan(wide) & np.isnan(true))
    finite = np.isfinite(true)
    if (~same & ~(finite & np.isfinite(wide))).any():
        return np.inf
    scale = float(np.abs(true[finite]).max(initial=0.0)) or 1.0
    return float(np.abs(wide - true)[~same].max(initial=0.0)) / scale


def _place(report: Report) -> str:
    item = report.leading
    if report.verdict != "fail":
        return ""
    if item.first_fault is not None:
        return f"{item.first_fault.step} ({item.first_fault.operation})"
    return "; ".join(item.problems) or ", ".join(row.name for row in item.outputs if row.verdict == "fail")


def installed(version: str, folder: Path) -> Path:
    """Return the folder with a version of ONNX Runtime, installed if it is not there.

    Raises
    ------
    FileError
        It cannot be installed.
    """
    place = folder / version
    if not (place / "onnxruntime").exists():
        old = tuple(map(int, version.split(".")[:2])) < OLD_NUMPY
        wanted = [f"onnxruntime=={version}", *(["numpy<2"] * old)]
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--only-binary", ":all:"]
        try:
            subprocess.run(
                [*command, "--target", str(place), *wanted], check=True, capture_output=True, timeout=LONGEST
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise FileError(f"ONNX Runtime {version} cannot be installed: {error}") from error
    return place


def judged_in(bugs: Sequence[Bug], folder: Path | None) -> Iterator[Row]:
    """Judge graphs in a process, in the version of a folder, or in the one that is installed.

    After a crash or a hang, the rest are judged in another.
    """
    environment = safe_environment() | {"OMP_NUM_THREADS": "1"}
    if folder is not None:
        environment["PYTHONPATH"] = os.pathsep.join([str(folder.resolve()), environment["PYTHONPATH"]])
    while bugs:
        places = [str(BUGS.index(bug)) for bug in bugs]
        command = python_command("conformance.evidence.runtime_bugs", "--judge", *places)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            answered = 0
            while answered < len(bugs) and (line := next_line(process, LONGEST)):
                yield Row(**json.loads(line))
                answered += 1
            if answered < len(bugs):
                process.kill()
                yield Row(None, "crash" if process.wait() else "hang")
                answered += 1
        bugs = bugs[answered:]


HEAD = """# Wrong results of released versions of ONNX Runtime

`make runtime-bugs` installs the versions side by side in `build/onnxruntime`, and judges in each the small
graphs that `conformance/evidence/bug_graphs.py` makes, as `verify --graph-only` does. *Off* is the largest
difference from the output of the official node case, from onnx's reference or from the definition, as a share
of the largest number; ∞ is another shape, or a number where there is none. *Today* is what the same graph
gives in ONNX Runtime {version}.
"""


def page(rows: Sequence[tuple[Bug, Row, Row]]) -> str:
    """Return the page with the table."""
    wrong = [each for each in rows if each[1].wrong]
    caught = sum(found.caught for _, found, _ in wrong)
    alarms = sum(today.verdict == "fail" and not today.wrong for *_, today in rows if today.off is not None)
    places = [len({getattr(bug, name) for bug, *_ in wrong}) for name in ("operator", "version")]
    summary = (
        f"{len(rows)} graphs; {len(wrong)} are computed wrongly by the version named, of {places[0]} "
        f"operators and optimisers, in {places[1]} versions; {caught} of these are caught. In ONNX Runtime "
        f"{onnxruntime.__version__} {alarms} are called wrong that are right there."
    )
    head = "| wrong | version | operator | off | caught at | today | reported |\n|" + "---|" * 7
    links = sorted({f"[{_number(bug)}]: {bug.source}" for bug, *_ in rows if bug.source})
    table = [head, *map(_line, rows)]
    return "\n".join([HEAD.format(version=onnxruntime.__version__), summary, "", *table, "", *links, ""])


def _line(row: tuple[Bug, Row, Row]) -> str:
    bug, found, today = row
    off = "–" if found.off is None else "∞" if found.off == np.inf else f"{found.off:.2g}"
    now = f"{'wrong' if today.wrong else 'right'}, {today.verdict}" if today.off is not None else "refused"
    link = f"[{_number(bug)}]" if bug.source else ""
    place = _shortened(found.place) if found.caught else f"**{found.verdict}**"
    return f"| {bug.says} | {bug.version} | {bug.operator} | {off} | {place} | {now} | {link} |"


def _number(bug: Bug) -> str:
    return f"#{bug.source.rpartition('/')[2]}"


def _shortened(place: str) -> str:
    """Return what fits a table of what is said of a wrong optimisation."""
    said = place.removeprefix("its optimised run alone is wrong, ").partition(";")[0]
    said = said.replace("whichever optimiser is disabled at", "optimised,")
    return said.replace("|", "/") if len(said) <= MOST_SAID else f"{said[:MOST_SAID]}…"


def _write(place: Path, rows: Sequence[tuple[Bug, Row, Row]]) -> None:
    plain: list[Any] = [
        {
            **{name: getattr(bug, name) for name in ("says", "version", "operator", "source")},
            "there": dataclasses.asdict(found),
            "today": dataclasses.asdict(today),
        }
        for bug, found, today in rows
    ]
    write_page(place, page(rows), plain)


def main() -> None:
    """Judge every graph, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=CACHE, help="where versions are installed")
    parser.add_argument(
        "--page", type=Path, default=PAGE, help="what to write; the rows stand beside it as JSON"
    )
    parser.add_argument("--judge", type=int, nargs="+", default=[], help=argparse.SUPPRESS)
    given = parser.parse_args()
    for place in given.judge:
        print(json.dumps(dataclasses.asdict(judged(BUGS[place]))), flush=True)
    if not given.judge:
        _write(given.page, list(_rows(given.folder)))


def _rows(folder: Path) -> Iterator[tuple[Bug, Row, Row]]:
    """Yield the rows of the table, and print each."""
    today = dict(zip(range(len(BUGS)), judged_in(BUGS, None), strict=True))
    found = dict(today)
    for version in sorted({bug.version for bug in BUGS} - {onnxruntime.__version__}):
        places = [place for place, bug in enumerate(BUGS) if bug.version == version]
        rows = judged_in([BUGS[place] for place in places], installed(version, folder))
        found |= dict(zip(places, rows, strict=True))
        print(
            f"{version}: {sum(found[place].caught for place in places)} of {len(places)} caught", flush=True
        )
    for place, bug in enumerate(BUGS):
        print(_line((bug, found[place], today[place])), flush=True)
        yield bug, found[place], today[place]


if __name__ == "__main__":
    end_with(main)
