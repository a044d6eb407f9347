"""Real models and exports, each judged in ONNX Runtime: what is refused, what is called wrong, what it costs.

`python -m conformance.evidence.models` fetches the packages of ``models.toml``, exports the architectures of
``architectures.py``, judges each in a process of its own, and writes a page and its rows as JSON after each;
a row that is there is kept. `--only PATTERN` judges those whose name fits, again.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import json
import statistics
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from conformance.candidates.child_process import python_command, safe_environment
from conformance.evidence.architectures import EXPORTERS, architectures
from conformance.evidence.model_files import ModelFile, declared, package_models
from conformance.evidence.model_trial import Trial
from conformance.evidence.program import end_with
from conformance.files import atomic_write
from conformance.json_files import finite
from refimpl.errors import FileError, MissingDependencyError

LONGEST = 600.0
"""Seconds that an export or a verdict may take."""
CACHE, PAGE = Path("build/models"), Path("docs/models.md")
MOST_FORWARDS = 6.0
"""What is to be reached."""
PACKAGES, EXPORTS = "Models in packages", "Exports of torchvision and timm"


@dataclass(frozen=True)
class Row:
    """A model, where it is from, and its trial."""

    name: str
    source: str
    trial: Trial


def models(folder: Path, pattern: str) -> Iterator[tuple[str, ModelFile | Row]]:
    """Yield every model with its part of the page; one that cannot be had is a row already."""
    known: set[str] = set()
    for package in declared():
        try:
            for model in package_models(folder, known, package):
                yield PACKAGES, model
        except FileError as error:
            yield PACKAGES, Row(str(package), str(package), Trial("not fetched", says=str(error)))
    for library, name in architectures():
        for exporter in EXPORTERS:
            if fnmatch.fnmatch(f"{name} {exporter}", pattern):
                yield EXPORTS, _exported(folder, library, name, exporter)


def _exported(folder: Path, library: str, name: str, exporter: str) -> ModelFile | Row:
    """Return an export, made in a process of its own if it is not there."""
    path = folder / "exports" / f"{name}-{exporter}.onnx"
    model = ModelFile(path, f"{name} {exporter}", f"{library} {_version(library)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        ended = _process("conformance.evidence.architectures", library, name, exporter, str(path))
        if not path.exists():
            return Row(model.name, model.source, Trial("not exported", says=ended.says))
    return model


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError as error:
        raise MissingDependencyError(
            f"{library} is not installed; pip install 'mobileinst-reference[models]'"
        ) from error


@dataclass(frozen=True)
class _Ended:
    answer: str
    how: str = ""
    says: str = ""


def _process(module: str, *arguments: str) -> _Ended:
    """Run a module to its end, or for the longest time."""
    try:
        ended = subprocess.run(
            python_command(module, *arguments),
            capture_output=True,
            text=True,
            timeout=LONGEST,
            env={**safe_environment(), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
    except subprocess.TimeoutExpired:
        return _Ended("", "hang", f"no end within {LONGEST:g} s")
    last = next(iter(reversed(ended.stderr.strip().splitlines())), "")
    return _Ended(ended.stdout, "crash" if ended.returncode else "", f"status {ended.returncode}: {last}")


def judged(model: ModelFile) -> Row:
    """Judge a model in a process of its own; a crash or a hang is a row, too."""
    ended = _process("conformance.evidence.model_trial", str(model.path), json.dumps(dict(model.inputs)))
    lines = ended.answer.strip().splitlines()
    found = Trial(ended.how, says=ended.says) if ended.how else Trial(**json.loads(lines[-1]))
    return Row(model.name, model.source, found)


def page(parts: Mapping[str, Iterable[Row]]) -> str:
    """Return the page with a table for each part."""
    rows = {part: list(each) for part, each in parts.items()}
    tables = [f"## {part}\n\n{_summary(each)}\n\n{_table(each)}\n" for part, each in rows.items() if each]
    return "\n".join([HEAD, *tables])


HEAD = """# Real models, judged

`make models` fetches the packages that `conformance/evidence/models.toml` lists, exports the architectures of
`conformance/evidence/architectures.py` with seeded weights, and judges each as `verify --graph-only` does, in
ONNX Runtime with one thread and every optimisation. What `build/models` holds is not fetched again, and what
stands here is not judged again. *Judged* is the share of the nodes whose results were judged; the time is a
processor's, in float64 runs of the same graph and in seconds; the memory is the peak of the process. As far
as is known all of them are right: *fail* is a false alarm, or a fault of ONNX Runtime.
"""


def _summary(rows: list[Row]) -> str:
    verdicts = [row.trial.verdict for row in rows]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(sorted(verdicts)))
    done = [row.trial for row in rows if row.trial.nodes]
    if not done:
        return f"{len(rows)} models: {counts}."
    judged, runs = (
        statistics.median(x) for x in zip(*((it.judged, it.forwards) for it in done), strict=True)
    )
    cheap = sum(it.forwards <= MOST_FORWARDS for it in done)
    return (
        f"{len(rows)} models: {counts}. In the median {judged:.1%} of the nodes are judged, in {runs:.1f} "
        f"float64 runs; at most {MOST_FORWARDS:g} runs in {cheap} of {len(done)}, at most "
        f"{max(it.megabytes for it in done):.0f} MB."
    )


def _table(rows: list[Row]) -> str:
    head = "| model | from | nodes | judged | verdict | float64 runs | seconds | MB |\n|" + "---|" * 8
    return "\n".join([head, *map(_line, rows), *_said(rows)])


def _line(row: Row) -> str:
    it = row.trial
    costs = f"{it.forwards:.1f} | {it.seconds:.1f} | {it.megabytes:.0f}" if it.nodes else "– | – | –"
    judged = f"{it.judged:.1%}" if it.nodes else "–"
    return f"| {row.name} | {row.source} | {it.nodes or '–'} | {judged} | {it.verdict} | {costs} |"


def _said(rows: list[Row]) -> list[str]:
    """Return what is said of those that do not pass."""
    said = [f"- {row.name} ({row.source}): {row.trial.says[:300]}" for row in rows if row.trial.says]
    return ["", *said] if said else []


def _read(path: Path) -> dict[str, dict[tuple[str, str], Row]]:
    """Return the rows that are there, by part, name and source."""
    found: dict[str, dict[tuple[str, str], Row]] = {PACKAGES: {}, EXPORTS: {}}
    if path.exists():
        for part, rows in json.loads(path.read_text(encoding="utf-8")).items():
            for each in rows:
                row = Row(each["name"], each["source"], Trial(**each["trial"]))
                found[part][row.name, row.source] = row
    return found


def _write(place: Path, rows: Mapping[str, Mapping[tuple[str, str], Row]]) -> None:
    plain: dict[str, list[Any]] = {
        part: [dataclasses.asdict(row) for row in each.values()] for part, each in rows.items()
    }
    write_page(place, page({part: each.values() for part, each in rows.items()}), plain)


def write_page(place: Path, text: str, rows: Any) -> None:
    """Write a page, and its rows as JSON beside it."""
    plain = json.dumps(finite(rows), indent=1, allow_nan=False) + "\n"
    for path, content in ((place, text), (place.with_suffix(".json"), plain)):
        with atomic_write(path) as temporary:
            temporary.write_text(content, encoding="utf-8")


def main() -> None:
    """Judge what has no row, and write the page after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=CACHE, help="where packages and exports are kept")
    parser.add_argument(
        "--page", type=Path, default=PAGE, help="what to write; the rows stand beside it as JSON"
    )
    parser.add_argument("--only", default="", metavar="PATTERN", help="of names: only these, and again")
    given = parser.parse_args()
    rows = _read(given.page.with_suffix(".json"))
    for part, model in models(given.folder, given.only or "*"):
        key = (model.name, model.source)
        if not fnmatch.fnmatch(model.name, given.only or "*") or (key in rows[part] and not given.only):
            continue
        rows[part][key] = row = model if isinstance(model, Row) else judged(model)
        print(f"{part}, {len(rows[part])}: {_line(row)} {row.trial.says}".rstrip(), flush=True)
        _write(given.page, rows)


if __name__ == "__main__":
    end_with(main)
