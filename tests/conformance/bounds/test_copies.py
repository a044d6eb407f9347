"""Copies of weights in a narrower format, folded and rounded here by NumPy, are within what is allowed."""

from __future__ import annotations

import narrow_network
import numpy as np
from narrow_network import picture, weights

from conformance.bounds import FLOAT16, INT8_OF_RANGE, OPENVINO, Declaration, copied_weights
from refimpl import record

RECORDING = record(narrow_network.network(np.float64), picture().astype(np.float64))


def test_halved_kernels_with_a_norm_folded_in_are_within_their_bound() -> None:
    copies = copied_weights(RECORDING, Declaration(weights=FLOAT16))
    names = [name for name in copies if name.endswith(".c.weight")]
    assert len(names) > 20
    for name in names:
        kernel = RECORDING.tensors[name]
        norm = {
            part: weights()[name.replace(".c.weight", f".bn.{part}")] for part in ("weight", "running_var")
        }
        factor = (norm["weight"] / np.sqrt(norm["running_var"] + np.float32(1e-5))).astype(np.float64)
        folded = kernel * factor.reshape(-1, 1, 1, 1)
        halved = folded.astype(np.float16).astype(np.float64)
        halved[np.abs(halved) < 2.0**-14] = 0
        error = np.abs(halved - folded) / np.abs(factor.reshape(-1, 1, 1, 1))
        assert (error <= copies[name] * 1.001).all(), name
        assert error.max() > 0.2 * copies[name].max()


def test_integers_of_a_range_with_a_norm_folded_in_are_within_their_bound() -> None:
    """From a zero point on, in steps that are halves, as NNCF's documentation has it."""
    copies = copied_weights(RECORDING, Declaration(weights=INT8_OF_RANGE, runtime=OPENVINO))
    names = [name for name in copies if name.endswith(".c.weight")]
    assert len(names) > 20
    assert not any(".bn." in name or RECORDING.tensors[name].ndim < 2 for name in copies)
    for name in names:
        norm = {
            part: weights()[name.replace(".c.weight", f".bn.{part}")] for part in ("weight", "running_var")
        }
        factor = (norm["weight"] / np.sqrt(norm["running_var"] + np.float32(1e-5))).astype(np.float64)
        factor = factor.reshape(-1, 1, 1, 1)
        folded = RECORDING.tensors[name] * factor
        low, high = (end(folded, axis=(1, 2, 3), keepdims=True, initial=0) for end in (np.min, np.max))
        step = (high - low) / 255
        point = np.rint(-low / step)
        integers = np.clip(np.rint(folded / step) + point, 0, 255)
        error = np.abs((integers - point) * step.astype(np.float16) - folded) / np.abs(factor)
        assert (error <= copies[name] * 1.001).all(), name
        assert error.max() > 0.5 * copies[name].max()


def test_matrices_that_are_no_parameters_are_copied_too() -> None:
    """Pooling of uneven windows multiplies by one from either side; steps are of rows, or of columns."""
    copies = copied_weights(RECORDING, Declaration(weights=INT8_OF_RANGE, runtime=OPENVINO))
    products = [step for step in RECORDING.steps if step.operation == "MatMul"]
    found = [(name, side) for step in products for side, name in enumerate(step.inputs)]
    found = [(name, side) for name, side in found if name in RECORDING.constants]
    assert {side for _, side in found} == {0, 1}
    for name, side in found:
        matrix = RECORDING.tensors[name]
        step = ((np.max(matrix, 1 - side, keepdims=True) - 0) / 255).astype(np.float16).astype(np.float64)
        error = np.abs(np.rint(matrix / np.where(step, step, 1)) * step - matrix)
        assert (error <= copies[name] * 1.001).all(), name
        assert copies[name].max() < 0.01 * matrix.max()


def test_vectors_of_norms_stay_exact_and_nothing_is_allowed_undeclared() -> None:
    copies = copied_weights(RECORDING, Declaration(weights=FLOAT16))
    assert not any(".bn." in name or "norm" in name for name in copies)
    assert copied_weights(RECORDING, Declaration()) == {}


def test_a_declaration_says_what_its_weights_are() -> None:
    assert "with weights of float16" in str(Declaration(weights=FLOAT16))
