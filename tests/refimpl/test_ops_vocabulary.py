"""The vocabulary as a whole: its names, documentation, and signatures against ONNX's own operator schemas."""

from __future__ import annotations

import inspect
import re
from typing import Any

import numpy as np
import onnx
import pytest

from refimpl import ops
from refimpl.ops import OPERATIONS

PUBLIC = {name: getattr(ops, name) for name in ops.__all__}
EXPORTED = {inspect.unwrap(function): name for name, function in PUBLIC.items() if callable(function)}

# `conformance.graph.opset` turns the other ways of writing a constant into ``value``.
ABSENT = {
    "Constant": {"sparse_value", "value_float", "value_floats", "value_int", "value_ints"}
    | {"value_string", "value_strings"}
}


def test_every_operation_is_exported_and_listed_in_the_documentation() -> None:
    listed = set(re.findall(r"\w+", ops.__doc__ or ""))
    names = {EXPORTED[function] for function in OPERATIONS.values()}
    assert names <= listed


@pytest.mark.parametrize("operator", sorted(OPERATIONS))
def test_the_name_is_onnxs_in_snake_case_or_documented(operator: str) -> None:
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", operator).lower()
    name = EXPORTED[OPERATIONS[operator]]
    same = name.replace("_", "") == snake.replace("_", "")
    assert (
        same or f"`{name}` {operator}" in re.sub(r"\s+", " ", ops.__doc__ or "") or name == f"logical_{snake}"
    )


@pytest.mark.parametrize("operator", sorted(OPERATIONS))
def test_attributes_and_defaults_are_onnxs(operator: str) -> None:
    schema = onnx.defs.get_schema(operator)
    parameters = inspect.signature(OPERATIONS[operator]).parameters.values()
    ours = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert set(ours) == set(schema.attributes) - ABSENT.get(operator, set())
    for name, attribute in schema.attributes.items():
        if name in ours:
            _check_default(ours[name], attribute)


def _check_default(ours: Any, attribute: Any) -> None:
    required = ours is inspect.Parameter.empty
    if attribute.default_value.type == onnx.AttributeProto.UNDEFINED:
        # Constant's value is one of several optional attributes in ONNX, here the only one.
        assert required if attribute.required else required == (attribute.name == "value") or ours is None
        return
    value = onnx.helper.get_attribute_value(attribute.default_value)
    value = value.decode() if isinstance(value, bytes) else value
    if isinstance(value, list):
        value = tuple(each.decode() if isinstance(each, bytes) else each for each in value)
    assert ours == (pytest.approx(value, rel=1e-7) if isinstance(value, float) else value)


@pytest.mark.parametrize("operator", sorted(OPERATIONS))
def test_operands_are_as_many_as_onnxs(operator: str) -> None:
    schema = onnx.defs.get_schema(operator)
    parameters = inspect.signature(OPERATIONS[operator]).parameters.values()
    positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        assert schema.max_input > 100
        return
    assert len(positional) == schema.max_input
    assert sum(p.default is p.empty for p in positional) <= schema.min_input


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_python_numbers_and_tuples_are_operands(dtype: type[Any]) -> None:
    x = np.ones((1, 2, 4), dtype)
    for y in (
        ops.clip(ops.add(x, 0.1), 0.0, 6.0),
        ops.reshape(x, (1, 2, -1)),
        ops.slice_(x, (0,), (2,), (2,)),
        ops.pad(x, (0, 0, 1, 0, 0, 1), 0.5),
        ops.reduce_mean(x, (1,)),
        ops.expand(x, (3, 1, 1)),
        ops.top_k(x, 2)[0],
    ):
        assert y.dtype == dtype
