"""The set for other toolchains: raw numbers, NumPy arrays, TNN's text, or C headers."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from conformance.files import atomic_write
from conformance.folders import check_new_folder, new_folder
from conformance.foreign_names import comment, plain_name
from conformance.tnn.text import write_input, write_output
from golden import DATA
from golden.candidate import RAW
from golden.judge import selected
from golden.store import INPUT, MANIFEST, Entry, integrity_problems, read_manifest
from refimpl.errors import ConfigurationError, FileError
from refimpl.ops.operation import Array

Writer = Callable[[Entry, Path], None]


def export(folder: Path, form: str, data: Path = DATA, only: Sequence[str] = ()) -> int:
    """Write the goldens in another form.

    Parameters
    ----------
    folder
        Where; a new or empty folder.
    form
        raw, npy, tnn-text or c-header.
    only
        Patterns of names; all if there are none.

    Returns
    -------
    int
        How many were written.

    Raises
    ------
    ConfigurationError
        There is no such form.
    FileError
        The set is damaged, or the folder is not empty or cannot be written.
    """
    if form not in WRITERS:
        raise ConfigurationError(f"there is no format {form!r}; choose one of {', '.join(WRITERS)}")
    check_new_folder(folder)
    entries = selected(read_manifest(data), only)
    problems = [problem for entry in entries for problem in integrity_problems(entry)]
    if problems:
        raise FileError("; ".join(problems))
    with new_folder(folder) as fresh:
        for entry in entries:
            _exported(entry, fresh / plain_name(entry.name, "path", MANIFEST), WRITERS[form])
    return len(entries)


def _exported(entry: Entry, stem: Path, write: Writer) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    write(entry, stem)
    for suffix in set(entry.suffixes) - {".safetensors"}:
        shutil.copyfile(entry.path(suffix), f"{stem}{suffix}")


def _named(entry: Entry, stem: Path, tensor: str, suffix: str) -> Path:
    """Return the path of a file that holds one tensor."""
    return stem.with_name(plain_name(f"{stem.name}.{tensor}{suffix}", "file", entry.name))


def _suffix(array: Array, known: Mapping[str, str], entry: Entry) -> str:
    """Return what a form calls a dtype.

    Raises
    ------
    ConfigurationError
        It has no name for it.
    """
    if array.dtype.str[1:] not in known:
        raise ConfigurationError(f"{entry.name}: {array.dtype} cannot be written in this format; choose npy")
    return known[array.dtype.str[1:]]


def _raw(entry: Entry, stem: Path) -> None:
    suffixes = {np.dtype(dtype).str[1:]: f".{suffix}" for suffix, dtype in RAW.items()}
    for name, array in entry.tensors().items():
        path = _named(entry, stem, name, _suffix(array, suffixes, entry))
        with atomic_write(path) as temporary:
            temporary.write_bytes(np.ascontiguousarray(array).tobytes())


def _npy(entry: Entry, stem: Path) -> None:
    for name, array in entry.tensors().items():
        with atomic_write(_named(entry, stem, name, ".npy")) as temporary:
            np.save(temporary, array)


def _tnn_text(entry: Entry, stem: Path) -> None:
    """TNN's runner reads one text of inputs; the outputs are float32 or int32 there, with six decimals."""
    for name, array in entry.tensors(INPUT).items():
        # TNN's text is of finite numbers; probes of NaN and infinity cannot be put into it.
        if np.isfinite(array).all():
            write_input(_named(entry, stem, f"input.{name}", ".txt"), {name: array})
    truth = {name: _tnn(array) for name, array in entry.tensors("truth.").items()}
    if truth:
        write_output(stem.with_name(f"{stem.name}.truth.txt"), truth)


def _tnn(array: Array) -> Array:
    return np.asarray(array, np.float32 if array.dtype.kind == "f" else np.int32)


_C_TYPES = {
    "f8": "double",
    "f4": "float",
    "i8": "int64_t",
    "i4": "int32_t",
    "i1": "int8_t",
    "u1": "uint8_t",
    "b1": "bool",
}


def _c_header(entry: Entry, stem: Path) -> None:
    lines = [f"/* {entry.name}: {comment(entry.record['shows'])} */", "#pragma once"]
    lines += ["#include <math.h>", "#include <stdbool.h>", "#include <stdint.h>"]
    tensors = entry.tensors()
    names = _identifiers(entry, tensors)
    for name, array in tensors.items():
        kind = _suffix(array, _C_TYPES, entry)
        values = ", ".join(_literal(x) for x in array.ravel()) or "0"
        own = names[name]
        lines += [f"static const {kind} {own}[] = {{{values}}};"]
        shape = ", ".join(map(str, array.shape)) or "1"
        lines += [f"static const int64_t {own}_shape[] = {{{shape}}};"]
    with atomic_write(stem.with_name(f"{stem.name}.h")) as temporary:
        temporary.write_text("\n".join(lines) + "\n", "utf-8")


def _literal(value: np.generic) -> str:
    """Write a number that C reads back exactly: hexadecimal floats."""
    if value.dtype.kind != "f":
        return str(int(value)).replace("-9223372036854775808", "INT64_MIN")
    number = float(value)
    if np.isnan(number):
        return "NAN"
    if np.isinf(number):
        return "INFINITY" if number > 0 else "-INFINITY"
    return number.hex() + ("f" if value.dtype == np.float32 else "")


def _identifiers(entry: Entry, tensors: Iterable[str]) -> dict[str, str]:
    """Return tensor → name in C, no two alike."""
    names = {
        name: plain_name(re.sub(r"[/.]", "_", f"{entry.name}_{name}"), "identifier", entry.name)
        for name in tensors
    }
    alike = [name for name, count in Counter(names.values()).items() if count > 1]
    if alike:
        raise FileError(f"{entry.name}: two of its tensors would both be called {alike[0]}; rename one")
    return names


WRITERS: dict[str, Writer] = {"raw": _raw, "npy": _npy, "tnn-text": _tnn_text, "c-header": _c_header}


def forms() -> Iterator[str]:
    """Yield the names of the forms."""
    yield from WRITERS
