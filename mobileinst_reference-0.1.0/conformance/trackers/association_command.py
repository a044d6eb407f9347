"""A tracker in any language as a candidate: a command that answers JSON lines (docs/check-tracker.md)."""

from __future__ import annotations

import contextlib
import json
import queue
import shlex
import subprocess
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.trackers.association_properties import (
    FrameAnswer,
    NotOffered,
    Refusal,
    VideoFrame,
    finite_lists,
    video_request,
)
from refimpl.errors import ConfigurationError

Array = NDArray[Any]


class CommandFailure(ConfigurationError):
    """The command cannot be started, ended, was silent too long, or wrote something that is no answer."""


class CommandCandidate:
    """Talk to a command over its standard input and output, one JSON object per line and direction.

    The command is started once and asked many times; use as a context manager, so that it is ended.

    Parameters
    ----------
    command : str
        Split as a POSIX shell would; no shell runs it.
    timeout : float
        Seconds to wait for an answer.

    Raises
    ------
    CommandFailure
        The command cannot be started.
    """

    def __init__(self, command: str, timeout: float = 30.0) -> None:
        self.command, self.timeout = command, timeout
        self._process = self._start()
        self._lines: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> CommandCandidate:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the command."""
        self.close()

    def close(self) -> None:
        """End the command; it has a second to leave by itself."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def associate(self, previous: Array, current: Array) -> Array:
        """Ask for the permutation of one pair of keyframes."""
        request = {"op": "associate", "previous": finite_lists(previous), "current": finite_lists(current)}
        permutation = self._field(self.ask(request), "permutation", list)
        if not all(type(query) is int for query in permutation):
            raise CommandFailure(
                f"{self.command}: permutation must be a list of integers, got {permutation!r:.80}"
            )
        return np.array(permutation, np.int64)

    def video(
        self, frames: Sequence[VideoFrame], keyframe_interval: int, state: Any
    ) -> tuple[list[FrameAnswer], Any]:
        """Ask for a video, or for the next part of one."""
        answer = self.ask(video_request(frames, keyframe_interval, state))
        listed = self._field(answer, "frames", list)
        return [self._frame(entry) for entry in listed], answer.get("state")

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send one request and return the answer.

        Raises
        ------
        Refusal
            The answer is ``{"error": …}``.
        NotOffered
            The answer is ``{"unsupported": …}``.
        CommandFailure
        """
        self._send(request)
        try:
            line = self._lines.get(timeout=self.timeout)
        except queue.Empty:
            raise CommandFailure(
                f"{self.command}: no answer within {self.timeout} s to {json.dumps(request):.200}; "
                "write one line per request and flush it"
            ) from None
        if not line:
            raise CommandFailure(
                f"{self.command}: ended with status {self._process.wait()} instead of answering"
            )
        return self._parsed(line)

    def _parsed(self, line: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(line)
        except ValueError:
            raise CommandFailure(
                f"{self.command}: an answer is one line of JSON, got {line!r:.200}"
            ) from None
        if not isinstance(answer, dict):
            raise CommandFailure(f"{self.command}: an answer is a JSON object, got {line!r:.200}")
        if "error" in answer:
            raise Refusal(f"{self.command}: {answer['error']}")
        if "unsupported" in answer:
            raise NotOffered(f"{self.command}: {answer['unsupported']}")
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        try:
            words = shlex.split(self.command)
            return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        except (OSError, ValueError, IndexError) as error:
            raise CommandFailure(
                f"cannot start {self.command!r}: {error}; give a program and its arguments"
            ) from None

    def _read(self) -> None:
        """Hand over lines as they come; an empty one at the end."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(b"")

    def _send(self, request: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request, allow_nan=False).encode() + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError) as error:
            raise CommandFailure(f"{self.command}: cannot be asked: {error}; it may have ended") from None

    def _field(self, answer: dict[str, Any], key: str, kind: type) -> Any:
        value = answer.get(key)
        if not isinstance(value, kind):
            raise CommandFailure(
                f"{self.command}: the answer needs {key}, a {kind.__name__}; got {answer!r:.200}"
            )
        return value

    def _frame(self, entry: Any) -> FrameAnswer:
        """One entry of ``frames``."""
        if not isinstance(entry, dict):
            raise CommandFailure(f"{self.command}: each frame's answer is an object, got {entry!r:.80}")
        try:
            order = np.array(self._field(entry, "order", list), np.int64)
            masks = np.array(self._field(entry, "masks", list), np.float64)
        except (TypeError, ValueError):
            raise CommandFailure(
                f"{self.command}: order and masks are lists of numbers, got {entry!r:.200}"
            ) from None
        return FrameAnswer(self._field(entry, "keyframe", bool), order, masks)
