"""Which configuration a set of weights was made for, told from their names and shapes."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from refimpl.config import PRESETS, MobileInstConfig
from refimpl.errors import ConfigurationError
from refimpl.forward import parameter_shapes
from refimpl.ops.operation import Array
from refimpl.weights.check import Shapes, with_folded

LEAST_SHARE = 0.5
"""Of the names of both, what must be common for a preset to be worth naming."""
NARROW: dict[str, Any] = {"dim": 32, "num_queries": 4, "num_classes": 2, "kernel_dim": 8}
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
    name, share = max(
        ((name, _share(weights, shapes)) for name, shapes in _presets().items()), key=lambda pair: pair[1]
    )
    if share < LEAST_SHARE:
        return "no preset has such weights; are the names those of docs/weights.md?"
    preset = MobileInstConfig.preset(name)
    read = {field: value for field, value in _read(weights).items() if value != getattr(preset, field)}
    try:
        likely = MobileInstConfig.preset(name, **read)
    except ConfigurationError:
        return ""
    before, after = (_problems(weights, parameter_shapes(each)) for each in (config, likely))
    if after >= before:
        return ""
    words = " ".join([f"--model {name}", *(f"--set {field}={value}" for field, value in read.items())])
    return f"they are those of {words}" if not after else f"nearer is {words}, {after} problems"


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
