"""Where a run starts: from nothing, or from weights, of which another instance decoder takes only a part.

Weights remember the runs they came from, their stages, so that what is shipped can say how it came about.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from golden.learning.network import Student
from refimpl import MobileInstConfig
from refimpl.errors import FileError, WeightsError
from refimpl.trained import is_trained, trained_sets
from refimpl.weights import Weights, read_arrays

Array = NDArray[Any]
DECODER = "instance_decoder."
CHECKPOINT = "checkpoint.pt"
WEIGHTS = "weights.safetensors"
"""What a finished run leaves in its folder: float16, widened to float32."""


class Start(NamedTuple):
    """Weights by name, and the stages they came from, the first one first."""

    weights: dict[str, Array]
    stages: list[dict[str, Any]]


def find_start(source: str) -> Start:
    """Return what a run starts from: a trained set by its name, a finished run's folder, or a weights file.

    Of a file nobody knows the stages.

    Raises
    ------
    FileError
        The run is not finished, or a file cannot be read.
    """
    if is_trained(source):
        return Start(dict(Weights.trained(source)), shipped_stages(trained_sets()[source]["training"]))
    folder = Path(source)
    if not folder.is_dir():
        return Start(dict(read_arrays(source)), [])
    if not (folder / WEIGHTS).exists():
        raise FileError(f"{folder} holds no finished run, whose {WEIGHTS} could be started from; finish it")
    return Start(dict(read_arrays(folder / WEIGHTS)), stages_of(read_checkpoint(folder / CHECKPOINT)))


def shipped_stages(training: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the stages of a shipped set from its entry in the manifest, itself the last."""
    last = {name: value for name, value in training.items() if name not in ("stages", "versions")}
    return [*training.get("stages", []), last]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a run's checkpoint.

    Raises
    ------
    FileError
        It is damaged, or not there.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many unrelated types on damaged files
        raise FileError(f"{path} is damaged; delete it to start anew") from error
    return state


def stages_of(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the stages of a run from its checkpoint, itself the last."""
    settings = {name: value for name, value in state["settings"].items() if name != "config"}
    done = {"steps": state["step"], "minutes": round(state["seconds"] / 60, 1)}
    return [*state.get("stages", []), {**settings, **done}]


def digest(weights: Mapping[str, Array]) -> str:
    """Return one SHA-256 over names and numbers."""
    total = sha256()
    for name in sorted(weights):
        total.update(name.encode() + np.ascontiguousarray(weights[name]).tobytes())
    return total.hexdigest()


def starting_weights(given: Mapping[str, Array], config: MobileInstConfig, seed: int) -> dict[str, Array]:
    """Return weights for a network from another's.

    If the instance decoders differ, the whole decoder begins anew from the seed.

    Raises
    ------
    WeightsError
        Backbone or mask decoder differ.
    """
    torch.manual_seed(seed)
    state = Student(config).network.state_dict()
    fresh = {name: tensor.numpy() for name, tensor in state.items() if tensor.is_floating_point()}
    differing = [name for name in fresh.keys() | given.keys() if _shape(fresh, name) != _shape(given, name)]
    elsewhere = sorted(name for name in differing if not name.startswith(DECODER))
    if elsewhere:
        raise WeightsError(
            f"the weights to start from are of another network: {', '.join(elsewhere[:5])} differ; give the "
            "same --model and --set"
        )
    kept = {name for name in fresh if not (differing and name.startswith(DECODER))}
    return {name: np.asarray(given[name] if name in kept else fresh[name], np.float32) for name in fresh}


def _shape(arrays: Mapping[str, Array], name: str) -> tuple[int, ...] | None:
    return arrays[name].shape if name in arrays else None
