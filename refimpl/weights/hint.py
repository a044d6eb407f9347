"""Which configuration a set of weights was made for, told from their names and shapes."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from refimpl.config import PRESETS, MobileInstConfig
from refimpl.errors import ConfigurationError
from refimpl.forward import parameter_shapes
from refimpl.ops.operation import Array
from refimpl.weights.check import Shapes, with_folded

LEAST_SHARE = 0.5
"""Of the names of both, what must be common for a preset to be worth naming."""
NARROW: dict[str, Any] = {"dim": 32, "num_queries": 4, "num_classes": 2, "kernel_dim": 32}
"""What changes no name and no shape of a backbone, but makes it quick to ask for them."""

READ = {
    "instance_decoder.queries": ("num_queries", 0, 1),
    "instance_decoder.global_proj.bias": ("dim", 0, 1),
    "instance_decoder.class_head.bias": ("num_classes", 0, 1),
    "decoder.inst_branch.cls_score.bias": ("num_classes", 0, 1),
    "decoder.inst_branch.mask_kernel.bias": ("kernel_dim", 0, 1),
    "decoder.inst_branch.iam_conv.bias": ("num_queries", 0, 4),
    "decoder.mask_branch.projection.weight": ("dim", 1, 1),
}
"""Weight → the field that its shape shows: name, axis, and how many times it is counted there."""


def likely_configuration(weights: Mapping[str, Array], config: MobileInstConfig) -> str:
    """Say which preset the weights are nearer to than to ``config``, with the fields their shapes show.

    Returns
    -------
    str
        Words with the options of the command line; empty if no preset fits better.
    """
    likely = _likely(weights)
    if likely is None:
        return "no preset has such weights; are the names those of docs/weights.md?"
    before, after = (_problems(weights, parameter_shapes(each)) for each in (config, likely.config))
    if after >= before:
        return ""
    return f"they are those of {likely.words}" if not after else f"nearer is {likely.words}, {after} problems"


@dataclass(frozen=True)
class Likely:
    """A configuration that weights betray, and the command line's words for it."""

    config: MobileInstConfig
    words: str


def recognised_configuration(weights: Mapping[str, Array]) -> Likely | None:
    """Return the configuration that the weights fit in every name and shape; None if there is none."""
    likely = _likely(weights)
    fits = likely is not None and not _problems(weights, parameter_shapes(likely.config))
    return likely if fits else None


def _likely(weights: Mapping[str, Array]) -> Likely | None:
    """Return the nearest preset, with the fields that the shapes show."""
    shares = {name: _share(weights, shapes) for name, shapes in _presets().items()}
    name = max(shares, key=lambda each: shares[each])
    if shares[name] < LEAST_SHARE:
        return None
    preset = MobileInstConfig.preset(name)
    read = {field: value for field, value in _read(weights).items() if value != getattr(preset, field)}
    words = " ".join([f"--model {name}", *(f"--set {field}={value}" for field, value in read.items())])
    try:
        return Likely(MobileInstConfig.preset(name, **read), words)
    except ConfigurationError:
        return Likely(preset, words)


@functools.cache
def _presets() -> dict[str, Shapes]:
    """Return preset → shapes, of presets with the same shapes the first."""
    found: dict[str, Shapes] = {}
    for name in PRESETS:
        shapes = parameter_shapes(MobileInstConfig.preset(name, **NARROW))
        if shapes not in found.values():
            found[name] = shapes
    return found


def _share(weights: Mapping[str, Array], shapes: Shapes) -> float:
    """Return how many of all names are common, and of a backbone's also the shapes."""
    expected = with_folded(weights, shapes)
    common = sum(
        name in weights and (weights[name].shape == shape or not name.startswith("backbone."))
        for name, shape in expected.items()
    )
    return common / len(expected.keys() | weights.keys())


def _read(weights: Mapping[str, Array]) -> dict[str, int]:
    """Return the fields that the shapes show."""
    return {
        field: weights[name].shape[axis] // times
        for name, (field, axis, times) in READ.items()
        if name in weights and weights[name].ndim > axis
    }


def _problems(weights: Mapping[str, Array], shapes: Shapes) -> int:
    expected = with_folded(weights, shapes)
    names = expected.keys() | weights.keys()
    return sum(
        name not in weights or name not in expected or weights[name].shape != expected[name] for name in names
    )
