"""The list of all goldens, in the order of the manifest."""

from __future__ import annotations

from collections.abc import Iterator

from golden.case import Golden
from golden.declared import (
    blocks,
    costs,
    evaluations,
    networks,
    operations,
    pictures,
    scenes,
    tracking,
    training,
    weights,
)

KINDS = (operations, blocks, networks, weights, costs, training, pictures, scenes, tracking, evaluations)


def goldens() -> Iterator[Golden]:
    """Yield every golden of the set."""
    for kind in KINDS:
        yield from kind.goldens()
