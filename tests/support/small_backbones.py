"""Backbones of the published kinds with fewer and narrower blocks: for what does not depend on how many."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from refimpl import topformer
from refimpl.backbone import BACKBONE_SPECS, BackboneSpec
from refimpl.mobilenet import MobileNetSpec
from refimpl.resnet import ResNetSpec
from refimpl.seaformer import SeaFormerSpec
from refimpl.topformer import TopFormerSpec

BLOCKS, PUBLISHED_BLOCKS = 1, topformer.TRANSFORMER_BLOCKS
TOPFORMER = TopFormerSpec(
    rows=((3, 1, 8, 1), (3, 4, 8, 2), (5, 3, 16, 2), (3, 3, 16, 1), (3, 3, 16, 2), (5, 3, 24, 2)),
    taps=(1, 3, 4, 5),
    heads=2,
    stem=8,
)
"""Its rows are of every kind: with and without an expansion, a shortcut, a stride."""
SEAFORMER = SeaFormerSpec(
    stages=(
        ((3, 1, 8, 1), (3, 4, 8, 2)),
        ((5, 3, 16, 2), (5, 3, 16, 1)),
        ((3, 3, 16, 2),),
        ((5, 3, 16, 2),),
        ((3, 3, 24, 2),),
    ),
    stem=8,
    depths=(1, 1),
    key_channels=(8, 8),
    mlp_ratios=(2, 2),
    heads=2,
)
MOBILENET = MobileNetSpec(
    stem=8, rows=((1, 8, 1, 1), (3, 8, 2, 2), (3, 16, 1, 2), (3, 16, 1, 2), (3, 16, 1, 1), (3, 24, 1, 2))
)


def small(spec: BackboneSpec) -> BackboneSpec:
    """Return a small one of a kind, which differs from others; every stage of a ResNet keeps a block."""
    if isinstance(spec, ResNetSpec):
        stages = tuple((width // 8, 1) for width, _ in spec.stages)
        return dataclasses.replace(spec, stem=spec.stem // 8, stages=stages)
    if isinstance(spec, TopFormerSpec):
        return dataclasses.replace(TOPFORMER, heads=spec.heads // 2)
    if isinstance(spec, SeaFormerSpec):
        return dataclasses.replace(SEAFORMER, heads=spec.heads // 2, stem=spec.stem // 2)
    return MOBILENET


PUBLISHED = dict(BACKBONE_SPECS)
SMALL = {name: small(spec) for name, spec in PUBLISHED.items()}


KEEPING = {
    "refimpl.forward": ("parameter_shapes",),
    "refimpl.weights.hint": ("_presets",),
    "conformance.evidence.false_alarms": ("network", "_exported"),
    "conformance.evidence.catalogue_networks": ("recording", "_rounding", "_allowed"),
    "conformance.evidence.fault_score": ("case",),
    "conformance.evidence.paper_costs": ("network_cost", "_region_macs"),
    "conformance.evidence.video_benchmark": ("_operations",),
}
"""Module → its functions of a configuration, or of all, that keep what they return."""


@contextmanager
def on_small_backbones(cache: Path | None = None) -> Iterator[None]:
    """Let every name of a backbone stand for a small one; what commands keep goes to a folder of its own."""
    with _stand_for(SMALL, BLOCKS, cache):
        yield


@contextmanager
def on_the_published(cache: Path) -> Iterator[None]:
    """Let the names stand for what they are the names of, among tests on small ones."""
    with _stand_for(PUBLISHED, PUBLISHED_BLOCKS, cache):
        yield


@contextmanager
def _stand_for(specs: dict[str, BackboneSpec], blocks: int, cache: Path | None) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, spec in specs.items():
            patch.setitem(BACKBONE_SPECS, name, spec)
        patch.setattr(topformer, "TRANSFORMER_BLOCKS", blocks)
        if cache is not None:
            patch.setenv("XDG_CACHE_HOME", str(cache))
        _forget()
        yield
    _forget()


def _forget() -> None:
    for module, names in KEEPING.items():
        for name in names if module in sys.modules else ():
            getattr(sys.modules[module], name).cache_clear()
