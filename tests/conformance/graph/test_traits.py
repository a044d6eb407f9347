"""What operations declare of themselves, held against the calls of ONNX's official node cases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper
from onnx_cases_left_out import LEFT_OUT, WITHOUT_CASES, official_cases

from conformance.graph.evaluation import evaluate_node
from conformance.graph.onnx_graph import OnnxGraph
from refimpl.errors import MobileInstError
from refimpl.graph import Node
from refimpl.ops import OPERATIONS, TRAITS, Trait, having
from refimpl.ops.operation import Array

LISTED = {name for names in LEFT_OUT.values() for name in names.split()}
Call = tuple[Node, list[Any]]


@cache
def _calls() -> dict[str, list[Call]]:
    """Return the official calls of each operator, node and operands, floats in float32."""
    found: dict[str, list[Call]] = {name: [] for name in OPERATIONS}
    # ONNX's cases of Not are of operator set 1.
    found["Not"].append((Node("not", "Not", ("x",), ("y",)), [np.array([True, False])]))
    for case in official_cases().values():
        if case.name not in LISTED and len(case.model.graph.node) == 1:
            for call in _of_case(case):
                found[call[0].op_type].append(call)
    return found


def _of_case(case: Any) -> Iterator[Call]:
    try:
        graph = OnnxGraph.load(case.model)
    except MobileInstError:
        return
    if len(graph.nodes) != 1 or graph.nodes[0].op_type not in OPERATIONS:
        return  # control flow is no operation: what is in its subgraphs is
    for inputs, _ in case.data_sets:
        arrays = [numpy_helper.to_array(x) if isinstance(x, TensorProto) else np.asarray(x) for x in inputs]
        known = {**graph.initializers, **dict(zip(graph.inputs, arrays, strict=True))}
        if all(x.dtype.kind in "fiub" for x in known.values()):
            yield graph.nodes[0], [_narrow(x) for x in graph.nodes[0].operands(known)]


def _narrow(x: Any) -> Any:
    return x.astype(np.float32) if _is_float(x) else x


Check = Callable[[Node, list[Any], np.random.Generator], None]


def holds_of_all(trait: Trait) -> Any:
    """Run a check on every official call of every operator with a trait, with other floats in it."""

    def decorate(check: Check) -> Any:
        @pytest.mark.parametrize("op_type", sorted(having(trait)))
        @settings(deadline=None, max_examples=10)
        @given(seed=st.integers(0, 2**32 - 1))
        def test(op_type: str, seed: int) -> None:
            rng = np.random.default_rng(seed)
            for node, operands in _calls()[op_type]:
                # Of Resize, all but the map are sizes.
                changed = operands[:1] if op_type == "Resize" else operands
                check(node, [*(_other(x, rng) for x in changed), *operands[len(changed) :]], rng)

        return test

    return decorate


def _other(x: Any, rng: np.random.Generator) -> Any:
    """Return other float32 numbers of mixed sizes, some of them equal, in place of an array's."""
    if x is None or x.dtype.kind != "f" or x.size == 0:
        return x
    spread = np.exp(rng.normal(size=x.shape) * 2)
    numbers = np.asarray(rng.normal(size=x.shape) * spread, np.float32)
    return np.where(rng.random(x.shape) < 0.1, np.float32(1), numbers)


def _wide(operands: list[Any]) -> list[Any]:
    return [x.astype(np.float64) if _is_float(x) else x for x in operands]


def _is_float(x: Any) -> bool:
    return x is not None and x.dtype.kind == "f"


def test_every_operation_declares_whether_it_rounds_and_has_official_calls() -> None:
    assert TRAITS.keys() == OPERATIONS.keys()
    assert having(Trait.EXACT) | having(Trait.ROUNDS) == OPERATIONS.keys()
    assert having(Trait.EXACT).isdisjoint(having(Trait.ROUNDS))
    assert {name for name, calls in _calls().items() if not calls} <= {"Constant", *WITHOUT_CASES}


@holds_of_all(Trait.EXACT)
def test_what_is_exact_is_the_same_in_float32_and_float64(
    node: Node, operands: list[Any], rng: np.random.Generator
) -> None:
    for narrow, wide in zip(evaluate_node(node, operands), evaluate_node(node, _wide(operands)), strict=True):
        np.testing.assert_array_equal(narrow.astype(wide.dtype), wide)


@holds_of_all(Trait.MOVES)
def test_what_moves_numbers_moves_labels_in_the_same_way(
    node: Node, operands: list[Any], rng: np.random.Generator
) -> None:
    """Label 0 is a filling."""
    numbers, labels = [np.zeros(1)], []
    for x in operands:
        first = sum(each.size for each in numbers)
        labels.append(np.arange(first, first + x.size).reshape(x.shape) * 1.0 if _is_float(x) else x)
        numbers += [x.ravel()] if _is_float(x) else []
    for moved, result in zip(evaluate_node(node, labels), evaluate_node(node, operands), strict=True):
        if result.dtype.kind == "f":
            np.testing.assert_array_equal(np.concatenate(numbers)[moved.astype(int)], result)


@holds_of_all(Trait.VIEWS)
def test_a_view_has_its_elements_in_order(node: Node, operands: list[Any], rng: np.random.Generator) -> None:
    (result,) = evaluate_node(node, operands)
    np.testing.assert_array_equal(result.ravel(), operands[0].ravel())


@holds_of_all(Trait.SELECTS)
def test_what_is_selected_was_given(node: Node, operands: list[Any], rng: np.random.Generator) -> None:
    if all(x is None or x.size for x in operands):
        given_numbers = np.concatenate([[0.0], *(x.ravel() for x in operands if _is_float(x))])
        result = evaluate_node(node, operands)[0]
        assert result.dtype.kind != "f" or np.isin(result, given_numbers).all()


@holds_of_all(Trait.SUMS)
def test_a_sum_is_linear_in_its_first_operand(
    node: Node, operands: list[Any], rng: np.random.Generator
) -> None:
    _check_linear(node, operands, 0, rng)


@holds_of_all(Trait.PRODUCTS)
def test_a_product_is_linear_in_its_second_operand(
    node: Node, operands: list[Any], rng: np.random.Generator
) -> None:
    if len(operands) > 1:
        _check_linear(node, operands, 1, rng)


def _check_linear(node: Node, operands: list[Any], place: int, rng: np.random.Generator) -> None:
    # An addend has no part in it.
    operands = _wide(operands[:2]) if Trait.PRODUCTS in TRAITS[node.op_type] else _wide(operands)
    if not _is_float(operands[place]):
        return
    first, second = operands[place], rng.normal(size=operands[place].shape)
    alone = replace(node, outputs=node.outputs[:1])

    def of(x: Array) -> Array:
        return evaluate_node(alone, [*operands[:place], x, *operands[place + 1 :]])[0]

    scale = max(1.0, *(float(np.abs(of(x)).max(initial=0)) for x in (np.abs(first), np.abs(second))))
    np.testing.assert_allclose(
        of(first + 2 * second), of(first) + 2 * of(second), atol=1e-9 * scale, rtol=1e-9
    )


@holds_of_all(Trait.ELEMENTWISE)
def test_each_result_is_that_of_the_elements_at_its_place(
    node: Node, operands: list[Any], rng: np.random.Generator
) -> None:
    (result,) = evaluate_node(node, _wide(operands))
    spread = [None if x is None else np.broadcast_to(x, result.shape).ravel() for x in _wide(operands)]
    for place in rng.integers(result.size, size=min(result.size, 5)) if result.size else ():
        # Clip takes its limits as scalars.
        single = [None if x is None else x[place] for x in spread]
        (alone,) = evaluate_node(node, [None if x is None else np.asarray(x) for x in single])
        np.testing.assert_allclose(alone, result.ravel()[place], rtol=1e-13)


@holds_of_all(Trait.MONOTONE)
def test_results_only_rise_or_only_fall(node: Node, operands: list[Any], rng: np.random.Generator) -> None:
    x, *rest = _wide(operands)
    if not _is_float(x):
        return
    (result,) = evaluate_node(node, [np.sort(x, axis=None), *rest])
    changes = np.diff(result[np.isfinite(result)].astype(np.float64))
    # Approximated functions may waver in their last place.
    hair = 1e-15 * np.abs(result[np.isfinite(result)]).max(initial=0.0)
    assert (changes >= -hair).all() or (changes <= hair).all()


@holds_of_all(Trait.MAPS)
def test_each_map_of_a_batch_is_computed_alone(
    node: Node, operands: list[Any], rng: np.random.Generator
) -> None:
    x, *rest = _wide(operands)
    if not _is_float(x) or (node.op_type == "Resize" and (len(rest) != 2 or rest[1].size != x.ndim)):
        return  # other sizes would be another batch's
    alone = replace(node, outputs=node.outputs[:1])
    other = rng.normal(size=x.shape)
    both = evaluate_node(alone, [np.concatenate([x, other]), *rest])[0]
    each = [evaluate_node(alone, [part, *rest])[0] for part in (x, other)]
    np.testing.assert_allclose(both, np.concatenate(each), rtol=1e-11, atol=1e-11)
