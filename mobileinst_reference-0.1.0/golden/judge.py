"""Judging a candidate's outputs against the goldens, one golden at a time."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from conformance.bounds import utilisation
from golden import DATA
from golden.candidate import Folder
from golden.readings import Failure, reading
from golden.store import BOUND, TRUTH, Entry, integrity_problems, read_manifest
from refimpl.errors import FileError
from refimpl.ops.operation import Array


@dataclass(frozen=True)
class Row:
    """The verdict on one output.

    Attributes
    ----------
    golden, output
        Which.
    format
        The format whose bound was applied; None for exact and discrete results.
    utilisation
        The largest error / bound; None if the shape or type did not allow to compare.
    index
        Where.
    verdict
        pass or fail.
    reading
        What is wrong, in one line; empty if nothing.
    """

    golden: str
    output: str
    format: str | None
    utilisation: float | None
    index: tuple[int, ...] | None
    verdict: str
    reading: str = ""


@dataclass(frozen=True)
class Judgement:
    """All verdicts, and what is wrong with the folder as input."""

    rows: tuple[Row, ...]
    problems: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0: all pass. 1: some fail. 2: the input is not what was asked for."""
        if self.problems:
            return 2
        return int(any(row.verdict == "fail" for row in self.rows))

    def to_json(self) -> dict[str, Any]:
        """Return everything in JSON's types; infinity as a string."""
        rows = [asdict(row) for row in self.rows]
        for row in rows:
            if row["utilisation"] is not None and not np.isfinite(row["utilisation"]):
                row["utilisation"] = str(row["utilisation"])
        return {"exit_code": self.exit_code, "problems": list(self.problems), "rows": rows}


def judge(
    candidate: Path,
    folder: Path = DATA,
    only: Sequence[str] = (),
    progress: Callable[[str], None] = lambda name: None,
) -> Judgement:
    """Judge the outputs in a folder.

    Parameters
    ----------
    candidate
        The folder, with files as ``golden/README.md`` names them.
    folder
        The set.
    only
        Patterns such as ``operations/conv.*``; the goldens to judge. All, if there are none.

    Raises
    ------
    FileError
        The set is damaged, or there is no such folder, or no golden fits a pattern.
    """
    every = read_manifest(folder)
    entries = selected(every, only)
    files = Folder(candidate)
    damaged = [problem for entry in entries for problem in integrity_problems(entry)]
    if damaged:
        raise FileError("; ".join(damaged))
    rows: list[Row] = []
    problems = files.strangers(every)
    for entry in entries:
        progress(entry.name)
        found, wrong = files.tensors(entry)
        problems += wrong
        for row in _rows(entry, found, problems):
            rows.append(row)
        rows += _decided(entry, files, problems)
    return Judgement(tuple(rows), tuple(problems))


def selected(entries: tuple[Entry, ...], only: Sequence[str]) -> tuple[Entry, ...]:
    """Return the goldens that a pattern names.

    Raises
    ------
    FileError
        A pattern names none.
    """
    for pattern in only:
        if not any(fnmatch.fnmatch(entry.name, pattern) for entry in entries):
            raise FileError(f"no golden is named {pattern!r}; the names are in manifest.json")
    return tuple(e for e in entries if not only or any(fnmatch.fnmatch(e.name, pattern) for pattern in only))


def _rows(entry: Entry, found: dict[str, Array], problems: list[str]) -> Iterator[Row]:
    """Yield the verdict of every output that can be compared; note why others cannot."""
    unknown = sorted(set(found) - set(entry.outputs))
    problems += [
        f"{entry.name}: tensor {name!r} is none of its outputs {list(entry.outputs)}" for name in unknown
    ]
    truth = entry.tensors(TRUTH)
    failures = 0
    for name in entry.outputs:
        problem = _unfit(entry, name, found.get(name), truth[name])
        if problem:
            problems.append(problem)
            continue
        row = _judged(entry, name, found[name], truth[name], explain=failures == 0)
        failures += row.verdict == "fail"
        yield row


def _unfit(entry: Entry, name: str, given: Array | None, truth: Array) -> str | None:
    if given is None:
        return f"{entry.name}: output {name!r} is missing"
    if given.shape != truth.shape:
        turned = " (as many elements, laid out otherwise)" if given.size == truth.size else ""
        return f"{entry.name}: {name} has shape {list(given.shape)}, expected {list(truth.shape)}{turned}"
    if (given.dtype.kind == "f") != (truth.dtype.kind == "f") or given.dtype.kind not in "fiub":
        kind = "floats" if truth.dtype.kind == "f" else "integers"
        return f"{entry.name}: {name} is {given.dtype}, expected {kind}"
    return None


def _judged(entry: Entry, name: str, given: Array, truth: Array, explain: bool) -> Row:
    form = ("float16" if given.dtype == np.float16 else "float32") if truth.dtype.kind == "f" else None
    stated = entry.tensors(f"{BOUND}{form or 'float32'}.{name}").get("", np.zeros((), np.float32))
    bound = np.broadcast_to(stated.astype(np.float64), truth.shape)
    ratio = utilisation(given, truth, bound)
    if not ratio.size:
        return Row(entry.name, name, form, 0.0, None, "pass")
    place = np.unravel_index(int(np.argmax(ratio)), ratio.shape)
    largest, index = float(ratio[place]), tuple(int(i) for i in place)
    if largest <= 1:
        return Row(entry.name, name, form, largest, index, "pass")
    failure = Failure(entry, name, given, truth, bound, form or "float32", largest, index)
    return Row(
        entry.name,
        name,
        form,
        largest,
        index,
        "fail",
        reading(failure) if explain else "follows from the first",
    )


# --- discrete results -----------------------------------------------------------------------------


def _decided(entry: Entry, files: Folder, problems: list[str]) -> list[Row]:
    expected = entry.decisions()
    if expected is None:
        return []
    try:
        given = files.decisions(entry)
    except FileError as error:
        problems.append(str(error))
        return []
    wanted = expected["results"]
    if not isinstance(given, dict) or not isinstance(given.get("results"), dict):
        problems.append(f"{entry.name}: {entry.name}.json with an object 'results' is missing")
        return []
    rows = []
    for key, value in wanted.items():
        if key not in given["results"]:
            problems.append(f"{entry.name}: result {key!r} is missing")
            continue
        rows.append(_decision(entry, key, value, given["results"][key]))
    return rows


DECIMALS = 1e-6
"""Numbers among the decisions (figures of an evaluation, margins) agree to this."""


def _decision(entry: Entry, key: str, wanted: Any, given: Any) -> Row:
    if _same(wanted, given):
        return Row(entry.name, key, None, 0.0, None, "pass")
    text = f"{key} is {_short(given)}, expected {_short(wanted)}; the golden shows: {entry.record['shows']}"
    return Row(entry.name, key, None, float("inf"), None, "fail", text)


def _same(wanted: Any, given: Any) -> bool:
    if isinstance(wanted, dict):
        return (
            isinstance(given, dict)
            and given.keys() == wanted.keys()
            and all(_same(wanted[k], given[k]) for k in wanted)
        )
    if isinstance(wanted, list):
        return isinstance(given, list) and len(given) == len(wanted) and all(map(_same, wanted, given))
    if isinstance(wanted, float) and isinstance(given, int | float) and not isinstance(given, bool):
        return abs(wanted - given) <= DECIMALS
    return bool(wanted == given)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
