"""Blocks of the networks: each with weights of its own, in awkward sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from golden.case import Golden
from golden.declared.part import Compute, Part
from golden.micro import MICRO, MICRO_MASKRCNN, MICRO_MOBILENET, MICRO_SPARSEINST, MICRO_TOPFORMER
from refimpl import ops
from refimpl.config import MobileInstConfig
from refimpl.fpn import conv_stack, pyramid_pooling, sum_top_down
from refimpl.instance_decoder import (
    decode,
    decoder_layer,
    instance_decoder,
    kernel_head,
    local_features,
    multi_head_attention,
)
from refimpl.layers import conv_bn, conv_mlp, inverted_residual, layer_norm, linear
from refimpl.mask_decoder import conv_bn_relu, fuse, mask_decoder, semantic_enhancer
from refimpl.maskrcnn import classified, masked
from refimpl.mobilenet import mobilenet
from refimpl.model import baseline_mask_decoder, dot_product, double
from refimpl.ops.operation import Array
from refimpl.position import sine_position_embedding
from refimpl.query_passing import passed_masks
from refimpl.resnet import bottleneck
from refimpl.resnet import stem as resnet_stem
from refimpl.scope import DeclaringScope, Scope
from refimpl.seaformer import embed_positions, sea_attention, sea_block
from refimpl.sparseinst import add_coordinates, instance_branch
from refimpl.topformer import (
    Features,
    attention,
    pool_pyramid,
    stem,
    token_pyramid,
    transformer_block,
)


@dataclass(frozen=True)
class _Network:
    """What query passing needs of a network."""

    config: MobileInstConfig
    weights: Mapping[str, Array]


def _passed(queries: Array, w: Scope) -> Array:
    """Temporal query passing; only the instance decoder takes part."""
    features = w["mask_features", 1, 8, 8, 16]
    if isinstance(w, DeclaringScope):
        instance_decoder(np.zeros((1, 24, 1, 2), np.float32), features, w / "instance_decoder", MICRO)
    network: Any = _Network(MICRO, w.weights)
    return features if isinstance(w, DeclaringScope) else passed_masks(network, queries, features)


# --- the list -------------------------------------------------------------------------------------


def _instance_branch(kind: str) -> Compute:
    config = replace(MICRO_SPARSEINST, instance_activation=kind)
    return lambda x, w: instance_branch(x, w / "inst_branch", config)


def _mask_decoder(enhanced: bool) -> Compute:
    def compute(x: Array, w: Scope) -> Array:
        features = Features(x, w["x4", 1, 10, 3, 5], w["x5", 1, 12, 2, 3], w["x6", 1, 14, 1, 2])
        return mask_decoder(features, w / "mask_decoder", 8, enhanced)

    return compute


def _baseline(kind: str) -> Compute:
    config = MobileInstConfig(dim=8, mask_decoder=kind, mask_convs=1)

    def compute(x: Array, w: Scope) -> Array:
        features = Features(x, w["x4", 1, 10, 4, 6], w["x5", 1, 12, 2, 3], x)
        return baseline_mask_decoder(features, w / "mask_decoder", config)

    return compute


def _pyramid(x: Array, w: Scope) -> Array:
    maps = [x, w["c4", 1, 4, 12, 20], w["c5", 1, 5, 6, 10], w["c6", 1, 6, 3, 5]]
    return pool_pyramid(maps, w / "ppa")


def _position(x: Array, w: Scope) -> Array:
    return ops.add(x, sine_position_embedding(3, 5, 32, like=x))


def _heads_first(x: Array, w: Scope) -> Array:
    keys, values = w["keys", 1, 15, 32], w["values", 1, 15, 32]
    return multi_head_attention(x, keys, values, w / "cross_attn", 4)


def _decoder_layer(x: Array, w: Scope) -> Array:
    return decoder_layer(x, w["keys", 1, 15, 32], w["values", 1, 15, 32], w / "layer", 4)


PARTS = (
    Part(
        "blocks/conv_bn",
        "refimpl.layers.conv_bn",
        (1, 6, 7, 9),
        lambda x, w: conv_bn(x, w / "unit", 8, 3, 2),
        "convolution and batch norm, folded or not",
        ("refimpl.layers.conv", "refimpl.layers.batch_norm"),
    ),
    Part(
        "blocks/inverted_residual",
        "refimpl.layers.inverted_residual",
        (1, 8, 7, 9),
        lambda x, w: inverted_residual(x, w / "layer", 5, 3, 8, 1),
        "expand, depthwise 5×5, project, add",
    ),
    Part(
        "blocks/inverted_residual_stride",
        "refimpl.layers.inverted_residual",
        (1, 8, 7, 9),
        lambda x, w: inverted_residual(x, w / "layer", 3, 4, 12, 2),
        "stride 2: no shortcut",
    ),
    Part(
        "blocks/inverted_residual_first",
        "refimpl.layers.inverted_residual",
        (1, 8, 6, 8),
        lambda x, w: inverted_residual(x, w / "layer", 3, 1, 8, 1),
        "expansion 1: no first convolution",
    ),
    Part(
        "blocks/conv_mlp",
        "refimpl.layers.conv_mlp",
        (1, 12, 5, 7),
        lambda x, w: conv_mlp(x, w / "mlp", 4),
        "1×1, depthwise 3×3 with a bias, ReLU6, 1×1",
        ("refimpl.layers.relu6",),
        scale=4.0,
    ),
    Part(
        "blocks/linear",
        "refimpl.layers.linear",
        (2, 5, 16),
        lambda x, w: linear(x, w / "head", 7),
        "x Wᵀ + b",
        ("refimpl.ops.linear",),
    ),
    Part(
        "blocks/layer_norm",
        "refimpl.layers.layer_norm",
        (2, 5, 16),
        lambda x, w: layer_norm(x, w / "norm"),
        "the last axis, ε = 1e-5",
    ),
    Part(
        "blocks/topformer_stem",
        "refimpl.topformer.stem",
        (1, 3, 16, 24),
        lambda x, w: stem(x, w / "stem", 16),
        "3×3, stride 2",
    ),
    Part(
        "blocks/token_pyramid",
        "refimpl.topformer.token_pyramid",
        (1, 3, 32, 64),
        lambda x, w: tuple(token_pyramid(x, w / "tpm", MICRO_TOPFORMER)),
        "the four tapped maps",
    ),
    Part(
        "blocks/pool_pyramid",
        "refimpl.topformer.pool_pyramid",
        (1, 3, 24, 40),
        _pyramid,
        "adaptive average pooling of 24×40 … 3×5 to 2×3",
        ("refimpl.ops.adaptive_average_pool",),
    ),
    Part(
        "blocks/topformer_attention",
        "refimpl.topformer.attention",
        (1, 20, 3, 5),
        lambda x, w: attention(x, w / "attn", 2),
        "no 1/√d; heads joined channel by channel",
        scale=1.0,
    ),
    Part(
        "blocks/transformer_block",
        "refimpl.topformer.transformer_block",
        (1, 20, 2, 3),
        lambda x, w: transformer_block(x, w / "block", 2),
        "attention, then the feed-forward, each with a shortcut",
    ),
    Part(
        "blocks/sea_attention",
        "refimpl.seaformer.sea_attention",
        (1, 12, 5, 7),
        lambda x, w: sea_attention(x, w / "attn", 4, 2),
        "rows, columns and detail",
        ("refimpl.seaformer.detail", "refimpl.seaformer.axial_attention", "refimpl.layers.hard_sigmoid"),
    ),
    Part(
        "blocks/sea_block",
        "refimpl.seaformer.sea_block",
        (1, 12, 4, 3),
        lambda x, w: sea_block(x, w / "block", 4, 2, 2),
        "attention and feed-forward",
    ),
    Part(
        "blocks/embed_positions",
        "refimpl.seaformer.embed_positions",
        (1, 6, 10),
        lambda x, w: embed_positions(x, w / "pos_emb"),
        "16 learned positions resized linearly to 10",
    ),
    Part(
        "blocks/conv_bn_relu",
        "refimpl.mask_decoder.conv_bn_relu",
        (1, 6, 5, 7),
        lambda x, w: conv_bn_relu(x, w / "unit", 8),
        "a unit of the mask decoder",
    ),
    Part(
        "blocks/semantic_enhancer",
        "refimpl.mask_decoder.semantic_enhancer",
        (1, 8, 5, 7),
        lambda x, w: semantic_enhancer(x, w["global_features", 1, 12, 3, 4], w / "enhancer"),
        "gate by h_sigmoid of slope 1/6, resized half-pixel",
        scale=2.0,
    ),
    Part(
        "blocks/fuse",
        "refimpl.mask_decoder.fuse",
        (1, 8, 6, 10),
        lambda x, w: fuse(x, w["neighbour", 1, 8, 3, 5], w / "top_down"),
        "resize, add, convolve",
        ("refimpl.layers.resize",),
    ),
    Part(
        "blocks/mask_decoder",
        "refimpl.mask_decoder.mask_decoder",
        (1, 8, 6, 10),
        _mask_decoder(True),
        "top-down, bottom-up, top-down, with enhancers",
        every_tensor=True,
    ),
    Part(
        "blocks/mask_decoder_plain",
        "refimpl.mask_decoder.mask_decoder",
        (1, 8, 6, 10),
        _mask_decoder(False),
        "without enhancers",
        ("refimpl.model.decode_masks",),
    ),
    Part(
        "blocks/mask_decoder_fpn",
        "refimpl.model.baseline_mask_decoder",
        (1, 8, 8, 12),
        _baseline("fpn"),
        "Table 5: FPN",
        ("refimpl.fpn.feature_pyramid", "refimpl.fpn.mask_branch"),
    ),
    Part(
        "blocks/mask_decoder_sparseinst",
        "refimpl.model.baseline_mask_decoder",
        (1, 8, 8, 12),
        _baseline("sparseinst"),
        "Table 5: SparseInst",
        ("refimpl.fpn.feature_pyramid",),
    ),
    Part(
        "blocks/pyramid_pooling",
        "refimpl.fpn.pyramid_pooling",
        (1, 8, 5, 7),
        lambda x, w: pyramid_pooling(x, w / "ppm"),
        "averages over 1, 2, 3 and 6 cells; cells overlap",
    ),
    Part(
        "blocks/sum_top_down",
        "refimpl.fpn.sum_top_down",
        (1, 4, 6, 10),
        lambda x, w: sum_top_down(x, w["deeper", 1, 4, 3, 5]),
        "nearest ×2, then the sum",
    ),
    Part(
        "blocks/conv_stack",
        "refimpl.fpn.conv_stack",
        (1, 6, 5, 7),
        lambda x, w: conv_stack(x, w / "convs", 2, 8),
        "two 3×3 with ReLU",
    ),
    Part(
        "blocks/sine_position_embedding",
        "refimpl.position.sine_position_embedding",
        (1, 15, 32),
        _position,
        "tokens plus the embedding of 3×5: rows first, then columns",
        scale=0.25,
    ),
    Part(
        "blocks/multi_head_attention",
        "refimpl.instance_decoder.multi_head_attention",
        (1, 6, 32),
        _heads_first,
        "packed weights q;k;v, scale 1/√8",
        ("refimpl.instance_decoder.split_heads",),
    ),
    Part(
        "blocks/decoder_layer",
        "refimpl.instance_decoder.decoder_layer",
        (1, 6, 32),
        _decoder_layer,
        "cross-attention, norm, self-attention, norm",
        every_tensor=True,
    ),
    Part(
        "blocks/decode",
        "refimpl.instance_decoder.decode",
        (1, 6, 16),
        lambda x, w: decode(x, w["features", 1, 16, 3, 5], w / "global_decoder", 1, 4),
        "positions go to the keys, not to the values",
    ),
    Part(
        "blocks/kernel_head",
        "refimpl.instance_decoder.kernel_head",
        (1, 6, 16),
        lambda x, w: kernel_head(x, w / "kernel_head"),
        "three layers, ReLU between",
    ),
    Part(
        "blocks/local_features_max",
        "refimpl.instance_decoder.local_features",
        (1, 3, 20, 28),
        lambda x, w: local_features(x, w / "local", "max8"),
        "8×8 maxima, the rest dropped",
    ),
    Part(
        "blocks/local_features_average",
        "refimpl.instance_decoder.local_features",
        (1, 3, 20, 28),
        lambda x, w: local_features(x, w / "local", "avg8"),
        "8×8 means",
    ),
    Part(
        "blocks/instance_decoder",
        "refimpl.instance_decoder.instance_decoder",
        (1, 24, 2, 3),
        lambda x, w: tuple(
            instance_decoder(x, w["mask_features", 1, 8, 10, 19], w / "instance_decoder", MICRO)
        ),
        "global, then local; the three heads",
        ("refimpl.instance_decoder.heads", "refimpl.instance_decoder.repeat_queries"),
    ),
    Part(
        "blocks/query_passing",
        "refimpl.query_passing.passed_masks",
        (1, 6, 8),
        _passed,
        "another frame's queries enter the local decoder",
    ),
    Part(
        "blocks/dot_product",
        "refimpl.model.dot_product",
        (1, 6, 16),
        lambda x, w: dot_product(x, w["mask_features", 1, 16, 4, 6], w / "masks"),
        "masks = kernels · features",
    ),
    Part(
        "blocks/double",
        "refimpl.model.double",
        (1, 3, 4, 6),
        lambda x, w: double(x, w / "masks"),
        "bilinear ×2",
    ),
    Part(
        "blocks/resnet_stem",
        "refimpl.resnet.stem",
        (1, 3, 16, 20),
        lambda x, w: resnet_stem(x, w / "stem", 8),
        "7×7 and a padded maximum, stride 2 each",
    ),
    Part(
        "blocks/mobilenet",
        "refimpl.mobilenet.mobilenet",
        (1, 3, 32, 64),
        lambda x, w: mobilenet(x, w / "backbone", MICRO_MOBILENET),
        "MobileNetV2 of micro width, its four maps",
        ("refimpl.mobilenet.mobile_block", "refimpl.mobilenet.unit"),
    ),
    Part(
        "blocks/bottleneck",
        "refimpl.resnet.bottleneck",
        (1, 16, 5, 6),
        lambda x, w: bottleneck(x, w / "res", 4, 1),
        "the shape is kept",
        ("refimpl.resnet.conv_norm",),
    ),
    Part(
        "blocks/bottleneck_stride",
        "refimpl.resnet.bottleneck",
        (1, 8, 6, 7),
        lambda x, w: bottleneck(x, w / "res", 4, 2),
        "stride in the 3×3, a projected shortcut",
    ),
    Part(
        "blocks/add_coordinates",
        "refimpl.sparseinst.add_coordinates",
        (1, 3, 4, 6),
        lambda x, w: add_coordinates(x, w / "coordinates"),
        "x, then y, first",
    ),
    *(
        Part(
            f"blocks/instance_branch_{kind}",
            "refimpl.sparseinst.instance_branch",
            (1, 18, 5, 7),
            _instance_branch(kind),
            f"activation maps, {kind}",
            (
                "refimpl.sparseinst.gather_instances",
                "refimpl.sparseinst.normalise_maps",
                "refimpl.sparseinst.join_groups",
            ),
        )
        for kind in ("plain", "grouped", "softmax")
    ),
    Part(
        "blocks/classified_regions",
        "refimpl.maskrcnn.classified",
        (2, 2, 7, 7),
        lambda x, w: classified(x, w, MICRO_MASKRCNN),
        "Mask R-CNN's box head on what RoIAlign gives: classes with the background first, boxes of each",
    ),
    Part(
        "blocks/masked_regions",
        "refimpl.maskrcnn.masked",
        (1, 2, 14, 14),
        lambda x, w: masked(x, w, MICRO_MASKRCNN),
        "Mask R-CNN's mask head: four 3×3, a transposed 2×2, a mask for each class",
        ("refimpl.maskrcnn.doubled",),
    ),
)


def goldens() -> Iterator[Golden]:
    """Yield the goldens of blocks."""
    for part in PARTS:
        yield part.golden()
