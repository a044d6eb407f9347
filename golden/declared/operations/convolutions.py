"""Convolutions, and the impulses that show them."""

from __future__ import annotations

import numpy as np

from golden.case import halves
from golden.declared.operations.call import Call, call, impulse, places, randn, uniform

# One line per call.
# fmt: off
CALLS: tuple[Call, ...] = (
    call("conv.pointwise", "1×1 with a bias", randn(2, 6, 5, 7), randn(4, 6, 1, 1, scale=0.4), randn(4)),
    call("conv.same", "3×3 with padding and a bias", randn(1, 5, 9, 7), randn(6, 5, 3, 3, scale=0.2), randn(6), pads=(1, 1, 1, 1)),
    call("conv.strided", "the stem: stride 2, no bias; an even and an odd side", randn(1, 3, 11, 14), randn(8, 3, 3, 3, scale=0.2), pads=(1, 1, 1, 1), strides=(2, 2)),
    call("conv.depthwise", "depthwise 5×5, stride 2", randn(1, 8, 9, 7), randn(8, 1, 5, 5, scale=0.2), pads=(2, 2, 2, 2), group=8, strides=(2, 2)),
    call("conv.grouped", "three groups: input and output channels of a group are neighbours", randn(1, 6, 6, 5), randn(9, 2, 3, 3, scale=0.3), randn(9), pads=(1, 1, 1, 1), group=3),
    call("conv.dilated", "dilation 2 and 3", randn(1, 3, 12, 10), randn(4, 3, 3, 3, scale=0.2), dilations=(2, 3), pads=(2, 3, 2, 3)),
    call("conv.uneven_pads", "padding differs at top and bottom; kernel 3×2; strides 1 and 2", randn(1, 2, 7, 6), randn(3, 2, 3, 2, scale=0.3), pads=(0, 1, 2, 1), strides=(1, 2)),
    call("conv.wide_sum", "576 products in each sum", randn(1, 64, 6, 6), randn(4, 64, 3, 3, scale=0.05), pads=(1, 1, 1, 1)),
    call("conv.line", "one spatial axis", randn(2, 3, 17), randn(4, 3, 5, scale=0.3), pads=(2, 2)),
    call("conv_transpose.strided", "stride 2 with output padding", randn(1, 4, 4, 5), randn(4, 3, 3, 3, scale=0.3), randn(3), strides=(2, 2), pads=(1, 1, 1, 1), output_padding=(1, 1)),
    call("conv_transpose.grouped", "two groups", randn(1, 4, 3, 4), randn(4, 2, 2, 2, scale=0.5), group=2, strides=(2, 2)),
    call("probes/conv.impulse", "an impulse shows the kernel, turned by 180°; not turned: a convolution, not a correlation", impulse(1, 1, 7, 9, at=(0, 0, 3, 4)), places(1, 1, 3, 5) + 1, pads=(1, 2, 1, 2)),
    call("probes/conv.corner", "an impulse in the corner: where the first window lies", impulse(1, 1, 6, 6, at=(0, 0, 0, 0)), places(1, 1, 3, 3) + 1, pads=(1, 1, 1, 1), strides=(2, 2)),
    call("probes/conv.same_upper", "a ramp at stride 2: TensorFlow's SAME pads only at the bottom and right", places(1, 1, 6, 6), np.ones((1, 1, 3, 3), np.float32), pads=(1, 1, 1, 1), strides=(2, 2)),
    call("probes/conv.channels", "each channel has its own power of ten: which one went where", places(1, 4, 3, 3), halves(10.0 ** np.arange(-2, 2)).reshape(4, 1, 1, 1), group=4),
    call("deform_conv.masked", "taps moved between the elements and beyond the edge, two groups of offsets, a mask", randn(1, 4, 5, 6), randn(3, 4, 2, 2), randn(1, 16, 4, 5), randn(3), uniform(0, 1, 1, 8, 4, 5), offset_group=2),
)
