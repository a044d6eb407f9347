"""Arithmetic, and the limits of float16."""

from __future__ import annotations

import numpy as np

from golden.case import halves
from golden.declared.operations.call import Call, call, line, randn, uniform

_LIMITS = halves([65504, -65504, 2.0**-14, -(2.0**-14), 2.0**-24, 3 * 2.0**-24, 60000, 1])

# One line per call.
# fmt: off
CALLS: tuple[Call, ...] = (
    *(call(f"{name}.broadcast", "three axes broadcast", randn(2, 3, 4, 5), randn(3, 1, 5)) for name in ("add", "sub", "mul")),
    call("div.broadcast", "rows by a row", randn(3, 4), uniform(0.2, 3, 4)),
    call("div.integers", "integers: towards zero", np.asarray([7, -7, 7, -7, 6]), np.asarray([2, 2, -2, -2, 3])),
    call("pow.ordinary", "positive base", uniform(0.1, 4, 24), uniform(-2, 3, 24)),
    call("pow.square", "a square of negative numbers", randn(20, scale=3), 2.0),
    call("mod.fmod", "the sign of the dividend", randn(20, scale=5), uniform(0.5, 2, 20), fmod=1),
    call("mod.integers", "the sign of the divisor", np.asarray([7, -7, 7, -7]), np.asarray([3, 3, -3, -3])),
    *(call(f"{name}.ordinary", "quarters from −3 to 3", line(-3, 3, 25, 0.0, -0.0)) for name in ("neg", "abs", "sign", "floor", "ceil")),
    call("round.halves", "halves go to the even neighbour", line(-3.5, 3.5, 29)),
    call("reciprocal.ordinary", "0.1 … 8", uniform(0.1, 8, 30)),
    call("sqrt.ordinary", "0 … 60", uniform(0, 60, 30)),
    call("exp.ordinary", "−10 … 10", line(-10, 10, 61)),
    call("log.ordinary", "1e-4 … 6e4", halves(np.geomspace(1e-4, 6e4, 61))),
    *(call(f"{name}.three", "three inputs, broadcast", randn(3, 4), randn(4), randn(3, 1)) for name in ("max", "min", "sum", "mean")),
    call("probes/add.limits", "near the limits of float16: 65504, and numbers below 2⁻¹⁴ that may be flushed to zero", _LIMITS, halves(_LIMITS[::-1] * [1, 1, 1, -1, 1, 1, -1, 1])),
    call("probes/mul.limits", "near the limits of float16: what overflows, what is flushed to zero", _LIMITS, halves([1, 1, 0.5, 0.25, 1, 2, 1.0, 1])),
    call("probes/conv.limits", "a sum whose parts fit float16 and whose total does too", halves([[[[30000, -30000, 30000, 2.0**-14]]]]), halves([[[[1, 1, 0.5]]]])),
)
