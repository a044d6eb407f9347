"""The network under training: the independent modules, and losses handed over from the reference."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from golden.learning.association import association_loss, followed_objects
from golden.learning.samples import Batch
from golden.sources.independent import MobileInst, Outputs
from refimpl import MobileInstConfig
from refimpl.losses import Losses, TemporalLosses, focal_loss, losses, temporal_losses
from refimpl.matching import Matching, Target, masks_at

Array = NDArray[Any]

AUXILIARY_WEIGHT = 1.0
"""Of the loss that asks each cell of X_mask for its class; only training has it, its layer is not kept."""

RARE = 0.01
"""Probability that a class is given at first, so that absent classes do not drown the others (Lin et al.)."""


class Student(nn.Module):
    """The network and, for training only, a classifier of each cell of X_mask."""

    def __init__(self, config: MobileInstConfig) -> None:
        super().__init__()
        self.network = MobileInst(
            config.backbone,
            config.num_classes,
            config.num_queries,
            config.dim,
            config.num_heads,
            config.global_layers,
            config.local_layers,
            config.local_pooling,
            config.mask_decoder,
            config.mask_convs,
        )
        self.cells = nn.Conv2d(config.dim, config.num_classes, 1)
        bias = float(np.log(RARE / (1 - RARE)))
        nn.init.constant_(self.network.instance_decoder.class_head.bias, bias)
        nn.init.constant_(self.cells.bias, bias)

    def passed_masks(self, outputs: Outputs) -> Tensor:
        """Mask logits of the second frames by the first frames' queries (paper 3.5): (B/2, N, h, w)."""
        decoder = self.network.instance_decoder
        half = len(outputs.masks) // 2
        features = outputs.mask_features[half:]
        queries, layers = self._passed_queries(outputs, half)
        queries = decoder.decode(queries, decoder.local_features(features), layers)
        masks: Tensor = decoder.kernel_head(queries) @ features.flatten(2)
        return masks.view(half, -1, *features.shape[2:])

    def _passed_queries(self, outputs: Outputs, half: int) -> tuple[Tensor, nn.ModuleList]:
        """The first frames' queries after their first decoder, and the layers left for the second's."""
        decoder = self.network.instance_decoder
        if len(decoder.global_decoder):
            return outputs.global_queries[:half], decoder.local_decoder
        first = decoder.local_features(outputs.mask_features[:half])
        queries = decoder.initial_queries(decoder.queries, half)
        return decoder.decode(queries, first, decoder.local_decoder[:1]), decoder.local_decoder[1:]


class Seen(NamedTuple):
    """Outputs as `refimpl` reads them."""

    class_logits: Array
    objectness: Array
    masks: Array


class Lesson(NamedTuple):
    """Loss terms by name, and where their gradients enter: (tensor, gradient) pairs."""

    terms: dict[str, float]
    gradients: list[tuple[Tensor, Array]]


def picture_lesson(student: Student, batch: Batch, association: float = 0.0) -> Lesson:
    """Losses of single pictures (Eq. 3); ``association`` is 0, as there is nothing to associate."""
    outputs = student.network(_tensor(batch.images))
    found = losses(_seen(outputs), batch.targets)
    return _with_cells(student, outputs, batch.targets, _picture_terms(found), _entries(outputs, found))


def pair_lesson(student: Student, batch: Batch, association: float = 0.0) -> Lesson:
    """Losses of pairs of frames, each frame for itself: what passing is compared with."""
    outputs = student.network(_tensor(batch.images))
    found = losses(_seen(outputs), batch.targets)
    lesson = _with_cells(student, outputs, batch.targets, _picture_terms(found), _entries(outputs, found))
    return _with_association(lesson, outputs.kernels, found.matchings, batch, association)


def passing_lesson(student: Student, batch: Batch, association: float = 0.0) -> Lesson:
    """Losses of pairs of frames, and of the second frame's masks by the first frame's queries (paper 3.5)."""
    outputs = student.network(_tensor(batch.images))
    passed = student.passed_masks(outputs)
    seen, half = _seen(outputs), len(passed)
    first, second = (Seen(*(array[part] for array in seen)) for part in (np.s_[:half], np.s_[half:]))
    found = temporal_losses(
        first, second, passed.detach().numpy(), batch.targets[:half], batch.targets[half:]
    )
    entries = [*_pair_entries(outputs, found), (passed, found.passed_gradient() / 2)]
    lesson = _with_cells(student, outputs, batch.targets, _passing_terms(found), entries)
    matchings = found.first.matchings + found.second.matchings
    return _with_association(lesson, outputs.kernels, matchings, batch, association)


def clip_lesson(student: Student, batch: Batch, association: float = 0.0) -> Lesson:
    """Losses of pairs of frames, each pair one tall picture: a query must find its object in both."""
    outputs = student.network(_tensor(batch.images))
    seen, half = _seen(outputs), len(batch.targets) // 2
    classes, objectness = ((array[:half] + array[half:]) / 2 for array in seen[:2])
    masks = np.concatenate([seen.masks[:half], seen.masks[half:]], axis=2)
    found = losses(Seen(classes, objectness, masks), tall_targets(batch))
    gradients, height = found.gradients(), masks.shape[2] // 2
    apart = np.concatenate([gradients.masks[:, :, :height], gradients.masks[:, :, height:]])
    entries = [
        (outputs.class_logits, np.concatenate([gradients.class_logits] * 2) / 2),
        (outputs.objectness, np.concatenate([gradients.objectness] * 2) / 2),
        (outputs.masks, apart),
    ]
    return _with_cells(student, outputs, batch.targets, _picture_terms(found), entries)


def tall_targets(batch: Batch) -> list[Target]:
    """The truth of each pair, second frame below first; who is seen in one only has no pixel in the other."""
    half = len(batch.targets) // 2
    pairs = zip(batch.targets, batch.targets[half:], batch.identities, batch.identities[half:], strict=False)
    return [_tall_target(*pair) for pair in pairs]


def _tall_target(first: Target, second: Target, before: Array, after: Array) -> Target:
    present = np.union1d(before, after)
    height, width = first.masks.shape[1:]
    masks = np.zeros((len(present), 2 * height, width), bool)
    labels = np.zeros(len(present), np.int64)
    for start, target, identities in ((0, first, before), (height, second, after)):
        rows = np.searchsorted(present, identities)
        masks[rows, start : start + height] = target.masks
        labels[rows] = target.labels
    return Target(labels, masks)


LESSONS = {
    "pictures": picture_lesson,
    "pairs": pair_lesson,
    "passing": passing_lesson,
    "clips": clip_lesson,
}


def _tensor(images: Array) -> Tensor:
    return torch.from_numpy(images).to(memory_format=torch.channels_last)


def _seen(outputs: Outputs) -> Seen:
    tensors = (outputs.class_logits, outputs.objectness, outputs.masks)
    return Seen(*(tensor.detach().numpy() for tensor in tensors))


def _entries(outputs: Outputs, found: Losses) -> list[tuple[Tensor, Array]]:
    gradients = found.gradients()
    return [
        (outputs.class_logits, gradients.class_logits),
        (outputs.objectness, gradients.objectness),
        (outputs.masks, gradients.masks),
    ]


def _pair_entries(outputs: Outputs, found: TemporalLosses) -> list[tuple[Tensor, Array]]:
    """Both frames' gradients, halved, so that a pair weighs as two pictures of one batch do."""
    halves = zip(found.first.gradients(), found.second.gradients(), strict=True)
    classes, objectness, masks = (np.concatenate(pair) / 2 for pair in halves)
    return [(outputs.class_logits, classes), (outputs.objectness, objectness), (outputs.masks, masks)]


def _picture_terms(found: Losses) -> dict[str, float]:
    terms = ("classification", "dice", "pixel", "objectness")
    return {"total": float(found.total), **{name: float(getattr(found, name).value) for name in terms}}


def _passing_terms(found: TemporalLosses) -> dict[str, float]:
    first, second = _picture_terms(found.first), _picture_terms(found.second)
    means = {name: (first[name] + second[name]) / 2 for name in first}
    passed = float(found.passed_dice.value + found.passed_pixel.value)
    return {**means, "total": float(found.total) / 2, "passed": passed}


def _with_cells(
    student: Student,
    outputs: Outputs,
    targets: list[Target],
    terms: dict[str, float],
    entries: list[tuple[Tensor, Array]],
) -> Lesson:
    """Add the auxiliary loss: focal, of each cell's class."""
    logits = student.cells(outputs.mask_features)
    truth = cell_classes(targets, logits.shape[1], tuple(logits.shape[2:]))
    term = focal_loss(logits.detach().numpy(), truth, max(int(truth.sum()), 1))
    gradient = (AUXILIARY_WEIGHT * term.gradient).astype(np.float32)
    return Lesson({**terms, "cells": float(term.value)}, [*entries, (logits, gradient)])


def _with_association(
    lesson: Lesson, kernels: Tensor, matchings: list[Matching], batch: Batch, weight: float
) -> Lesson:
    """Add the loss of association between first and second frames, if it has a weight."""
    if not weight:
        return lesson
    first, second = nn.functional.normalize(kernels, dim=2).chunk(2)
    cosines = first @ second.transpose(1, 2)
    term = association_loss(cosines.detach().numpy(), followed_objects(matchings, batch.identities))
    terms = {**lesson.terms, "association": float(term.value)}
    return Lesson(terms, [*lesson.gradients, (cosines, weight * term.gradient)])


def cell_classes(targets: list[Target], classes: int, size: tuple[int, int]) -> Array:
    """Which classes cover at least half of each cell: (B, classes, h, w), 0 or 1."""
    truth = np.zeros((len(targets), classes, *size), np.float32)
    for picture, target in zip(truth, targets, strict=True):
        for label, mask in zip(target.labels, masks_at(target.masks, size, np.float32), strict=True):
            picture[label] = np.maximum(picture[label], mask > 0.5)
    return truth
