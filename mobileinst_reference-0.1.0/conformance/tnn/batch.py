"""Running a model on many inputs, and going on where a run of them stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.files import atomic_write
from conformance.tnn.graph import model_path
from conformance.tnn.runner import Runner, Settings
from conformance.tnn.text import read_bytes, read_output, write_output
from refimpl.errors import FileError

Array = NDArray[Any]


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
    files = {path.suffix: hashlib.sha256(read_bytes(path)).hexdigest() for path in (proto, model_path(proto))}
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
