"""SOLOv2 (Wang et al., NeurIPS 2020)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .mobilenet import MobileNetV2
from .resnet import ResNet
from .topformer import TOPFORMERS, Rows, TokenPyramid


class SoloOutputs(NamedTuple):
    """Raw outputs of all grids' cells, the finest grid first."""

    class_logits: Tensor  # (B, cells, classes)
    kernels: Tensor  # (B, cells, kernel_dim)
    mask_features: Tensor  # (B, kernel_dim, H/4, W/4)


class FourLevels(nn.Module):
    """TopFormer's token pyramid as a backbone of four levels."""

    def __init__(self, rows: Rows, taps: tuple[int, ...], stem: int = 16):
        super().__init__()
        self.tpm = TokenPyramid(rows, taps, stem)
        self.widths = tuple(rows[i][2] for i in taps)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) → four maps, 1/4 to 1/32."""
        return self.tpm(images)


def build_levels(name: str) -> nn.Module:
    """A backbone with ``widths`` that returns maps at 1/4 to 1/32, by the name of its preset."""
    if name == "mobilenetv2":
        return MobileNetV2()
    if name in TOPFORMERS:
        return FourLevels(*TOPFORMERS[name][:2])
    depths = (2, 2, 2, 2) if name == "resnet18" else (3, 4, 6, 3)
    return ResNet(depths=depths, basic=name == "resnet18", stride_first=name.endswith("caffe"))


class ConvModule(nn.Sequential):
    """A convolution, and with groups a group norm and ReLU, named as the public code names them."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, groups: int = 0):
        super().__init__()
        self.add_module(
            "conv", nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=not groups)
        )
        if groups:
            self.add_module("gn", nn.GroupNorm(groups, out_channels))
            self.add_module("activate", nn.ReLU())


class Neck(nn.Module):
    """Feature pyramid: four levels, and a fifth of every second position of the fourth."""

    def __init__(self, widths: tuple[int, ...], dim: int):
        super().__init__()
        self.lateral_convs = nn.ModuleList(ConvModule(width, dim, 1) for width in widths)
        self.fpn_convs = nn.ModuleList(ConvModule(dim, dim, 3) for _ in widths)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps at 1/4 to 1/32 → levels at 1/4 to 1/64."""
        sums = [lateral(x) for lateral, x in zip(self.lateral_convs, maps, strict=True)]
        for i in (3, 2, 1):
            sums[i - 1] = sums[i - 1] + F.interpolate(sums[i], scale_factor=2, mode="nearest")
        levels = [conv(x) for conv, x in zip(self.fpn_convs, sums, strict=True)]
        return [*levels, levels[-1][:, :, ::2, ::2]]


def with_coordinates(x: Tensor) -> Tensor:
    """Two channels after the others: x and y, each from −1 to 1."""
    batch, _, height, width = x.shape
    ys = torch.linspace(-1, 1, height, dtype=x.dtype, device=x.device).view(1, 1, -1, 1)
    xs = torch.linspace(-1, 1, width, dtype=x.dtype, device=x.device).view(1, 1, 1, -1)
    return torch.cat([x, xs.expand(batch, 1, height, -1), ys.expand(batch, 1, -1, width)], dim=1)


class GridHeads(nn.Module):
    """Class and kernel of every cell, with weights that all grids share."""

    def __init__(
        self,
        num_classes: int,
        dim: int,
        head_dim: int,
        head_convs: int,
        kernel_dim: int,
        groups: int,
        grids: tuple[int, ...],
    ):
        super().__init__()
        self.grids = grids
        self.cate_convs, self.kernel_convs = (
            nn.Sequential(
                *(ConvModule(head_dim if i else dim + extra, head_dim, 3, groups) for i in range(head_convs))
            )
            for extra in (0, 2)
        )
        self.solo_cate = nn.Conv2d(head_dim, num_classes, 3, padding=1)
        self.solo_kernel = nn.Conv2d(head_dim, kernel_dim, 3, padding=1)

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Five levels → class logits and kernels, (B, cells, ·)."""
        finest = F.interpolate(levels[0], scale_factor=0.5, mode="bilinear")
        coarsest = F.interpolate(levels[4], size=levels[3].shape[-2:], mode="bilinear")
        classes, kernels = [], []
        for x, grid in zip([finest, *levels[1:4], coarsest], self.grids, strict=True):
            placed = F.interpolate(with_coordinates(x), size=(grid, grid), mode="bilinear")
            kernels.append(self.solo_kernel(self.kernel_convs(placed)).flatten(2))
            classes.append(self.solo_cate(self.cate_convs(placed[:, :-2])).flatten(2))
        return torch.cat(classes, dim=2).transpose(1, 2), torch.cat(kernels, dim=2).transpose(1, 2)


class MaskFeatures(nn.Module):
    """Levels at 1/4 to 1/32, each doubled to 1/4, summed and projected."""

    def __init__(self, dim: int, mask_dim: int, kernel_dim: int, groups: int):
        super().__init__()
        self.convs_all_levels = nn.ModuleList()
        for i in range(4):
            level = nn.Sequential()
            for j in range(max(i, 1)):
                width = mask_dim if j else dim + 2 * (i == 3)
                level.add_module(f"conv{j}", ConvModule(width, mask_dim, 3, groups))
                if i:
                    level.add_module(f"upsample{j}", nn.Upsample(scale_factor=2, mode="bilinear"))
            self.convs_all_levels.append(level)
        self.conv_pred = nn.Sequential(ConvModule(mask_dim, kernel_dim, 1, groups))

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Four levels → (B, kernel_dim, H/4, W/4)."""
        inputs = [*levels[:3], with_coordinates(levels[3])]
        total = sum(convs(x) for convs, x in zip(self.convs_all_levels, inputs, strict=True))
        return self.conv_pred(total)


class SOLOv2(nn.Module):
    """Backbone (a preset's name, or a module), neck, heads and mask features."""

    def __init__(
        self,
        backbone: str | nn.Module = "resnet50",
        num_classes: int = 80,
        dim: int = 256,
        head_dim: int = 256,
        head_convs: int = 2,
        kernel_dim: int = 128,
        mask_dim: int = 128,
        grids: tuple[int, ...] = (40, 36, 24, 16, 12),
        norm_groups: int = 32,
    ):
        super().__init__()
        self.backbone = build_levels(backbone) if isinstance(backbone, str) else backbone
        self.neck = Neck(self.backbone.widths, dim)
        self.bbox_head = GridHeads(num_classes, dim, head_dim, head_convs, kernel_dim, norm_groups, grids)
        self.mask_feat_head = MaskFeatures(dim, mask_dim, kernel_dim, norm_groups)

    def forward(self, images: Tensor) -> SoloOutputs:
        """Images (B, 3, H, W), sides multiples of 32 → predictions."""
        levels = self.neck(list(self.backbone(images)))
        classes, kernels = self.bbox_head(levels)
        return SoloOutputs(classes, kernels, self.mask_feat_head(levels[:4]))
