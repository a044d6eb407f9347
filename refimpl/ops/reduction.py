"""Reductions, index selections and cumulative sums along axes, each as ONNX defines it.

``axes`` is an operand (None: all axes, unless ``noop_with_empty_axes``), as in opset 18 and later.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from refimpl.ops.operation import Array, Trait, operation


def _axes(axes: ArrayLike | None, noop_with_empty_axes: int) -> tuple[int, ...] | None:
    """Return the axes as NumPy wants them: None for all, () for none."""
    listed = (
        () if axes is None else tuple(int(axis) for axis in np.atleast_1d(np.asarray(axes, dtype=np.int64)))
    )
    return listed if listed or noop_with_empty_axes else None


def _reduced(
    function: np.ufunc, data: Array, axes: ArrayLike | None, keepdims: int, noop: int, **options: Any
) -> Array:
    result = function.reduce(data, axis=_axes(axes, noop), keepdims=bool(keepdims), **options)
    return np.asarray(result).astype(data.dtype, copy=False)


@operation("ReduceSum", Trait.SUMS)
def reduce_sum(
    data: Array, axes: ArrayLike | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Array:
    """Return the sum over ``axes``. ONNX ReduceSum."""
    return _reduced(np.add, data, axes, keepdims, noop_with_empty_axes, dtype=data.dtype)


@operation("ReduceProd", Trait.ROUNDS)
def reduce_prod(
    data: Array, axes: ArrayLike | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Array:
    """Return the product over ``axes``. ONNX ReduceProd."""
    return _reduced(np.multiply, data, axes, keepdims, noop_with_empty_axes, dtype=data.dtype)


@operation("ReduceMean", Trait.SUMS)
def reduce_mean(
    data: Array, axes: ArrayLike | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Array:
    """Return the mean over ``axes``. ONNX ReduceMean."""
    mean = np.mean(data, axis=_axes(axes, noop_with_empty_axes), keepdims=bool(keepdims))
    return np.asarray(mean).astype(data.dtype, copy=False)


def _least(dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "b":
        return False
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


def _greatest(dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "b":
        return True
    return np.inf if dtype.kind == "f" else np.iinfo(dtype).max


@operation("ReduceMax", Trait.SELECTS)
def reduce_max(
    data: Array, axes: ArrayLike | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Array:
    """Return the maximum over ``axes``; of nothing, the dtype's least value. ONNX ReduceMax."""
    return _reduced(np.maximum, data, axes, keepdims, noop_with_empty_axes, initial=_least(data.dtype))


@operation("ReduceMin", Trait.SELECTS)
def reduce_min(
    data: Array, axes: ArrayLike | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Array:
    """Return the minimum over ``axes``; of nothing, the dtype's greatest value. ONNX ReduceMin."""
    return _reduced(np.minimum, data, axes, keepdims, noop_with_empty_axes, initial=_greatest(data.dtype))


@operation("ReduceL1", Trait.ROUNDS)
def reduce_l1(
    data: Array, axes: ArrayLike | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Array:
    """Return ``Σ |x|`` over ``axes``. ONNX ReduceL1."""
    return _reduced(np.add, np.abs(data), axes, keepdims, noop_with_empty_axes, dtype=data.dtype)


@operation("ReduceL2", Trait.ROUNDS)
def reduce_l2(
    data: Array, axes: ArrayLike | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Array:
    """Return ``√Σ x²`` over ``axes``. ONNX ReduceL2."""
    squares = _reduced(np.add, np.square(data), axes, keepdims, noop_with_empty_axes, dtype=data.dtype)
    return np.asarray(np.sqrt(squares)).astype(data.dtype, copy=False)


@operation("ReduceSumSquare", Trait.ROUNDS)
def reduce_sum_square(
    data: Array, axes: ArrayLike | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Array:
    """Return ``Σ x²`` over ``axes``. ONNX ReduceSumSquare."""
    return _reduced(np.add, np.square(data), axes, keepdims, noop_with_empty_axes, dtype=data.dtype)


@operation("ReduceLogSum", Trait.ROUNDS)
def reduce_log_sum(
    data: Array, axes: ArrayLike | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Array:
    """Return ``log Σ x`` over ``axes``. ONNX ReduceLogSum."""
    total = _reduced(np.add, data, axes, keepdims, noop_with_empty_axes, dtype=data.dtype)
    return np.asarray(np.log(total)).astype(data.dtype, copy=False)


@operation("ReduceLogSumExp", Trait.ROUNDS)
def reduce_log_sum_exp(
    data: Array, axes: ArrayLike | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Array:
    """Return ``log Σ exp(x)`` over ``axes``, without overflow; of nothing, −∞. ONNX ReduceLogSumExp."""
    over = _axes(axes, noop_with_empty_axes)
    peak = np.max(data, axis=over, keepdims=True, initial=_least(data.dtype))
    # Infinities stay out of the difference, where they would make NaN of what is an infinite sum.
    peak = np.where(np.isfinite(peak), peak, 0).astype(data.dtype)
    total = np.sum(np.exp(data - peak), axis=over, keepdims=True)
    result = np.asarray(np.log(total) + peak).astype(data.dtype, copy=False)
    return result if keepdims else np.squeeze(result, over)


# --- selections -----------------------------------------------------------------------------------


def _first_or_last(select: Any, data: Array, axis: int, keepdims: int, select_last_index: int) -> Array:
    if not select_last_index:
        return np.asarray(select(data, axis=axis, keepdims=bool(keepdims)), dtype=np.int64)
    from_end = select(np.flip(data, axis), axis=axis, keepdims=bool(keepdims))
    return np.asarray(data.shape[axis] - 1 - from_end, dtype=np.int64)


@operation("ArgMax", Trait.EXACT)
def arg_max(data: Array, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Array:
    """Return the index (int64) of the maximum along ``axis``, first or last of equals. ONNX ArgMax."""
    return _first_or_last(np.argmax, data, axis, keepdims, select_last_index)


@operation("ArgMin", Trait.EXACT)
def arg_min(data: Array, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Array:
    """Return the index (int64) of the minimum along ``axis``, first or last of equals. ONNX ArgMin."""
    return _first_or_last(np.argmin, data, axis, keepdims, select_last_index)


@operation("TopK", Trait.EXACT)
def top_k(
    x: Array, k: ArrayLike, *, axis: int = -1, largest: int = 1, sorted: int = 1
) -> tuple[Array, Array]:
    """Return the ``k`` largest (or smallest) values along ``axis`` and their indices (int64). ONNX TopK.

    Of equal values the one of lower index comes first; the result is in order, whatever ``sorted`` says.
    """
    count = int(np.asarray(k).reshape(-1)[0])
    if largest:
        # A stable ascending order of the flipped array, read backwards: descending, lower index first.
        ascending = np.argsort(np.flip(x, axis), axis=axis, kind="stable")
        order = x.shape[axis] - 1 - np.flip(ascending, axis)
    else:
        order = np.argsort(x, axis=axis, kind="stable")
    indices = np.take(order, np.arange(count), axis=axis).astype(np.int64)
    return np.take_along_axis(x, indices, axis), indices


@operation("CumProd", Trait.ROUNDS)
def cum_prod(x: Array, axis: ArrayLike, *, exclusive: int = 0, reverse: int = 0) -> Array:
    """Return the running products along ``axis``, as `cum_sum` has the sums. ONNX CumProd."""
    return _running(np.multiply, x, axis, exclusive, reverse, 1)


@operation("CumSum", Trait.ROUNDS)
def cum_sum(x: Array, axis: ArrayLike, *, exclusive: int = 0, reverse: int = 0) -> Array:
    """Return the running sums along ``axis``. ONNX CumSum.

    They run from the end if ``reverse``, and leave out the own element if ``exclusive``.
    """
    return _running(np.add, x, axis, exclusive, reverse, 0)


def _running(
    function: np.ufunc, x: Array, axis: ArrayLike, exclusive: int, reverse: int, nothing: int
) -> Array:
    along = int(np.asarray(axis).reshape(-1)[0])
    data = np.flip(x, along) if reverse else x
    results = np.asarray(function.accumulate(data, axis=along, dtype=x.dtype))
    if exclusive:
        results = np.roll(results, 1, axis=along)
        np.moveaxis(results, along, 0)[:1] = nothing
    return np.flip(results, along) if reverse else results
