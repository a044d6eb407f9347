"""What a file in NumPy's .npy format claims to hold, read before anything is allocated."""

from __future__ import annotations

import math
import sys
from typing import IO, Any

import numpy as np

from refimpl.errors import FileError

NUMBERS = "fiub"
"""Kinds of dtypes that hold numbers: floats, integers with and without sign, truth values."""


def check_claim(file: IO[bytes], available: int, where: str) -> None:
    """Raise `FileError` if an array claims more bytes than its file holds: NumPy would allocate them first.

    Parameters
    ----------
    file
        Open at the array's beginning.
    available
        Bytes that the file has in all.
    where
        Names the file in messages.

    Raises
    ------
    FileError
        It is no array in NumPy's format, too large, or of something other than numbers: an array of
        objects holds code.
    """
    shape, dtype = _header(file, where)
    if dtype.hasobject:
        raise FileError(f"{where} holds Python objects, which are not read; save an array of numbers")
    # No number at all, but a length that NumPy cannot count.
    impossible = min(shape, default=0) < 0 or max(shape, default=0) > sys.maxsize
    if impossible or math.prod(shape) * dtype.itemsize > available:
        raise FileError(f"{where} claims shape {shape} of {dtype}, more than the file holds")
    if dtype.kind not in NUMBERS:
        raise FileError(f"{where} holds {dtype}, expected integers, floats or truth values")


def _header(file: IO[bytes], where: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    formats = np.lib.format
    try:
        version = formats.read_magic(file)
        read = formats.read_array_header_1_0 if version == (1, 0) else formats.read_array_header_2_0
        shape, _, dtype = read(file)
    # The header is a Python literal; what a broken one raises is not documented.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise FileError(f"{where} is no array in NumPy's .npy format ({reason}); write it again") from error
    return shape, dtype
