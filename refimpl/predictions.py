"""What inference and the losses read of a forward pass, from whichever network it came."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from refimpl.errors import NonFiniteError, ShapeError

Array = NDArray[Any]


@dataclass(frozen=True)
class NamedOutputs:
    """What a network predicts: each field is a tensor, or None where the network has none."""

    def items(self) -> Iterator[tuple[str, Array]]:
        """Yield the name and tensor of each field that the network has."""
        named = ((field.name, getattr(self, field.name)) for field in fields(self))
        return ((name, tensor) for name, tensor in named if tensor is not None)


class Predictions(Protocol):
    """Logits, batch first; N queries, masks of any resolution."""

    @property
    def class_logits(self) -> Array:
        """(B, N, classes)."""

    @property
    def objectness(self) -> Array:
        """(B, N, 1)."""

    @property
    def masks(self) -> Array:
        """(B, N, h, w)."""


def check_predictions(predictions: Predictions) -> None:
    """Raise `ShapeError` or `NonFiniteError` unless the three tensors fit together and are finite."""
    class_logits, objectness, masks = predictions.class_logits, predictions.objectness, predictions.masks
    fit = class_logits.ndim == 3 and objectness.shape == (*class_logits.shape[:2], 1)
    fit = fit and masks.ndim == 4 and masks.shape[:2] == class_logits.shape[:2]
    if not fit or class_logits.size == 0 or masks.size == 0:
        raise ShapeError(
            f"class_logits {class_logits.shape}, objectness {objectness.shape} and masks {masks.shape} "
            "do not fit; expected (B, N, classes), (B, N, 1) and (B, N, h, w), none empty"
        )
    for name, array in ("class_logits", class_logits), ("objectness", objectness), ("masks", masks):
        require_finite(array, name)


def require_finite(array: Array, name: str) -> None:
    """Raise `NonFiniteError` naming the first element of ``array`` that is NaN or infinite."""
    finite = np.isfinite(array)
    if not finite.all():
        first = tuple(int(i) for i in np.unravel_index(np.argmin(finite), array.shape))
        raise NonFiniteError(
            f"{name} has {np.count_nonzero(~finite)} elements that are NaN or infinite, the first at "
            f"{first}; give finite numbers"
        )
