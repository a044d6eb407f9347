"""A program with the command line and the exit behaviours of adb, whose device is a folder of this
machine.

The device is ``ADB_DEVICE``; ``ADB_TRAPS`` names a folder in which a file ``lose-<n>`` makes the
n-th call find no device, ``full`` makes pushes fail for want of space, and ``cut`` makes them lose
their last byte.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

DEVICE, TRAPS = Path(os.environ["ADB_DEVICE"]), Path(os.environ["ADB_TRAPS"])


def count_call() -> int:
    path = TRAPS / "calls"
    number = int(path.read_text()) + 1 if path.exists() else 1
    path.write_text(str(number))
    return number


def fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 1


def push(local: str, remote: str) -> int:
    if (TRAPS / "full").exists():
        return fail(f"adb: error: failed to copy '{local}' to '{remote}': remote No space left on device")
    content = Path(local).read_bytes()
    (DEVICE / remote.lstrip("/")).write_bytes(content[:-1] if (TRAPS / "cut").exists() else content)
    print(f"{local}: 1 file pushed")
    return 0


def pull(remote: str, local: str) -> int:
    source = DEVICE / remote.lstrip("/")
    if not source.exists():
        return fail(f"adb: error: failed to stat remote object '{remote}': No such file or directory")
    Path(local).write_bytes(source.read_bytes())
    return 0


def shell(command: str) -> int:
    # The device's paths begin at its folder.
    return subprocess.run(
        ["sh", "-c", command.replace("/data/local/tmp", f"{DEVICE}/data/local/tmp")]
    ).returncode


def main() -> int:
    words = sys.argv[1:]
    serial = words[1] if words[0] == "-s" else None
    words = words[2:] if serial else words
    if words == ["wait-for-device"]:
        return 0
    if serial not in (None, "phone"):
        return fail(f"adb: device '{serial}' not found")
    if (TRAPS / "absent").exists():
        return fail("adb: no devices/emulators found")
    if (TRAPS / "several").exists() and serial is None:
        return fail("adb: more than one device/emulator")
    if (TRAPS / f"lose-{count_call()}").exists():
        return fail("adb: device 'phone' not found")
    if words == ["get-state"]:
        print("device")
        return 0
    return {"push": push, "pull": pull, "shell": shell}[words[0]](*words[1:])


if __name__ == "__main__":
    sys.exit(main())
