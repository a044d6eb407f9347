"""Configurations: the published backbones, and every choice of the paper's tables."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from typing import Any

from refimpl.errors import ConfigurationError


@dataclass(frozen=True)
class MobileInstConfig:
    """Which network: backbone, decoders and sizes. Every field is an override of `preset`.

    Attributes
    ----------
    backbone
        Name of a published backbone, such as ``topformer-base``.
    num_classes
        80 for COCO, 40 for YouTube-VIS.
    num_queries
        N, the number of object queries (Table 6).
    dim
        Channels of queries, kernels and mask features.
    num_heads
        Attention heads of the instance decoder.
    global_layers, local_layers
        How many global and local instance decoders (Table 3).
    local_pooling
        How local features come from the mask features (Table 4): ``none``, ``max4``, ``max8`` or ``avg8``.
    mask_decoder
        ``semantic_enhanced`` (the paper's), or ``top_down_bottom_up`` (the same without enhancers, Table 5).
    """

    backbone: str = "topformer-base"
    num_classes: int = 80
    num_queries: int = 100
    dim: int = 256
    num_heads: int = 8
    global_layers: int = 1
    local_layers: int = 1
    local_pooling: str = "max8"
    mask_decoder: str = "semantic_enhanced"

    def __post_init__(self) -> None:
        for name in ("num_classes", "num_queries", "dim", "num_heads"):
            if not _is_count(getattr(self, name)) or getattr(self, name) < 1:
                raise ConfigurationError(f"{name} is {getattr(self, name)!r}; expected a whole number of at least 1")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ConfigurationError(f"{name} is {getattr(self, name)!r}; expected {_one_of(allowed)}")
        if self.dim % self.num_heads or self.dim % 4:
            raise ConfigurationError(
                f"dim is {self.dim} with {self.num_heads} heads; it must be a multiple of 4 and of num_heads"
            )
        if self.global_layers + self.local_layers == 0:
            raise ConfigurationError("global_layers and local_layers are both 0; at least one decoder is needed")

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> MobileInstConfig:
        """Return a named configuration, with any fields overridden.

        Raises
        ------
        ConfigurationError
            An unknown preset or field (the nearest name is suggested), or values that no network can have.

        Examples
        --------
        >>> MobileInstConfig.preset("topformer-tiny", dim=64, num_queries=20).dim
        64
        """
        if name not in PRESETS:
            raise ConfigurationError(f"unknown preset {name!r}; {_nearest(name, list(PRESETS))}")
        fields = [field.name for field in dataclasses.fields(cls)]
        for key in overrides:
            if key not in fields:
                raise ConfigurationError(f"unknown configuration field {key!r}; {_nearest(key, fields)}")
        return cls(**{**PRESETS[name], **overrides})


BACKBONES = ("topformer-base", "topformer-small", "topformer-tiny")

CHOICES: dict[str, tuple[Any, ...]] = {
    "backbone": BACKBONES,
    "global_layers": (0, 1, 2),
    "local_layers": (0, 1, 2),
    "local_pooling": ("none", "max4", "max8", "avg8"),
    "mask_decoder": ("semantic_enhanced", "top_down_bottom_up"),
}
"""Allowed values of the fields that name a choice."""

PRESETS: dict[str, dict[str, Any]] = {name: {"backbone": name} for name in BACKBONES}
"""Name → fields that differ from the defaults."""


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _one_of(allowed: tuple[Any, ...]) -> str:
    return "one of " + ", ".join(repr(value) for value in allowed)


def _nearest(name: str, known: list[str]) -> str:
    matches = difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
    hint = f"did you mean {matches[0]!r}? " if matches else ""
    return f"{hint}known: {', '.join(known)}"
