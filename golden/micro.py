"""Widths of the small networks in the set: every path of the published ones, few channels."""

from __future__ import annotations

from refimpl.config import MobileInstConfig
from refimpl.mobilenet import MobileNetSpec
from refimpl.resnet import ResNetSpec
from refimpl.seaformer import SeaFormerSpec
from refimpl.topformer import TopFormerSpec

MICRO_TOPFORMER = TopFormerSpec(
    rows=(
        (3, 1, 2, 1),
        (3, 2, 3, 2),
        (3, 2, 3, 1),
        (5, 2, 5, 2),
        (5, 2, 5, 1),
        (3, 2, 6, 2),
        (3, 2, 6, 1),
        (5, 2, 8, 2),
        (5, 2, 8, 1),
    ),
    taps=(2, 4, 6, 8),
    heads=2,
    stem=2,
)
MICRO_SEAFORMER = SeaFormerSpec(
    stages=(
        ((3, 1, 2, 1), (3, 2, 3, 2), (3, 2, 3, 1)),
        ((5, 2, 5, 2), (5, 2, 5, 1)),
        ((3, 2, 6, 2), (3, 2, 6, 1)),
        ((5, 2, 8, 2),),
        ((3, 2, 12, 2),),
    ),
    stem=2,
    depths=(1, 1),
    key_channels=(4, 6),
    mlp_ratios=(2, 4),
    heads=2,
)
MICRO_RESNET = ResNetSpec(stem=3, stages=((2, 1), (3, 1), (4, 2), (5, 2)))
MICRO_RESNET18 = ResNetSpec(stem=3, stages=((3, 1), (4, 1), (5, 2), (6, 1)), basic=True)
MICRO_MOBILENET = MobileNetSpec(
    stem=2, rows=((1, 2, 1, 1), (2, 3, 2, 2), (2, 4, 1, 2), (2, 5, 2, 2), (2, 6, 1, 2))
)
MICRO = MobileInstConfig(backbone="topformer-tiny", num_classes=5, num_queries=6, dim=8, num_heads=2)
MICRO_SPARSEINST = MobileInstConfig(
    architecture="sparseinst",
    backbone="topformer-tiny",
    num_classes=5,
    num_queries=4,
    dim=8,
    kernel_dim=4,
    mask_convs=1,
)
MICRO_CONDINST = MobileInstConfig(
    architecture="condinst",
    backbone="resnet50-caffe",
    num_classes=3,
    dim=4,
    head_convs=1,
    mask_dim=4,
    kernel_dim=2,
    norm_groups=2,
)
MICRO_YOLACT = MobileInstConfig(
    architecture="yolact",
    backbone="topformer-tiny",
    num_classes=2,
    dim=4,
    head_dim=4,
    mask_dim=4,
    kernel_dim=3,
)
MICRO_MASKRCNN = MobileInstConfig(
    architecture="maskrcnn",
    backbone="resnet50",
    num_classes=1,
    dim=2,
    head_dim=4,
    mask_dim=2,
)
MICRO_SOLOV2 = MobileInstConfig(
    architecture="solov2",
    backbone="resnet18",
    num_classes=3,
    dim=6,
    head_dim=8,
    head_convs=1,
    mask_dim=4,
    kernel_dim=4,
    grids=(5, 4, 3, 2, 1),
    norm_groups=2,
)
