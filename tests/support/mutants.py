"""Mutation testing: a seeded sample of faults put into a package, each run against the tests that reach it.

Cosmic Ray makes the mutants (https://cosmic-ray.readthedocs.io), coverage.py says which tests run which line.
A mutant first meets the quickest tests of its line, then the quickest of its module; what survives meets all
of them. Prints a table in Markdown, and each survivor.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import xml.etree.ElementTree as tree
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

# What the tests need is imported here once: each mutant's child has it.
import coverage
import hypothesis.extra.numpy  # noqa: F401
import numpy  # noqa: F401
import onnx  # noqa: F401
import onnxruntime  # noqa: F401
import pytest
import scipy.signal
import scipy.special
import scipy.stats  # noqa: F401
from cosmic_ray import plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code

ROOT = Path(__file__).parents[2]
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.json")
"""Module → "line as it is" → "line as it is mutated" → why nothing can tell them apart."""

PARTS = ("refimpl", "conformance", "golden", "tests", "pyproject.toml", "README.md", "Makefile", "docs")
QUICK, ALL = 10.0, 90.0
"""Seconds of tests, as they last unmutated, that every mutant meets, and that a survivor does."""

STARTING = 60.0
"""Seconds that a run of tests may take beside its tests."""

LONGEST = 3600.0
"""Seconds that all tests may take."""


@dataclass(frozen=True)
class Mutant:
    """One fault in one file."""

    path: str
    line: int
    code: str
    was: str
    now: str

    def __str__(self) -> str:
        """Return where it is and what it does."""
        return f"{self.path}:{self.line}  {self.was}  →  {self.now}"


@dataclass(frozen=True)
class Place:
    """Where an operator of Cosmic Ray can change a file."""

    path: str
    operator: str
    occurrence: int
    line: int

    def mutant(self) -> Mutant | None:
        """Return the file changed there; None if that is the same program, as in an annotation, or none."""
        source = (ROOT / self.path).read_text(encoding="utf-8")
        code = mutate_code(source, plugins.get_operator(self.operator)(), self.occurrence)
        if code is None or _meaning(code) in ("", _meaning(source)):
            return None
        return Mutant(self.path, self.line, code, *_changed(source, code))


def places(path: Path) -> Iterator[Place]:
    """Yield every place of a file for every operator."""
    nodes = list(ast_nodes(get_ast(path.read_text(encoding="utf-8"))))
    for name in sorted(plugins.operator_names()):
        operator = plugins.get_operator(name)
        if operator.arguments():
            continue
        found = [place for node in nodes for place in operator().mutation_positions(node)]
        for occurrence, (start, _) in enumerate(found):
            yield Place(path.relative_to(ROOT).as_posix(), name, occurrence, start[0])


def _meaning(source: str) -> str:
    """Return the program without what is never evaluated; nothing if it is no program."""
    try:
        parsed = ast.parse(source)
    except SyntaxError:
        return ""
    for node in ast.walk(parsed):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(0)
    return ast.dump(parsed)


def _changed(source: str, code: str) -> tuple[str, str]:
    lines = list(difflib.unified_diff(source.splitlines(), code.splitlines(), n=0, lineterm=""))[2:]
    return tuple(" ".join(line[1:].strip() for line in lines if line[0] == sign) for sign in "-+")  # type: ignore[return-value]


class Tests:
    """Which tests run which line, and how long they last."""

    def __init__(self, place: Path, package: str, folders: Sequence[str]) -> None:
        self.place = place
        report, data = place / "durations.xml", place / ".coverage"
        options = ["-m", "not runtimes", "--junitxml", str(report), f"--cov={package}", "--cov-context=test"]
        if self.run([*options, "--cov-report=", *folders], LONGEST):
            sys.exit(f"the tests fail without any mutant:\n{(place / 'output.txt').read_text()[-2000:]}")
        self.lasts = self._durations(report)
        self.of_line: dict[str, dict[int, set[str]]] = {}
        found = coverage.CoverageData(str(data))
        found.read()
        for path in found.measured_files():
            lines = found.contexts_by_lineno(path)
            name = Path(path).relative_to(place).as_posix()
            self.of_line[name] = {
                line: {each.split("|")[0] for each in names if each} for line, names in lines.items()
            }

    def _durations(self, report: Path) -> dict[str, float]:
        lasts = {}
        for case in tree.parse(report).getroot().iter("testcase"):
            parts = case.get("classname", "").split(".")
            lasts["/".join(parts) + ".py::" + case.get("name", "")] = float(case.get("time", 0))
        return lasts

    def run(self, arguments: Sequence[str], limit: float) -> int | None:
        """Run pytest in the copy, in a child that has all but the package imported; None: out of time."""
        command = ["-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", *arguments]
        child = os.fork()
        if not child:
            os.setsid()
            os.chdir(self.place)
            sys.path.insert(0, str(self.place))
            output = os.open(self.place / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os._exit(int(pytest.main(command)))
        end = time.monotonic() + limit
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.05)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return None

    def reaching(self, mutant: Mutant, most: float) -> list[str]:
        """Return the quickest tests of a mutant's line, then of its module, as many as last so long."""
        lines = self.of_line.get(mutant.path, {})
        of_line = lines.get(mutant.line, set())
        of_module = set().union(*lines.values()) - of_line
        chosen, total = [], 0.0
        for name in [*sorted(of_line, key=self._lasts), *sorted(of_module, key=self._lasts)]:
            total += self._lasts(name)
            if total > most:
                break
            chosen.append(name)
        return chosen

    def _lasts(self, name: str) -> float:
        return self.lasts.get(name, 1.0)

    def fate(self, mutant: Mutant) -> str:
        """Return how a mutant ends: killed, out of time, or survived."""
        path = self.place / mutant.path
        source = path.read_text(encoding="utf-8")
        path.write_text(mutant.code, encoding="utf-8")
        try:
            return self._fate(mutant)
        finally:
            path.write_text(source, encoding="utf-8")

    def _fate(self, mutant: Mutant) -> str:
        met: list[str] = []
        for most in (QUICK, ALL):
            chosen = [name for name in self.reaching(mutant, most) if name not in met]
            met += chosen
            if not chosen:
                continue
            code = self.run(["-x", "--hypothesis-profile=unshrunk", *chosen], 5 * most + STARTING)
            if code != 0:
                return "out of time" if code is None else "killed"
        return "survived"


def _copied(place: Path) -> None:
    for name in PARTS:
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, place / name)
    shared = ROOT.parent / "shared"
    if shared.exists():
        (place.parent / "shared").symlink_to(shared.resolve())


def _sample(package: str, count: int, seed: int) -> list[Mutant]:
    """Return so many of the mutants, drawn without bias."""
    every = [place for path in sorted((ROOT / package).rglob("*.py")) for place in places(path)]
    random.Random(seed).shuffle(every)
    drawn = (place.mutant() for place in every)
    chosen = list(islice((mutant for mutant in drawn if mutant), count))
    print(f"{len(every)} places in {package}, {len(chosen)} mutants drawn with seed {seed}", flush=True)
    return chosen


def _table(fates: Sequence[tuple[Mutant, str]]) -> Iterator[str]:
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for mutant, fate in fates:
        for name in (mutant.path, "**all**"):
            rows[name][fate] += 1
    kinds = ("killed", "out of time", "equivalent", "survived")
    yield "| module | mutants | " + " | ".join(kinds) + " |"
    yield "|---|" + "---|" * (len(kinds) + 1)
    for name in sorted(rows, key=lambda name: (name == "**all**", name)):
        yield (
            f"| {name} | {rows[name].total()} | " + " | ".join(str(rows[name][kind]) for kind in kinds) + " |"
        )


def main() -> None:
    """Mutate, test, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", help="folder of the package, such as refimpl")
    parser.add_argument("tests", nargs="+", help="folders or files of tests")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sys.dont_write_bytecode = True
    os.environ["OMP_NUM_THREADS"] = "1"
    equivalent = json.loads(EQUIVALENT.read_text(encoding="utf-8"))
    chosen = _sample(options.package, options.count, options.seed)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "tree"
        place.mkdir()
        _copied(place)
        tests = Tests(place, options.package, options.tests)
        fates = []
        for number, mutant in enumerate(chosen, start=1):
            known = mutant.now in equivalent.get(mutant.path, {}).get(mutant.was, {})
            fates.append((mutant, "equivalent" if known else tests.fate(mutant)))
            print(f"{number}: {fates[-1][1]}: {mutant}", file=sys.stderr, flush=True)
    print("\n".join(_table(fates)))
    lived = [mutant for mutant, fate in fates if fate == "survived"]
    judged = sum(fate != "equivalent" for _, fate in fates)
    print(f"{1 - len(lived) / max(judged, 1):.1%} of {judged} mutants that are not equivalent are found")
    for mutant in lived:
        print(f"survived: {mutant}")
    sys.exit(len(lived) > 0.05 * judged)


if __name__ == "__main__":
    main()
