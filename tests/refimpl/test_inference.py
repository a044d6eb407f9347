"""Pre- and postprocessing against SciPy's zoom, SparseInst's public sequence of steps, and geometry."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as rle
from scipy.ndimage import zoom
from scipy.special import expit, logit

from refimpl.errors import ConfigurationError, NonFiniteError, ShapeError
from refimpl.inference import (
    PIXEL_DEVIATION,
    PIXEL_MEAN,
    Placement,
    place,
    placement_matrices,
    postprocess,
    preprocess,
)

SEEDS = st.integers(0, 2**32 - 1)
SIDES = st.integers(1, 3000)


def noise(*shape):
    return np.random.default_rng(len(shape)).integers(0, 256, shape, dtype=np.uint8)


def outputs(seed, queries=6, classes=3, size=(8, 12), batch=1, dtype=np.float64):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: (2 * rng.normal(size=shape)).astype(dtype)  # noqa: E731
    return SimpleNamespace(
        class_logits=draw(batch, queries, classes),
        objectness=draw(batch, queries, 1),
        masks=draw(batch, queries, *size),
    )


def zoomed(plane, size):
    """SciPy's bilinear resizing with half-pixel centres and clamped edges."""
    factors = [new / old for new, old in zip(size, plane.shape, strict=True)]
    return zoom(plane.astype(np.float64), factors, order=1, grid_mode=True, mode="nearest")


@given(SIDES, SIDES)
def test_image_sizing_limits_one_side_and_keeps_the_shape(height, width):
    placement = place(height, width, "image")
    shorter, longer = sorted(placement.resized)
    assert (shorter == 640 and longer <= 864) or (longer == 864 and shorter <= 640)
    # Each side is within half a pixel of the common scale (or is one pixel).
    scale = max(placement.resized) / max(height, width)
    slack = 0.5 + 0.5 * min(height, width) / max(height, width) + 1e-9
    assert abs(min(placement.resized) - max(1, scale * min(height, width))) <= slack


@given(st.integers(100, 3000), st.integers(100, 3000))
def test_video_sizing_sets_the_shorter_side(height, width):
    placement = place(height, width, "video")
    assert min(placement.resized) == 360
    assert abs(max(placement.resized) - 360 * max(height, width) / min(height, width)) <= 0.5


@given(SIDES, SIDES, st.sampled_from(["image", "phone", "native"]))
def test_padding_reaches_the_next_multiple_of_32(height, width, sizing):
    placement = place(height, width, sizing)
    assert placement.original == (height, width)
    for padded, resized in zip(placement.padded, placement.resized, strict=True):
        assert padded % 32 == 0
        assert 0 <= padded - resized < 32


@pytest.mark.parametrize(
    ("size", "sizing", "resized", "padded"),
    [
        # The first three are detectron2's ResizeShortestEdge(640, max 864).
        ((480, 640), "image", (640, 853), (640, 864)),
        ((427, 640), "image", (576, 864), (576, 864)),
        ((640, 427), "image", (864, 576), (864, 576)),
        ((1, 1), "image", (640, 640), (640, 640)),
        ((1, 3000), "image", (1, 864), (32, 864)),
        ((720, 1280), "video", (360, 640), (384, 640)),
        ((1280, 720), "video", (640, 360), (640, 384)),
        ((1280, 720), "phone", (320, 640), (320, 640)),
        ((33, 32), "native", (33, 32), (64, 32)),
    ],
)
def test_known_sizes(size, sizing, resized, padded):
    assert place(*size, sizing) == Placement(size, resized, padded)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (37, 53), (200, 300), (700, 90)])
@pytest.mark.parametrize("sizing", ["phone", "native", "image"])
def test_input_is_zoomed_normalised_and_padded(size, sizing):
    picture = noise(*size, 3)
    images, placement = preprocess(picture, sizing)
    height, width = placement.resized
    assert images.shape == (1, 3, *placement.padded)
    for channel in range(3):
        plane = zoomed(picture[:, :, channel], placement.resized)
        expected = (plane - PIXEL_MEAN[channel]) / PIXEL_DEVIATION[channel]
        np.testing.assert_allclose(images[0, channel, :height, :width], expected, rtol=0, atol=1e-11)
    assert not images[..., height:, :].any()
    assert not images[..., width:].any()


def test_pictures_of_other_shapes_are_the_same_picture():
    grey, colour = noise(40, 50), noise(40, 50, 3)
    repeated = preprocess(np.stack([grey] * 3, axis=-1))[0]
    with_alpha = np.concatenate([colour, noise(40, 50, 1)], axis=2)
    np.testing.assert_array_equal(preprocess(grey)[0], repeated)
    np.testing.assert_array_equal(preprocess(grey[:, :, None])[0], repeated)
    np.testing.assert_array_equal(preprocess(with_alpha)[0], preprocess(colour)[0])
    np.testing.assert_array_equal(preprocess(colour.astype(np.float32))[0], preprocess(colour)[0])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_coarser_input_is_the_float64_one_rounded(dtype):
    picture = noise(30, 70, 3)
    coarse = preprocess(picture, dtype=dtype)[0]
    assert coarse.dtype == dtype
    np.testing.assert_array_equal(coarse, preprocess(picture)[0].astype(dtype))


@pytest.mark.parametrize(
    ("picture", "error", "message"),
    [
        (np.zeros((0, 5, 3), np.uint8), ShapeError, "not empty"),
        (np.zeros((5, 5, 2), np.uint8), ShapeError, r"got \(5, 5, 2\)"),
        (np.zeros((1, 5, 5, 3), np.uint8), ShapeError, "a picture is"),
        (np.zeros(5, np.uint8), ShapeError, "a picture is"),
        (np.zeros((5, 5, 3), np.int64), ShapeError, "got int64"),
        (np.zeros((5, 5, 3), bool), ShapeError, "got bool"),
        (np.full((5, 5, 3), np.nan), NonFiniteError, r"75 elements .* the first at \(0, 0, 0\)"),
        (np.full((5, 5), -np.inf), NonFiniteError, "25 elements"),
    ],
)
def test_what_is_not_a_picture_is_named(picture, error, message):
    with pytest.raises(error, match=message):
        preprocess(picture)


def test_impossible_sizings_are_named():
    with pytest.raises(ConfigurationError, match="'tablet'; choose one of image, video, lite"):
        preprocess(noise(5, 5, 3), "tablet")
    with pytest.raises(ShapeError, match="384×1080000 under sizing 'video'"):
        preprocess(noise(1, 3000, 3), "video")


@given(
    SEEDS,
    st.integers(1, 90),
    st.integers(1, 90),
    st.sampled_from(["native", "phone"]),
    st.sampled_from([4, 8]),
)
@settings(max_examples=40)
def test_masks_are_zoomed_cropped_and_zoomed_again(seed, height, width, sizing, stride):
    """The steps one by one, with SciPy's zoom; masks at 1/8 (MobileInst) or 1/4 (SparseInst) of the input."""
    placement = place(height, width, sizing)
    given = outputs(seed, size=(placement.padded[0] // stride, placement.padded[1] // stride))
    result = postprocess(given, placement, keep_threshold=0.2, tie_band=0.01)
    for i, query in enumerate(result.queries):
        at_input = zoomed(expit(given.masks[0, query]), placement.padded)
        probability = zoomed(at_input[: placement.resized[0], : placement.resized[1]], (height, width))
        sure = np.abs(probability - 0.45) > 1e-12
        np.testing.assert_array_equal(result.masks[i][sure], (probability > 0.45)[sure])
        assert result.mask_margins[i] == pytest.approx(np.abs(probability - 0.45).min(), abs=1e-12)
        assert result.tied_pixels[i] == (np.abs(probability - 0.45) <= 0.01).sum()


@given(
    st.integers(64, 700),
    st.integers(64, 700),
    st.sampled_from(["image", "video", "phone", "native"]),
    st.sampled_from([4, 8]),
)
def test_a_ramp_over_the_network_input_is_a_ramp_over_the_picture(height, width, sizing, stride):
    """Bilinear resizing keeps a linear function: the geometry of both directions is exact, to rounding."""
    placement = place(height, width, sizing)
    size = placement.padded[0] // stride, placement.padded[1] // stride
    for matrix, mask, padded, resized, original in zip(
        placement_matrices(placement, size, np.float64),
        size,
        placement.padded,
        placement.resized,
        placement.original,
        strict=True,
    ):
        in_network = (np.arange(mask) + 0.5) * padded / mask
        in_picture = (np.arange(original) + 0.5) * resized / original
        # At the borders samples are clamped: half a mask cell, and half a pixel of either grid.
        margin = stride / 2 + 1 + resized / original
        inside = (in_picture > margin) & (in_picture < resized - margin)
        assert inside.any()
        np.testing.assert_allclose((matrix @ in_network)[inside], in_picture[inside], rtol=0, atol=1e-9)


@pytest.mark.parametrize("sizing", ["image", "video", "phone", "native"])
@pytest.mark.parametrize("size", [(480, 640), (301, 457), (640, 230)])
@pytest.mark.parametrize("stride", [4, 8])
def test_a_mask_drawn_in_the_network_input_returns_to_the_picture(size, sizing, stride):
    """A bright disc in a picture, found in the network's input by its brightness, covers the disc again."""
    height, width = size
    row, column = np.ogrid[:height, :width]
    disc = (row - 0.6 * height) ** 2 + (column - 0.4 * width) ** 2 < (0.3 * min(size)) ** 2
    images, placement = preprocess(np.where(disc, 255, 0).astype(np.uint8), sizing)
    brightness = images[0, 0] * PIXEL_DEVIATION[0] + PIXEL_MEAN[0]
    cells = brightness.reshape(placement.padded[0] // stride, stride, placement.padded[1] // stride, stride)
    covered = cells.mean(axis=(1, 3)) / 255
    given = SimpleNamespace(
        class_logits=np.full((1, 1, 1), 9.0),
        objectness=np.full((1, 1, 1), 9.0),
        masks=logit(covered.clip(0.01, 0.99))[None, None],
    )
    found = rle.encode(np.asfortranarray(postprocess(given, placement).masks[0], np.uint8))
    truth = rle.encode(np.asfortranarray(disc, np.uint8))
    assert rle.iou([found], [truth], [0])[0, 0] > 0.95
    assert np.abs(rle.toBbox(found) - rle.toBbox(truth)).max() <= 1 + stride * max(
        original / resized for original, resized in zip(placement.original, placement.resized, strict=True)
    )


@given(SEEDS)
def test_scores_and_labels_are_as_published(seed):
    given, placement = outputs(seed), place(50, 90, "native")
    result = postprocess(given, placement, keep_threshold=0.4)
    p = np.sqrt(expit(given.class_logits[0]) * expit(given.objectness[0]))
    np.testing.assert_array_equal(result.queries, np.flatnonzero(p.max(axis=1) > 0.4))
    np.testing.assert_array_equal(result.labels, p[result.queries].argmax(axis=1))
    np.testing.assert_allclose(result.class_scores, p[result.queries].max(axis=1), rtol=1e-14)
    for i, query in enumerate(result.queries):
        above = [value for value in expit(given.masks[0, query]).ravel() if value > 0.45]
        expected = np.mean(above) if above else 0
        assert result.maskness[i] == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(result.scores, result.class_scores * result.maskness, rtol=1e-14)


@given(SEEDS)
def test_margins_are_distances_to_the_nearest_flip(seed):
    given, placement = outputs(seed), place(50, 90, "native")
    result = postprocess(given, placement, keep_threshold=0.4)
    np.testing.assert_array_equal(np.flatnonzero(result.keep_margins > 0), result.queries)
    moved = postprocess(given, placement, keep_threshold=0.4 + result.keep_margins.max() + 1e-9)
    assert len(moved) == 0
    ordered = np.sort(expit(given.class_logits[0, result.queries]), axis=1)
    np.testing.assert_allclose(result.class_margins, ordered[:, -1] - ordered[:, -2], rtol=0, atol=1e-15)
    for i, margin in enumerate(result.mask_margins):
        flipped = False
        for change in (-1, 1):
            nearer = postprocess(
                given, placement, keep_threshold=0.4, mask_threshold=0.45 + 0.999 * change * margin
            )
            beyond = postprocess(
                given, placement, keep_threshold=0.4, mask_threshold=0.45 + 1.001 * change * margin
            )
            np.testing.assert_array_equal(nearer.masks[i], result.masks[i])
            flipped |= bool((beyond.masks[i] != result.masks[i]).any())
        assert flipped


def test_a_mask_nowhere_above_the_threshold_scores_nothing():
    given = outputs(0, queries=1)
    given.masks[:] = -5
    result = postprocess(given, place(64, 96, "native"), keep_threshold=0)
    assert result.maskness.tolist() == result.scores.tolist() == [0]
    assert not result.masks.any()


def test_thresholds_are_strict():
    """Logits of 0 are probabilities of exactly ½: not above a threshold of ½."""
    given = SimpleNamespace(
        class_logits=np.zeros((1, 1, 2)), objectness=np.zeros((1, 1, 1)), masks=np.zeros((1, 1, 4, 4))
    )
    at, below = 0.5, np.nextafter(0.5, 0)
    placement = place(32, 32, "native")
    assert len(postprocess(given, placement, keep_threshold=at)) == 0
    assert len(postprocess(given, placement, keep_threshold=below)) == 1
    assert not postprocess(given, placement, mask_threshold=at).masks.any()
    assert postprocess(given, placement, mask_threshold=below).masks.all()


@pytest.mark.parametrize(("probability", "kept"), [(0.0049, 0), (0.0051, 1)])
def test_queries_are_kept_above_half_a_percent(probability, kept):
    given = SimpleNamespace(
        class_logits=np.full((1, 1, 1), logit(probability)),
        objectness=np.full((1, 1, 1), logit(probability)),
        masks=np.zeros((1, 1, 4, 4)),
    )
    assert len(postprocess(given, place(32, 32, "native"))) == kept


def test_an_input_prepared_elsewhere_is_all_picture():
    assert Placement.unscaled(64, 96) == place(64, 96, "native")


def test_nothing_kept_is_an_empty_result():
    result = postprocess(outputs(0), place(50, 90, "native"), keep_threshold=1)
    assert len(result) == 0
    assert result.masks.shape == (0, 50, 90)
    assert result.scores.shape == result.class_margins.shape == (0,)


def test_one_class_has_no_rival():
    result = postprocess(outputs(0, classes=1), place(50, 90, "native"))
    assert np.isposinf(result.class_margins).all()


def test_each_picture_of_a_batch_is_as_if_alone():
    both = outputs(0, batch=2)
    for index in (0, 1):
        alone = SimpleNamespace(**{name: array[index : index + 1] for name, array in vars(both).items()})
        first = postprocess(alone, place(50, 90, "native"))
        second = postprocess(both, place(50, 90, "native"), index=index)
        for name, value in vars(first).items():
            np.testing.assert_array_equal(value, getattr(second, name))


def test_permuting_queries_permutes_instances():
    given, order = outputs(0), np.random.default_rng(0).permutation(6)
    plain = postprocess(given, place(50, 90, "native"))
    permuted = SimpleNamespace(**{name: array[:, order] for name, array in vars(given).items()})
    result = postprocess(permuted, place(50, 90, "native"))
    np.testing.assert_array_equal(result.masks, plain.masks[order])
    np.testing.assert_array_equal(result.scores, plain.scores[order])


def test_dtype_follows_the_outputs():
    result = postprocess(outputs(0, dtype=np.float32), place(50, 90, "native"))
    fields = result.class_scores, result.maskness, result.scores, result.class_margins, result.mask_margins
    assert {field.dtype for field in fields} == {np.dtype(np.float32)}


def test_one_pixel_picture():
    images, placement = preprocess(np.array([[[0, 128, 255]]], np.uint8), "image")
    assert images.shape == (1, 3, 640, 640)
    assert np.ptp(images, axis=(2, 3)).max() == 0
    result = postprocess(outputs(0, size=(80, 80)), placement)
    assert result.masks.shape == (6, 1, 1)


@pytest.mark.parametrize("field", ["class_logits", "objectness", "masks"])
def test_outputs_that_are_not_finite_are_named(field):
    given = outputs(0)
    getattr(given, field)[0, 2, 0] = np.nan
    with pytest.raises(NonFiniteError, match=f"{field} has"):
        postprocess(given, place(50, 90, "native"))


def test_outputs_that_do_not_fit_are_named():
    given = outputs(0)
    given.objectness = given.objectness[:, :-1]
    with pytest.raises(ShapeError, match="do not fit"):
        postprocess(given, place(50, 90, "native"))
    with pytest.raises(ShapeError, match="index 1 is outside the batch of 1"):
        postprocess(outputs(0), place(50, 90, "native"), index=1)


def test_masks_that_would_not_fit_in_memory_are_refused():
    with pytest.raises(ShapeError, match="6 masks of 60000×60000 pixels"):
        postprocess(outputs(0), Placement((60000, 60000), (64, 96), (64, 96)))
