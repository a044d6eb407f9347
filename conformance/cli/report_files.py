"""The reports `mobileinst verify` writes to files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from conformance.cli.command_help import RESULTS
from conformance.cli.options import JsonFile
from conformance.cli.output_files import HTML, MARKDOWN, XML, Writes
from conformance.files import write_text
from conformance.reports.html_report import html_report
from conformance.reports.junit_report import junit_report
from conformance.reports.markdown_report import markdown_report
from conformance.reports.report import Report

Html = Annotated[
    Path | None,
    typer.Option(
        "--html",
        help="Write one self-contained page, which opens offline, to this file.",
        rich_help_panel=RESULTS,
    ),
    Writes(HTML),
]
Junit = Annotated[
    Path | None,
    typer.Option(
        "--junit",
        help="Write JUnit XML, one test case for each tensor, to this file.",
        rich_help_panel=RESULTS,
    ),
    Writes(XML),
]
Markdown = Annotated[
    Path | None,
    typer.Option(
        "--markdown", help="Write a summary for a CI job in Markdown to this file.", rich_help_panel=RESULTS
    ),
    Writes(MARKDOWN),
]

WRITERS = {"html": html_report, "junit": junit_report, "markdown": markdown_report}


@dataclass(frozen=True, kw_only=True)
class ReportFiles(JsonFile):
    """Where a verdict is written."""

    html_file: Html = None
    junit_file: Junit = None
    markdown_file: Markdown = None

    def write_report(self, report: Report, command: str) -> bool:
        """Write the verdict with the command that shows it again; tell whether tables are to be printed."""
        shown = replace(report, command=command)
        if self.json_file is not None:
            self.write(shown.to_json())
        write_reports(shown, html=self.html_file, junit=self.junit_file, markdown=self.markdown_file)
        return self.prints


def write_reports(report: Report, **paths: Path | None) -> None:
    """Write the reports asked for, by kind (``html``, ``junit``, ``markdown``), each whole or not at all."""
    for kind, path in paths.items():
        if path is not None:
            text = WRITERS[kind](report)
            write_text(path, text)
