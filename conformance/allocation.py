"""Freed memory is kept: arrays of megabytes come and go thousands of times in a verdict.

By default glibc returns much of it to the system, which clears each page before it gives it again: a tenth of
the command's time.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of <malloc.h>

KEPT = 1 << 30
"""Bytes free at the heap's end before any are returned."""

LARGEST = 1 << 25
"""The largest array, in bytes, that is taken from the heap; more glibc does not allow."""


def keep_freed_memory() -> None:
    """Have this process keep what it frees, where the C library is one that can be told so."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, KEPT)
        mallopt(_MMAP_THRESHOLD, LARGEST)
