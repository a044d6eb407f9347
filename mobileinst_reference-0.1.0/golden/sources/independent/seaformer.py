"""SeaFormer (Wan et al., ICLR 2023): five stages of inverted residuals, squeeze-enhanced axial attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import MLP, ConvBN, InvertedResidual

Rows = tuple[tuple[int, int, int, int], ...]


def _stages(*stages: str) -> tuple[Rows, ...]:
    """`"3,1,16,1 3,4,16,2"` for each stage, to tuples of (kernel, expansion, channels, stride)."""
    return tuple(tuple(tuple(map(int, row.split(","))) for row in stage.split()) for stage in stages)  # type: ignore


# name: stages, stem channels, depths, key dimensions, embedding dimensions, heads, ratios of the MLPs
SEAFORMERS: dict[str, tuple] = {
    "seaformer-tiny": (
        _stages(
            "3,1,16,1 3,4,16,2 3,3,16,1", "5,3,32,2 5,3,32,1", "3,3,64,2 3,3,64,1", "5,3,128,2", "3,6,160,2"
        ),
        16,
        (2, 2),
        (16, 24),
        (128, 160),
        4,
        (2, 4),
    ),
    "seaformer-small": (
        _stages(
            "3,1,16,1 3,4,24,2 3,3,24,1", "5,3,48,2 5,3,48,1", "3,3,96,2 3,3,96,1", "5,4,160,2", "3,6,192,2"
        ),
        16,
        (3, 3),
        (16, 24),
        (160, 192),
        6,
        (2, 4),
    ),
    "seaformer-base": (
        _stages(
            "3,1,16,1 3,4,32,2 3,3,32,1", "5,3,64,2 5,3,64,1", "3,3,128,2 3,3,128,1", "5,4,192,2", "3,6,256,2"
        ),
        16,
        (4, 4),
        (16, 24),
        (192, 256),
        8,
        (2, 4),
    ),
    "seaformer-large": (
        _stages(
            "3,3,32,1 3,4,64,2 3,4,64,1",
            "5,4,128,2 5,4,128,1",
            "3,4,192,2 3,4,192,1",
            "5,4,256,2",
            "3,6,320,2",
        ),
        32,
        (3, 3, 3),
        (16, 20, 24),
        (192, 256, 320),
        8,
        (2, 4, 6),
    ),
}


class Stage(nn.Module):
    """Inverted residuals `layer1`, `layer2`, …, after a stem where `stem` gives its channels."""

    def __init__(self, rows: Rows, in_channels: int, stem: int | None = None):
        super().__init__()
        if stem:
            self.stem_block = nn.Sequential(ConvBN(in_channels, stem, 3, stride=2), nn.ReLU())
        self.stem = stem
        channels = stem or in_channels
        for i, (kernel, expansion, out_channels, stride) in enumerate(rows, start=1):
            self.add_module(f"layer{i}", InvertedResidual(channels, kernel, expansion, out_channels, stride))
            channels = out_channels
        self.depth = len(rows)

    def forward(self, x: Tensor) -> Tensor:
        if self.stem:
            x = self.stem_block(x)
        for i in range(self.depth):
            x = self.get_submodule(f"layer{i + 1}")(x)
        return x


class AxialPositionEmbedding(nn.Module):
    """A learned embedding of 16 positions, resized linearly to the axis and added."""

    def __init__(self, channels: int, length: int = 16):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.randn(1, channels, length))

    def forward(self, x: Tensor) -> Tensor:
        return x + F.interpolate(self.pos_embed, size=x.shape[2:], mode="linear", align_corners=False)


class SeaAttention(nn.Module):
    """Squeeze-enhanced axial attention, gating a convolutional detail branch."""

    def __init__(self, channels: int, key_dim: int, heads: int):
        super().__init__()
        keys, values = key_dim * heads, 2 * key_dim * heads
        self.heads, self.scale = heads, key_dim**-0.5
        self.to_q = ConvBN(channels, keys)
        self.to_k = ConvBN(channels, keys)
        self.to_v = ConvBN(channels, values)
        self.pos_emb_rowq = AxialPositionEmbedding(keys)
        self.pos_emb_rowk = AxialPositionEmbedding(keys)
        self.pos_emb_columnq = AxialPositionEmbedding(keys)
        self.pos_emb_columnk = AxialPositionEmbedding(keys)
        self.proj_encode_row = nn.Sequential(nn.ReLU6(), ConvBN(values, values))
        self.proj_encode_column = nn.Sequential(nn.ReLU6(), ConvBN(values, values))
        self.proj = nn.Sequential(nn.ReLU6(), ConvBN(values, channels))
        self.dwconv = ConvBN(2 * values, 2 * values, 3, groups=2 * values)
        self.act = nn.ReLU6()
        self.pwconv = ConvBN(2 * values, channels)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.to_q(x), self.to_k(x), self.to_v(x)
        detail = self.pwconv(self.act(self.dwconv(torch.cat((q, k, v), dim=1))))
        row = self._attend(self.pos_emb_rowq(q.mean(3)), self.pos_emb_rowk(k.mean(3)), v.mean(3))
        column = self._attend(self.pos_emb_columnq(q.mean(2)), self.pos_emb_columnk(k.mean(2)), v.mean(2))
        y = v + self.proj_encode_row(row.unsqueeze(3)) + self.proj_encode_column(column.unsqueeze(2))
        return self.gate(self.proj(y)) * detail

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, channels, L) each, to (B, values, L)."""
        batch, _, length = q.shape
        q, k, v = (
            t.view(batch, self.heads, -1, length).transpose(2, 3) for t in (q, k, v)
        )  # (B, heads, L, d)
        attention = (q @ k.transpose(2, 3) * self.scale).softmax(dim=-1)
        return (attention @ v).transpose(2, 3).flatten(1, 2)


class SeaBlock(nn.Module):
    """`x += attn(x); x += mlp(x)`."""

    def __init__(self, channels: int, key_dim: int, heads: int, ratio: int):
        super().__init__()
        self.attn = SeaAttention(channels, key_dim, heads)
        self.mlp = MLP(channels, ratio)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        return x + self.mlp(x)


class SeaBlocks(nn.Module):
    """`transformer_blocks.0…`, one after another."""

    def __init__(self, depth: int, channels: int, key_dim: int, heads: int, ratio: int):
        super().__init__()
        self.transformer_blocks = nn.ModuleList(
            SeaBlock(channels, key_dim, heads, ratio) for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.transformer_blocks:
            x = block(x)
        return x


class SeaFormer(nn.Module):
    """X3 … X6: the outputs of stages 2 to 5, each after its transformer blocks if it has any."""

    def __init__(
        self,
        stages: tuple[Rows, ...],
        stem: int,
        depths: tuple[int, ...],
        key_dims: tuple[int, ...],
        embed_dims: tuple[int, ...],
        heads: int,
        ratios: tuple[int, ...],
    ):
        super().__init__()
        in_channels = 3
        for i, rows in enumerate(stages, start=1):
            self.add_module(f"smb{i}", Stage(rows, in_channels, stem if i == 1 else None))
            in_channels = rows[-1][2]
        transformers = zip(depths, embed_dims, key_dims, ratios, strict=True)
        for j, (depth, channels, key_dim, ratio) in enumerate(transformers, start=1):
            self.add_module(f"trans{j}", SeaBlocks(depth, channels, key_dim, heads, ratio))
        self.first_transformer = len(stages) - len(depths)  # trans1 follows the stage after this many
        self.channels = tuple(rows[-1][2] for rows in stages[1:])

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = []
        for i in range(1, 6):
            x = self.get_submodule(f"smb{i}")(x)
            if i > self.first_transformer:
                x = self.get_submodule(f"trans{i - self.first_transformer}")(x)
            maps.append(x)
        return tuple(maps[1:])
