"""Putting trained weights in place: rounded to float16, in two files, with their digests in the manifest."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.evidence import held_out
from conformance.files import atomic_write
from refimpl import MobileInst, MobileInstConfig
from refimpl.errors import FileError, NonFiniteError
from refimpl.trained import MANIFEST
from refimpl.weights import Weights

Array = NDArray[Any]
PARTS = {"backbone": ("backbone.",), "decoders": ("mask_decoder.", "instance_decoder.")}
LARGEST_FILE = 3_000_000


def rounded(weights: Mapping[str, Array]) -> Weights:
    """Return the weights as float16.

    Raises
    ------
    NonFiniteError
        One is too large for float16.
    """
    with np.errstate(over="ignore"):
        half = {name: array.astype(np.float16) for name, array in weights.items()}
    large = [name for name, array in half.items() if not np.isfinite(array).all()]
    if large:
        raise NonFiniteError(f"{large[0]} has numbers too large for float16; lower --learning-rate")
    return Weights(half)


def ship(
    folder: Path,
    name: str,
    weights: Mapping[str, Array],
    config: MobileInstConfig,
    log: str,
    training: Mapping[str, Any],
    pictures: int = 40,
) -> None:
    """Write a set's files and loss curve, and enter it in the manifest with its AP on held-out pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    half = rounded(weights)
    digests = {}
    for part, prefixes in PARTS.items():
        path = folder / f"{name}.{part}.safetensors"
        Weights({key: array for key, array in half.items() if key.startswith(prefixes)}).save(path)
        assert path.stat().st_size < LARGEST_FILE, f"{path} is larger than {LARGEST_FILE} bytes"
        digests[path.name] = sha256(path.read_bytes()).hexdigest()
    with atomic_write(folder / f"{name}.csv") as temporary:
        temporary.write_text(thinned(log), encoding="utf-8")
    entry = {
        "config": asdict(config),
        "sha256": digests,
        "training": dict(training),
        "held_out": measured(MobileInst(config, half.astype(np.float32)), pictures),
    }
    _enter(folder / MANIFEST, name, entry)


def measured(network: MobileInst, pictures: int) -> dict[str, Any]:
    """AP on the first held-out pictures with its interval, with labels and without."""
    truth, results = held_out.picture_truth(pictures), held_out.picture_results(network, pictures)
    pairs = {
        f"first_{pictures}": (truth, results),
        f"first_{pictures}_without_labels": tuple(map(held_out.without_labels, (truth, results))),
    }
    found = {name: held_out.picture_precision(*pair) for name, pair in pairs.items()}
    return {name: {"AP": one.value, "interval": [one.low, one.high]} for name, one in found.items()}


def _enter(path: Path, name: str, entry: dict[str, Any]) -> None:
    sets = json.loads(path.read_bytes())["sets"] if path.exists() else {}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps({"sets": {**sets, name: entry}}, indent=1) + "\n", encoding="utf-8")


def thinned(log: str, rows: int = 200) -> str:
    """Return a log of at most so many rows: means over equally many steps."""
    whole = list(csv.DictReader(io.StringIO(log)))
    group = -(-len(whole) // rows)
    means = [_mean(whole[i : i + group]) for i in range(0, len(whole), group)]
    written = io.StringIO()
    writer = csv.DictWriter(written, list(whole[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(means)
    return written.getvalue()


def _mean(rows: list[dict[str, str]]) -> dict[str, str]:
    """The mean of each column, the step of the last row."""
    mean = {
        name: f"{np.mean([float(row[name]) for row in rows]):.5g}" if rows[0][name] else ""
        for name in rows[0]
    }
    return {**mean, "step": rows[-1]["step"]}


def versions() -> dict[str, str]:
    """Return the versions that decide how training goes."""
    found = {}
    for package in ("torch", "numpy", "scipy", "mobileinst-reference"):
        try:
            found[package] = version(package)
        except PackageNotFoundError as error:
            raise FileError(f"{package} is not installed as a package; pip install it") from error
    return found
