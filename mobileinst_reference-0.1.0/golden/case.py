"""What a golden is: a declared call of the reference, its inputs, truth and bounds, and who confirms it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from conformance.bounds import FLOAT16, FLOAT32, Format
from refimpl.ops.operation import Array

FORMATS = {"float32": FLOAT32, "float16": FLOAT16}
"""Name in the files → the format a candidate may compute and store in."""

REPRODUCTION = 2.0**-26
"""Part of the float32 bound within which two float64 implementations agree: u₆₄ / u₃₂ = 2⁻²⁹, times 8."""

Bounds = dict[str, Array]


@dataclass(frozen=True)
class Confirmation:
    """An implementation that is not ours, and how far its result is from the golden.

    Attributes
    ----------
    source
        Name and version.
    disagreement
        The largest, over all outputs.
    unit
        ``absolute``, ``ulp`` of float64, or ``decisions`` that differ.
    """

    source: str
    disagreement: float
    unit: str = "absolute"


@dataclass(frozen=True)
class Case:
    """The content of a golden.

    Attributes
    ----------
    inputs
        Name → array as fed: floats are float32 and exact in float16.
    truth
        Name → float64 or integer array.
    bounds
        Format → name → how far a correct candidate's output may be; what is left out must be equal.
    confirm
        Computes the same with other implementations; raises if one disagrees.
    model
        The same computation as a float32 ONNX model, serialised.
    decisions
        Discrete results, as JSON, with their inputs if those are discrete.
    settled
        Computes the truth to the last bit of float64, where it is a special function; the file holds this.
    """

    inputs: Mapping[str, Array]
    truth: Mapping[str, Array]
    bounds: Callable[[Format], Bounds]
    confirm: Callable[[], list[Confirmation]]
    model: Callable[[], bytes] | None = None
    decisions: dict[str, Any] | None = None
    settled: Callable[[], dict[str, Array]] | None = None


@dataclass(frozen=True)
class Golden:
    """One entry of the declared list.

    Attributes
    ----------
    name
        ``folder/name``, the stem of its files.
    kind
        operation, probe, block, model, loss, picture, tracker or evaluation.
    function
        What produced it, as an importable name.
    arguments
        The arguments that are no tensors, as JSON.
    seed
        Of its random inputs; None if nothing is random.
    shows
        What a wrong result here means, in one line.
    case
        Makes the content.
    covers
        Further public functions that took part.
    """

    name: str
    kind: str
    function: str
    arguments: dict[str, Any]
    seed: int | None
    shows: str
    case: Callable[[], Case]
    covers: tuple[str, ...] = field(default=())


def halves(values: Any) -> Array:
    """Return the nearest float32 values that are exact in float16: every format is fed the same numbers."""
    return np.asarray(np.asarray(values).astype(np.float16), np.float32)


def json_value(value: Any) -> Any:
    """Return an argument in the types of JSON."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, tuple | list):
        return [json_value(item) for item in value]
    return value
