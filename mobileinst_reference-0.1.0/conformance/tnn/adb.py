"""Running `TNNTest` on a phone, through the real `adb` program."""

from __future__ import annotations

import re
import secrets
import shlex
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self, TypeVar

from numpy.typing import NDArray

from conformance.tnn.graph import read_graph
from conformance.tnn.runner import Run, Settings, check_log, execute, judged, missing_output, stage, tail
from conformance.tnn.text import parse_output, read_bytes
from refimpl.errors import CandidateError, FileError

Array = NDArray[Any]
T = TypeVar("T")
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
            raise CandidateError(f"adb finds no usable device: {tail(said)}{_known(said)}")
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
            stage(Path(proto), inputs, folder)
            start = time.monotonic()
            log = self._again(lambda: self._remote_run(folder, settings), settings.timeout)
            content = read_bytes(folder / "out.txt")
            return judged(graph, inputs, parse_output(content, "out.txt"), log, start, settings)

    def _again(self, action: Callable[[], T], timeout: float) -> T:
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
        check_log(log, status, "on the device")
        if self._shell(f"test -s {place}/out.txt", 60.0)[1] != 0:
            raise missing_output("on the device", status, log)
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
            raise CandidateError(f"adb {words[0]} failed: {tail(log)}{_known(log)}")

    def _shell(self, command: str, timeout: float) -> tuple[str, int]:
        """Run a command on the device; its status is printed, because older `adb` do not pass it on."""
        log, status = execute([*self.adb, "shell", f"({command}) 2>&1; echo :status:$?"], timeout)
        said, mark, code = log.replace("\r\n", "\n").rpartition(":status:")
        if not mark:
            self._check_connection(log, status or 1)
            raise CandidateError(f"adb shell failed: {tail(log)}{_known(log)}")
        return said, int(code.strip()) if code.strip().isdigit() else 1

    def _checked_shell(self, command: str) -> str:
        log, status = self._shell(command, 60.0)
        if status != 0:
            raise CandidateError(f"on the device, {command!r} failed: {tail(log)}{_known(log)}")
        return log

    def _check_connection(self, log: str, status: int) -> None:
        if status != 0 and _DISCONNECTED.search(log):
            raise _Disconnected(tail(log))


def _known(log: str) -> str:
    return "".join(f"; {advice}" for sign, advice in _ADB_ADVICE.items() if sign in log)
