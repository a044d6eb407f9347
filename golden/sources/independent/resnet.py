"""ResNets with detectron2's names."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Conv2d(nn.Conv2d):
    """Convolution without bias whose batch norm is its submodule `norm`, as in detectron2."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1):
        super().__init__(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, out, ⌈H/stride⌉, ⌈W/stride⌉)."""
        return self.norm(super().forward(x))


class Stem(nn.Module):
    """7×7 stride 2, ReLU, 3×3 max pooling stride 2."""

    def __init__(self, channels: int = 64):
        super().__init__()
        self.conv1 = Conv2d(3, channels, 7, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) → (B, channels, H/4, W/4)."""
        return F.max_pool2d(F.relu(self.conv1(x)), 3, stride=2, padding=1)


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1, with a projected shortcut where the shape changes; the stride is first or in the 3×3."""

    def __init__(
        self, in_channels: int, hidden: int, out_channels: int, stride: int, stride_first: bool = False
    ):
        super().__init__()
        self.conv1 = Conv2d(in_channels, hidden, 1, stride if stride_first else 1)
        self.conv2 = Conv2d(hidden, hidden, 3, 1 if stride_first else stride)
        self.conv3 = Conv2d(hidden, out_channels, 1)
        self.shortcut = Conv2d(in_channels, out_channels, 1, stride) if in_channels != out_channels else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, out, ⌈H/stride⌉, ⌈W/stride⌉)."""
        y = self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class BasicBlock(nn.Module):
    """Two 3×3, with a projected shortcut where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv1 = Conv2d(in_channels, out_channels, 3, stride)
        self.conv2 = Conv2d(out_channels, out_channels, 3)
        self.shortcut = Conv2d(in_channels, out_channels, 1, stride) if in_channels != out_channels else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, out, ⌈H/stride⌉, ⌈W/stride⌉)."""
        y = self.conv2(F.relu(self.conv1(x)))
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(nn.Module):
    """res2 to res5 at 1/4 to 1/32."""

    def __init__(
        self,
        stem: int = 64,
        widths: tuple[int, ...] = (64, 128, 256, 512),
        depths: tuple[int, ...] = (3, 4, 6, 3),
        basic: bool = False,
        stride_first: bool = False,
    ):
        super().__init__()
        self.stem = Stem(stem)
        channels, self.widths = stem, tuple(width if basic else 4 * width for width in widths)
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            stage = nn.Sequential()
            for j in range(depth):
                stride = 2 if i and not j else 1
                if basic:
                    stage.append(BasicBlock(channels, width, stride))
                else:
                    stage.append(Bottleneck(channels, width, 4 * width, stride, stride_first))
                channels = self.widths[i]
            self.add_module(f"res{i + 2}", stage)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) → four maps."""
        maps, x = [], self.stem(images)
        for i in range(4):
            x = self.get_submodule(f"res{i + 2}")(x)
            maps.append(x)
        return maps


class ResNet50(ResNet):
    """res3, res4, res5 at 1/8, 1/16, 1/32; other ``widths`` and ``depths`` for a small one."""

    def __init__(
        self,
        stem: int = 64,
        widths: tuple[int, ...] = (64, 128, 256, 512),
        depths: tuple[int, ...] = (3, 4, 6, 3),
    ):
        super().__init__(stem, widths, depths)
        self.channels = self.widths[1:]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) → res3, res4, res5: 1/8, 1/16, 1/32."""
        return super().forward(images)[1:]
