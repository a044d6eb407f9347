"""A tracker in any language as a candidate: a command that answers JSON lines (docs/check-tracker.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.trackers.candidate import (
    Candidate,
    FrameAnswer,
    LivingTrack,
    NotOffered,
    OnlineFrame,
    OnlineRules,
    Refusal,
    VideoFrame,
)
from conformance.trackers.line_process import CommandFailure, LineProcess
from conformance.trackers.protocol import (
    NOTATIONS,
    AnswerError,
    associate_request,
    frames_of,
    online_request,
    permutation_of,
    request_text,
    tracks_of,
    video_request,
)

Array = NDArray[Any]
A_MOMENT = 0.05
"""Seconds in which a second answer to one request shows."""


class CommandCandidate(Candidate):
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

    notations = tuple(NOTATIONS)

    def __init__(self, command: str, timeout: float = 30.0) -> None:
        self.command, self.timeout = command, timeout
        self._notation: str | None = None
        self._process = LineProcess(command, timeout)

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
        self._process.close()

    def restart(self) -> None:
        """End the command and start it anew."""
        self._process.close(patience=0.2)
        self._process = LineProcess(self.command, self.timeout)

    def recover(self) -> None:
        """Start the command anew and see that it answers the smallest question.

        Raises
        ------
        CommandFailure
        """
        self.restart()
        try:
            answer = self.associate(np.ones((1, 1)), np.ones((1, 1))).tolist()
            self._process.expect_silence("after its answer", A_MOMENT)
        except NotOffered:
            return
        except Refusal as refusal:
            raise CommandFailure(f"{refusal}: refuses even one kernel [1] on either side") from None
        if answer != [0]:
            raise CommandFailure(
                f"{self.command}: one kernel [1] on either side must give the permutation [0], got {answer}"
            )

    def associate(self, previous: Array, current: Array) -> Array:
        """Ask for the permutation of one pair of keyframes."""
        return self._read(permutation_of, associate_request(previous, current))

    def video(
        self, frames: Sequence[VideoFrame], keyframe_interval: int, state: Any
    ) -> tuple[list[FrameAnswer], Any]:
        """Ask for a video, or for the next part of one."""
        answers: tuple[list[FrameAnswer], Any] = self._read(
            frames_of, video_request(frames, keyframe_interval, state)
        )
        return answers

    def online(
        self, frames: Sequence[OnlineFrame], rules: OnlineRules, state: Any
    ) -> tuple[list[list[LivingTrack]], Any]:
        """Ask for the living tracks of a video, or of the next part of one."""
        answers: tuple[list[list[LivingTrack]], Any] = self._read(
            tracks_of, online_request(frames, rules, state)
        )
        return answers

    @contextmanager
    def writing(self, notation: str) -> Iterator[None]:
        """Write numbers in one of `NOTATIONS` meanwhile."""
        self._notation = notation
        try:
            yield
        finally:
            self._notation = None

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
        line = self._process.exchange(request_text(request, self._notation).encode())
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            raise CommandFailure(
                f"{self.command}: an answer is one line of JSON, got {line[:200]!r}; "
                "logs go to standard error"
            ) from None
        if not isinstance(answer, dict):
            raise CommandFailure(f"{self.command}: an answer is a JSON object, got {line[:200]!r}")
        if "error" in answer:
            raise Refusal(f"{self.command}: {answer['error']!s:.200}")
        if "unsupported" in answer:
            raise NotOffered(f"{self.command}: {answer['unsupported']!s:.200}")
        return answer

    def _read(self, reader: Any, request: dict[str, Any]) -> Any:
        answer = self.ask(request)
        try:
            return reader(answer)
        except AnswerError as error:
            raise AnswerError(f"{self.command}: {error}") from None
