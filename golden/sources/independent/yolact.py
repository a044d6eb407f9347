"""YOLACT (Bolya et al., ICCV 2019), with the public code's names."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .solov2 import build_levels


class YolactOutputs(NamedTuple):
    """Raw outputs of all levels' priors, the finest level first."""

    class_logits: Tensor  # (B, priors, 1 + classes)
    boxes: Tensor  # (B, priors, 4)
    coefficients: Tensor  # (B, priors, 32)
    prototypes: Tensor  # (B, 32, H/4, W/4)


class FPN(nn.Module):
    """Five levels; the first module of a list is the deepest level's."""

    def __init__(self, widths: tuple[int, ...], dim: int):
        super().__init__()
        self.lat_layers = nn.ModuleList(nn.Conv2d(width, dim, 1) for width in reversed(widths))
        self.pred_layers = nn.ModuleList(nn.Conv2d(dim, dim, 3, padding=1) for _ in widths)
        self.downsample_layers = nn.ModuleList(nn.Conv2d(dim, dim, 3, 2, 1) for _ in range(2))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps at 1/8 to 1/32 → levels at 1/8 to 1/128."""
        third, second, first = maps
        deep = self.lat_layers[0](first)
        middle = self.lat_layers[1](second) + F.interpolate(deep, second.shape[-2:], mode="bilinear")
        fine = self.lat_layers[2](third) + F.interpolate(middle, third.shape[-2:], mode="bilinear")
        levels = [
            predict(x).relu() for predict, x in zip(self.pred_layers, (deep, middle, fine), strict=True)
        ]
        levels.reverse()
        for reduce in self.downsample_layers:
            levels.append(reduce(levels[-1]))
        return levels


class ProtoNet(nn.Sequential):
    """Its layers, and ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) → (B, kernel_dim, 2h, 2w)."""
        return super().forward(x).relu()


class PredictionLayer(nn.Module):
    """Class, box and coefficients of three priors at every position."""

    def __init__(self, dim: int, head_dim: int, num_classes: int, kernel_dim: int):
        super().__init__()
        self.classes, self.kernel_dim = num_classes + 1, kernel_dim
        self.upfeature = nn.Sequential(nn.Conv2d(dim, head_dim, 3, padding=1), nn.ReLU())
        self.bbox_layer = nn.Conv2d(head_dim, 3 * 4, 3, padding=1)
        self.conf_layer = nn.Conv2d(head_dim, 3 * self.classes, 3, padding=1)
        self.mask_layer = nn.Conv2d(head_dim, 3 * kernel_dim, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One level → (B, 3·hw, ·) each."""
        x = self.upfeature(x)

        def rows(made: Tensor, numbers: int) -> Tensor:
            return made.movedim(1, 3).reshape(len(x), -1, numbers)

        boxes, classes = rows(self.bbox_layer(x), 4), rows(self.conf_layer(x), self.classes)
        return classes, boxes, rows(self.mask_layer(x), self.kernel_dim).tanh()


class PredictionLayers(nn.ModuleList):
    """The one layer that has weights, on every level."""

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, ...]:
        """Levels → (B, priors, ·) each."""
        found = zip(*(self[0](x) for x in levels), strict=True)
        return tuple(torch.cat(parts, dim=1) for parts in found)


class YOLACT(nn.Module):
    """Backbone (a preset's name, or a module), pyramid, prototypes and predictions."""

    def __init__(
        self,
        backbone: str | nn.Module = "resnet50",
        num_classes: int = 80,
        dim: int = 256,
        head_dim: int = 256,
        kernel_dim: int = 32,
        mask_dim: int = 256,
    ):
        super().__init__()
        self.backbone = build_levels(backbone) if isinstance(backbone, str) else backbone
        self.fpn = FPN(self.backbone.widths[1:], dim)
        layers: list[nn.Module] = []
        for width in (dim, mask_dim, mask_dim):
            layers += [nn.Conv2d(width, mask_dim, 3, padding=1), nn.ReLU()]
        layers += [nn.Upsample(scale_factor=2, mode="bilinear"), nn.ReLU()]
        layers += [nn.Conv2d(mask_dim, mask_dim, 3, padding=1), nn.ReLU()]
        self.proto_net = ProtoNet(*layers, nn.Conv2d(mask_dim, kernel_dim, 1))
        layer = PredictionLayer(dim, head_dim, num_classes, kernel_dim)
        self.prediction_layers = PredictionLayers([layer])

    def forward(self, images: Tensor) -> YolactOutputs:
        """Images (B, 3, H, W) → predictions."""
        levels = self.fpn(list(self.backbone(images))[1:])
        prototypes = self.proto_net(levels[0])
        classes, boxes, coefficients = self.prediction_layers(levels)
        return YolactOutputs(classes, boxes, coefficients, prototypes)
