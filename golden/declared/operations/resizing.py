"""Resizing."""

from __future__ import annotations

import numpy as np

from golden.declared.operations.call import Call, call, impulse, places, randn

# One line per call.
# fmt: off
CALLS: tuple[Call, ...] = (
    call("resize.up", "×2, half-pixel centres", randn(1, 2, 5, 6), None, None, (1, 2, 10, 12), mode="linear"),
    call("resize.down", "down, no antialias", randn(1, 2, 11, 13), None, None, (1, 2, 4, 5), mode="linear"),
    call("resize.antialiased", "down, the kernel as much wider", randn(1, 2, 11, 13), None, None, (1, 2, 4, 5), mode="linear", antialias=1),
    call("resize.antialiased_inside", "nothing outside counts, as PyTorch and Pillow have it", randn(1, 2, 11, 13), None, None, (1, 2, 4, 5), mode="linear", antialias=1, exclude_outside=1),
    call("resize.odd", "sizes without a common factor", randn(1, 2, 3, 5), None, None, (1, 2, 7, 9), mode="linear"),
    call("resize.line", "one axis: SeaFormer's position embedding", randn(1, 4, 16), None, None, (1, 4, 10), mode="linear"),
    call("resize.corners", "corners aligned", randn(1, 2, 4, 6), None, None, (1, 2, 9, 7), mode="linear", coordinate_transformation_mode="align_corners"),
    call("resize.asymmetric", "TensorFlow's old default", randn(1, 2, 4, 6), None, None, (1, 2, 8, 12), mode="linear", coordinate_transformation_mode="asymmetric"),
    call("resize.nearest", "nearest, as PyTorch has it", randn(1, 2, 4, 6), None, None, (1, 2, 8, 9), mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
    call("resize.nearest_half_pixel", "nearest with half-pixel centres", randn(1, 2, 4, 6), None, None, (1, 2, 8, 12), mode="nearest"),
    call("resize.cubic", "bicubic, a = −0.75", randn(1, 2, 6, 7), None, None, (1, 2, 12, 10), mode="cubic"),
    call("resize.scales", "by scales", randn(1, 2, 4, 5), None, np.asarray([1, 1, 2, 2], np.float32), mode="linear"),
    call("probes/resize.ramp", "a ramp: by 1/2 between clamped ends; 0 to 7 evenly is align_corners; from 0 by 1/2, asymmetric", np.tile(np.arange(8, dtype=np.float32), (1, 1, 3, 1)), None, None, (1, 1, 3, 16), mode="linear"),
    call("probes/resize.impulse", "an impulse shows the kernel of interpolation: 3 × 2", impulse(1, 1, 5, 5, at=(0, 0, 2, 2)), None, None, (1, 1, 15, 10), mode="linear"),
    call("probes/resize.shrinking_ramp", "a ramp made shorter: antialiasing changes only its ends", places(1, 1, 1, 12), None, None, (1, 1, 1, 5), mode="linear"),
)
