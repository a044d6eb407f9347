"""An arm64 Python under qemu, with the phones' runtimes, unpacked into a folder: nothing is installed.

Debian's packages are fetched by apt, which checks them against its signed lists, with lists of its own;
wheels by pip, against the hashes here. None of it needs root.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from conformance.folders import new_folder
from refimpl.errors import FileError, MissingDependencyError

CHIP = "cortex-a76"
"""With half precision and dot products, as the larger cores of the paper's Snapdragon 778G."""
PROGRAM = "qemu-aarch64-static"
PACKAGES = (
    *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib"),
    *("libc6", "libstdc++6", "libgcc-s1", "libgomp1", "zlib1g", "libexpat1", "libffi8"),
    *("libssl3", "libbz2-1.0", "liblzma5", "libuuid1", "libcrypt1"),
)
"""Debian 12's, for arm64."""
WHEELS = {
    "numpy==2.4.6": "0ab0a9c4ffb1a6d95ef519fe4247dba8eb6b18ad93999f76b7f657039acabd47",
    "ncnn==1.0.20261020": "0503da4f3960ee2e555feef55db13adffd6c62eb59a4bd22f8083b12d1757ad8",
    "MNN==3.6.1": "7f8fbf264047e81bf66f0b04ef95a8c83b8d5ca0a3670afcf3c0c3b6861de4a5",
    # 1.32.0 crashes under qemu 7.2 when it is imported.
    "onnxruntime==1.22.0": "fef17d665a917866d1f68f09edc98223b9a27e6cb167dec69da4c66484ad12fd",
}
"""What is installed there, with its SHA-256."""
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64")
STEPS = ("lists of packages", "Debian's packages", "wheels", "unpacking")
PLACE = "usr/lib/python3/dist-packages"
LONGEST = 600.0
"""Seconds that a download may take."""
Said = Callable[[str], None]


def arm_python(folder: Path, progress: Said = lambda step: None) -> tuple[str, ...]:
    """Return the words that start an arm64 Python, which is set up in the folder if it is not there.

    Parameters
    ----------
    folder
        Where it is, or will be: 260 MB.
    progress
        Called with each of `STEPS`.

    Raises
    ------
    MissingDependencyError
        apt or dpkg is not there.
    FileError
        Something cannot be fetched, or the folder holds something else.
    """
    if not folder.exists():
        for program in ("apt-get", "dpkg-deb"):
            if shutil.which(program) is None:
                raise MissingDependencyError(f"{program} is not there; Debian's packages are fetched by it")
        with new_folder(folder) as staged, tempfile.TemporaryDirectory(prefix="arm-") as place:
            _set_up(staged, Path(place), progress)
    root = folder / "root"
    words = (str(folder / PROGRAM), "-cpu", CHIP, "-L", str(root), str(root / "usr/bin/python3.11"))
    if not Path(words[0]).is_file():
        raise FileError(f"{folder} holds something else than an arm64 Python; name another folder")
    return words


def _set_up(staged: Path, place: Path, progress: Said) -> None:
    progress(STEPS[0])
    options = _apt_options(place)
    _run(["apt-get", *options, "update"], place)
    progress(STEPS[1])
    named = ["qemu-user-static", *(f"{name}:arm64" for name in PACKAGES)]
    _run(["apt-get", *options, "download", *named], place)
    progress(STEPS[2])
    _fetch_wheels(place)
    progress(STEPS[3])
    for deb in sorted(place.glob("*.deb")):
        if deb.name.startswith("qemu"):
            _take(deb, f"./usr/bin/{PROGRAM}", staged / PROGRAM)
        else:
            _run(["dpkg-deb", "-x", str(deb), str(staged / "root")], place)
    for wheel in sorted(place.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(staged / "root" / PLACE)


def _apt_options(place: Path) -> list[str]:
    """Return what makes apt keep its lists in a folder, of this machine's packages and arm64's."""
    for name in ("lists/partial", "cache/archives/partial"):
        (place / name).mkdir(parents=True)
    own = _run(["dpkg", "--print-architecture"], place).strip()
    said = {
        "Dir::State": f"{place}",
        "Dir::State::lists": f"{place / 'lists'}",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": f"{place / 'cache'}",
        "APT::Sandbox::User": "",
    }
    wanted = [f"APT::Architectures::={each}" for each in dict.fromkeys([own, "arm64"])]
    pairs = [*(f"{name}={value}" for name, value in said.items()), *wanted]
    return [word for pair in pairs for word in ("-o", pair)]


def _fetch_wheels(place: Path) -> None:
    lines = [f"{pin} --hash=sha256:{sha256}" for pin, sha256 in WHEELS.items()]
    (place / "wheels.txt").write_text("\n".join(lines), encoding="utf-8")
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    how = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--python-version", "3.11", *platforms]
    pip = [sys.executable, "-P", "-m", "pip", "download", "-q", "--disable-pip-version-check"]
    _run([*pip, *how, "-r", "wheels.txt"], place)


def _take(deb: Path, member: str, target: Path) -> None:
    """Write one file of a Debian package."""
    command = ["dpkg-deb", "--fsys-tarfile", str(deb)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as archive,
    ):
        for each in archive:
            content = archive.extractfile(each) if each.name == member else None
            if content is not None:
                with target.open("wb") as stream:
                    shutil.copyfileobj(content, stream)
    if not target.is_file():
        raise FileError(f"{deb.name} holds no {member}")
    target.chmod(0o755)


def _run(command: Sequence[str], place: Path) -> str:
    try:
        ended = subprocess.run(
            command, cwd=place, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LONGEST
        )
    except subprocess.TimeoutExpired as error:
        raise FileError(f"{command[0]} hangs: it has not ended within {LONGEST:g} s") from error
    if ended.returncode:
        lines = [line for line in f"{ended.stdout}\n{ended.stderr}".splitlines() if line.strip()]
        last = lines[-1].strip()[:200] if lines else "it says nothing"
        raise FileError(f"{Path(command[0]).name} fails with status {ended.returncode}: {last}")
    return ended.stdout
