"""A process that runs `conformance.candidates.far_side` under any interpreter: this, qemu, ssh, docker.

What it answers is a stranger's: lines and arrays are checked before they are used, and a process that does
not start, ends, hangs or says something else is named.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.candidates import far_side
from conformance.candidates.child_process import STARTING, ended_as, hung, safe_environment
from conformance.foreign_names import shown
from conformance.json_files import parse_json
from conformance.reports.printable import printable
from refimpl import errors
from refimpl.errors import (
    ConfigurationError,
    FileError,
    MissingDependencyError,
    MobileInstError,
    ProcessError,
)
from refimpl.ops.operation import Array

OWN = (sys.executable, "-P")
"""The interpreter that is meant where none is named."""
BOOT = "'\\''\nimport sys;s=sys.stdin.buffer;exec(s.read(int(s.readline())))#'"
r"""What the interpreter is told: to read the program from standard input.

Python reads a text of one quote, then the second line. So does a Python behind ssh: there a shell takes the
first line for a backslash and the start of a quotation, and hands on a backslash: the line goes on."""
LONGEST_LINE = 2**26
MOST_BYTES = 2**33
LONGEST_WORDS = 300
ENDING = 5.0
"""Seconds that a process which has closed its output may take to end."""
SCHEMA = {
    "type": "object",
    "properties": {
        "error": {"type": "string"},
        "says": {"type": "string"},
        "version": {"type": "string"},
        "machine": {"type": "string"},
        "float16": {"type": "boolean"},
        "nodes": {
            "type": "array",
            "items": {
                "type": "array",
                "prefixItems": [
                    {"type": "string"},
                    {"type": "string"},
                    {"type": "array", "items": {"type": "string"}},
                    {"type": "array", "items": {"type": "string"}},
                ],
                "minItems": 4,
                "maxItems": 4,
            },
        },
        "arrays": {
            "type": "array",
            "items": {
                "type": "array",
                "prefixItems": [
                    {"type": "string"},
                    {"type": "string", "pattern": r"^[<|][fiub][1248]$"},
                    {"type": "array", "items": {"type": "integer", "minimum": 0}, "maxItems": 16},
                ],
                "minItems": 3,
                "maxItems": 3,
            },
        },
    },
    "required": ["arrays"],
}
"""What an answer may be."""
Answer = tuple[dict[str, Any], dict[str, Array]]
Folder = tempfile.TemporaryDirectory[str]


@dataclass(frozen=True)
class Opening:
    """A model and how a runtime is to run it.

    Attributes
    ----------
    runtime
        Of `conformance.candidates.far_side.RUNTIMES`.
    package
        What is imported there.
    files
        The model's.
    options
        How the runtime is set.
    """

    runtime: str
    package: str
    files: Sequence[Path]
    options: Mapping[str, Any]


class FarProcess:
    """A model in a runtime's process, started when it is first asked, and anew after it has ended.

    Parameters
    ----------
    opening
        What it runs.
    interpreter
        The words that start a Python; `OWN` if there are none.
    timeout
        Seconds that a run may take, and loading if more than `STARTING`.
    """

    def __init__(self, opening: Opening, interpreter: Sequence[str] = (), timeout: float = STARTING) -> None:
        self.opening, self.interpreter, self.timeout = opening, tuple(interpreter) or OWN, timeout
        self.started: _Started | None = None
        self.known: dict[str, Any] = {}

    @property
    def where(self) -> str:
        """The interpreter in words."""
        return "this Python" if self.interpreter == OWN else f"--interpreter {shlex.join(self.interpreter)!r}"

    def open(self) -> dict[str, Any]:
        """Load the model if that is not done, and return what is known of the runtime.

        Raises
        ------
        ConfigurationError
            The interpreter cannot be started.
        MissingDependencyError
            NumPy or the runtime is not installed there.
        ProcessError
            The process ends, hangs, or says what is no answer.
        MobileInstError
            The runtime refuses the model.
        """
        if self.started is None:
            self.started = _Started(self.interpreter, self.where)
            longest = max(self.timeout, STARTING)
            self._asked({}, {}, (), longest)
            opening = self.opening
            files = [(path.name, path.read_bytes()) for path in opening.files]
            question = {"ask": "open", "runtime": opening.runtime, "package": opening.package}
            said = {**question, "options": dict(opening.options)}
            self.known = self._asked(said, {}, files, longest)[0]
        return self.known

    def ask(self, method: str, given: Mapping[str, Array]) -> Answer:
        """Return what ``run`` or ``capture`` answers, and its arrays; errors as of `open`."""
        self.open()
        return self._asked({"ask": method}, given, (), self.timeout)

    def close(self) -> None:
        """End the process."""
        if self.started is not None:
            self.started.close()
            self.started = None

    def _asked(
        self,
        question: Mapping[str, Any],
        given: Mapping[str, Array],
        files: Sequence[tuple[str, bytes]],
        timeout: float,
    ) -> Answer:
        assert self.started is not None
        try:
            said, arrays = self.started.exchange(question, given, files, timeout)
        except (MobileInstError, KeyboardInterrupt):
            self.close()
            raise
        if "error" in said:
            if not self.known:
                self.close()
            raise self._error(said["error"], _words(said.get("says", "")))
        return said, arrays

    def _error(self, kind: str, says: str) -> MobileInstError:
        if kind == MissingDependencyError.__name__:
            extra = f"'mobileinst-reference[{self.opening.runtime}]'"
            wanted = extra if self.interpreter == OWN else self.opening.package
            return MissingDependencyError(
                f"{self.opening.package} is not installed in {self.where}: pip install {wanted} ({says})"
            )
        found = getattr(errors, kind, None)
        refused = found if isinstance(found, type) and issubclass(found, MobileInstError) else ProcessError
        return refused(f"{self.opening.files[0]}: {says}")


class _Started:
    """A process, and what is said between it and this one."""

    def __init__(self, interpreter: tuple[str, ...], where: str) -> None:
        self.where = where
        own = interpreter == OWN
        # What it writes goes with it, however it ends; what is elsewhere ends by itself, and clears up.
        folder = tempfile.TemporaryDirectory(prefix="far-side-", ignore_cleanup_errors=True)
        given = safe_environment() if own else {**os.environ, "PYTHONSAFEPATH": "1"}
        try:
            self.process = subprocess.Popen(
                [*interpreter, "-c", BOOT],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**given, "TMPDIR": folder.name},
                # It ends with all that it started, and only when this ends it.
                start_new_session=True,
            )
        except OSError as error:
            raise ConfigurationError(f"{where} cannot be started: {error.strerror}") from error
        self.last_words: deque[bytes] = deque(maxlen=20)
        listened = (self.process.stderr, self.last_words)
        self.listener = threading.Thread(target=_listen, args=listened, daemon=True)
        self.listener.start()
        self.talks: list[threading.Thread] = []
        self.close = weakref.finalize(self, _end, self.process, self.talks, folder)

    def exchange(
        self,
        question: Mapping[str, Any],
        given: Mapping[str, Array],
        files: Sequence[tuple[str, bytes]],
        timeout: float,
    ) -> Answer:
        """Ask and return the answer, or raise what `FarProcess.open` says; no question: send the program."""
        found: list[Answer | Exception] = []

        def attempt() -> None:
            try:
                self._send(question, given, files)
                found.append(self._answer())
            except Exception as error:  # raised again where it was asked
                found.append(error)

        talk = threading.Thread(target=attempt, daemon=True)
        self.talks[:] = [talk]
        talk.start()
        talk.join(timeout)
        if not found:
            raise hung(timeout)
        if isinstance(found[0], Exception):
            raise self._named(found[0]) from found[0]
        return found[0]

    def _send(
        self, question: Mapping[str, Any], given: Mapping[str, Array], files: Sequence[tuple[str, bytes]]
    ) -> None:
        stream: Any = self.process.stdin
        # It may have ended, and said why; then the missing answer tells.
        with contextlib.suppress(BrokenPipeError):
            if question:
                far_side.write_frame(stream, dict(question), dict(given), files)
                return
            program = Path(far_side.__file__).read_bytes()
            stream.write(b"%d\n%b" % (len(program), program))
            stream.flush()

    def _answer(self) -> Answer:
        stream = self.process.stdout
        assert stream is not None
        line = stream.readline(LONGEST_LINE)
        if not line:
            raise EOFError
        if not line.startswith(far_side.MARK) or not line.endswith(b"\n"):
            said = line[:LONGEST_WORDS].decode(errors="replace").strip()
            raise ProcessError(f"{self.where} answers what is no answer: {shown(said)}")
        said = parse_json(line[len(far_side.MARK) :], f"an answer of {self.where}", SCHEMA)
        return said, self._arrays(stream, said["arrays"])

    def _arrays(self, stream: Any, listed: list[Any]) -> dict[str, Array]:
        sizes = [far_side.size_of(code, shape) for _, code, shape in listed]
        names = {name for name, _, _ in listed}
        if sum(sizes) > MOST_BYTES or len(names) < len(listed):
            raise ProcessError(
                f"{self.where} announces {sum(sizes)} bytes under {len(names)} names for {len(listed)} arrays"
            )
        return far_side.read_arrays(stream, listed)

    def _named(self, error: Exception) -> Exception:
        """Return the error of an answer that did not come, with what the process said last."""
        if isinstance(error, MobileInstError) and not isinstance(error, FileError):
            return error
        if not isinstance(error, EOFError):
            return ProcessError(f"{self.where} answers what is no answer: {_words(str(error))}")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(ENDING)
        self.close()
        self.listener.join(ENDING)
        lines = [line.decode(errors="replace").strip() for line in self.last_words]
        last = _words(next((line for line in reversed(lines) if line), ""))
        if last.startswith(("ModuleNotFoundError", "ImportError")):
            return MissingDependencyError(f"{self.where} has no NumPy that can be imported: {last}")
        return ended_as(self.process.wait(), self.where, last)


def _listen(stream: Any, last_words: deque[bytes]) -> None:
    """Keep the last lines of a stream, and of each no more than fits."""
    with contextlib.suppress(ValueError), stream:
        while line := stream.readline(LONGEST_WORDS):
            last_words.append(line)


def _end(process: subprocess.Popen[bytes], talks: Sequence[threading.Thread], folder: Folder) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for talk in talks:
        talk.join(ENDING)
    for stream in (process.stdin, process.stdout):
        # What it started may have left its group and hold on to the other end; then that is left open.
        if stream is not None and not any(talk.is_alive() for talk in talks):
            with contextlib.suppress(OSError):
                stream.close()
    folder.cleanup()


def _words(text: str) -> str:
    return printable(text)[:LONGEST_WORDS]
