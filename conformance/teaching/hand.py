"""One number of each chapter, worked out by hand: the lines a reader follows with a pencil."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy.special import expit

from conformance.teaching.clip import MASK_THRESHOLD, Clip, output, query_maskness, query_scores
from conformance.teaching.derivation import Cell, derive
from conformance.teaching.derivation_text import derivation_text
from refimpl import Recording
from refimpl.association import associate, cosine_similarity
from refimpl.inference import PIXEL_DEVIATION, PIXEL_MEAN
from refimpl.matching import masks_at, matching_score
from refimpl.ops.operation import Array
from refimpl.recording import Step

Pixel = tuple[int, int, int]
"""Query, row, column."""
NONE = "This network has no such step."


def best_pixel(recording: Recording) -> Pixel:
    """Return the largest mask of those that score best, and the cell where it is surest."""
    scores, masks = query_scores(recording), output(recording, "masks")
    areas = np.where(scores >= 0.9 * scores.max(), (masks > 0).sum(axis=(1, 2)), -1)
    query = int(areas.argmax())
    row, column = np.unravel_index(masks[query].argmax(), masks.shape[1:])
    return query, int(row), int(column)


def by_hand(chapter: int, clip: Clip) -> str:
    """Return the number of a chapter with its arithmetic, in lines."""
    lines: list[str] = []
    try:
        lines.extend(_NUMBERS[chapter](clip))
    except _NoSuchStep:
        lines.append(NONE)
    return "\n".join(lines)


class _NoSuchStep(Exception):
    """The network has no step of that kind."""


def softest_head(weights: Array) -> int:
    """Return the head (of heads, tokens) that spreads its attention most."""
    return int(weights.max(axis=1).argmin())


def _step(recording: Recording, operator: str, prefix: str, fits: Callable[[Step], bool] = bool) -> Step:
    """Return the first step of an operator under a path."""
    for step in recording.steps:
        if step.op_type == operator and step.name.startswith(prefix) and fits(step):
            return step
    raise _NoSuchStep


def _of(recording: Recording, step: Step, *index: int) -> Iterator[str]:
    """Derive a cell of a step's result; −1 takes the middle of an axis, −2 the largest along it."""
    values = recording.tensors[step.outputs[0]]
    chosen = [n // 2 if i == -1 else i for i, n in zip(index, values.shape, strict=True)]
    if chosen[-1] == -2:
        chosen[-1] = int(values[tuple(chosen[:-1])].argmax())
    yield derivation_text(recording, derive(recording, Cell(step.outputs[0], tuple(chosen))), digits=7)


def _mask(clip: Clip) -> Iterator[str]:
    recording = clip.keyframe.recording
    query, row, column = best_pixel(recording)
    width = output(recording, "masks").shape[2]
    yield from _of(recording, _step(recording, "MatMul", "masks/"), 0, query, row * width + column)
    logit = output(recording, "masks")[query, row, column]
    probability = expit(logit)
    side = "belongs to the mask" if probability > MASK_THRESHOLD else "does not belong to the mask"
    yield f"  σ({logit:.7g}) = {probability:.7g}, against {MASK_THRESHOLD}: the cell {side}"


def _seen(clip: Clip) -> Iterator[str]:
    frame = clip.keyframe
    row, column = (size // 2 for size in frame.placement.resized)
    if frame.placement.original != frame.placement.resized:
        yield f"The picture was resized from {frame.placement.original} to {frame.placement.resized}."
    seen = frame.recording.tensors[frame.recording.inputs["images"]][0]
    for channel, colour in enumerate(("red", "green", "blue")):
        mean, deviation = PIXEL_MEAN[channel], PIXEL_DEVIATION[channel]
        value = seen[channel, row, column]
        pixel = value * deviation + mean
        said = f"({pixel:.7g} - {mean}) / {deviation} = {value:.7g}"
        yield f"images[0,{channel},{row},{column}] {colour}: {said}"


def _level(clip: Clip) -> Iterator[str]:
    recording = clip.keyframe.recording
    depthwise = _step(recording, "Conv", "backbone", lambda step: step.attributes.get("group", 1) > 1)
    yield from _of(recording, depthwise, 0, 0, -1, -1)
    norm = recording.graph.consumers[depthwise.outputs[0]][0]
    if norm.op_type == "BatchNormalization":
        shape = recording.tensors[norm.outputs[0]].shape
        cell = Cell(norm.outputs[0], (0, 0, shape[2] // 2, shape[3] // 2))
        yield derivation_text(recording, derive(recording, cell), digits=7)


def _whole(clip: Clip) -> Iterator[str]:
    recording = clip.keyframe.recording
    yield from _of(recording, _step(recording, "Softmax", "backbone"), 0, 0, -1, -2)


def _meeting(clip: Clip) -> Iterator[str]:
    recording = clip.keyframe.recording
    tensors = recording.tensors

    def enlarges(step: Step) -> bool:
        return tensors[step.inputs[0]].shape[2] < tensors[step.outputs[0]].shape[2]

    yield from _of(recording, _step(recording, "Resize", "mask_decoder", enlarges), 0, 0, -1, -1)
    yield from _of(recording, _step(recording, "HardSigmoid", "mask_decoder"), 0, 0, -1, -1)


def _finding(clip: Clip) -> Iterator[str]:
    recording = clip.keyframe.recording
    query = best_pixel(recording)[0]
    softmax = _step(recording, "Softmax", "instance_decoder")
    product = recording.graph.producer(softmax.inputs[0])
    weights = recording.tensors[softmax.outputs[0]][0, :, query]
    head = softest_head(weights)
    place = int(weights[head].argmax())
    if product is not None:
        cell = Cell(product.outputs[0], (0, head, query, place))
        yield derivation_text(recording, derive(recording, cell), digits=7)
    yield from _of(recording, softmax, 0, head, query, -2)
    yield from _of(recording, _step(recording, "MaxPool", "instance_decoder"), 0, 0, -1, -1)


def _speaking(clip: Clip) -> Iterator[str]:
    recording = clip.keyframe.recording
    query = best_pixel(recording)[0]
    logits, objectness = output(recording, "class_logits")[query], output(recording, "objectness")[query, 0]
    label, sure = int(logits.argmax()), query_maskness(recording)[query]
    yield f"query {query}: class {label} of logit {logits[label]:.7g}, objectness {objectness:.7g}"
    yield f"  σ(class) = {expit(logits[label]):.7g}, σ(objectness) = {expit(objectness):.7g}"
    yield f"  maskness = {sure:.7g}, the mean of the probabilities above {MASK_THRESHOLD}"
    yield f"  score = sqrt(σ(class) · σ(objectness)) · maskness = {query_scores(recording)[query]:.7g}"


def _surviving(clip: Clip) -> Iterator[str]:
    query, row, column = best_pixel(clip.keyframe.recording)
    kernel = output(clip.keyframe.recording, "kernels")[query]
    for age, frame in enumerate(clip.frames[:4]):
        feature = output(frame.recording, "mask_features")[:, row, column]
        yield f"frame {age}, kernel of frame 0, query {query}, cell ({row}, {column}): {kernel @ feature:.7g}"


def _who(clip: Clip) -> Iterator[str]:
    if len(clip.frames) < 2:
        yield "One picture has no next keyframe; give a video."
        return
    old, new = (output(clip.frames[i].recording, "kernels") for i in (0, min(3, len(clip.frames) - 1)))
    query = best_pixel(clip.keyframe.recording)[0]
    found = associate(old, new)
    other = int(found.permutation[query])
    product, lengths = old[query] @ new[other], (np.linalg.norm(old[query]), np.linalg.norm(new[other]))
    yield f"kernel {query} of frame 0 and kernel {other} of frame {min(3, len(clip.frames) - 1)}:"
    yield f"  k · k' = {product:.7g}, |k| = {lengths[0]:.7g}, |k'| = {lengths[1]:.7g}"
    yield f"  cosine = {cosine_similarity(old, new)[query, other]:.7g}"
    margin = found.track_margins[query]
    yield f"  all pairs assigned: total {found.total:.7g}; breaking this pair up costs {margin:.7g}"


def _teaching(clip: Clip) -> Iterator[str]:
    if not clip.truth:
        yield "Nobody has said what is in this picture. With dice 0.5 and probability 0.25:"
        yield f"  0.5^0.8 * 0.25^0.2 = {0.5**0.8 * 0.25**0.2:.7g}"
        return
    recording, truth = clip.keyframe.recording, clip.truth[0]
    masks = output(recording, "masks")
    small = masks_at(truth.masks, masks.shape[1:], np.float64)
    score = matching_score(output(recording, "class_logits"), masks, truth.labels, small)
    query, instance = np.unravel_index(score.argmax(), score.shape)
    p, g = expit(masks[query]), small[instance]
    dice = 2 * (p * g).sum() / ((p * p).sum() + (g * g).sum() + 1e-4)
    likely = expit(output(recording, "class_logits")[query, truth.labels[instance]])
    yield f"query {query}, object {instance}: dice = {dice:.7g}, p = {likely:.7g}"
    yield f"  C = dice^0.8 * p^0.2 = {score[query, instance]:.7g}"
    logit = output(recording, "class_logits")[query, truth.labels[instance]]
    loss = 0.25 * (1 - likely) ** 2 * -np.log(likely)
    yield f"  focal loss of its class logit {logit:.7g}: 0.25 * (1 - p)^2 * -log(p) = {loss:.7g}"


def _right(clip: Clip) -> Iterator[str]:
    recording = clip.keyframe.recording
    query, row, column = best_pixel(recording)
    kernel, feature = output(recording, "kernels")[query], output(recording, "mask_features")[:, row, column]
    count, unit = len(kernel), 2.0**-24
    magnitude = float(np.abs(kernel) @ np.abs(feature))
    gamma = count * unit / (1 - count * unit)
    narrow = np.cumsum(kernel.astype(np.float32) * feature.astype(np.float32), dtype=np.float32)
    off = float(narrow[-1] - kernel @ feature)
    yield f"chapter 0's cell, masks[0,{query},{row},{column}]: the sum of |k| |x| is {magnitude:.7g}"
    yield f"  gamma = n u / (1 - n u) with n = {count}, u = 2^-24: {gamma:.7g}"
    yield f"  bound = {gamma * magnitude:.7g}; added one by one in float32 it is off by {off:.1e}"


_NUMBERS: tuple[Callable[[Clip], Iterator[str]], ...] = (
    _mask,
    _seen,
    _level,
    _whole,
    _meeting,
    _finding,
    _speaking,
    _surviving,
    _who,
    _teaching,
    _right,
)
