"""Twenty questions about the network, each with an answer that is computed, and the chapter that holds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import xlogy

from conformance.faults import CATALOGUE, injections
from conformance.faults.graph import ShapedGraph
from conformance.teaching.clip import CUT, MASK_THRESHOLD, Clip, output, query_scores
from conformance.teaching.hand import best_pixel, softest_head
from refimpl import Recording
from refimpl.association import associate
from refimpl.matching import masks_at, matching_score
from refimpl.ops.operation import Array
from refimpl.tracker import frame_masks


@dataclass(frozen=True)
class Question:
    """A question, where its answer stands, and how it is computed.

    Attributes
    ----------
    kind
        "locate", "derive" or "predict"; to predict needs transfer.
    chapter
        That holds the answer.
    asks
        The question.
    answer
        Computes it from a clip.
    """

    kind: str
    chapter: int
    asks: str
    answer: Callable[[Clip], str]


def _first(clip: Clip) -> Recording:
    return clip.keyframe.recording


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _mask_size(clip: Clip) -> str:
    return _size(output(_first(clip), "masks").shape[1:])


def _meeting(clip: Clip) -> str:
    shapes = {name: _size(output(_first(clip), name).shape) for name in ("kernels", "mask_features")}
    return " and ".join(f"{name} ({shape})" for name, shape in shapes.items())


def _local_cells(clip: Clip) -> str:
    pooled = _first(clip).blocks.get("instance_decoder.local_features")
    shape = (
        _first(clip).tensors[pooled].shape if pooled else output(_first(clip), "mask_features")[None].shape
    )
    return str(shape[2] * shape[3])


def _uses_of_x6(clip: Clip) -> str:
    recording = _first(clip)
    last = [step for step in recording.steps if step.name.startswith("backbone")][-1].outputs[0]
    users = {step.name.partition("/")[0] for step in recording.graph.consumers[last]}
    return ", ".join(sorted({".".join(user.split(".")[:3]) for user in users}))


def _skipped(clip: Clip) -> str:
    steps = sum(step.name.startswith("instance_decoder") for step in _first(clip).steps)
    return f"the instance decoder, {steps} of {len(_first(clip).steps)} steps"


def _logit(clip: Clip) -> str:
    query, row, column = best_pixel(_first(clip))
    kernel, features = output(_first(clip), "kernels")[query], output(_first(clip), "mask_features")
    return f"masks[0,{query},{row},{column}] = {kernel @ features[:, row, column]:.6g}"


def _weight(clip: Clip) -> str:
    recording, query = _first(clip), best_pixel(_first(clip))[0]
    for step in recording.steps:
        if step.op_type == "Softmax" and step.name.startswith("instance_decoder"):
            weights = recording.tensors[step.outputs[0]][0, :, query]
            head = softest_head(weights)
            return f"head {head}, query {query}: {weights[head].max():.6g} on cell {weights[head].argmax()}"
    return "no such step"


def _bilinear(clip: Clip) -> str:
    recording = _first(clip)
    for step in recording.steps:
        old, new = recording.tensors[step.inputs[0]], recording.tensors[step.outputs[0]]
        if step.op_type == "Resize" and old.shape[2] < new.shape[2]:
            row, column = new.shape[2] // 2, new.shape[3] // 2
            return f"{step.outputs[0]}[0,0,{row},{column}] = {new[0, 0, row, column]:.6g}"
    return "no such step"


def _score(clip: Clip) -> str:
    query = best_pixel(_first(clip))[0]
    return f"query {query}: {query_scores(_first(clip))[query]:.6g}"


def _later(clip: Clip) -> Recording:
    return clip.frames[min(3, len(clip.frames) - 1)].recording


def _cosine(clip: Clip) -> str:
    query = best_pixel(_first(clip))[0]
    found = associate(output(_first(clip), "kernels"), output(_later(clip), "kernels"))
    successor = found.permutation[query]
    return f"kernel {query} and its successor {successor}: {found.similarities[query, successor]:.6g}"


def _matching(clip: Clip) -> str:
    if not clip.truth:
        return "nobody has said what is in this picture"
    masks, truth = output(_first(clip), "masks"), clip.truth[0]
    small = masks_at(truth.masks, masks.shape[1:], np.float64)
    score = matching_score(output(_first(clip), "class_logits"), masks, truth.labels, small)
    query, instance = np.unravel_index(score.argmax(), score.shape)
    return f"query {query} and object {instance}: {score.max():.6g}"


def _doubled(clip: Clip) -> str:
    masks = output(_first(clip), "masks")
    changed = int(((2 * masks > CUT) != (masks > CUT)).sum())
    return (
        f"those with a logit between {CUT:.4f}, where the probability is {MASK_THRESHOLD}, and half of it: "
        f"{changed} of {masks.size}; all others keep their side"
    )


def _bgr(clip: Clip) -> str:
    graph = ShapedGraph.of_recording(_first(clip))
    return f"the first, {injections(CATALOGUE['preprocessing/BGR'], graph)[0].call.name}"


def _without_scale(clip: Clip) -> str:
    recording, query = _first(clip), best_pixel(_first(clip))[0]
    for step in recording.steps:
        if step.op_type == "Softmax" and step.name.startswith("instance_decoder"):
            head = softest_head(recording.tensors[step.outputs[0]][0, :, query])
            logits = recording.tensors[step.inputs[0]][0, head, query]
            entropies = [_entropy(logits * factor) for factor in (1.0, 8**0.5)]
            return f"sharper: its entropy falls from {entropies[0]:.3g} to {entropies[1]:.3g} nats"
    return "no such step"


def _entropy(logits: Array) -> float:
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    return float(-xlogy(shares, shares).sum())


def _permuted(clip: Clip) -> str:
    kernels, features = output(_first(clip), "kernels"), output(_first(clip), "mask_features")
    order = np.roll(np.arange(len(kernels)), 1)
    same = np.allclose(frame_masks(kernels[order], features), output(_first(clip), "masks")[order])
    return (
        "the order of class_logits, objectness, kernels and masks, not their rows"
        f" ({'checked' if same else 'not so'}); mask_features not at all"
    )


def _gone(clip: Clip) -> str:
    query = best_pixel(_first(clip))[0]
    kernel, features = (
        output(_first(clip), "kernels")[query : query + 1],
        output(_first(clip), "mask_features"),
    )
    own = frame_masks(kernel, features) > CUT
    empty = features.copy()
    outside = np.median(features[:, ~own[0]], axis=1)
    empty[:, own[0]] = outside[:, None]
    left = int((frame_masks(kernel, empty) > CUT).sum())
    return f"it keeps its kernel, and its mask empties: {int(own.sum())} cells become {left}"


def _fast(clip: Clip) -> str:
    last = clip.frames[min(5, len(clip.frames) - 1)].recording
    successor = associate(output(_first(clip), "kernels"), output(last, "kernels")).permutation
    reused = frame_masks(output(_first(clip), "kernels"), output(last, "mask_features")) > CUT
    fresh = output(last, "masks")[successor] > CUT
    kept = np.flatnonzero((query_scores(_first(clip)) > 0.4) & fresh.any(axis=(1, 2)))
    if not len(kept):
        return "no object is seen in both frames"
    overlap = (reused & fresh).sum(axis=(1, 2)) / np.maximum((reused | fresh).sum(axis=(1, 2)), 1)
    worst = int(kept[overlap[kept].argmin()])
    missed, extra = (fresh & ~reused)[worst].sum(), (reused & ~fresh)[worst].sum()
    return (
        f"where the object looks new: of query {worst}, IoU {overlap[worst]:.3g}, "
        f"{missed} cells are missed and {extra} too many"
    )


def _near_the_edge(clip: Clip, relative: float) -> tuple[int, int]:
    """Return how many cells errors of that size, relative to Σ |k| |x|, may and do carry over the edge."""
    kernels, features = output(_first(clip), "kernels"), output(_first(clip), "mask_features")
    allowed = relative * frame_masks(np.abs(kernels), np.abs(features))
    return int((np.abs(output(_first(clip), "masks") - CUT) <= allowed).sum()), allowed.size


def _stored(clip: Clip) -> str:
    may, _ = _near_the_edge(clip, 2.0**-11)
    stored = output(_first(clip), "mask_features").astype(np.float16).astype(np.float64)
    masks = frame_masks(output(_first(clip), "kernels"), stored)
    flipped = int(((masks > CUT) != (output(_first(clip), "masks") > CUT)).sum())
    return f"only one of the {may} whose logit is that near the threshold; here {flipped} do"


def _thousandth(clip: Clip) -> str:
    dim = len(output(_first(clip), "mask_features"))
    may, count = _near_the_edge(clip, dim * 2.0**-24)
    return (
        f"a bug: float32 can move {may} of {count} cells over the threshold in the last step, "
        f"{may / count:.2%}"
    )


QUESTIONS = (
    Question("locate", 0, "How large is a mask?", _mask_size),
    Question("locate", 0, "Which two tensors meet in M?", _meeting),
    Question("locate", 5, "How many cells has X_L?", _local_cells),
    Question("locate", 0, "Above which probability does a cell belong to a mask?", lambda clip: "0.45"),
    Question("locate", 4, "Which parts use X6?", _uses_of_x6),
    Question("locate", 7, "What does kernel reuse skip?", _skipped),
    Question("derive", 0, "Which logit has the surest cell of the first query?", _logit),
    Question("derive", 5, "Which weight gives that query's softest head to its favourite cell?", _weight),
    Question("derive", 4, "What stands in the middle of the first enlarged map?", _bilinear),
    Question("derive", 6, "Which score has that query?", _score),
    Question("derive", 8, "How alike are its kernel and the kernel that continues it?", _cosine),
    Question("derive", 9, "Which matching score has the best pair of query and object?", _matching),
    Question("predict", 0, "All kernels are doubled. Which cells change sides?", _doubled),
    Question("predict", 1, "Red and blue are exchanged. Which step differs first?", _bgr),
    Question(
        "predict", 5, "One head forgets its scale. Is its attention sharper or flatter?", _without_scale
    ),
    Question("predict", 8, "The queries are permuted. Which outputs change?", _permuted),
    Question("predict", 7, "The object leaves. What does its slot do?", _gone),
    Question("predict", 7, "T = 6, and an object is fast. Where does its mask fail?", _fast),
    Question("predict", 10, "X_mask is stored in float16. Can a cell change sides?", _stored),
    Question("predict", 10, "One cell in a thousand is wrong. Bug or rounding?", _thousandth),
)
"""In the order in which readers are asked."""
