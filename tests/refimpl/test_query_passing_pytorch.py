"""Temporal query passing against the network written independently with PyTorch's modules, in float64."""

from __future__ import annotations

import numpy as np
import pytest

from refimpl import MobileInst, MobileInstConfig, Weights
from refimpl.query_passing import passed_masks

pytestmark = pytest.mark.runtimes
torch = pytest.importorskip("torch")

from golden.sources import independent  # noqa: E402
from golden.sources.independent.instance_decoder import LocalFeatures  # noqa: E402
from golden.sources.independent.weights import load  # noqa: E402

FIELDS = {"dim": 64, "num_queries": 9}


@pytest.mark.parametrize("pooling", ["none", "max8", "avg8"])
@pytest.mark.parametrize("local_layers", [1, 2])
def test_passed_masks_are_pytorchs(pooling, local_layers):
    fields = {**FIELDS, "local_pooling": pooling, "local_layers": local_layers}
    config = MobileInstConfig.preset("topformer-tiny", **fields)
    weights = Weights.seeded(config, seed=1).astype(np.float64)
    reference, theirs = (
        MobileInst(config, weights),
        load(independent.MobileInst("topformer-tiny", **fields), weights),
    )
    images = np.random.default_rng(0).normal(size=(2, 2, 3, 64, 128))
    ours = [reference(frame) for frame in images]
    with torch.no_grad():
        first, second = (theirs(torch.from_numpy(frame)) for frame in images)
        decoder = theirs.instance_decoder
        local = LocalFeatures(pooling)(second.mask_features)
        queries = decoder.decode(first.global_queries, local, decoder.local_decoder)
        expected = torch.einsum("bnd,bdhw->bnhw", decoder.kernel_head(queries), second.mask_features).numpy()
    result = passed_masks(reference, ours[0].global_queries, ours[1].mask_features)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-10 * np.abs(expected).max())
    assert np.abs(result - ours[1].masks).max() > 1e-3 * np.abs(expected).max()
