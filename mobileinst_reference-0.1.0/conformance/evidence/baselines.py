"""The customary comparisons with fixed tolerances, at their defaults: what the judge is measured beside."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from refimpl.ops.operation import Array

Close = Callable[[Array, Array], bool]


def _numpy(values: Array, reference: Array) -> bool:
    return bool(np.allclose(values, reference))


def _pytorch(values: Array, reference: Array) -> bool:
    return bool(np.allclose(values, reference, rtol=1.3e-6, atol=1e-5))


def _polygraphy(values: Array, reference: Array) -> bool:
    error = np.abs(values - reference)
    # Either tolerance suffices there.
    return bool(np.all((error <= 1e-5) | (error <= 1e-5 * np.abs(reference))))


def _onnx(values: Array, reference: Array) -> bool:
    return bool(np.allclose(values, reference, rtol=1e-3, atol=1e-7))


BASELINES: dict[str, Close] = {
    "NumPy": _numpy,
    "PyTorch": _pytorch,
    "Polygraphy": _polygraphy,
    "ONNX": _onnx,
}
"""Name → whether two float32 arrays of one shape are close.

``numpy.allclose``: rtol 1e-5, atol 1e-8; ``torch.testing.assert_close`` of float32: 1.3e-6, 1e-5;
``polygraphy run``: 1e-5 or 1e-5; ``onnx.backend.test``: 1e-3, 1e-7.
"""


def alarms(outputs: Mapping[str, Array], reference: Mapping[str, Array]) -> dict[str, bool]:
    """Tell of each baseline whether it finds any output wrong."""
    return {
        name: not all(_agrees(close, outputs.get(key), expected) for key, expected in reference.items())
        for name, close in BASELINES.items()
    }


def _agrees(close: Close, values: Array | None, expected: Array) -> bool:
    if values is None or values.shape != expected.shape:
        return False
    with np.errstate(invalid="ignore", over="ignore"):
        return close(values, expected.astype(values.dtype))
