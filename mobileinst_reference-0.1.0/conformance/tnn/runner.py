"""Running `TNNTest` here, or behind a command prefix (qemu, ssh, docker); on a phone: `conformance.tnn.adb`.

The program is not trusted. Its exit code is truncated to 8 bits, so failures often exit 0; a missing or short
input reads as zeros; an old output looks like a new one. So every run has its own folder, its input is
checked where it is read, its log is searched for errors, its output must be new, whole, and that of the
graph, and its precision is measured.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from conformance.tnn.evaluation import evaluate
from conformance.tnn.graph import TnnGraph, model_path, read_graph
from conformance.tnn.text import read_output, write_input
from refimpl.errors import CandidateError, ConfigurationError, FileError

Array = NDArray[Any]
DEVICES = ("NAIVE", "X86", "ARM", "OPENCL")
PRECISIONS = ("HIGH", "NORMAL", "LOW", "AUTO")
FLOAT32, REDUCED = "float32", "reduced"
_FLOAT16_OVER_FLOAT32 = 2.0**13
_TEXT = 5e-7
_ERROR_LINE = re.compile(
    r"^\s*E/.*|.*\b(?:error|failed|failure|invalid|assertion)\b.*|.*(?:empty implemented|CANNOT LINK).*",
    re.IGNORECASE | re.MULTILINE,
)
_LOG_TAIL = 600


@dataclass(frozen=True)
class Settings:
    """How to run: the device, the precision asked for, the threads, and how long to wait (seconds)."""

    device: str = "NAIVE"
    precision: str = "HIGH"
    threads: int = 1
    timeout: float = 300.0

    def __post_init__(self) -> None:
        if self.device not in DEVICES or self.precision not in PRECISIONS:
            raise ConfigurationError(
                f"device {self.device!r} at precision {self.precision!r}; known devices {DEVICES}, "
                f"precisions {PRECISIONS}"
            )
        if self.threads < 1 or self.timeout <= 0:
            raise ConfigurationError(f"threads {self.threads}, timeout {self.timeout}; expected both above 0")

    @property
    def arithmetic(self) -> str:
        """The arithmetic asked for: NAIVE and X86 always compute in float32."""
        if self.device in ("NAIVE", "X86") or self.precision == "HIGH":
            return "float32"
        return "bfloat16" if self.precision == "LOW" else "float16"

    def flags(self) -> list[str]:
        """Return the flags of `TNNTest`: one run, no warm-up."""
        flags = ["-dt", self.device, "-pr", self.precision, "-th", str(self.threads)]
        return [*flags, "-ic", "1", "-wc", "0"]


@dataclass(frozen=True, eq=False)
class Run:
    """What one run gave.

    Attributes
    ----------
    outputs
        By name, as printed with six decimals.
    log
        What the program printed.
    seconds
        Wall time, start of the process included.
    settings
        What was asked for.
    arithmetic
        What was found, as in `found_arithmetic`; AUTO on a CPU without float16 gives float32. "unknown" where
        an output is not finite.
    """

    outputs: dict[str, Array]
    log: str
    seconds: float
    settings: Settings
    arithmetic: str


class Runner(Protocol):
    """Anything that runs a model on inputs."""

    def run(self, proto: Path, inputs: Mapping[str, Array], settings: Settings) -> Run:
        """Run once.

        Raises
        ------
        CandidateError
            The program cannot be started, fails, hangs, writes less than it should or in another precision.
        FileError
            The model, the input or the output is not what it should be.
        """


def found_arithmetic(graph: TnnGraph, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> str:
    """Return the arithmetic whose error the outputs show: "float32", or "reduced" for float16 and bfloat16.

    The measure is what float32 costs on this graph and input; halfway, on a logarithmic scale, to what
    float16 would cost begins the reduced. The errors of float16 and bfloat16 overlap (a float16 Winograd
    convolution is as coarse), so they are not told apart. Where outputs are exact (a clip's bounds) all runs
    look like float32.
    """
    return _arithmetic(evaluate(graph, inputs), evaluate(graph, inputs, np.float32), outputs)


def _arithmetic(truth: Mapping[str, Array], narrow: Mapping[str, Array], outputs: Mapping[str, Array]) -> str:
    honest, error = _TEXT, 0.0
    for name, array in outputs.items():
        # An exact float32 result of inexact operands still rounds once.
        rounding = 2.0**-24 * float(np.abs(truth[name]).max(initial=0))
        honest = max(honest, rounding, float(np.abs(narrow[name] - truth[name]).max(initial=0)))
        error = max(error, float(np.abs(array - truth[name]).max(initial=0)))
    return FLOAT32 if error <= honest * _FLOAT16_OVER_FLOAT32**0.5 else REDUCED


def judged(
    graph: TnnGraph,
    inputs: Mapping[str, Array],
    outputs: dict[str, Array],
    log: str,
    start: float,
    settings: Settings,
) -> Run:
    """Check outputs against the graph and the precision asked for."""
    seconds = time.monotonic() - start
    if set(outputs) != set(graph.proto.outputs):
        raise CandidateError(
            f"outputs {sorted(outputs)}, the graph has {sorted(graph.proto.outputs)}; stale output?"
        )
    finite = all(np.isfinite(array).all() for array in outputs.values())
    truth = evaluate(graph, inputs)
    wrong = {name: array.shape for name, array in outputs.items() if array.shape != truth[name].shape}
    if wrong:
        raise CandidateError(
            f"outputs of shapes {wrong}, the graph makes {[truth[name].shape for name in wrong]}"
        )
    # NaN says nothing of the arithmetic; whoever judges the values finds it.
    arithmetic = _arithmetic(truth, evaluate(graph, inputs, np.float32), outputs) if finite else "unknown"
    if arithmetic == REDUCED and settings.arithmetic == FLOAT32:
        raise CandidateError(
            f"precision {settings.precision} on {settings.device} is {settings.arithmetic}, the outputs have "
            "the errors of float16 or worse; another precision ran, or the run is wrong"
        )
    return Run(outputs, log, seconds, settings, arithmetic)


def check_log(log: str, status: int, where: str) -> None:
    """Raise for an exit status or a line that says error; the status alone proves nothing."""
    line = _ERROR_LINE.search(log)
    if status != 0 or line is not None:
        said = line[0].strip()[:300] if line else f"nothing but: {tail(log)}"
        raise CandidateError(f"{where}: TNNTest exited with {status} and said {said!r}{_advice(log)}")


def _advice(log: str) -> str:
    """Return what to do about failures that have a known cause."""
    known = {
        "empty implemented_layouts": "a layer has no kernel on this device; lint the source model",
        "CANNOT LINK EXECUTABLE": "push the libraries it names beside the binary",
        "error while loading shared libraries": "put the libraries it names on LD_LIBRARY_PATH",
        "xec format error": "the binary is for another architecture",
        "not executable": "the binary is for another architecture",
        "No space left": "free space on the device",
    }
    return "".join(f"; {advice}" for sign, advice in known.items() if sign in log)


def tail(log: str) -> str:
    """Return the end of what a program printed, for an error message."""
    return log.strip()[-_LOG_TAIL:] or "(nothing)"


def missing_output(where: str, status: int, log: str) -> CandidateError:
    return CandidateError(
        f"{where}: no output although it exited with {status} (TNN truncates its status to 8 "
        f"bits, so failures exit 0); its log: {tail(log)}{_advice(log)}"
    )


@dataclass(frozen=True)
class LocalRunner:
    """Runs a command on this machine; its last words may be flags, which then are not given again.

    Attributes
    ----------
    command
        ``path/TNNTest``, or a prefix and the program: ``qemu-aarch64 -L /usr/aarch64-linux-gnu TNNTest``.
    folder
        Where runs are made; None for a temporary one. A prefix that sees other files (docker, ssh) needs one
        that both sides have.
    """

    command: tuple[str, ...]
    folder: Path | None = None

    @classmethod
    def parse(cls, text: str, folder: Path | None = None) -> LocalRunner:
        """Return the runner for a command line."""
        try:
            words = tuple(shlex.split(text))
        except ValueError as error:
            raise ConfigurationError(f"command {text!r}: {error}") from error
        if not words:
            raise ConfigurationError("the command of the runner is empty; give the path of TNNTest")
        return cls(words, folder)

    def settings(self, base: Settings) -> Settings:
        """Return ``base`` with what the command itself states by ``-dt`` and ``-pr``."""
        stated = dict(zip(self.command, self.command[1:], strict=False))
        device, precision = stated.get("-dt", base.device), stated.get("-pr", base.precision)
        return Settings(device, precision, base.threads, base.timeout)

    def run(self, proto: Path, inputs: Mapping[str, Array], settings: Settings) -> Run:
        """Run once (errors: those of `Runner.run`)."""
        settings, graph = self.settings(settings), read_graph(proto)
        parent = None if self.folder is None else str(self.folder)
        try:
            place = tempfile.TemporaryDirectory(prefix="tnn-run-", dir=parent, ignore_cleanup_errors=True)
        except OSError as error:
            raise FileError(f"{parent}: no folder for a run can be made ({error.strerror})") from error
        with place as name:
            folder = Path(name)
            stage(Path(proto), inputs, folder)
            start = time.monotonic()
            log, status = self._execute(folder, settings)
            output = folder / "out.txt"
            check_log(log, status, self.command[0])
            if not output.exists():
                raise missing_output(self.command[0], status, log)
            return judged(graph, inputs, read_output(output), log, start, settings)

    def _execute(self, folder: Path, settings: Settings) -> tuple[str, int]:
        files = [
            "-mp",
            str(folder / "m.tnnproto"),
            "-ip",
            str(folder / "in.txt"),
            "-op",
            str(folder / "out.txt"),
        ]
        command = [*self.command, *files, *_without_repeats(settings.flags(), self.command)]
        return execute(command, settings.timeout)


def _without_repeats(flags: Sequence[str], command: Sequence[str]) -> list[str]:
    pairs = zip(flags[::2], flags[1::2], strict=True)
    return [word for pair in pairs if pair[0] not in command for word in pair]


def stage(proto: Path, inputs: Mapping[str, Array], folder: Path) -> None:
    """Put proto, model and input into a run's folder, under names without the word TNN replaces in paths."""
    try:
        shutil.copyfile(proto, folder / "m.tnnproto")
        shutil.copyfile(model_path(proto), folder / "m.tnnmodel")
    except OSError as error:
        raise FileError(f"{folder}: the model cannot be copied there ({error.strerror})") from error
    write_input(folder / "in.txt", inputs)


def execute(command: Sequence[str], timeout: float) -> tuple[str, int]:
    """Run a command and return what it printed and its status; when it hangs, end it and all it started.

    Raises
    ------
    CandidateError
        It cannot be started (missing, not executable, another architecture), or runs longer than ``timeout``.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        reason = error.strerror or str(error)
        raise CandidateError(f"{command[0]}: cannot be started: {reason}{_advice(reason)}") from error
    try:
        printed, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as error:
        os.killpg(process.pid, signal.SIGKILL)
        printed, _ = process.communicate()
        log = printed.decode(errors="replace")
        raise CandidateError(
            f"{command[0]}: no answer within {timeout:g} s, stopped; its log: {tail(log)}"
        ) from error
    return printed.decode(errors="replace"), process.returncode
