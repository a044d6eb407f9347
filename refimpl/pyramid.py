"""The feature pyramid of the detectors (Lin et al., CVPR 2017): one map for each level, all of one width."""

from __future__ import annotations

from collections.abc import Sequence

from refimpl import ops
from refimpl.fpn import sum_top_down
from refimpl.layers import conv, group_norm
from refimpl.ops.operation import Array
from refimpl.scope import Scope, block


@block
def pyramid(
    maps: Sequence[Array], w: Scope, lateral: str, output: str, dim: int, first: int = 0
) -> list[Array]:
    """Maps of a backbone, finest first → as many maps (B, dim, …), each with what is deeper added.

    Parameters
    ----------
    maps
        (B, ·, h, w), each half the size of the one before.
    lateral, output
        The names of the 1×1 and the 3×3 convolution of a level, with ``{}`` for its number.
    dim
        Channels of the results.
    first
        The number of the finest level.
    """
    last = len(maps) - 1
    total = conv(maps[last], w / lateral.format(first + last), dim)
    levels = [conv(total, w / output.format(first + last), dim, kernel=3)]
    for i in reversed(range(last)):
        total = sum_top_down(
            conv(maps[i], w / lateral.format(first + i), dim), total
        )  # (B, dim, h, w) of the level
        levels.insert(0, conv(total, w / output.format(first + i), dim, kernel=3))
    return levels


def every_second(x: Array) -> Array:
    """Every second position of every second row, as the pyramids write it: a maximum of one."""
    return ops.max_pool(x, kernel_shape=(1, 1), strides=(2, 2))


@block
def conv_group_norm(x: Array, w: Scope, out: int, kernel: int, groups: int, names: tuple[str, str]) -> Array:
    """A convolution, group norm and ReLU.

    Parameters
    ----------
    names
        Of the convolution and the norm. The convolution has a bias where its norm is a number, as in a plain
        sequence of layers.
    """
    x = conv(x, w / names[0], out, kernel, bias=names[1].isdigit())
    return ops.relu(group_norm(x, w / names[1], groups))


def positions_last(x: Array) -> Array:
    """Predictions at every position, row by row: (B, C, h, w) → (B, hw, C)."""
    batch, channels, height, width = x.shape
    moved = ops.transpose(x, perm=(0, 2, 3, 1))  # (B, h, w, C)
    return ops.reshape(moved, (batch, height * width, channels))
