"""What undoes the taking of windows: maxima put back, and columns added up to a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from refimpl.ops.operation import Array, Trait, operation
from refimpl.ops.windows import per_axis, sliding_windows


@operation("MaxUnpool", Trait.MOVES)
def max_unpool(
    x: Array,
    i: Array,
    output_shape: ArrayLike | None = None,
    *,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Return zeros with the elements of ``x`` at the flat places ``i``, as MaxPool gives them.

    Parameters
    ----------
    x, i : arrays (N, C, *spatial)
    output_shape : integers, optional
        Zeros are added behind until the result has this shape.
    kernel_shape, pads, strides
        Of the pooling that is undone: they say which shape the places are of.

    Source: ONNX MaxUnpool.
    """
    rank = x.ndim - 2
    step, both = per_axis("strides", strides or (1,) * rank, rank), tuple(pads or (0,) * 2 * rank)
    spatial = [
        (n - 1) * s - before - after + k
        for n, s, before, after, k in zip(
            x.shape[2:], step, both[:rank], both[rank:], kernel_shape, strict=True
        )
    ]
    made = np.zeros((*x.shape[:2], *spatial), x.dtype)
    made.reshape(-1)[np.asarray(i).reshape(-1)] = x.reshape(-1)
    if output_shape is None:
        return made
    wanted = [int(n) for n in np.asarray(output_shape)]
    return np.pad(made, [(0, new - old) for new, old in zip(wanted, made.shape, strict=True)])


@operation("Col2Im", Trait.SUMS)
def col2_im(
    x: Array,
    image_shape: ArrayLike,
    block_shape: ArrayLike,
    *,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Return the picture whose windows are the columns of ``x``; where windows overlap they are added up.

    Parameters
    ----------
    x : array (N, C · elements of a block, blocks)
    image_shape, block_shape : integers, one per spatial axis
    dilations, pads, strides
        As of a convolution that takes the blocks.

    Returns
    -------
    array (N, C, *image_shape)

    Source: ONNX Col2Im; PyTorch's fold.
    """
    size, block = ([int(n) for n in np.asarray(shape)] for shape in (image_shape, block_shape))
    windows = sliding_windows(size, block, dilations=dilations, pads=pads, strides=strides)
    columns = x.reshape(len(x), -1, math.prod(block), *windows.output)
    padded = [n + p + q for n, p, q in zip(size, windows.begin, windows.end, strict=True)]
    result = np.zeros((*columns.shape[:2], *padded), x.dtype)
    for tap, (_, place) in enumerate(windows.taps()):
        result[place] += columns[:, :, tap]
    inside = tuple(slice(p, p + n) for p, n in zip(windows.begin, size, strict=True))
    return np.asarray(result[(slice(None), slice(None), *inside)])
