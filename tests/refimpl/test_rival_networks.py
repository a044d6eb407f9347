"""The rivals of the paper's Table 1: names, shapes, what cannot be, and properties of their outputs."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest
from rival_networks import RIVALS, drawn_weights, narrow
from small_backbones import SMALL

from conformance.candidates.candidate import needed_outputs
from refimpl import MobileInst, MobileInstConfig, Network
from refimpl.config import PRESETS
from refimpl.errors import ConfigurationError, ShapeError, WeightsError
from refimpl.fast_nms import prior_boxes
from refimpl.forward import output_names
from refimpl.model import build_network, parameter_shapes
from refimpl.ops.operation import Array
from refimpl.weights.folding import fold_batch_norm
from refimpl.weights.names import canonical


@functools.cache
def network(preset: str) -> Network:
    """The rival with few channels, on a small backbone."""
    config = narrow(preset)
    spec = SMALL[config.backbone]
    return Network(config, drawn_weights(config, spec), spec)


def noise(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def test_rows_of_table_1() -> None:
    rows = {
        "SOLOv2-Lite": {"solov2-lite-r50", "solov2-lite-r18"},
        "SOLOv2": {"solov2-r50", "solov2-mobilenetv2"},
        "YOLACT": {"yolact-r50", "yolact-mobilenetv2", "yolact-topformer-base"},
        "Mask R-CNN": {"maskrcnn-r50"},
        "CondInst": {"condinst-r50", "condinst-topformer-base"},
    }
    assert set(RIVALS) == set.union(*rows.values())


# Names and shapes in the public code, and sizes of its configurations.
PUBLIC_WEIGHTS: dict[str, dict[str, tuple[int, ...]]] = {
    "solov2-r50": {
        "neck.lateral_convs.3.conv.weight": (256, 2048, 1, 1),
        "neck.fpn_convs.0.conv.bias": (256,),
        "bbox_head.kernel_convs.0.conv.weight": (512, 258, 3, 3),
        "bbox_head.cate_convs.0.conv.weight": (512, 256, 3, 3),
        "bbox_head.cate_convs.3.gn.bias": (512,),
        "bbox_head.solo_cate.weight": (80, 512, 3, 3),
        "bbox_head.solo_kernel.bias": (256,),
        "mask_feat_head.convs_all_levels.0.conv0.conv.weight": (128, 256, 3, 3),
        "mask_feat_head.convs_all_levels.3.conv0.conv.weight": (128, 258, 3, 3),
        "mask_feat_head.convs_all_levels.3.conv2.gn.weight": (128,),
        "mask_feat_head.conv_pred.0.conv.weight": (256, 128, 1, 1),
    },
    "solov2-lite-r18": {
        "backbone.res2.0.conv1.weight": (64, 64, 3, 3),
        "backbone.res5.0.shortcut.norm.running_var": (512,),
        "neck.lateral_convs.0.conv.weight": (256, 64, 1, 1),
        "bbox_head.kernel_convs.1.conv.weight": (256, 256, 3, 3),
        "bbox_head.solo_kernel.weight": (128, 256, 3, 3),
        "mask_feat_head.conv_pred.0.gn.bias": (128,),
    },
    "solov2-mobilenetv2": {
        "backbone.features.0.0.weight": (32, 3, 3, 3),
        "backbone.features.1.conv.0.0.weight": (32, 1, 3, 3),
        "backbone.features.1.conv.2.running_mean": (16,),
        "backbone.features.17.conv.2.weight": (320, 960, 1, 1),
        "neck.lateral_convs.0.conv.weight": (256, 24, 1, 1),
        "neck.lateral_convs.3.conv.weight": (256, 320, 1, 1),
    },
    "condinst-r50": {
        "backbone.bottom_up.stem.conv1.norm.running_mean": (64,),
        "backbone.bottom_up.res3.0.shortcut.weight": (512, 256, 1, 1),
        "backbone.fpn_lateral3.weight": (256, 512, 1, 1),
        "backbone.fpn_output5.bias": (256,),
        "backbone.top_block.p6.weight": (256, 256, 3, 3),
        "backbone.top_block.p7.bias": (256,),
        "proposal_generator.fcos_head.cls_tower.0.weight": (256, 256, 3, 3),
        "proposal_generator.fcos_head.cls_tower.9.bias": (256,),
        "proposal_generator.fcos_head.bbox_tower.10.weight": (256,),
        "proposal_generator.fcos_head.cls_logits.weight": (80, 256, 3, 3),
        "proposal_generator.fcos_head.bbox_pred.bias": (4,),
        "proposal_generator.fcos_head.ctrness.weight": (1, 256, 3, 3),
        "proposal_generator.fcos_head.scales.4.scale": (1,),
        "controller.weight": (169, 256, 3, 3),
        "mask_branch.refine.2.0.weight": (128, 256, 3, 3),
        "mask_branch.refine.0.1.running_var": (128,),
        "mask_branch.tower.3.1.bias": (128,),
        "mask_branch.tower.4.weight": (8, 128, 1, 1),
    },
    "yolact-r50": {
        "backbone.res3.0.conv1.weight": (128, 256, 1, 1),
        "fpn.lat_layers.0.weight": (256, 2048, 1, 1),
        "fpn.lat_layers.2.weight": (256, 512, 1, 1),
        "fpn.pred_layers.2.bias": (256,),
        "fpn.downsample_layers.1.weight": (256, 256, 3, 3),
        "proto_net.4.weight": (256, 256, 3, 3),
        "proto_net.8.bias": (256,),
        "proto_net.10.weight": (32, 256, 1, 1),
        "prediction_layers.0.upfeature.0.weight": (256, 256, 3, 3),
        "prediction_layers.0.bbox_layer.weight": (12, 256, 3, 3),
        "prediction_layers.0.conf_layer.weight": (243, 256, 3, 3),
        "prediction_layers.0.mask_layer.bias": (96,),
    },
    "maskrcnn-r50": {
        "backbone.body.res2.0.shortcut.norm.weight": (256,),
        "backbone.fpn.inner_blocks.3.0.weight": (256, 2048, 1, 1),
        "backbone.fpn.layer_blocks.0.0.bias": (256,),
        "rpn.head.conv.0.0.weight": (256, 256, 3, 3),
        "rpn.head.bbox_pred.bias": (12,),
        "roi_heads.box_head.fc6.weight": (1024, 12544),
        "roi_heads.box_predictor.bbox_pred.weight": (364, 1024),
        "roi_heads.mask_head.3.0.weight": (256, 256, 3, 3),
        "roi_heads.mask_predictor.conv5_mask.weight": (256, 256, 2, 2),
        "roi_heads.mask_predictor.mask_fcn_logits.bias": (91,),
    },
    "condinst-topformer-base": {
        "backbone.bottom_up.tpm.stem.0.c.weight": (16, 3, 3, 3),
        "backbone.fpn_lateral5.weight": (256, 160, 1, 1),
    },
}


@pytest.mark.parametrize("preset", PUBLIC_WEIGHTS)
def test_weights_have_public_names(preset: str) -> None:
    assert PUBLIC_WEIGHTS[preset].items() <= parameter_shapes(MobileInstConfig.preset(preset)).items()


def test_the_light_head_has_two_convolutions() -> None:
    names = parameter_shapes(MobileInstConfig.preset("solov2-lite-r50"))
    assert "bbox_head.cate_convs.1.conv.weight" in names
    assert "bbox_head.cate_convs.2.conv.weight" not in names


# Parameters (M) of torchvision's classifiers, less their last layers: those of `torchvision.models`' page.
@pytest.mark.parametrize(
    ("preset", "published", "classifier"),
    [
        ("solov2-lite-r18", 11.689512, 1000 * 513),
        ("solov2-lite-r50", 25.557032, 1000 * 2049),
        ("solov2-mobilenetv2", 3.504872, 1000 * 1281 + 1280 * 320 + 2 * 1280),
    ],
)
def test_parameters_of_the_backbones(preset: str, published: float, classifier: int) -> None:
    shapes = parameter_shapes(MobileInstConfig.preset(preset))
    backbone = [
        np.prod(shape)
        for name, shape in shapes.items()
        if name.startswith("backbone") and "running" not in name
    ]
    assert sum(backbone) == round(published * 1e6) - classifier


IMPOSSIBLE = [
    ({"grids": (3, 2)}, "5 whole numbers"),
    ({"grids": (3, 2, 2, 1, 0)}, "5 whole numbers"),
    ({"grids": 7}, "5 whole numbers"),
    ({"head_dim": 48}, "head_dim is 48; expected a multiple of norm_groups, 32"),
    ({"backbone": "seaformer-tiny"}, "solov2 has no backbone 'seaformer-tiny'"),
    ({"head_convs": 0}, "head_convs is 0"),
]


@pytest.mark.parametrize(("fields", "message"), IMPOSSIBLE, ids=lambda value: str(value)[:40])
def test_impossible_configurations(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        MobileInstConfig.preset("solov2-r50", **fields)


def test_grids_of_the_command_line_are_a_list() -> None:
    config = MobileInstConfig.preset("solov2-r50", grids=[5, 4, 3, 2, 1])
    assert config == MobileInstConfig.preset("solov2-r50", grids=(5, 4, 3, 2, 1))
    assert hash(config)


@pytest.mark.parametrize("preset", RIVALS)
def test_a_rival_is_no_network_of_queries(preset: str) -> None:
    config = narrow(preset)
    with pytest.raises(ConfigurationError, match="has no queries with masks"):
        MobileInst(config, {})
    assert type(build_network(config, network(preset).weights, network(preset).spec)) is Network
    with pytest.raises(ConfigurationError, match="does not reuse kernels"):
        network(preset).mask_features(noise(1, 3, 64, 64))


@pytest.mark.parametrize("preset", RIVALS)
def test_a_rival_gives_the_outputs_that_it_names(preset: str) -> None:
    names = tuple(name for name, _ in network(preset)(noise(1, 3, 64, 96)).items())
    architecture = PRESETS[preset]["architecture"]
    assert names == output_names(architecture) == needed_outputs(architecture)


@pytest.mark.parametrize("preset", RIVALS)
def test_batch_is_a_stack_of_singles(preset: str) -> None:
    images = noise(2, 3, 64, 96)
    batch = dict(network(preset)(images).items())
    singles = [dict(network(preset)(image[None]).items()) for image in images]
    for name, array in batch.items():
        stacked = np.concatenate([single[name] for single in singles])
        assert np.abs(array - stacked).max() <= 1e-11 * np.abs(stacked).max()


@pytest.mark.parametrize("preset", RIVALS)
def test_folding_changes_nothing(preset: str) -> None:
    model, images = network(preset), noise(1, 3, 64, 96)
    folded = fold_batch_norm(model.weights)
    assert not any("running" in name for name in folded)
    before, after = (
        dict(each(images).items()) for each in (model, Network(model.config, folded, model.spec))
    )
    for name, array in before.items():
        assert np.abs(after[name] - array).max() <= 1e-10 * np.abs(array).max()


@pytest.mark.parametrize("preset", ["solov2-lite-r18", "condinst-topformer-base"])
def test_sides_that_the_public_code_pads(preset: str) -> None:
    with pytest.raises(ShapeError, match="multiples of 32"):
        network(preset)(noise(1, 3, 64, 72))


def test_buffers_of_a_public_checkpoint_are_left_out() -> None:
    model = network("condinst-topformer-base")
    buffers = {"mask_head.sizes_of_interest": np.ones(5), "mask_head._iter": np.ones(1)}
    further = {"backbone.bottom_up.trans.transformer_blocks.0.attn.to_q.c.weight": np.ones((1, 1))}
    loaded = Network(model.config, {**model.weights, **buffers, **further}, model.spec)
    assert loaded.weights.keys() == model.weights.keys()


def test_names_of_a_public_yolact() -> None:
    """The backbone's stages are a list of layers, and a head for training alone is left out."""
    config = MobileInstConfig.preset("yolact-r50")
    names = {
        "backbone.conv1.weight": "backbone.stem.conv1.weight",
        "backbone.bn1.bias": "backbone.stem.conv1.norm.bias",
        "backbone.layers.0.0.downsample.0.weight": "backbone.res2.0.shortcut.weight",
        "backbone.layers.3.2.bn3.running_var": "backbone.res5.2.conv3.norm.running_var",
        "fpn.lat_layers.1.bias": "fpn.lat_layers.1.bias",
    }
    given = dict.fromkeys([*names, "semantic_seg_conv.weight"], np.zeros(0))
    assert list(canonical(given, config)) == list(names.values())
    assert set(names.values()) <= set(parameter_shapes(config))


@pytest.mark.parametrize("size", [(64, 72), (97, 131)])
def test_yolact_computes_any_size(size: tuple[int, int]) -> None:
    outputs = dict(network("yolact-topformer-base")(noise(1, 3, *size)).items())
    height, width = (-(-side // 8) for side in size)
    assert outputs["prototypes"].shape[2:] == (2 * height, 2 * width)
    assert outputs["boxes"].shape[1] == len(prior_boxes(size))


def test_every_weight_is_asked_for() -> None:
    model = network("solov2-lite-r18")
    for name in ("bbox_head.solo_cate.bias", "mask_feat_head.conv_pred.0.gn.weight"):
        weights = {key: array for key, array in model.weights.items() if key != name}
        with pytest.raises(WeightsError, match=name):
            Network(model.config, weights, model.spec)


@pytest.mark.parametrize("preset", RIVALS)
def test_a_preset_is_its_public_configuration(preset: str) -> None:
    config = dataclasses.asdict(MobileInstConfig.preset(preset))
    if config["architecture"] == "solov2":
        light = "lite" in preset
        sizes = (config["head_dim"], config["head_convs"], config["kernel_dim"], config["mask_dim"])
        assert sizes == ((256, 2, 128, 128) if light else (512, 4, 256, 128))
        assert config["grids"] == (40, 36, 24, 16, 12)
    elif config["architecture"] == "maskrcnn":
        assert [config[name] for name in ("dim", "head_dim", "mask_dim", "num_classes")] == [
            256,
            1024,
            256,
            90,
        ]
    elif config["architecture"] == "yolact":
        assert [config[name] for name in ("dim", "head_dim", "mask_dim", "kernel_dim")] == [256, 256, 256, 32]
    elif config["architecture"] == "condinst":
        sizes = (config["dim"], config["head_convs"], config["mask_dim"], config["kernel_dim"])
        assert (*sizes, config["norm_groups"]) == (256, 4, 128, 8, 32)
