"""`mobileinst lint`: what in an ONNX file will break, or silently change, on a target."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from conformance.cli import options
from conformance.tnn.lint import Finding
from conformance.tnn.lint import lint as findings_of


def lint(
    model_file: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The file to look at.")],
    target: Annotated[str, typer.Option("--target", help="Where it is to run: tnn.")] = "tnn",
    json_file: options.Json = None,
) -> None:
    """List what in an ONNX file will break or silently change on the way to a phone.

    Exits 0 if nothing will, 1 if something will, 2 on bad usage or input.

    [bold]Examples[/bold]

      mobileinst lint mine.onnx --target tnn

      mobileinst lint mine.onnx --json findings.json
    """
    with options.progress_console.status("looking"):
        findings = findings_of(model_file, target)
    content = {
        "verdict": "fail" if findings else "pass",
        "model": str(model_file),
        "target": target,
        "findings": [asdict(finding) for finding in findings],
    }
    options.write_json(json_file, content)
    if str(json_file) != "-":
        _print(model_file, target, findings)
    raise typer.Exit(1 if findings else 0)


def _print(path: Path, target: str, findings: list[Finding]) -> None:
    if findings:
        table = Table("node", "what happens", "rule", box=None, pad_edge=False)
        for finding in findings:
            table.add_row(escape(finding.node), finding.severity, finding.rule)
        options.console.print(table)
        for rule, finding in {finding.rule: finding for finding in findings}.items():
            options.console.print(f"[bold]{rule}[/bold]: {escape(finding.happens)}.", highlight=False)
            options.console.print(f"  Instead: {escape(finding.instead)}.", highlight=False)
    if not findings:
        text = f"PASS  {path.name}: nothing known to break or change on {target}"
        options.console.print(text, style="bold green", highlight=False)
        return
    fails = sum(finding.severity == "fails" for finding in findings)
    said = [f"{fails} will fail"] * bool(fails)
    said += [f"{len(findings) - fails} will silently change the meaning"] * bool(len(findings) - fails)
    text = f"FAIL  {path.name} on {target}: {', '.join(said)}"
    options.console.print(escape(text), style="bold red", highlight=False)
