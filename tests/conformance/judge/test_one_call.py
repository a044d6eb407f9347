"""`conformance.assert_within` beside what others compute: SciPy, NumPy in float32, PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal, special

from conformance import assert_within
from refimpl import ops
from refimpl.errors import ConfigurationError, UnsupportedOperationError, VerificationError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((1, 1, 10, 12)).astype(np.float32)
W = RNG.standard_normal((1, 1, 3, 3)).astype(np.float32)
B = np.float32([0.5])
SAME = (1, 1, 1, 1)
Y = signal.correlate2d(X[0, 0], W[0, 0], "same")[None, None] + B


def test_what_scipy_computes_is_within() -> None:
    assert_within(Y, "Conv", X, W, B, pads=SAME)
    assert_within(Y, ops.conv, X, W, B, pads=SAME)
    assert_within(special.softmax(X, axis=-1), "Softmax", X, axis=-1)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (Y * np.float32(1.01), "1.01 × the right one"),
        (Y - B, "The bias is left out"),
        (Y[..., ::-1], "reversed"),
        (np.where(np.arange(12) == 7, Y + np.float32(0.001), Y), "10 of 120 elements (8.3%)"),
    ],
)
def test_what_is_wrong_is_said(wrong: np.ndarray, said: str) -> None:
    with pytest.raises(AssertionError) as caught:
        assert_within(wrong, "Conv", X, W, B, pads=SAME)
    message = str(caught.value)
    assert message.startswith("Conv in float32: ")
    assert said in message
    assert "operands              float32[1, 1, 10, 12], float32[1, 1, 3, 3], float32[1]" in message


def test_the_place_is_named() -> None:
    wrong = Y.copy()
    wrong[0, 0, 3, 4] += 0.01
    with pytest.raises(VerificationError, match=r"1 of 120 elements[^$]* at \[0, 0, 3, 4\]"):
        assert_within(wrong, "Conv", X, W, B, pads=SAME)


def test_half_precision_is_declared() -> None:
    half = Y.astype(np.float16)
    assert_within(half, "Conv", X, W, B, pads=SAME, storage="float16")
    with pytest.raises(VerificationError):
        assert_within(half, "Conv", X, W, B, pads=SAME)


def test_shapes_and_numbers_that_are_none() -> None:
    with pytest.raises(VerificationError, match=r"shape \(120,\), expected \(1, 1, 10, 12\)"):
        assert_within(Y.ravel(), "Conv", X, W, B, pads=SAME)
    with pytest.raises(VerificationError, match="120 of 120"):
        assert_within(np.full_like(Y, np.nan), "Conv", X, W, B, pads=SAME)


def test_an_array_within_a_bound() -> None:
    assert_within(Y + np.float32(0.01), Y, bound=0.02)
    with pytest.raises(VerificationError, match="120 of 120"):
        assert_within(Y + np.float32(0.03), Y, bound=0.02)


@pytest.mark.parametrize("operation", ["Convolve", np.sum, Y])
def test_what_is_no_operation_is_refused(operation: object) -> None:
    with pytest.raises(ConfigurationError):
        assert_within(Y, operation, X)  # type: ignore[arg-type]


def test_a_format_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no format 'float8'"):
        assert_within(X, "Softmax", X, arithmetic="float8")


def test_what_has_no_bound_is_refused() -> None:
    y, sizes = np.zeros((1, 1, 20, 24)), np.array([1, 1, 20, 24])
    with pytest.raises(UnsupportedOperationError, match="nothing bounds Resize"):
        assert_within(y, "Resize", X, None, None, sizes, mode="cubic", exclude_outside=1)


@pytest.mark.runtimes
def test_corners_aligned_by_pytorch_are_named() -> None:
    torch = pytest.importorskip("torch")
    y = torch.nn.functional.interpolate(
        torch.from_numpy(X), (20, 24), mode="bilinear", align_corners=True
    ).numpy()
    sizes = np.array([1, 1, 20, 24])
    assert_within(
        y, "Resize", X, None, None, sizes, mode="linear", coordinate_transformation_mode="align_corners"
    )
    with pytest.raises(VerificationError, match="resize/corners aligned"):
        assert_within(y, "Resize", X, None, None, sizes, mode="linear")
