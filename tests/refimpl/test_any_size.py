"""Inputs that the paper would pad are computed as they are, equal to the independent modules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from refimpl import MobileInst, MobileInstConfig, Weights

torch = pytest.importorskip("torch")

from golden.sources import independent  # noqa: E402
from golden.sources.independent.weights import load  # noqa: E402

pytestmark = pytest.mark.runtimes


@pytest.mark.parametrize("preset", ["topformer-tiny", "seaformer-base", "sparseinst-topformer-tiny"])
@pytest.mark.parametrize("size", [(104, 184), (97, 131)])
def test_any_size_equals_the_independent_network(preset: str, size: tuple[int, int]) -> None:
    fields: dict[str, Any] = {"dim": 32, "num_queries": 8}
    config = MobileInstConfig.preset(preset, **fields)
    weights = Weights.seeded(config, 0).astype(np.float64)
    module: Any = (
        independent.SparseInst("topformer-tiny", **fields)
        if config.architecture == "sparseinst"
        else independent.MobileInst(preset, **fields)
    )
    images = np.random.default_rng(1).normal(size=(1, 3, *size))
    theirs = load(module, weights)(torch.from_numpy(images))
    for name, ours in MobileInst(config, weights)(images).items():
        np.testing.assert_allclose(ours, getattr(theirs, name).numpy(), rtol=0, atol=1e-11)
