"""Every operation of the vocabulary, with ordinary and awkward attributes, and the probes; a file per family.

A probe's input is chosen so that a wrong result shows the mistake at a look: ramps, impulses, numbers that
name their place, exact ties, values at the ends of a range.
"""

from __future__ import annotations

from collections.abc import Iterator

from golden.case import Golden
from golden.declared.operations import (
    activations,
    arithmetic,
    arranging,
    attending,
    convolutions,
    indexing,
    logic,
    making,
    normalisation,
    pooling,
    products,
    quantisation,
    recurrent,
    reductions,
    resizing,
    sampling,
    transforms,
)
from golden.declared.operations.call import Call

# The order of the set.
FAMILIES = (
    *(
        convolutions,
        products,
        normalisation,
        activations,
        pooling,
        resizing,
        sampling,
        recurrent,
        transforms,
        arithmetic,
        logic,
    ),
    *(attending, reductions, making, arranging, indexing, quantisation),
)
CALLS: tuple[Call, ...] = tuple(call for family in FAMILIES for call in family.CALLS)


def goldens() -> Iterator[Golden]:
    """Yield the goldens of single operations."""
    for call in CALLS:
        yield call.golden()
