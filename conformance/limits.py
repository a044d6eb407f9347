"""How much a file may claim, before memory is taken for it."""

from __future__ import annotations

from refimpl.errors import FileError

MOST_BYTES = 2**30
"""Of everything that a small file can grow into: what it inflates to, what its header announces."""
MOST_PIXELS = 2**28 // 3
"""Of a picture or a frame, a quarter of a GiB as bytes."""


def check_size(claimed: int, where: str, present: int = 0) -> None:
    """Raise unless a claim is of at most `MOST_BYTES`, or of what the file itself has.

    Parameters
    ----------
    claimed
        Bytes in total, not of one part.
    where
        Whose claim, for the error.
    present
        Bytes of the file; what is really there needs no trust.

    Raises
    ------
    FileError
        It is more, or negative.
    """
    if claimed < 0 or claimed > max(MOST_BYTES, present):
        raise FileError(
            f"{where}: claims {claimed} bytes in total; more than {MOST_BYTES >> 20} MiB are not read from a "
            "file that is smaller than that itself; split it, or save it uncompressed"
        )
