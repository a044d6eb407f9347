"""The list of all goldens, in the order of the manifest."""

from __future__ import annotations

from collections.abc import Iterator

from golden.case import Golden
from golden.declared import blocks, costs, networks, operations, pictures, scenes, training, videos, weights


def goldens() -> Iterator[Golden]:
    """Yield every golden of the set."""
    for part in (operations, blocks, networks, weights, costs, training, pictures, scenes, videos):
        yield from part.goldens()
