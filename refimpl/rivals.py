"""How the trackers of the paper's Table 2, and two of today, give detections identities.

Each follows the public code it names, in NumPy and float64. What surrounds it there (detectors, their
thresholds, the networks that make embeddings) is not part of it. Scores closer than 2⁻⁴⁰ count as equal, as
in `refimpl.association`, so that no rounding decides; of equal ones the first is the largest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.special import log_softmax, softmax

from refimpl.association import RESOLUTION, associate, unit_kernels
from refimpl.detections import Detections, box_overlaps, mask_overlaps
from refimpl.errors import NonFiniteError, ShapeError

Array = NDArray[Any]
NOBODY = -1
"""Identity of a detection that is given none."""


class RivalTracker(ABC):
    """A tracker of one video: asked for the identities of each frame's detections in turn.

    Attributes
    ----------
    every_query : bool
        Whether it takes all queries of a network in every frame, not what a threshold leaves.
    scores : (n, tracks) float64 or None
        Its own score of every detection with every track at the last frame, if there were tracks.
    scored : list of int
        The identities of those tracks.
    """

    every_query = False

    def __init__(self) -> None:
        self.scores: Array | None = None
        self.scored: list[int] = []
        self._length: int | None = None

    def identify(self, found: Detections) -> Array:
        """Give the next frame's detections identities.

        Returns
        -------
        Array, (n,) int64
            An identity for each detection, −1 for none.

        Raises
        ------
        ShapeError, NonFiniteError
            Embeddings of another length than before; a direction of an embedding that is zero.
        """
        self.scores = None
        self._length = self._length or found.embeddings.shape[1]
        if found.embeddings.shape[1] != self._length:
            raise ShapeError(
                f"embeddings {found.embeddings.shape} follow embeddings of length {self._length}; "
                "a video has one length"
            )
        return self._identified(replace(found, embeddings=found.embeddings.astype(np.float64)))

    @abstractmethod
    def _identified(self, found: Detections) -> Array:
        """The identities of the next frame's detections."""


class LastSeenTracker(RivalTracker):
    """Remembers one detection of each track, all tracks for ever, and each new one by the next number."""

    def __init__(self) -> None:
        super().__init__()
        self.memory: list[Detections] = []

    def _identified(self, found: Detections) -> Array:
        if not self.memory:
            self.memory = _rows(found)
            return np.arange(len(found))
        if not len(found):
            return np.zeros(0, np.int64)
        self.scored = list(range(len(self.memory)))
        return self._settled(found, Detections.join(self.memory))

    @abstractmethod
    def _settled(self, found: Detections, known: Detections) -> Array:
        """Identities of detections, given what is remembered of each track."""

    def _begin(self, row: Detections) -> int:
        self.memory.append(row)
        return len(self.memory) - 1


def _rows(found: Detections) -> list[Detections]:
    return [found.take([row]) for row in range(len(found))]


def _same_labels(found: Detections, known: Detections) -> Array:
    """(n, tracks) bool; labels that are not known are taken as equal."""
    if found.labels is None or known.labels is None:
        return np.ones((len(found), len(known)), bool)
    same: Array = found.labels[:, None] == known.labels
    return same


def _scores_of(found: Detections) -> Array:
    """(n,) scores, 1 where they are not known."""
    return np.ones(len(found)) if found.scores is None else found.scores.astype(np.float64)


def _rounded(scores: Array) -> Array:
    rounded: Array = np.round(scores / RESOLUTION) * RESOLUTION
    return rounded


def _with_new(pairs: Array, new: float) -> Array:
    """The score of a new track in front of those of the tracks: (n, 1 + tracks)."""
    return np.concatenate([np.full((len(pairs), 1), new), pairs], axis=1)


class OneScoreTracker(LastSeenTracker):
    """MaskTrack R-CNN: appearance, score, box IoU and label in one score; SipMask-VIS and SG-Net do the same.

    Each detection takes the track, or the new one, of its largest score. Of several that want one track a
    later one takes it only with a larger score, and the earlier keeps its identity too.

    Sources: https://github.com/youtubevos/MaskTrackRCNN (10e5d7d), mmdet/models/detectors/two_stage.py;
    https://github.com/JialeCao001/SipMask (bc63fa9), SipMask-VIS/mmdet/models/anchor_heads/sipmask_head.py;
    https://github.com/goodproj13/SG-Net (5f8aded), mmdet/models/anchor_heads/sgnet_head.py.
    """

    SCORE, OVERLAP, LABEL = 1.0, 2.0, 10.0
    LEAST = -100.0

    def _settled(self, found: Detections, known: Detections) -> Array:
        table = _rounded(self._table(found, known))
        self.scores = table[:, 1:]
        identities = np.full(len(found), NOBODY)
        best = np.full(len(known), self.LEAST)
        for index, choice in enumerate(table.argmax(axis=1)):
            row, track = found.take([index]), choice - 1
            if choice == 0:
                identities[index] = self._begin(row)
            elif table[index, choice] > best[track]:
                identities[index], best[track] = track, table[index, choice]
                # The label of a track stays that of its first detection.
                self.memory[track] = replace(row, labels=self.memory[track].labels)
        return identities

    def _table(self, found: Detections, known: Detections) -> Array:
        likelihood = log_softmax(_with_new(found.embeddings @ known.embeddings.T, 0.0), axis=1)
        with np.errstate(divide="ignore"):
            certain = np.log(_scores_of(found))[:, None]
        overlap = np.zeros((len(found), len(known)))
        if found.boxes is not None and known.boxes is not None:
            overlap = box_overlaps(found.boxes, known.boxes, last_pixel=1)
        same = _with_new(_same_labels(found, known), 1.0)
        table: Array = (
            likelihood + self.SCORE * certain + self.OVERLAP * _with_new(overlap, 0.0) + self.LABEL * same
        )
        return table


class STMaskTracker(LastSeenTracker):
    """STMask: cosine, mask IoU and box IoU in one score, with a bar of 0.3 of each IoU for a new track.

    Of several detections that want one track the surest has it, whichever wants it more; the others have
    none. This is the rule without temporal fusion, which needs a network to move tracks to the next frame.

    Source: https://github.com/MinghanLi/STMask (b8ca9ef), layers/functions/track.py, compute_comp_scores in
    TF_utils.py, match_coeff in datasets/config.py.
    """

    MASK, BOX = 1.0, 2.0
    BAR = 0.3

    def _settled(self, found: Detections, known: Detections) -> Array:
        overlaps = self._overlaps(found, known)
        table = _rounded(self._table(found, known, overlaps))
        self.scores = table[:, 1:]
        certain = _scores_of(found)
        identities = np.full(len(found), NOBODY)
        best: dict[int, int] = {}
        for index, choice in enumerate(table.argmax(axis=1)):
            track = int(choice) - 1
            if choice == 0:
                identities[index] = self._begin(found.take([index]))
            elif certain[index] > (certain[best[track]] if track in best else -1):
                if track in best:
                    identities[best[track]] = NOBODY
                identities[index], best[track] = track, index
                # Where two tracks lie on a detection, what is remembered of them stays.
                if np.count_nonzero(overlaps[0][index] > self.BAR) < 2:
                    self.memory[track] = found.take([index])
        return identities

    def _overlaps(self, found: Detections, known: Detections) -> list[Array]:
        """Of masks and of boxes, (n, tracks); 0 where they are not known."""
        overlaps = [np.zeros((len(found), len(known)))] * 2
        if found.masks is not None and known.masks is not None:
            overlaps[0] = mask_overlaps(found.masks, known.masks)
        if found.boxes is not None and known.boxes is not None:
            overlaps[1] = box_overlaps(found.boxes, known.boxes)
        return overlaps

    def _table(self, found: Detections, known: Detections, overlaps: list[Array]) -> Array:
        table = (_with_new(unit_kernels(found.embeddings) @ unit_kernels(known.embeddings).T, 0.0) + 1) / 2
        given = (found.masks is not None, found.boxes is not None)
        for there, weight, overlap in zip(given, (self.MASK, self.BOX), overlaps, strict=True):
            table = table + weight * _with_new(overlap, self.BAR if there else 0.0)
        return table


class CrossVISTracker(LastSeenTracker):
    """CrossVIS as published: cosine plus box IoU with the last of each track of the same class, from 0.4 on.

    Each detection takes the track of its largest score; of several that want one track the one with the
    largest score has it, and the others are dropped. The public code has no softmax in either direction.

    Source: https://github.com/hustvl/CrossVIS (378f4f3), tools/test_vis.py.
    """

    LEAST, OTHER_CLASS, EPSILON = 0.4, -1.0, 1e-5

    def _settled(self, found: Detections, known: Detections) -> Array:
        scores = self.scores = _rounded(self._table(found, known))
        identities = np.full(len(found), NOBODY)
        best: dict[int, int] = {}
        for index, track in enumerate(scores.argmax(axis=1).tolist()):
            if scores[index, track] < self.LEAST:
                identities[index] = self._begin(found.take([index]))
            elif track not in best or scores[index, track] > scores[best[track], track]:
                if track in best:
                    identities[best[track]] = NOBODY
                identities[index], best[track] = track, index
                self.memory[track] = found.take([index])
        return identities

    def _table(self, found: Detections, known: Detections) -> Array:
        table = _cosines(found.embeddings, known.embeddings)
        if found.boxes is not None and known.boxes is not None:
            table = table + box_overlaps(found.boxes, known.boxes, epsilon=self.EPSILON)
        return np.where(_same_labels(found, known), table, self.OTHER_CLASS)


def _cosines(found: Array, known: Array) -> Array:
    """Cosines; where the public code divides by a norm of zero, an error."""
    norms = [np.linalg.norm(each, axis=1, keepdims=True) for each in (found, known)]
    if any((norm == 0).any() or not np.isfinite(norm).all() for norm in norms):
        raise NonFiniteError("an embedding of norm 0, or of one that overflows, has no direction")
    cosines: Array = (found / norms[0]) @ (known / norms[1]).T
    return cosines


class MinVISTracker(LastSeenTracker):
    """MinVIS: all queries one-to-one with the last frame's by cosine, the largest total; ties as SciPy does.

    The public code has as many queries in every frame. Where there are fewer or more, the pairs of SciPy's
    rectangular assignment are made: a slot left over keeps its embedding, a query left over has no identity.

    Source: https://github.com/NVlabs/MinVIS (d039c54), minvis/video_maskformer_model.py, match_from_embds.
    """

    every_query = True

    def _settled(self, found: Detections, known: Detections) -> Array:
        self.scores = _rounded(self._table(found, known))
        slots, queries = self._pairs(found, known)
        identities = np.full(len(found), NOBODY)
        identities[queries] = slots
        for slot, query in zip(slots, queries, strict=True):
            self.memory[slot] = found.take([query])
        return identities

    def _table(self, found: Detections, known: Detections) -> Array:
        return _cosines(found.embeddings, known.embeddings)

    def _pairs(self, found: Detections, known: Detections) -> tuple[Array, Array]:
        slots, queries = linear_sum_assignment((1 - _rounded(self._table(found, known))).T)
        return slots, queries


class SparseInstVISTracker(MinVISTracker):
    """SparseInst-VIS, the paper's own baseline, assumed to be the paper's kernel association at T = 1.

    The paper says only that its authors built it; nothing of it is published. Source: section 3.4, Table 2.
    """

    def _table(self, found: Detections, known: Detections) -> Array:
        return unit_kernels(found.embeddings) @ unit_kernels(known.embeddings).T

    def _pairs(self, found: Detections, known: Detections) -> tuple[Array, Array]:
        return associate(known.embeddings, found.embeddings).pairs


@dataclass
class _Tracklet:
    """What IDOL remembers of a track: its last embeddings and scores, and when and how often it was seen."""

    embeddings: list[Array] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    last: int = 0
    seen: int = 0

    def embedding(self) -> Array:
        """Their mean, the surer and the later weighing more."""
        count = len(self.scores)
        weights = np.array(self.scores) + np.arange(1, count + 1) / count
        mean: Array = (np.stack(self.embeddings) * weights[:, None]).sum(axis=0) / weights.sum()
        return mean


class IDOLTracker(RivalTracker):
    """IDOL: softmax of dot products in both directions, above 0.5, with a track's last three detections.

    Detections that lie on one before them are dropped first. Then each in turn takes the track of its largest
    score, which no other has then; where several are above 0.5, tracks seen in more frames weigh more. What
    is left begins a track with a score above 0.2. A track is forgotten after ten frames unseen.

    Source: https://github.com/wjf5203/VNext (db33833), projects/IDOL/idol/models/tracker.py, with the
    settings of idol.py and config.py there (weighted by frames and time).
    """

    SAME_MASK, LEAST, BIRTH = 0.5, 0.5, 0.2
    LENGTH, PATIENCE = 3, 10

    def __init__(self) -> None:
        super().__init__()
        self.tracklets: dict[int, _Tracklet] = {}
        self._frame = self._born = 0

    def _identified(self, found: Detections) -> Array:
        identities = np.full(len(found), NOBODY)
        kept = self._apart(found)
        if len(kept):
            chosen = found.take(kept)
            identities[kept] = self._chosen(chosen)
            self._remember(chosen, identities[kept])
        self._frame += 1
        return identities

    def _apart(self, found: Detections) -> list[int]:
        """Detections that lie on no other kept before."""
        if found.masks is None:
            return list(range(len(found)))
        overlaps = mask_overlaps(found.masks, found.masks, epsilon=1e-6)
        kept: list[int] = []
        for index in range(len(found)):
            if not (overlaps[kept, index] > self.SAME_MASK).any():
                kept.append(index)
        return kept

    def _chosen(self, found: Detections) -> Array:
        identities = np.full(len(found), NOBODY)
        if self.tracklets:
            known = np.stack([track.embedding() for track in self.tracklets.values()])
            self.scored = list(self.tracklets)
            self.scores = _rounded(self._table(found.embeddings, known))
            self._match(identities, self.scores.copy())
        births = (identities == NOBODY) & (_scores_of(found) > self.BIRTH)
        count = int(births.sum())
        identities[births] = np.arange(self._born, self._born + count)
        self._born += count
        return identities

    def _table(self, found: Array, known: Array) -> Array:
        products = found @ known.T
        table: Array = (softmax(products, axis=1) + softmax(products, axis=0)) / 2
        return table

    def _match(self, identities: Array, scores: Array) -> None:
        """Give tracks to detections in turn; ``scores`` are crossed out as they are given."""
        names = list(self.tracklets)
        seen = np.array([track.seen for track in self.tracklets.values()], np.float64)
        for index in range(len(identities)):
            weighed = _rounded(self._weighed(scores[index], seen))
            track = int(weighed.argmax())
            if weighed[track] > self.LEAST:
                identities[index] = names[track]
                scores[np.arange(len(scores)) != index, track] = 0

    def _weighed(self, scores: Array, seen: Array) -> Array:
        """The scores of one detection, multiplied by how often tracks were seen if several are large."""
        large = scores > self.LEAST
        if np.count_nonzero(large) < 2:
            return scores
        weighed: Array = scores * np.where(large, seen, seen[large].mean())
        return weighed

    def _remember(self, found: Detections, identities: Array) -> None:
        for index in np.flatnonzero(identities != NOBODY):
            track = self.tracklets.setdefault(int(identities[index]), _Tracklet())
            track.embeddings = [*track.embeddings, found.embeddings[index]][-self.LENGTH :]
            track.scores = [*track.scores, float(_scores_of(found)[index])][-self.LENGTH :]
            track.last, track.seen = self._frame, track.seen + 1
        self.tracklets = {
            name: track for name, track in self.tracklets.items() if self._frame - track.last < self.PATIENCE
        }


RULES: dict[str, Callable[[], RivalTracker]] = {
    "masktrack-rcnn, sipmask-vis, sg-net": OneScoreTracker,
    "stmask": STMaskTracker,
    "crossvis": CrossVISTracker,
    "sparseinst-vis": SparseInstVISTracker,
    "minvis": MinVISTracker,
    "idol": IDOLTracker,
}
"""Names of those who share a rule → a tracker for a new video."""

RIVALS = {name: make for names, make in RULES.items() for name in names.split(", ")}
"""Name → a tracker for a new video."""


class RivalAssociation:
    """A rival as an association of two keyframes, for what asks for no more than kernels.

    Parameters
    ----------
    name : str
        One of `RIVALS`.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, previous: Array, current: Array) -> Array:
        """Return for each previous kernel the current one of its identity, the last of several, −1 for none.

        Parameters
        ----------
        previous, current : (n, dim) and (m, dim) floating

        Returns
        -------
        Array, (n,) int64
        """
        if previous.ndim == 2 and current.ndim == 2 and previous.shape[1] != current.shape[1]:
            raise ShapeError(f"previous kernels {previous.shape} and current kernels {current.shape} differ")
        tracker = RIVALS[self.name]()
        before, after = (tracker.identify(Detections(kernels)) for kernels in (previous, current))
        holder = {int(name): index for index, name in enumerate(after) if name != NOBODY}
        return np.array([holder.get(int(name), NOBODY) for name in before], np.int64)
