"""The loss of association: an object's kernel must resemble its own kernel of another frame most.

Not the paper's, which trains kernels for their masks alone and compares them by cosine at inference (section
3.4). On scenes whose objects travel, an object is handed from query to query, and a kernel trained so
resembles its query's next kernel more than its object's. This asks the tracker's own question in training:
which of the other frame's N cosines is the object's (cross-entropy, both ways, as in QDTrack and IDOL).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from refimpl.losses import Term
from refimpl.matching import Matching

Array = NDArray[Any]

TEMPERATURE = 0.1
"""What cosines are divided by before they are compared."""


class Followed(NamedTuple):
    """Objects seen in both frames of a pair: which pair, and the query of each frame, (M,) int64 each."""

    pairs: Array
    first: Array
    second: Array


def followed_objects(matchings: Sequence[Matching], identities: Sequence[Array]) -> Followed:
    """Find the queries of the objects that both frames of a pair show.

    Parameters
    ----------
    matchings, identities : 2·B each
        Of the first frames, then of the second frames.
    """
    half = len(matchings) // 2
    owners = [
        dict(zip(identity[m.instances].tolist(), m.queries.tolist(), strict=True))
        for m, identity in zip(matchings, identities, strict=True)
    ]
    found = [
        (pair, before[identity], after[identity])
        for pair, (before, after) in enumerate(zip(owners[:half], owners[half:], strict=True))
        for identity in before.keys() & after.keys()
    ]
    return Followed(*np.array(sorted(found), np.int64).reshape(-1, 3).T)


def association_loss(cosines: Array, objects: Followed) -> Term:
    """Cross-entropy of each followed object's kernel among the other frame's, the mean of both ways.

    Parameters
    ----------
    cosines : (B, N, N)
        Of each first frame's kernels with the second frame's.

    Returns
    -------
    Term
        Gradient (B, N, N) with respect to the cosines; 0 and zeros where no object is followed.
    """
    pairs, first, second = objects
    forward = _cross_entropy(cosines, pairs, first, second)
    backward = _cross_entropy(cosines.swapaxes(1, 2), pairs, second, first)
    gradient = (forward.gradient + backward.gradient.swapaxes(1, 2)) / 2
    return Term((forward.value + backward.value) / 2, gradient)


def _cross_entropy(cosines: Array, pairs: Array, rows: Array, chosen: Array) -> Term:
    """Mean cross-entropy of rows of cosines, each of one of the pairs, against the column chosen."""
    every, count = np.arange(len(pairs)), max(len(pairs), 1)
    logarithms = log_softmax(cosines[pairs, rows] / TEMPERATURE, axis=1)
    slope = np.exp(logarithms)
    slope[every, chosen] -= 1
    gradient = np.zeros_like(cosines)
    gradient[pairs, rows] = slope / (TEMPERATURE * count)
    return Term(-logarithms[every, chosen].sum() / count, gradient)
