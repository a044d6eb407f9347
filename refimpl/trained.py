"""Weights that have learned something: which there are, where they lie, and that nobody has altered them.

They come with the package ``golden``, which is looked up without being imported. Each set is one float16 file
for the backbone and one for the decoders; widened to float32, the rounded numbers are the weights.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from refimpl.config import MobileInstConfig
from refimpl.errors import ConfigurationError, FileError

MANIFEST = "manifest.json"
DEFAULT = "scenes-tiny"


def trained_folder() -> Path:
    """Return the folder of the trained weights.

    Raises
    ------
    FileError
        The package ``golden`` is not installed, or came without them.
    """
    found = importlib.util.find_spec("golden")
    places = list(found.submodule_search_locations or ()) if found else []
    for place in places:
        folder = Path(place) / "data" / "trained"
        if (folder / MANIFEST).is_file():
            return folder
    raise FileError(
        "the trained weights are not installed: they come with the package golden, as "
        "golden/data/trained; install the whole project, or give weights of your own"
    )


@lru_cache(maxsize=1)
def trained_sets() -> Mapping[str, Mapping[str, Any]]:
    """Return what the manifest says of each set, by name."""
    path = trained_folder() / MANIFEST
    try:
        sets = json.loads(path.read_bytes())["sets"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"{path} is damaged: {error}; install the project again") from error
    return dict(sets)


def is_trained(name: object) -> bool:
    """Whether a set has that name; False where no trained weights are installed."""
    try:
        return str(name) in trained_sets()
    except FileError:
        return False


def trained_config(name: str) -> MobileInstConfig:
    """Return the configuration of a set.

    Raises
    ------
    ConfigurationError
        No set has that name.
    FileError
        No trained weights are installed.
    """
    return MobileInstConfig(**_entry(name)["config"])


def trained_files(name: str) -> list[Path]:
    """Return the files of a set, each with the SHA-256 that the manifest names.

    Raises
    ------
    ConfigurationError
        No set has that name.
    FileError
        A file is missing, or is not the one that was shipped.
    """
    folder, files = trained_folder(), []
    for file, digest in _entry(name)["sha256"].items():
        path = folder / file
        if not path.is_file():
            raise FileError(f"{path} is missing; install the project again")
        found = sha256(path.read_bytes()).hexdigest()
        if found != digest:
            raise FileError(
                f"{path} was altered: its SHA-256 is {found}, not {digest}; restore the file, or give it by "
                "its path if it is meant to differ"
            )
        files.append(path)
    return files


def _entry(name: str) -> Mapping[str, Any]:
    sets = trained_sets()
    if name not in sets:
        raise ConfigurationError(f"no trained weights are called {name!r}; there are {', '.join(sets)}")
    return sets[name]
