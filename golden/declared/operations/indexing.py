"""Indexing."""

from __future__ import annotations

import numpy as np

from golden.declared.operations.call import Call, call, integers, places, randn, uniform

# One line per call.
# fmt: off
CALLS: tuple[Call, ...] = (
    call("gather.axis", "negative indices, two axes for one", places(3, 5), np.asarray([[4, 0], [-1, 2]]), axis=1),
    call("gather_elements.ordinary", "along columns", places(3, 4), integers(0, 3, 2, 4), axis=0),
    call("gather_nd.ordinary", "rows of two", places(3, 4, 2), np.asarray([[0, 1], [2, 3]])),
    call("unique.sorted", "in ascending order, with places and counts", np.asarray([2, 1, 1, 3, 4, 3], np.float32), outputs=4),
    call("unique.first", "rows in the order they first occur", np.asarray([[2, 1], [0, 3], [2, 1], [0, 0]], np.float32), axis=0, sorted=0, outputs=4),
    call("compress.axis", "columns that are wanted", places(3, 4), np.asarray([False, True, True]), axis=1),
    call("reverse_sequence.ordinary", "as many steps of each sequence as it has", places(4, 3), np.asarray([4, 1, 2])),
    call("non_max_suppression.corners", "what overlaps a better box by more than 0.375 is gone", uniform(0, 8, 1, 12, 4), uniform(0, 1, 1, 2, 12), np.asarray([4]), np.asarray([0.375], np.float32), np.asarray([0.25], np.float32)),
    call("tensor_scatter.circular", "what goes beyond the end begins again", places(2, 4, 3), randn(2, 2, 3), np.asarray([3, 1]), mode="circular"),
    call("scatter_nd.ordinary", "two rows replaced", places(4, 3), np.asarray([[3], [0]]), randn(2, 3)),
    call("scatter_elements.add", "added", randn(3, 4), np.asarray([[0, 0, 2, 1]]), randn(1, 4), axis=0, reduction="add"),
    call("scatter_elements.ordinary", "replaced", places(3, 4), np.asarray([[2, 0, 1, 1]]), randn(1, 4), axis=0),
)
