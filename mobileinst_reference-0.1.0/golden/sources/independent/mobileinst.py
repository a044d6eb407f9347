"""MobileInst, complete."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from .instance_decoder import InstanceDecoder
from .mask_decoder import BaselineMaskDecoder, SemanticEnhancedMaskDecoder
from .seaformer import SEAFORMERS, SeaFormer
from .topformer import TOPFORMERS, TopFormer


class Outputs(NamedTuple):
    """Raw outputs; all of them logits."""

    class_logits: Tensor  # (B, N, classes)
    objectness: Tensor  # (B, N, 1)
    kernels: Tensor  # (B, N, dim)
    mask_features: Tensor  # (B, dim, H/8, W/8)
    masks: Tensor  # (B, N, H/8, W/8)
    global_queries: Tensor  # (B, N, dim)


def build_backbone(preset: str) -> TopFormer | SeaFormer:
    """The backbone of a preset, by name."""
    if preset in TOPFORMERS:
        return TopFormer(*TOPFORMERS[preset])
    return SeaFormer(*SEAFORMERS[preset])


def build_mask_decoder(name: str, channels: tuple[int, ...], dim: int, mask_convs: int) -> nn.Module:
    """The mask decoder of a row of Table 5, by name."""
    if name in ("fpn", "sparseinst"):
        return BaselineMaskDecoder(channels, dim, pooling=name == "sparseinst", mask_convs=mask_convs)
    return SemanticEnhancedMaskDecoder(channels, dim, enhance=name == "semantic_enhanced")


class MobileInst(nn.Module):
    """Backbone, mask decoder, instance decoder; a backbone module may be given for a preset's name."""

    def __init__(
        self,
        preset: str | nn.Module = "topformer-base",
        num_classes: int = 80,
        num_queries: int = 100,
        dim: int = 256,
        num_heads: int = 8,
        global_layers: int = 1,
        local_layers: int = 1,
        local_pooling: str = "max8",
        mask_decoder: str = "semantic_enhanced",
        mask_convs: int = 4,
    ):
        super().__init__()
        self.backbone = build_backbone(preset) if isinstance(preset, str) else preset
        channels: tuple[int, ...] = self.backbone.channels
        self.mask_decoder = build_mask_decoder(mask_decoder, channels, dim, mask_convs)
        self.instance_decoder = InstanceDecoder(
            channels[3], num_classes, num_queries, dim, num_heads, global_layers, local_layers, local_pooling
        )

    def forward(self, images: Tensor) -> Outputs:
        x3, x4, x5, x6 = self.backbone(images)
        features = self.mask_decoder(x3, x4, x5, x6)
        class_logits, objectness, kernels, global_queries = self.instance_decoder(x6, features)
        batch, _, height, width = features.shape
        masks = (kernels @ features.flatten(2)).view(batch, -1, height, width)
        return Outputs(class_logits, objectness, kernels, features, masks, global_queries)
