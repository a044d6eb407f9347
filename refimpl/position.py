"""DETR's sine position embedding (Carion et al., ECCV 2020), normalised, for the paper's decoders (3.2)."""

from __future__ import annotations

import numpy as np

from refimpl import ops
from refimpl.ops.operation import Array

TEMPERATURE = 10000.0
EPSILON = 1e-6


def sine_position_embedding(height: int, width: int, dim: int, like: Array) -> Array:
    """Return the embedding of every position of a map, as tokens.

    Parameters
    ----------
    height, width
        Size of the map.
    dim
        Channels: the first half embeds the row, the second the column.
    like
        An array of the dtype wanted.

    Returns
    -------
    Array
        (1, height · width, dim); a constant of the recording.
    """
    rows = _embed(height, dim // 2)[:, None, :]  # (H, 1, dim/2)
    columns = _embed(width, dim // 2)[None, :, :]  # (1, W, dim/2)
    shape = (height, width, dim // 2)
    both = np.concatenate([np.broadcast_to(rows, shape), np.broadcast_to(columns, shape)], axis=-1)
    return ops.constant(value=both.reshape(1, height * width, dim).astype(like.dtype))


def _embed(size: int, channels: int) -> Array:
    """Sines (even channels) and cosines (odd) of the normalised coordinate: (size, channels)."""
    coordinate = np.arange(1, size + 1) / (size + EPSILON) * 2 * np.pi
    channel = np.arange(channels)
    angle = coordinate[:, None] / TEMPERATURE ** (2 * (channel // 2) / channels)
    return np.where(channel % 2 == 0, np.sin(angle), np.cos(angle))
