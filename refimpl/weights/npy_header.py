"""What a file in NumPy's .npy format claims to hold, read before anything is allocated."""

from __future__ import annotations

import math
from typing import IO

import numpy as np

from refimpl.errors import FileError


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
        The array is too large, or an object array, which holds code.
    ValueError, EOFError
        It is no array in NumPy's format.
    """
    version = np.lib.format.read_magic(file)
    formats = np.lib.format
    read = formats.read_array_header_1_0 if version == (1, 0) else formats.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise FileError(f"{where} holds Python objects, which are not read; save an array of numbers")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > available:
        raise FileError(f"{where} claims shape {shape} of {dtype}, more than the file holds")
