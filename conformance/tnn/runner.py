"""Running `TNNTest`: here, behind a command prefix (qemu, ssh, docker), and on a phone through `adb`.

The program is not trusted. Its exit code is truncated to 8 bits, so failures often exit 0; a missing or short
input reads as zeros; an old output looks like a new one. So every run has its own folder, its input is
checked where it is read, its log is searched for errors, its output must be new, whole, and that of the
graph, and its precision is measured.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from conformance.files import atomic_write
from conformance.tnn.evaluation import evaluate
from conformance.tnn.graph import TnnGraph, model_path, read_graph
from conformance.tnn.text import parse_output, read_output, write_input, write_output
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


def _judged(
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


def _check_log(log: str, status: int, where: str) -> None:
    """Raise for an exit status or a line that says error; the status alone proves nothing."""
    line = _ERROR_LINE.search(log)
    if status != 0 or line is not None:
        said = line[0].strip()[:300] if line else f"nothing but: {_tail(log)}"
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


def _tail(log: str) -> str:
    return log.strip()[-_LOG_TAIL:] or "(nothing)"


def _no_output(where: str, status: int, log: str) -> CandidateError:
    return CandidateError(
        f"{where}: no output although it exited with {status} (TNN truncates its status to 8 "
        f"bits, so failures exit 0); its log: {_tail(log)}{_advice(log)}"
    )


# --- here -----------------------------------------------------------------------------------------


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
            _stage(Path(proto), inputs, folder)
            start = time.monotonic()
            log, status = self._execute(folder, settings)
            output = folder / "out.txt"
            _check_log(log, status, self.command[0])
            if not output.exists():
                raise _no_output(self.command[0], status, log)
            return _judged(graph, inputs, read_output(output), log, start, settings)

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


def _stage(proto: Path, inputs: Mapping[str, Array], folder: Path) -> None:
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
            f"{command[0]}: no answer within {timeout:g} s, stopped; its log: {_tail(log)}"
        ) from error
    return printed.decode(errors="replace"), process.returncode


# --- on a phone -----------------------------------------------------------------------------------

_DISCONNECTED = re.compile(
    r"device '.*' not found|device not found|no devices/emulators|device offline|error: closed|"
    r"protocol fault|connection reset",
    re.IGNORECASE,
)
_ADB_ADVICE = {
    "no devices/emulators found": "connect the phone and turn on USB debugging",
    "unauthorized": "unlock the phone and allow USB debugging from this computer",
    "' not found": "see `adb devices` for the serials",
    "offline": "reconnect the phone",
    "more than one device": "name one with --serial (see `adb devices`)",
    "No space left": "free space on the device",
    "Permission denied": "use a folder the shell may write to, such as /data/local/tmp",
}


class _Disconnected(Exception):
    """The device went away in the middle."""


class AdbRunner:
    """Runs `TNNTest` on a phone through the `adb` program; a context manager that leaves nothing there.

    The binary and its libraries are pushed once into a folder of their own; every run has a folder inside it.

    Parameters
    ----------
    binary
        `TNNTest` for the device.
    libraries
        What it needs beside it, such as ``libTNN.so``.
    serial
        Which device, if there are several.
    adb
        The program.
    root
        Where the folder is made on the device.
    retries
        How often a run is begun again after the device went away.

    Raises
    ------
    CandidateError
        `adb` is missing, there is no device, or it has no space; and those of `Runner.run`.
    FileError
        The binary or a library is missing.
    """

    def __init__(
        self,
        binary: Path,
        libraries: Sequence[Path] = (),
        *,
        serial: str | None = None,
        adb: str = "adb",
        root: str = "/data/local/tmp",
        retries: int = 2,
    ) -> None:
        self.binary, self.libraries = Path(binary), [Path(path) for path in libraries]
        self.adb = [adb] if serial is None else [adb, "-s", serial]
        self.root, self.retries = root, retries
        self.folder = PurePosixPath(root) / f"mobileinst-{secrets.token_hex(6)}"
        self._count = 0
        for path in (self.binary, *self.libraries):
            if not path.is_file():
                raise FileError(f"{path}: no such file; give TNNTest and its libraries built for the device")

    def __enter__(self) -> Self:
        """Find the device and push the program."""
        said, status = execute([*self.adb, "get-state"], 60.0)
        if status != 0 or said.strip() != "device":
            raise CandidateError(f"adb finds no usable device: {_tail(said)}{_known(said)}")
        try:
            self._again(self._install, 60.0)
        except CandidateError:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove everything from the device; a device that is gone cannot be cleaned."""
        if not self._remove() and kind is None:
            raise CandidateError(f"the device went away; {self.folder} is left on it, remove it by hand")

    def _remove(self) -> bool:
        try:
            return self._shell(f"rm -rf {shlex.quote(str(self.folder))}", 60.0)[1] == 0
        except (CandidateError, _Disconnected):
            return False

    def run(self, proto: Path, inputs: Mapping[str, Array], settings: Settings) -> Run:
        """Run once; begun again when the device went away (errors: those of `Runner.run`)."""
        graph = read_graph(proto)
        with tempfile.TemporaryDirectory(prefix="tnn-run-") as name:
            folder = Path(name)
            _stage(Path(proto), inputs, folder)
            start = time.monotonic()
            log = self._again(lambda: self._remote_run(folder, settings), settings.timeout)
            content = (folder / "out.txt").read_bytes()
            return _judged(graph, inputs, parse_output(content, "out.txt"), log, start, settings)

    def _again(self, action: Any, timeout: float) -> Any:
        """Do an action, and again from its start after a disconnection."""
        for attempt in range(self.retries + 1):
            try:
                return action()
            except _Disconnected as error:
                if attempt == self.retries:
                    raise CandidateError(
                        f"the device went away {attempt + 1} times: {error}{_known(str(error))}"
                    ) from error
                self._wait(timeout, str(error))
        raise AssertionError("unreachable")

    def _wait(self, timeout: float, reason: str) -> None:
        try:
            execute([*self.adb, "wait-for-device"], timeout)
        except CandidateError as error:
            raise CandidateError(
                f"the device went away and did not come back: {reason}{_known(reason)}"
            ) from error

    def _install(self) -> None:
        folder = shlex.quote(str(self.folder))
        self._checked_shell(f"rm -rf {folder} && mkdir -p {folder}")
        for path in (self.binary, *self.libraries):
            self._push(path, self.folder / path.name)
        self._checked_shell(f"chmod 755 {shlex.quote(str(self.folder / self.binary.name))}")

    def _remote_run(self, folder: Path, settings: Settings) -> str:
        self._count += 1
        remote = self.folder / f"run-{self._count:05d}"
        place = shlex.quote(str(remote))
        self._ensure_installed()
        self._checked_shell(f"rm -rf {place} && mkdir -p {place}")
        for name in ("m.tnnproto", "m.tnnmodel", "in.txt"):
            self._push(folder / name, remote / name)
        log, status = self._program(place, settings)
        _check_log(log, status, "on the device")
        if self._shell(f"test -s {place}/out.txt", 60.0)[1] != 0:
            raise _no_output("on the device", status, log)
        self._pull(remote / "out.txt", folder / "out.txt")
        self._shell(f"rm -rf {place}", 60.0)
        return log

    def _ensure_installed(self) -> None:
        """Push the program again where a restart of the device removed it."""
        if self._shell(f"test -x {shlex.quote(str(self.folder / self.binary.name))}", 60.0)[1] != 0:
            self._install()

    def _program(self, place: str, settings: Settings) -> tuple[str, int]:
        """Run the program on the device; when it hangs, end it there too."""
        files = "-mp m.tnnproto -ip in.txt -op out.txt"
        program = f"../{shlex.quote(self.binary.name)} {files} {shlex.join(settings.flags())}"
        try:
            return self._shell(
                f"cd {place} && echo $$ > pid && LD_LIBRARY_PATH=.. exec {program}", settings.timeout
            )
        except CandidateError:
            self._shell(f"kill -9 $(cat {place}/pid); rm -rf {place}", 60.0)
            raise

    def _push(self, local: Path, remote: PurePosixPath) -> None:
        """Push a file and check its size there: a short input would be read as zeros."""
        self._transfer(["push", str(local), str(remote)])
        size = self._checked_shell(f"wc -c < {shlex.quote(str(remote))}").strip()
        expected = local.stat().st_size
        if size != str(expected):
            raise CandidateError(
                f"{remote}: {size or 'no'} bytes on the device, {expected} were pushed; is it full?"
            )

    def _pull(self, remote: PurePosixPath, local: Path) -> None:
        self._transfer(["pull", str(remote), str(local)])
        if not local.exists():
            raise CandidateError(f"{remote}: adb pull succeeded without a file")

    def _transfer(self, words: list[str]) -> None:
        log, status = execute([*self.adb, *words], 600.0)
        self._check_connection(log, status)
        if status != 0:
            raise CandidateError(f"adb {words[0]} failed: {_tail(log)}{_known(log)}")

    def _shell(self, command: str, timeout: float) -> tuple[str, int]:
        """Run a command on the device; its status is printed, because older `adb` do not pass it on."""
        log, status = execute([*self.adb, "shell", f"({command}) 2>&1; echo :status:$?"], timeout)
        said, mark, code = log.replace("\r\n", "\n").rpartition(":status:")
        if not mark:
            self._check_connection(log, status or 1)
            raise CandidateError(f"adb shell failed: {_tail(log)}{_known(log)}")
        return said, int(code.strip()) if code.strip().isdigit() else 1

    def _checked_shell(self, command: str) -> str:
        log, status = self._shell(command, 60.0)
        if status != 0:
            raise CandidateError(f"on the device, {command!r} failed: {_tail(log)}{_known(log)}")
        return log

    def _check_connection(self, log: str, status: int) -> None:
        if status != 0 and _DISCONNECTED.search(log):
            raise _Disconnected(_tail(log))


def _known(log: str) -> str:
    return "".join(f"; {advice}" for sign, advice in _ADB_ADVICE.items() if sign in log)


# --- many inputs ----------------------------------------------------------------------------------


def run_batch(
    runner: Runner,
    proto: Path,
    batch: Sequence[Mapping[str, Array]],
    folder: Path,
    settings: Settings | None = None,
) -> list[dict[str, Array]]:
    """Run a model on many inputs, keeping each output in ``folder``; begun again, it goes on.

    Parameters
    ----------
    runner, proto, settings
        As in `Runner.run`.
    batch
        The inputs.
    folder
        Made if missing. It holds ``00000.txt``, … and ``batch.json``, which says what they are of.

    Raises
    ------
    FileError
        The folder holds outputs of another model, of other inputs or settings.
    CandidateError
        A run failed; the outputs before it are kept.
    """
    settings, folder = settings or Settings(), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    digests = [_digest(inputs) for inputs in batch]
    _claim(folder, _identity(Path(proto), settings), digests)
    results = []
    for index, inputs in enumerate(batch):
        path = folder / f"{index:05d}.txt"
        if not path.exists():
            write_output(path, runner.run(proto, inputs, settings).outputs)
        results.append(read_output(path))
    return results


def _identity(proto: Path, settings: Settings) -> dict[str, Any]:
    files = {
        path.suffix: hashlib.sha256(path.read_bytes()).hexdigest() for path in (proto, model_path(proto))
    }
    return {"files": files, "settings": {k: v for k, v in asdict(settings).items() if k != "timeout"}}


def _digest(inputs: Mapping[str, Array]) -> str:
    digest = hashlib.sha256()
    for name in sorted(inputs):
        array = np.ascontiguousarray(inputs[name], dtype=np.float32)
        digest.update(f"{name}{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def _claim(folder: Path, identity: dict[str, Any], digests: list[str]) -> None:
    """Write what the folder is of; one begun with the same model and inputs, or fewer, is taken up."""
    path = folder / "batch.json"
    if path.exists():
        try:
            found = json.loads(path.read_text())
            inputs = found.pop("inputs")
        except (ValueError, KeyError, AttributeError, OSError) as error:
            raise FileError(f"{path}: no description of a batch ({error}); use another folder") from error
        shared = min(len(inputs), len(digests))
        if found != identity or inputs[:shared] != digests[:shared]:
            raise FileError(
                f"{folder}: holds outputs of another model, of other inputs or settings; use another"
            )
        digests = max(digests, inputs, key=len)
    elif any(folder.glob("*.txt")):
        raise FileError(f"{folder}: holds outputs without {path.name}; use an empty folder")
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps({**identity, "inputs": digests}, indent=1))
