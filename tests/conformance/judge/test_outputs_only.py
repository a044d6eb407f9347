"""What is said of wrong outputs where nothing else is seen: the picture that was fed, or up to where."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from narrow_network import CONFIG, network, picture, weights

from conformance.candidates.plain import PythonCandidate
from conformance.judge.network import verify
from conformance.reports.report import InputReport
from refimpl import MobileInst, Weights
from refimpl.ops.operation import Array

pytestmark = pytest.mark.usefixtures("small_backbones")

MEAN = np.array([123.675, 116.28, 103.53]).reshape(-1, 1, 1)
STD = np.array([58.395, 57.12, 57.375]).reshape(-1, 1, 1)
"""Of ImageNet, 255 times torchvision's 0.485, 0.456, 0.406 and 0.229, 0.224, 0.225."""


def judged(run: Callable[[Array], dict[str, Array]]) -> InputReport:
    """Return the verdict on a function of the pictures, on one."""
    report = verify(PythonCandidate(run), CONFIG, weights(), {"scene": picture()}, resized={})
    return report.inputs[0]


def outputs(images: Array, net: MobileInst | None = None) -> dict[str, Array]:
    """Return what the network gives."""
    return dict((net or network())(np.ascontiguousarray(images, np.float32)).items())


def values(images: Array) -> Array:
    """Return the picture's values, 0 to 255."""
    return images * STD + MEAN


EXCHANGED = "with red and blue exchanged, then its values from 0 to 255"
FED: list[tuple[Callable[[Array], Array], str]] = [
    (lambda x: x[:, ::-1], "with red and blue exchanged"),
    (lambda x: (values(x)[:, ::-1] - MEAN) / STD, f"{EXCHANGED} normalised"),
    (lambda x: values(x)[:, ::-1] / 255, f"{EXCHANGED} divided by 255"),
    (values, "with its values from 0 to 255 as they are"),
    (lambda x: values(x) / 255, "with its values from 0 to 255 divided by 255"),
    (lambda x: values(x) / 127.5 - 1, "with its values from 0 to 255 divided by 127.5, less 1"),
    (lambda x: x[..., ::-1], "mirrored"),
    (lambda x: x.transpose(0, 2, 3, 1).reshape(x.shape), "laid out NHWC, read as NCHW"),
]


@pytest.mark.parametrize(("fed", "said"), FED, ids=[said for _, said in FED])
def test_another_picture_is_named(fed: Callable[[Array], Array], said: str) -> None:
    report = judged(lambda images: outputs(fed(images.astype(np.float64))))
    assert report.verdict == "fail"
    assert report.likely == f"the picture that was fed is the right one {said}"
    assert report.first_fault is not None
    assert report.first_fault.operation == "Conv"
    assert "stem" in report.first_fault.step


def altered(part: str) -> MobileInst:
    """Return the network with a kernel half as large again."""
    changed = dict(weights().items())
    name = next(name for name, array in changed.items() if part in name and array.ndim == 4)
    changed[name] = changed[name] * np.float32(1.5)
    return MobileInst(CONFIG, Weights(changed))


def test_a_wrong_weight_is_no_other_picture() -> None:
    net = altered("backbone.tpm.layer")
    report = judged(lambda images: outputs(images, net))
    assert report.verdict == "fail"
    (said,) = report.evidence
    assert said.startswith(f"one mistake that explains {len(report.outputs)} wrong outputs is at backbone.")


def test_what_right_outputs_are_computed_of_is_right() -> None:
    """The mask features are computed of the backbone's, and by the mask decoder alone."""
    right = outputs(picture())
    wrong = [name for name in right if name != "mask_features"]
    assert len(wrong) > 1

    def run(images: Array) -> dict[str, Array]:
        made = outputs(images)
        return {**made, **{name: made[name] * np.float32(1.1) for name in wrong}}

    report = judged(run)
    assert {row.name for row in report.outputs if row.verdict == "fail"} == {*wrong}
    assert all("picture" not in said for said in report.evidence)
    assert any("is at instance_decoder." in said for said in report.evidence)
