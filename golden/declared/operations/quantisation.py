"""Quantisation."""

from __future__ import annotations

import numpy as np

from golden.case import halves
from golden.declared.operations.call import Call, call, integers, line, randn

# One line per call.
# fmt: off
CALLS: tuple[Call, ...] = (
    call("quantize_linear.ties", "halves to even, saturated to 0 … 255", line(-40, 40, 65), 0.25, np.asarray(3, np.uint8)),
    call("quantize_linear.channels", "a scale for each channel, int8", randn(2, 3, 4, scale=2), halves([0.03125, 0.0625, 0.125]), np.zeros(3, np.int8), axis=1),
    call("dequantize_linear.channels", "a scale and a zero point for each channel", integers(-128, 128, 2, 3, 4, dtype=np.int8), halves([0.03, 0.06, 0.12]), np.asarray([0, 5, -7], np.int8), axis=1),
    call("conv_integer.padded", "zero points of both; what is padded is the zero point", integers(0, 256, 1, 2, 5, 6, dtype=np.uint8), integers(0, 256, 3, 2, 3, 3, dtype=np.uint8), np.asarray(120, np.uint8), np.asarray(128, np.uint8), pads=(1, 1, 1, 1)),
    call("mat_mul_integer.ordinary", "zero points of both", integers(0, 256, 4, 3, dtype=np.uint8), integers(0, 256, 3, 2, dtype=np.uint8), np.asarray(12, np.uint8), np.asarray(128, np.uint8)),
    call("q_linear_conv.channels", "a scale for each output channel, int8 weights, a bias", integers(0, 256, 1, 2, 5, 6, dtype=np.uint8), halves(0.03125), np.asarray(120, np.uint8), integers(-128, 128, 3, 2, 3, 3, dtype=np.int8), halves([0.0078125, 0.015625, 0.01]), np.zeros(3, np.int8), halves(0.25), np.asarray(100, np.uint8), integers(-2000, 2000, 3, dtype=np.int32), strides=(2, 2)),
    call("q_linear_mat_mul.ordinary", "saturated to 0 … 255", integers(0, 256, 4, 8, dtype=np.uint8), halves(0.0625), np.asarray(113, np.uint8), integers(0, 256, 8, 3, dtype=np.uint8), halves(0.03), np.asarray(114, np.uint8), halves(0.5), np.asarray(118, np.uint8)),
    call("dynamic_quantize_linear.ordinary", "the range includes zero", halves([0, 2.484375, -1.5, -0.7, 1.34, 0.53]), outputs=3),
)
