"""`mobileinst lint`: what in an ONNX file will break, or silently change, on a target."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from conformance.cli import options
from conformance.cli.job import Job
from conformance.cli.options import JsonFile
from conformance.cli.output_files import Reads
from conformance.tnn.lint import Finding, lint


@dataclass(frozen=True, kw_only=True)
class Lint(Job):
    """List what in an ONNX file will break or silently change on the way to a phone.

    Exits 0 if nothing will, 1 if something will, 2 on bad usage or input.

    [bold]Examples[/bold]

      mobileinst lint mine.onnx --target tnn

      mobileinst lint mine.onnx --json findings.json
    """

    doing = "a model"

    model_file: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The file to look at."), Reads()]
    target: Annotated[str, typer.Option("--target", help="Where it is to run: tnn.")] = "tnn"
    files: JsonFile

    def run(self) -> int:
        """Look, write and print; 1 if something is found."""
        with options.working("looking"):
            findings = lint(self.model_file, self.target)
        content = {
            "verdict": "fail" if findings else "pass",
            "model": str(self.model_file),
            "target": self.target,
            "findings": [asdict(finding) for finding in findings],
        }
        if self.files.write(content):
            _print(self.model_file, self.target, findings)
        return 1 if findings else 0


def _print(path: Path, target: str, findings: list[Finding]) -> None:
    if not findings:
        text = f"PASS  {path.name}: nothing known to break or change on {target}"
        options.console.print(text, style="bold green", highlight=False)
        return
    table = Table("node", "what happens", "rule", box=None, pad_edge=False)
    for finding in findings:
        table.add_row(finding.node, finding.severity, finding.rule)
    options.console.print(table)
    for rule, finding in {finding.rule: finding for finding in findings}.items():
        options.console.print(f"{rule}: {finding.happens}.", highlight=False)
        options.console.print(f"  Instead: {finding.instead}.", highlight=False)
    fails = sum(finding.severity == "fails" for finding in findings)
    said = [f"{fails} will fail"] * bool(fails)
    said += [f"{len(findings) - fails} will silently change the meaning"] * bool(len(findings) - fails)
    text = f"FAIL  {path.name} on {target}: {', '.join(said)}"
    options.console.print(text, style="bold red", highlight=False)
