"""Losses with gradients, confirmed by PyTorch's autograd on a criterion of its own operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy.special import expit

from conformance.bounds import Format
from conformance.bounds.formats import gamma
from conformance.graph.pytorch_replay import import_torch
from golden.case import Bounds, Case, Confirmation, Golden, halves
from golden.sources.comparison import confirmed
from golden.sources.source import _torch_version
from refimpl.losses import Losses, losses, softplus, temporal_losses
from refimpl.matching import Target, masks_at
from refimpl.ops.operation import Array

ROUNDINGS = 40
"""More than the roundings between a logit and its term: exponential, logarithm, powers and products."""
TERMS = ("classification", "dice", "pixel", "objectness")


@dataclass(frozen=True)
class Batch:
    """Predictions and targets, as fed."""

    class_logits: Array
    objectness: Array
    masks: Array
    targets: tuple[Target, ...]

    @classmethod
    def drawn(cls, seed: int, counts: Sequence[int], scale: float) -> Batch:
        """Return seeded predictions of 5 queries and 4 classes, and so many instances in each picture."""
        rng = np.random.default_rng(seed)
        size, batch = (4, 6), len(counts)

        def draw(*shape: int) -> Array:
            return halves(scale * rng.normal(size=shape))

        logits = draw(batch, 5, 4), draw(batch, 5, 1), draw(batch, 5, *size)
        shape = (8 * size[0], 8 * size[1])
        return cls(
            *logits, tuple(Target(rng.integers(0, 4, n), rng.random((n, *shape)) < 0.4) for n in counts)
        )

    def inputs(self, prefix: str = "") -> dict[str, Array]:
        """Return the tensors of the golden."""
        logits = {"class_logits": self.class_logits, "objectness": self.objectness, "masks": self.masks}
        each = {
            f"{kind}{b}": getattr(target, field)
            for b, target in enumerate(self.targets)
            for kind, field in (("labels", "labels"), ("target_masks", "masks"))
        }
        return {prefix + name: x for name, x in {**logits, **each}.items()}

    @property
    def wide(self) -> Any:
        """The predictions in float64."""
        named = {"class_logits": self.class_logits, "objectness": self.objectness, "masks": self.masks}
        return SimpleNamespace(**{name: x.astype(np.float64) for name, x in named.items()})


def _truth(result: Losses) -> dict[str, Array]:
    gradients = {f"gradient_{name}": x for name, x in result.gradients()._asdict().items()}
    terms = {name: np.asarray(getattr(result, name).value, np.float64) for name in TERMS}
    matching = {
        f"{kind}{b}": np.asarray(getattr(m, kind), np.int64)
        for b, m in enumerate(result.matchings)
        for kind in ("queries", "instances")
    }
    return {**matching, **terms, "total": np.asarray(result.total, np.float64), **gradients}


def _bounds(batch: Batch, result: Losses, form: Format) -> Bounds:
    """γₙ of the sums of absolute values: n terms and `ROUNDINGS` more."""
    u, count = form.unit_roundoff, max(1, sum(len(t.labels) for t in batch.targets))
    given, per_term = batch.wide, gamma(ROUNDINGS, form.unit_roundoff)
    sizes, matched = _mask_sizes(batch, result, count)
    objectness, scores = result.objectness.gradient, given.objectness
    chosen = objectness != 0
    matches = max(int(chosen.sum()), 1)
    pixels = batch.masks[0, 0].size
    terms = {
        "classification": gamma(given.class_logits.size + ROUNDINGS, u) * float(result.classification.value),
        "dice": gamma(pixels + ROUNDINGS, u) * matched / count,
        "pixel": gamma(pixels * matched + ROUNDINGS, u) * sizes["pixel"],
        "objectness": per_term * float((softplus(scores) + np.abs(scores))[chosen].sum()) / matches,
    }
    weights = {"classification": 2.0, "dice": 2.0, "pixel": 2.0, "objectness": 1.0}
    total = sum(weights[name] * value for name, value in terms.items()) + 8 * u * abs(float(result.total))
    focal = _focal_size(batch, result, count)
    gradients = {
        "gradient_class_logits": per_term * 2 * focal,
        "gradient_objectness": np.where(chosen, per_term * 2 / matches, 0.0),
        "gradient_masks": gamma(pixels + ROUNDINGS, u) * 2 * sizes["gradient"],
    }
    made = {**{k: np.asarray(v) for k, v in terms.items()}, "total": np.asarray(total), **gradients}
    return {name: np.where(x > 0, x + ROUNDINGS * form.smallest_normal, 0.0) for name, x in made.items()}


def _focal_size(batch: Batch, result: Losses, count: int) -> Array:
    """The gradient of the focal loss without cancellation: at most α_t (1 − p_t)² (2 loss + 1 − p_t)."""
    logits = batch.wide.class_logits
    sides = [
        expit(side * logits) ** 2 * (2 * softplus(side * logits) + expit(side * logits)) for side in (-1, 1)
    ]
    return np.where(np.sign(result.classification.gradient) < 0, 0.25 * sides[0], 0.75 * sides[1]) / count


def _mask_sizes(batch: Batch, result: Losses, count: int) -> tuple[dict[str, Any], int]:
    masks = batch.wide.masks
    gradient, terms, matched = np.zeros_like(masks), 0.0, 0
    for b, (target, matching) in enumerate(zip(batch.targets, result.matchings, strict=True)):
        truth = masks_at(target.masks, masks.shape[2:], np.float64)[matching.instances]
        logits = masks[b, matching.queries]
        p = expit(logits)
        denominator = (p * p).sum((1, 2), keepdims=True) + (truth * truth).sum((1, 2), keepdims=True) + 1e-4
        matched += len(matching.queries)
        terms += float((softplus(logits) + np.abs(logits) * truth).sum())
        gradient[b, matching.queries] = 2 * (p + truth) / denominator * p / count
    for b, matching in enumerate(result.matchings):
        gradient[b, matching.queries] += 2 / max(matched * masks[0, 0].size, 1)
    return {"pixel": terms / max(matched * masks[0, 0].size, 1), "gradient": gradient}, matched


# --- PyTorch --------------------------------------------------------------------------------------


class Criterion:
    """The losses of a batch by PyTorch's operators, leaf tensors in, autograd out."""

    def __init__(self, batch: Batch) -> None:
        torch = import_torch()
        self.torch, self.f = torch, torch.nn.functional
        self.leaves = {name: torch.from_numpy(x).requires_grad_() for name, x in vars(batch.wide).items()}
        self.labels = [torch.from_numpy(target.labels) for target in batch.targets]
        size = batch.masks.shape[2:]
        self.truth = [self._resized(torch.from_numpy(t.masks).double(), size) for t in batch.targets]
        self.count = max(sum(map(len, self.labels)), 1)
        self.pairs = [self._assigned(b) for b in range(len(self.labels))]

    def _resized(self, masks: Any, size: tuple[int, ...]) -> Any:
        if not len(masks):
            return masks.new_zeros(0, *size)
        return self.f.interpolate(masks[:, None], size, mode="bilinear", align_corners=False)[:, 0]

    def _assigned(self, b: int) -> tuple[list[int], list[int]]:
        """Try every assignment: brute force."""
        from itertools import permutations

        p = self.leaves["masks"][b].detach().sigmoid().flatten(1)
        classes = self.leaves["class_logits"][b].detach().sigmoid()
        g = self.truth[b].flatten(1)
        squares = (p * p).sum(1)[:, None] + (g * g).sum(1)[None]
        score = (2 * p @ g.T / (squares + 1e-4)) ** 0.8 * classes[:, self.labels[b]] ** 0.2
        best = max(
            permutations(range(len(p)), len(g)),
            key=lambda chosen: sum(float(score[q, i]) for i, q in enumerate(chosen)),
        )
        order = sorted(range(len(g)), key=lambda i: best[i])
        return [best[i] for i in order], order

    def matched(self, masks: Any) -> tuple[Any, Any]:
        """Return logits and truth of the matched masks."""
        torch = self.torch
        logits = torch.cat([masks[b][list(q)] for b, (q, _) in enumerate(self.pairs)])
        return logits.flatten(1), torch.cat(
            [self.truth[b][list(i)] for b, (_, i) in enumerate(self.pairs)]
        ).flatten(1)

    def mask_terms(self, masks: Any) -> dict[str, Any]:
        """Return the dice and pixel losses."""
        logits, truth = self.matched(masks)
        p = logits.sigmoid()
        dice = 2 * (p * truth).sum(1) / ((p * p).sum(1) + (truth * truth).sum(1) + 1e-4)
        pixel = self.f.binary_cross_entropy_with_logits(logits, truth) if len(logits) else masks.sum() * 0
        return {"dice": (1 - dice).sum() / self.count, "pixel": pixel}

    def terms(self) -> dict[str, Any]:
        """Return every term."""
        torch, x = self.torch, self.leaves["class_logits"]
        y = torch.zeros_like(x)
        for b, (queries, instances) in enumerate(self.pairs):
            y[b, list(queries), self.labels[b][list(instances)]] = 1
        against = torch.where(y > 0, -x, x)
        wrong, cross = torch.sigmoid(against), self.f.softplus(against, threshold=1000)
        focal = torch.where(y > 0, 0.25, 0.75) * wrong**2 * cross
        logits, truth = self.matched(self.leaves["masks"].detach())
        predicted, real = logits.sigmoid() >= 0.4, truth > 0.5
        both, either = (predicted & real).sum(1).double(), (predicted | real).sum(1).double()
        scores = torch.cat([self.leaves["objectness"][b][list(q), 0] for b, (q, _) in enumerate(self.pairs)])
        objectness = (
            self.f.binary_cross_entropy_with_logits(scores, both / (either + 1e-6))
            if len(scores)
            else scores.sum()
        )
        return {
            "classification": focal.sum() / self.count,
            **self.mask_terms(self.leaves["masks"]),
            "objectness": objectness,
        }

    def total(self) -> Any:
        """Return the weighted sum (Eq. 3)."""
        term = self.terms()
        return 2 * term["classification"] + 2 * (term["dice"] + term["pixel"]) + term["objectness"]

    def result(self) -> dict[str, Array]:
        """Return the tensors of the golden."""
        total = self.total()
        total.backward()
        values = {name: np.asarray(x.item()) for name, x in self.terms().items()}
        gradients = {f"gradient_{name}": leaf.grad.numpy() for name, leaf in self.leaves.items()}
        matching = {
            f"{kind}{b}": np.asarray(pair[i], np.int64)
            for b, pair in enumerate(self.pairs)
            for i, kind in enumerate(("queries", "instances"))
        }
        return {**matching, **values, "total": np.asarray(total.item()), **gradients}


SOURCE = "PyTorch {}, autograd in float64, assignment by brute force"


def _case(seed: int, counts: Sequence[int], scale: float) -> Callable[[], Case]:
    def case() -> Case:
        batch = Batch.drawn(seed, counts, scale)
        result = losses(batch.wide, batch.targets)
        truth = _truth(result)

        def confirm() -> list[Confirmation]:
            from golden.sources.source import FLOAT32

            bounds = _bounds(batch, result, FLOAT32)
            return [confirmed(SOURCE.format(_torch_version()), Criterion(batch).result(), truth, bounds)]

        return Case(batch.inputs(), truth, lambda form: _bounds(batch, result, form), confirm)

    return case


def _temporal() -> Case:
    first, second = Batch.drawn(31, (2,), 2.0), Batch.drawn(32, (3,), 2.0)
    passed = halves(2 * np.random.default_rng(33).normal(size=second.masks.shape))
    result = temporal_losses(
        first.wide, second.wide, passed.astype(np.float64), first.targets, second.targets
    )
    truth = {"total": np.asarray(result.total, np.float64), "gradient_passed_masks": result.passed_gradient()}

    def bounds(form: Format) -> Bounds:
        own = [_bounds(b, r, form) for b, r in ((first, result.first), (second, result.second))]
        sizes, matched = _mask_sizes(
            Batch(second.class_logits, second.objectness, passed, second.targets), result.second, 3
        )
        factor = gamma(passed[0, 0].size * matched + ROUNDINGS, form.unit_roundoff)
        extra = 2 * factor * (matched / 3 + sizes["pixel"]) + 8 * form.unit_roundoff * float(result.total)
        return {
            "total": own[0]["total"] + own[1]["total"] + extra,
            "gradient_passed_masks": factor * 2 * sizes["gradient"],
        }

    def confirm() -> list[Confirmation]:
        from golden.sources.source import FLOAT32

        torch = import_torch()
        leaf = torch.from_numpy(passed.astype(np.float64)).requires_grad_()
        frames = Criterion(first), Criterion(second)
        total = frames[0].total() + frames[1].total() + 2 * sum(frames[1].mask_terms(leaf).values())
        total.backward()
        given = {"total": np.asarray(total.item()), "gradient_passed_masks": leaf.grad.numpy()}
        return [confirmed(SOURCE.format(_torch_version()), given, truth, bounds(FLOAT32))]

    inputs = {**first.inputs("first_"), **second.inputs("second_"), "passed_masks": passed}
    return Case(inputs, truth, bounds, confirm)


COVERED = tuple(
    [
        f"refimpl.losses.{n}"
        for n in ("focal_loss", "dice_loss", "pixel_loss", "objectness_loss", "mask_iou", "softplus")
    ]
    + ["refimpl.losses.one_hot"]
    + [
        f"refimpl.matching.{n}"
        for n in ("match_predictions", "match", "matching_score", "dice_matrix", "squared_norm")
    ]
    + ["refimpl.matching.masks_at"]
)


def goldens() -> Iterator[Golden]:
    """Yield the goldens of the losses."""
    cases = {
        "ordinary": (11, (2, 3), 2.0, "two pictures with two and three instances"),
        "empty": (12, (0, 2), 2.0, "a picture without instances adds only its queries' classification"),
        "far": (13, (2,), 30.0, "logits of ±60: log σ as softplus, or it is infinite"),
    }
    for name, (seed, counts, scale, shows) in cases.items():
        arguments = {"instances": list(counts), "scale": scale}
        case = _case(seed, counts, scale)
        yield Golden(f"losses/{name}", "loss", "refimpl.losses.losses", arguments, seed, shows, case, COVERED)
    shows = "frames t and t+δ, and the passed queries' masks"
    yield Golden("losses/temporal", "loss", "refimpl.losses.temporal_losses", {}, 31, shows, _temporal)
