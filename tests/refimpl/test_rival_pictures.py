"""How the rivals' inputs are made of pictures, beside Pillow and beside sizes that their own code gives."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from rival_networks import RIVALS, drawn_weights, narrow
from small_backbones import SMALL

from refimpl import MobileInst, MobileInstConfig, Network
from refimpl.errors import ConfigurationError
from refimpl.inference import OURS, preprocess
from refimpl.ops.operation import Array
from refimpl.rival_pictures import instances_of, preparation_of

NATIVE = {
    "solov2-r50": ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], (0, 1, 2)),
    "condinst-r50": ([103.53, 116.28, 123.675], [1.0, 1.0, 1.0], (2, 1, 0)),
    "condinst-topformer-base": ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], (0, 1, 2)),
    "yolact-r50": ([123.68, 116.78, 103.94], [58.40, 57.12, 57.38], (0, 1, 2)),
    "yolact-mobilenetv2": ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], (0, 1, 2)),
    "maskrcnn-r50": ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], (0, 1, 2)),
}


def noise(height: int, width: int) -> Array:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("preset", NATIVE)
def test_means_and_order_of_channels(preset: str) -> None:
    mean, deviation, order = NATIVE[preset]
    picture = noise(64, 96)
    images, _ = preprocess(picture, "native", preparation=preparation_of(MobileInstConfig.preset(preset)))
    expected = (picture[..., order] - np.array(mean)) / deviation
    np.testing.assert_allclose(images[0], expected.transpose(2, 0, 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("preset", "size", "resized", "padded"),
    [
        # mmcv's imrescale to (768, 448) and (1333, 800); detectron2's ResizeShortestEdge(800, max 1333).
        ("solov2-lite-r50", (480, 640), (448, 597), (448, 608)),
        ("solov2-lite-r18", (427, 640), (448, 671), (448, 672)),
        ("solov2-lite-r50", (300, 640), (360, 768), (384, 768)),
        ("solov2-r50", (480, 640), (800, 1067), (800, 1088)),
        ("condinst-r50", (427, 640), (800, 1199), (800, 1216)),
        ("condinst-topformer-base", (100, 400), (333, 1333), (352, 1344)),
        # torchvision's interpolate with recompute_scale_factor cuts to whole pixels.
        ("maskrcnn-r50", (480, 640), (800, 1066), (800, 1088)),
        ("yolact-r50", (480, 640), (550, 550), (550, 550)),
        ("yolact-topformer-base", (1, 1), (550, 550), (550, 550)),
    ],
)
def test_sizes(preset: str, size: tuple[int, int], resized: tuple[int, int], padded: tuple[int, int]) -> None:
    preparation = preparation_of(MobileInstConfig.preset(preset))
    _, placement = preprocess(np.zeros((*size, 3), np.uint8), preparation=preparation)
    assert (placement.resized, placement.padded) == (resized, padded)


@pytest.mark.parametrize("size", [(48, 56), (150, 90), (90, 200)])
def test_condinst_resizes_as_pillow(size: tuple[int, int]) -> None:
    """Which rounds to whole numbers twice: half a step each time."""
    picture = noise(120, 130)
    preparation = preparation_of(MobileInstConfig.preset("condinst-r50"))
    images, _ = preprocess(picture, size, preparation=preparation)
    pillow = np.asarray(Image.fromarray(picture[..., ::-1]).resize(size[::-1], Image.Resampling.BILINEAR))
    expected = pillow.transpose(2, 0, 1) - np.array([103.53, 116.28, 123.675])[:, None, None]
    assert np.abs(images[0, :, : size[0], : size[1]] - expected).max() <= 1.01


def test_others_are_prepared_as_the_paper() -> None:
    assert preparation_of(MobileInstConfig.preset("topformer-tiny")) == OURS
    assert preparation_of(MobileInstConfig.preset("sparseinst-r50")) == OURS


@pytest.mark.parametrize("preset", RIVALS)
def test_every_rival_goes_from_picture_to_instances(preset: str) -> None:
    config = narrow(preset)
    spec = SMALL[config.backbone]
    network = Network(config, drawn_weights(config, spec), spec)
    images, placement = preprocess(noise(40, 50), (64, 96), preparation=preparation_of(config))
    found = instances_of(network, network(images), placement)
    assert found.masks.shape == (len(found), 40, 50)
    assert (np.diff(found.scores) <= 0).all()
    some = found.chosen(found.scores > 0.5)
    np.testing.assert_array_equal(some.scores, found.scores[found.scores > 0.5])


def test_instances_of_queries_are_made_elsewhere() -> None:
    config = MobileInstConfig.preset("topformer-tiny", dim=32, num_queries=3)
    network = MobileInst(config, drawn_weights(config))
    images, placement = preprocess(noise(64, 64), "native")
    with pytest.raises(ConfigurationError, match="among its outputs"):
        instances_of(network, network(images), placement)
