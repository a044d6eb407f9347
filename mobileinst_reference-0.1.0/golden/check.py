"""Checking the set: every file is what the manifest says, and today's code reproduces it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from golden import DATA
from golden.case import Golden
from golden.catalogue import goldens
from golden.sources.comparison import disagreement
from golden.store import BOUND, TRUTH, Entry, integrity_problems, read_manifest, strangers
from refimpl.errors import FileError


@dataclass(frozen=True)
class Checked:
    """What became of one golden: the largest difference from the file, and what is wrong, if anything."""

    name: str
    disagreement: float
    problem: str | None


def check(folder: Path = DATA, progress: Callable[[str], None] = lambda name: None) -> list[Checked]:
    """Check the integrity of a set, then that this code reproduces it.

    Raises
    ------
    FileError
        Files are missing, altered, cut off or not as the manifest says; all of them are listed.
    """
    entries = read_manifest(folder)
    problems = [problem for entry in entries for problem in integrity_problems(entry)]
    problems += strangers(folder, entries)
    if problems:
        raise FileError(f"{len(problems)} problems: " + "; ".join(problems))
    known = {golden.name: golden for golden in goldens()}
    results = []
    for entry in entries:
        progress(entry.name)
        results.append(_reproduced(entry, known.get(entry.name)))
    return results


def _reproduced(entry: Entry, golden: Golden | None) -> Checked:
    if golden is None:
        return Checked(entry.name, np.inf, "this version computes no such golden")
    case = golden.case()
    truth, bounds = entry.tensors(TRUTH), entry.tensors(f"{BOUND}float32.")
    largest, problem = disagreement(case.truth, truth, bounds)
    if problem is None and case.decisions is not None and case.decisions != entry.decisions():
        problem = "other decisions than in the file"
    return Checked(entry.name, largest, problem)
