"""Mask R-CNN beside torchvision's own, the public code itself, in float64: both stages, and the instances."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rival_networks import drawn_weights, narrow

from refimpl import MobileInstConfig, Network, ops
from refimpl.inference import Placement
from refimpl.maskrcnn import classified_regions, masked_regions
from refimpl.model import parameter_shapes
from refimpl.ops.operation import Array
from refimpl.scope import Scope
from refimpl.two_stage import anchors, level_of, maskrcnn_instances, proposals
from refimpl.weights.names import canonical

torch = pytest.importorskip("torch")

from conformance.evidence.architectures import import_torchvision  # noqa: E402
from refimpl.box_nms import suppressed  # noqa: E402

pytestmark = pytest.mark.runtimes

BOUND = 1e-10


def narrow_torchvision(config: MobileInstConfig) -> Any:
    """torchvision's network with the configuration's few channels, put together of its own parts."""
    tv = import_torchvision()
    detection = tv.models.detection
    resnet = tv.models.resnet50(weights=None)
    body = detection.backbone_utils.BackboneWithFPN(
        resnet,
        {f"layer{i + 1}": str(i) for i in range(4)},
        [256, 512, 1024, 2048],
        config.dim,
    )
    classes = config.num_classes + 1
    faster, mask = detection.faster_rcnn, detection.mask_rcnn
    return detection.MaskRCNN(
        body,
        min_size=96,
        max_size=160,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        box_head=faster.TwoMLPHead(config.dim * 49, config.head_dim),
        box_predictor=faster.FastRCNNPredictor(config.head_dim, classes),
        mask_head=mask.MaskRCNNHeads(config.dim, (config.mask_dim,) * 4, 1),
        mask_predictor=mask.MaskRCNNPredictor(config.mask_dim, config.mask_dim, classes),
    )


@pytest.fixture(scope="module")
def pair() -> tuple[Network, Any]:
    """The reference and torchvision's network with the same weights."""
    torch.set_grad_enabled(False)
    config = narrow("maskrcnn-r50")
    theirs = narrow_torchvision(config).double().eval()
    weights = drawn_weights(config)
    weights["roi_heads.box_predictor.bbox_pred.weight"] *= 0.1
    weights["roi_heads.box_predictor.cls_score.weight"] *= 0.01
    state = theirs.state_dict()
    names = {name: next(iter(canonical({name: state[name].numpy()}, config)), name) for name in state}
    theirs.load_state_dict(
        {
            name: torch.from_numpy(weights[names[name]]) if names[name] in weights else value
            for name, value in state.items()
        }
    )
    return Network(config, weights), theirs


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands for torchvision's compiled operators where the installed one has none.

    Its own stand-in for RoIAlign forgets that samples beyond the map are zero; the vocabulary's is held to
    ONNX's cases.
    """
    tv = import_torchvision()
    if tv.extension._has_ops():
        return

    def nms(boxes: Any, scores: Any, threshold: float) -> Any:
        labels = np.zeros(len(boxes), int)
        return torch.from_numpy(suppressed(boxes.numpy(), scores.numpy(), labels, threshold))

    def roi_align(x: Any, rois: Any, output_size: Any, spatial_scale: float, sampling_ratio: int) -> Any:
        numbers = rois.numpy()
        made = ops.roi_align(
            x.numpy(),
            numbers[:, 1:],
            numbers[:, 0].astype(np.int64),
            coordinate_transformation_mode="output_half_pixel",
            output_height=output_size[0],
            output_width=output_size[1],
            sampling_ratio=sampling_ratio,
            spatial_scale=spatial_scale,
        )
        return torch.from_numpy(made)

    monkeypatch.setattr(tv.ops.boxes, "nms", nms)
    monkeypatch.setattr(tv.ops.poolers, "roi_align", roi_align)


def picture() -> Array:
    return np.random.default_rng(0).standard_normal((1, 3, 96, 160))


def close(ours: Array, theirs: Any) -> bool:
    expected = theirs.numpy()
    return ours.shape == expected.shape and np.abs(ours - expected).max() <= BOUND * np.abs(expected).max()


def test_names_and_shapes_are_torchvisions() -> None:
    config = MobileInstConfig.preset("maskrcnn-r50")
    with torch.device("meta"):
        tv = import_torchvision()
        state = tv.models.detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    shapes = {name: tuple(x.shape) for name, x in state.items() if not name.endswith("num_batches_tracked")}
    assert canonical(shapes, config) == dict(parameter_shapes(config))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(64, 96), (96, 160), (97, 131)])
def test_the_first_stage(pair: tuple[Network, Any], size: tuple[int, int]) -> None:
    ours, theirs = pair
    images = np.random.default_rng(1).standard_normal((1, 3, *size))
    outputs = dict(ours(images).items())
    levels = theirs.backbone(torch.from_numpy(images))
    for number in (2, 3, 4, 5):
        assert close(outputs[f"level{number}"], levels[str(number - 2)])
    objectness, changes = theirs.rpn.head(list(levels.values()))
    from torchvision.models.detection.rpn import concat_box_prediction_layers

    flat, boxes = concat_box_prediction_layers(objectness, changes)
    assert close(outputs["objectness"][0], flat)
    assert close(outputs["boxes"][0], boxes)


def test_anchors_are_torchvisions(pair: tuple[Network, Any]) -> None:
    _, theirs = pair
    levels = [torch.zeros(1, 1, *size) for size in ((24, 40), (12, 20), (6, 10), (3, 5), (2, 3))]
    images = import_torchvision().models.detection.image_list.ImageList(
        torch.zeros(1, 3, 96, 160), [(96, 160)]
    )
    (expected,) = theirs.rpn.anchor_generator(images, levels)
    found = np.concatenate(anchors((96, 160), [level.shape[2:] for level in levels]))
    np.testing.assert_array_equal(found, expected.numpy())


def test_the_second_stage(pair: tuple[Network, Any], compiled: None) -> None:
    ours, theirs = pair
    outputs = ours(picture())
    placement = Placement.unscaled(96, 160)
    regions = proposals({name: array[0] for name, array in outputs.items()}, placement)
    levels = theirs.backbone(torch.from_numpy(picture()))
    images = import_torchvision().models.detection.image_list.ImageList(
        torch.from_numpy(picture()), [(96, 160)]
    )
    (expected,), _ = theirs.rpn(images, levels)
    assert close(regions, expected)
    level = level_of(regions)
    assert len(set(level)) > 1
    order = np.argsort(level, kind="stable")
    by_level = [regions[level == i] for i in range(4)]
    maps = [levels[str(i)].numpy() for i in range(4)]
    given = [torch.from_numpy(regions[order])]
    w = Scope(ours.weights)
    heads = theirs.roi_heads
    sampled = heads.box_head(heads.box_roi_pool(levels, given, [(96, 160)]))
    for array, tensor in zip(
        classified_regions(maps, by_level, w, ours.config), heads.box_predictor(sampled), strict=True
    ):
        assert close(array, tensor)
    masks = heads.mask_predictor(heads.mask_head(heads.mask_roi_pool(levels, given, [(96, 160)])))
    assert close(masked_regions(maps, by_level, w, ours.config), masks)


def test_instances(pair: tuple[Network, Any], compiled: None) -> None:
    ours, theirs = pair
    (expected,) = theirs([torch.from_numpy(picture()[0])])
    found = maskrcnn_instances(ours, ours(picture()), Placement.unscaled(96, 160))  # type: ignore[arg-type]
    assert len(found) == len(expected["scores"]) > 10
    np.testing.assert_array_equal(found.labels + 1, expected["labels"].numpy())
    np.testing.assert_allclose(found.scores, expected["scores"].numpy(), rtol=1e-9)
    differ = found.masks != (expected["masks"][:, 0].numpy() > 0.5)
    assert found.masks.any()
    assert differ.mean() < 1e-4  # pixels whose probability is 0.5 but for rounding
