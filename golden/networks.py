"""Blocks of the networks, and whole networks of micro width, with every named tensor."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any
from unittest import mock

import numpy as np

from conformance.bounds import FLOAT32, Format
from golden.case import Bounds, Case, Confirmation, Golden, halves
from golden.computation import chain_bounds, noise_bounds, of_recording, serialised
from golden.sources import confirm_with_pytorch
from refimpl import Recording, ops, record
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
from refimpl.model import Outputs, baseline_mask_decoder, dot_product, double, forward
from refimpl.ops.operation import OPERATIONS, Array, intercepted
from refimpl.position import sine_position_embedding
from refimpl.query_passing import passed_masks
from refimpl.resnet import bottleneck
from refimpl.resnet import stem as resnet_stem
from refimpl.scope import DeclaringScope, Scope
from refimpl.seaformer import SEAFORMERS, SeaFormerSpec, embed_positions, sea_attention, sea_block
from refimpl.sparseinst import add_coordinates, instance_branch
from refimpl.topformer import (
    TOPFORMERS,
    Features,
    TopFormerSpec,
    attention,
    pool_pyramid,
    stem,
    token_pyramid,
    transformer_block,
)

Compute = Callable[[Array, Scope], Any]


@dataclass(frozen=True)
class Part:
    """A declared part of the network.

    Attributes
    ----------
    name
    function
        Importable name of what computes it.
    shape
        Of its input ``x``.
    compute
        From input and weights; what it asks of its scope becomes a further input of the golden.
    deep
        Whether worst-case bounds have exploded at its end, so that the noise envelope bounds it.
    every_tensor
        Whether the results of all blocks in it are outputs too.
    most_elements
        Of those, up to this size only.
    """

    name: str
    function: str
    shape: tuple[int, ...]
    compute: Compute
    shows: str
    covers: tuple[str, ...] = ()
    deep: bool = False
    every_tensor: bool = False
    most_elements: int = 1 << 20
    scale: float = 1.0
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """The seed of input and weights."""
        return zlib.crc32(self.name.encode())

    @cached_property
    def fed(self) -> tuple[Array, dict[str, Array]]:
        """Input and weights, float32."""
        rng = np.random.default_rng(self.seed)
        shapes: dict[str, tuple[int, ...]] = {}
        with intercepted(None):
            self.compute(np.zeros(self.shape, np.float32), DeclaringScope(shapes))
        x = halves(rng.normal(size=self.shape) * self.scale)
        weights = {name: _initial(name, shape, rng) for name, shape in shapes.items()}
        wide = {name: array.astype(np.float64) for name, array in weights.items()}
        with intercepted(_Calibration()):
            self.compute(x.astype(np.float64), Scope(wide))
        return x, {name: halves(array) for name, array in wide.items()}

    def recording(self, dtype: type) -> Recording:
        """Record it on the golden's input; the tensors of interest are its outputs."""
        x, weights = self.fed
        # A recording takes its dtype from a weight; a part without any has one that it does not use.
        own: dict[str, Array] = {
            name: array.astype(dtype) for name, array in (weights or {"none": np.zeros(1)}).items()
        }
        recording = record(_Model(self.compute, own), x.astype(dtype), input_name="x")
        return replace(recording, outputs=self._outputs(recording))

    def _outputs(self, recording: Recording) -> dict[str, str]:
        """Return label → tensor in the order of computation; a tensor of two names has the first."""
        named = dict(recording.outputs)
        if self.every_tensor:
            fusable = _before_norm(recording)
            small = {name for name, x in recording.tensors.items() if x.size <= self.most_elements}
            named |= {
                p: tensor
                for p, tensor in recording.blocks.items()
                if p not in named and tensor in small - fusable
            }
        labels: dict[str, str] = {}
        for label, tensor in named.items():
            labels.setdefault(tensor, label)
        computed = [tensor for _, tensor in recording.results()]
        return {labels[tensor]: tensor for tensor in computed if tensor in labels}

    def case(self) -> Case:
        """Compute the golden."""
        recording = self.recording(np.float64)
        computation = of_recording(recording, recording.outputs)
        truth = {name: recording.tensors[tensor] for name, tensor in recording.outputs.items()}
        x, weights = self.fed

        def bounds(form: Format) -> Bounds:
            noise = noise_bounds(recording, recording.outputs, form)
            if self.deep:
                return noise
            tables = any(recording.tensors[name].ndim > 2 for name in recording.constants)
            chain = chain_bounds(computation, recording.constants, form)
            return chain if tables else {name: np.minimum(b, noise[name]) for name, b in chain.items()}

        def confirm() -> list[Confirmation]:
            return confirm_with_pytorch(computation, truth, bounds(FLOAT32))

        return Case(
            {"x": x, **weights},
            truth,
            bounds,
            confirm,
            lambda: serialised(self.recording(np.float32), self.name.rpartition("/")[2]),
        )

    def golden(self) -> Golden:
        """Return the entry of the list."""
        kind = "model" if self.name.startswith("models/") else "block"
        arguments = {"input": list(self.shape), **self.arguments}
        return Golden(
            self.name, kind, self.function, arguments, self.seed, self.shows, self.case, self.covers
        )


def _before_norm(recording: Recording) -> set[str]:
    """Return the convolutions that a batch norm follows: a candidate that folds it has no such tensor."""
    return {step.inputs[0] or "" for step in recording.steps if step.operation == "BatchNormalization"}


@dataclass(frozen=True)
class _Model:
    """What `record` takes: weights, and a call."""

    compute: Compute
    weights: Mapping[str, Array]

    def __call__(self, images: Array) -> Any:
        result = self.compute(images, Scope(self.weights))
        if isinstance(result, Outputs):
            return result
        if isinstance(result, tuple):
            return {f"output{i}": part for i, part in enumerate(result)}
        return {"output": result}


class _Calibration:
    """An interceptor that fits each batch norm to what it is given, so that depth does no harm."""

    def call(self, name: str, inputs: tuple[Any, ...], attributes: dict[str, Any]) -> Any:
        if name == "BatchNormalization":
            x, _, _, mean, variance = inputs
            # Over few positions all is mean: taking half of it away leaves digits to compare.
            mean[...] = halves(x.mean(axis=(0, 2, 3)) / 2)
            # A channel that hardly varies over a few positions must not be blown up.
            variance[...] = halves(np.maximum(x.var(axis=(0, 2, 3)), np.mean(x * x)))
        return OPERATIONS[name](*inputs, **attributes)

    def block(self, path: str, compute: Callable[[], Any]) -> Any:
        return compute()


def _initial(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """He-scaled weights; scales around one, biases around zero."""
    if len(shape) == 1 and name.endswith(("weight", "running_var")):
        # Small queries, keys and residual branches keep the error from growing from block to block.
        small = any(part in name for part in (".to_q.", ".to_k.", ".proj.1.", ".fc2.", ".conv.4."))
        return halves(rng.uniform(0.8, 1.2, shape) * (0.4 if small and name.endswith("weight") else 1.0))
    if len(shape) == 1:
        return halves(0.1 * rng.normal(size=shape))
    if len(shape) == 2 and name.endswith("weight"):
        return halves(rng.normal(size=shape) * np.sqrt(1 / shape[1]))
    if len(shape) == 4 and name.endswith("weight"):
        gain = 1.0 if name.startswith(("encoder", "decoder.mask_branch.proj")) else 2.0
        return halves(rng.normal(size=shape) * np.sqrt(gain / np.prod(shape[1:])))
    return halves(rng.normal(size=shape))


# --- micro networks -------------------------------------------------------------------------------

MICRO_TOPFORMER = TopFormerSpec(
    rows=(
        (3, 1, 8, 1),
        (3, 2, 8, 2),
        (3, 2, 8, 1),
        (5, 2, 12, 2),
        (5, 2, 12, 1),
        (3, 2, 16, 2),
        (3, 2, 16, 1),
        (5, 2, 20, 2),
        (5, 2, 20, 1),
    ),
    taps=(2, 4, 6, 8),
    heads=2,
)
MICRO_SEAFORMER = SeaFormerSpec(
    stages=(
        ((3, 1, 8, 1), (3, 2, 8, 2), (3, 2, 8, 1)),
        ((5, 2, 12, 2), (5, 2, 12, 1)),
        ((3, 2, 16, 2), (3, 2, 16, 1)),
        ((5, 2, 24, 2),),
        ((3, 2, 32, 2),),
    ),
    stem=8,
    depths=(1, 1),
    key_channels=(4, 6),
    mlp_ratios=(2, 4),
    heads=2,
)
MICRO = MobileInstConfig(backbone="topformer-tiny", num_classes=5, num_queries=6, dim=16, num_heads=4)
MICRO_SPARSEINST = MobileInstConfig(
    architecture="sparseinst",
    backbone="topformer-tiny",
    num_classes=5,
    num_queries=6,
    dim=16,
    kernel_dim=8,
    mask_convs=2,
)


def _narrow(specs: dict[str, Any], spec: Any, config: MobileInstConfig) -> Compute:
    """The network of a configuration, its backbone's preset narrowed to ``spec`` while it runs."""

    def compute(images: Array, w: Scope) -> Outputs:
        with mock.patch.dict(specs, {config.backbone: spec}):
            return forward(images, w, config)

    return compute


@dataclass(frozen=True)
class _Network:
    """What query passing needs of a network."""

    config: MobileInstConfig
    weights: Mapping[str, Array]


def _passed(queries: Array, w: Scope) -> Array:
    """Temporal query passing; only the instance decoder takes part."""
    features = w["mask_features", 1, 16, 8, 16]
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
        deep=True,
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
        deep=True,
    ),
    Part(
        "blocks/transformer_block",
        "refimpl.topformer.transformer_block",
        (1, 20, 2, 3),
        lambda x, w: transformer_block(x, w / "block", 2),
        "attention, then the feed-forward, each with a shortcut",
        deep=True,
    ),
    Part(
        "blocks/sea_attention",
        "refimpl.seaformer.sea_attention",
        (1, 12, 5, 7),
        lambda x, w: sea_attention(x, w / "attn", 4, 2),
        "rows, columns and detail",
        ("refimpl.seaformer.detail", "refimpl.seaformer.axial_attention", "refimpl.layers.hard_sigmoid"),
        deep=True,
    ),
    Part(
        "blocks/sea_block",
        "refimpl.seaformer.sea_block",
        (1, 12, 4, 3),
        lambda x, w: sea_block(x, w / "block", 4, 2, 2),
        "attention and feed-forward",
        deep=True,
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
        deep=True,
        every_tensor=True,
    ),
    Part(
        "blocks/mask_decoder_plain",
        "refimpl.mask_decoder.mask_decoder",
        (1, 8, 6, 10),
        _mask_decoder(False),
        "without enhancers",
        ("refimpl.model.decode_masks",),
        deep=True,
    ),
    Part(
        "blocks/mask_decoder_fpn",
        "refimpl.model.baseline_mask_decoder",
        (1, 8, 8, 12),
        _baseline("fpn"),
        "Table 5: FPN",
        ("refimpl.fpn.feature_pyramid", "refimpl.fpn.mask_branch"),
        deep=True,
    ),
    Part(
        "blocks/mask_decoder_sparseinst",
        "refimpl.model.baseline_mask_decoder",
        (1, 8, 8, 12),
        _baseline("sparseinst"),
        "Table 5: SparseInst",
        ("refimpl.fpn.feature_pyramid",),
        deep=True,
    ),
    Part(
        "blocks/pyramid_pooling",
        "refimpl.fpn.pyramid_pooling",
        (1, 8, 5, 7),
        lambda x, w: pyramid_pooling(x, w / "ppm"),
        "averages over 1, 2, 3 and 6 cells; cells overlap",
        deep=True,
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
        deep=True,
        every_tensor=True,
    ),
    Part(
        "blocks/decode",
        "refimpl.instance_decoder.decode",
        (1, 6, 16),
        lambda x, w: decode(x, w["features", 1, 16, 3, 5], w / "global_decoder", 1, 4),
        "positions go to the keys, not to the values",
        deep=True,
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
            instance_decoder(x, w["mask_features", 1, 16, 10, 19], w / "instance_decoder", MICRO)
        ),
        "global, then local; the three heads",
        ("refimpl.instance_decoder.heads", "refimpl.instance_decoder.repeat_queries"),
        deep=True,
    ),
    Part(
        "blocks/query_passing",
        "refimpl.query_passing.passed_masks",
        (1, 6, 16),
        _passed,
        "another frame's queries enter the local decoder",
        deep=True,
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
        lambda x, w: resnet_stem(x, w / "stem"),
        "7×7 and a padded maximum, stride 2 each",
    ),
    Part(
        "blocks/bottleneck",
        "refimpl.resnet.bottleneck",
        (1, 16, 5, 6),
        lambda x, w: bottleneck(x, w / "res", 4, 1),
        "the shape is kept",
        ("refimpl.resnet.conv_norm",),
        deep=True,
    ),
    Part(
        "blocks/bottleneck_stride",
        "refimpl.resnet.bottleneck",
        (1, 8, 6, 7),
        lambda x, w: bottleneck(x, w / "res", 4, 2),
        "stride in the 3×3, a projected shortcut",
        deep=True,
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
            deep=True,
        )
        for kind in ("plain", "grouped", "softmax")
    ),
    *(
        Part(
            f"models/{name}_{height}x{width}",
            "refimpl.model.forward",
            (1, 3, height, width),
            compute,
            f"{title} of micro width, every named tensor: the first wrong one names the place",
            covers,
            deep=True,
            every_tensor=True,
            most_elements=most,
        )
        for name, title, compute, covers in (
            (
                "topformer",
                "MobileInst with TopFormer",
                _narrow(TOPFORMERS, MICRO_TOPFORMER, MICRO),
                (
                    "refimpl.topformer.topformer",
                    "refimpl.model.forward_mobileinst",
                    "refimpl.model.backbone",
                    "refimpl.model.mask_features",
                ),
            ),
            (
                "seaformer",
                "MobileInst with SeaFormer",
                _narrow(SEAFORMERS, MICRO_SEAFORMER, replace(MICRO, backbone="seaformer-tiny")),
                ("refimpl.seaformer.seaformer", "refimpl.seaformer.stage", "refimpl.seaformer.transformer"),
            ),
            (
                "sparseinst",
                "SparseInst with TopFormer",
                _narrow(TOPFORMERS, MICRO_TOPFORMER, MICRO_SPARSEINST),
                (
                    "refimpl.sparseinst.sparseinst",
                    "refimpl.sparseinst.local_maps",
                    "refimpl.model.forward_sparseinst",
                ),
            ),
        )
        for height, width, most in ((64, 128, 1 << 20), (96, 64, 1 << 12))
    ),
)


def goldens() -> Iterator[Golden]:
    """Yield the goldens of blocks and networks."""
    for part in PARTS:
        yield part.golden()
