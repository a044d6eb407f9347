"""Mask R-CNN (He et al., ICCV 2017), with torchvision's names but for the ResNet's: both stages as graphs.

RoIAlign is a product of matrices here, as where a runtime has no such operator: the bilinear weights of a
cell's samples on all rows, and on all columns.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .solov2 import build_levels


class ProposalOutputs(NamedTuple):
    """The first stage: predictions of all levels' anchors, the finest level first, and the levels."""

    objectness: Tensor  # (B, anchors, 1)
    boxes: Tensor  # (B, anchors, 4)
    level2: Tensor  # (B, dim, H/4, W/4)
    level3: Tensor
    level4: Tensor
    level5: Tensor


class RegionOutputs(NamedTuple):
    """The second stage, of K regions."""

    class_logits: Tensor  # (K, 1 + classes)
    boxes: Tensor  # (K, 4·(1 + classes))
    masks: Tensor  # (K, 1 + classes, 28, 28)


class FPN(nn.Module):
    """Four levels of one width."""

    def __init__(self, widths: tuple[int, ...], dim: int):
        super().__init__()
        self.inner_blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(width, dim, 1)) for width in widths)
        self.layer_blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1)) for _ in widths)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps at 1/4 to 1/32 → levels of the same sizes."""
        total = self.inner_blocks[-1](maps[-1])
        levels = [self.layer_blocks[-1](total)]
        for i in (2, 1, 0):
            inner = self.inner_blocks[i](maps[i])
            total = inner + F.interpolate(total, size=inner.shape[-2:], mode="nearest")
            levels.insert(0, self.layer_blocks[i](total))
        return levels


class RPNHead(nn.Module):
    """Objectness and boxes of three anchors at every position."""

    def __init__(self, dim: int):
        super().__init__()
        self.conv = nn.Sequential(nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1), nn.ReLU()))
        self.cls_logits = nn.Conv2d(dim, 3, 1)
        self.bbox_pred = nn.Conv2d(dim, 12, 1)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """Levels (B, dim, …) → (B, anchors, 1) and (B, anchors, 4)."""
        found: tuple[list[Tensor], list[Tensor]] = ([], [])
        for x in levels:
            x = self.conv(x)
            for numbers, made in zip((1, 4), (self.cls_logits(x), self.bbox_pred(x)), strict=True):
                found[numbers > 1].append(made.permute(0, 2, 3, 1).reshape(len(x), -1, numbers))
        return [torch.cat(parts, dim=1) for parts in found]


class FirstStage(nn.Module):
    """Backbone (a preset's name, or a module), pyramid and proposals."""

    def __init__(self, backbone: str | nn.Module = "resnet50", dim: int = 256):
        super().__init__()
        body = build_levels(backbone) if isinstance(backbone, str) else backbone
        self.backbone = nn.ModuleDict({"body": body, "fpn": FPN(body.widths, dim)})
        self.rpn = nn.ModuleDict({"head": RPNHead(dim)})

    def forward(self, images: Tensor) -> ProposalOutputs:
        """Images (B, 3, H, W) → predictions."""
        levels = self.backbone["fpn"](list(self.backbone["body"](images)))
        objectness, boxes = self.rpn["head"]([*levels, F.max_pool2d(levels[-1], 1, 2)])
        return ProposalOutputs(objectness, boxes, *levels)


class RegionHeads(nn.Module):
    """The second stage on K regions, each of which is sampled on all levels."""

    def __init__(self, num_classes: int = 90, dim: int = 256, head_dim: int = 1024, mask_dim: int = 256):
        super().__init__()
        classes = num_classes + 1
        self.box_head = nn.ModuleDict(
            {"fc6": nn.Linear(dim * 49, head_dim), "fc7": nn.Linear(head_dim, head_dim)}
        )
        self.box_predictor = nn.ModuleDict(
            {"cls_score": nn.Linear(head_dim, classes), "bbox_pred": nn.Linear(head_dim, 4 * classes)}
        )
        widths = (dim, mask_dim, mask_dim, mask_dim)
        self.mask_head = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(width, mask_dim, 3, padding=1), nn.ReLU()) for width in widths)
        )
        self.mask_predictor = nn.ModuleDict(
            {
                "conv5_mask": nn.ConvTranspose2d(mask_dim, mask_dim, 2, 2),
                "mask_fcn_logits": nn.Conv2d(mask_dim, classes, 1),
            }
        )

    def forward(
        self, level2: Tensor, level3: Tensor, level4: Tensor, level5: Tensor, regions: Tensor
    ) -> RegionOutputs:
        """Levels (1, dim, …) and regions (K, 4), in pixels of the input → predictions."""
        levels = [level2, level3, level4, level5]
        classes, boxes = self.classified(pooled(levels, regions, 7))
        return RegionOutputs(classes, boxes, self.masked(pooled(levels, regions, 14)))

    def classified(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(K, dim, 7, 7) → class logits and boxes."""
        x = self.box_head["fc7"](self.box_head["fc6"](features.flatten(1)).relu()).relu()
        return self.box_predictor["cls_score"](x), self.box_predictor["bbox_pred"](x)

    def masked(self, features: Tensor) -> Tensor:
        """(K, dim, 14, 14) → mask logits (K, 1 + classes, 28, 28)."""
        x = self.mask_predictor["conv5_mask"](self.mask_head(features)).relu()
        masks: Tensor = self.mask_predictor["mask_fcn_logits"](x)
        return masks


class MaskRCNN(FirstStage):
    """Both stages' weights; called, the first."""

    def __init__(
        self,
        backbone: str | nn.Module = "resnet50",
        num_classes: int = 90,
        dim: int = 256,
        head_dim: int = 1024,
        mask_dim: int = 256,
    ):
        super().__init__(backbone, dim)
        self.roi_heads = RegionHeads(num_classes, dim, head_dim, mask_dim)


def pooled(levels: list[Tensor], regions: Tensor, cells: int) -> Tensor:
    """Sample each region on the level of its size: (K, dim, cells, cells)."""
    area = (regions[:, 2] - regions[:, 0]) * (regions[:, 3] - regions[:, 1])
    number = torch.floor(4 + torch.log2(area.sqrt() / 224) + 1e-6).clamp(2, 5)
    result = torch.zeros((), dtype=regions.dtype)
    for i, level in enumerate(levels):
        here = (number == i + 2)[:, None, None, None]
        result = torch.where(here, aligned(level, regions / 2 ** (i + 2), cells), result)
    return result


def aligned(level: Tensor, regions: Tensor, cells: int) -> Tensor:
    """One level (1, dim, h, w) in regions (K, 4), in its own pixels: (K, dim, cells, cells)."""
    _, _, height, width = level.shape
    across = samples(regions[:, 0], regions[:, 2], cells, width)
    down = samples(regions[:, 1], regions[:, 3], cells, height)
    columns = torch.matmul(level, across[:, None].transpose(2, 3))  # (K, dim, h, cells)
    return torch.matmul(down[:, None], columns)


def samples(first: Tensor, last: Tensor, cells: int, length: int) -> Tensor:
    """Weights (K, cells, length) of the mean of a cell's two samples along an axis."""
    side = (last - first).clamp(min=1.0) / cells
    steps = torch.arange(2 * cells, dtype=first.dtype) / 2 + 0.25
    places = first[:, None] + steps * side[:, None]  # (K, 2·cells)
    inside = (places >= -1) & (places <= length)
    places = places.clamp(0, length - 1)
    weights = (1 - (places[..., None] - torch.arange(length, dtype=first.dtype)).abs()).clamp(min=0)
    weights = weights * inside[..., None].to(first.dtype)
    return weights.reshape(len(first), cells, 2, length).mean(2)
