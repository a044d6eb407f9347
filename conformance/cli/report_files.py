"""The reports `mobileinst verify` writes to files, and the command line they repeat."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from conformance.cli.options import writable
from conformance.files import atomic_write
from conformance.reports.html_report import html_report
from conformance.reports.junit_report import junit_report
from conformance.reports.markdown_report import markdown_report
from conformance.reports.report import Report

Html = Annotated[
    Path | None,
    typer.Option(
        "--html", callback=writable, help="Write one self-contained page, which opens offline, to this file."
    ),
]
Junit = Annotated[
    Path | None,
    typer.Option(
        "--junit", callback=writable, help="Write JUnit XML, one test case for each tensor, to this file."
    ),
]
Markdown = Annotated[
    Path | None,
    typer.Option(
        "--markdown", callback=writable, help="Write a summary for a CI job in Markdown to this file."
    ),
]

WRITERS = {"html": html_report, "junit": junit_report, "markdown": markdown_report}


def write_reports(report: Report, **paths: Path | None) -> None:
    """Write the reports asked for, by kind (``html``, ``junit``, ``markdown``), each whole or not at all."""
    for kind, path in paths.items():
        if path is not None:
            text = WRITERS[kind](report)
            with atomic_write(path) as temporary:
                temporary.write_text(text, encoding="utf-8")


def command_line(context: typer.Context) -> str:
    """Return the command line that was given, quoted for a shell."""
    return shlex.join(["mobileinst", context.info_name or "", *_words(context)])


def is_given(context: typer.Context, name: str) -> bool:
    """Tell whether an option stands on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _words(context: typer.Context) -> Iterator[str]:
    for parameter in context.command.params:
        if is_given(context, parameter.name or ""):
            value = context.params[parameter.name or ""]
            for each in value if isinstance(value, list | tuple) else [value]:
                yield from _option(parameter, each)


def _option(parameter: Any, value: Any) -> list[str]:
    if parameter.param_type_name == "argument":
        return [str(value)]
    if isinstance(value, bool):
        return [parameter.opts[0] if value else parameter.secondary_opts[0]]
    return [parameter.opts[0], str(value)]
