"""Layers that both backbones and the mask decoder are made of."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ConvBN(nn.Sequential):
    """Convolution without bias and batch norm, named `c` and `bn` as in TopFormer and SeaFormer."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, groups: int = 1
    ):
        super().__init__()
        self.add_module(
            "c", nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
        )
        self.add_module("bn", nn.BatchNorm2d(out_channels))


class InvertedResidual(nn.Module):
    """MobileNetV2 block with ReLU; the residual only where the shape is kept."""

    def __init__(self, in_channels: int, kernel: int, expansion: int, out_channels: int, stride: int):
        super().__init__()
        hidden = round(in_channels * expansion)
        expand = [] if expansion == 1 else [ConvBN(in_channels, hidden), nn.ReLU()]
        self.conv = nn.Sequential(
            *expand,
            ConvBN(hidden, hidden, kernel, stride, groups=hidden),
            nn.ReLU(),
            ConvBN(hidden, out_channels),
        )
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class MLP(nn.Module):
    """Pointwise, depthwise 3×3 with bias, pointwise."""

    def __init__(self, channels: int, ratio: int):
        super().__init__()
        hidden = channels * ratio
        self.fc1 = ConvBN(channels, hidden)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.act = nn.ReLU6()
        self.fc2 = ConvBN(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.dwconv(self.fc1(x))))


class Resize(nn.Module):
    """Bilinear resize to the size of another map; a module so that a test can spoil one of them by name."""

    def __init__(self, align_corners: bool = False):
        super().__init__()
        self.align_corners = align_corners

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=self.align_corners)
