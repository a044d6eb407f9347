"""Mask decoders of Table 5: the paper's semantic-enhanced one (section 3.3) and the baselines."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import Resize


class ConvBNReLU(nn.Module):
    """Convolution without bias, batch norm, and by default ReLU, named `conv` and `bn`."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, relu: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        self.act = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class SemanticEnhancer(nn.Module):
    """`local · resize(h_sigmoid(act(g))) + resize(embedding(g))`."""

    def __init__(self, global_channels: int, dim: int):
        super().__init__()
        self.local_embedding = ConvBNReLU(dim, dim, 1, relu=False)
        self.global_act = ConvBNReLU(global_channels, dim, 1, relu=False)
        self.global_embedding = ConvBNReLU(global_channels, dim, 1, relu=False)
        self.h_sigmoid = nn.Hardsigmoid()
        self.resize_act, self.resize_embedding = Resize(), Resize()

    def forward(self, local: Tensor, semantics: Tensor) -> Tensor:
        local = self.local_embedding(local)
        act = self.resize_act(self.h_sigmoid(self.global_act(semantics)), local)
        return local * act + self.resize_embedding(self.global_embedding(semantics), local)


class SemanticEnhancedMaskDecoder(nn.Module):
    """Top-down, bottom-up, top-down over three levels; `enhance=False` leaves out the enhancers."""

    def __init__(self, channels: tuple[int, ...], dim: int = 256, enhance: bool = True):
        super().__init__()
        self.lateral = nn.ModuleList(ConvBNReLU(c, dim, 1) for c in channels[:3])
        self.top_down = nn.ModuleList(ConvBNReLU(dim, dim, 3) for _ in range(3))
        self.bottom_up = nn.ModuleList(ConvBNReLU(dim, dim, 3) for _ in range(3))
        self.output = nn.ModuleList(ConvBNReLU(dim, dim, 3) for _ in range(3))
        self.resize_top_down = nn.ModuleList(Resize() for _ in range(2))
        self.resize_bottom_up = nn.ModuleList(Resize() for _ in range(2))
        self.resize_output = nn.ModuleList(Resize() for _ in range(2))
        if enhance:
            self.enhancer = nn.ModuleList(SemanticEnhancer(channels[3], dim) for _ in range(2))
        self.enhance = enhance

    def forward(self, x3: Tensor, x4: Tensor, x5: Tensor, x6: Tensor) -> Tensor:
        levels = [lateral(x) for lateral, x in zip(self.lateral, (x3, x4, x5), strict=True)]
        levels = self._top_down(levels, x6, 0, self.top_down, self.resize_top_down)
        levels = self._bottom_up(levels)
        return self._top_down(levels, x6, 1, self.output, self.resize_output)[0]

    def _top_down(
        self, levels: list[Tensor], x6: Tensor, index: int, convs: nn.ModuleList, resizes: nn.ModuleList
    ) -> list[Tensor]:
        deepest = self.enhancer[index](levels[2], x6) if self.enhance else levels[2]
        p2 = convs[2](deepest)
        p1 = convs[1](levels[1] + resizes[1](p2, levels[1]))
        p0 = convs[0](levels[0] + resizes[0](p1, levels[0]))
        return [p0, p1, p2]

    def _bottom_up(self, levels: list[Tensor]) -> list[Tensor]:
        n0 = self.bottom_up[0](levels[0])
        n1 = self.bottom_up[1](levels[1] + self.resize_bottom_up[0](n0, levels[1]))
        n2 = self.bottom_up[2](levels[2] + self.resize_bottom_up[1](n1, levels[2]))
        return [n0, n1, n2]


class PyramidPooling(nn.Module):
    """SparseInst's pyramid pooling: 1, 2, 3, 6 bins, the four priors before the input."""

    def __init__(self, dim: int, sizes: tuple[int, ...] = (1, 2, 3, 6)):
        super().__init__()
        prior = dim // 4
        self.stages = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(size), nn.Conv2d(dim, prior, 1)) for size in sizes
        )
        self.bottleneck = nn.Conv2d(dim + prior * len(sizes), dim, 1)
        self.resize = nn.ModuleList(Resize() for _ in sizes)

    def forward(self, x: Tensor) -> Tensor:
        priors = [resize(F.relu(stage(x)), x) for stage, resize in zip(self.stages, self.resize, strict=True)]
        return F.relu(self.bottleneck(torch.cat([*priors, x], dim=1)))


class FPN(nn.Module):
    """Levels summed top-down, resized to 1/8, concatenated finest first, fused; index 0 is the deepest."""

    def __init__(self, channels: tuple[int, ...], dim: int = 256, pooling: bool = True):
        super().__init__()
        self.fpn_laterals = nn.ModuleList(nn.Conv2d(c, dim, 1) for c in reversed(channels[:3]))
        self.fpn_outputs = nn.ModuleList(nn.Conv2d(dim, dim, 3, padding=1) for _ in range(3))
        if pooling:
            self.ppm = PyramidPooling(dim)
        self.pooling = pooling
        self.resize = nn.ModuleList(Resize() for _ in range(2))
        self.fusion = nn.Conv2d(3 * dim, dim, 1)

    def forward(self, x3: Tensor, x4: Tensor, x5: Tensor) -> Tensor:
        total = self.fpn_laterals[0](x5)
        if self.pooling:
            total = self.ppm(total)
        levels = [self.fpn_outputs[0](total)]
        for i, x in ((1, x4), (2, x3)):
            lateral = self.fpn_laterals[i](x)
            total = lateral + F.interpolate(total, size=lateral.shape[-2:], mode="nearest")
            levels.insert(0, self.fpn_outputs[i](total))
        finest, middle, deepest = levels
        resized = [finest, self.resize[0](middle, finest), self.resize[1](deepest, finest)]
        return self.fusion(torch.cat(resized, dim=1))


def conv_stack(in_channels: int, dim: int, depth: int) -> nn.Sequential:
    """`depth` × (3×3, ReLU): the convolutions are numbered 0, 2, 4, …"""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Conv2d(in_channels if i == 0 else dim, dim, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers)


class BaselineMaskDecoder(FPN):
    """Baselines of Table 5: `fpn`, and `sparseinst` which adds pyramid pooling."""

    def __init__(self, channels: tuple[int, ...], dim: int = 256, pooling: bool = True, mask_convs: int = 4):
        super().__init__(channels, dim, pooling)
        self.mask_convs = conv_stack(dim, dim, mask_convs)
        self.projection = nn.Conv2d(dim, dim, 1)

    def forward(self, x3: Tensor, x4: Tensor, x5: Tensor, x6: Tensor) -> Tensor:  # type: ignore[override]
        return self.projection(self.mask_convs(super().forward(x3, x4, x5)))
