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
    call("dynamic_quantize_linear.ordinary", "the range includes zero", halves([0, 2.484375, -1.5, -0.7, 1.34, 0.53]), outputs=3),
)
