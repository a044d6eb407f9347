"""Pre- and postprocessing against PyTorch's interpolation, in the order of the public SparseInst code."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from refimpl.inference import place, postprocess, preprocess

pytestmark = pytest.mark.runtimes
torch = pytest.importorskip("torch")


def interpolated(x, size):
    return torch.nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=False)


@pytest.mark.parametrize("sizing", ["image", "video", "phone", "native"])
@pytest.mark.parametrize("size", [(1, 1), (240, 321), (500, 375)])
def test_preprocess_is_interpolation_and_normalisation(size, sizing):
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    images, placement = preprocess(picture, sizing)
    planes = torch.from_numpy(picture).double().permute(2, 0, 1)[None]
    mean = torch.tensor([123.675, 116.28, 103.53], dtype=torch.float64).view(1, 3, 1, 1)
    deviation = torch.tensor([58.395, 57.12, 57.375], dtype=torch.float64).view(1, 3, 1, 1)
    normalised = (interpolated(planes, placement.resized) - mean) / deviation
    bottom, right = (p - r for p, r in zip(placement.padded, placement.resized, strict=True))
    expected = torch.nn.functional.pad(normalised, (0, right, 0, bottom))
    np.testing.assert_allclose(images, expected.numpy(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("sizing", ["image", "phone"])
@pytest.mark.parametrize("size", [(1, 1), (240, 321), (500, 375)])
@pytest.mark.parametrize("stride", [4, 8])
def test_postprocess_is_sparseinsts(size, sizing, stride):
    placement, rng = place(*size, sizing), np.random.default_rng(1)
    given = SimpleNamespace(
        class_logits=2 * rng.normal(size=(1, 7, 5)),
        objectness=2 * rng.normal(size=(1, 7, 1)),
        masks=2 * rng.normal(size=(1, 7, placement.padded[0] // stride, placement.padded[1] // stride)),
    )
    result = postprocess(given, placement, keep_threshold=0.4)

    logits, objectness, masks = (torch.from_numpy(array[0]) for array in vars(given).values())
    scores, labels = torch.sqrt(logits.sigmoid() * objectness.sigmoid()).max(dim=-1)
    keep = scores > 0.4
    scores, labels, masks = scores[keep], labels[keep], masks[keep].sigmoid()
    above = (masks > 0.45).double()
    rescored = scores * ((masks * above).sum([1, 2]) / (above.sum([1, 2]) + 1e-6))
    masks = interpolated(masks[:, None], placement.padded)[
        :, :, : placement.resized[0], : placement.resized[1]
    ]
    masks = interpolated(masks, placement.original)[:, 0]

    np.testing.assert_array_equal(result.labels, labels.numpy())
    np.testing.assert_allclose(result.scores, rescored.numpy(), rtol=1e-12)
    np.testing.assert_array_equal(result.masks, masks.numpy() > 0.45)
