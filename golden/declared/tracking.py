"""Tracker scenarios, confirmed by brute force over all permutations and by plain loops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np

from conformance.bounds import FLOAT32, Format
from conformance.bounds.formats import gamma
from conformance.graph.pytorch_replay import import_torch
from golden.case import Bounds, Case, Confirmation, Golden, halves
from golden.sources.comparison import confirmed
from golden.sources.source import _torch_version
from refimpl.errors import VerificationError
from refimpl.ops.operation import Array
from refimpl.tracker import KeyframeTensors, TrackedFrame, Tracker, track_video

CLASSES, DIM, SIZE = 3, 8, (4, 5)
DECIMALS = 1e-9
SCORE_ROUNDINGS = 20 + 40
"""√(σσ) times the mean of the probabilities above a half: few roundings of numbers below one."""
COVERED = (
    "refimpl.association.associate",
    "refimpl.association.associate_similarities",
    "refimpl.association.cosine_similarity",
    "refimpl.association.unit_kernels",
    "refimpl.tracker.frame_masks",
    "refimpl.tracker.class_scores",
    "refimpl.tracker.is_keyframe",
    "refimpl.tracker.track_video",
)


@dataclass(frozen=True)
class Scenario:
    """A seeded video of so many keyframes, and how its kernels are associated.

    Attributes
    ----------
    name, seed, shows
        Of the golden.
    queries, keyframes
        How many.
    interval
        From one keyframe to the next, in frames.
    method
        Of `refimpl.association.associate`.
    tied
        Whether some kernels are equal, and none drifts.
    """

    name: str
    seed: int
    queries: int
    keyframes: int
    interval: int
    method: str
    tied: bool
    shows: str

    def case(self) -> Case:
        """Compute the golden."""
        tensors = _video(self.seed, self.queries, self.keyframes, self.interval, self.tied)
        frames = _tracked(tensors, self.interval, self.method)
        truth = {f"mask_logits{frame.frame}": frame.mask_logits for frame in frames}
        truth |= {"scores": frames[-1].scores, "mean_scores": frames[-1].mean_scores}
        decisions = _decisions(frames)

        def bounds(form: Format) -> Bounds:
            return _bounds(tensors, frames, self.interval, form)

        def confirm() -> list[Confirmation]:
            _compare(_brute_force(tensors, self.method), decisions)
            found = _by_loops(tensors, decisions, self.interval)
            source = f"PyTorch {_torch_version()}, float64"
            return [
                Confirmation("brute force over all permutations", 0.0, "decisions"),
                confirmed(source, found, truth, bounds(FLOAT32)),
            ]

        return Case(tensors, truth, bounds, confirm, decisions={"results": decisions})

    def golden(self) -> Golden:
        """Return the entry of the list."""
        arguments = {
            "queries": self.queries,
            "keyframes": self.keyframes,
            "keyframe_interval": self.interval,
            "method": self.method,
        }
        function = "refimpl.tracker.Tracker"
        return Golden(
            f"tracker/{self.name}", "tracker", function, arguments, self.seed, self.shows, self.case, COVERED
        )


_EVERY_FRAME = "every frame a keyframe; identities follow the kernels"
_TIES = "equal kernels: of equal totals the first permutation in dictionary order"
SCENARIOS = (
    Scenario("ordinary", 21, 6, 4, 1, "optimal", False, _EVERY_FRAME),
    Scenario("reuse", 22, 5, 3, 3, "optimal", False, "kernels are reused on two frames of three"),
    Scenario("greedy", 23, 6, 4, 1, "greedy", False, "the most similar pair first; margins may be negative"),
    Scenario("ties", 24, 5, 3, 1, "optimal", True, _TIES),
)


def goldens() -> Iterator[Golden]:
    """Yield the goldens of the tracker."""
    for scenario in SCENARIOS:
        yield scenario.golden()


def _video(seed: int, queries: int, keyframes: int, interval: int, tied: bool) -> dict[str, Array]:
    """Seeded tensors of a video: kernels drift and are shuffled; ``tied`` makes some of them equal."""
    rng = np.random.default_rng(seed)
    kernels = rng.normal(size=(queries, DIM))
    if tied:
        kernels[1], kernels[3] = kernels[0], kernels[2]
    tensors: dict[str, Array] = {}
    for k in range(keyframes):
        order = rng.permutation(queries)
        drift = 0.0 if tied else 0.25
        tensors[f"kernels{k}"] = halves(kernels[order] + drift * rng.normal(size=kernels.shape))
        tensors[f"class_logits{k}"] = halves(2 * rng.normal(size=(queries, CLASSES)))
        tensors[f"objectness{k}"] = halves(2 * rng.normal(size=(queries, 1)))
    for frame in range((keyframes - 1) * interval + 1):
        tensors[f"mask_features{frame}"] = halves(rng.normal(size=(DIM, *SIZE)))
    return tensors


@dataclass(frozen=True)
class _Replayed:
    """A network that gives a video's tensors, frame by frame."""

    tensors: dict[str, Array]
    interval: int

    def keyframe(self, frame: int) -> KeyframeTensors:
        """Everything of a keyframe."""
        names = ("class_logits", "objectness", "kernels")
        logits, objectness, kernels = (
            self.tensors[f"{name}{frame // self.interval}"].astype(np.float64) for name in names
        )
        return KeyframeTensors(logits, objectness, kernels, self.mask_features(frame))

    def mask_features(self, frame: int) -> Array:
        """The mask features alone."""
        return self.tensors[f"mask_features{frame}"].astype(np.float64)


def _tracked(tensors: dict[str, Array], interval: int, method: str) -> list[TrackedFrame]:
    count = sum(name.startswith("mask_features") for name in tensors)
    return list(track_video(range(count), _Replayed(tensors, interval), Tracker(interval, method=method)))


def _decisions(frames: list[TrackedFrame]) -> dict[str, Any]:
    associations = [frame.association for frame in frames if frame.association is not None]
    return {
        "permutations": [a.permutation.tolist() for a in associations],
        "totals": [round(a.total, 9) for a in associations],
        "margins": [round(a.margin, 9) for a in associations],
        "track_margins": [[round(float(m), 9) for m in a.track_margins] for a in associations],
        "identities": [frame.identities.tolist() for frame in frames],
        "labels": frames[-1].labels.tolist(),
    }


def _brute_force(tensors: dict[str, Array], method: str) -> dict[str, Any]:
    """Associate by trying every permutation; cosines are PyTorch's, rounded as documented."""
    torch = import_torch()
    count = sum(name.startswith("kernels") for name in tensors)
    current = torch.from_numpy(tensors["kernels0"]).double()
    found: dict[str, Any] = {"permutations": [], "totals": [], "margins": [], "track_margins": []}
    for k in range(1, count):
        after = torch.from_numpy(tensors[f"kernels{k}"]).double()
        cosines = torch.nn.functional.cosine_similarity(current[:, None], after[None], dim=-1)
        rounded = np.round(cosines.numpy() * 2.0**40) / 2.0**40
        totals = {p: sum(rounded[i, q] for i, q in enumerate(p)) for p in permutations(range(len(rounded)))}
        chosen = max(totals, key=lambda p: totals[p]) if method == "optimal" else _greedy(rounded)
        others = [max(t for p, t in totals.items() if p[i] != chosen[i]) for i in range(len(rounded))]
        margins = [totals[chosen] - other for other in others]
        found["permutations"].append(list(chosen))
        found["totals"].append(totals[chosen])
        found["margins"].append(min(margins))
        found["track_margins"].append(margins)
        current = after[list(chosen)]
    return found


def _greedy(cosines: Array) -> tuple[int, ...]:
    pairs = sorted(np.ndindex(*cosines.shape), key=lambda pair: (-cosines[pair], pair))
    chosen: dict[int, int] = {}
    for slot, query in pairs:
        if slot not in chosen and query not in chosen.values():
            chosen[slot] = query
    return tuple(chosen[slot] for slot in sorted(chosen))


def _bounds(tensors: dict[str, Array], frames: list[TrackedFrame], interval: int, form: Format) -> Bounds:
    """γₙ of the sums of absolute values; a logit's error moves a probability by a quarter of it."""
    masks = {
        f"mask_logits{frame.frame}": gamma(DIM + 1, form.unit_roundoff)
        * _absolute(tensors, frames, frame.frame, interval)
        for frame in frames
    }
    moved = max(float(bound.max()) for bound in masks.values()) / 4
    each = np.full(frames[-1].scores.shape, gamma(SCORE_ROUNDINGS, form.unit_roundoff) + moved)
    return {**masks, "scores": each, "mean_scores": each}


def _absolute(tensors: dict[str, Array], frames: list[TrackedFrame], frame: int, interval: int) -> Array:
    """|K| · |X_mask|, in the order of the slots."""
    order = _orders(frames)[frame // interval]
    kernels = np.abs(tensors[f"kernels{frame // interval}"][order].astype(np.float64))
    features = np.abs(tensors[f"mask_features{frame}"].astype(np.float64))
    return np.einsum("nd,dhw->nhw", kernels, features)


def _orders(frames: list[TrackedFrame]) -> list[list[int]]:
    first = list(range(len(frames[0].identities)))
    return [first, *(f.association.permutation.tolist() for f in frames if f.association is not None)]


def _compare(found: dict[str, Any], decisions: dict[str, Any]) -> None:
    for key, value in found.items():
        same = (
            value == decisions[key]
            if key == "permutations"
            else np.allclose(value, decisions[key], rtol=0, atol=DECIMALS)
        )
        if not same:
            raise VerificationError(
                f"brute force over all permutations has {key} {value}, not {decisions[key]}"
            )


def _by_loops(tensors: dict[str, Array], decisions: dict[str, Any], interval: int) -> dict[str, Array]:
    """Masks and scores by PyTorch, given the permutations.

    Raises
    ------
    VerificationError
        Births and deaths, one after another, are others than decided.
    """
    torch = import_torch()
    wide = {name: torch.from_numpy(x).double() for name, x in tensors.items()}
    orders = [list(range(len(decisions["labels"]))), *decisions["permutations"]]
    masks, scores, identities = {}, [], []
    lives = _Lives(len(orders[0]))
    for frame in range(sum(name.startswith("mask_features") for name in tensors)):
        k, order = frame // interval, orders[frame // interval]
        logits = torch.einsum("nd,dhw->nhw", wide[f"kernels{k}"][order], wide[f"mask_features{frame}"])
        masks[f"mask_logits{frame}"] = logits.numpy()
        if frame % interval == 0:
            pair = wide[f"class_logits{k}"][order].sigmoid() * wide[f"objectness{k}"][order].sigmoid()
            scores.append(pair.sqrt() * _maskness(logits)[:, None])
            lives.judge(scores[-1].max(1).values.tolist())
        identities.append(list(lives.born))
    if identities != decisions["identities"]:
        raise VerificationError(f"births and deaths: {identities}, not {decisions['identities']}")
    return {**masks, "scores": scores[-1].numpy(), "mean_scores": torch.stack(scores).mean(0).numpy()}


def _maskness(logits: Any) -> Any:
    """The mean probability of the pixels above the threshold."""
    p = logits.sigmoid()
    above = (p > 0.45).double()
    return (p * above).sum((1, 2)) / (above.sum((1, 2)) + 1e-6)


class _Lives:
    """The identity of every slot, −1 where none lives: born at a score of 0.4, dead below 0.2."""

    def __init__(self, slots: int) -> None:
        self.born, self.fresh = [-1] * slots, 0

    def judge(self, scores: list[float]) -> None:
        """Let identities die and be born by the best score of each slot."""
        for slot, best in enumerate(scores):
            if self.born[slot] >= 0 and best < 0.2:
                self.born[slot] = -1
            elif self.born[slot] < 0 and best >= 0.4:
                self.born[slot], self.fresh = self.fresh, self.fresh + 1
