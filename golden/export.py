"""The set for other toolchains: raw numbers, NumPy arrays, TNN's text, or C headers."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from conformance.files import atomic_write
from conformance.tnn.text import write_input, write_output
from golden import DATA
from golden.candidate import RAW
from golden.judge import selected
from golden.store import INPUT, Entry, integrity_problems, read_manifest
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
    entries = selected(read_manifest(data), only)
    problems = [problem for entry in entries for problem in integrity_problems(entry)]
    if problems:
        raise FileError("; ".join(problems))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileError(f"{folder}: is there already; name a new or an empty folder")
    for entry in entries:
        stem = folder / entry.name
        try:
            stem.parent.mkdir(parents=True, exist_ok=True)
            WRITERS[form](entry, stem)
            for suffix in set(entry.suffixes) - {".safetensors"}:
                shutil.copyfile(entry.path(suffix), f"{stem}{suffix}")
        except OSError as error:
            raise FileError(f"{stem}: cannot be written: {error.strerror or error}") from error
    return len(entries)


def _raw(entry: Entry, stem: Path) -> None:
    names = {np.dtype(dtype): suffix for suffix, dtype in RAW.items()}
    for name, array in entry.tensors().items():
        path = stem.with_name(f"{stem.name}.{name}.{names[array.dtype]}")
        with atomic_write(path) as temporary:
            temporary.write_bytes(np.ascontiguousarray(array).tobytes())


def _npy(entry: Entry, stem: Path) -> None:
    for name, array in entry.tensors().items():
        with atomic_write(stem.with_name(f"{stem.name}.{name}.npy")) as temporary:
            np.save(temporary, array)


def _tnn_text(entry: Entry, stem: Path) -> None:
    """TNN's runner reads one text of inputs; the outputs are float32 or int32 there, with six decimals."""
    for name, array in entry.tensors(INPUT).items():
        # TNN's text is of finite numbers; probes of NaN and infinity cannot be put into it.
        if np.isfinite(array).all():
            write_input(stem.with_name(f"{stem.name}.input.{name}.txt"), {name: array})
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
    lines = [f"/* {entry.name}: {entry.record['shows']} */", "#pragma once"]
    lines += ["#include <math.h>", "#include <stdbool.h>", "#include <stdint.h>"]
    prefix = _identifier(entry.name)
    for name, array in entry.tensors().items():
        kind = _C_TYPES[array.dtype.str[1:]]
        values = ", ".join(_literal(x) for x in array.ravel()) or "0"
        own = f"{prefix}_{_identifier(name)}"
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


def _identifier(name: str) -> str:
    return re.sub(r"\W", "_", name)


WRITERS: dict[str, Writer] = {"raw": _raw, "npy": _npy, "tnn-text": _tnn_text, "c-header": _c_header}


def forms() -> Iterator[str]:
    """Yield the names of the forms."""
    yield from WRITERS
