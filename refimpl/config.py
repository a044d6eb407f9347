"""Configurations: the published backbones, every row of the paper's Tables 3 to 6, and its rivals."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from typing import Any

from refimpl.errors import ConfigurationError

MOST = 2**16
"""Of anything that is counted: more is a slip of the pen, and no machine would hold its arrays."""


@dataclass(frozen=True)
class MobileInstConfig:
    """Which network: backbone, decoders and sizes. Every field is an override of `preset`.

    Attributes
    ----------
    architecture
        ``mobileinst``, or a rival of the paper's tables, which ignores the instance decoder's fields:
        ``sparseinst``, ``solov2``, ``condinst``, ``yolact``, ``maskrcnn``.
    backbone
        Name of a published backbone, such as ``topformer-base``; the rivals know TopFormer, the ResNets and
        ``mobilenetv2``.
    num_classes
        80 for COCO, 40 for YouTube-VIS.
    num_queries
        N, the number of object queries (Table 6).
    dim
        Channels of queries, kernels and mask features; in SparseInst, of encoder and branches; in the other
        rivals, of the feature pyramid.
    num_heads
        Attention heads of the instance decoder.
    global_layers, local_layers
        How many global and local instance decoders (Table 3).
    local_pooling
        How local features come from the mask features (Table 4): ``none``, ``max4``, ``max8`` or ``avg8``.
    mask_decoder
        ``semantic_enhanced`` (the paper's), ``top_down_bottom_up`` (the same without enhancers), or the
        baselines ``fpn`` and ``sparseinst`` (Table 5).
    mask_convs
        How many 3×3 convolutions refine the mask features of a baseline or of SparseInst.
    instance_activation
        How SparseInst's activation maps are formed: ``plain``, ``grouped``, or ``softmax`` (grouped, with a
        softmax over positions in place of a normalised sigmoid).
    kernel_dim
        Channels of a rival's mask features, and of its kernels, but for CondInst's, which are whole networks.
    head_dim, head_convs
        Channels of SOLOv2's, YOLACT's and Mask R-CNN's heads, and number of the 3×3 convolutions of those of
        SOLOv2 and CondInst.
    mask_dim
        Channels on the way to a rival's mask features.
    grids
        Cells along a side of SOLOv2's five grids.
    norm_groups
        Groups of a rival's group norms.
    """

    architecture: str = "mobileinst"
    backbone: str = "topformer-base"
    num_classes: int = 80
    num_queries: int = 100
    dim: int = 256
    num_heads: int = 8
    global_layers: int = 1
    local_layers: int = 1
    local_pooling: str = "max8"
    mask_decoder: str = "semantic_enhanced"
    mask_convs: int = 4
    instance_activation: str = "grouped"
    kernel_dim: int = 128
    head_dim: int = 256
    head_convs: int = 2
    mask_dim: int = 128
    grids: tuple[int, ...] = (40, 36, 24, 16, 12)
    norm_groups: int = 32

    def __post_init__(self) -> None:
        for name in COUNTS:
            if not _is_count(getattr(self, name)) or not 1 <= getattr(self, name) <= MOST:
                raise ConfigurationError(
                    f"{name} is {getattr(self, name)!r}; expected a whole number from 1 to {MOST}"
                )
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            # True and 1.0 equal 1, but do not count layers.
            if value not in allowed or type(value) is not type(allowed[0]):
                raise ConfigurationError(f"{name} is {value!r}; expected {_one_of(allowed)}")
        object.__setattr__(self, "grids", _checked_grids(self.grids))
        checks = {"mobileinst": self._check_mobileinst, "sparseinst": self._check_sparseinst}
        checks.get(self.architecture, self._check_rival)()

    def _check_mobileinst(self) -> None:
        if self.backbone not in BACKBONES:
            raise ConfigurationError(
                f"backbone {self.backbone!r} has no global features X6, which MobileInst reads; "
                f"expected {_one_of(BACKBONES)}"
            )
        if self.dim % self.num_heads or self.dim % 4:
            raise ConfigurationError(
                f"dim is {self.dim} with {self.num_heads} heads; it must be a multiple of 4 and of num_heads"
            )
        if self.global_layers + self.local_layers == 0:
            raise ConfigurationError(
                "global_layers and local_layers are both 0; at least one decoder is needed"
            )

    def _check_sparseinst(self) -> None:
        if self.backbone not in SPARSEINST_BACKBONES:
            raise ConfigurationError(
                f"SparseInst has no backbone {self.backbone!r}; expected {_one_of(SPARSEINST_BACKBONES)}"
            )
        if self.dim % 4:
            raise ConfigurationError(
                f"dim is {self.dim}; SparseInst's pooling and groups need a multiple of 4"
            )

    def _check_rival(self) -> None:
        if self.backbone not in RIVAL_BACKBONES:
            raise ConfigurationError(
                f"{self.architecture} has no backbone {self.backbone!r}; expected {_one_of(RIVAL_BACKBONES)}"
            )
        for name in GROUPED[self.architecture]:
            if getattr(self, name) % self.norm_groups:
                raise ConfigurationError(
                    f"{name} is {getattr(self, name)}; expected a multiple of norm_groups, {self.norm_groups}"
                )

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


TOPFORMER_NAMES = ("topformer-base", "topformer-small", "topformer-tiny")
BACKBONES = (*TOPFORMER_NAMES, "seaformer-large", "seaformer-base", "seaformer-small", "seaformer-tiny")
"""Backbones of MobileInst; each is a preset too."""

SPARSEINST_BACKBONES = ("resnet50", *TOPFORMER_NAMES)
RIVAL_BACKBONES = ("resnet50", "resnet50-caffe", "resnet18", "mobilenetv2", *TOPFORMER_NAMES)

COUNTS = (
    "num_classes",
    "num_queries",
    "dim",
    "num_heads",
    "mask_convs",
    "kernel_dim",
    "head_dim",
    "head_convs",
    "mask_dim",
    "norm_groups",
)
"""Fields that are whole numbers from 1."""
GRIDS = 5
GROUPED = {
    "solov2": ("head_dim", "mask_dim", "kernel_dim"),
    "condinst": ("dim",),
    "yolact": (),
    "maskrcnn": (),
}
"""Fields that are channels of group norms."""

CHOICES: dict[str, tuple[Any, ...]] = {
    "architecture": ("mobileinst", "sparseinst", "solov2", "condinst", "yolact", "maskrcnn"),
    "backbone": (*BACKBONES, "resnet50", "resnet50-caffe", "resnet18", "mobilenetv2"),
    "global_layers": (0, 1, 2),
    "local_layers": (0, 1, 2),
    "local_pooling": ("none", "max4", "max8", "avg8"),
    "mask_decoder": ("semantic_enhanced", "top_down_bottom_up", "fpn", "sparseinst"),
    "instance_activation": ("plain", "grouped", "softmax"),
}
"""Allowed values of the fields that name a choice."""

# The tables' FLOPs are those of TopFormer-base without semantic enhancers, but for the last row of Table 5.
_ABLATION = {"backbone": "topformer-base", "mask_decoder": "top_down_bottom_up"}
_ABLATIONS: dict[str, dict[str, Any]] = {
    "table3/global": {"local_layers": 0},
    "table3/local": {"global_layers": 0},
    "table3/global-x2": {"global_layers": 2, "local_layers": 0},
    "table3/local-x2": {"global_layers": 0, "local_layers": 2},
    "table3/dual": {},
    "table4/none": {"local_pooling": "none"},
    "table4/max4": {"local_pooling": "max4"},
    "table4/max8": {"local_pooling": "max8"},
    "table4/avg8": {"local_pooling": "avg8"},
    "table5/sparseinst-4conv": {"mask_decoder": "sparseinst", "mask_convs": 4},
    "table5/sparseinst-1conv": {"mask_decoder": "sparseinst", "mask_convs": 1},
    "table5/fpn-1conv": {"mask_decoder": "fpn", "mask_convs": 1},
    "table5/ours": {},
    "table5/ours-se": {"mask_decoder": "semantic_enhanced"},
    "table6/200": {"num_queries": 200},
    "table6/100": {"num_queries": 100},
    "table6/50": {"num_queries": 50},
    "table6/20": {"num_queries": 20},
}

_SOLOV2 = {"architecture": "solov2", "head_dim": 512, "head_convs": 4, "kernel_dim": 256}
_SOLOV2_LITE = {"architecture": "solov2"}
_YOLACT = {"architecture": "yolact", "kernel_dim": 32, "mask_dim": 256}
_CONDINST = {"architecture": "condinst", "head_convs": 4, "kernel_dim": 8}
_RIVALS: dict[str, dict[str, Any]] = {
    "solov2-r50": {**_SOLOV2, "backbone": "resnet50"},
    "solov2-mobilenetv2": {**_SOLOV2, "backbone": "mobilenetv2"},
    "solov2-lite-r50": {**_SOLOV2_LITE, "backbone": "resnet50"},
    "solov2-lite-r18": {**_SOLOV2_LITE, "backbone": "resnet18"},
    "condinst-r50": {**_CONDINST, "backbone": "resnet50-caffe"},
    "condinst-topformer-base": {**_CONDINST, "backbone": "topformer-base"},
    "maskrcnn-r50": {
        "architecture": "maskrcnn",
        "backbone": "resnet50",
        "num_classes": 90,
        "head_dim": 1024,
        "mask_dim": 256,
    },
    "yolact-r50": {**_YOLACT, "backbone": "resnet50"},
    "yolact-mobilenetv2": {**_YOLACT, "backbone": "mobilenetv2"},
    "yolact-topformer-base": {**_YOLACT, "backbone": "topformer-base"},
}
"""The rivals of the paper's Table 1 as their public configurations have them."""

PRESETS: dict[str, dict[str, Any]] = {
    **{name: {"backbone": name} for name in BACKBONES},
    **{name: {**_ABLATION, **fields} for name, fields in _ABLATIONS.items()},
    "sparseinst-r50": {"architecture": "sparseinst", "backbone": "resnet50"},
    **{f"sparseinst-{name}": {"architecture": "sparseinst", "backbone": name} for name in TOPFORMER_NAMES},
    **_RIVALS,
}
"""Name → fields that differ from the defaults."""

TABLE_1 = {
    "maskrcnn-r50": "Mask R-CNN, R-50",
    "condinst-r50": "CondInst, R-50",
    "solov2-lite-r50": "SOLOv2-Lite, R-50",
    "solov2-lite-r18": "SOLOv2-Lite, R-18",
    "yolact-r50": "YOLACT, R-50",
    "sparseinst-r50": "SparseInst, R-50",
    "yolact-mobilenetv2": "YOLACT, MobileNetV2",
    "yolact-topformer-base": "YOLACT, TopFormer",
    "solov2-mobilenetv2": "SOLOv2, MobileNetV2",
    "condinst-topformer-base": "CondInst, TopFormer",
    "sparseinst-topformer-base": "SparseInst, TopFormer",
    "topformer-base": "MobileInst, TopFormer",
    "seaformer-base": "MobileInst, SeaFormer",
}
"""Preset → its row of the paper's Table 1, in the table's order; it does not say which SeaFormer."""


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _checked_grids(grids: Any) -> tuple[int, ...]:
    """Return the grids as a tuple: a list that the command line gave cannot be hashed."""
    cells = tuple(grids) if isinstance(grids, tuple | list) else ()
    if len(cells) != GRIDS or not all(_is_count(side) and 1 <= side <= MOST for side in cells):
        raise ConfigurationError(f"grids is {grids!r}; expected {GRIDS} whole numbers from 1 to {MOST}")
    return cells


def _one_of(allowed: tuple[Any, ...]) -> str:
    return "one of " + ", ".join(repr(value) for value in allowed)


def _nearest(name: str, known: list[str]) -> str:
    matches = difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
    hint = f"did you mean {matches[0]!r}? " if matches else ""
    return f"{hint}known: {', '.join(known)}"
