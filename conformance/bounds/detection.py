"""Detection: which boxes are left is exact, unless one overlaps another by the threshold itself."""

from __future__ import annotations

import numpy as np

from conformance.bounds.step import Bound, Step, rule
from refimpl.ops.operation import Array

ROUNDINGS_OF_AN_OVERLAP = 16
"""Of three areas of rounded sides, the union, which is at least half of their sum, and the quotient."""


@rule("NonMaxSuppression", stored=True)
def non_max_suppression(step: Step) -> Bound:
    """0 if no overlap is within rounding of the threshold, else none."""
    boxes, scores = step.required(0), step.required(1)
    most, threshold, least = (step.operand(place) for place in (2, 3, 4))
    hair = step.gamma(ROUNDINGS_OF_AN_OVERLAP) * _widening(step, boxes)
    middle = 0.0 if threshold is None else float(threshold.reshape(-1)[0])
    sides = [step.run(boxes, scores, most, np.asarray(middle + sign * hair), least) for sign in (-1, 1)]
    # Below zero nothing is compared: what does not overlap is never taken away.
    return 0.0 if all(np.array_equal(side, step.y) for side in sides) else None


def _widening(step: Step, boxes: Array) -> float:
    """Return by how much more a side errs whose ends are computed from a centre and a size."""
    if not step.attributes.get("center_point_box", 0) or not boxes.size:
        return 1.0
    sizes = np.abs(boxes[..., 2:])
    least = float(sizes.min(initial=np.inf, where=sizes > 0))
    return 1 + 2 * float(np.abs(boxes).max()) / least
