"""Ways of tracking to compare: keyframe intervals, associations, kernels unnormalised, and the truth's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from conformance.evidence.carried_objects import finders
from refimpl.association import Association, cosine_similarity
from refimpl.tracker import KeyframeTensors, TrackedFrame, Tracker, class_scores, frame_masks

Array = NDArray[Any]


@dataclass(frozen=True)
class Way:
    """A way of tracking: keyframe interval, association, and whether kernels are compared unnormalised.

    With ``true_association`` the truth says which query continues an object that was found at the last
    keyframe: what an association of two keyframes can reach at best, or nearly.
    """

    keyframe_interval: int = 1
    method: str = "optimal"
    dot_product: bool = False
    true_association: bool = False

    def tracker(self, masks: Sequence[Array]) -> Tracker:
        """Return a tracker that goes this way; ``masks`` are the truth's, one (shapes, H, W) per frame."""
        if self.true_association:
            return _TrueTracker(self.keyframe_interval, masks)
        kind = _DotProductTracker if self.dot_product else Tracker
        return kind(self.keyframe_interval, method=self.method)


class _DotProductTracker(Tracker):
    """Compares kernels by their dot product, which longer kernels win; not what the paper does."""

    def _associate(self, kernels: Array) -> tuple[Association | None, Array]:
        if self.state.keyframes == 0:
            return None, np.arange(len(kernels))
        return None, linear_sum_assignment(self.state.kernels @ kernels.T, maximize=True)[1]


class _TrueTracker(Tracker):
    """Continues objects as the truth has it, and what is no object by cosine."""

    def __init__(self, keyframe_interval: int, masks: Sequence[Array]) -> None:
        super().__init__(keyframe_interval)
        self.masks = masks
        self.queries: dict[int, int] = {}
        self.slots: dict[int, int] = {}

    def keyframe(self, tensors: KeyframeTensors) -> TrackedFrame:
        """Take the next frame, a keyframe, and see which query has found which object."""
        logits = frame_masks(tensors.kernels, tensors.mask_features)
        found = finders(class_scores(tensors, logits), logits, self.masks[self.state.frame])
        self.queries = {shape: queries[0] for shape, queries in found.items()}
        return super().keyframe(tensors)

    def _associate(self, kernels: Array) -> tuple[Association | None, Array]:
        order = np.arange(len(kernels))
        if self.state.keyframes:
            similarities = cosine_similarity(self.state.kernels, kernels)
            for shape in self.slots.keys() & self.queries.keys():
                similarities[self.slots[shape], self.queries[shape]] += 2 * len(kernels)
            order = linear_sum_assignment(similarities, maximize=True)[1]
        slots = np.argsort(order)
        self.slots = {shape: int(slots[query]) for shape, query in self.queries.items()}
        return None, order
