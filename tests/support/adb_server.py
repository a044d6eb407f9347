"""A server that the real adb client talks to in place of a phone's: smart-socket, shell and sync protocols.

Source: the Android Open Source Project, adb's OVERVIEW.TXT, SERVICES.TXT and SYNC.TXT. The device is a
folder of this machine; commands run in this machine's shell.
"""

from __future__ import annotations

import contextlib
import re
import socketserver
import stat
import struct
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

VERSION = 41
_SERIAL = re.compile(r"(?:host-serial|host:tport:serial|host:transport):([^:]+)")
ROOT = "/data/local/tmp"


@dataclass
class Phone:
    """The device's folder and its traps."""

    folder: Path
    serial: str = "phone"
    present: bool = True
    full: bool = False
    lose_at: set[int] = field(default_factory=set)
    services: int = 0
    waits: int = 0

    def here(self, path: str) -> Path:
        return Path(path.replace(ROOT, str(self.folder)))


class _Closed(Exception):
    pass


class _Connection(socketserver.BaseRequestHandler):
    phone: Phone

    def handle(self) -> None:
        self.phone = self.server.phone  # type: ignore[attr-defined]
        with contextlib.suppress(_Closed, ConnectionError, BrokenPipeError):
            while self.serve(self.take(int(self.take(4), 16)).decode()):
                pass

    def take(self, size: int) -> bytes:
        content = b""
        while len(content) < size:
            chunk = self.request.recv(size - len(content))
            if not chunk:
                raise _Closed
            content += chunk
        return content

    def say(self, content: bytes) -> None:
        self.request.sendall(content)

    def text(self, content: str) -> None:
        self.say(f"{len(content):04x}{content}".encode())

    def fail(self, reason: str) -> bool:
        self.say(b"FAIL")
        self.text(reason)
        return False

    def serve(self, service: str) -> bool:
        """Answer a service, and tell whether another may follow on this connection."""
        if service == "host:version":
            self.say(b"OKAY")
            self.text(f"{VERSION:04x}")
            return False
        if "wait-for" in service:
            self.phone.waits += 1
            self.say(b"OKAYOKAY")
            return False
        if service.startswith("host"):
            return self.host(service)
        self.phone.services += 1
        if self.phone.services in self.phone.lose_at:
            return False
        self.say(b"OKAY")
        if service.startswith("sync:"):
            self.sync()
        else:
            self.shell(service.partition(":")[2])
        return False

    def host(self, service: str) -> bool:
        if not self.phone.present:
            return self.fail("no devices/emulators found")
        wanted = _SERIAL.match(service)
        if wanted is not None and wanted[1] != self.phone.serial:
            return self.fail(f"device '{wanted[1]}' not found")
        self.say(b"OKAY")
        if service.endswith("get-state"):
            self.text("device")
            return False
        if service.endswith("features"):
            self.text("")
            return False
        if ":tport:" in service:
            self.say(struct.pack("<Q", 1))
        return True

    def shell(self, command: str) -> None:
        process = subprocess.Popen(
            ["sh", "-c", command.replace(ROOT, str(self.phone.folder))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdout is not None
        with process:
            while chunk := process.stdout.read1():
                self.say(chunk)

    def sync(self) -> None:
        while True:
            kind, size = self.take(4), struct.unpack("<I", self.take(4))[0]
            if kind == b"QUIT":
                return
            path = self.take(size).decode()
            {b"STAT": self.stat, b"SEND": self.send, b"RECV": self.receive}[kind](path)

    def stat(self, path: str) -> None:
        found = self.phone.here(path)
        values = (0, 0, 0)
        if found.exists():
            status = found.stat()
            values = (stat.S_IFMT(status.st_mode) | 0o755, status.st_size, int(status.st_mtime))
        self.say(b"STAT" + struct.pack("<III", *values))

    def send(self, path: str) -> None:
        chunks = []
        while (kind := self.take(4)) == b"DATA":
            chunks.append(self.take(struct.unpack("<I", self.take(4))[0]))
        assert kind == b"DONE"
        self.take(4)
        if self.phone.full:
            reason = b"couldn't write: No space left on device"
            self.say(b"FAIL" + struct.pack("<I", len(reason)) + reason)
            return
        self.phone.here(path.rpartition(",")[0]).write_bytes(b"".join(chunks))
        self.say(b"OKAY" + struct.pack("<I", 0))

    def receive(self, path: str) -> None:
        content = self.phone.here(path).read_bytes()
        for start in range(0, len(content), 65536):
            chunk = content[start : start + 65536]
            self.say(b"DATA" + struct.pack("<I", len(chunk)) + chunk)
        self.say(b"DONE" + struct.pack("<I", 0))


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False


@contextlib.contextmanager
def serving(phone: Phone) -> Iterator[int]:
    """Serve a phone on a port of its own."""
    with _Server(("127.0.0.1", 0), _Connection) as server:
        server.phone = phone  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield server.socket.getsockname()[1]
        finally:
            server.shutdown()
