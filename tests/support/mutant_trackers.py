"""How many source mutants of the trackers the properties catch: `make mutants-trackers`.

Mutants of the reference tracker are made by cosmic-ray, those of docs/examples/tracker.js by Stryker. Each
is asked few cases of every property first, then as many as `mobileinst check-tracker` asks. Those that
nothing catches must stand in equivalent_mutants.toml, with the reason why they behave like the original.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
import types
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conformance.trackers.candidate import Candidate
from conformance.trackers.command_candidate import CommandCandidate
from conformance.trackers.line_process import CommandFailure
from conformance.trackers.properties import properties
from conformance.trackers.property import Property, Recorder, check_property
from conformance.trackers.protocol import AnswerError
from conformance.trackers.reference_candidate import ReferenceCandidate

ROOT = Path(__file__).parents[2]
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.toml")
PYTHON = ("refimpl/association.py", "refimpl/tracker.py")
JAVASCRIPT = "docs/examples/tracker.js"
FILES = (*PYTHON, JAVASCRIPT)
NOT_ASKED = {
    *("pairs", "total", "track_margins", "margin", "_track_margins", "_cheapest_cycles"),
    *("track_video", "to_arrays", "mask_features", "born"),
}
"""Functions that no request reaches: margins, and the driver of a network."""
ROUNDS = (8, 100)
"""Cases of each property, the second time as many as `mobileinst check-tracker` draws."""
NOT_LOADED = "does not load"
BROKEN = "could not be judged"
LONGEST_COMPUTED, LONGEST_ANSWER = 2, 10
"""Seconds of a question after which a mutant hangs: of the processor in Python, of the clock else."""


@dataclass(frozen=True)
class Mutant:
    """A changed program: its file, the lines that changed, and how it is made a candidate."""

    file: str
    change: str
    make: Callable[[], Candidate]


class Caught(BaseException):
    """A property failed; Hypothesis lets this through, so that nothing more is tried."""


# Mutants of Python ------------------------------------------------------------------------------------------


def python_mutants() -> Iterator[Mutant]:
    """Cosmic-ray's mutants of the reference, each once, without those that change annotations only."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.operators.provider import OperatorProvider

    provider = OperatorProvider()
    for file in PYTHON:
        source = (ROOT / file).read_text(encoding="utf-8")
        seen = {running(source)}
        for name in filter(apt, provider):
            for occurrence in range(10_000):
                mutated = mutate_code(source, provider[name](), occurrence)
                if mutated is None:
                    break
                if parses(mutated) and (kept := running(mutated)) not in seen and asked(source, mutated):
                    seen.add(kept)
                    yield Mutant(file, change_between(source, mutated), python_candidate(file, mutated))


def apt(operator: str) -> bool:
    """Whether an operator's mutants can run: no shift of a float, no identity of numbers."""
    kind, _, after = operator.rpartition("_")
    binary = {"Add", "Sub", "Mul", "Div", "BitOr", "BitAnd", "BitXor"}
    if kind.startswith("ReplaceBinaryOperator"):
        return after in binary and kind.rpartition("_")[2].startswith("Bit") == after.startswith("Bit")
    return operator not in ("VariableReplacer", "VariableInserter") and after not in ("Is", "IsNot")


def parses(source: str) -> bool:
    """Whether a program is one."""
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


class WithoutMessages(ast.NodeTransformer):
    """Takes away what is only read by people: texts with values in them."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.Constant:
        """Any such text is another's equal."""
        return ast.Constant("")


def running(source: str) -> str:
    """What of a program is run: its syntax without annotations and messages."""
    tree = WithoutMessages().visit(ast.parse(source))
    for node in ast.walk(tree):
        for name in {"annotation", "returns"} & set(node._fields):
            setattr(node, name, ast.Constant(None))
    return ast.dump(tree)


def asked(source: str, mutated: str) -> bool:
    """Whether the change lies in what requests reach."""
    lines = zip(source.splitlines(), mutated.splitlines(), strict=False)
    line = next(index for index, (one, other) in enumerate(lines, 1) if one != other)
    functions = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef)
        and min([node.lineno, *(each.lineno for each in node.decorator_list)])
        <= line
        <= (node.end_lineno or 0)
    ]
    return not {node.name for node in functions} & NOT_ASKED


def change_between(source: str, mutated: str) -> str:
    """The first line that goes and the first that comes in its place."""
    compared = difflib.ndiff(source.splitlines(), mutated.splitlines())
    differing = [line for line in compared if line[0] in "-+" and line[2:].strip()]
    gone = next((line[2:].strip() for line in differing if line[0] == "-"), "")
    come = next((line[2:].strip() for line in differing if line[0] == "+"), "")
    return f"{gone} → {come}"


def python_candidate(file: str, mutated: str) -> Callable[[], Candidate]:
    """How a mutant of a module of the reference is made a candidate, for either method."""

    def make() -> Candidate:
        module = types.ModuleType(f"mutant_{Path(file).stem}")
        sys.modules[module.__name__] = module
        exec(compile(mutated, file, "exec"), module.__dict__)
        candidate = ReferenceCandidate()
        association, tracker = candidate.modules
        candidate.modules = (module, tracker) if "association" in file else (association, module)
        if "association" in file:
            own = types.ModuleType("mutant_tracker")
            own.__dict__.update(tracker_of(module))
            candidate.modules = (module, own)
        return candidate

    return make


def tracker_of(association: types.ModuleType) -> dict[str, Any]:
    """The tracker's module with another association."""
    source = (ROOT / PYTHON[1]).read_text(encoding="utf-8")
    names: dict[str, Any] = {"__name__": "mutant_tracker"}
    sys.modules["mutant_tracker"] = types.ModuleType("mutant_tracker")
    exec(compile(source, PYTHON[1], "exec"), names)
    return names | {
        name: getattr(association, name)
        for name in ("METHODS", "Association", "associate", "cosine_similarity", "require_kernels")
    }


# Mutants of JavaScript --------------------------------------------------------------------------------------


def javascript_mutants(modules: Path, folder: Path) -> Iterator[Mutant]:
    """Stryker's mutants of the example, all in one program, chosen by the environment."""
    script = Path(__file__).with_name("stryker_mutants.mjs")
    written = folder / "tracker.js"
    command = ["node", str(script), str(modules), str(ROOT / JAVASCRIPT), str(written)]
    listed = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    source = (ROOT / JAVASCRIPT).read_text(encoding="utf-8")
    for number, begin, end, replacement in listed:
        change = change_between(source, source[:begin] + replacement + source[end:])
        yield Mutant(JAVASCRIPT, change, javascript_candidate(written, number))


def javascript_candidate(program: Path, number: str) -> Callable[[], Candidate]:
    """How a mutant of the example is made a candidate."""
    env = shutil.which("env")
    return lambda: CommandCandidate(
        f"{env} __STRYKER_ACTIVE_MUTANT__={number} node {program}", timeout=LONGEST_ANSWER
    )


# Judging ----------------------------------------------------------------------------------------------------


class Watched(Recorder):
    """A candidate that is killed when it computes too long on one question."""

    def _recorded(self, kind: str, kept: Any, ask: Callable[..., Any], *arguments: Any) -> Any:
        signal.setitimer(signal.ITIMER_PROF, LONGEST_COMPUTED)
        return ask(*arguments)


def verdict(mutant: Mutant, rounds: Sequence[int]) -> str:
    """The property that catches a mutant, or "" if none does."""
    try:
        candidate = mutant.make()
    except Exception:
        return NOT_LOADED
    try:
        candidate.recover()
        return next(filter(None, (caught_by(candidate, cases) for cases in rounds)), "")
    except (CommandFailure, AnswerError):
        return "no answer"
    finally:
        # A program that never ends would go on.
        if isinstance(candidate, CommandCandidate):
            candidate.close()


def caught_by(candidate: Candidate, cases: int) -> str:
    """The first property that a candidate fails with so many cases, the greedy method included."""
    for method in ("optimal", "greedy") if isinstance(candidate, ReferenceCandidate) else ("optimal",):
        if isinstance(candidate, ReferenceCandidate):
            candidate.method = method
        for one in properties(method, only=("most_similar_first",) if method == "greedy" else ()):
            try:
                check_property(impatient(one), Watched(candidate), cases, shrink=False)
            except (Caught, CommandFailure):
                return one.name
    return ""


def impatient(wanted: Property) -> Property:
    """The property, of which the first failure ends the trial."""

    def check(candidate: Candidate, case: Any) -> None:
        from hypothesis.errors import UnsatisfiedAssumption

        try:
            wanted.check(candidate, case)
        except UnsatisfiedAssumption:
            raise
        except Exception:
            raise Caught from None

    return replace(wanted, check=check)


def verdicts(mutants: Sequence[Mutant], workers: int, rounds: Sequence[int]) -> list[str]:
    """What catches each mutant, each in a process of its own."""
    found = [""] * len(mutants)
    with tempfile.TemporaryDirectory() as folder:
        running_now: dict[int, int] = {}
        for index, mutant in enumerate(mutants):
            while len(running_now) >= workers:
                collect(running_now, found, folder)
            running_now[judged_apart(mutant, Path(folder, str(index)), rounds)] = index
        while running_now:
            collect(running_now, found, folder)
    return found


def judged_apart(mutant: Mutant, answer: Path, rounds: Sequence[int]) -> int:
    """Judge a mutant in a process of its own, which writes what it finds; return its number."""
    process = os.fork()
    if process:
        return process
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (the process ends with it)
    try:
        answer.write_text(verdict(mutant, rounds), encoding="utf-8")
    except BaseException as error:
        answer.write_text(f"{BROKEN}: {error!r:.200}", encoding="utf-8")
    finally:
        os._exit(0)


def collect(running_now: dict[int, int], found: list[str], folder: str) -> None:
    """Wait for a process and take what it wrote; what was killed hung."""
    process, status = os.wait()
    index = running_now.pop(process)
    found[index] = "hangs" if status else Path(folder, str(index)).read_text(encoding="utf-8")
    print(".", end="", file=sys.stderr, flush=True)


# The table --------------------------------------------------------------------------------------------------


def reasons() -> dict[tuple[str, str], str]:
    """Why a mutant is equivalent: (file, change) → reason."""
    listed = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8"))["equivalent"]
    return {(one["file"], change): one["because"] for one in listed for change in one["changes"]}


def table(mutants: Sequence[Mutant], found: Sequence[str]) -> int:
    """Print what became of the mutants; 1 if more than 2 % of those that are not equivalent survive."""
    known = reasons()
    judged = [(one, by) for one, by in zip(mutants, found, strict=True) if by != NOT_LOADED]
    print("| mutants of | made | equivalent | caught | not caught |\n|---|---|---|---|---|")
    counts = {file: counted([pair for pair in judged if pair[0].file == file], known) for file in FILES}
    for file, row in counts.items():
        print(f"| `{file}` | {' | '.join(map(str, row))} |")
    _, _, caught, not_caught = total = [sum(column) for column in zip(*counts.values(), strict=True)]
    print(f"| together | {' | '.join(map(str, total))} |")
    share = caught / max(caught + not_caught, 1)
    print(f"\n{100 * share:.1f} % of the mutants that are not equivalent are caught, first by:\n")
    print("| property | mutants |\n|---|---|")
    for name, count in Counter(by for _, by in judged if by).most_common():
        print(f"| {name} | {count} |")
    print_survivors([one for one, by in judged if not by], known)
    return 0 if share >= 0.98 and not any(by.startswith(BROKEN) for by in found) else 1


def counted(judged: Sequence[tuple[Mutant, str]], known: dict[tuple[str, str], str]) -> list[int]:
    """Mutants made, equivalent, caught and not caught."""
    alive = [one for one, by in judged if not by]
    equivalent = sum((one.file, one.change) in known for one in alive)
    return [len(judged), equivalent, len(judged) - len(alive), len(alive) - equivalent]


def print_survivors(alive: Sequence[Mutant], known: dict[tuple[str, str], str]) -> None:
    """Print the mutants that nothing catches, by the reason why."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for one in alive:
        reason = known.get((one.file, one.change), "not caught")
        by_reason.setdefault((one.file, reason), []).append(one.change)
    for (file, reason), changes in by_reason.items():
        print(f"\n* `{file}`: {reason}\n")
        for change, count in Counter(changes).items():
            print(f"  * `{change}`" + (f", {count} times" if count > 1 else ""))


def distinct(names: Sequence[str]) -> list[str]:
    """The names, those that come again with a number."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        found.append(f"{name} ({seen[name]})" if seen[name] else name)
        seen[name] += 1
    return found


def main() -> int:
    """Judge all mutants, or those that survived before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--node-modules", type=Path, default=ROOT / ".venv/stryker")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--kept", type=Path, help="file of verdicts: what was caught before is not tried again"
    )
    parser.add_argument(
        "--rounds", type=int, nargs="+", default=ROUNDS, help="cases of each property, in turn"
    )
    parser.add_argument("--skip-equivalent", action="store_true", help="do not try those that are listed")
    options = parser.parse_args()
    before = json.loads(options.kept.read_text()) if options.kept and options.kept.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        mutants = [*python_mutants(), *javascript_mutants(options.node_modules, Path(folder))]
        keys = distinct([f"{one.file}: {one.change}" for one in mutants])
        known = reasons() if options.skip_equivalent else {}
        left = [
            index
            for index, (key, one) in enumerate(zip(keys, mutants, strict=True))
            if not before.get(key) and (one.file, one.change) not in known
        ]
        found = [before.get(key, "") for key in keys]
        judged = verdicts([mutants[i] for i in left], options.workers, options.rounds)
        for index, caught in zip(left, judged, strict=True):
            found[index] = caught
    if options.kept:
        options.kept.write_text(json.dumps(dict(zip(keys, found, strict=True)), indent=1))
    return table(mutants, found)


if __name__ == "__main__":
    sys.exit(main())
