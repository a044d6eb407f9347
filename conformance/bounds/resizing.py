"""Resizing: products with the weights, and source coordinates that are computed in floating point."""

from __future__ import annotations

import math

import numpy as np
import scipy  # its parts are loaded at their first use

from conformance.bounds.formats import FLOAT32
from conformance.bounds.step import Bound, Step, is_float, rule
from refimpl.ops import OPERATIONS
from refimpl.ops.operation import Array

ROUNDINGS_OF_A_COORDINATE = 4
"""The scale, its product with or quotient of the index, a second one, and the shift by half a pixel."""


@rule("Resize")
def resize(step: Step) -> Bound:
    """γ of the weights' products · |x| + error of the source coordinate · local difference of x.

    Coordinates err by 4·u·(coordinate + 3/2), in float32 at best; by nothing where the scale is a power of
    two and the mode makes every coordinate a dyadic number. None: of integers but the nearest, with a kept
    aspect ratio, or regions.
    """
    mode = step.attributes.get("mode", "nearest")
    kept = step.attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch"
    region = step.attributes.get("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    if kept or region or (mode != "nearest" and not is_float(step.y)):
        return None
    x = step.required(0)
    inexact = _inexact_axes(step, x)
    if mode == "nearest":
        return _nearest(step, x, inexact)
    if step.attributes.get("antialias", 0):
        return _antialiased(step, x)
    return _linear(step, x, inexact) if mode == "linear" else _cubic(step, x, inexact)


def _coordinate_roundoff(step: Step) -> float:
    # Coordinates are never computed in half precision where that is only the storage or the products' format.
    return ROUNDINGS_OF_A_COORDINATE * FLOAT32.unit_roundoff


def _inexact_axes(step: Step, x: Array) -> list[int]:
    """Return the resized axes whose source coordinates have to be rounded."""
    scales = _scales(step, x)
    half = step.attributes.get("coordinate_transformation_mode", "half_pixel")
    dyadic = half in ("half_pixel", "pytorch_half_pixel", "asymmetric", "tf_half_pixel_for_nn")
    return [a for a, s in scales.items() if not (s == 1.0 or (dyadic and math.frexp(s)[0] == 0.5))]


def _scales(step: Step, x: Array) -> dict[int, float]:
    """Axis → new over old length, or the scale given."""
    axes = step.attributes.get("axes")
    axes = [a % x.ndim for a in axes] if axes is not None else list(range(x.ndim))
    given = step.operand(2)
    if given is not None and given.size:
        return dict(zip(axes, map(float, given.reshape(-1)), strict=True))
    return {a: step.y.shape[a] / x.shape[a] for a in axes}


def _ramp(x: Array, axis: int) -> Array:
    return np.arange(x.shape[axis], dtype=np.float64).reshape(-1, *(1,) * (x.ndim - 1 - axis))


def _steepest(x: Array, axis: int) -> Array:
    """Return the larger difference to the two neighbours along an axis."""
    differences = np.abs(np.diff(x, axis=axis))
    none = np.zeros_like(np.take(x, [0], axis=axis))
    return np.maximum(
        np.concatenate([none, differences], axis=axis), np.concatenate([differences, none], axis=axis)
    )


def _linear(step: Step, x: Array, inexact: list[int]) -> Array:
    """Interpolate the bound itself: the weights are positive, and `_steepest` at both ends suffices.

    Where a + w·(b − a) is computed, or the same on two axes at once, differences of neighbours are rounded:
    two of each axis, by at most 2·u of the largest of them.
    """
    axes = [axis for axis, s in _scales(step, x).items() if s != 1.0]
    resized = len(axes)
    bound = step.gamma(2 ** max(resized, 1) + 3 * resized) * np.abs(x) + 4**resized * step.floor
    if axes:
        size = [3 if axis in axes else 1 for axis in range(x.ndim)]
        bound = bound + step.gamma(4 * resized) * scipy.ndimage.maximum_filter(
            np.abs(x), size=size, mode="nearest"
        )
    for axis in inexact:
        bound = bound + _coordinate_roundoff(step) * (_ramp(x, axis) + 1.5) * _steepest(x, axis)
    return np.asarray(step.run(bound, *step.inputs[1:]))


def _antialiased(step: Step, x: Array) -> Array:
    """As linear, from the largest element within the stretched kernel's reach.

    If a kernel that is s times wider, and as much flatter, moves by an element, its weights change by 4 / s
    together, each of which multiplies at most the range of the elements within reach.
    """
    cubic = step.attributes["mode"] == "cubic"
    scales = {axis: s for axis, s in _scales(step, x).items() if s != 1.0}
    stretches = {axis: max(1 / s, 1.0) for axis, s in scales.items()}
    taps = {axis: 2 * math.ceil(s * (2 if cubic else 1)) for axis, s in stretches.items()}
    reach = [taps.get(axis, 0) + 3 for axis in range(x.ndim)]
    near = {"size": reach, "mode": "nearest"}
    # Keys' weights, of both signs, add up to less than 2 in size, also normalised.
    gain = 2.0 ** (len(scales) * cubic)
    bound = (
        gain
        * step.gamma(sum(taps.values()) + 16 * len(scales))
        * scipy.ndimage.maximum_filter(np.abs(x), **near)
    )
    spread = scipy.ndimage.maximum_filter(x, **near) - scipy.ndimage.minimum_filter(x, **near)
    for axis, stretch in stretches.items():
        moved = _coordinate_roundoff(step) * (_ramp(x, axis) + 1.5 + reach[axis])
        bound = bound + gain * moved * 4 / stretch * spread
    return np.asarray(step.run(bound + 4 * step.floor, *step.inputs[1:], mode="linear"))


def _cubic(step: Step, x: Array, inexact: list[int]) -> Bound:
    """As linear, from the largest element within reach: the sizes of Keys' weights add up to 1 + |a|/2."""
    if step.attributes.get("exclude_outside", 0):
        return None
    a = abs(step.attributes.get("cubic_coeff_a", -0.75))
    axes = [axis for axis, s in _scales(step, x).items() if s != 1.0]
    gain = (1 + a / 2) ** len(axes)
    reach = [5 if axis in axes else 1 for axis in range(x.ndim)]
    largest = scipy.ndimage.maximum_filter(np.abs(x), size=reach, mode="nearest")
    relative = step.gamma(4 ** max(len(axes), 1) + 12 * len(axes)) * np.ones(())
    for axis in inexact:
        # The slopes of the four weights add up to less than 4 · (1 + |a|).
        relative = relative + _coordinate_roundoff(step) * (_ramp(x, axis) + 2.5) * 4 * (1 + a)
    bound = gain * largest * relative + 4 ** len(axes) * step.floor
    return np.asarray(step.run(bound, *step.inputs[1:], mode="linear"))


def _nearest(step: Step, x: Array, inexact: list[int]) -> Bound:
    """0, but where a coordinate is within its error of a tie: there the range of the neighbours."""
    undecided = np.zeros((1,) * x.ndim, dtype=bool)
    for axis in inexact:
        undecided = undecided | _near_a_tie(step, x, axis)
    if not undecided.any():
        return 0.0
    reach = [3 if axis in inexact else 1 for axis in range(x.ndim)]
    wide = x.astype(np.float64)
    spread = scipy.ndimage.maximum_filter(wide, size=reach, mode="nearest") - scipy.ndimage.minimum_filter(
        wide, size=reach, mode="nearest"
    )
    return np.where(undecided, step.run(spread, *step.inputs[1:]), 0.0)


def _near_a_tie(step: Step, x: Array, axis: int) -> Array:
    """Tell where along an axis the source coordinate's error could carry it to another element."""
    given = step.operand(2)
    by_scale = given is not None and bool(given.size)
    length = {"scales": [_scales(step, x)[axis]]} if by_scale else {"sizes": [step.y.shape[axis]]}
    mode = step.attributes.get("coordinate_transformation_mode", "half_pixel")
    coordinate = OPERATIONS["Resize"](
        np.arange(x.shape[axis], dtype=np.float64),
        **length,
        mode="linear",
        coordinate_transformation_mode=mode,
    )
    rounds = step.attributes.get("nearest_mode", "round_prefer_floor").startswith("round")
    beyond_tie = np.abs(coordinate - np.rint(coordinate)) if not rounds else np.abs(coordinate % 1 - 0.5)
    near = beyond_tie <= _coordinate_roundoff(step) * (coordinate + 1.5)
    return near.reshape(-1, *(1,) * (x.ndim - 1 - axis))
