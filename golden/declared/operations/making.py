"""Making tensors."""

from __future__ import annotations

import numpy as np

from golden.case import halves
from golden.declared.operations.call import Call, call, places, randn

# One line per call.
# fmt: off
CALLS: tuple[Call, ...] = (
    call("constant.ordinary", "a literal", value=places(2, 3)),
    call("eye_like.ordinary", "above the main diagonal", randn(3, 5), k=1),
    call("constant_of_shape.ordinary", "filled with 2.5", (2, 3), value=np.asarray([2.5], np.float32)),
    call("arange.floats", "by 1/4", 0.5, 4.0, 0.25),
    call("arange.down", "integers, downwards", 10, 1, -3),
    call("one_hot.ordinary", "a negative index counts from the end; 5 is nowhere", np.asarray([0, 2, -1, 5]), 4, halves([0, 1])),
    call("shape.part", "from axis 1", randn(2, 3, 4), start=1),
    call("size.ordinary", "the number of elements", randn(2, 3, 4)),
    call("non_zero.ordinary", "coordinates, axis by axis", halves([[1, 0, 2], [0, 0, 3]])),
)
