"""Every loss and gradient against PyTorch's operators and autograd, in float64, as public SparseInst does."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from refimpl.losses import losses, temporal_losses
from refimpl.matching import Target

pytestmark = pytest.mark.runtimes
torch = pytest.importorskip("torch")
functional = torch.nn.functional

BOUND = 1e-10


def sigmoid_focal_loss(inputs, targets, alpha=0.25, gamma=2.0):
    """The formula torchvision publishes in ``torchvision.ops.sigmoid_focal_loss``."""
    p = torch.sigmoid(inputs)
    cross_entropy = functional.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    p_t = p * targets + (1 - p) * (1 - targets)
    return (alpha * targets + (1 - alpha) * (1 - targets)) * cross_entropy * (1 - p_t) ** gamma


class Criterion:
    """An independent criterion: class, mask and objectness losses for a batch, given as leaf tensors."""

    def __init__(self, class_logits, objectness, masks, truth):
        self.logits, self.objectness, self.masks = class_logits, objectness, masks
        self.labels = [torch.from_numpy(target.labels) for target in truth]
        self.truth = [self.resized(torch.from_numpy(target.masks).to(masks)) for target in truth]
        self.count = max(sum(map(len, self.labels)), 1)
        self.pairs = [self.assign(b) for b in range(len(truth))]

    def resized(self, masks):
        if not len(masks):
            return masks.new_zeros(0, *self.masks.shape[-2:])
        return functional.interpolate(
            masks[:, None], self.masks.shape[-2:], mode="bilinear", align_corners=False
        )[:, 0]

    @torch.no_grad()
    def assign(self, b):
        from scipy.optimize import linear_sum_assignment

        p, g = self.masks[b].sigmoid().flatten(1), self.truth[b].flatten(1)
        dice = (
            torch.stack(
                [
                    torch.stack([2 * (x * y).sum() / ((x**2).sum() + (y**2).sum() + 1e-4) for y in g])
                    for x in p
                ]
            )
            if len(g)
            else p.new_zeros(len(p), 0)
        )
        score = dice**0.8 * self.logits[b].sigmoid()[:, self.labels[b]] ** 0.2
        return linear_sum_assignment(-score.numpy())

    def classification(self):
        truth = torch.zeros_like(self.logits)
        for b, (queries, instances) in enumerate(self.pairs):
            truth[b, queries, self.labels[b][instances]] = 1
        return sigmoid_focal_loss(self.logits, truth).sum() / self.count

    def matched(self, masks):
        chosen = torch.cat([masks[b][queries] for b, (queries, _) in enumerate(self.pairs)])
        return chosen, torch.cat([self.truth[b][instances] for b, (_, instances) in enumerate(self.pairs)])

    def dice(self, masks):
        logits, truth = self.matched(masks)
        p, g = logits.sigmoid().flatten(1), truth.flatten(1)
        return (1 - 2 * (p * g).sum(1) / ((p * p).sum(1) + (g * g).sum(1) + 1e-4)).sum() / self.count

    def pixel(self, masks):
        logits, truth = self.matched(masks)
        return functional.binary_cross_entropy_with_logits(logits, truth) if len(logits) else masks.sum() * 0

    def iou_objectness(self):
        logits, truth = self.matched(self.masks)
        scores = torch.cat([self.objectness[b][queries, 0] for b, (queries, _) in enumerate(self.pairs)])
        if not len(scores):
            return self.objectness.sum() * 0
        with torch.no_grad():
            p, g = (logits.sigmoid() >= 0.4).to(truth).flatten(1), (truth > 0.5).to(truth).flatten(1)
            intersection = (p * g).sum(1)
            iou = intersection / (p.sum(1) + g.sum(1) - intersection + 1e-6)
        return functional.binary_cross_entropy_with_logits(scores, iou)

    def terms(self):
        return {
            "classification": self.classification(),
            "dice": self.dice(self.masks),
            "pixel": self.pixel(self.masks),
            "objectness": self.iou_objectness(),
        }

    def total(self):
        term = self.terms()
        return 2 * term["classification"] + 2 * (term["dice"] + term["pixel"]) + term["objectness"]


def case(seed, counts, factor=8, queries=9, classes=6, size=(5, 7)):
    rng = np.random.default_rng(seed)
    batch = len(counts)
    given = SimpleNamespace(
        class_logits=3 * rng.normal(size=(batch, queries, classes)),
        objectness=3 * rng.normal(size=(batch, queries, 1)),
        masks=3 * rng.normal(size=(batch, queries, *size)),
    )
    height, width = factor * size[0], factor * size[1]
    truth = [
        Target(rng.integers(0, classes, count), rng.random((count, height, width)) < 0.4) for count in counts
    ]
    leaves = {name: torch.from_numpy(array).requires_grad_() for name, array in vars(given).items()}
    return given, truth, leaves


@pytest.mark.parametrize("counts", [(4,), (3, 5), (0, 2), (0, 0), (12, 1)], ids=str)
@pytest.mark.parametrize("factor", [1, 3, 4, 8])
def test_terms_and_gradients_are_autograds(counts, factor):
    given, truth, leaves = case(sum(counts) + factor, counts, factor)
    criterion, result = Criterion(**leaves, truth=truth), losses(given, truth)
    source = {"classification": "class_logits", "dice": "masks", "pixel": "masks", "objectness": "objectness"}
    for name, term in criterion.terms().items():
        (gradient,) = torch.autograd.grad(term, leaves[source[name]])
        assert getattr(result, name).value == pytest.approx(term.item(), rel=BOUND, abs=BOUND)
        np.testing.assert_allclose(getattr(result, name).gradient, gradient.numpy(), rtol=BOUND, atol=BOUND)


@pytest.mark.parametrize("counts", [(4,), (3, 5), (0, 2), (0, 0)], ids=str)
def test_total_and_gradients_are_autograds(counts):
    given, truth, leaves = case(7, counts)
    result, total = losses(given, truth), Criterion(**leaves, truth=truth).total()
    total.backward()
    assert result.total == pytest.approx(total.item(), rel=BOUND)
    for name, gradient in result.gradients()._asdict().items():
        np.testing.assert_allclose(gradient, leaves[name].grad.numpy(), rtol=BOUND, atol=BOUND)


@pytest.mark.parametrize("counts", [(4,), (3, 5), (0, 2)], ids=str)
def test_temporal_query_passing_is_autograds(counts):
    first, first_truth, _ = case(1, (2,) * len(counts))
    second, second_truth, _ = case(2, counts)
    passed = np.random.default_rng(3).normal(size=second.masks.shape)
    leaf = torch.from_numpy(passed).requires_grad_()
    frames = [
        Criterion(**{k: torch.from_numpy(v) for k, v in vars(given).items()}, truth=truth)
        for given, truth in ((first, first_truth), (second, second_truth))
    ]
    total = frames[0].total() + frames[1].total() + 2 * (frames[1].dice(leaf) + frames[1].pixel(leaf))
    total.backward()
    result = temporal_losses(first, second, passed, first_truth, second_truth)
    assert result.total == pytest.approx(total.item(), rel=BOUND)
    np.testing.assert_allclose(result.passed_gradient(), leaf.grad.numpy(), rtol=BOUND, atol=BOUND)
