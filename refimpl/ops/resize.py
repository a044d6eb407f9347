"""Resizing by interpolation, one axis after another."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from refimpl.errors import ConfigurationError, ShapeError
from refimpl.ops.operation import Array, Trait, operation

LONGEST_MATRIX = 128
"""Longest axis that is interpolated by a product with a matrix, whose cost grows with the length."""


class _Axis(NamedTuple):
    """How one axis is resized: element i of the new stands at ``i * numerator / denominator`` in the old."""

    axis: int
    size: int
    new_size: int
    numerator: float
    denominator: float
    region: tuple[float, float]

    @property
    def length(self) -> float:
        """New size before it was cut to a whole number."""
        return self.size * self.denominator / self.numerator

    def is_identity(self) -> bool:
        """Tell whether every element stays where it is."""
        return self.size == self.new_size and self.numerator == self.denominator and self.region == (0.0, 1.0)


@operation("Resize", Trait.ROUNDS | Trait.MAPS)
def resize(
    x: Array,
    roi: Any = None,
    scales: Any = None,
    sizes: Any = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Array:
    """Resize the ``axes`` of ``x`` (default: all) to ``sizes``, or by ``scales``.

    Source coordinates and interpolation weights are computed in float64 whatever the dtype of ``x``. With
    ``scales`` the new size is ⌊size · scale⌋ in float32, and coordinates follow the scale, not the sizes.

    Parameters
    ----------
    x : array of any rank
    roi : (2 * axes,) numbers, optional
        Starts, then ends of the region that ``tf_crop_and_resize`` maps to the output, in units of the input.
    scales, sizes : one number per axis
        Exactly one of the two; an empty array counts as absent.
    antialias, axes, coordinate_transformation_mode, ..., nearest_mode
        As in ONNX.

    Returns
    -------
    array, the dtype of ``x``

    Raises
    ------
    ShapeError
        If not exactly one of scales and sizes is given, or their number does not fit the axes.
    ConfigurationError
        If a mode is unknown.
    Notes
    -----
    ONNX operator Resize.
    """
    if mode not in ("nearest", "linear", "cubic"):
        raise ConfigurationError(f"mode is {mode!r}; expected nearest, linear or cubic")
    result, outside = x, np.zeros((1,) * x.ndim, dtype=bool)
    for axis in _axes(x.shape, roi, scales, sizes, axes, keep_aspect_ratio_policy):
        if axis.is_identity():
            continue
        coordinate = _source_coordinate(axis, coordinate_transformation_mode)
        if mode == "nearest":
            result = np.take(result, _nearest(coordinate, axis.size, nearest_mode), axis=axis.axis)
        else:
            stretch = max(axis.numerator / axis.denominator, 1.0) if antialias else 1.0
            index, weight = _neighbours(coordinate, mode, cubic_coeff_a, stretch)
            if exclude_outside:
                weight = _without_outside(index, weight, axis.size)
            result = _interpolate(result, axis.axis, index.clip(0, axis.size - 1), weight)
        if coordinate_transformation_mode == "tf_crop_and_resize":
            beyond = (coordinate < 0) | (coordinate > axis.size - 1)
            outside = outside | beyond.reshape(-1, *(1,) * (x.ndim - 1 - axis.axis))
    if outside.any():
        result = np.where(outside, np.asarray(extrapolation_value, result.dtype), result)
    return _cast(result, x.dtype)


def _cast(result: Array, dtype: np.dtype) -> Array:
    """Return ``result`` as ``dtype``; whole numbers are rounded and saturate."""
    if np.issubdtype(dtype, np.integer) and result.dtype != dtype:
        limits = np.iinfo(dtype)
        result = np.rint(result).clip(limits.min, limits.max)
    return result.astype(dtype, copy=False)


def _axes(
    shape: tuple[int, ...], roi: Any, scales: Any, sizes: Any, axes: Sequence[int] | None, policy: str
) -> list[_Axis]:
    """Settle the new size and the scale of every resized axis."""
    rank = len(shape)
    named = [int(a) for a in (range(rank) if axes is None else axes)]
    if any(not -rank <= a < rank for a in named):
        raise ShapeError(f"axes is {named}; expected axes of an array of shape {shape}")
    chosen = [a % rank for a in named]
    old = [shape[a] for a in chosen]
    by_scale, by_size = _given("scales", scales, len(chosen)), _given("sizes", sizes, len(chosen))
    if (by_scale is None) == (by_size is None):
        raise ShapeError(f"Resize takes either scales or sizes; got scales={scales!r} and sizes={sizes!r}")
    regions = _regions(roi, len(chosen))
    if by_scale is not None:
        # ONNX Runtime takes the product that decides the size in float32; onnx.reference in float64.
        new = [int(np.floor(np.float32(n) * np.float32(s))) for n, s in zip(old, by_scale, strict=True)]
        steps = [(1.0, float(s)) for s in by_scale]
    else:
        new, steps = _fitted(old, [int(n) for n in by_size or ()], policy)
    if min(new, default=1) < 1:
        raise ShapeError(f"scales {by_scale} leave nothing of the sizes {old} along axes {chosen}")
    return [
        _Axis(a, n, m, *step, region)
        for a, n, m, step, region in zip(chosen, old, new, steps, regions, strict=True)
    ]


def _given(name: str, values: Any, count: int) -> list[float] | None:
    """Return ``values`` as ``count`` positive numbers, or None if they are absent."""
    numbers = [] if values is None else np.asarray(values).reshape(-1).tolist()
    if not numbers:
        return None
    if len(numbers) != count or min(numbers) <= 0:
        raise ShapeError(f"{name} is {numbers}; expected {count} positive numbers, one per resized axis")
    return numbers


def _regions(roi: Any, count: int) -> list[tuple[float, float]]:
    """Return start and end of the region of interest along each axis."""
    bounds = [] if roi is None else np.asarray(roi, dtype=np.float64).reshape(-1).tolist()
    if not bounds:
        return [(0.0, 1.0)] * count
    if len(bounds) != 2 * count:
        raise ShapeError(f"roi is {bounds}; expected {count} starts, then {count} ends")
    return list(zip(bounds[:count], bounds[count:], strict=True))


def _fitted(old: list[int], wanted: list[int], policy: str) -> tuple[list[int], list[tuple[float, float]]]:
    """Return the new sizes and steps under the aspect ratio policy."""
    if policy == "stretch":
        return wanted, [(float(n), float(m)) for n, m in zip(old, wanted, strict=True)]
    if policy not in ("not_larger", "not_smaller"):
        raise ConfigurationError(
            f"keep_aspect_ratio_policy is {policy!r}; expected stretch, not_larger or not_smaller"
        )
    choose = min if policy == "not_larger" else max
    size, new_size = choose(zip(old, wanted, strict=True), key=lambda pair: pair[1] / pair[0])
    new = [int(n * new_size / size + 0.5) for n in old]
    return new, [(float(size), float(new_size))] * len(old)


def _source_coordinate(axis: _Axis, mode: str) -> Array:
    """Return where each element of the new axis stands on the old one, float64."""
    index = np.arange(axis.new_size, dtype=np.float64)
    start, end = axis.region
    last = axis.size - 1
    step = axis.numerator, axis.denominator
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and axis.length > 1):
        return (index + 0.5) * step[0] / step[1] - 0.5
    if mode == "pytorch_half_pixel":
        return 0.0 * index
    if mode == "half_pixel_symmetric":
        centred = axis.size / 2 * (1 - axis.new_size / axis.length)
        return centred + (index + 0.5) * step[0] / step[1] - 0.5
    if mode == "asymmetric":
        return index * step[0] / step[1]
    if mode == "tf_half_pixel_for_nn":
        return (index + 0.5) * step[0] / step[1]
    if mode == "align_corners":
        return index * last / (axis.length - 1) if axis.length != 1 else 0.0 * index
    if mode == "tf_crop_and_resize":
        if axis.length == 1:
            return 0.5 * (start + end) * last + 0.0 * index
        return start * last + index * (end - start) * last / (axis.length - 1)
    raise ConfigurationError(f"coordinate_transformation_mode {mode!r} is unknown to ONNX")


def _nearest(coordinate: Array, size: int, nearest_mode: str) -> Array:
    """Return the index of the element nearest to each coordinate."""
    rounding: dict[str, Callable[[Array], Array]] = {
        "round_prefer_floor": lambda c: np.ceil(c - 0.5),
        "round_prefer_ceil": lambda c: np.floor(c + 0.5),
        "floor": np.floor,
        "ceil": np.ceil,
    }
    if nearest_mode not in rounding:
        raise ConfigurationError(f"nearest_mode is {nearest_mode!r}; expected one of {', '.join(rounding)}")
    return rounding[nearest_mode](coordinate).astype(np.intp).clip(0, size - 1)


def _neighbours(coordinate: Array, mode: str, a: float, stretch: float) -> tuple[Array, Array]:
    """Return the (new_size, taps) indices around each coordinate, maybe outside, and their weights.

    Where an axis shrinks, ``stretch`` makes the kernel as many times wider: no element is passed over.
    """
    if stretch > 1:
        return _stretched_neighbours(coordinate, mode, a, stretch)
    below = np.floor(coordinate)
    t = (coordinate - below)[:, None]
    if mode == "linear":
        offset, weight = np.arange(2), np.concatenate([1 - t, t], axis=1)
    else:
        offset, weight = np.arange(-1, 3), _cubic(np.abs(t - np.arange(-1, 3)), a)
    return below.astype(np.intp)[:, None] + offset, weight


def _stretched_neighbours(coordinate: Array, mode: str, a: float, stretch: float) -> tuple[Array, Array]:
    reach = math.ceil(stretch * (1 if mode == "linear" else 2))
    # The element at the coordinate itself counts as the one after it.
    index = np.ceil(coordinate)[:, None] - 1 + np.arange(1 - reach, reach + 1)
    distance = np.abs(index - coordinate[:, None]) / stretch
    near = np.maximum(1 - distance, 0) if mode == "linear" else np.where(distance < 2, _cubic(distance, a), 0)
    return index.astype(np.intp), near / near.sum(axis=1, keepdims=True)


def _cubic(distance: Array, a: float) -> Array:
    """Keys' cubic convolution kernel at ``distance`` in [0, 2]."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return np.where(distance <= 1, near, far)


def _without_outside(index: Array, weight: Array, size: int) -> Array:
    """Return the weights with those outside set to zero, and the others scaled to sum to one."""
    inside = np.where((index >= 0) & (index < size), weight, 0.0)
    total = inside.sum(axis=1, keepdims=True)
    return inside / np.where(total == 0, 1.0, total)


def _interpolate(x: Array, axis: int, index: Array, weight: Array) -> Array:
    """Return the weighted sum of the elements at each row of ``index`` along ``axis``."""
    accumulator = np.dtype(np.float32) if x.dtype == np.float16 else x.dtype
    wide = x.astype(accumulator if accumulator.kind == "f" else np.float64, copy=False)
    if x.shape[axis] <= LONGEST_MATRIX:
        # A zero weight times infinity is NaN, which belongs to no distant element: the matrix cannot serve.
        with np.errstate(invalid="ignore"):
            result = _multiply(wide, axis, index, weight)
        if np.isfinite(result).all():
            return result
    return _blend(wide, axis, index, weight)


def _multiply(x: Array, axis: int, index: Array, weight: Array) -> Array:
    """Interpolate by a product with the matrix of the weights: on short axes BLAS outruns gathering."""
    matrix = np.zeros((len(index), x.shape[axis]))
    np.add.at(matrix, (np.arange(len(index))[:, None], index), weight)
    matrix = matrix.astype(x.dtype)
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    if not after:
        return (x.reshape(-1, x.shape[axis]) @ matrix.T).reshape(*before, len(index))
    flat = x.reshape(math.prod(before), x.shape[axis], math.prod(after))
    return np.matmul(matrix, flat).reshape(*before, len(index), *after)


def _blend(x: Array, axis: int, index: Array, weight: Array) -> Array:
    """Interpolate by gathering each neighbour and adding its share."""
    shares = weight.astype(x.dtype).T.reshape(index.shape[1], -1, *(1,) * (x.ndim - 1 - axis))
    result = np.take(x, index[:, 0], axis=axis) * shares[0]
    for tap in range(1, index.shape[1]):
        result += np.take(x, index[:, tap], axis=axis) * shares[tap]
    return result
