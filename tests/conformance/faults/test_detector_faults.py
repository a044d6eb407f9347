"""Mistakes that people make in porting the paper's rivals: put into them, found at the step and named."""

from __future__ import annotations

import numpy as np
import pytest

import conformance
from conformance.evidence.fault_score import RIVALS, Task, case, trial
from conformance.faults import CATALOGUE, injections
from refimpl import ops
from refimpl.errors import VerificationError

pytestmark = pytest.mark.usefixtures("small_backbones")
OF_REGIONS = {name for name in CATALOGUE if name.startswith("detector/")} & {
    fault.name for fault in CATALOGUE.values() if {"RoiAlign", "ConvTranspose"} & set(fault.operators)
}
"""Of Mask R-CNN's second stage, which is a graph of its own."""
PLACES = [
    ("solov2-lite-r18", "detector/coordinates y before x", 0),
    ("solov2-lite-r18", "detector/coordinates y before x", -1),
    ("solov2-lite-r18", "detector/coordinates in another range", 1),
    ("solov2-lite-r18", "detector/coordinates after resizing", 0),
    ("solov2-lite-r18", "detector/coarsest level by a window", 0),
    ("solov2-lite-r18", "detector/norm of other groups", 1),
    ("solov2-lite-r18", "detector/group norm epsilon", -1),
    ("condinst-topformer-base", "detector/aligned bilinear as plain", 0),
    ("condinst-topformer-base", "detector/aligned bilinear as plain", -1),
    ("condinst-topformer-base", "detector/scale of the level missing", 2),
    ("condinst-topformer-base", "detector/distances by exponent", 0),
    ("yolact-topformer-base", "detector/priors after their numbers", 1),
    ("yolact-topformer-base", "detector/sigmoid instead of tanh", -1),
    ("maskrcnn-r50", "detector/stride in the other convolution", 0),
]
"""Network, fault, and which of its places there."""


@pytest.mark.parametrize(("network", "fault", "number"), PLACES)
def test_it_is_detected_localised_and_named(network: str, fault: str, number: int) -> None:
    count = len(injections(CATALOGUE[fault], case(network).graph))
    result = trial(Task(network, fault, number % count))
    assert not result.harmless
    assert result.detected
    assert result.blamed == result.expected
    assert fault in result.diagnoses


def test_every_detector_fault_has_a_place() -> None:
    detectors = {name for name in CATALOGUE if name.startswith("detector/")}
    assert {fault for _, fault, _ in PLACES} == detectors - OF_REGIONS
    assert {network for network, *_ in PLACES} == set(RIVALS)


@pytest.mark.parametrize(
    ("network", "step"),
    [("yolact-topformer-base", "prediction_layers.0/Tanh"), ("condinst-topformer-base", "fcos_head/Relu")],
)
def test_an_activation_missing_before_an_output_is_named(network: str, step: str) -> None:
    """What it would have made is in no tensor of the candidate but the levels put together."""
    fault = CATALOGUE["activation/missing"]
    places = [item.call.name for item in injections(fault, case(network).graph)]
    result = trial(Task(network, fault.name, next(i for i, name in enumerate(places) if step in name)))
    assert result.blamed == result.expected
    assert result.diagnoses[:1] == (fault.name,)


REGIONS = {
    "coordinate_transformation_mode": "output_half_pixel",
    "output_height": 3,
    "output_width": 4,
    "sampling_ratio": 2,
    "spatial_scale": 0.25,
}


@pytest.mark.parametrize(
    ("fault", "otherwise"),
    [
        ("detector/half a pixel in RoIAlign", {"coordinate_transformation_mode": "half_pixel"}),
        ("detector/samples of RoIAlign", {"sampling_ratio": 1}),
        ("detector/samples of RoIAlign", {"sampling_ratio": 0}),
        ("detector/samples of RoIAlign", {"mode": "max"}),
        ("detector/regions in another level's pixels", {"spatial_scale": 0.125}),
        ("detector/regions in another level's pixels", {"spatial_scale": 1.0}),
    ],
)
def test_regions_sampled_otherwise_are_named(fault: str, otherwise: dict[str, object]) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 2, 16, 24), dtype=np.float32)
    corners = rng.uniform(2, 20, (3, 2))
    regions = np.concatenate([corners, corners + rng.uniform(10, 40, (3, 2))], axis=1).astype(np.float32)
    operands = x, regions, np.zeros(3, np.int64)
    right = ops.roi_align(*operands, **REGIONS)
    conformance.assert_within(right, "RoiAlign", *operands, **REGIONS)
    wrong = ops.roi_align(*operands, **{**REGIONS, **otherwise})
    with pytest.raises(VerificationError, match=fault):
        conformance.assert_within(wrong, "RoiAlign", *operands, **REGIONS)


@pytest.mark.parametrize("kernel", ["flipped", "height and width"])
def test_a_transposed_kernel_otherwise_is_named(kernel: str) -> None:
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(shape, dtype=np.float32) for shape in ((1, 4, 5, 6), (4, 3, 2, 2)))
    turned = weight[..., ::-1, ::-1] if kernel == "flipped" else weight.swapaxes(2, 3)
    wrong = ops.conv_transpose(x, np.ascontiguousarray(turned), strides=(2, 2))
    with pytest.raises(VerificationError, match="detector/transposed kernel flipped"):
        conformance.assert_within(wrong, "ConvTranspose", x, weight, strides=(2, 2))
