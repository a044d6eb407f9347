"""Building the set: compute, confirm, write to a folder beside it, and take its place when all is well."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from conformance.folders import replaced_folder
from conformance.foreign_names import shown
from conformance.json_files import read_json
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
    is_manifest,
    rounded_up,
    sha256,
    write_json,
    write_tensors,
)
from refimpl import __version__
from refimpl.errors import FileError, VerificationError
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
        A file or the set is too large, the folder holds something else than a set, or cannot be written.
    """
    with replaced_folder(folder, check_replaceable) as fresh:
        records = _written(goldens, fresh, progress)
        write_json(fresh / MANIFEST, _manifest(records))
        _check_sizes(fresh)
        # Weights are trained, not built: they stay.
        if (folder / TRAINED).is_dir():
            shutil.copytree(folder / TRAINED, fresh / TRAINED)
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


def check_replaceable(folder: Path) -> None:
    """Raise `FileError` unless a folder is empty, or a set and nothing else: what it holds will be gone."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    document = read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else None
    if not is_manifest(document):
        raise FileError(
            f"{folder}: is no set of goldens, and would be replaced whole; name a new or an empty folder"
        )
    foreign = [path for path in _files(folder) if path not in _known(document)]
    if foreign:
        named = ", ".join(map(shown, foreign[:5]))
        raise FileError(
            f"{folder}: {len(foreign)} files are not of the set and would be lost: {named}; move them away"
        )


def _files(folder: Path) -> list[str]:
    """Return the files of a set by their paths in it, without the trained weights."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    return sorted(path.as_posix() for path in found if path.parts[0] != TRAINED)


def _known(document: Any) -> set[str]:
    """Return the files that a manifest lists, of whatever version it is."""
    try:
        files = [file["path"] for record in document["goldens"] for file in record["files"]]
        return {MANIFEST, *files}
    except (KeyError, TypeError):
        return {MANIFEST}
