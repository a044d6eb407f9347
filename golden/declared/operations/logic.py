"""Comparisons, logic, and the bits of integers."""

from __future__ import annotations

import numpy as np

from golden.case import halves
from golden.declared.operations.call import Call, booleans, call, integers, randn

_SPECIAL = np.asarray([0, 1, np.inf, -np.inf, np.nan], np.float32)

# One line per call.
# fmt: off
CALLS: tuple[Call, ...] = (
    *(call(f"{name}.ties", "ties, and ±0", halves([1, 2, 3, -0.0, 2.5]), halves([1, 3, 2, 0.0, 2.5])) for name in ("equal", "less", "less_or_equal", "greater", "greater_or_equal")),
    *(call(f"{name}.ordinary", "broadcast", booleans(3, 4), booleans(4)) for name in ("logical_and", "logical_or", "logical_xor")),
    *(call(f"bitwise_{name}.ordinary", "broadcast", integers(-99, 99, 3, 4), integers(-99, 99, 4)) for name in ("and", "or", "xor")),
    call("bitwise_not.ordinary", "negative numbers too", integers(-99, 99, 3, 4)),
    call("bit_shift.left", "bits beyond the eighth are gone", np.asarray([16, 4, 255], np.uint8), np.asarray([1, 2, 3], np.uint8), direction="LEFT"),
    call("bit_shift.right", "zeros come in", np.asarray([16, 4, 255], np.uint8), np.asarray([1, 2, 3], np.uint8), direction="RIGHT"),
    call("logical_not.ordinary", "booleans", booleans(3, 4)),
    call("where.broadcast", "all three broadcast", booleans(3, 1), randn(3, 4), randn(4)),
    call("is_nan.ordinary", "NaN only", _SPECIAL),
    call("is_inf.ordinary", "both infinities", _SPECIAL),
    call("is_inf.positive", "only the positive one", _SPECIAL, detect_negative=0),
)
