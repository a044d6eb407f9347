"""Sampling: at the places of a grid, and in regions."""

from __future__ import annotations

import numpy as np

from golden.case import halves
from golden.declared.operations.call import Call, call, places, randn, uniform

_REGIONS = halves([[0, 0, 24, 16], [5.5, 3.25, 30, 21], [-6, -4, 9, 7], [40, 10, 70, 44]])

# One line per call.
# fmt: off
CALLS: tuple[Call, ...] = (
    call("grid_sample.linear", "places inside and outside, zeros around", randn(2, 3, 5, 6), uniform(-1.3, 1.3, 2, 4, 3, 2)),
    call("grid_sample.border", "corners aligned, borders repeated", randn(1, 2, 5, 6), uniform(-1.5, 1.5, 1, 4, 5, 2), align_corners=1, padding_mode="border"),
    call("grid_sample.reflection", "mirrored at the edges, twice where far", randn(1, 2, 5, 6), uniform(-4, 4, 1, 4, 5, 2), padding_mode="reflection"),
    call("grid_sample.cubic", "Keys' kernel, a = −0.75", randn(1, 2, 7, 6), uniform(-1.2, 1.2, 1, 4, 5, 2), mode="cubic"),
    call("grid_sample.nearest", "the nearest element", randn(1, 2, 5, 6), uniform(-1.2, 1.2, 1, 4, 5, 2), mode="nearest"),
    call("grid_sample.volume", "three axes", randn(1, 2, 4, 5, 6), uniform(-1.2, 1.2, 1, 2, 3, 3, 3)),
    call("roi_align.ordinary", "regions inside, on and beyond the edge; two samples per axis", randn(2, 3, 11, 13), _REGIONS, np.asarray([0, 1, 0, 1]), output_height=3, output_width=4, sampling_ratio=2, spatial_scale=0.25),
    call("roi_align.adaptive", "as many samples as elements, not shifted by half an element", randn(2, 3, 11, 13), _REGIONS, np.asarray([0, 1, 1, 0]), output_height=2, output_width=3, spatial_scale=0.25, coordinate_transformation_mode="output_half_pixel"),
    call("probes/grid_sample.mirror", "a grid that mirrors left and right", places(1, 1, 2, 4), halves([[[[x, y] for x in (0.75, 0.25, -0.25, -0.75)] for y in (-0.5, 0.5)]])),
)
