"""Every configuration by name: presets, weights, shapes, symmetries, and costs beside what was published."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from conformance.cli import app
from conformance.evidence.paper_costs import (
    PAPER_GFLOPS,
    disagreements,
    network_cost,
    paper_rows,
    printed_disagreements,
    printed_rows,
)
from conformance.graph.onnx_export import to_onnx
from golden.micro import MICRO, MICRO_RESNET, MICRO_SEAFORMER, MICRO_SPARSEINST, MICRO_TOPFORMER
from refimpl import MobileInst, MobileInstConfig, Weights, ops, record
from refimpl.config import PRESETS
from refimpl.costs import Roofline, peak_activation_memory, step_costs
from refimpl.errors import ConfigurationError, WeightsError
from refimpl.fpn import sum_top_down
from refimpl.model import backbone, dot_product, parameter_shapes
from refimpl.query_passing import passed_masks
from refimpl.resnet import RESNETS, resnet
from refimpl.scope import Scope
from refimpl.seaformer import embed_positions
from refimpl.sparseinst import add_coordinates, normalise_maps

SMALL = {"dim": 32, "num_queries": 6, "num_heads": 4, "num_classes": 5, "kernel_dim": 16}
ROWS = [name for name in PRESETS if name.startswith("table")]
DISTINCT_ROWS = [
    name
    for name in ROWS
    if not name.startswith("table6") and name not in ("table4/max8", "table5/ours")  # the same, but for N
]
BACKBONES = [name for name in PRESETS if re.match("topformer|seaformer", name)]
SPARSE = [name for name in PRESETS if name.startswith("sparseinst")]


def small(preset, **fields):
    """The preset with few channels; a row of a table on the smallest backbone."""
    rows = {"backbone": "topformer-tiny"} if preset.startswith("table") else {}
    sizes = {
        name: value
        for name, value in SMALL.items()
        if not preset.startswith("table6/") or name != "num_queries"
    }
    return MobileInstConfig.preset(preset, **{**rows, **sizes, **fields})


def random_weights(config, seed=0):
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in parameter_shapes(config).items():
        if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
            weights[name] = rng.uniform(0.5, 2.0, shape)
        else:
            weights[name] = rng.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))
    return weights


@functools.cache
def network(preset, **fields):
    config = small(preset, **fields)
    return MobileInst(config, random_weights(config))


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def assert_close(actual, expected, bound=1e-11):
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= bound * np.abs(expected).max()


# Names.


def test_presets_cover_the_paper():
    assert [len([name for name in ROWS if name.startswith(f"table{i}/")]) for i in (3, 4, 5, 6)] == [
        5,
        4,
        5,
        4,
    ]
    assert len(BACKBONES) == 7
    assert SPARSE == [
        "sparseinst-r50",
        "sparseinst-topformer-base",
        "sparseinst-topformer-small",
        "sparseinst-topformer-tiny",
    ]


ROW_FIELDS = {
    "table3/global": ("top_down_bottom_up", 1, 0, 100),
    "table3/local": ("top_down_bottom_up", 0, 1, 100),
    "table3/global-x2": ("top_down_bottom_up", 2, 0, 100),
    "table3/local-x2": ("top_down_bottom_up", 0, 2, 100),
    "table3/dual": ("top_down_bottom_up", 1, 1, 100),
    "table5/sparseinst-4conv": ("sparseinst", 1, 1, 100),
    "table5/fpn-1conv": ("fpn", 1, 1, 100),
    "table5/ours": ("top_down_bottom_up", 1, 1, 100),
    "table5/ours-se": ("semantic_enhanced", 1, 1, 100),
    "table6/20": ("top_down_bottom_up", 1, 1, 20),
    "table6/200": ("top_down_bottom_up", 1, 1, 200),
}


@pytest.mark.parametrize("preset", ROW_FIELDS)
def test_rows_of_the_tables(preset):
    config = MobileInstConfig.preset(preset)
    fields = (config.mask_decoder, config.global_layers, config.local_layers, config.num_queries)
    assert fields == ROW_FIELDS[preset]
    assert (config.backbone, config.num_classes, config.dim) == ("topformer-base", 80, 256)


@pytest.mark.parametrize("pooling", ["none", "max4", "max8", "avg8"])
def test_rows_of_table_4(pooling):
    assert MobileInstConfig.preset(f"table4/{pooling}").local_pooling == pooling


# Names and shapes in the public repositories and in the paper's port.
PUBLIC_WEIGHTS = {
    "seaformer-base": {
        "backbone.smb1.stem_block.0.c.weight": (16, 3, 3, 3),
        "backbone.smb1.stem_block.0.bn.running_var": (16,),
        "backbone.smb1.layer1.conv.0.c.weight": (16, 1, 3, 3),
        "backbone.smb1.layer2.conv.0.c.weight": (64, 16, 1, 1),
        "backbone.smb5.layer1.conv.4.bn.weight": (256,),
        "backbone.trans1.transformer_blocks.3.attn.to_q.c.weight": (128, 192, 1, 1),
        "backbone.trans2.transformer_blocks.0.attn.to_v.c.weight": (384, 256, 1, 1),
        "backbone.trans2.transformer_blocks.0.attn.dwconv.c.weight": (768, 1, 3, 3),
        "backbone.trans2.transformer_blocks.0.attn.pwconv.c.weight": (256, 768, 1, 1),
        "backbone.trans2.transformer_blocks.0.attn.pos_emb_columnk.pos_embed": (1, 192, 16),
        "backbone.trans2.transformer_blocks.0.attn.proj_encode_row.1.c.weight": (384, 384, 1, 1),
        "backbone.trans2.transformer_blocks.0.attn.proj.1.bn.bias": (256,),
        "backbone.trans2.transformer_blocks.0.mlp.fc1.c.weight": (1024, 256, 1, 1),
        "backbone.trans2.transformer_blocks.0.mlp.dwconv.bias": (1024,),
    },
    "seaformer-large": {
        "backbone.smb1.stem_block.0.c.weight": (32, 3, 3, 3),
        "backbone.trans1.transformer_blocks.2.attn.to_q.c.weight": (128, 192, 1, 1),
        "backbone.trans3.transformer_blocks.2.mlp.fc2.c.weight": (320, 1920, 1, 1),
    },
    "table5/sparseinst-4conv": {
        "mask_decoder.fpn_laterals.0.weight": (256, 160, 1, 1),
        "mask_decoder.fpn_outputs.2.bias": (256,),
        "mask_decoder.ppm.stages.3.1.weight": (64, 256, 1, 1),
        "mask_decoder.ppm.bottleneck.weight": (256, 512, 1, 1),
        "mask_decoder.fusion.weight": (256, 768, 1, 1),
        "mask_decoder.mask_convs.6.weight": (256, 256, 3, 3),
        "mask_decoder.projection.bias": (256,),
    },
    "sparseinst-r50": {
        "backbone.stem.conv1.weight": (64, 3, 7, 7),
        "backbone.stem.conv1.norm.running_mean": (64,),
        "backbone.res2.0.shortcut.weight": (256, 64, 1, 1),
        "backbone.res5.2.conv3.norm.bias": (2048,),
        "encoder.fpn_laterals.0.weight": (256, 2048, 1, 1),
        "encoder.ppm.stages.0.1.bias": (64,),
        "encoder.fusion.bias": (256,),
        "decoder.inst_branch.inst_convs.0.weight": (256, 258, 3, 3),
        "decoder.inst_branch.iam_conv.weight": (400, 64, 3, 3),
        "decoder.inst_branch.fc.weight": (1024, 1024),
        "decoder.inst_branch.cls_score.weight": (80, 1024),
        "decoder.inst_branch.mask_kernel.weight": (128, 1024),
        "decoder.inst_branch.objectness.bias": (1,),
        "decoder.mask_branch.mask_convs.6.bias": (256,),
        "decoder.mask_branch.projection.weight": (128, 256, 1, 1),
    },
}


@pytest.mark.parametrize("preset", PUBLIC_WEIGHTS)
def test_weights_have_public_names(preset):
    shapes = parameter_shapes(MobileInstConfig.preset(preset))
    assert PUBLIC_WEIGHTS[preset].items() <= shapes.items()


def test_plain_and_softmax_activation():
    plain = parameter_shapes(MobileInstConfig.preset("sparseinst-r50", instance_activation="plain"))
    assert plain["decoder.inst_branch.iam_conv.weight"] == (100, 256, 3, 3)
    assert plain["decoder.inst_branch.cls_score.weight"] == (80, 256)
    assert "decoder.inst_branch.fc.weight" not in plain
    softmax = parameter_shapes(MobileInstConfig.preset("sparseinst-r50", instance_activation="softmax"))
    grouped = parameter_shapes(MobileInstConfig.preset("sparseinst-r50", instance_activation="grouped"))
    assert set(softmax) - set(grouped) == {"decoder.inst_branch.softmax_bias"}


# Parameters (M) of the ImageNet classifiers as published: the backbone and a linear layer of 1000 classes.
PARAMETERS = {
    "topformer-tiny": 1.5,
    "topformer-small": 3.11,
    "topformer-base": 5.07,
    "seaformer-tiny": 1.8,
    "seaformer-small": 4.1,
    "seaformer-base": 8.7,
    "seaformer-large": 14.0,
    "sparseinst-r50": 25.56,
}


@pytest.mark.parametrize("preset", PARAMETERS)
def test_parameters_of_the_backbones(preset):
    config = MobileInstConfig.preset(preset)
    stage = network_cost(config, 64, 64).stages[0]
    deepest = "encoder.fpn_laterals.0.weight" if "r50" in preset else "instance_decoder.global_proj.weight"
    classifier = 1000 * (parameter_shapes(config)[deepest][1] + 1)
    decimals = len(str(PARAMETERS[preset]).split(".")[1])
    assert stage.stage == "backbone"
    assert round((stage.parameters + classifier) / 1e6, decimals) == PARAMETERS[preset]


# Configurations that no network can have.

IMPOSSIBLE = [
    ({"backbone": "resnet50"}, "X6"),
    ({"architecture": "sparseinst", "backbone": "seaformer-base"}, "SparseInst has no backbone"),
    ({"architecture": "sparseinst", "dim": 30}, "multiple of 4"),
    ({"architecture": "blendmask"}, "one of 'mobileinst', 'sparseinst'"),
    ({"mask_decoder": "fpm"}, "one of 'semantic_enhanced'"),
    ({"mask_decoder": "fpn", "mask_convs": 0}, "mask_convs is 0"),
    ({"mask_convs": True}, "mask_convs is True"),
    ({"instance_activation": "group"}, "'grouped'"),
    ({"global_layers": 3}, "one of 0, 1, 2"),
    ({"global_layers": 0, "local_layers": 0}, "at least one decoder"),
    ({"num_heads": 7}, "multiple of 4 and of num_heads"),
]


@pytest.mark.parametrize(("fields", "message"), IMPOSSIBLE, ids=lambda value: str(value)[:40])
def test_impossible_configurations(fields, message):
    with pytest.raises(ConfigurationError, match=message):
        MobileInstConfig.preset("topformer-base", **fields)


def test_sparseinst_passes_no_queries():
    model = network("sparseinst-topformer-tiny")
    with pytest.raises(ConfigurationError, match="no queries to pass"):
        passed_masks(model, noise(1, 6, 16), noise(1, 16, 8, 8))


def test_sparseinst_has_no_attention_heads():
    assert MobileInstConfig.preset("sparseinst-r50", dim=20, num_heads=7).dim == 20


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("table5/fpn", "table5/fpn-1conv"), ("seaformer", "seaformer-"), ("sparseinst-r5", "sparseinst-r50")],
)
def test_unknown_presets_suggest_the_nearest(wrong, right):
    with pytest.raises(ConfigurationError, match=f"did you mean '{right}"):
        MobileInstConfig.preset(wrong)


@pytest.mark.parametrize(("pooling", "size"), [("max8", (32, 32)), ("avg8", (32, 96)), ("max8", (64, 32))])
def test_local_pooling_larger_than_the_map(pooling, size):
    model = network("topformer-tiny", local_pooling=pooling)
    with pytest.raises(ConfigurationError, match=f"local_pooling '{pooling}'"):
        model(np.zeros((1, 3, *size)))


@pytest.mark.parametrize(
    ("config", "spec", "channels"),
    [
        (MICRO, MICRO_TOPFORMER, 3 + 5 + 6 + 8),
        (MICRO, MICRO_SEAFORMER, 12),
        (MICRO_SPARSEINST, MICRO_TOPFORMER, None),
        (MICRO_SPARSEINST, MICRO_RESNET, None),
    ],
)
def test_a_backbone_of_ones_own(config, spec, channels):
    weights = Weights.seeded(config, seed=1, spec=spec)
    shapes = parameter_shapes(config, spec)
    assert {name: array.shape for name, array in weights.items()} == shapes != parameter_shapes(config)
    if channels:
        assert shapes["instance_decoder.global_proj.weight"] == (config.dim, channels, 1, 1)
    model = MobileInst(config, weights, spec)
    masks = model(noise(1, 3, 64, 96)).masks
    assert masks.shape[1] == config.num_queries
    assert np.isfinite(masks).all()
    with pytest.raises(WeightsError):
        MobileInst(config, weights)


@pytest.mark.parametrize(("config", "spec"), [(MICRO, MICRO_RESNET), (MICRO_SPARSEINST, MICRO_SEAFORMER)])
def test_a_backbone_that_the_network_cannot_have(config, spec):
    with pytest.raises(ConfigurationError, match="give a TopFormerSpec"):
        parameter_shapes(config, spec)


# Every configuration on odd sizes: 1/32 maps of 2×3, of which 1/64 is 1×2.


@pytest.mark.parametrize("preset", [*BACKBONES, *DISTINCT_ROWS, *SPARSE])
def test_batch_is_a_stack_of_singles(preset):
    model = network(preset)
    images = noise(2, 3, 64, 96)
    batch = dict(model(images).items())
    singles = [dict(model(image[None]).items()) for image in images]
    scale = 4 if preset in SPARSE else 8
    assert batch["masks"].shape == (2, 6, 64 // scale, 96 // scale)
    assert batch["mask_features"].shape == (2, 16 if preset in SPARSE else 32, 8, 12)
    assert ("global_queries" in batch) == (preset not in SPARSE)
    for name, array in batch.items():
        assert np.isfinite(array).all()
        assert_close(array, np.concatenate([single[name] for single in singles]))


@pytest.mark.parametrize("size", [(64, 64), (64, 224), (96, 160)], ids=str)
@pytest.mark.parametrize("preset", ["seaformer-tiny", "table5/sparseinst-1conv", "sparseinst-topformer-tiny"])
def test_odd_sizes(preset, size):
    model = network(preset)
    outputs = model(noise(1, 3, *size))
    assert outputs.mask_features.shape[2:] == (size[0] // 8, size[1] // 8)
    assert all(np.isfinite(array).all() for _, array in outputs.items())


@pytest.mark.parametrize("preset", [*BACKBONES[3:], "table5/sparseinst-4conv", "sparseinst-r50"])
def test_folding_changes_nothing(preset):
    config = small(preset)
    weights = Weights(random_weights(config))
    folded = weights.folded()
    assert not any("running" in name for name in folded)
    images = noise(1, 3, 64, 96)
    for (_, actual), (_, expected) in zip(
        MobileInst(config, folded)(images).items(), MobileInst(config, weights)(images).items(), strict=True
    ):
        assert_close(actual, expected, 1e-10)


@pytest.mark.parametrize("preset", ["seaformer-tiny", "table5/sparseinst-1conv", "sparseinst-topformer-tiny"])
def test_float32_stays_float32(preset):
    config = small(preset)
    narrow = {name: array.astype(np.float32) for name, array in random_weights(config).items()}
    recording = record(MobileInst(config, narrow), noise(1, 3, 64, 96))
    assert {array.dtype for array in recording.tensors.values()} <= {np.dtype(np.float32), np.dtype(np.int64)}
    to_onnx(recording, "float32")  # checked with full shape inference


# Symmetries.


@pytest.mark.parametrize(
    "preset", ["table3/local", "table3/global-x2", "table4/none", "table5/fpn-1conv", "seaformer-tiny"]
)
def test_permuting_queries_permutes_outputs(preset):
    model, order = network(preset), np.random.default_rng(1).permutation(6)
    queries = model.weights["instance_decoder.queries"][order]
    permuted = MobileInst(model.config, {**model.weights, "instance_decoder.queries": queries})
    assert_permuted(model, permuted, order)


@pytest.mark.parametrize("activation", ["plain", "grouped", "softmax"])
def test_permuting_activation_maps_permutes_outputs(activation):
    model, order = network("sparseinst-topformer-tiny", instance_activation=activation), [3, 0, 5, 1, 2, 4]
    groups = 1 if activation == "plain" else 4
    rows = np.concatenate([6 * group + np.array(order) for group in range(groups)])
    path = "decoder.inst_branch.iam_conv."
    moved = {path + part: model.weights[path + part][rows] for part in ("weight", "bias")}
    assert_permuted(model, MobileInst(model.config, {**model.weights, **moved}), order)


def assert_permuted(model, permuted, order):
    images = noise(1, 3, 64, 96)
    expected, actual = dict(model(images).items()), dict(permuted(images).items())
    assert not np.allclose(expected["masks"], expected["masks"][:, order])
    for name in set(expected) - {"mask_features"}:
        assert_close(actual[name], expected[name][:, order])
    np.testing.assert_array_equal(actual["mask_features"], expected["mask_features"])


@pytest.mark.parametrize(
    ("preset", "path"),
    [
        ("seaformer-tiny", "instance_decoder.kernel_head.2."),
        ("table5/fpn-1conv", "instance_decoder.kernel_head.2."),
        ("sparseinst-topformer-tiny", "decoder.inst_branch.mask_kernel."),
    ],
)
def test_scaling_kernels_scales_masks(preset, path):
    model, images = network(preset), noise(1, 3, 64, 96)
    scaled = {path + part: 4 * model.weights[path + part] for part in ("weight", "bias")}
    outputs = MobileInst(model.config, {**model.weights, **scaled})(images)
    np.testing.assert_array_equal(outputs.masks, 4 * model(images).masks)  # a power of two: exactly


def test_scaling_one_kernel_scales_its_mask():
    kernels, features = noise(2, 3, 8), noise(2, 8, 5, 7)
    scaled = kernels * np.array([1.0, -2.0, 0.0])[:, None]
    expected = np.einsum("bnd,bdhw->bnhw", kernels, features) * np.array([1.0, -2.0, 0.0])[:, None, None]
    assert_close(dot_product(scaled, features, Scope({}, "masks")), expected)


# A translation by 64 pixels shifts what convolutions alone compute, but for the edges.
CONVOLUTIONAL = {
    "topformer-base": ("x3", "x4", "x5"),
    "topformer-tiny": ("x3", "x4", "x5"),
    "seaformer-base": ("x3", "x4"),
    "seaformer-large": ("x3",),
}


@pytest.mark.parametrize("preset", CONVOLUTIONAL)
def test_translation_shifts_interior_features(preset):
    model = network(preset)
    features = [
        backbone(images, Scope(model.weights, "backbone"), model.spec)
        for images in translated(noise(1, 3, 32, 640))
    ]
    for name in CONVOLUTIONAL[preset]:
        assert_shifted(*(getattr(maps, name) for maps in features), margin=192)


def test_translation_shifts_interior_features_of_resnet():
    w = Scope(network("sparseinst-r50").weights, "backbone")
    before, after = (resnet(images, w, RESNETS["resnet50"]) for images in translated(noise(1, 3, 32, 640)))
    for maps in zip(before, after, strict=True):
        assert_shifted(*maps, margin=256)


def translated(images):
    return images, np.roll(images, 64, axis=3)


def assert_shifted(before, after, margin):
    stride = 640 // before.shape[3]
    shift, edge = 64 // stride, margin // stride
    assert_close(after[..., edge + shift : -edge], before[..., edge : -edge - shift])
    assert not np.allclose(after[..., edge:-edge], before[..., edge:-edge])


# Parts against NumPy's own functions.


@pytest.mark.parametrize("length", [1, 5, 16, 40])
def test_position_embeddings_are_resized_linearly(length):
    embedding = noise(1, 6, 16)
    actual = embed_positions(np.zeros((2, 6, length)), Scope({"pos_embed": embedding}))
    places = (np.arange(length) + 0.5) * 16 / length - 0.5  # half-pixel centres; interp clamps
    expected = np.stack([np.interp(places, np.arange(16), channel) for channel in embedding[0]])
    assert_close(actual, np.stack([expected, expected]))


def test_pyramid_sums_repeat_the_deeper_level():
    lateral, deeper = noise(2, 3, 6, 10), noise(2, 3, 3, 5, seed=1)
    np.testing.assert_array_equal(
        sum_top_down(lateral, deeper), lateral + deeper.repeat(2, axis=2).repeat(2, axis=3)
    )


def test_coordinates():
    x = noise(2, 3, 4, 5)
    placed = add_coordinates(x, Scope({}, "coordinates"))
    np.testing.assert_array_equal(placed[:, 2:], x)
    np.testing.assert_allclose(placed[1, 0], np.tile([-1, -0.5, 0, 0.5, 1], (4, 1)), atol=1e-15)
    np.testing.assert_allclose(placed[1, 1].T, np.tile([-1, -1 / 3, 1 / 3, 1], (5, 1)), atol=1e-15)


@pytest.mark.parametrize("activation", ["plain", "grouped", "softmax"])
def test_activation_maps_sum_to_one(activation):
    config = small("sparseinst-topformer-tiny", instance_activation=activation)
    maps = normalise_maps(5 * noise(2, 6, 35), Scope({"softmax_bias": np.ones(1)}), config)
    assert (maps > 0).all()
    np.testing.assert_allclose(maps.sum(axis=-1), 1, rtol=1e-12)


def test_an_activation_map_of_nothing_is_nothing():
    maps = normalise_maps(np.full((1, 2, 9), -100.0), Scope({}), small("sparseinst-r50"))
    np.testing.assert_allclose(maps, np.exp(-100) / 1e-6, rtol=1e-12)


# Public checkpoints.


def torchvision_resnet50():
    """Yield torchvision's names of convolution and batch norm, and detectron2's of the convolution."""
    yield "conv1", "bn1", "stem.conv1"
    for stage, depth in enumerate((3, 4, 6, 3), start=1):
        for i in range(depth):
            for j in (1, 2, 3):
                yield f"layer{stage}.{i}.conv{j}", f"layer{stage}.{i}.bn{j}", f"res{stage + 1}.{i}.conv{j}"
        yield f"layer{stage}.0.downsample.0", f"layer{stage}.0.downsample.1", f"res{stage + 1}.0.shortcut"


@pytest.mark.parametrize(("folded", "prefix"), [(False, ""), (True, "backbone.")])
def test_torchvision_names(tmp_path: Path, folded, prefix):
    config = small("sparseinst-r50")
    weights = Weights(random_weights(config))
    weights = weights.folded() if folded else weights
    file = {"fc.weight": np.zeros((1000, 2048)), "fc.bias": np.zeros(1000)}
    for convolution, norm, ours in torchvision_resnet50():
        for part in ("weight", "bias"):
            if f"backbone.{ours}.{part}" in weights:
                file[f"{convolution}.{part}"] = weights[f"backbone.{ours}.{part}"]
        if not folded:
            for part in ("weight", "bias", "running_mean", "running_var"):
                file[f"{norm}.{part}"] = weights[f"backbone.{ours}.norm.{part}"]
            file[f"{norm}.num_batches_tracked"] = np.array(7)
    np.savez(tmp_path / "r50.npz", **{prefix + name: array for name, array in file.items()})
    rest = {name: np.zeros_like(a) if name.startswith("backbone") else a for name, a in weights.items()}
    loaded = Weights.load_backbone(tmp_path / "r50.npz", config, rest)
    assert loaded.keys() == weights.keys()
    assert all(np.array_equal(loaded[name], weights[name]) for name in weights)


UNUSED = {
    "sparseinst-topformer-tiny": (
        "backbone.trans.transformer_blocks.0.attn.to_q.c.weight",
        "backbone.SIM.0.x",
    ),
    "sparseinst-r50": ("backbone.fc.weight", "backbone.stem.fc.bias", "backbone.linear.weight"),
}


@pytest.mark.parametrize("preset", UNUSED)
def test_unused_backbone_weights_may_be_there(tmp_path: Path, preset):
    model = network(preset)
    surplus = {name: np.ones((2, 2)) for name in UNUSED[preset]}
    np.savez(tmp_path / "w.npz", **model.weights, **surplus)
    loaded = Weights.load(tmp_path / "w.npz", model.config)
    assert loaded.keys() == model.weights.keys()
    assert MobileInst(model.config, {**model.weights, **surplus}).weights.keys() == model.weights.keys()


@pytest.mark.parametrize("name", ["backbone.res6.0.conv1.weight", "encoder.fc.weight", "fc.weight"])
def test_other_weights_may_not(name):
    model = network("sparseinst-r50")
    with pytest.raises(WeightsError, match=f"extra {re.escape(name)}"):
        MobileInst(model.config, {**model.weights, name: np.ones(2)})


def test_mobileinst_uses_all_of_its_backbone():
    model = network("topformer-tiny")
    with pytest.raises(WeightsError, match=r"extra backbone\.fc\.weight"):
        MobileInst(model.config, {**model.weights, "backbone.fc.weight": np.ones(2)})


# Costs. The paper's FLOPs columns at 320×640, in G.

TABLES = {
    "table3": {"global": 8.69, "global-x2": 8.75, "local-x2": 8.74, "dual": 8.75},
    "table4": {"none": 9.32, "max4": 8.77, "max8": 8.75, "avg8": 8.75},
    "table5": {
        "sparseinst-4conv": 12.38,
        "sparseinst-1conv": 6.72,
        "fpn-1conv": 6.69,
        "ours": 8.75,
        "ours-se": 8.79,
    },
    "table6": {"200": 8.97, "100": 8.75, "50": 8.65, "20": 8.59},
}
OTHERS = ("sparseinst-4conv", "sparseinst-1conv", "fpn-1conv")


@pytest.fixture(scope="module")
def rows():
    return paper_rows()


def test_rows_are_within_the_limits_of_the_paper(rows):
    counted = {row.preset: row.counted for row in rows}
    assert len(counted) == sum(map(len, TABLES.values())) == 17
    for table, column in TABLES.items():
        for name, paper in column.items():
            assert abs(counted[f"{table}/{name}"] / paper - 1) <= (0.05 if name in OTHERS else 0.01)
        for first, second in itertools.combinations([name for name in column if name not in OTHERS], 2):
            difference = counted[f"{table}/{first}"] - counted[f"{table}/{second}"]
            assert abs(difference - (column[first] - column[second])) <= 0.01
    assert not list(disagreements(rows))


def test_rivals_cost_what_others_print() -> None:
    counted = {(row.printed.preset, *row.printed.fields.values()): row.counted for row in printed_rows()}
    assert abs(counted["maskrcnn-r50",] / 134.38 - 1) < 1e-4
    assert int(counted["maskrcnn-r50", "resnet50-caffe"]) == 117
    assert abs(2 * counted["yolact-r50",] / 118.575 - 1) < 5e-3
    assert not list(printed_disagreements(printed_rows()))
    wrong = [dataclasses.replace(row, counted=1.02 * row.printed.macs) for row in printed_rows()]
    assert len(list(printed_disagreements(wrong))) == len(wrong)


def test_what_one_more_convolution_costs(rows):
    """Three 3×3 convolutions of 256 channels at 40×80, by hand: what 4×conv adds to 1×conv."""
    counted = {row.preset: row.cost.macs for row in rows}
    added = counted["table5/sparseinst-4conv"] - counted["table5/sparseinst-1conv"]
    assert added == 3 * 256 * 256 * 9 * 40 * 80


def test_what_a_query_costs(rows):
    """By hand: dot product with the mask features, heads and attention; pairs of queries apart."""
    counted = {row.preset: row.cost.macs for row in rows}
    dim, tokens = 256, 5 * 10
    heads = dim * (80 + 1) + 3 * dim * dim
    decoder = (
        2 * dim * dim + 2 * tokens * dim + 4 * dim * dim
    )  # cross-attention, then self-attention's projections
    linear, pairs = dim * 40 * 80 + heads + 2 * decoder, 2 * 2 * dim
    for first, second in itertools.combinations((200, 100, 50, 20), 2):
        expected = linear * (first - second) + pairs * (first**2 - second**2)
        assert counted[f"table6/{first}"] - counted[f"table6/{second}"] == expected


@pytest.mark.parametrize(
    ("preset", "shift", "message"),
    [
        ("table6/50", 0.03, "table6/50: "),
        ("table3/local-x2", -0.03, "table3/global − table3/local-x2"),
        ("table5/fpn-1conv", 0.5, "table5/fpn-1conv: "),
    ],
)
def test_a_wrong_row_is_named(rows, preset, shift, message):
    changed = [
        dataclasses.replace(row, paper=row.paper + shift) if row.preset == preset else row for row in rows
    ]
    assert any(text.startswith(message) for text in disagreements(changed))


# G at 224×224 as published for the ImageNet classifiers, whose last layer is here left out.
@pytest.mark.parametrize(
    ("preset", "published", "tolerance"),
    [
        ("sparseinst-r50", 4.09, 0.01),
        ("seaformer-tiny", 0.1, 0.05),
        ("seaformer-small", 0.2, 0.05),
        ("seaformer-base", 0.3, 0.05),
        ("seaformer-large", 1.2, 0.05),
    ],
)
def test_costs_of_the_backbones(preset, published, tolerance):
    stages = network_cost(MobileInstConfig.preset(preset, dim=4, num_heads=1), 224, 224).stages
    assert stages[0].stage == "backbone"
    assert abs(stages[0].macs / 1e9 - published) <= tolerance


class Graph:
    """A small computation that can be recorded."""

    def __init__(self, compute):
        self.weights = {"w": np.ones((4, 4), np.float32)}
        self.compute = compute

    def __call__(self, x):
        return {"y": self.compute(x, self.weights["w"])}


# An image of 1×3×4×4 float32 is 192 bytes.
@pytest.mark.parametrize(
    ("compute", "expected"),
    [
        (lambda x, w: ops.relu(x), 2 * 192),
        (lambda x, w: ops.relu(ops.relu(ops.relu(x))), 2 * 192),
        (lambda x, w: ops.add(x, ops.relu(ops.relu(x))), 3 * 192),
        (lambda x, w: ops.add(ops.relu(x), ops.relu(x)), 3 * 192),
        (lambda x, w: ops.reshape(ops.relu(ops.reshape(x, (1, 48))), (3, 16)), 2 * 192),
        (lambda x, w: ops.mat_mul(x, ops.relu(w)), 2 * 192),  # what weights alone give is no activation
        (lambda x, w: ops.concat(x, x, x, axis=1), 4 * 192),
        (lambda x, w: ops.reduce_mean(ops.concat(x, x, axis=1), (1, 2, 3)), 3 * 192),
    ],
)
def test_peak_activation_memory(compute, expected):
    recording = record(Graph(compute), np.zeros((1, 3, 4, 4), np.float32))
    assert peak_activation_memory(recording).bytes == expected


def test_roofline():
    product, relu = step_costs(
        record(Graph(lambda x, w: ops.relu(ops.mat_mul(x, w))), np.zeros((1, 3, 4, 4)))
    )
    assert (product.macs, product.bytes_moved) == (3 * 4 * 4 * 4, 192 + 64 + 192)
    assert (relu.macs, relu.bytes_moved) == (0, 2 * 192)
    machine = Roofline(gflops=1, gbps=2)
    assert machine.seconds(product) == pytest.approx(2 * 192e-9)  # arithmetic: 384 operations; memory: 224 ns
    assert machine.seconds(relu) == pytest.approx(192e-9)
    assert Roofline(gflops=10, gbps=2).seconds(product) == pytest.approx(224e-9)
    for gflops in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ConfigurationError, match="gflops"):
            Roofline(gflops, 1)


# The command line.


def run(*arguments):
    return CliRunner().invoke(app, list(arguments))


def test_command_prints_the_paper(tmp_path: Path):
    result = run("cost", "--paper", "--json", str(tmp_path / "cost.json"))
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "cost.json").read_text())
    paper = {f"{table}/{name}": value for table, column in TABLES.items() for name, value in column.items()}
    assert {row["preset"]: row["paper_gflops"] for row in content["rows"]} == paper == PAPER_GFLOPS
    for row in content["rows"]:
        assert sum(stage["macs"] for stage in row["stages"]) == round(1e9 * row["gmacs"])


def test_command_fails_when_the_paper_disagrees(monkeypatch):
    monkeypatch.setattr(
        "conformance.evidence.paper_costs.PAPER_GFLOPS", {"table6/20": 8.7, "table6/50": 8.65}
    )
    result = run("cost", "--paper")
    assert result.exit_code == 1
    assert "table6/20" in result.output


def test_command_prints_layers(tmp_path: Path):
    path = tmp_path / "cost.json"
    sizes = ("--model", "seaformer-tiny", "--size", "64x96", "--set", "dim=32")
    result = run("cost", *sizes, "--gflops", "50", "--gbps", "10", "--json", str(path))
    assert result.exit_code == 0, result.output
    content = json.loads(path.read_text())
    assert content["macs"] == sum(layer["macs"] for layer in content["layers"])
    assert content["macs"] == sum(stage["macs"] for stage in content["stages"])
    for layer in content["layers"]:
        expected = max(layer["macs"] / 25e9, layer["bytes_moved"] / 10e9)
        assert layer["seconds"] == pytest.approx(expected)


@pytest.mark.parametrize(
    "arguments", [("--gflops", "3"), ("--paper", "--size", "64x64"), ("--gflops", "3", "--gbps", "0")]
)
def test_command_refuses(arguments):
    assert isinstance(run("cost", *arguments).exception, ConfigurationError)


def test_list_names_every_preset():
    result = run("explain", "--list", "--json", "-")
    assert json.loads(result.output).keys() == PRESETS.keys()
