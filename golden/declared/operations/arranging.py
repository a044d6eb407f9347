"""Arranging."""

from __future__ import annotations

from golden.case import halves
from golden.declared.operations.call import Call, call, integers, line, places, randn

# One line per call.
# fmt: off
CALLS: tuple[Call, ...] = (
    call("identity.ordinary", "unchanged", randn(2, 3)),
    call("cast.to_integers", "towards zero", line(-3, 3, 25), to=7),
    call("cast.to_logical", "zero is false", halves([0, -0.0, 0.5, -2]), to=9),
    call("cast_like.ordinary", "integers to floats", integers(-5, 5, 6), randn(1)),
    call("probes/reshape.places", "places in order: 0 keeps, −1 is inferred", places(2, 3, 4), (0, -1, 2)),
    call("probes/transpose.tokens", "places: NCHW to NHWC", places(1, 4, 2, 3), perm=(0, 2, 3, 1)),
    call("probes/transpose.heads", "places: heads before tokens", places(1, 3, 2, 4), perm=(0, 2, 1, 3)),
    call("transpose.reversed", "no permutation: reversed", places(2, 3, 4)),
    call("flatten.ordinary", "from axis 2", places(2, 3, 4), axis=2),
    call("squeeze.ordinary", "axes 0 and −2", places(1, 3, 1, 2), (0, -2)),
    call("unsqueeze.ordinary", "first and last", places(3, 2), (0, -1)),
    call("probes/concat.channels", "places, then 100 + places", places(1, 2, 2, 2), places(1, 1, 2, 2) + 100, axis=1),
    call("split.sizes", "3, 1 and 3 columns", places(2, 7), (3, 1, 3), outputs=3, axis=1),
    call("split.uneven", "three parts of seven: 3, 3 and 1", places(7, 2), outputs=3, num_outputs=3),
    call("slice.steps", "steps 2 and −3", places(5, 8), (1, -1), (5, -9), (0, 1), (2, -3)),
    call("slice.beyond", "from the end, beyond the end", places(5, 8), (-3,), (1000,), (1,)),
    *(call(f"pad.{mode}", f"by {mode}", places(3, 4), (1, 2, 1, 1), mode=mode) for mode in ("constant", "edge", "reflect", "wrap")),
    call("pad.crop", "negative: cropped; filled with 9", places(4, 5), (-1, 1, 0, -2), 9.0),
    call("expand.ordinary", "broadcast both ways", places(3, 1), (2, 1, 4)),
    call("tile.ordinary", "twice each way", places(2, 3), (2, 2)),
    *(call(f"probes/depth_to_space.{mode}", f"places, {mode}: which of block and channel runs faster", places(1, 8, 2, 3), blocksize=2, mode=mode) for mode in ("DCR", "CRD")),
    call("probes/space_to_depth.places", "places", places(1, 2, 4, 6), blocksize=2),
    call("trilu.lower", "below the diagonal", places(4, 5), -1, upper=0),
    call("trilu.upper", "the diagonal and above", places(4, 5)),
)
