"""What the chapters stand on: the clip they look at, and the pictures they show."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy.special import expit, softmax

from conformance.faults import CATALOGUE, injections
from conformance.faults.graph import ShapedGraph
from conformance.pictures.picture import draw_masks
from conformance.teaching.clip import (
    CUT,
    SPEAKING,
    Clip,
    output,
    query_maskness,
    query_scores,
    record_clip,
)
from conformance.teaching.hand import best_pixel
from conformance.teaching.without import without_enhancer
from conformance.teaching.wrong import run_faulty
from refimpl import Recording, Weights
from refimpl.association import associate
from refimpl.held_out import SIZE, held_out_video
from refimpl.matching import masks_at, matching_score
from refimpl.ops.operation import Array
from refimpl.scenes import render_frame
from refimpl.tracker import frame_masks
from refimpl.trained import DEFAULT, trained_config

FRAMES = 12
GAP = 6
"""Pixels between two pictures."""
WIDE = 320


@lru_cache(maxsize=1)
def clip() -> Clip:
    """Return the chapters' clip: a held-out video as the trained network sees it."""
    truth = tuple(render_frame(held_out_video(0), index) for index in range(FRAMES))
    pictures = [frame.picture for frame in truth]
    return record_clip(pictures, trained_config(DEFAULT), Weights.trained(DEFAULT), SIZE, truth)


def faulty(recording: Recording, name: str, place: str = "") -> tuple[Array, Array]:
    """Return the mask logits, and the faulty step's result, with a mistake of the catalogue made.

    Parameters
    ----------
    recording
        The right run.
    name
        Of the mistake.
    place
        What the name of the step begins with.

    Returns
    -------
    (N, h, w), and of the step's shape
    """
    graph = ShapedGraph.of_recording(recording)
    made = next(each for each in injections(CATALOGUE[name], graph) if each.call.name.startswith(place))
    return run_faulty(recording, made)


def speaking(recording: Recording) -> Array:
    """Return the queries whose instances are drawn."""
    return np.flatnonzero(query_scores(recording) > SPEAKING)


def mask_pixels(masks: Array) -> Array:
    """Return which cells of mask logits belong to the masks."""
    inside: Array = masks > CUT
    return inside


# Pictures of numbers.


def grown(values: Array, width: int = WIDE) -> Array:
    """Repeat cells, (h, w, …) → about ``width`` wide."""
    times = max(width // values.shape[1], 1)
    return values.repeat(times, axis=0).repeat(times, axis=1)


def heat(values: Array, width: int = WIDE) -> Array:
    """Colour numbers from dark to bright between their extremes: (h, w) → (H, W, 3) uint8."""
    low, high = float(values.min()), float(values.max())
    share = (values - low) / (high - low or 1.0)
    steps = np.array([[0, 32, 76], [124, 123, 120], [255, 233, 69]], np.float64)
    channels = [np.interp(share, [0, 0.5, 1], steps[:, channel]) for channel in range(3)]
    return grown(np.stack(channels, axis=-1).astype(np.uint8), width)


def diverging(values: Array, width: int = WIDE) -> Array:
    """Colour numbers orange below zero, blue above: (h, w) → (H, W, 3) uint8."""
    share = values / (np.abs(values).max() or 1.0)
    steps = np.array([[179, 88, 6], [247, 247, 247], [0, 84, 150]], np.float64)
    channels = [np.interp(share, [-1, 0, 1], steps[:, channel]) for channel in range(3)]
    return grown(np.stack(channels, axis=-1).astype(np.uint8), width)


def side_by_side(*pictures: Array) -> Array:
    """Put pictures into a row on white."""
    height = max(picture.shape[0] for picture in pictures)
    parts: list[Array] = []
    for picture in pictures:
        part = np.full((height, picture.shape[1] + GAP, 3), 255, np.uint8)
        part[: picture.shape[0], : picture.shape[1]] = picture
        parts.append(part)
    return np.concatenate(parts, axis=1)[:, :-GAP]


def with_masks(frame: int, masks: Array, queries: Array, numbers: Array | None = None) -> Array:
    """Return a frame of the clip with some of the masks (N, h, w) drawn, coloured by query or by number."""
    picture = clip().frames[frame].picture
    chosen = mask_pixels(masks[queries])
    times = picture.shape[0] // masks.shape[1]
    large = chosen.repeat(times, axis=1).repeat(times, axis=2)
    shown = (queries if numbers is None else numbers).tolist()
    return draw_masks(picture, large, shown, [str(number) for number in shown])


def over_picture(weights: Array) -> Array:
    """Darken the first frame where the weights (h, w) are low."""
    picture = clip().keyframe.picture
    share = weights / (weights.max() or 1.0)
    times = (picture.shape[0] // weights.shape[0], picture.shape[1] // weights.shape[1])
    large = share.repeat(times[0], axis=0).repeat(times[1], axis=1)[..., None]
    return (picture * (0.15 + 0.85 * large)).astype(np.uint8)


# One picture for each chapter, and one of its mistake.


def figure(chapter: int) -> Array:
    """Return the picture of a chapter, (H, W, 3) uint8."""
    return FIGURES[chapter][0]()


def mistake(chapter: int) -> Array:
    """Return the picture of a chapter's mistake, (H, W, 3) uint8: right, then wrong."""
    return FIGURES[chapter][1]()


def _first() -> Recording:
    return clip().keyframe.recording


def _masks(masks: Array | None = None) -> Array:
    return with_masks(0, output(_first(), "masks") if masks is None else masks, speaking(_first()))


def _mask() -> Array:
    query = best_pixel(_first())[0]
    masks = output(_first(), "masks")
    return side_by_side(with_masks(0, masks, np.array([query])), diverging(masks[query]))


def _columns() -> Array:
    masks = output(_first(), "masks")
    flat = output(_first(), "mask_features").transpose(0, 2, 1).reshape(-1, masks[0].size)
    wrong = (output(_first(), "kernels") @ flat).reshape(masks.shape)
    return side_by_side(_masks(), _masks(wrong))


def _planes() -> Array:
    seen = _first().tensors["images"][0]
    return side_by_side(*(diverging(plane[::2, ::2], WIDE // 2) for plane in seen))


def _made(name: str, place: str = "") -> Callable[[], Array]:
    def pair() -> Array:
        return side_by_side(_masks(), _masks(faulty(_first(), name, place)[0]))

    return pair


def _bgr() -> Array:
    picture = clip().keyframe.picture
    return side_by_side(picture[..., ::-1], _masks(faulty(_first(), "preprocessing/BGR")[0]))


def _pyramid() -> Array:
    names = ("layer5", "layer7", "layer9")
    return side_by_side(*(heat(_first().tensors[f"backbone.tpm.{name}"][0, 0], 240) for name in names))


def _backbone_row(weights: Array) -> Array:
    height, width = _first().tensors["instance_decoder.global_proj"].shape[2:]
    row = weights[0, 0, height * width // 2].reshape(height, width)
    return over_picture(row.repeat(8, axis=0).repeat(8, axis=1))


def _token_row() -> Array:
    softmaxes = (step.outputs[0] for step in _first().steps if step.op_type == "Softmax")
    return side_by_side(clip().keyframe.picture, _backbone_row(_first().tensors[next(softmaxes)]))


def _flatter() -> Array:
    name = next(step.outputs[0] for step in _first().steps if step.op_type == "Softmax")
    logits = _first().tensors[_first().graph.producer(name).inputs[0]]  # type: ignore[union-attr]
    return side_by_side(_backbone_row(softmax(logits, axis=-1)), _backbone_row(softmax(logits / 4, axis=-1)))


def _decoder_maps() -> Array:
    names = ("lateral.2", "top_down.0", "output.0")
    return side_by_side(*(heat(_first().tensors[f"mask_decoder.{name}"][0, 15], 240) for name in names))


def _slid() -> Array:
    right = output(_first(), "masks")
    wrong = faulty(_first(), "resize/corners aligned", "mask_decoder.output")[0]
    query = best_pixel(_first())[0]
    return side_by_side(_masks(wrong), diverging(wrong[query] - right[query]))


def _query_looks() -> Array:
    query = best_pixel(_first())[0]
    looks = []
    for kind in ("global", "local"):
        weights = _first().tensors[f"instance_decoder.{kind}_decoder.0.cross_attn/Softmax"][0, :, query]
        grid = weights.mean(axis=0).reshape(_first().tensors["instance_decoder.global_proj"].shape[2:])
        looks.append(over_picture(grid.repeat(8, axis=0).repeat(8, axis=1)))
    return side_by_side(*looks)


def _everything() -> Array:
    return side_by_side(_masks(), _masks(expit(output(_first(), "masks"))))


def _strip() -> Array:
    kernels = output(_first(), "kernels")
    frames = [
        with_masks(
            age,
            frame_masks(kernels, output(clip().frames[age].recording, "mask_features")),
            speaking(_first()),
        )
        for age in (0, 3, 6, 11)
    ]
    return side_by_side(*(frame[::2, ::2] for frame in frames))


def _one_late() -> Array:
    features = output(clip().frames[6].recording, "mask_features")
    pictures = []
    for keyframe in (6, 1):  # with T = 6 frame 6 is a keyframe; counted one late, frame 1 was the last
        recording = clip().frames[keyframe].recording
        pictures.append(
            with_masks(6, frame_masks(output(recording, "kernels"), features), speaking(recording))
        )
    return side_by_side(*pictures)


def _cosines(frame: int = 6) -> Array:
    return associate(
        output(_first(), "kernels"), output(clip().frames[frame].recording, "kernels")
    ).similarities


def _matrix() -> Array:
    return heat(_cosines(), 320)


def _inverted() -> Array:
    order = np.roll(np.arange(len(_cosines())), 7)  # as a network may shuffle its queries
    recording = clip().frames[6].recording
    found = associate(output(_first(), "kernels"), output(recording, "kernels")[order]).permutation
    masks, pictures = output(recording, "masks")[order], []
    for permutation in (found, np.argsort(found)):
        tracks = speaking(_first())
        pictures.append(with_masks(6, masks[permutation], tracks))
    return side_by_side(*pictures)


def _teaching(likely: Callable[[Array], Array] = lambda logits: logits) -> Array:
    masks, truth = output(_first(), "masks"), clip().truth[0]
    small = masks_at(truth.masks, masks.shape[1:], np.float64)
    score = matching_score(likely(output(_first(), "class_logits")), masks, truth.labels, small)
    return heat(score, 8 * 20)


def _softened() -> Array:
    return side_by_side(_teaching(), _teaching(lambda logits: softmax(logits, axis=1)))


def _unseen() -> Array:
    masks = output(_first(), "masks")
    wrong = faulty(_first(), "normalization/unbiased variance")[0]
    return side_by_side(_masks(wrong), diverging((wrong - masks)[best_pixel(_first())[0]]))


def without_the_enhancer() -> Array:
    """Return the masks of the whole network, and those without the enhancers' shift."""
    wrong = dict(without_enhancer(clip().keyframe))["no shift"]
    return side_by_side(_masks(), _masks(wrong))


FIGURES: tuple[tuple[Callable[[], Array], Callable[[], Array]], ...] = (
    (_mask, _columns),
    (_planes, _bgr),
    (_pyramid, _made("normalization/variance instead of deviation")),
    (_token_row, _flatter),
    (_decoder_maps, _slid),
    (_query_looks, _made("pooling/average instead of maximum")),
    (_masks, _everything),
    (_strip, _one_late),
    (_matrix, _inverted),
    (_teaching, _softened),
    (_unseen, _made("layout/NHWC read as NCHW")),
)
"""The picture of each chapter, and that of its mistake."""


def says(query: int) -> str:
    """Return a query's score and its parts in a line."""
    recording = _first()
    parts = query_scores(recording)[query], query_maskness(recording)[query]
    return f"query {query}: score {parts[0]:.3f}, maskness {parts[1]:.3f}"


def overlap(one: Array, other: Array) -> float:
    """Return the IoU of two masks, bool; 0 if both are empty."""
    union = int((one | other).sum())
    return float((one & other).sum() / union) if union else 0.0


def iou(masks: Array, others: Array) -> Array:
    """Return the IoU of each two mask logits (N, h, w)."""
    return np.array([overlap(*pair) for pair in zip(mask_pixels(masks), mask_pixels(others), strict=True)])
