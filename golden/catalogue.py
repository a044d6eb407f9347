"""The list of all goldens, in the order of the manifest."""

from __future__ import annotations

from collections.abc import Iterator

from golden import blocks, networks, operations, pictures, training, videos
from golden.case import Golden


def goldens() -> Iterator[Golden]:
    """Yield every golden of the set."""
    for part in (operations, blocks, networks, training, pictures, videos):
        yield from part.goldens()
