"""Files of wrong models for runtimes that take half a minute to convert to: patched where that is the same.

A mistake in a constant is made in what the right model was converted to, where the constant's numbers are
found there once, whatever the order of its axes. What the converter folded, and attributes, are converted.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from itertools import permutations
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from conformance.candidates.converters import converted
from conformance.candidates.kinds import PHONE_RUNTIMES
from refimpl.ops.operation import Array

TRACED = ("litert", "executorch")
"""Runtimes whose converters trace a model by PyTorch."""
FEWEST = 4
"""Numbers that are not found in a file by chance."""


class WrongFiles:
    """A right model's file in a runtime, and those of wrong models beside it.

    Parameters
    ----------
    candidate
        What runs them, as after ``--candidate``.
    right
        The right model.
    """

    def __init__(self, candidate: str, right: onnx.ModelProto) -> None:
        self.candidate, self.right = candidate, right
        self.content = b""

    def candidate_of(self, model: onnx.ModelProto, source: Path) -> str:
        """Return what to say after ``--candidate`` for a model; its file is written beside its source.

        Parameters
        ----------
        model
            The right one at first.
        source
            Its ONNX file.

        Raises
        ------
        MobileInstError
            As of `conformance.candidates.converters.convert`.
        """
        name, _, options = self.candidate.partition(":")
        if name not in TRACED or PHONE_RUNTIMES[name].names_model(options):
            return self.candidate
        runtime = PHONE_RUNTIMES[name]
        place = source.with_suffix(runtime.suffix)
        content = patched(self.content, self.right, model)
        if content is None:
            text = converted(runtime, options, source, place)
            self.content = self.content or place.read_bytes()
            return f"{name}:{text}"
        place.write_bytes(content)
        return f"{name}:{place},{options}"


def patched(content: bytes, right: onnx.ModelProto, wrong: onnx.ModelProto) -> bytes | None:
    """Return what a wrong model is converted to, made of what the right one was.

    Parameters
    ----------
    content
        Of the right model's file.
    right, wrong

    Returns
    -------
    bytes or None
        None unless one constant of one node is otherwise, and stands in the file once.
    """
    ours, theirs = _constants(right), _constants(wrong)
    altered = [name for name, array in ours.items() if not np.array_equal(array, theirs[name])]
    if len(altered) != 1 or list(right.graph.node) != list(wrong.graph.node):
        return None
    (name,) = altered
    before, after = ours[name], theirs[name]
    users = sum(name in node.input for node in right.graph.node)
    alike = sum(_same_numbers(array, before) for array in ours.values())
    if users != 1 or alike != 1 or before.size < FEWEST:
        return None
    found = [pair for pair in {*_layouts(before, after)} if pair[0] in content]
    if len(found) != 1 or content.count(found[0][0]) != 1:
        return None
    # What XNNPACK is handed refers to its constants by their hashes, of which the program has a list.
    old, new = (sha256(each).hexdigest().encode() for each in found[0])
    return content.replace(*found[0]).replace(old, new) if content.count(old) in (0, 2) else None


def _constants(model: onnx.ModelProto) -> dict[str, Array]:
    return {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}


def _same_numbers(one: Array, other: Array) -> bool:
    return one.size == other.size and np.array_equal(np.sort(one, axis=None), np.sort(other, axis=None))


def _layouts(before: Array, after: Array) -> Iterator[tuple[bytes, bytes]]:
    """Yield the bytes of two arrays in every order of their axes."""
    for order in permutations(range(before.ndim)):
        yield before.transpose(order).tobytes(), after.transpose(order).tobytes()
