"""Fourier transforms."""

from __future__ import annotations

import numpy as np

from golden.declared.operations.call import Call, call, randn, uniform

# One line per call.
# fmt: off
CALLS: tuple[Call, ...] = (
    call("dft.real", "of real numbers, a length that is no power of two", randn(2, 12, 1)),
    call("dft.inverse", "of complex numbers, back", randn(2, 9, 2), inverse=1),
    call("dft.onesided", "half a spectrum, filled with zeros to 16", randn(2, 13, 1), 16, onesided=1),
    call("stft.window", "windowed frames that overlap", randn(1, 40, 1), np.asarray(4), uniform(0, 1, 16)),
)
