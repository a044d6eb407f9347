"""Quantisation against ONNX Runtime, and ties against exact fractions."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl import ops
from refimpl.errors import ShapeError, UnsupportedOperationError

INTEGERS = [np.int8, np.uint8, np.int16, np.uint16]


def _in_onnxruntime(
    operator: str, operands: list[np.ndarray], outputs: int = 1, **attributes: Any
) -> list[Any]:
    names = [f"x{i}" for i in range(len(operands))]
    made = [f"y{i}" for i in range(outputs)]
    info = onnx.helper.make_tensor_value_info
    declared = [
        info(name, onnx.helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in zip(names, operands, strict=True)
    ]
    node = onnx.helper.make_node(operator, names, made, **attributes)
    graph = onnx.helper.make_graph(
        [node], operator, declared, [onnx.ValueInfoProto(name=name) for name in made]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(zip(names, operands, strict=True))))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_halves_go_to_even_and_the_rest_saturates(dtype: type[Any]) -> None:
    limits = np.iinfo(dtype)
    halves = np.arange(limits.min - 3, limits.min + 9, 0.5)
    x = np.concatenate([halves, halves + limits.max - limits.min, [-1e9, 1e9, -np.inf, np.inf]])
    zero = np.zeros((), dtype)
    expected = [round(Fraction(v)) if np.isfinite(v) else v for v in x.tolist()]
    expected = [int(min(max(v, limits.min), limits.max)) for v in expected]
    for width in (np.float32, np.float64):
        y = ops.quantize_linear(x.astype(width), np.ones((), width), zero)
        assert y.dtype == dtype
        assert y.tolist() == expected


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("kind", ["tensor", "axis", "blocks"])
def test_there_and_back_as_onnxruntime(kind: str, dtype: type[Any]) -> None:
    rng = np.random.default_rng(3)
    x = (rng.normal(size=(3, 8, 5)) * 40).astype(np.float32)
    shape, attributes = {
        "tensor": ((), {}),
        "axis": ((8,), {"axis": 1}),
        "blocks": ((3, 2, 5), {"axis": 1, "block_size": 4}),
    }[kind]
    scale = rng.uniform(0.01, 0.5, size=shape).astype(np.float32)
    zero = rng.integers(0, 100, size=shape).astype(dtype)
    y = ops.quantize_linear(x, scale, zero, **attributes)
    (expected,) = _in_onnxruntime("QuantizeLinear", [x, scale, zero], **attributes)
    np.testing.assert_array_equal(y, expected)
    (back,) = _in_onnxruntime("DequantizeLinear", [y, scale, zero], **attributes)
    np.testing.assert_array_equal(ops.dequantize_linear(y, scale, zero, **attributes), back)


def test_blocks_that_do_not_divide_the_axis() -> None:
    x, scale = np.arange(5.0), np.array([1.0, 2.0, 4.0])
    y = ops.quantize_linear(x, scale, axis=0, block_size=2, output_dtype=3)
    assert y.tolist() == [0, 1, 1, 2, 1]


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=20).filter(any))
def test_dynamic_quantization_as_onnxruntime(values: list[float]) -> None:
    x = np.array(values, np.float32)
    if np.ptp(np.append(x, 0)) < 1e-30:
        return
    actual = ops.dynamic_quantize_linear(x)
    expected = _in_onnxruntime("DynamicQuantizeLinear", [x], outputs=3)
    np.testing.assert_allclose(actual[1], expected[1], rtol=1e-6)
    assert abs(int(actual[2]) - int(expected[2])) <= 1
    assert np.max(np.abs(actual[0].astype(int) - expected[0].astype(int))) <= 1


def test_int32_biases_and_wide_scales() -> None:
    bias = np.array([2**30, -(2**30) + 1], np.int32)
    np.testing.assert_array_equal(ops.dequantize_linear(bias, np.array(0.5)), bias / 2)
    assert ops.dequantize_linear(bias, np.float32([0.5])).dtype == np.float32


def test_misuse_is_named() -> None:
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(ShapeError, match="per block"):
        ops.quantize_linear(x, np.ones(4, np.float32), np.zeros(4, np.int8))
    with pytest.raises(UnsupportedOperationError, match="8 or 16"):
        ops.quantize_linear(x, np.ones((), np.float32), np.zeros((), np.int32))
