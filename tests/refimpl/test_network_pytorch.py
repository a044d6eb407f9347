"""The network against the same network written independently with PyTorch's modules, in float64."""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np
import pytest

from refimpl import MobileInst, MobileInstConfig, Outputs, Weights
from refimpl.config import BACKBONES, CHOICES
from refimpl.fpn import pyramid_pooling
from refimpl.instance_decoder import decoder_layer, instance_decoder, local_features
from refimpl.layers import conv_mlp, inverted_residual
from refimpl.mask_decoder import semantic_enhancer
from refimpl.model import backbone, decode_masks, parameter_shapes
from refimpl.position import sine_position_embedding
from refimpl.scope import Scope
from refimpl.seaformer import sea_attention, sea_block
from refimpl.topformer import Features, attention, pool_pyramid, transformer_block

torch = pytest.importorskip("torch")

from pytorch_faults import align_corners, scale_attention, scale_bias  # noqa: E402

from golden.sources import independent  # noqa: E402
from golden.sources.independent.instance_decoder import DecoderLayer, LocalFeatures, PositionEmbeddingSine  # noqa: E402
from golden.sources.independent.layers import MLP, InvertedResidual  # noqa: E402
from golden.sources.independent.mask_decoder import PyramidPooling, SemanticEnhancer  # noqa: E402
from golden.sources.independent.seaformer import SeaAttention, SeaBlock  # noqa: E402
from golden.sources.independent.topformer import Attention, Block  # noqa: E402
from golden.sources.independent.weights import load  # noqa: E402

pytestmark = pytest.mark.runtimes

TOLERANCE = 1e-10  # of each tensor's largest magnitude
SIZES = ((64, 96), (96, 160), (160, 224))  # 1/32 maps of 2×3, 3×5 and 5×7: X6 rounds up, X_L rounds down
NARROW = {"num_queries": 20, "dim": 64}
ABLATIONS: tuple[dict[str, Any], ...] = (
    {"local_layers": 0},
    {"global_layers": 0},
    {"global_layers": 2, "local_layers": 0},
    {"global_layers": 0, "local_layers": 2},
    *(
        {name: value}
        for name in ("local_pooling", "mask_decoder")
        for value in CHOICES[name]
        if value != getattr(MobileInstConfig(), name)
    ),
    {"mask_decoder": "fpn", "mask_convs": 1},
    {"num_classes": 40, "num_heads": 4},
)


def assert_close(name: str, actual: np.ndarray, expected: Any) -> None:
    """Every element within `TOLERANCE` of the tensor's scale; a NaN or another shape fails."""
    expected = expected.detach().numpy()
    assert actual.shape == expected.shape, name
    assert actual.dtype == np.float64, name
    scale = np.abs(expected).max()
    assert scale > 0, f"{name} is all zeros and compares nothing"
    error = np.abs(actual - expected) / scale
    worst = np.unravel_index(np.argmax(error), error.shape)
    assert np.all(error <= TOLERANCE), (
        f"{name}{tuple(map(int, worst))} differs by {error[worst]:.2e} of its scale"
    )


def state_shapes(state: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(value.shape) for name, value in state.items() if not name.endswith("num_batches_tracked")
    }


@functools.cache
def networks(preset: str, **fields: Any) -> tuple[MobileInst, Any]:
    """The reference and PyTorch's network with the same weights."""
    config = MobileInstConfig.preset(preset, **{**NARROW, **fields})
    weights = Weights.seeded(config, seed=1).astype(np.float64)
    return MobileInst(config, weights), load(independent.MobileInst(preset, **{**NARROW, **fields}), weights)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def assert_outputs_close(reference: MobileInst, model: Any, images: np.ndarray) -> None:
    actual: Outputs = reference(images)
    expected = model(torch.from_numpy(images))
    assert {name for name, _ in actual.items()} == set(expected._fields)
    for name, array in actual.items():
        assert_close(name, array, getattr(expected, name))


# The whole network.


@pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)
@pytest.mark.parametrize("preset", BACKBONES)
def test_outputs(preset: str, size: tuple[int, int]) -> None:
    assert_outputs_close(*networks(preset), noise(2, 3, *size))


@pytest.mark.parametrize(
    "fields", ABLATIONS, ids=lambda fields: ",".join(f"{k}={v}" for k, v in fields.items())
)
def test_ablations(fields: dict[str, Any]) -> None:
    assert_outputs_close(*networks("topformer-tiny", **fields), noise(2, 3, 96, 160, seed=2))


@pytest.mark.parametrize("preset", BACKBONES)
def test_published_widths_have_the_same_weights(preset: str) -> None:
    shapes = parameter_shapes(MobileInstConfig.preset(preset))
    with torch.device("meta"):
        state = independent.MobileInst(preset).state_dict()
    assert dict(shapes) == state_shapes(state)


@pytest.mark.parametrize("preset", BACKBONES)
def test_stages(preset: str) -> None:
    reference, model = networks(preset)
    images = noise(2, 3, 96, 160, seed=3)
    w = Scope(reference.weights)
    features = backbone(images, w / "backbone", reference.spec)
    expected = model.backbone(torch.from_numpy(images))
    for name, actual, map_ in zip(("X3", "X4", "X5", "X6"), features, expected, strict=True):
        assert_close(name, actual, map_)
    mask_features = decode_masks(features, w / "mask_decoder", reference.config)
    assert_close("X_mask", mask_features, model.mask_decoder(*expected))


SPARSEINST: tuple[tuple[str, dict[str, Any]], ...] = (
    ("resnet50", {"num_queries": 20, "dim": 64, "kernel_dim": 32}),
    ("topformer-base", {"num_queries": 20, "dim": 32, "kernel_dim": 16, "instance_activation": "plain"}),
    ("topformer-small", {"num_queries": 7, "dim": 32, "kernel_dim": 16, "instance_activation": "softmax"}),
    ("topformer-tiny", {"num_queries": 20, "dim": 64, "kernel_dim": 32, "num_classes": 40, "mask_convs": 2}),
)


@pytest.mark.parametrize(("backbone_name", "fields"), SPARSEINST, ids=[name for name, _ in SPARSEINST])
def test_sparseinst(backbone_name: str, fields: dict[str, Any]) -> None:
    config = MobileInstConfig(architecture="sparseinst", backbone=backbone_name, **fields)
    weights = Weights.seeded(config, seed=1).astype(np.float64)
    model = load(independent.SparseInst(backbone_name, **fields), weights)
    for size in SIZES[:2]:
        assert_outputs_close(MobileInst(config, weights), model, noise(2, 3, *size))


def test_sparseinst_published_widths_have_the_same_weights() -> None:
    shapes = parameter_shapes(MobileInstConfig.preset("sparseinst-r50"))
    with torch.device("meta"):
        state = independent.SparseInst().state_dict()
    assert dict(shapes) == state_shapes(state)


RESIZES = (
    "enhancer.0.resize_act",
    "enhancer.0.resize_embedding",
    "enhancer.1.resize_act",
    "enhancer.1.resize_embedding",
    *(f"resize_{path}.{i}" for path in ("top_down", "bottom_up", "output") for i in range(2)),
)
FAULTS = (
    *(functools.partial(align_corners, name=f"mask_decoder.{name}") for name in RESIZES),
    functools.partial(scale_bias, name="backbone.tpm.layer2.conv.0.bn.bias"),
    functools.partial(scale_bias, name="mask_decoder.output.0.bn.bias"),
    functools.partial(scale_bias, name="instance_decoder.local_decoder.0.cross_attn.in_proj_bias"),
    functools.partial(scale_bias, name="instance_decoder.class_head.bias"),
    scale_attention,
)


@pytest.mark.parametrize(
    "fault", FAULTS, ids=lambda fault: getattr(fault, "keywords", {}).get("name", "scale")
)
def test_a_fault_is_seen(fault: Any) -> None:
    reference, model = networks("topformer-tiny")
    model = copy.deepcopy(model)
    fault(model)
    with pytest.raises(AssertionError, match="of its scale"):
        assert_outputs_close(reference, model, noise(2, 3, 96, 160, seed=4))


# Its parts, each on inputs of its own, of sizes the network would not give them.


def part(module: Any, seed: int = 0) -> tuple[Any, Scope]:
    """A module filled with random weights (positive variances), and the same weights for the reference."""
    rng = np.random.default_rng(seed)
    weights = {
        name: rng.uniform(0.5, 2.0, value.shape)
        if name.endswith(("running_var", "bn.weight", "norm.weight"))
        else rng.standard_normal(value.shape) / max(1.0, np.sqrt(np.prod(value.shape[1:])))
        for name, value in module.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    return load(module, weights), Scope(weights)


def test_topformer_attention() -> None:
    module, w = part(Attention(40, heads=3))
    x = 2 * noise(2, 40, 3, 5)
    assert_close("attention", attention(x, w, 3), module(torch.from_numpy(x)))


def test_topformer_block() -> None:
    module, w = part(Block(40, heads=2))
    x = noise(2, 40, 4, 3)
    assert_close("block", transformer_block(x, w, 2), module(torch.from_numpy(x)))


@pytest.mark.parametrize("size", [(3, 5), (16, 20), (33, 1)])  # fewer, as many and more than the 16 positions
def test_seaformer_attention(size: tuple[int, int]) -> None:
    module, w = part(SeaAttention(24, key_dim=6, heads=3))
    x = 2 * noise(2, 24, *size)
    assert_close("attention", sea_attention(x, w, 6, 3), module(torch.from_numpy(x)))


def test_seaformer_block() -> None:
    module, w = part(SeaBlock(24, key_dim=8, heads=2, ratio=2))
    x = noise(2, 24, 4, 3)
    assert_close("block", sea_block(x, w, 8, 2, 2), module(torch.from_numpy(x)))


def test_conv_mlp() -> None:
    module, w = part(MLP(24, ratio=4))
    x = 4 * noise(2, 24, 5, 7)  # wide enough to reach the 6 of ReLU6
    assert_close("mlp", conv_mlp(x, w, ratio=4), module(torch.from_numpy(x)))


@pytest.mark.parametrize(
    ("kernel", "expansion", "out", "stride"), [(3, 1, 16, 1), (3, 4, 24, 2), (5, 3, 16, 1), (5, 6, 8, 2)]
)
def test_inverted_residual(kernel: int, expansion: int, out: int, stride: int) -> None:
    module, w = part(InvertedResidual(16, kernel, expansion, out, stride))
    x = noise(2, 16, 7, 9)
    actual = inverted_residual(x, w, kernel, expansion, out, stride)
    assert_close("inverted residual", actual, module(torch.from_numpy(x)))


@pytest.mark.parametrize("size", [(3, 5), (4, 6), (1, 1), (2, 7)])
def test_pool_pyramid(size: tuple[int, int]) -> None:
    pyramid = [noise(2, 3 + i, size[0] << (3 - i), size[1] << (3 - i), seed=i) for i in range(4)]
    target = ((size[0] + 1) // 2, (size[1] + 1) // 2)
    pooled = [torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(x), target) for x in pyramid]
    assert_close("tokens", pool_pyramid(pyramid, Scope({})), torch.cat(pooled, dim=1))


def test_semantic_enhancer() -> None:
    module, w = part(SemanticEnhancer(40, dim=16))
    local, semantics = noise(2, 16, 5, 7), 3 * noise(2, 40, 3, 4, seed=1)  # both ends of h_sigmoid
    actual = semantic_enhancer(local, semantics, w)
    assert_close("enhancer", actual, module(torch.from_numpy(local), torch.from_numpy(semantics)))


@pytest.mark.parametrize("size", [(2, 3), (6, 12), (5, 7), (10, 20)])
def test_pyramid_pooling(size: tuple[int, int]) -> None:
    module, w = part(PyramidPooling(16))
    x = noise(2, 16, *size)
    assert_close("pooled", pyramid_pooling(x, w), module(torch.from_numpy(x)))


def test_decoder_layer() -> None:
    module, w = part(DecoderLayer(32, num_heads=4))
    queries, tokens, pos = noise(2, 9, 32), noise(2, 15, 32, seed=1), noise(1, 15, 32, seed=2)
    actual = decoder_layer(queries, tokens + pos, tokens, w, num_heads=4)
    assert_close("queries", actual, module(*map(torch.from_numpy, (queries, tokens, pos))))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (5, 10), (20, 40)])
@pytest.mark.parametrize("dim", [4, 32, 256])
def test_sine_position_embedding(height: int, width: int, dim: int) -> None:
    like = noise(1, dim, height, width)
    expected = PositionEmbeddingSine(dim)(torch.from_numpy(like))
    assert_close("embedding", sine_position_embedding(height, width, dim, like=like), expected)


@pytest.mark.parametrize("pooling", ["none", "max4", "max8", "avg8"])
def test_local_pooling(pooling: str) -> None:
    x = noise(2, 4, 20, 28)  # no multiple of 8
    assert_close("X_L", local_features(x, Scope({}), pooling), LocalFeatures(pooling)(torch.from_numpy(x)))


def test_instance_decoder() -> None:
    reference, model = networks("topformer-small")
    x6, mask_features = noise(2, 296, 2, 3), noise(2, 64, 16, 24, seed=1)
    actual = instance_decoder(
        x6, mask_features, Scope(reference.weights) / "instance_decoder", reference.config
    )
    expected = model.instance_decoder(torch.from_numpy(x6), torch.from_numpy(mask_features))
    for name, array, tensor in zip(actual._fields, actual, expected, strict=True):
        assert_close(name, array, tensor)


def test_semantic_enhanced_mask_decoder() -> None:
    reference, model = networks("topformer-tiny")
    shapes = ((32, 10, 14), (64, 5, 7), (96, 3, 4), (208, 2, 2))
    maps = [noise(2, *shape, seed=i) for i, shape in enumerate(shapes)]
    actual = decode_masks(Features(*maps), Scope(reference.weights) / "mask_decoder", reference.config)
    assert_close("X_mask", actual, model.mask_decoder(*map(torch.from_numpy, maps)))
