"""Pooling, and the operations of several outputs."""

from __future__ import annotations

import numpy as np

from golden.declared.operations.call import Call, call, places, randn

# One line per call.
# fmt: off
CALLS: tuple[Call, ...] = (
    call("max_pool.stem", "3×3, stride 2, padded", randn(1, 3, 9, 12), kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1)),
    call("max_pool.eight", "X_L: 8×8, sizes that are no multiples: the rest is dropped", randn(1, 2, 20, 28), kernel_shape=(8, 8), strides=(8, 8)),
    call("max_pool.ceil", "ceil_mode", randn(1, 2, 7, 10), kernel_shape=(3, 2), strides=(2, 2), ceil_mode=1),
    call("max_pool.dilated", "dilation 2", randn(1, 2, 9, 9), kernel_shape=(3, 3), dilations=(2, 2)),
    call("average_pool.inside", "padding does not count", randn(1, 3, 9, 12), kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1)),
    call("average_pool.counted", "padding counts", randn(1, 3, 9, 12), kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1), count_include_pad=1),
    call("average_pool.ceil", "ceil_mode: the last window is divided by what it has", randn(1, 2, 7, 9), kernel_shape=(3, 3), strides=(2, 2), ceil_mode=1),
    call("global_average_pool.ordinary", "the mean of a map", randn(2, 3, 7, 5)),
    call("global_max_pool.ordinary", "the maximum of a map", randn(2, 3, 7, 5)),
    call("lp_pool.ordinary", "the length of each window", randn(1, 3, 9, 12), kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1)),
    call("lp_pool.cubes", "p = 3", randn(1, 2, 6, 7), kernel_shape=(2, 2), p=3),
    call("global_lp_pool.ordinary", "the length of a map", randn(2, 3, 7, 5)),
    call("max_unpool.ordinary", "each maximum back in its place", places(1, 1, 2, 2) + 1, np.asarray([[[[5, 7], [13, 15]]]]), kernel_shape=(2, 2), strides=(2, 2)),
    call("col2_im.overlapping", "blocks of 3×3 that overlap", randn(1, 18, 12), np.asarray([5, 6]), np.asarray([3, 3])),
    call("max_pool.indices", "with the flat indices of the maxima", randn(1, 2, 6, 8), kernel_shape=(2, 2), strides=(2, 2), outputs=2),
    call("layer_normalization.statistics", "with mean and 1 / deviation", randn(4, 16), randn(16), randn(16), outputs=3),
    call("probes/max_pool.negative", "all negative: a zero means that padding took part", -places(1, 1, 5, 7) - 1, kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1)),
    call("probes/average_pool.ones", "ones: 2/3 or 4/9 at the edge means that padding was counted", np.ones((1, 1, 5, 7), np.float32), kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1)),
)
