"""The official ONNX node cases of every operator in the vocabulary, as they are and again in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx_cases_left_out import (
    LEFT_OUT,
    LEFT_OUT_IN_FLOAT64,
    OPERATORS_LEFT_OUT,
    WITHOUT_CASES,
    official_cases,
    reasons,
    table,
)

from conformance.graph.onnx_backend import ReferenceBackend
from refimpl.errors import MobileInstError
from refimpl.ops import OPERATIONS

LISTED = {name for names in LEFT_OUT.values() for name in names.split()}
LISTED_IN_FLOAT64 = {name for names in LEFT_OUT_IN_FLOAT64.values() for name in names.split()}


def _arrays(values: Any) -> list[np.ndarray]:
    return [
        numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)
        for value in values
    ]


def _floats(arrays: list[np.ndarray]) -> set[str]:
    """Return the names of the types that are not integers or booleans, NumPy's and others'."""
    return {array.dtype.name for array in arrays if array.dtype.kind not in "iub"}


def _is_float32(case: TestCase) -> bool:
    return all(_floats(_arrays([*inputs, *outputs])) == {"float32"} for inputs, outputs in case.data_sets)


CASES = official_cases()
REASONS = reasons(CASES)
RUN = sorted(set(CASES) - set(REASONS))
RUN_IN_FLOAT64 = [name for name in RUN if _is_float32(CASES[name]) and name not in LISTED_IN_FLOAT64]


def _check(case: TestCase, dtype: type[np.float64] | None) -> None:
    prepared = ReferenceBackend.prepare(case.model, dtype=dtype)
    for inputs, outputs in case.data_sets:
        given = _arrays(inputs)
        if dtype is not None:
            given = [array.astype(dtype) if array.dtype == np.float32 else array for array in given]
        for actual, expected in zip(prepared.run(given), _arrays(outputs), strict=True):
            wide = dtype is not None and expected.dtype == np.float32
            assert actual.dtype == (dtype if wide else expected.dtype)
            assert actual.shape == expected.shape
            np.testing.assert_allclose(actual, expected, rtol=case.rtol, atol=case.atol)


@pytest.mark.parametrize("name", RUN)
def test_official_case(name: str) -> None:
    _check(CASES[name], None)


@pytest.mark.parametrize("name", RUN_IN_FLOAT64)
def test_official_case_in_float64(name: str) -> None:
    _check(CASES[name], np.float64)


def test_every_operation_has_an_official_case() -> None:
    covered = {node.op_type for name in RUN for node in CASES[name].model.graph.node}
    assert set(OPERATIONS) - covered == WITHOUT_CASES


def test_listed_cases_exist() -> None:
    assert not sorted((LISTED | LISTED_IN_FLOAT64) - set(CASES)), "no longer in ONNX: remove from the list"


def test_the_document_says_which_cases_are_left_out() -> None:
    assert table(CASES) in (Path(__file__).parents[3] / "docs" / "vocabulary.md").read_text()


def test_operators_left_out_have_cases() -> None:
    used = {node.op_type for name in REASONS for node in CASES[name].model.graph.node}
    assert {name for names in OPERATORS_LEFT_OUT.values() for name in names.split()} <= used


@pytest.mark.parametrize("name", sorted(REASONS))
def test_listed_case_cannot_be_run(name: str) -> None:
    with pytest.raises((MobileInstError, AssertionError, TypeError)):
        _check(CASES[name], None)


@pytest.mark.parametrize("name", sorted(LISTED_IN_FLOAT64 & set(CASES)))
def test_listed_case_differs_in_float64(name: str) -> None:
    with pytest.raises(AssertionError):
        _check(CASES[name], np.float64)


def test_run_node() -> None:
    node = onnx.helper.make_node("LayerNormalization", ["x", "scale"], ["y"], axis=-1)
    x = np.array([[1.0, 3.0], [-2.0, 2.0]])
    (y,) = ReferenceBackend.run_node(node, [x, np.ones(2)])
    np.testing.assert_allclose(y, [[-1, 1], [-1, 1]], rtol=1e-4)


def test_supports_the_cpu_only() -> None:
    assert ReferenceBackend.supports_device("CPU")
    assert not ReferenceBackend.supports_device("CUDA")


def test_compatible_with_the_vocabulary_only() -> None:
    def model(operator: str) -> onnx.ModelProto:
        x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2])
        y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2])
        graph = onnx.helper.make_graph([onnx.helper.make_node(operator, ["x"], ["y"])], "one", [x], [y])
        return onnx.helper.make_model(graph)

    assert ReferenceBackend.is_compatible(model("Relu"))
    assert not ReferenceBackend.is_compatible(model("StringNormalizer"))
