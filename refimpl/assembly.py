"""Instances assembled from the rivals' predictions, once the copies of each are suppressed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.errors import ShapeError
from refimpl.inference import LARGEST_MASKS, Placement, placement_matrices
from refimpl.predictions import NamedOutputs, require_finite

Array = NDArray[Any]


@dataclass(frozen=True)
class Assembled:
    """The instances of one picture, the best first.

    Attributes
    ----------
    places : (K,) int
        Which of the network's predictions each is: a cell, a location, a prior, a proposal.
    labels : (K,) int
        Class index, from 0.
    scores : (K,) float
    masks : (K, H, W) bool
        At the picture's original size.
    """

    places: Array
    labels: Array
    scores: Array
    masks: Array

    def __len__(self) -> int:
        """Return the number of instances, K."""
        return len(self.places)

    def chosen(self, which: Array) -> Assembled:
        """Return some of the instances: bool (K,), or their numbers."""
        return Assembled(self.places[which], self.labels[which], self.scores[which], self.masks[which])


def picture_of(outputs: NamedOutputs, index: int) -> dict[str, Array]:
    """Return one picture's outputs by name, each without its batch axis.

    Raises
    ------
    ShapeError, NonFiniteError
        The batch has no such picture; an output has NaN or infinity.
    """
    found = {}
    for name, array in outputs.items():
        if not 0 <= index < len(array):
            raise ShapeError(f"index {index} is outside the batch of {len(array)}")
        require_finite(array, name)
        found[name] = array[index]
    return found


def masks_of_picture(probabilities: Array, placement: Placement, threshold: float) -> Array:
    """Return the masks (K, H, W) at the picture's original size, of probabilities (K, h, w) on the input.

    Resized bilinearly to the padded input, cropped, resized to the picture, then compared: strictly above
    ``threshold`` is mask.

    Raises
    ------
    ShapeError
        They would need more than 8 GiB.
    """
    count, height, width = len(probabilities), *placement.original
    if count * height * width > LARGEST_MASKS:
        raise ShapeError(f"{count} masks of {height}×{width} pixels need more than {LARGEST_MASKS} bytes")
    rows, columns = placement_matrices(placement, probabilities.shape[1:], probabilities.dtype)
    masks = np.empty((count, height, width), dtype=bool)
    for i, probability in enumerate(probabilities):
        np.greater((rows @ probability) @ columns.T, threshold, out=masks[i])
    return masks
