"""What `mobileinst verify` prints and writes about TNN's files."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from conformance.cli import options
from conformance.cli.terminal import coloured
from conformance.tnn.conversion import Conversion, Meaning
from conformance.tnn.dumps import CONSTANT, INPUT, REFORMAT, TRANSFER, Step, difference
from conformance.tnn.runner import Settings
from conformance.tnn.survey import CORRECT, NOT_CONVERTED, VERDICTS, RunVerdict, Surveyed
from conformance.tnn.traps import Trap

GOOD, BAD, UNSURE = "green", "red", "yellow"
BLAME = {
    CONSTANT: "arrives altered; the layer that uses it is not to blame",
    TRANSFER: "is not what the layer before wrote; it was changed in between",
    INPUT: "is not the input that was meant",
    REFORMAT: "comes out of the change of memory layout altered",
}


def plain(content: Any) -> Any:
    """Return content as JSON can hold it: numbers that are not finite as text, as in the other reports."""
    if isinstance(content, Mapping):
        return {str(key): plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [plain(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return str(content)
    return content


def _number(value: float) -> str:
    return f"{value:.1e}" if math.isfinite(value) else "-" if math.isnan(value) else "∞"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _table(title: str, *columns: str, right: Sequence[str] = ()) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return table


def _say(text: str, style: str | None = None) -> None:
    options.console.print(text, style=style, highlight=False, soft_wrap=True)


def _headline(passed: bool, text: str) -> None:
    _say(text, f"bold {GOOD if passed else BAD}")


def _coloured(text: str, passed: bool | None) -> Text:
    return coloured(text, UNSURE if passed is None else GOOD if passed else BAD)


# --- conversion -----------------------------------------------------------------------------------


def conversion_headline(proto: Path, source: Path, found: Conversion) -> str:
    """Say the verdict in one line."""
    if found.kept:
        return f"PASS  {proto.name} means what {source.name} means: {len(found.meanings)} tensors compared"
    reasons = []
    if found.faults:
        first = found.faults[0]
        traps = _causes(first) or "no known trap explains it"
        reasons.append(
            f"{_count(len(found.faults), 'tensor')} lost, first at {first.type} {first.name!r}: {traps}"
        )
    if found.lost_outputs:
        reasons.append(f"outputs lost: {', '.join(found.lost_outputs)}")
    return f"FAIL  {proto.name} no longer means what {source.name} means; {'; '.join(reasons)}"


def _causes(row: Meaning) -> str:
    """Name the traps and the attributes behind a loss."""
    attributes = [f"attribute {lost.name}" for lost in row.attributes]
    return ", ".join([*(trap.rule for trap in row.traps), *attributes])


def print_conversion(proto: Path, source: Path, found: Conversion, all_layers: bool) -> None:
    """Print the layers that lost the meaning (or all), the traps behind them, and the verdict."""
    shown = found.meanings if all_layers else found.faults
    if shown:
        table = _table(
            "Layers, each in float64 on the source's own values",
            *("layer", "type", "tensor", "error", "error / allowed", "worst element", "verdict"),
            right=("error", "error / allowed", "worst element"),
        )
        for row in shown:
            table.add_row(*_meaning_cells(row))
        options.console.print(table)
    _print_traps([trap for row in found.faults for trap in row.traps])
    for row in found.faults:
        if row.message:
            _say(f"{row.type} {row.name!r}: {row.message}")
        for lost in row.attributes:
            _say(f"{row.type} {row.name!r}: {lost}")
    for remark in found.remarks:
        _say(f"Remark: {remark}", UNSURE)
    if found.unmatched:
        _say(f"No tensors of the source, judged through what they feed: {', '.join(found.unmatched)}")
    _headline(found.kept, conversion_headline(proto, source, found))


def _meaning_cells(row: Meaning) -> list[str | Text]:
    verdict = "kept" if row.kept else _causes(row) or "lost"
    place = str(list(row.index)) if row.index else "-"
    words = (row.name, row.type, row.tensor)
    return [*words, _number(row.error), f"{row.ratio:.2g}", place, _coloured(verdict, row.kept)]


def _print_traps(traps: Sequence[Trap]) -> None:
    for trap in dict.fromkeys(traps):
        _say(f"{trap.rule}: {trap.happens}. Instead: {trap.instead}.")


def conversion_json(proto: Path, source: Path, found: Conversion) -> dict[str, Any]:
    """Return the comparison as plain data."""
    return {
        "verdict": "pass" if found.kept else "fail",
        "headline": conversion_headline(proto, source, found),
        "proto": str(proto),
        "source": str(source),
        "layers": [_meaning_json(row) for row in found.meanings],
        "lost_outputs": list(found.lost_outputs),
        "unmatched": list(found.unmatched),
        "remarks": list(found.remarks),
    }


def _meaning_json(row: Meaning) -> dict[str, Any]:
    return {
        "name": row.name,
        "type": row.type,
        "tensor": row.tensor,
        "error": row.error,
        "utilisation": row.ratio,
        "worst_index": list(row.index),
        "verdict": "pass" if row.kept else "fail",
        "message": row.message,
        "traps": [_trap_json(trap) for trap in row.traps],
        "attributes": [
            {"operator": lost.operator, "name": lost.name, "message": str(lost)} for lost in row.attributes
        ],
    }


def _trap_json(trap: Trap) -> dict[str, str]:
    return {"rule": trap.rule, "happens": trap.happens, "instead": trap.instead}


# --- many files -----------------------------------------------------------------------------------


def print_survey(rows: Sequence[Surveyed]) -> None:
    """Print a line per model: its conversion, each run's error over what is allowed, and the verdict."""
    labels = list(dict.fromkeys(label for row in rows for label in row.runs))
    columns = ["graph", "layers", "conversion", *labels, "verdict"]
    table = _table("Converted models", *columns, right=["layers", *labels])
    for row in rows:
        runs = [
            "no output" if label in row.without_output else _run_cell(row.runs.get(label)) for label in labels
        ]
        table.add_row(row.path.stem, str(row.layers or "-"), _kept(row), *runs, _survey_verdict(row))
    options.console.print(table)
    if labels:
        judged = {run.label: run.arithmetic for row in rows for run in row.runs.values()}
        _say(
            "Runs: largest error over what rounding may do, as "
            + ", ".join(f"{k} {v}" for k, v in judged.items())
        )
    _print_traps([trap for row in rows if row.conversion for m in row.conversion.faults for trap in m.traps])
    for row in rows:
        for line in _reasons(row):
            _say(f"{row.path.name}: {line}")
    counts = Counter(row.verdict for row in rows)
    said = ", ".join(f"{counts[name]} {name}" for name in VERDICTS if counts[name])
    passed = set(counts) <= {CORRECT}
    _headline(passed, f"{'PASS' if passed else 'FAIL'}  {_count(len(rows), 'model')}: {said}")


def _kept(row: Surveyed) -> Text:
    if row.conversion is None:
        nothing = bool(row.message) or row.verdict == NOT_CONVERTED
        return _coloured("-" if nothing else "no source", None)
    causes = dict.fromkeys(filter(None, (_causes(fault) for fault in row.conversion.faults)))
    return _coloured("kept" if row.conversion.kept else ", ".join(causes) or "lost", row.conversion.kept)


def _run_cell(run: RunVerdict | None) -> str | Text:
    if run is None:
        return "-"
    return _coloured(f"{run.utilisation:.2f}" if math.isfinite(run.utilisation) else "none", run.passes)


def _survey_verdict(row: Surveyed) -> Text:
    return _coloured(row.verdict, row.verdict == CORRECT)


def _reasons(row: Surveyed) -> list[str]:
    if row.message:
        return [row.message]
    reasons = [*row.refused]
    if row.verdict == NOT_CONVERTED and not reasons:
        reasons = ["no .tnnproto beside it, and no rule of lint says why"]
    found = row.conversion
    if found is not None and not found.kept and not any(fault.traps for fault in found.faults):
        reasons.append(conversion_headline(row.path, row.path.with_suffix(".onnx"), found))
    if found is not None:
        reasons += [str(lost) for fault in found.faults for lost in fault.attributes]
    if found is not None and row.without_output:
        reasons += [f"no output on {', '.join(row.without_output)}", *found.remarks]
    wrong = [run for run in row.runs.values() if not run.passes]
    return reasons + [f"{run.label}: {'; '.join([_run_reason(run), *run.known])}" for run in wrong]


def _run_reason(run: RunVerdict) -> str:
    if run.message:
        return run.message
    item = next(item for item in run.outputs if not item.passes)
    where = f" at {list(item.worst.index)}" if item.worst.index else ""
    error = (
        f"error {_number(item.worst.error)}{where}, allowed {_number(item.worst.bound)} of {run.arithmetic}"
    )
    if math.isinf(item.worst.error) and item.worst.index:
        error = f"NaN or infinite{where}"
    return f"output {item.name!r}: {item.message or error}"


def survey_json(rows: Sequence[Surveyed]) -> dict[str, Any]:
    """Return the table as plain data."""
    return {
        "verdict": "pass" if all(row.verdict == CORRECT for row in rows) else "fail",
        "models": [
            {
                "proto": str(row.path),
                "verdict": row.verdict,
                "layers": row.layers,
                "reasons": _reasons(row),
                "without_output": list(row.without_output),
                "conversion": None
                if row.conversion is None
                else conversion_json(row.path, row.path.with_suffix(".onnx"), row.conversion),
                "runs": [_run_json(run) for run in row.runs.values()],
            }
            for row in rows
        ],
    }


# --- runs -----------------------------------------------------------------------------------------


def print_runs(
    path: Path, runs: Mapping[str, RunVerdict], rounding: str, asked: Settings | None = None
) -> None:
    """Print the outputs of one or more runs, and the verdict."""
    columns = ("input", "output", "error", "allowed", "error / allowed", "worst element", "verdict")
    table = _table("Outputs, beside the converted file in float64", *columns, right=columns[2:6])
    for label, run in runs.items():
        for item in run.outputs:
            place = str(list(item.worst.index)) if item.worst.index else "-"
            figures = (_number(item.worst.error), _number(item.worst.bound), f"{item.worst.utilisation:.2g}")
            verdict = _coloured(item.message or ("pass" if item.passes else "fail"), item.passes)
            table.add_row(label, item.name, *figures, place, verdict)
    options.console.print(table)
    if asked is not None:
        found = ", ".join(dict.fromkeys(run.found or "unknown" for run in runs.values()))
        _say(
            f"Ran on {asked.device} at precision {asked.precision} ({asked.arithmetic} asked, {found} found)"
        )
    _say(f"Allowed: {rounding}.", "dim")
    wrong = {label: run for label, run in runs.items() if not run.passes}
    if not wrong:
        _headline(True, f"PASS  {path.name}: the run computed what the converted file means")
        return
    label, run = next(iter(wrong.items()))
    _headline(False, f"FAIL  {path.name} on {label}: {_run_reason(run)}")


def runs_json(path: Path, runs: Mapping[str, RunVerdict]) -> dict[str, Any]:
    """Return the runs as plain data."""
    passed = all(run.passes for run in runs.values())
    return {
        "verdict": "pass" if passed else "fail",
        "proto": str(path),
        "runs": [_run_json(run) for run in runs.values()],
    }


def _run_json(run: RunVerdict) -> dict[str, Any]:
    return {
        "label": run.label,
        "arithmetic": run.arithmetic,
        "found": run.found,
        "verdict": "pass" if run.passes else "fail",
        "message": run.message,
        "known": list(run.known),
        "outputs": [
            {
                "name": item.name,
                "error": item.worst.error,
                "allowed": item.worst.bound,
                "utilisation": item.worst.utilisation,
                "worst_index": list(item.worst.index),
                "verdict": "pass" if item.passes else "fail",
                "message": item.message,
            }
            for item in run.outputs
        ],
    }


# --- dumps ----------------------------------------------------------------------------------------


def print_dump(path: Path, steps: Sequence[Step], rounding: str, all_steps: bool) -> None:
    """Print the steps that fail and of each kind the most utilised (or all), the first fault, the verdict."""
    shown = list(steps) if all_steps else notable(steps)
    columns = (
        "index",
        "layer",
        "kind",
        "tensor",
        "shape",
        "error",
        "allowed",
        "error / allowed",
        "worst element",
    )
    title = (
        "Layers" if all_steps else "Layers that fail, and of each kind the one that uses most of its bound"
    )
    table = _table(title, *columns, "verdict", right=("index", *columns[4:]))
    for step in shown:
        table.add_row(*_step_cells(step))
    options.console.print(table)
    unjudged = sorted({step.type for step in steps if step.verdict == "not judged"})
    if unjudged:
        _say(f"No bound, not judged: {', '.join(unjudged)}")
    _say(f"Allowed: {rounding}.", "dim")
    fault = first_fault(steps)
    if fault is not None:
        _print_operands(fault)
    if is_another_precision(steps):
        _say("Most layers that round fail: was the run of another precision? See --arithmetic.", UNSURE)
    _headline(fault is None, dump_headline(path, steps))


def notable(steps: Sequence[Step]) -> list[Step]:
    """Return the steps that fail, and of each kind the one that uses most of its bound."""
    most: dict[str, Step] = {}
    for step in steps:
        if step.type not in most or step.worst.utilisation > most[step.type].worst.utilisation:
            most[step.type] = step
    return [step for step in steps if step.verdict == "fail" or most[step.type] is step]


def _step_cells(step: Step) -> list[str | Text]:
    worst = step.worst
    place = str(list(worst.index)) if worst.index else "-"
    verdict = f"{step.verdict}, systematic" if step.systematic else step.verdict
    return [
        str(step.index),
        step.name,
        step.type,
        step.tensor,
        "×".join(map(str, step.produced.shape)) or "scalar",
        *(_number(worst.error), _number(worst.bound), f"{worst.utilisation:.2g}"),
        place,
        _coloured(verdict, {"pass": True, "fail": False}.get(step.verdict)),
    ]


def is_another_precision(steps: Sequence[Step]) -> bool:
    """Tell whether most of the layers that round err more than they may, which no single mistake does."""
    rounding = [step for step in steps if step.layers and step.worst.error > 0]
    return 2 * sum(step.verdict == "fail" for step in rounding) > len(rounding) > 4


def first_fault(steps: Sequence[Step]) -> Step | None:
    """Return the first step that fails."""
    return next((step for step in steps if step.verdict == "fail"), None)


def dump_headline(path: Path, steps: Sequence[Step]) -> str:
    """Say the verdict in one line."""
    fault = first_fault(steps)
    if fault is None:
        layers = len({step.index for step in steps})
        return f"PASS  {path.name}: all {layers} layers computed what they should on their own operands"
    place = f"layer {fault.index}, {fault.name!r}"
    if fault.type in BLAME:
        what = f"{fault.type} {fault.tensor!r} {BLAME[fault.type]} ({place})"
    else:
        what = f"{place} ({fault.type}), computes {fault.tensor!r} wrongly from the operands it was given"
    how = difference(fault, float(np.max(fault.bound, initial=0.0)) if fault.bound is not None else 0.0)
    return f"FAIL  {path.name}: {what}{f'; {how}' if how else ''}"


def _print_operands(fault: Step) -> None:
    if fault.operands:
        table = _table(
            "Operands of the first fault, as dumped", "operand", "shape", "smallest", "largest", "mean"
        )
        for name, array in fault.operands.items():
            figures = (
                array.min(initial=np.inf),
                array.max(initial=-np.inf),
                array.mean() if array.size else 0.0,
            )
            shape = "×".join(map(str, array.shape)) or "scalar"
            table.add_row(name, shape, *(f"{float(value):.4g}" for value in figures))
        options.console.print(table)
    index = fault.worst.index
    if index and fault.produced.shape == fault.expected.shape:
        _say(
            f"{fault.tensor}{list(index)} is {float(fault.produced[index]):.9g}, "
            f"expected {float(fault.expected[index]):.9g}"
        )
    elif fault.produced.shape != fault.expected.shape:
        _say(f"{fault.tensor} has shape {fault.produced.shape}, expected {fault.expected.shape}")


def dump_json(path: Path, dump: Path, steps: Sequence[Step], rounding: str) -> dict[str, Any]:
    """Return the replay as plain data."""
    fault = first_fault(steps)
    return {
        "verdict": "pass" if fault is None else "fail",
        "headline": dump_headline(path, steps),
        "proto": str(path),
        "dump": str(dump),
        "allowed": rounding,
        "first_fault": None if fault is None else _step_json(fault),
        "steps": [_step_json(step) for step in steps],
    }


def _step_json(step: Step) -> dict[str, Any]:
    worst = step.worst
    return {
        "index": step.index,
        "layer": step.name,
        "kind": step.type,
        "tensor": step.tensor,
        "operands": list(step.operands),
        "shape": list(step.produced.shape),
        "error": worst.error,
        "allowed": worst.bound,
        "utilisation": worst.utilisation,
        "worst_index": list(worst.index),
        "systematic": step.systematic,
        "verdict": step.verdict,
    }
