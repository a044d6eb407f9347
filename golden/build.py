"""Building the set: compute, confirm, write to a folder beside it, and take its place when all is well."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from golden import FORMAT, FORMAT_VERSION, LICENCE
from golden.case import FORMATS, Case, Golden
from golden.store import (
    BOUND,
    INPUT,
    LARGEST_FILE,
    LARGEST_SET,
    MANIFEST,
    TRAINED,
    TRUTH,
    described,
    rounded_up,
    sha256,
    write_json,
    write_tensors,
)
from refimpl import __version__
from refimpl.errors import FileError, MobileInstError, VerificationError
from refimpl.ops.operation import Array

PACKAGES = ("numpy", "scipy", "onnx", "onnxruntime", "torch", "mpmath", "pycocotools")


def build(
    goldens: Iterable[Golden], folder: Path, progress: Callable[[str], None] = lambda name: None
) -> int:
    """Write a set; the old one stays as it is unless all of the new one is confirmed.

    Returns
    -------
    int
        How many goldens were written.

    Raises
    ------
    VerificationError
        Implementations disagree, or none confirms; all such goldens are listed.
    FileError
        A file or the set is too large, or the place cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".golden-", dir=folder.parent) as temporary:
            fresh = Path(temporary) / "data"
            fresh.mkdir()
            records = _written(goldens, fresh, progress)
            write_json(fresh / MANIFEST, _manifest(records))
            _check_sizes(fresh)
            _take_place(fresh, folder, Path(temporary) / "old")
    except OSError as error:
        if isinstance(error, MobileInstError):
            raise
        raise FileError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return len(records)


def _written(
    goldens: Iterable[Golden], folder: Path, progress: Callable[[str], None]
) -> list[dict[str, Any]]:
    records, problems = [], []
    for golden in goldens:
        progress(golden.name)
        try:
            records.append(write(golden, folder))
        except VerificationError as error:
            problems.append(f"{golden.name}: {error}")
    if problems:
        raise VerificationError("not built, the old set is as it was: " + "; ".join(problems))
    return records


def write(golden: Golden, folder: Path) -> dict[str, Any]:
    """Confirm one golden, write its files, and return its record for the manifest."""
    case = golden.case()
    confirmations = case.confirm()
    if not confirmations:
        raise VerificationError("no independent implementation confirmed it")
    tensors = _tensors(case)
    stem = folder / golden.name
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = []
    if tensors:
        paths.append(stem.with_name(f"{stem.name}.safetensors"))
        write_tensors(paths[-1], tensors, golden.name)
    if case.model is not None:
        paths.append(stem.with_name(f"{stem.name}.onnx"))
        paths[-1].write_bytes(case.model())
    if case.decisions is not None:
        paths.append(stem.with_name(f"{stem.name}.json"))
        write_json(paths[-1], case.decisions)
    return {
        "name": golden.name,
        "kind": golden.kind,
        "shows": golden.shows,
        "producer": {"function": golden.function, "arguments": golden.arguments, "seed": golden.seed},
        "covers": list(golden.covers),
        "outputs": list(case.truth),
        "tensors": {
            name: dict(zip(("dtype", "shape"), _description(x), strict=True)) for name, x in tensors.items()
        },
        "files": [_file(path, folder) for path in paths],
        "confirmed_by": [
            {"source": c.source, "largest_disagreement": _significant(c.disagreement), "unit": c.unit}
            for c in confirmations
        ],
        "licence": LICENCE,
    }


def _tensors(case: Case) -> dict[str, Array]:
    bounds = {form: case.bounds(FORMATS[form]) for form in FORMATS}
    truth = {**case.truth, **(case.settled() if case.settled else {})}
    return {
        **{INPUT + name: x for name, x in case.inputs.items()},
        **{TRUTH + name: x for name, x in truth.items()},
        **{
            f"{BOUND}{form}.{name}": rounded_up(b)
            for form, made in bounds.items()
            for name, b in made.items()
        },
    }


def _description(array: Array) -> tuple[str, list[int]]:
    dtype, shape = described(array)
    return dtype, list(shape)


def _file(path: Path, folder: Path) -> dict[str, Any]:
    return {"path": path.relative_to(folder).as_posix(), "bytes": path.stat().st_size, "sha256": sha256(path)}


def _significant(value: float) -> float:
    return float(f"{value:.3g}") if np.isfinite(value) else value


def _manifest(records: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "licence": LICENCE,
        "produced_by": {"mobileinst-reference": __version__, **{name: version(name) for name in PACKAGES}},
        "goldens": records,
    }


def _check_sizes(folder: Path) -> None:
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    for path, size in sizes.items():
        if size > LARGEST_FILE:
            raise FileError(f"{path.relative_to(folder)} has {size} bytes, more than {LARGEST_FILE}")
    if sum(sizes.values()) > LARGEST_SET:
        raise FileError(f"the set has {sum(sizes.values())} bytes, more than {LARGEST_SET}")


def _take_place(fresh: Path, folder: Path, old: Path) -> None:
    if folder.exists():
        # Weights are trained, not built: they stay.
        if (folder / TRAINED).is_dir():
            shutil.copytree(folder / TRAINED, fresh / TRAINED)
        folder.rename(old)
    try:
        fresh.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
