"""A command that is asked by lines and answers by lines, whatever it does instead."""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import signal
import subprocess
import time

from refimpl.errors import ConfigurationError

LONGEST_LINE = 2**26
"""Bytes of an answer; what is longer is no answer."""
CHUNK = 2**16


class CommandFailure(ConfigurationError):
    """The command cannot be started, ended, was silent too long, or wrote something that is no answer."""


class LineProcess:
    """A running command.

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

    def __init__(self, command: str, timeout: float) -> None:
        self.command, self.timeout = command, timeout
        self._process = self._start()
        self._received = bytearray()
        self._closed = False
        for pipe in (self._input, self._output):
            os.set_blocking(pipe, False)

    def exchange(self, line: bytes) -> bytes:
        """Send one line and return the one that answers it, without its end.

        Raises
        ------
        CommandFailure
        """
        self.expect_silence("before it was asked")
        self._move(line + b"\n")
        answer, _, rest = bytes(self._received).partition(b"\n")
        self._received = bytearray(rest)
        return answer

    def expect_silence(self, when: str, seconds: float = 0.0) -> None:
        """Raise if there is anything to read, or comes within some seconds."""
        self._wait(b"", seconds)
        if self._received:
            raise self._failure(
                f"wrote {bytes(self._received[:100])!r} {when}; one line for each request, "
                "and logs to standard error"
            )

    def close(self, patience: float = 1.0) -> None:
        """End the command and what it started; it has some seconds to leave by itself."""
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe and pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=patience)
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    @property
    def _input(self) -> int:
        assert self._process.stdin is not None
        return self._process.stdin.fileno()

    @property
    def _output(self) -> int:
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def _start(self) -> subprocess.Popen[bytes]:
        try:
            words = shlex.split(self.command)
            # In a session of its own, so that it can be ended with all it started.
            return subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
            )
        except (OSError, ValueError, IndexError) as error:
            raise CommandFailure(
                f"cannot start {self.command!r}: {error}; give a program and its arguments"
            ) from None

    def _move(self, unsent: bytes) -> None:
        """Send and receive until a whole line is there."""
        unsent = self._wait(unsent, self.timeout)
        if b"\n" in self._received:
            return
        if self._closed:
            raise self._failure(f"{self._ending()} instead of answering")
        if unsent:
            raise self._failure(f"has not read its input for {self.timeout:g} s; read it line by line")
        if self._received:
            raise self._failure(
                f"wrote {len(self._received)} bytes, {bytes(self._received[:60])!r}…, and no end of the line "
                f"within {self.timeout:g} s; write one line per request and flush it"
            )
        raise self._failure(f"no answer within {self.timeout:g} s; write one line per request and flush it")

    def _wait(self, unsent: bytes, seconds: float) -> bytes:
        """Send and receive until there is a whole line, an end, or no time left; return what is unsent."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self._received and not self._closed:
            with selectors.DefaultSelector() as selector:
                selector.register(self._output, selectors.EVENT_READ)
                if unsent:
                    selector.register(self._input, selectors.EVENT_WRITE)
                ready = selector.select(max(deadline - time.monotonic(), 0))
            if not ready:
                return unsent
            for key, _ in ready:
                if key.fd == self._output:
                    self._receive()
                else:
                    unsent = self._send(unsent)
        return unsent

    def _send(self, unsent: bytes) -> bytes:
        try:
            return unsent[os.write(self._input, unsent[:CHUNK]) :]
        except BlockingIOError:
            return unsent
        except OSError:
            # It reads no more; what it wrote before is read on, up to its end.
            return b""

    def _receive(self) -> None:
        chunk = os.read(self._output, CHUNK)
        self._closed = not chunk
        self._received += chunk
        if len(self._received) > LONGEST_LINE:
            raise self._failure(f"wrote more than {LONGEST_LINE >> 20} MiB without an end of the line")

    def _ending(self) -> str:
        """Say how the command ended."""
        try:
            status = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return "closed its output"
        return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"

    def _failure(self, what: str) -> CommandFailure:
        return CommandFailure(f"{self.command}: {what}")
