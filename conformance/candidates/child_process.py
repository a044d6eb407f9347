"""Processes that may crash or hang: started, asked for a line in time, and what is said of their end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import refimpl
from refimpl.errors import ProcessError

STARTING = 300.0
"""Seconds that a process may take to load what it needs, on a busy machine, even if a run may take less."""


def start(module: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a module of this program as a process that is talked to in lines; `end` ends it."""
    return subprocess.Popen(
        python_command(module, *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=safe_environment(),
        start_new_session=True,
    )


def end(process: subprocess.Popen[Any]) -> int:
    """End a process with a session of its own and all that it started, and return its status."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def end_with_starter() -> None:
    """End this process when whatever holds the other end of its standard input has ended."""

    def wait() -> None:
        # Not by sys.stdin, whose lock the interpreter needs when it ends.
        while os.read(0, 1024):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def python_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module; to be started with `safe_environment`."""
    # Without -P, `python -m` imports from the working directory first: ./secrets.py, wherever it came from.
    return [sys.executable, "-P", "-m", module, *arguments]


def safe_environment() -> dict[str, str]:
    """Return the environment of a process that imports nothing from the working directory.

    What it starts in its turn, neither; else it imports what this process does.
    """
    return {**os.environ, "PYTHONPATH": os.pathsep.join(_trusted_paths()), "PYTHONSAFEPATH": "1"}


def _trusted_paths() -> list[str]:
    """Return the places of modules without the working directory, unless this program itself stands there."""
    here, own = Path.cwd().resolve(), Path(refimpl.__path__[0]).resolve().parent
    return [path for path in sys.path if path and (Path(path).resolve() != here or here == own)]


def next_line(process: subprocess.Popen[str], timeout: float | None) -> str | None:
    """Return the next line that a process writes, empty if it has ended; None if there is none in time."""
    lines: list[str] = []
    assert process.stdout is not None
    stream = process.stdout
    reader = threading.Thread(target=lambda: lines.append(stream.readline()), daemon=True)
    reader.start()
    reader.join(timeout)
    return lines[0] if lines else None


def crashed(status: int) -> ProcessError:
    """Return the error of a process that ended with a status, without an answer."""
    return ProcessError(f"it crashes: its process {_ending(status)}")


def ended_as(status: int, where: str, last: str) -> ProcessError:
    """Return the error of an interpreter that ended with a status, and what it said last."""
    said = f": {last}" if last else ""
    return ProcessError(f"it crashes: the process of {where} {_ending(status)}{said}")


def _ending(status: int) -> str:
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def hung(timeout: float | None) -> ProcessError:
    """Return the error of a process that did not answer in time."""
    return ProcessError(
        f"it hangs: no answer within {timeout or 0:g} s; give a longer --timeout if it is slow"
    )
