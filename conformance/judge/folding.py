"""What folding constants ahead of time may do: all by which a graph and its simplified form may differ.

Both are computed in float64. What the tool that made the one of the other had computed of constants (a batch
norm's scale in the weights before it) it computed in float32, and stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from conformance.bounds import Format
from refimpl import Recording
from refimpl.ops.operation import Array

FOLDINGS = 8
"""Roundings that a constant may have gone through: a batch norm that is folded takes about five."""


def folded_errors(recording: Recording, held: Iterable[Array], storage: Format) -> dict[str, Array]:
    """Return by how much constants may be off, element by element: those that the other side has otherwise.

    Parameters
    ----------
    recording
        One side's run.
    held
        The other side's constants. One that is held as it is, in whatever arrangement, may not be off; one
        that is held rounded, by one rounding. Of others what is subnormal may be zero.
    storage
        The narrowest format of the other side's.

    Returns
    -------
    dict
        Constant → error of each element; of what may not be off, nothing.
    """
    same = {_numbers(array) for array in held if array.dtype.kind == "f"}
    constants = {name: recording.tensors[name] for name in (*recording.weights, *recording.constants)}
    errors = {}
    for name, array in constants.items():
        if array.dtype.kind == "f" and array.size and _numbers(array) not in same:
            once, size = _numbers(storage.rounded(array)) in same, np.abs(array)
            errors[name] = (1 if once else FOLDINGS) * storage.rounding_of(array)
            if not once:
                errors[name] = np.maximum(errors[name], np.where(size < storage.smallest_normal, size, 0.0))
    return errors


def _numbers(array: Array) -> tuple[int, bytes]:
    """Return what arrays have in common that hold the same numbers in another arrangement."""
    return array.size, hashlib.sha256(np.sort(array.astype(np.float64), axis=None).tobytes()).digest()
