"""CondInst (Tian et al., ECCV 2020), with AdelaiDet's names."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .solov2 import build_levels


class CondInstOutputs(NamedTuple):
    """Raw outputs of all levels' locations, the finest level first."""

    class_logits: Tensor  # (B, locations, classes)
    boxes: Tensor  # (B, locations, 4)
    centerness: Tensor  # (B, locations, 1)
    kernels: Tensor  # (B, locations, 169)
    mask_features: Tensor  # (B, 8, H/8, W/8)


class TopBlock(nn.Module):
    """Two more levels, each half the size of the one before."""

    def __init__(self, dim: int):
        super().__init__()
        self.p6 = nn.Conv2d(dim, dim, 3, stride=2, padding=1)
        self.p7 = nn.Conv2d(dim, dim, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> list[Tensor]:
        """1/32 → 1/64, 1/128."""
        p6 = self.p6(x)
        return [p6, self.p7(p6.relu())]


class Pyramid(nn.Module):
    """A backbone and its levels, 1/8 to 1/128."""

    def __init__(self, bottom_up: nn.Module, dim: int):
        super().__init__()
        self.bottom_up = bottom_up
        for number, width in zip((3, 4, 5), bottom_up.widths[1:], strict=True):
            self.add_module(f"fpn_lateral{number}", nn.Conv2d(width, dim, 1))
            self.add_module(f"fpn_output{number}", nn.Conv2d(dim, dim, 3, padding=1))
        self.top_block = TopBlock(dim)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) → five levels."""
        maps = dict(zip((2, 3, 4, 5), self.bottom_up(images), strict=True))
        levels: list[Tensor] = []
        total = None
        for number in (5, 4, 3):
            lateral = self.get_submodule(f"fpn_lateral{number}")(maps[number])
            total = lateral if total is None else lateral + F.interpolate(total, scale_factor=2.0)
            levels.insert(0, self.get_submodule(f"fpn_output{number}")(total))
        return [*levels, *self.top_block(levels[2])]


class Scale(nn.Module):
    """A learned factor."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """Multiply."""
        return x * self.scale


class FCOSHead(nn.Module):
    """Towers and predictions that all levels share."""

    def __init__(self, dim: int, num_classes: int, head_convs: int, groups: int, levels: int = 5):
        super().__init__()
        self.cls_tower, self.bbox_tower = (
            nn.Sequential(*(layer for _ in range(head_convs) for layer in self._layers(dim, groups)))
            for _ in range(2)
        )
        self.cls_logits = nn.Conv2d(dim, num_classes, 3, padding=1)
        self.bbox_pred = nn.Conv2d(dim, 4, 3, padding=1)
        self.ctrness = nn.Conv2d(dim, 1, 3, padding=1)
        self.scales = nn.ModuleList(Scale() for _ in range(levels))

    @staticmethod
    def _layers(dim: int, groups: int) -> tuple[nn.Module, ...]:
        return nn.Conv2d(dim, dim, 3, padding=1), nn.GroupNorm(groups, dim), nn.ReLU()

    def forward(self, level: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One level → class logits, boxes, centerness, and what the controller reads."""
        classes, boxes = self.cls_tower(x), self.bbox_tower(x)
        distances = self.scales[level](self.bbox_pred(boxes)).relu()
        return self.cls_logits(classes), distances, self.ctrness(boxes), boxes


class ProposalGenerator(nn.Module):
    """Holds the head under its public name."""

    def __init__(self, head: FCOSHead):
        super().__init__()
        self.fcos_head = head

    def forward(self, level: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Ask the head."""
        return self.fcos_head(level, x)


def magnified(x: Tensor, factor: int) -> Tensor:
    """Bilinear between samples ``factor`` apart: result i lies at (i − factor//2) / factor, kept inside."""
    for axis in (2, 3):
        size = x.shape[axis]
        place = torch.arange(size * factor, dtype=x.dtype, device=x.device) - factor // 2
        place = (place / factor).clamp(0, size - 1)
        low = place.floor().long()
        high = (low + 1).clamp(max=size - 1)
        shape = [1, 1, 1, 1]
        shape[axis] = -1
        share = (place - low).view(shape)
        x = x.index_select(axis, low) * (1 - share) + x.index_select(axis, high) * share
    return x


def _unit(in_channels: int, out_channels: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU())


class MaskBranch(nn.Module):
    """Levels at 1/8 to 1/32 → mask features."""

    def __init__(self, dim: int, mask_dim: int, kernel_dim: int):
        super().__init__()
        self.refine = nn.ModuleList(_unit(dim, mask_dim) for _ in range(3))
        units = [_unit(mask_dim, mask_dim) for _ in range(4)]
        self.tower = nn.Sequential(*units, nn.Conv2d(mask_dim, kernel_dim, 1))

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Three levels → (B, kernel_dim, H/8, W/8)."""
        first, second, third = (refine(x) for refine, x in zip(self.refine, levels, strict=True))
        return self.tower(first + magnified(second, 2) + magnified(third, 4))


class CondInst(nn.Module):
    """Backbone (a preset's name, or a module), pyramid, heads and mask branch."""

    def __init__(
        self,
        backbone: str | nn.Module = "resnet50-caffe",
        num_classes: int = 80,
        dim: int = 256,
        head_convs: int = 4,
        kernel_dim: int = 8,
        mask_dim: int = 128,
        norm_groups: int = 32,
    ):
        super().__init__()
        self.backbone = Pyramid(build_levels(backbone) if isinstance(backbone, str) else backbone, dim)
        self.proposal_generator = ProposalGenerator(FCOSHead(dim, num_classes, head_convs, norm_groups))
        numbers = (kernel_dim + 2) * 8 + 8 + 8 * 8 + 8 + 8 * 1 + 1
        self.controller = nn.Conv2d(dim, numbers, 3, padding=1)
        self.mask_branch = MaskBranch(dim, mask_dim, kernel_dim)

    def forward(self, images: Tensor) -> CondInstOutputs:
        """Images (B, 3, H, W), sides multiples of 32 → predictions."""
        levels = self.backbone(images)
        found = []
        for i, x in enumerate(levels):
            classes, boxes, centerness, read = self.proposal_generator(i, x)
            found.append((classes, boxes, centerness, self.controller(read)))
        joined = (
            torch.cat([part.flatten(2).transpose(1, 2) for part in parts], dim=1)
            for parts in zip(*found, strict=True)
        )
        classes, distances, centerness, kernels = joined
        return CondInstOutputs(classes, distances, centerness, kernels, self.mask_branch(levels[:3]))
