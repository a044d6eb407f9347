"""Operations that move, select, repeat or make elements without arithmetic, each as ONNX defines it.

They return views where NumPy does, so no operation of the vocabulary may write into its operands. Shapes,
axes and indices are operands: arrays of integers, or Python integers and tuples. `slice_` and `arange`
(ONNX Slice and Range) are named so as not to shadow Python's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from refimpl.errors import ShapeError, UnsupportedOperationError
from refimpl.ops.operation import Array, Trait, operation

ONNX_DTYPES: dict[int, type[Any]] = {
    1: np.float32,
    2: np.uint8,
    3: np.int8,
    4: np.uint16,
    5: np.int16,
    6: np.int32,
    7: np.int64,
    9: np.bool_,
    10: np.float16,
    11: np.float64,
    12: np.uint32,
    13: np.uint64,
}
"""`onnx.TensorProto.DataType` → NumPy dtype, for the types the vocabulary handles."""


def _integers(values: ArrayLike) -> tuple[int, ...]:
    return tuple(int(value) for value in np.asarray(values).reshape(-1))


# --- making tensors -------------------------------------------------------------------------------


@operation("Constant", Trait.EXACT)
def constant(*, value: ArrayLike) -> Array:
    """Return ``value``. ONNX Constant."""
    return np.asarray(value)


@operation("ConstantOfShape", Trait.EXACT)
def constant_of_shape(shape: ArrayLike, *, value: ArrayLike | None = None) -> Array:
    """Return ``shape`` filled with the one element of ``value`` (float32 zero). ONNX ConstantOfShape."""
    element = np.zeros((), np.float32) if value is None else np.asarray(value).reshape(())
    return np.full(_integers(shape), element, dtype=element.dtype)


@operation("Range", Trait.ROUNDS)
def arange(start: ArrayLike, limit: ArrayLike, delta: ArrayLike = 1, *, stash_type: int = 1) -> Array:
    """Return ``start, start + delta, …`` below ``limit``, in the dtype of ``start``. ONNX Range.

    Of float16 it is computed in the ONNX type ``stash_type``, float32 by default.
    """
    dtype = np.asarray(start).dtype
    wide = ONNX_DTYPES[stash_type] if dtype == np.float16 else dtype
    first, last, step = (np.asarray(value).reshape(()).astype(wide) for value in (start, limit, delta))
    count = max(int(np.ceil((last - first) / step)), 0)
    return (first + np.arange(count) * step).astype(dtype)


@operation("OneHot", Trait.EXACT)
def one_hot(indices: Array, depth: ArrayLike, values: Array, *, axis: int = -1) -> Array:
    """Return ``values[1]`` at the place of each index in a new axis, else ``values[0]``. ONNX OneHot."""
    length = int(np.asarray(depth).reshape(-1)[0])
    wanted = np.asarray(indices).astype(np.int64)
    wanted = np.expand_dims(np.where(wanted < 0, wanted + length, wanted), axis)
    places = np.expand_dims(
        np.arange(length), tuple(a for a in range(wanted.ndim) if a != axis % wanted.ndim)
    )
    off, on = values
    return np.where(wanted == places, on, off).astype(values.dtype, copy=False)


@operation("EyeLike", Trait.EXACT)
def eye_like(x: Array, *, dtype: int | None = None, k: int = 0) -> Array:
    """Return ones on the ``k``-th diagonal of a matrix of the shape of ``x``, zeros elsewhere. ONNX EyeLike.

    Parameters
    ----------
    x : array of two axes
    dtype : int, optional
        An `onnx.TensorProto.DataType`; None is that of ``x``.
    k : int
        Positive above the main diagonal.
    """
    rows, columns = x.shape
    return np.eye(rows, columns, k, dtype=x.dtype if dtype is None else ONNX_DTYPES[dtype])


@operation("Shape", Trait.EXACT)
def shape(data: Array, *, start: int = 0, end: int | None = None) -> Array:
    """Return the shape (int64) from axis ``start`` to before ``end``. ONNX Shape."""
    return np.asarray(data.shape[start:end], dtype=np.int64)


@operation("Size", Trait.EXACT)
def size(data: Array) -> Array:
    """Return the number of elements (int64 scalar). ONNX Size."""
    return np.asarray(data.size, dtype=np.int64)


@operation("NonZero", Trait.EXACT)
def non_zero(x: Array) -> Array:
    """Return the coordinates (rank, count), int64, of the elements that are not zero. ONNX NonZero."""
    return np.asarray(np.nonzero(np.atleast_1d(x)), dtype=np.int64)[: x.ndim]


# --- types ----------------------------------------------------------------------------------------


@operation("Identity", Trait.VIEWS)
def identity(x: Array) -> Array:
    """Return ``x``. ONNX Identity."""
    return x


@operation("Cast", Trait.ROUNDS | Trait.ELEMENTWISE)
def cast(x: Array, *, to: int | DTypeLike, saturate: int = 1, round_mode: str = "up") -> Array:
    """Return ``x`` in another dtype, floats to integers truncated towards zero. ONNX Cast.

    Parameters
    ----------
    x : array
    to : int or dtype
        An `onnx.TensorProto.DataType` or a NumPy dtype.
    saturate, round_mode
        Of float8 types only, which the vocabulary does not have.

    Raises
    ------
    UnsupportedOperationError
        A type that NumPy has not: bfloat16, float8, int4, strings, ….
    """
    if isinstance(to, int):
        if to not in ONNX_DTYPES:
            raise UnsupportedOperationError(f"Cast to ONNX type {to}; expected one of {sorted(ONNX_DTYPES)}")
        to = ONNX_DTYPES[to]
    return x.astype(to)


@operation("CastLike", Trait.ROUNDS)
def cast_like(x: Array, target: Array, *, saturate: int = 1, round_mode: str = "up") -> Array:
    """Return ``x`` in the dtype of ``target``. ONNX CastLike."""
    return x.astype(target.dtype)


# --- arranging ------------------------------------------------------------------------------------


@operation("Reshape", Trait.VIEWS)
def reshape(data: Array, shape: ArrayLike, *, allowzero: int = 0) -> Array:
    """Return another shape: −1 is inferred, 0 keeps that axis unless ``allowzero``. ONNX Reshape."""
    wanted = _integers(shape)
    if not allowzero:
        wanted = tuple(data.shape[axis] if length == 0 else length for axis, length in enumerate(wanted))
    return data.reshape(wanted)


@operation("Transpose", Trait.MOVES)
def transpose(data: Array, *, perm: tuple[int, ...] | None = None) -> Array:
    """Return the tensor with its axes in the order ``perm`` (reversed if None). ONNX Transpose."""
    return np.transpose(data, perm)


@operation("Flatten", Trait.VIEWS)
def flatten(x: Array, *, axis: int = 1) -> Array:
    """Return the matrix of the axes before ``axis`` by those from it on. ONNX Flatten."""
    rows = int(np.prod(x.shape[:axis], dtype=np.int64))
    return x.reshape(rows, int(np.prod(x.shape[axis:], dtype=np.int64)))


@operation("Squeeze", Trait.VIEWS)
def squeeze(data: Array, axes: ArrayLike | None = None) -> Array:
    """Return the tensor without ``axes`` (None: without any axis of length one). ONNX Squeeze."""
    return np.squeeze(data, None if axes is None else _integers(axes))


@operation("Unsqueeze", Trait.VIEWS)
def unsqueeze(data: Array, axes: ArrayLike) -> Array:
    """Return the tensor with axes of length one inserted, so that they stand at ``axes``. ONNX Unsqueeze."""
    return np.expand_dims(data, _integers(axes))


@operation("Concat", Trait.MOVES)
def concat(*inputs: Array, axis: int) -> Array:
    """Return the inputs joined along ``axis``. ONNX Concat."""
    return np.concatenate(inputs, axis=axis)


@operation("Split", Trait.MOVES)
def split(
    x: Array, split: ArrayLike | None = None, *, axis: int = 0, num_outputs: int | None = None
) -> tuple[Array, ...]:
    """Return the parts of ``x`` along ``axis``. ONNX Split.

    Parameters
    ----------
    x : array
    split : integers, optional
        The length of each part; they add up to the axis.
    axis : int
    num_outputs : int, optional
        Instead of ``split``: so many equal parts, the last one shorter if need be.

    Raises
    ------
    ShapeError
        Neither is given, or the lengths do not add up.
    """
    length = x.shape[axis]
    if split is not None:
        lengths = _integers(split)
    elif num_outputs:
        chunk = -(-length // num_outputs)
        lengths = (chunk,) * (num_outputs - 1) + (length - chunk * (num_outputs - 1),)
    else:
        raise ShapeError("Split needs the lengths of the parts or num_outputs")
    if sum(lengths) != length or min(lengths) < 0:
        raise ShapeError(f"Split lengths {lengths} do not add up to axis {axis} of shape {x.shape}")
    return tuple(np.split(x, np.cumsum(lengths)[:-1], axis=axis))


@operation("Slice", Trait.MOVES)
def slice_(
    data: Array,
    starts: ArrayLike,
    ends: ArrayLike,
    axes: ArrayLike | None = None,
    steps: ArrayLike | None = None,
) -> Array:
    """Return ``data[start:end:step]`` along each of ``axes`` (the first ones if None). ONNX Slice.

    Negative positions count from the end, all are clamped into the axis, a negative step goes backwards.
    Unlike Python, which then finds nothing, ONNX clamps a start before the axis to its first element.
    """
    first, last = _integers(starts), _integers(ends)
    along = range(len(first)) if axes is None else _integers(axes)
    strides = (1,) * len(first) if steps is None else _integers(steps)
    index = [slice(None)] * data.ndim
    for axis, start, end, step in zip(along, first, last, strides, strict=True):
        index[axis] = _python_slice(start, end, step, data.shape[axis])
    return data[tuple(index)]


def _python_slice(start: int, end: int, step: int, length: int) -> slice:
    first, last, stride = slice(start, end, step).indices(length)
    # Going backwards, ONNX starts at the first element where Python would already be past it; and Python
    # reads an end of −1 as the last element, where the one before the first is meant.
    return slice(max(first, 0), None if last < 0 else last, stride)


@operation("Pad", Trait.MOVES)
def pad(
    data: Array,
    pads: ArrayLike,
    constant_value: ArrayLike | None = None,
    axes: ArrayLike | None = None,
    *,
    mode: str = "constant",
) -> Array:
    """Return ``data`` with elements added before and after its axes; negative counts crop. ONNX Pad.

    Parameters
    ----------
    data : array
    pads : integers
        All counts before, then all counts after, of ``axes`` (None: of every axis).
    constant_value : scalar, optional
        For mode "constant"; None is zero.
    axes : integers, optional
    mode : "constant", "reflect", "edge" or "wrap"

    Raises
    ------
    UnsupportedOperationError
        Another mode.
    """
    if mode not in {"constant", "reflect", "edge", "wrap"}:
        raise UnsupportedOperationError(f"Pad has mode {mode!r}; expected constant, reflect, edge or wrap")
    counts = np.asarray(_integers(pads)).reshape(2, -1)
    widths = np.zeros((data.ndim, 2), np.int64)
    widths[slice(None) if axes is None else list(_integers(axes))] = counts.T
    cropped = data[
        tuple(slice(max(-a, 0), n - max(-b, 0)) for (a, b), n in zip(widths, data.shape, strict=True))
    ]
    grown = [(max(int(before), 0), max(int(after), 0)) for before, after in widths]
    if mode != "constant":
        return np.pad(cropped, grown, mode=mode)  # type: ignore[call-overload]
    fill = 0 if constant_value is None else np.asarray(constant_value).reshape(()).astype(data.dtype)
    return np.pad(cropped, grown, constant_values=fill)


@operation("Expand", Trait.MOVES)
def expand(x: Array, shape: ArrayLike) -> Array:
    """Return ``x`` broadcast together with ``shape``, as a read-only view. ONNX Expand."""
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, _integers(shape)))


@operation("Tile", Trait.MOVES)
def tile(x: Array, repeats: ArrayLike) -> Array:
    """Return ``x`` repeated so many times along each axis. ONNX Tile."""
    return np.tile(x, _integers(repeats))


@operation("DepthToSpace", Trait.MOVES | Trait.MAPS)
def depth_to_space(x: Array, *, blocksize: int, mode: str = "DCR") -> Array:
    """Move channels into blocks of positions: (N, C·b², H, W) → (N, C, H·b, W·b). ONNX DepthToSpace.

    The channels are ordered (b, b, C) in mode "DCR" and (C, b, b), PyTorch's pixel shuffle, in mode "CRD".
    """
    n, c, h, w = x.shape
    if mode == "DCR":
        blocks = x.reshape(n, blocksize, blocksize, -1, h, w).transpose(0, 3, 4, 1, 5, 2)
    elif mode == "CRD":
        blocks = x.reshape(n, -1, blocksize, blocksize, h, w).transpose(0, 1, 4, 2, 5, 3)
    else:
        raise UnsupportedOperationError(f"DepthToSpace has mode {mode!r}; expected DCR or CRD")
    return blocks.reshape(n, c // blocksize**2, h * blocksize, w * blocksize)


@operation("SpaceToDepth", Trait.MOVES | Trait.MAPS)
def space_to_depth(x: Array, *, blocksize: int, mode: str = "DCR") -> Array:
    """Move blocks of positions into channels: (N, C, H, W) → (N, C·b², H/b, W/b). ONNX SpaceToDepth."""
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // blocksize, blocksize, w // blocksize, blocksize)
    order = {"DCR": (0, 3, 5, 1, 2, 4), "CRD": (0, 1, 3, 5, 2, 4)}
    if mode not in order:
        raise UnsupportedOperationError(f"SpaceToDepth has mode {mode!r}; expected DCR or CRD")
    return blocks.transpose(order[mode]).reshape(n, c * blocksize**2, h // blocksize, w // blocksize)


@operation("Trilu", Trait.MOVES)
def trilu(x: Array, k: ArrayLike | None = None, *, upper: int = 1) -> Array:
    """Return the upper (or lower) triangles of the last two axes, from the ``k``-th diagonal. ONNX Trilu."""
    diagonal = 0 if k is None else int(np.asarray(k).reshape(-1)[0])
    return np.triu(x, diagonal) if upper else np.tril(x, diagonal)


# --- indexing -------------------------------------------------------------------------------------


@operation("Gather", Trait.MOVES)
def gather(data: Array, indices: ArrayLike, *, axis: int = 0) -> Array:
    """Return the entries of ``axis`` at ``indices``, whose axes replace it. ONNX Gather."""
    return np.asarray(np.take(data, np.asarray(indices), axis=axis))


@operation("GatherElements", Trait.MOVES)
def gather_elements(data: Array, indices: Array, *, axis: int = 0) -> Array:
    """Return the element of ``data`` that each of ``indices`` names along ``axis``. ONNX GatherElements."""
    others = tuple(slice(n) if a != axis % data.ndim else slice(None) for a, n in enumerate(indices.shape))
    return np.take_along_axis(data[others], np.asarray(indices), axis)


@operation("GatherND", Trait.MOVES)
def gather_nd(data: Array, indices: Array, *, batch_dims: int = 0) -> Array:
    """Return the slices of ``data`` that the vectors of ``indices``' last axis name. ONNX GatherND."""
    batch: tuple[Array, ...] = np.indices(indices.shape[:batch_dims], sparse=True)
    extra = indices.ndim - 1 - batch_dims
    leading = tuple(axis.reshape(axis.shape + (1,) * extra) for axis in batch)
    return np.asarray(data[leading + tuple(np.moveaxis(indices, -1, 0))])


_SCATTER = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def _scattered(data: Array, index: tuple[Array, ...], updates: Array, reduction: str) -> Array:
    result = data.copy()
    if reduction == "none":
        result[index] = updates
    elif reduction in _SCATTER:
        _SCATTER[reduction].at(result, index, updates)
    else:
        raise UnsupportedOperationError(
            f"scatter has reduction {reduction!r}; expected none or one of {list(_SCATTER)}"
        )
    return result


@operation("ScatterND", Trait.ROUNDS)
def scatter_nd(data: Array, indices: Array, updates: Array, *, reduction: str = "none") -> Array:
    """Return ``data`` with the slices named by ``indices``' last axis replaced or reduced. ONNX ScatterND."""
    return _scattered(data, tuple(np.moveaxis(indices, -1, 0)), updates, reduction)


@operation("ScatterElements", Trait.ROUNDS)
def scatter_elements(
    data: Array, indices: Array, updates: Array, *, axis: int = 0, reduction: str = "none"
) -> Array:
    """Return ``data`` with the elements named along ``axis`` replaced or reduced. ONNX ScatterElements."""
    index: list[Array] = list(np.indices(indices.shape, sparse=True))
    index[axis] = indices
    return _scattered(data, tuple(index), updates, reduction)
