"""Normalisation."""

from __future__ import annotations

import numpy as np

from golden.case import halves
from golden.declared.operations.call import Call, call, places, randn, uniform

# One line per call.
# fmt: off
CALLS: tuple[Call, ...] = (
    call("batch_normalization.ordinary", "running statistics", randn(2, 5, 4, 3), uniform(0.5, 1.5, 5), randn(5), randn(5), uniform(0.2, 2, 5)),
    call("batch_normalization.tiny_variance", "variances about ε, and zero: ε is inside the root, and 1e-5", randn(1, 4, 3, 3, scale=0.01), uniform(0.5, 1.5, 4), randn(4), randn(4, scale=0.01), halves([1e-3, 1e-4, 1e-5, 0])),
    call("layer_normalization.ordinary", "the last axis", randn(2, 5, 32), randn(32), randn(32)),
    call("layer_normalization.axes", "three axes, no bias, ε = 1e-3", randn(2, 3, 4, 5), randn(3, 4, 5), axis=1, epsilon=1e-3),
    call("instance_normalization.ordinary", "each channel of each sample", randn(2, 3, 5, 4), randn(3), randn(3)),
    call("group_normalization.ordinary", "three groups of two channels", randn(2, 6, 3, 4), randn(6), randn(6), num_groups=3),
    call("rms_normalization.ordinary", "the last axis, no mean taken away", randn(3, 5, 32), randn(32)),
    call("mean_variance_normalization.ordinary", "a channel over the batch and its positions", randn(2, 3, 5, 4), axes=(0, 2, 3)),
    call("lp_normalization.lengths", "divided by the length along axis 1", randn(2, 5, 4), axis=1, p=2),
    call("lrn.ordinary", "five channels about each", randn(2, 7, 3, 4, scale=3), size=5, alpha=0.5, beta=0.75, bias=2.0),
    call("probes/layer_normalization.near_constant", "rows almost constant: the first is 0, in the second ε and the divisor n decide", halves(np.stack([np.full(16, 3.0), 3 + places(16) / 512, places(16), -places(16)])), np.ones(16, np.float32), np.zeros(16, np.float32)),
)
