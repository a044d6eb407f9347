"""`mobileinst lint`: what in an ONNX file will break, or silently change, on a target."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from conformance.candidates.qnn_lint import CHIP, lint_for_npu
from conformance.cli import options
from conformance.cli.job import Job
from conformance.cli.options import JsonFile
from conformance.cli.output_files import Reads
from conformance.graph.findings import ELSEWHERE, FAILS, FAULTS, REMARK, UNJUDGED, Finding
from conformance.judge.target_lint import TARGETS, lint_for_target, said_by
from conformance.tnn.lint import lint
from refimpl.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Lint(Job):
    """List what in an ONNX file will break or silently change on the way to a phone.

    Exits 0 if nothing will, 1 if something will, 2 on bad usage or input. What one device
    cannot run, or leaves to the CPU, is a remark. The runtimes' own converters, libraries and lists of
    operators are asked, as they are installed.

    [bold]Examples[/bold]

      mobileinst lint mine.onnx --target tnn

      mobileinst lint mine.onnx --target qnn:snapdragon-8-gen-3 --json findings.json

      mobileinst lint mine.onnx --target ncnn
    """

    doing = "a model"

    model_file: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The file to look at."), Reads()]
    target: Annotated[
        str,
        typer.Option(
            "--target",
            help=f"Where it is to run: tnn, {', '.join(TARGETS)}, qnn or qnn:CHIP; qnn is qnn:{CHIP}.",
        ),
    ] = "tnn"
    files: JsonFile

    def run(self) -> int:
        """Look, write and print; 1 if something is found."""
        with options.working("looking"):
            findings = self._findings()
        content = {
            "verdict": "fail" if _faults(findings) else "pass",
            "model": str(self.model_file),
            "target": self.target,
            "said_by": said_by(self.target) if self.target in TARGETS else None,
            "findings": [asdict(finding) for finding in findings],
        }
        if self.files.write(content):
            _print(self.model_file, self.target, findings)
        return 1 if _faults(findings) else 0

    def _findings(self) -> list[Finding]:
        name, _, chip = self.target.partition(":")
        if name == "qnn":
            return lint_for_npu(self.model_file, chip or CHIP)
        if self.target in TARGETS:
            return lint_for_target(self.target, self.model_file)
        if self.target != "tnn":
            raise ConfigurationError(f"target {self.target!r}; known: tnn, qnn, {', '.join(TARGETS)}")
        return lint(self.model_file, self.target)


def _faults(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity in FAULTS]


def _print(path: Path, target: str, findings: list[Finding]) -> None:
    if findings:
        _print_findings(findings)
    faults = _faults(findings)
    fails = sum(finding.severity == FAILS for finding in faults)
    said = [f"{fails} will fail"] * bool(fails)
    said += [f"{len(faults) - fails} will silently change the meaning"] * (len(faults) > fails)
    kinds = (REMARK, ELSEWHERE, UNJUDGED)
    counts = {each: sum(finding.severity == each for finding in findings) for each in kinds}
    remark = f"; {counts[REMARK]} cannot run on some devices" if counts[REMARK] else ""
    remark += f"; {counts[ELSEWHERE]} on the CPU instead" if counts[ELSEWHERE] else ""
    remark += f"; {counts[UNJUDGED]} not judged" if counts[UNJUDGED] else ""
    verdict = "FAIL" if faults else "PASS"
    if faults:
        text = f"{verdict}  {path.name} on {target}: {', '.join(said)}{remark}"
    else:
        text = f"{verdict}  {path.name}: nothing known to break or change on {target}{remark}"
    text += f" ({said_by(target)})" if target in TARGETS else ""
    options.console.print(text, style=f"bold {'red' if faults else 'green'}", highlight=False)


def _print_findings(findings: list[Finding]) -> None:
    table = Table("node", "what happens", "rule", box=None, pad_edge=False)
    for finding in findings:
        table.add_row(finding.node, finding.severity, finding.rule)
    options.console.print(table)
    for rule, finding in {finding.rule: finding for finding in findings}.items():
        options.console.print(f"{rule}: {finding.happens}.", highlight=False)
        options.console.print(f"  Instead: {finding.instead}.", highlight=False)
