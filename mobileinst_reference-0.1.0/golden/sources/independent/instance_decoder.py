"""Dual transformer instance decoder (section 3.2)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PositionEmbeddingSine(nn.Module):
    """DETR's sine embedding, normalised: (1, H·W, dim), the y part before the x part."""

    def __init__(self, dim: int, temperature: float = 10000.0):
        super().__init__()
        self.features, self.temperature = dim // 2, temperature

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        ones = torch.ones(1, height, width, dtype=x.dtype, device=x.device)
        y_embed, x_embed = ones.cumsum(1), ones.cumsum(2)
        y_embed = y_embed / (y_embed[:, -1:, :] + 1e-6) * (2 * math.pi)
        x_embed = x_embed / (x_embed[:, :, -1:] + 1e-6) * (2 * math.pi)
        j = torch.arange(self.features, dtype=x.dtype, device=x.device)
        period = self.temperature ** (2 * torch.div(j, 2, rounding_mode="floor") / self.features)
        parts = [self._interleave(e[..., None] / period) for e in (y_embed, x_embed)]
        return torch.cat(parts, dim=3).flatten(1, 2)

    @staticmethod
    def _interleave(angle: Tensor) -> Tensor:
        return torch.stack((angle[..., 0::2].sin(), angle[..., 1::2].cos()), dim=4).flatten(3)


class DecoderLayer(nn.Module):
    """Cross-attention then self-attention, post-norm, no feed-forward (Eq. 1)."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.cross_attn = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.cross_norm = nn.LayerNorm(dim)
        self.self_attn = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.self_norm = nn.LayerNorm(dim)
        self.plain = False  # attention by chunked projections and plain products, which older opsets need

    def forward(self, queries: Tensor, tokens: Tensor, pos: Tensor) -> Tensor:
        update, _ = self.cross_attn(queries, tokens + pos, tokens, need_weights=self.plain)
        queries = self.cross_norm(queries + update)
        # Three distinct tensors keep PyTorch from its packed projection.
        keys, values = (queries.clone(), queries.clone()) if self.plain else (queries, queries)
        update, _ = self.self_attn(queries, keys, values, need_weights=self.plain)
        return self.self_norm(queries + update)


class LocalFeatures(nn.Module):
    """Table 4's poolings of X_mask: "none", "max4", "max8", "avg8"."""

    def __init__(self, pooling: str):
        super().__init__()
        self.pooling = pooling

    def forward(self, x: Tensor) -> Tensor:
        if self.pooling == "none":
            return x
        pool = F.max_pool2d if self.pooling.startswith("max") else F.avg_pool2d
        size = int(self.pooling[3:])
        return pool(x, size, stride=size)


class InitialQueries(nn.Module):
    """The learned queries (N, dim), once for each picture."""

    def forward(self, queries: Tensor, batch: int) -> Tensor:
        return queries.expand(batch, -1, -1)


class KernelHead(nn.ModuleList):
    """A perceptron of three layers, ReLU between."""

    def __init__(self, dim: int):
        super().__init__(nn.Linear(dim, dim) for _ in range(3))

    def forward(self, queries: Tensor) -> Tensor:
        first, second, last = self
        return last(F.relu(second(F.relu(first(queries)))))


class InstanceDecoder(nn.Module):
    """Learned queries through global layers on X6 and local layers on X_mask; three heads."""

    def __init__(
        self,
        global_channels: int,
        num_classes: int = 80,
        num_queries: int = 100,
        dim: int = 256,
        num_heads: int = 8,
        global_layers: int = 1,
        local_layers: int = 1,
        local_pooling: str = "max8",
    ):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(num_queries, dim))
        self.initial_queries = InitialQueries()
        self.local_features = LocalFeatures(local_pooling)
        if global_layers:
            self.global_proj = nn.Conv2d(global_channels, dim, 1)
        self.position = PositionEmbeddingSine(dim)
        self.global_decoder = nn.ModuleList(DecoderLayer(dim, num_heads) for _ in range(global_layers))
        self.local_decoder = nn.ModuleList(DecoderLayer(dim, num_heads) for _ in range(local_layers))
        self.class_head = nn.Linear(dim, num_classes)
        self.objectness_head = nn.Linear(dim, 1)
        self.kernel_head = KernelHead(dim)

    def forward(self, x6: Tensor, mask_features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Class logits, objectness, kernels and the queries after the global decoder, each (B, N, …)."""
        queries = self.initial_queries(self.queries, x6.shape[0])
        if len(self.global_decoder):
            queries = self.decode(queries, self.global_proj(x6), self.global_decoder)
        global_queries = queries
        if len(self.local_decoder):
            queries = self.decode(queries, self.local_features(mask_features), self.local_decoder)
        kernels = self.kernel_head(queries)
        return self.class_head(queries), self.objectness_head(queries), kernels, global_queries

    def decode(self, queries: Tensor, x: Tensor, layers: nn.ModuleList) -> Tensor:
        """Update the queries (B, N, dim) from a map (B, dim, H, W)."""
        tokens, pos = x.flatten(2).transpose(1, 2), self.position(x)
        for layer in layers:
            queries = layer(queries, tokens, pos)
        return queries
