"""`mobileinst verify --candidate NAME:OPTIONS`, in a process of its own where it may misbehave."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import typer

from conformance.candidates.candidate import Candidate
from conformance.candidates.kinds import KINDS, PHONE_RUNTIMES, Request, files_named, make
from conformance.candidates.process import OWN_PROCESS, IsolatedCandidate
from conformance.cli.command_help import CANDIDATE
from conformance.cli.course import Course
from conformance.cli.output_files import Reads
from conformance.judge.network import weights_hash
from conformance.reports.report import InputReport, Report
from refimpl.errors import CandidateError, ConfigurationError, ProcessError


def _help(text: str | None) -> str | None:
    """Print the options of the runtime that ``NAME:help`` names, and end."""
    name, _, wanted = (text or "").partition(":")
    if wanted == "help" and name in PHONE_RUNTIMES:
        typer.echo(PHONE_RUNTIMES[name].described)
        raise typer.Exit
    return text


Kind = Annotated[
    str | None,
    typer.Option(
        "--candidate",
        metavar="NAME[:OPTIONS]",
        help=f"What is judged: {', '.join(KINDS)}, or one of another package. pytorch:FILE.py:NAME, "
        "pytorch:FILE.pt2, python:FILE.py:NAME, dumps:FOLDER, numpy:float16, "
        "onnxruntime:level=basic,threads=2,provider=NAME,disabled=A+B, "
        f"qnn:CHIP[,strict]; {', '.join(PHONE_RUNTIMES)}: NAME:MODEL[,OPTION=VALUE…], options by NAME:help. "
        "Default: onnxruntime.",
        callback=_help,
        rich_help_panel=CANDIDATE,
    ),
    Reads(files_named),
]
Interpreter = Annotated[
    str | None,
    typer.Option(
        "--interpreter",
        metavar="'PREFIX python'",
        help=f"Run {', '.join([*PHONE_RUNTIMES, 'onnxruntime'])} in another Python, which needs NumPy and "
        "the runtime, and nothing of ours: 'ssh phone python', 'docker run --rm -i IMAGE python', "
        "'qemu-aarch64 -cpu cortex-a76 -L ROOT ROOT/usr/bin/python3'.",
        rich_help_panel=CANDIDATE,
    ),
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Read a .pt2 although it can run code of whoever wrote it.")
]
TRUSTED = ("numpy", "dumps")
"""Kinds that run no code of others; they are given a process of their own only with a time limit."""
FORMATS = ("--arithmetic", "--storage")
TAKES = {"numpy": (), "qnn": ("MODEL",), "pytorch": (*FORMATS, "--trust")}
TAKES |= dict.fromkeys(("dumps", "python"), FORMATS) | dict.fromkeys(
    PHONE_RUNTIMES, ("MODEL", "--interpreter")
)
"""What else on the command line changes a candidate of these kinds; other kinds may take anything."""


def words_of(interpreter: str | None) -> tuple[str, ...]:
    """Return the words of ``--interpreter``, as a shell would take them apart.

    Raises
    ------
    ConfigurationError
        A quotation does not end.
    """
    if interpreter is None:
        return ()
    try:
        words = tuple(shlex.split(interpreter))
    except ValueError as error:
        raise ConfigurationError(f"--interpreter {interpreter!r}: {error}") from error
    return words


def check_candidate(text: str, given: Mapping[str, Any]) -> None:
    """Refuse options, by how they are written, that would not change the candidate.

    Raises
    ------
    ConfigurationError
        One is given that has no effect.
    """
    kind, _, its_own = text.partition(":")
    for flag, value in given.items():
        if value not in (None, False) and flag not in TAKES.get(kind, (flag,)):
            raise ConfigurationError(f"{flag} has no effect on --candidate {kind}; leave it out")
    if given.get("--trust") and not text.endswith(".pt2"):
        raise ConfigurationError("--trust has no effect on anything but a .pt2; leave it out")
    if given.get("--threads") is not None and "threads=" in its_own:
        raise ConfigurationError(f"--threads has no effect beside --candidate {text}; leave it out")


@dataclass(frozen=True)
class Limit:
    """How many seconds a run may take, and whether the user asked for a limit."""

    seconds: float
    wanted: bool


@contextmanager
def made_beside_graph(text: str, request: Request, limit: Limit) -> Iterator[Candidate]:
    """Give a candidate that should be the graph of ``request.model``; others' code in a process of its own.

    Raises
    ------
    CandidateError
        It cannot be made.
    """
    kind = text.partition(":")[0]
    if kind in OWN_PROCESS or (kind in TRUSTED and not limit.wanted):
        yield make(text, replace(request, timeout=limit.seconds if limit.wanted else None))
        return
    isolated = IsolatedCandidate(text, request, limit.seconds)
    try:
        yield isolated
    finally:
        isolated.close()


def judge_candidate(text: str, request: Request, course: Course, limit: Limit) -> Report:
    """Judge the candidate that ``NAME`` or ``NAME:OPTIONS`` stands for, on every input."""
    kind = text.partition(":")[0]
    name = f"{request.model.name} in {text}" if request.model else text
    course.progress("candidate")
    if kind in OWN_PROCESS or (kind in TRUSTED and not limit.wanted):
        limited = replace(request, timeout=limit.seconds if limit.wanted else None)
        return course.judge(make(text, limited), name)
    try:
        isolated = IsolatedCandidate(text, request, limit.seconds)
    except CandidateError as error:
        return _not_made(name, request, course, error)
    try:
        return course.judge(isolated, name)
    finally:
        isolated.close()


def _not_made(name: str, request: Request, course: Course, error: CandidateError) -> Report:
    found: dict[str, Any] = {"problems": [str(error)], "ended": isinstance(error, ProcessError)}
    items = [
        InputReport(label, x.shape, hashlib.sha256(x.tobytes()).hexdigest(), [], [], [], None, **found)
        for label, x in course.inputs.items()
    ]
    model = {"config": asdict(course.config), "weights_sha256": weights_hash(request.weights)}
    return Report(items, name, model, str(request.declaration))
