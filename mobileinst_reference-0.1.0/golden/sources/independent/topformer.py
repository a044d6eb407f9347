"""TopFormer (Zhang et al., CVPR 2022): token pyramid and transformer blocks, without semantic injection."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import MLP, ConvBN, InvertedResidual

# name: (kernel, expansion, channels, stride) of each row, tapped rows, heads
Rows = tuple[tuple[int, int, int, int], ...]
TOPFORMERS: dict[str, tuple[Rows, tuple[int, ...], int]] = {
    "topformer-base": (
        (
            (3, 1, 16, 1),
            (3, 4, 32, 2),
            (3, 3, 32, 1),
            (5, 3, 64, 2),
            (5, 3, 64, 1),
            (3, 3, 128, 2),
            (3, 3, 128, 1),
            (5, 6, 160, 2),
            (5, 6, 160, 1),
            (3, 6, 160, 1),
        ),
        (2, 4, 6, 9),
        8,
    ),
    "topformer-small": (
        (
            (3, 1, 16, 1),
            (3, 4, 24, 2),
            (3, 3, 24, 1),
            (5, 3, 48, 2),
            (5, 3, 48, 1),
            (3, 3, 96, 2),
            (3, 3, 96, 1),
            (5, 6, 128, 2),
            (5, 6, 128, 1),
            (3, 6, 128, 1),
        ),
        (2, 4, 6, 9),
        6,
    ),
    "topformer-tiny": (
        (
            (3, 1, 16, 1),
            (3, 4, 16, 2),
            (3, 3, 16, 1),
            (5, 3, 32, 2),
            (5, 3, 32, 1),
            (3, 3, 64, 2),
            (3, 3, 64, 1),
            (5, 6, 96, 2),
            (5, 6, 96, 1),
        ),
        (2, 4, 6, 8),
        4,
    ),
}


class TokenPyramid(nn.Module):
    """Stem and inverted residuals `layer1`, `layer2`, …; returns the tapped maps, 1/4 to 1/32."""

    def __init__(self, rows: Rows, taps: tuple[int, ...], stem: int = 16):
        super().__init__()
        self.stem = nn.Sequential(ConvBN(3, stem, 3, stride=2), nn.ReLU())
        channels = stem
        for i, (kernel, expansion, out_channels, stride) in enumerate(rows, start=1):
            self.add_module(f"layer{i}", InvertedResidual(channels, kernel, expansion, out_channels, stride))
            channels = out_channels
        self.depth, self.taps = len(rows), taps

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        maps = []
        for i in range(self.depth):
            x = self.get_submodule(f"layer{i + 1}")(x)
            if i in self.taps:
                maps.append(x)
        return maps


class Attention(nn.Module):
    """Attention over all positions, keys of 16 and values of 32 channels per head, unscaled."""

    def __init__(self, channels: int, heads: int, key_dim: int = 16, value_dim: int = 32):
        super().__init__()
        self.heads = heads
        self.scale = 1.0
        self.to_q = ConvBN(channels, key_dim * heads)
        self.to_k = ConvBN(channels, key_dim * heads)
        self.to_v = ConvBN(channels, value_dim * heads)
        self.proj = nn.Sequential(nn.ReLU6(), ConvBN(value_dim * heads, channels))

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        q, k, v = (
            to(x).view(batch, self.heads, -1, height * width).transpose(2, 3)  # (B, heads, HW, d)
            for to in (self.to_q, self.to_k, self.to_v)
        )
        logits = q @ k.transpose(2, 3)
        if self.scale != 1.0:
            logits = logits * self.scale
        y = logits.softmax(dim=-1) @ v
        return self.proj(y.transpose(2, 3).reshape(batch, -1, height, width))


class Block(nn.Module):
    """`x += attn(x); x += mlp(x)`."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.attn = Attention(channels, heads)
        self.mlp = MLP(channels, ratio=2)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        return x + self.mlp(x)


class Blocks(nn.Module):
    """`transformer_blocks.0…`, one after another."""

    def __init__(self, channels: int, heads: int, depth: int):
        super().__init__()
        self.transformer_blocks = nn.ModuleList(Block(channels, heads) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.transformer_blocks:
            x = block(x)
        return x


class PyramidPool(nn.Module):
    """Every map averaged to half the size of the last, rounded up; channels one after another."""

    def forward(self, maps: list[Tensor]) -> Tensor:
        height, width = maps[-1].shape[-2:]
        size = ((height - 1) // 2 + 1, (width - 1) // 2 + 1)
        return torch.cat([F.adaptive_avg_pool2d(x, size) for x in maps], dim=1)


class TopFormer(nn.Module):
    """X3, X4, X5 (tapped maps 1/8 to 1/32) and X6 (the blocks' output at 1/64)."""

    def __init__(self, rows: Rows, taps: tuple[int, ...], heads: int, stem: int = 16, depth: int = 4):
        super().__init__()
        tapped = [rows[i][2] for i in taps]
        self.tpm = TokenPyramid(rows, taps, stem)
        self.ppa = PyramidPool()
        self.trans = Blocks(sum(tapped), heads, depth)
        self.channels = (*tapped[1:], sum(tapped))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        maps = self.tpm(images)
        return maps[1], maps[2], maps[3], self.trans(self.ppa(maps))
