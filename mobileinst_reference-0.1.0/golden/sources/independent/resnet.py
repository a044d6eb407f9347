"""ResNet-50 with detectron2's names; the stride is in the 3×3."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Conv2d(nn.Conv2d):
    """Convolution without bias whose batch norm is its submodule `norm`, as in detectron2."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1):
        super().__init__(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(super().forward(x))


class Stem(nn.Module):
    """7×7 stride 2, ReLU, 3×3 max pooling stride 2."""

    def __init__(self, channels: int = 64):
        super().__init__()
        self.conv1 = Conv2d(3, channels, 7, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.relu(self.conv1(x)), 3, stride=2, padding=1)


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1, with a projected shortcut where the shape changes."""

    def __init__(self, in_channels: int, hidden: int, out_channels: int, stride: int):
        super().__init__()
        self.conv1 = Conv2d(in_channels, hidden, 1)
        self.conv2 = Conv2d(hidden, hidden, 3, stride)
        self.conv3 = Conv2d(hidden, out_channels, 1)
        self.shortcut = Conv2d(in_channels, out_channels, 1, stride) if in_channels != out_channels else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x)))


def _stage(in_channels: int, hidden: int, depth: int, stride: int) -> nn.Sequential:
    out_channels = 4 * hidden
    first = Bottleneck(in_channels, hidden, out_channels, stride)
    return nn.Sequential(
        first, *(Bottleneck(out_channels, hidden, out_channels, 1) for _ in range(depth - 1))
    )


class ResNet50(nn.Module):
    """res3, res4, res5 at 1/8, 1/16, 1/32; other ``widths`` and ``depths`` for a small one."""

    def __init__(
        self,
        stem: int = 64,
        widths: tuple[int, ...] = (64, 128, 256, 512),
        depths: tuple[int, ...] = (3, 4, 6, 3),
    ):
        super().__init__()
        self.stem = Stem(stem)
        channels = [stem, *(4 * width for width in widths)]
        stages = zip(channels, widths, depths, (1, 2, 2, 2), strict=False)
        self.res2, self.res3, self.res4, self.res5 = (_stage(*stage) for stage in stages)
        self.channels = tuple(channels[2:])

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x3 = self.res3(self.res2(self.stem(images)))
        x4 = self.res4(x3)
        return x3, x4, self.res5(x4)
