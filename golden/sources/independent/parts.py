"""For each golden of a block or a network, by its name, the module that confirms it.

A module's weights bear the golden's names, so that it takes them all or none; further tensors of the golden
are arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from golden.micro import (
    MICRO,
    MICRO_CONDINST,
    MICRO_MASKRCNN,
    MICRO_MOBILENET,
    MICRO_RESNET,
    MICRO_RESNET18,
    MICRO_SEAFORMER,
    MICRO_SOLOV2,
    MICRO_SPARSEINST,
    MICRO_TOPFORMER,
    MICRO_YOLACT,
)
from refimpl.ops.operation import Array

from .condinst import CondInst
from .instance_decoder import DecoderLayer, InstanceDecoder, KernelHead, LocalFeatures, PositionEmbeddingSine
from .layers import MLP, ConvBN, InvertedResidual
from .mask_decoder import (
    BaselineMaskDecoder,
    ConvBNReLU,
    PyramidPooling,
    SemanticEnhancedMaskDecoder,
    SemanticEnhancer,
    conv_stack,
)
from .maskrcnn import FirstStage, RegionHeads
from .mobileinst import MobileInst
from .mobilenet import MobileNetV2
from .resnet import Bottleneck, ResNet, ResNet50, Stem
from .seaformer import AxialPositionEmbedding, SeaAttention, SeaBlock, SeaFormer
from .solov2 import FourLevels, SOLOv2
from .sparseinst import Coordinates, InstanceBranch, SparseInst, TopFormerPyramid
from .topformer import Attention, Block, PyramidPool, TokenPyramid, TopFormer
from .weights import load
from .yolact import YOLACT


class Part(nn.Module):
    """Named modules, called in a way that `call` says: itself, the golden's ``x``, its further tensors."""

    def __init__(self, call: Callable[..., Any], **modules: nn.Module):
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)
        self.call = call

    def forward(self, x: Tensor, **further: Tensor) -> Any:
        """The golden's ``x`` and its further tensors → its outputs."""
        return self.call(self, x, **further)


def _only(name: str, module: nn.Module) -> Part:
    return Part(lambda part, x: part.get_submodule(name)(x), **{name: module})


def _bilinear(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _decoded(part: Part, x: Tensor, features: Tensor) -> Tensor:
    tokens, position = features.flatten(2).transpose(1, 2), PositionEmbeddingSine(16)(features)
    return part.global_decoder[0](x, tokens, position)


def _passed(part: Part, x: Tensor, mask_features: Tensor) -> Tensor:
    decoder = part.instance_decoder
    queries = decoder.decode(x, decoder.local_features(mask_features), decoder.local_decoder)
    return torch.einsum("bnd,bdhw->bnhw", decoder.kernel_head(queries), mask_features)


def _instance_decoder() -> InstanceDecoder:
    return InstanceDecoder(24, MICRO.num_classes, MICRO.num_queries, MICRO.dim, MICRO.num_heads)


def _instance_branch(kind: str) -> Part:
    c = MICRO_SPARSEINST
    return _only("inst_branch", InstanceBranch(18, c.num_classes, c.num_queries, c.dim, c.kernel_dim, kind))


def _baseline(kind: str) -> Part:
    decoder = BaselineMaskDecoder((8, 10, 12), 8, pooling=kind == "sparseinst", mask_convs=1)
    return Part(lambda part, x, x4, x5: part.mask_decoder(x, x4, x5, x), mask_decoder=decoder)


def _region_heads(call: Callable[[RegionHeads, Tensor], Any], *unused: str) -> Part:
    c = MICRO_MASKRCNN
    heads = RegionHeads(c.num_classes, c.dim, c.head_dim, c.mask_dim)
    for name in unused:
        delattr(heads, name)
    return Part(lambda part, x: call(part.roi_heads, x), roi_heads=heads)


BLOCKS: dict[str, Callable[[], Part]] = {
    "conv_bn": lambda: _only("unit", ConvBN(6, 8, 3, 2)),
    "inverted_residual": lambda: _only("layer", InvertedResidual(8, 5, 3, 8, 1)),
    "inverted_residual_stride": lambda: _only("layer", InvertedResidual(8, 3, 4, 12, 2)),
    "inverted_residual_first": lambda: _only("layer", InvertedResidual(8, 3, 1, 8, 1)),
    "conv_mlp": lambda: _only("mlp", MLP(12, 4)),
    "classified_regions": lambda: _region_heads(RegionHeads.classified, "mask_head", "mask_predictor"),
    "masked_regions": lambda: _region_heads(RegionHeads.masked, "box_head", "box_predictor"),
    "linear": lambda: _only("head", nn.Linear(16, 7)),
    "layer_norm": lambda: _only("norm", nn.LayerNorm(16)),
    "topformer_stem": lambda: _only("stem", nn.Sequential(ConvBN(3, 16, 3, 2), nn.ReLU())),
    "token_pyramid": lambda: _only(
        "tpm", TokenPyramid(MICRO_TOPFORMER.rows, MICRO_TOPFORMER.taps, MICRO_TOPFORMER.stem)
    ),
    "pool_pyramid": lambda: Part(lambda _, x, c4, c5, c6: PyramidPool()([x, c4, c5, c6])),
    "topformer_attention": lambda: _only("attn", Attention(20, 2)),
    "transformer_block": lambda: _only("block", Block(20, 2)),
    "sea_attention": lambda: _only("attn", SeaAttention(12, 4, 2)),
    "sea_block": lambda: _only("block", SeaBlock(12, 4, 2, 2)),
    "embed_positions": lambda: _only("pos_emb", AxialPositionEmbedding(6)),
    "conv_bn_relu": lambda: _only("unit", ConvBNReLU(6, 8, 3)),
    "semantic_enhancer": lambda: Part(
        lambda part, x, global_features: part.enhancer(x, global_features), enhancer=SemanticEnhancer(12, 8)
    ),
    "fuse": lambda: Part(
        lambda part, x, neighbour: part.top_down(x + _bilinear(neighbour, x)), top_down=ConvBNReLU(8, 8, 3)
    ),
    "mask_decoder": lambda: Part(
        lambda part, x, x4, x5, x6: part.mask_decoder(x, x4, x5, x6),
        mask_decoder=SemanticEnhancedMaskDecoder((8, 10, 12, 14), 8),
    ),
    "mask_decoder_plain": lambda: Part(
        lambda part, x, x4, x5, x6: part.mask_decoder(x, x4, x5, x6),
        mask_decoder=SemanticEnhancedMaskDecoder((8, 10, 12, 14), 8, enhance=False),
    ),
    **{f"mask_decoder_{kind}": partial(_baseline, kind) for kind in ("fpn", "sparseinst")},
    "pyramid_pooling": lambda: _only("ppm", PyramidPooling(8)),
    "sum_top_down": lambda: Part(
        lambda _, x, deeper: x + F.interpolate(deeper, size=x.shape[-2:], mode="nearest")
    ),
    "conv_stack": lambda: _only("convs", conv_stack(6, 8, 2)),
    "sine_position_embedding": lambda: Part(
        lambda _, x: x + PositionEmbeddingSine(32)(x.new_zeros(1, 1, 3, 5))
    ),
    "multi_head_attention": lambda: Part(
        lambda part, x, keys, values: part.cross_attn(x, keys, values)[0],
        cross_attn=nn.MultiheadAttention(32, 4, batch_first=True),
    ),
    "decoder_layer": lambda: Part(
        lambda part, x, keys, values: part.layer(x, values, keys - values), layer=DecoderLayer(32, 4)
    ),
    "decode": lambda: Part(_decoded, global_decoder=nn.ModuleList([DecoderLayer(16, 4)])),
    "kernel_head": lambda: _only("kernel_head", KernelHead(16)),
    "local_features_max": lambda: _only("local", LocalFeatures("max8")),
    "local_features_average": lambda: _only("local", LocalFeatures("avg8")),
    "instance_decoder": lambda: Part(
        lambda part, x, mask_features: part.instance_decoder(x, mask_features),
        instance_decoder=_instance_decoder(),
    ),
    "query_passing": lambda: Part(_passed, instance_decoder=_instance_decoder()),
    "dot_product": lambda: Part(lambda _, x, mask_features: torch.einsum("bnd,bdhw->bnhw", x, mask_features)),
    "double": lambda: Part(
        lambda _, x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    ),
    "resnet_stem": lambda: _only("stem", Stem(8)),
    "mobilenet": lambda: _only("backbone", MobileNetV2(MICRO_MOBILENET.stem, MICRO_MOBILENET.rows)),
    "bottleneck": lambda: _only("res", Bottleneck(16, 4, 16, 1)),
    "bottleneck_stride": lambda: _only("res", Bottleneck(8, 4, 16, 2)),
    "add_coordinates": lambda: _only("coordinates", Coordinates()),
    **{
        f"instance_branch_{kind}": partial(_instance_branch, kind) for kind in ("plain", "grouped", "softmax")
    },
}
"""Name of a golden without its folder → its module."""


def _mobileinst(backbone: nn.Module) -> MobileInst:
    return MobileInst(backbone, MICRO.num_classes, MICRO.num_queries, MICRO.dim, MICRO.num_heads)


def _topformer() -> MobileInst:
    spec = MICRO_TOPFORMER
    return _mobileinst(TopFormer(spec.rows, spec.taps, spec.heads, spec.stem))


def _seaformer() -> MobileInst:
    spec = MICRO_SEAFORMER
    embedded = tuple(rows[-1][2] for rows in spec.stages[-len(spec.depths) :])
    return _mobileinst(
        SeaFormer(
            spec.stages, spec.stem, spec.depths, spec.key_channels, embedded, spec.heads, spec.mlp_ratios
        )
    )


def _sparseinst(backbone: nn.Module) -> SparseInst:
    c = MICRO_SPARSEINST
    return SparseInst(
        backbone, c.num_classes, c.num_queries, c.dim, c.kernel_dim, c.instance_activation, c.mask_convs
    )


def _sparseinst_topformer() -> SparseInst:
    spec = MICRO_TOPFORMER
    return _sparseinst(TopFormerPyramid(spec.rows, spec.taps, spec.stem))


def _sparseinst_resnet() -> SparseInst:
    widths, depths = zip(*MICRO_RESNET.stages, strict=True)
    return _sparseinst(ResNet50(MICRO_RESNET.stem, widths, depths))


def _solov2() -> SOLOv2:
    c, (widths, depths) = MICRO_SOLOV2, zip(*MICRO_RESNET18.stages, strict=True)
    backbone = ResNet(MICRO_RESNET18.stem, widths, depths, basic=True)
    sizes = (c.num_classes, c.dim, c.head_dim, c.head_convs, c.kernel_dim, c.mask_dim)
    return SOLOv2(backbone, *sizes, c.grids, c.norm_groups)


def _condinst() -> CondInst:
    c, (widths, depths) = MICRO_CONDINST, zip(*MICRO_RESNET.stages, strict=True)
    backbone = ResNet(MICRO_RESNET.stem, widths, depths, stride_first=True)
    sizes = (c.num_classes, c.dim, c.head_convs, c.kernel_dim, c.mask_dim, c.norm_groups)
    return CondInst(backbone, *sizes)


def _yolact() -> YOLACT:
    c, spec = MICRO_YOLACT, MICRO_TOPFORMER
    backbone = FourLevels(spec.rows, spec.taps, spec.stem)
    return YOLACT(backbone, c.num_classes, c.dim, c.head_dim, c.kernel_dim, c.mask_dim)


def _maskrcnn() -> FirstStage:
    widths, depths = zip(*MICRO_RESNET.stages, strict=True)
    return FirstStage(ResNet(MICRO_RESNET.stem, widths, depths), MICRO_MASKRCNN.dim)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "topformer": _topformer,
    "seaformer": _seaformer,
    "sparseinst": _sparseinst_topformer,
    "sparseinst_resnet": _sparseinst_resnet,
    "condinst": _condinst,
    "yolact": _yolact,
    "solov2": _solov2,
    "maskrcnn": _maskrcnn,
}
"""Name of a golden without its folder and size → its module."""


def module_of(name: str) -> nn.Module:
    """Return the module of a golden, ``blocks/NAME`` or ``models/NAME_SIZE``, with weights of its own."""
    folder, _, stem = name.partition("/")
    return BLOCKS[stem]() if folder == "blocks" else NETWORKS[stem.rpartition("_")[0]]()


def computed(
    name: str, x: Array, further: Mapping[str, Array], dtype: torch.dtype = torch.float64
) -> dict[str, Array]:
    """Run a golden's module on its input, weights and further tensors.

    Returns
    -------
    dict
        The outputs under their names, and the result of every submodule under its path.
    """
    module, wide = module_of(name), {key: array.astype(np.float64) for key, array in further.items()}
    weights = {key: wide.pop(key) for key in module.state_dict() if key in wide}
    module = (load(module, weights) if weights else module).to(dtype)
    results: dict[str, Tensor] = {}
    for path, submodule in module.named_modules():
        if path:
            submodule.register_forward_hook(_noting(path, results))
    with torch.no_grad():
        given = {key: torch.from_numpy(array).to(dtype) for key, array in {"x": x, **wide}.items()}
        outputs = module(given.pop("x"), **given)
    numbered = {_numbered(key): tensor for key, tensor in results.items()}
    return {key: tensor.numpy() for key, tensor in {**numbered, **_named(outputs)}.items()}


def _noting(path: str, results: dict[str, Tensor]) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        first = output[0] if isinstance(module, nn.MultiheadAttention) else output
        if isinstance(first, Tensor):
            # A module that is called again, on another level, is numbered as the reference's blocks are.
            calls = sum(name.partition("#")[0] == path for name in results)
            results[f"{path}#{calls}"] = first

    return hook


def _numbered(key: str) -> str:
    path, _, calls = key.partition("#")
    return path if calls == "0" else f"{path}_{int(calls) + 1}"


def _named(outputs: Any) -> dict[str, Tensor]:
    if isinstance(outputs, Tensor):
        return {"output": outputs}
    if hasattr(outputs, "_asdict"):
        return dict(outputs._asdict())
    return {f"output{i}": tensor for i, tensor in enumerate(outputs)}
