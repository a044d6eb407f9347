"""MobileNetV2 with torchvision's names."""

from __future__ import annotations

from torch import Tensor, nn

ROWS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, number, stride."""


def _unit(in_channels: int, out_channels: int, kernel: int, stride: int, groups: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU6())


class Block(nn.Module):
    """Expand, depthwise, project."""

    def __init__(self, in_channels: int, out_channels: int, expansion: int, stride: int):
        super().__init__()
        hidden = in_channels * expansion
        self.same = stride == 1 and in_channels == out_channels
        layers = [_unit(in_channels, hidden, 1, 1, 1)] if expansion > 1 else []
        layers += [_unit(hidden, hidden, 3, stride, hidden)]
        self.conv = nn.Sequential(
            *layers, nn.Conv2d(hidden, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, out, ⌈H/stride⌉, ⌈W/stride⌉)."""
        return x + self.conv(x) if self.same else self.conv(x)


class MobileNetV2(nn.Module):
    """Four maps, 1/4 to 1/32; other ``rows`` for a small one."""

    def __init__(self, stem: int = 32, rows: tuple[tuple[int, int, int, int], ...] = ROWS):
        super().__init__()
        self.features = nn.Sequential(_unit(3, stem, 3, 2, 1))
        channels, self.taps = stem, []
        for expansion, out, count, stride in rows:
            for i in range(count):
                if i == 0 and stride == 2:
                    self.taps.append(len(self.features) - 1)
                self.features.append(Block(channels, out, expansion, stride if i == 0 else 1))
                channels = out
        self.taps = [*self.taps[1:], len(self.features) - 1]
        widths = [stem] + [out for _, out, count, _ in rows for _ in range(count)]
        self.widths = tuple(widths[i] for i in self.taps)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) → four maps."""
        maps, x = [], images
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.taps:
                maps.append(x)
        return maps
