"""Which public function of the reference has a golden, and who confirmed it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import refimpl
from golden import DATA
from golden.store import Entry, read_manifest

MACHINERY = {
    "refimpl.checkpoint_names": "names of weights in files",
    "refimpl.config": "configurations",
    "refimpl.costs": "counts operations",
    "refimpl.errors": "errors",
    "refimpl.folding": "rewrites weights; the folded network must equal the plain one's goldens",
    "refimpl.ops.operation": "registers and intercepts operations",
    "refimpl.predictions": "checks of arguments",
    "refimpl.recording": "writes a forward pass down",
    "refimpl.scenes": "makes pictures to look at",
    "refimpl.scope": "finds weights by name",
    "refimpl.weights": "reads and writes weights",
    "refimpl.weights_check": "checks of arguments",
    "refimpl.weights_hint": "names the preset that weights fit",
}
"""Modules that compute nothing of the paper → what they do instead."""

CHECKS = ("check_", "require_")
"""Functions that only refuse bad arguments."""

NOT_NUMERIC = {
    "refimpl.model.parameter_shapes": "names and shapes of weights",
    "refimpl.resnet.resnet50": "of one width only, with weights larger than the set; its blocks have goldens",
    "refimpl.tracker.track_video": "drives a tracker over a stream",
    "refimpl.ops.elementwise.tensors": "operands as arrays",
    **{
        f"refimpl.ops.convolution.{name}": "geometry inside Conv and the poolings, which have goldens"
        for name in ("padded", "per_axis", "sliding_windows", "split_padding")
    },
}


@dataclass(frozen=True)
class Row:
    """One public function: the goldens it took part in, who confirmed them, or why it has none."""

    function: str
    goldens: tuple[str, ...]
    sources: tuple[str, ...]
    reason: str = ""


def coverage(folder: Path = DATA) -> list[Row]:
    """Return a row for every public function of the reference."""
    known = _by_function(read_manifest(folder))
    return [_row(name, known) for name in sorted(set(public_functions()))]


def public_functions() -> Iterator[str]:
    """Yield the full name of every public function, by the module that defines it."""
    for module in pkgutil.walk_packages(refimpl.__path__, "refimpl."):
        for name, value in vars(importlib.import_module(module.name)).items():
            plain = inspect.unwrap(value) if callable(value) else value
            if inspect.isfunction(plain) and plain.__module__ == module.name and not name.startswith("_"):
                yield f"{module.name}.{name}"


def _by_function(entries: tuple[Entry, ...]) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        for name in (entry.record["producer"]["function"], *entry.record["covers"]):
            found.setdefault(_defined(name), []).append(entry)
    return found


def _defined(name: str) -> str:
    """Return the name under the module that defines the function: `refimpl.ops.conv` is convolution's."""
    module, _, function = name.rpartition(".")
    value = getattr(importlib.import_module(module), function, None)
    return f"{inspect.unwrap(value).__module__}.{function}" if callable(value) else name


def _row(function: str, known: dict[str, list[Entry]]) -> Row:
    entries = known.get(function, [])
    sources = {c["source"].partition(",")[0] for entry in entries for c in entry.record["confirmed_by"]}
    module, _, name = function.rpartition(".")
    reason = "" if entries else NOT_NUMERIC.get(function, MACHINERY.get(module, ""))
    if not entries and not reason and name.startswith(CHECKS):
        reason = "refuses bad arguments"
    return Row(function, tuple(entry.name for entry in entries), tuple(sorted(sources)), reason)
