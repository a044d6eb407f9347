"""The pictures of the held-out split that a network does worst on, drawn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from conformance.evaluation.segmentations import mask_overlaps
from conformance.pictures.picture import annotate
from conformance.video.tracking import contact_sheet
from refimpl import held_out
from refimpl.inference import Instances, postprocess, preprocess
from refimpl.predictions import Predictions
from refimpl.scenes import LABELS, Frame

Array = NDArray[np.uint8]
SHOWN = 0.4


def quality(frame: Frame, found: Instances) -> float:
    """Return how well a picture was done, 0…1: the sum of IoU over the number of objects, found or missed.

    Each object that is seen enough counts with the best of the shown instances of its class; what is shown of
    nothing counts as an object missed.
    """
    shown = np.flatnonzero(found.scores > SHOWN)
    asked = np.flatnonzero(held_out.seen_enough(frame.masks))
    if not len(shown) or not len(asked):
        return float(len(shown) == len(asked))
    overlaps = mask_overlaps(frame.masks[asked], found.masks[shown])
    overlaps *= frame.labels[asked][:, None] == found.labels[shown]
    invented = np.count_nonzero(mask_overlaps(frame.masks, found.masks[shown]).max(axis=0) < 0.5)
    return float(overlaps.max(axis=1).sum() / (len(asked) + invented))


def worst_pictures(
    network: Callable[[NDArray[np.float32]], Predictions], count: int, wanted: int = 12
) -> tuple[Array, list[int]]:
    """Return a sheet of the pictures done worst, and their indices, the worst first."""
    rated = []
    for index in range(count):
        frame = held_out.held_out_picture(index)
        images, placement = preprocess(frame.picture, "native", np.float32)
        found = postprocess(network(images), placement)
        rated.append((quality(frame, found), index, annotate(frame.picture, found, names=LABELS)))
    rated.sort(key=lambda one: one[:2])
    sheet: Array = contact_sheet([drawn for _, _, drawn in rated[:wanted]])
    return sheet, [index for _, index, _ in rated[:wanted]]
