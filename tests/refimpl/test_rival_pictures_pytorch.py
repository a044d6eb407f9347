"""Inputs of Mask R-CNN beside torchvision's own transform, of YOLACT beside PyTorch's interpolation."""

from __future__ import annotations

import numpy as np
import pytest

from refimpl import MobileInstConfig
from refimpl.inference import preprocess
from refimpl.rival_pictures import preparation_of

torch = pytest.importorskip("torch")

from conformance.evidence.architectures import import_torchvision  # noqa: E402

pytestmark = pytest.mark.runtimes


@pytest.mark.parametrize("size", [(48, 65), (90, 41), (100, 200), (37, 37)])
def test_mask_rcnns_are_torchvisions(size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    import_torchvision()
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

    transform = (
        GeneralizedRCNNTransform(800, 1333, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]).double().eval()
    )
    images, _ = transform([torch.from_numpy(picture).permute(2, 0, 1).double() / 255])
    ours, placement = preprocess(picture, preparation=preparation_of(MobileInstConfig.preset("maskrcnn-r50")))
    assert placement.resized == images.image_sizes[0]
    np.testing.assert_allclose(ours, images.tensors.numpy(), rtol=0, atol=1e-10)


def test_yolacts_are_interpolated() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    planes = torch.from_numpy(picture).double().permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(planes, (550, 550), mode="bilinear", align_corners=False)
    mean, deviation = (
        torch.tensor(numbers, dtype=torch.float64).view(1, 3, 1, 1)
        for numbers in ((123.68, 116.78, 103.94), (58.40, 57.12, 57.38))
    )
    ours, _ = preprocess(picture, preparation=preparation_of(MobileInstConfig.preset("yolact-r50")))
    np.testing.assert_allclose(ours, ((resized - mean) / deviation).numpy(), rtol=0, atol=1e-10)
