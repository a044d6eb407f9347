"""The list of all goldens, in the order of the manifest."""

from __future__ import annotations

from collections.abc import Iterator

from golden import operations
from golden.case import Golden


def goldens() -> Iterator[Golden]:
    """Yield every golden of the set."""
    yield from operations.goldens()
