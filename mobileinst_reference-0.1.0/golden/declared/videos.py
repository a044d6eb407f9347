"""Tracker scenarios and miniature YouTube-VIS evaluations, confirmed by brute force and by pycocotools."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from conformance.bounds import FLOAT32, Format
from conformance.bounds.formats import gamma
from conformance.evaluation import ytvis
from conformance.graph.pytorch_replay import import_torch
from golden.case import Bounds, Case, Confirmation, Golden, halves
from golden.sources.comparison import confirmed
from golden.sources.source import _torch_version, _version
from refimpl.errors import VerificationError
from refimpl.ops.operation import Array
from refimpl.tracker import KeyframeTensors, TrackedFrame, Tracker, track_video

CLASSES, DIM, SIZE = 3, 8, (4, 5)
DECIMALS = 1e-9


# --- tracker --------------------------------------------------------------------------------------


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


def _scenario(
    seed: int, queries: int, keyframes: int, interval: int, method: str, tied: bool
) -> Callable[[], Case]:
    def case() -> Case:
        tensors = _video(seed, queries, keyframes, interval, tied)
        frames = _tracked(tensors, interval, method)
        truth = {f"mask_logits{frame.frame}": frame.mask_logits for frame in frames}
        truth |= {"scores": frames[-1].scores, "mean_scores": frames[-1].mean_scores}

        def bounds(form: Format) -> Bounds:
            size = {
                f"mask_logits{frame.frame}": _absolute(tensors, frames, frame.frame, interval)
                for frame in frames
            }
            made = {name: gamma(DIM + 1, form.unit_roundoff) * x for name, x in size.items()}
            # √(σσ) times the mean of the probabilities above a half: few roundings of numbers below one. The
            # logits' own errors move a probability by a quarter of them.
            moved = max(float(b.max()) for b in made.values()) / 4
            each = gamma(20 + 40, form.unit_roundoff) + moved
            return {
                **made,
                "scores": np.full(frames[-1].scores.shape, each),
                "mean_scores": np.full(frames[-1].scores.shape, each),
            }

        decisions = _decisions(frames)

        def confirm() -> list[Confirmation]:
            _compare(_brute_force(tensors, method), decisions)
            again = _replayed(tensors, decisions, interval)
            identities = again.pop("identities")
            if identities != decisions["identities"]:
                raise VerificationError(
                    f"births and deaths step by step: {identities}, not {decisions['identities']}"
                )
            return [
                Confirmation("brute force over all permutations", 0.0, "decisions"),
                confirmed(f"PyTorch {_torch_version()}, float64", again, truth, bounds(FLOAT32)),
            ]

        return Case(tensors, truth, bounds, confirm, decisions={"results": decisions})

    return case


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


def _replayed(tensors: dict[str, Array], decisions: dict[str, Any], interval: int) -> dict[str, Any]:
    """Masks, scores and identities by PyTorch and plain loops, given the permutations."""
    torch = import_torch()
    wide = {name: torch.from_numpy(x).double() for name, x in tensors.items()}
    orders = [list(range(len(decisions["labels"]))), *decisions["permutations"]]
    masks, sums, lives, born, fresh = {}, [], [], [-1] * len(orders[0]), 0
    frames = sum(name.startswith("mask_features") for name in tensors)
    for frame in range(frames):
        k, order = frame // interval, orders[frame // interval]
        logits = torch.einsum("nd,dhw->nhw", wide[f"kernels{k}"][order], wide[f"mask_features{frame}"])
        masks[f"mask_logits{frame}"] = logits.numpy()
        if frame % interval == 0:
            p = logits.sigmoid()
            above = (p > 0.45).double()
            maskness = (p * above).sum((1, 2)) / (above.sum((1, 2)) + 1e-6)
            pair = wide[f"class_logits{k}"][order].sigmoid() * wide[f"objectness{k}"][order].sigmoid()
            sums.append(pair.sqrt() * maskness[:, None])
            for slot, best in enumerate(sums[-1].max(1).values.tolist()):
                if born[slot] >= 0 and best < 0.2:
                    born[slot] = -1
                elif born[slot] < 0 and best >= 0.4:
                    born[slot], fresh = fresh, fresh + 1
        lives.append(list(born))
    mean = torch.stack(sums).mean(0).numpy()
    return {**masks, "scores": sums[-1].numpy(), "mean_scores": mean, "identities": lives}


# --- evaluation -----------------------------------------------------------------------------------

FRAME, LENGTH = (160, 200), 3


def _boxes(rng: np.random.Generator, count: int, largest: int, jitter: int) -> list[list[Array]]:
    """Ground truth and detections of moving rectangles: for each, a mask a frame."""
    found = []
    for _ in range(count):
        height, width = (int(n) for n in rng.integers(20, largest, 2))
        top, left = int(rng.integers(0, FRAME[0] - height)), int(rng.integers(0, FRAME[1] - width))
        masks = []
        for _ in range(LENGTH):
            dy, dx = (int(n) for n in rng.integers(-jitter, jitter + 1, 2))
            mask = np.zeros(FRAME, bool)
            mask[max(0, top + dy) : top + dy + height, max(0, left + dx) : left + dx + width] = True
            masks.append(mask)
        found.append(masks)
    return found


def _documents(seed: int, largest: int, absent: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    rng = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for video in (1, 2):
        for index, masks in enumerate(_boxes(rng, 4, largest, 0)):
            category = 1 + index % 2
            if absent and index % 2:
                masks[int(rng.integers(LENGTH))] = np.zeros(FRAME, bool)
            where = {"video_id": video, "category_id": category}
            identifier = len(annotations) + 1
            annotations.append({"id": identifier, **where, "iscrowd": 0, "segmentations": _encoded(masks)})
            for shift in (int(n) for n in rng.integers(0, 14, 2)):
                moved = [np.roll(mask, shift, axis=1) for mask in masks]
                score = round(float(rng.random()), 3)
                results.append({**where, "score": score, "segmentations": _encoded(moved)})
    videos = [{"id": v, "height": FRAME[0], "width": FRAME[1], "length": LENGTH} for v in (1, 2)]
    categories = [{"id": c, "name": f"category {c}"} for c in (1, 2)]
    return {"videos": videos, "categories": categories, "annotations": annotations}, results


def _encoded(masks: list[Array]) -> list[Any]:
    from conformance.evaluation.segmentations import encode

    return list(encode(np.stack(masks)))


def _figures(truth: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder) / "truth.json", Path(folder) / "results.json"
        for path, document in zip(paths, (truth, results), strict=True):
            path.write_text(json.dumps(document))
        stats = ytvis.evaluate_files(*paths).stats
    return dict(zip(ytvis.STATISTICS, stats.tolist(), strict=True))


def _by_pycocotools(truth: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, float]:
    """Frames side by side are one image: sums of intersections and unions become those of the image."""
    from pycocotools import mask as coco_mask
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def joined(record: dict[str, Any], identifier: int) -> dict[str, Any]:
        frames = [
            np.zeros(FRAME, np.uint8) if rle is None else coco_mask.decode(rle)
            for rle in record["segmentations"]
        ]
        rle = coco_mask.encode(np.asfortranarray(np.concatenate(frames, axis=1)))
        kept: dict[str, Any] = {
            key: record[key] for key in ("category_id", "score", "iscrowd") if key in record
        }
        area = float(coco_mask.area(rle))
        return {**kept, "id": identifier, "image_id": record["video_id"], "segmentation": rle, "area": area}

    ground = COCO()
    images = [{"id": v["id"], "height": FRAME[0], "width": FRAME[1] * LENGTH} for v in truth["videos"]]
    annotations = [joined(a, a["id"]) for a in truth["annotations"]]
    ground.dataset = {"images": images, "categories": truth["categories"], "annotations": annotations}
    with contextlib.redirect_stdout(io.StringIO()):
        ground.createIndex()
        found = ground.loadRes([joined(r, i + 1) for i, r in enumerate(results)])
        evaluation = COCOeval(ground, found, "segm")
        evaluation.params.areaRng = [[low * LENGTH, high * LENGTH] for low, high in ytvis.AREA_RANGES]
        evaluation.params.maxDets = list(ytvis.MAX_DETECTIONS)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(ytvis.STATISTICS, (float(x) for x in evaluation.stats), strict=True))


def _evaluation(seed: int, largest: int, absent: bool) -> Callable[[], Case]:
    def case() -> Case:
        truth, results = _documents(seed, largest, absent)
        figures = _figures(truth, results)

        def confirm() -> list[Confirmation]:
            other = _by_pycocotools(truth, results)
            largest_difference = max(abs(figures[name] - other[name]) for name in figures)
            if largest_difference > DECIMALS:
                raise VerificationError(f"pycocotools has {other}, not {figures}")
            source = f"pycocotools {_version('pycocotools')}, frames side by side"
            return [Confirmation(source, largest_difference)]

        document = {"inputs": {"ground_truth": truth, "results": results}, "results": figures}
        return Case({}, {}, lambda form: {}, confirm, decisions=document)

    return case


# --- the list -------------------------------------------------------------------------------------

_TRACKER = (
    "refimpl.association.associate",
    "refimpl.association.associate_similarities",
    "refimpl.association.cosine_similarity",
    "refimpl.association.unit_kernels",
    "refimpl.tracker.frame_masks",
    "refimpl.tracker.class_scores",
    "refimpl.tracker.is_keyframe",
    "refimpl.tracker.track_video",
)


def goldens() -> Iterator[Golden]:
    """Yield the goldens of videos."""
    scenarios = {
        "ordinary": (21, 6, 4, 1, "optimal", False, "every frame a keyframe; identities follow the kernels"),
        "reuse": (22, 5, 3, 3, "optimal", False, "kernels are reused on two frames of three"),
        "greedy": (23, 6, 4, 1, "greedy", False, "the most similar pair first; margins may be negative"),
        "ties": (
            24,
            5,
            3,
            1,
            "optimal",
            True,
            "equal kernels: of equal totals the first permutation in dictionary order",
        ),
    }
    for name, (seed, queries, keyframes, interval, method, tied, shows) in scenarios.items():
        arguments = {
            "queries": queries,
            "keyframes": keyframes,
            "keyframe_interval": interval,
            "method": method,
        }
        case = _scenario(seed, queries, keyframes, interval, method, tied)
        yield Golden(
            f"tracker/{name}", "tracker", "refimpl.tracker.Tracker", arguments, seed, shows, case, _TRACKER
        )
    evaluations = {
        "visible": (41, 150, False, "every instance in every frame, small and medium"),
        "absent": (42, 90, True, "instances missing from a frame: null adds to the union"),
    }
    for name, (seed, largest, absent, shows) in evaluations.items():
        case = _evaluation(seed, largest, absent)
        yield Golden(
            f"evaluation/{name}",
            "evaluation",
            "conformance.evaluation.ytvis.evaluate",
            {"largest": largest},
            seed,
            shows,
            case,
        )
