"""What a candidate's own code returns, as arrays by name; what it does instead, as one error."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from conformance.files import FULL, no_space
from refimpl.errors import CandidateError, MobileInstError, SpaceError
from refimpl.ops.operation import Array

Given = Array | Mapping[str, Array]
"""What a candidate is given: images, or a graph's inputs by name, in the graph's order."""


def operands_of(given: Given) -> list[Array]:
    """Return what a function is called with."""
    return list(given.values()) if isinstance(given, Mapping) else [given]


def attempted(
    method: Callable[[Any], Any], given: Any, passed: type[MobileInstError] = CandidateError
) -> dict[str, Array]:
    """Return the arrays that a candidate's method returns.

    Parameters
    ----------
    method, given
        What is called, and with what.
    passed
        Errors that say enough as they are.

    Raises
    ------
    CandidateError
        It raised another error, or returned something other than arrays of numbers.
    SpaceError
        No space is left on this machine, which is no fault of the candidate.
    MobileInstError
        One that is passed.
    """
    try:
        result = method(given)
    except (passed, SpaceError):
        raise
    except Exception as error:
        raise failure_of(error) from error
    return named_arrays(result)


def failure_of(error: BaseException) -> MobileInstError:
    """Return what an error in a candidate's run is: a crash, unless no space is left on this machine."""
    if isinstance(error, OSError) and error.errno in FULL:
        return no_space(error)
    return CandidateError(f"it crashes: {crash_of(error)}")


def crash_of(error: BaseException) -> str:
    """Return an error in one line, with the place in the user's own code at which it happened."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not is_ours(frame.filename)]
    own = [frame for frame in theirs if not frame.filename.startswith((sys.prefix, sys.base_prefix, "<"))]
    places = [f" ({Path(frame.filename).name}:{frame.lineno})" for frame in own or theirs]
    return f"{type(error).__name__}: {first_line(error)}{places[-1] if places else ''}"


def is_ours(filename: str) -> bool:
    """Tell whether a file of code belongs to this project."""
    return any(f"{os.sep}{package}{os.sep}" in filename for package in ("conformance", "golden", "refimpl"))


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return next(iter(str(error).strip().splitlines()), "no message")


def named_arrays(result: Any) -> dict[str, Array]:
    """Return what a candidate returned as arrays by name; a sequence's are numbered.

    Raises
    ------
    CandidateError
        It holds something other than arrays of numbers.
    """
    try:
        named = {str(name): np.asarray(value) for name, value in _items(result) if value is not None}
    except Exception as error:  # other people's containers and tensors
        what = f"{type(error).__name__}: {first_line(error)}"
        raise CandidateError(f"its outputs are not arrays of numbers: {what}") from error
    wrong = [f"{name} is {array.dtype}" for name, array in named.items() if array.dtype.kind not in "fiub"]
    if wrong or not named:
        what = "; ".join(wrong) or f"it returned {type(result).__name__} without arrays"
        raise CandidateError(f"its outputs are not arrays of numbers: {what}")
    return named


def _items(result: Any) -> list[tuple[str, Any]]:
    if callable(getattr(result, "items", None)):
        return list(result.items())
    if hasattr(result, "_asdict"):
        return list(result._asdict().items())
    if hasattr(result, "__dataclass_fields__"):
        return [(name, getattr(result, name)) for name in result.__dataclass_fields__]
    listed = result if isinstance(result, list | tuple) else [result]
    return [(f"output_{place}", value) for place, value in enumerate(listed)]
