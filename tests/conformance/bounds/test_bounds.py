"""The bounds are tested, not believed: no correct implementation exceeds them, wrong ones do."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from conformance.bounds import (
    BFLOAT16,
    CPU,
    DEFAULT,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    MNN,
    MOBILE,
    RULES,
    Declaration,
    Format,
    bias_test,
    format_of,
    introduced_bound,
    introduced_bounds,
    propagated_bound,
    utilisation,
)
from conformance.bounds.allowances import ONNX_RUNTIME
from conformance.bounds.carry import CARRIED
from conformance.bounds.formats import gamma
from conformance.bounds.winograd import transforms
from conformance.evidence.bound_measurement import (
    IMPLEMENTATIONS,
    Implementation,
    largest_utilisations,
    measured,
    smallest_detectable_faults,
)
from conformance.evidence.bound_trials import Trial, trial, tried
from refimpl.errors import UnsupportedOperationError
from refimpl.graph import Node
from refimpl.ops import OPERATIONS
from refimpl.ops.operation import Array

SEEDS = st.integers(0, 10**6)
SCALES = st.sampled_from([1.0, 1e-3, 100.0, 1e-6])
FORMATS = [FLOAT32, FLOAT16, BFLOAT16]


def worst(
    op_type: str,
    inputs: Any,
    attributes: dict[str, Any],
    candidate: Array,
    declaration: Declaration = DEFAULT,
) -> float:
    """Return the largest error / bound of a candidate's first output."""
    truth = OPERATIONS[op_type](*inputs, **attributes)
    bound = introduced_bound(op_type, inputs, attributes, truth, declaration)
    assert bound is not None
    assert bound.shape == truth.shape
    return float(utilisation(candidate, truth, bound).max(initial=0.0))


# --- every operation ------------------------------------------------------------------------------


def test_every_operation_has_a_rule() -> None:
    assert set(RULES) == set(OPERATIONS)


def test_every_operation_that_rounds_is_tried() -> None:
    moving = {op_type for op_type, registered in RULES.items() if registered.bound.__name__ == "moving"}
    untried = set(OPERATIONS) - moving - set(tried())
    assert untried == {
        "CastLike",
        "Equal",
        "Less",
        "LessOrEqual",
        "Greater",
        "GreaterOrEqual",
        "Mod",
        "ScatterND",
    }


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, ids=lambda i: i.name)
@settings(max_examples=250, deadline=None)
@given(op_type=st.sampled_from(tried()), seed=SEEDS, scale=SCALES)
def test_no_correct_implementation_exceeds_its_bound(
    implementation: Implementation, op_type: str, seed: int, scale: float
) -> None:
    ratio = measured(trial(op_type, seed, scale), implementation)
    assert ratio is None or ratio <= 1


@settings(max_examples=200, deadline=None)
@given(op_type=st.sampled_from(tried()), seed=SEEDS, scale=st.sampled_from([1e-20, 1e-37, 1e-40, 1e15]))
def test_nor_at_the_ends_of_the_range(op_type: str, seed: int, scale: float) -> None:
    for implementation in IMPLEMENTATIONS:
        if implementation.operands is FLOAT32:
            ratio = measured(trial(op_type, seed, scale), implementation)
            assert ratio is None or ratio <= 1


def test_bounds_that_rounding_reaches_are_not_loose() -> None:
    seen = {(row.op_type, row.implementation): row.largest for row in largest_utilisations(3)}
    assert max(seen.values()) <= 1
    for op_type in ("Add", "Sub", "Mul", "Div", "Sqrt"):
        assert seen[op_type, "numpy float32"] > 0.9
    for op_type in (
        "Conv",
        "MatMul",
        "BatchNormalization",
        "LayerNormalization",
        "Softmax",
        "Gelu",
        "HardSwish",
    ):
        assert seen[op_type, "onnxruntime float32"] > 0.1
        assert seen[op_type, "float16 storage of float32"] > 0.8


@settings(max_examples=200, deadline=None)
@given(op_type=st.sampled_from(tried()), seed=SEEDS, scale=SCALES)
def test_no_correct_implementation_looks_biased(op_type: str, seed: int, scale: float) -> None:
    """The false alarms are 1e-9 by design, so among a thousand errors of float32 there is none."""
    for name in ("numpy float32", "onnxruntime float32"):
        implementation = next(one for one in IMPLEMENTATIONS if one.name == name)
        call = trial(op_type, seed, scale)
        rounded = Trial(op_type, tuple(narrowed(x) for x in call.inputs), call.attributes)
        results = implementation.compute(rounded)
        with np.errstate(all="ignore"):
            made = OPERATIONS[op_type](*rounded.inputs, **call.attributes)
        truths = made if isinstance(made, tuple) else (made,)
        arguments = (rounded.inputs, call.attributes, truths, implementation.declaration)
        bounds, sizes = (
            introduced_bounds(op_type, *arguments, probable=probable) for probable in (False, True)
        )
        for result, truth, bound, size in zip(results or (), truths, bounds, sizes, strict=False):
            if bound is not None and size is not None and truth.dtype.kind == "f":
                with np.errstate(all="ignore"):
                    error = result.astype(np.float64) - truth
                    assert not bias_test(error, bound, size).suspicious, name


def narrowed(x: Array | None) -> Array | None:
    return FLOAT32.rounded(x) if x is not None and x.dtype.kind == "f" else x


# --- orders of summation --------------------------------------------------------------------------


def flushed(x: Array, precision: Format) -> Array:
    """Round to the format, subnormals to zero."""
    y = precision.rounded(x)
    return np.where(np.abs(y) < precision.smallest_normal, 0.0, y)


def sequential(terms: list[Array], rounded: Callable[[Array], Array]) -> Array:
    total = terms[0]
    for term in terms[1:]:
        total = rounded(total + term)
    return total


def pairwise(terms: list[Array], rounded: Callable[[Array], Array]) -> Array:
    if len(terms) == 1:
        return terms[0]
    middle = len(terms) // 2
    return rounded(pairwise(terms[:middle], rounded) + pairwise(terms[middle:], rounded))


def blocked(terms: list[Array], rounded: Callable[[Array], Array]) -> Array:
    blocks = [sequential(terms[start : start + 4], rounded) for start in range(0, len(terms), 4)]
    return sequential(blocks, rounded)


def shuffled(terms: list[Array], rounded: Callable[[Array], Array]) -> Array:
    order = np.random.default_rng(len(terms)).permutation(len(terms))
    return sequential([terms[i] for i in order], rounded)


ORDERS = [sequential, pairwise, blocked, shuffled]


def product(a: Array, b: Array, add_up: Any, rounded: Callable[[Array], Array]) -> Array:
    """Multiply matrices with every product and sum rounded."""
    return np.asarray(add_up([rounded(np.outer(a[:, k], b[k])) for k in range(a.shape[1])], rounded))


def fused_product(a: Array, b: Array, rounded: Callable[[Array], Array]) -> Array:
    """Multiply matrices by fused multiply-adds: one rounding for each."""
    total = np.zeros((a.shape[0], b.shape[1]))
    for k in range(a.shape[1]):
        total = rounded(total + np.outer(a[:, k], b[k]))
    return total


def operands(seed: int, precision: Format, *shapes: tuple[int, ...], scale: float = 1.0) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [precision.rounded(scale * rng.normal(size=s) * np.exp(rng.normal(size=s))) for s in shapes]


@pytest.mark.parametrize("precision", FORMATS, ids=lambda f: f.name)
@pytest.mark.parametrize("add_up", ORDERS)
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, terms=st.integers(1, 60), flush=st.booleans(), scale=st.sampled_from([1.0, 1e-2, 1e-19]))
def test_products_in_any_order(
    precision: Format, add_up: Any, seed: int, terms: int, flush: bool, scale: float
) -> None:
    a, b = operands(seed, precision, (5, terms), (terms, 4), scale=scale)
    rounded = (lambda x: flushed(x, precision)) if flush else precision.rounded
    given_a, given_b = (rounded(a), rounded(b)) if flush else (a, b)
    computed = product(given_a, given_b, add_up, rounded)
    assert worst("MatMul", (a, b), {}, computed, Declaration(precision, precision)) <= 1


@pytest.mark.parametrize("precision", FORMATS, ids=lambda f: f.name)
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, terms=st.integers(1, 60))
def test_products_by_fused_multiply_adds(precision: Format, seed: int, terms: int) -> None:
    a, b = operands(seed, precision, (5, terms), (terms, 4))
    assert (
        worst("MatMul", (a, b), {}, fused_product(a, b, precision.rounded), Declaration(precision, precision))
        <= 1
    )


@pytest.mark.parametrize("precision", FORMATS, ids=lambda f: f.name)
@pytest.mark.parametrize("add_up", ORDERS)
@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, channels=st.integers(1, 6))
def test_convolution_in_any_order(precision: Format, add_up: Any, seed: int, channels: int) -> None:
    x, w, b = operands(seed, precision, (1, channels, 6, 7), (4, channels, 3, 3), (4,))
    patches = (
        sliding_window_view(x[0], (3, 3), axis=(1, 2)).transpose(0, 3, 4, 1, 2).reshape(channels * 9, -1)
    )
    total = product(w.reshape(4, -1), patches, add_up, precision.rounded)
    candidate = precision.rounded(total + b[:, None]).reshape(1, 4, 4, 5)
    assert worst("Conv", (x, w, b), {}, candidate, Declaration(precision, precision)) <= 1


@pytest.mark.parametrize("add_up", ORDERS)
@pytest.mark.parametrize("precision", FORMATS, ids=lambda f: f.name)
@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, terms=st.integers(1, 80))
def test_sums_and_means_in_any_order(precision: Format, add_up: Any, seed: int, terms: int) -> None:
    (x,) = operands(seed, precision, (terms, 6))
    axes = np.array([0])
    total = add_up(list(x), precision.rounded)[None]
    assert worst("ReduceSum", (x, axes), {}, total, Declaration(precision, precision)) <= 1
    mean = precision.rounded(total * precision.rounded(np.asarray(1 / terms)))
    assert worst("ReduceMean", (x, axes), {}, mean, Declaration(precision, precision)) <= 1


def normalised(
    x: Array, add_up: Any, rounded: Callable[[Array], Array], epsilon: float, one_pass: bool = False
) -> Array:
    """Layer normalisation of rows with every operation rounded."""
    n = x.shape[1]
    mean = rounded(add_up(list(x.T), rounded) / n)[:, None]
    difference = rounded(x - mean)
    squares = rounded(np.square(x if one_pass else difference))
    variance = rounded(add_up(list(squares.T), rounded) / n)[:, None]
    if one_pass:
        variance = rounded(variance - rounded(mean * mean))
    deviation = rounded(np.sqrt(rounded(variance + rounded(np.asarray(epsilon)))))
    return rounded(difference / deviation)


@pytest.mark.parametrize("precision", [FLOAT32, FLOAT16], ids=lambda f: f.name)
@pytest.mark.parametrize("add_up", ORDERS)
@settings(max_examples=15, deadline=None)
@given(
    seed=SEEDS,
    n=st.integers(2, 80),
    offset=st.sampled_from([0.0, 1.0, 50.0]),
    spread=st.sampled_from([1e-4, 1.0]),
)
def test_layer_normalisation_of_nearly_constant_rows(
    precision: Format, add_up: Any, seed: int, n: int, offset: float, spread: float
) -> None:
    (x,) = operands(seed, precision, (3, n), scale=spread)
    x = precision.rounded(x + offset)
    inputs = (x, np.ones(n), np.zeros(n))
    candidate = normalised(x, add_up, precision.rounded, 1e-5)
    assert (
        worst("LayerNormalization", inputs, {"epsilon": 1e-5}, candidate, Declaration(precision, precision))
        <= 1
    )


def test_a_one_pass_variance_has_to_be_declared() -> None:
    (x,) = operands(3, FLOAT32, (20, 64))
    x = FLOAT32.rounded(x * 0.1 + 300)
    inputs = (x, np.ones(64), np.zeros(64))
    candidate = normalised(x, sequential, FLOAT32.rounded, 1e-5, one_pass=True)
    assert worst("LayerNormalization", inputs, {"epsilon": 1e-5}, candidate) > 1
    one_pass = Declaration(runtime=replace(ONNX_RUNTIME, one_pass_variance=True))
    assert worst("LayerNormalization", inputs, {"epsilon": 1e-5}, candidate, one_pass) <= 1


# --- Winograd -------------------------------------------------------------------------------------

WINOGRAD: dict[Any, Any] = {
    2: (
        [[1, 1, 1, 0], [0, 1, -1, -1]],
        [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]],
        [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
    ),
    4: (
        [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
        [
            [1 / 4, 0, 0],
            [-1 / 6, -1 / 6, -1 / 6],
            [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6],
            [1 / 24, -1 / 12, 1 / 6],
            [0, 0, 1],
        ],
        [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ],
    ),
}


def winograd(x: Array, w: Array, tile: int, rounded: Callable[[Array], Array], matrices: Any = None) -> Array:
    """Convolve 3 × 3 without padding by Lavin & Gray's F(tile × tile, 3 × 3), every product rounded."""
    a, g, b = (np.array(m, np.float64) for m in WINOGRAD[matrices or tile])
    tiles = sliding_window_view(x[0], (tile + 2, tile + 2), axis=(1, 2))[:, ::tile, ::tile]
    data = rounded(rounded(b @ tiles) @ b.T)
    kernel = rounded(rounded(g @ w) @ g.T)
    total = sequential(
        [rounded(data[c][None] * kernel[:, c][:, None, None]) for c in range(x.shape[1])], rounded
    )
    result = rounded(rounded(a @ total) @ a.T)
    return result.transpose(0, 1, 3, 2, 4).reshape(1, w.shape[0], *(tile * n for n in result.shape[1:3]))


@pytest.mark.parametrize("points", [CPU.winograd_points, MNN.winograd_points])
@pytest.mark.parametrize("tile", [2, 4, 6])
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, channels=st.integers(1, 8))
def test_winograd_in_any_points_is_within_its_bound(
    points: tuple[float, ...], tile: int, seed: int, channels: int
) -> None:
    """And some of it is used: the bound is no blank cheque."""
    x, w = operands(seed, FLOAT32, (1, channels, 2 * tile + 2, 2 * tile + 2), (3, channels, 3, 3))
    WINOGRAD["points"] = transforms(tile, points)
    assert np.allclose(winograd(x, w, tile, lambda v: v, "points"), OPERATIONS["Conv"](x, w))
    declared = Declaration(runtime=replace(CPU, winograd_tile=tile, winograd_points=points))
    candidate = winograd(x, w, tile, FLOAT32.rounded, "points")
    assert 1 / 10_000 < worst("Conv", (x, w), {}, candidate, declared) <= 1


@pytest.mark.parametrize("tile", [2, 4])
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, channels=st.integers(1, 8))
def test_winograd_is_within_its_declared_bound(tile: int, seed: int, channels: int) -> None:
    x, w = operands(seed, FLOAT32, (1, channels, 2 * tile + 2, 2 * tile + 2), (3, channels, 3, 3))
    assert np.allclose(winograd(x, w, tile, lambda v: v), OPERATIONS["Conv"](x, w))
    declared = replace(CPU, winograd_tile=tile)
    candidate = winograd(x, w, tile, FLOAT32.rounded)
    assert worst("Conv", (x, w), {}, candidate, Declaration(runtime=declared)) <= 1


def test_winograd_has_to_be_declared() -> None:
    x, w = operands(0, FLOAT32, (1, 1, 18, 18), (3, 1, 3, 3))
    x[0, 0, 2, 2] = 1e4
    assert worst("Conv", (x, w), {}, winograd(x, w, 4, FLOAT32.rounded)) > 1


# --- single rules ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("numbers", "off"), [(12800, 0.5), (25600, 1.0)])
def test_a_group_norm_summed_in_float16_is_off_by_what_it_normalises_to(numbers: int, off: float) -> None:
    """One number after the other: where the sum has grown, small squares no longer change it.

    So its bound is infinite for a reason; stored in float16 and summed in float32 it has one, and holds it.
    """
    x = np.random.default_rng(0).standard_normal(numbers).astype(np.float16)
    exact = x.astype(np.float64)
    truth = (exact - exact.mean()) / np.sqrt(exact.var() + 1e-5)
    wide, half = np.float32, np.float16
    operands = exact[None, None], np.ones(1), np.zeros(1)
    for arithmetic, dtype in ((FLOAT16, half), (FLOAT32, wide)):
        given = x.astype(dtype)
        difference = given - np.add.accumulate(given)[-1] / dtype(numbers)
        variance = np.add.accumulate(difference * difference)[-1] / dtype(numbers)
        made = (difference / np.sqrt(variance + dtype(1e-5))).astype(half)
        error = np.abs(made - truth)
        declared = Declaration(arithmetic, FLOAT16)
        results = truth[None, None]
        bound = introduced_bound("InstanceNormalization", operands, {"epsilon": 1e-5}, results, declared)
        assert bound is not None
        if arithmetic is FLOAT16:
            assert error.max() > off
            assert np.isinf(bound).all()
        else:
            assert (error <= bound[0, 0]).all()
            assert bound.max() < 0.01


@settings(max_examples=50)
@given(n=st.integers(1, 10**6))
def test_gamma_is_highams(n: int) -> None:
    exact = Fraction(n, 2**24) / (1 - Fraction(n, 2**24))
    assert math.isclose(gamma(n, 2.0**-24), float(exact), rel_tol=1e-14)


def test_gamma_is_infinite_where_it_says_nothing() -> None:
    assert gamma(2048, FLOAT16.unit_roundoff) == math.inf


@settings(max_examples=50)
@given(seed=SEEDS, exponent=st.integers(-44, 38))
def test_formats_round_as_the_libraries_do(seed: int, exponent: int) -> None:
    with np.errstate(over="ignore"):
        # From float32, since ml_dtypes rounds float64 to float32 first: twice, near a tie.
        x = (np.random.default_rng(seed).normal(size=100) * 10.0**exponent).astype(np.float32)
        x = x.astype(np.float64)
        assert np.array_equal(BFLOAT16.rounded(x), x.astype(ml_dtypes.bfloat16).astype(np.float64))
        assert np.array_equal(FLOAT16.rounded(x), x.astype(np.float16).astype(np.float64))


@pytest.mark.parametrize("precision", [FLOAT32, FLOAT16, BFLOAT16, FLOAT64], ids=lambda f: f.name)
def test_formats_are_those_of_their_dtypes(precision: Format) -> None:
    dtype = ml_dtypes.bfloat16 if precision is BFLOAT16 else np.dtype(precision.name)
    assert format_of(dtype) is precision
    limits = ml_dtypes.finfo(dtype)
    assert precision.largest == float(limits.max)
    assert precision.smallest_normal == float(limits.smallest_normal)
    assert precision.unit_roundoff == float(limits.eps) / 2


def test_an_integer_has_no_format() -> None:
    with pytest.raises(UnsupportedOperationError, match="int8"):
        format_of(np.int8)


def test_half_overflow_is_no_error_but_nan_is() -> None:
    inputs = (np.array([60000.0, 60000.0, 1.0]), np.array([10000.0, -1.0, 1.0]))
    truth = np.add(*inputs)
    bound = introduced_bound("Add", inputs, {}, truth, Declaration(storage=FLOAT16))
    assert bound is not None
    assert utilisation(np.array([np.inf, 60000.0, 2.0]), truth, bound).max() <= 1
    assert utilisation(np.array([np.nan, 60000.0, 2.0]), truth, bound)[0] == np.inf
    assert utilisation(np.array([np.inf, np.inf, 2.0]), truth, bound)[1] == np.inf


def test_partial_sums_may_overflow_where_their_total_does_not() -> None:
    a, b = np.array([[60000.0, 60000.0, -60000.0, -60000.0]]), np.ones((4, 1))
    bound = introduced_bound("MatMul", (a, b), {}, a @ b, Declaration(FLOAT16, FLOAT16))
    assert bound is not None
    assert np.isinf(bound).all()


def test_infinity_and_nan_of_the_truth_are_asked_of_the_candidate() -> None:
    inputs = (np.array([1.0, 0.0, -np.inf]), np.array([0.0, 0.0, 1.0]))
    with np.errstate(all="ignore"):
        truth = np.divide(*inputs)
    bound = introduced_bound("Div", inputs, {}, truth)
    assert bound is not None
    assert utilisation(truth, truth, bound).max() == 0
    assert np.isinf(utilisation(np.array([1e38, 1.0, -1e38]), truth, bound)).all()


@pytest.mark.parametrize(
    "op_type", ["Relu", "Reshape", "Concat", "MaxPool", "ArgMax", "TopK", "Gather", "Transpose"]
)
def test_what_moves_or_selects_is_exact(op_type: str) -> None:
    x = np.random.default_rng(0).normal(size=(1, 2, 4, 4))
    calls: dict[str, tuple[Any, dict[str, Any]]] = {
        "Reshape": ((x, np.array([-1])), {}),
        "Concat": ((x, x), {"axis": 1}),
        "MaxPool": ((x,), {"kernel_shape": (2, 2)}),
        "TopK": ((x, np.array([2])), {}),
        "Gather": ((x, np.array([1, 0])), {"axis": 1}),
    }
    inputs, attributes = calls.get(op_type, ((x,), {}))
    results = OPERATIONS[op_type](*inputs, **attributes)
    outputs = results if isinstance(results, tuple) else (results,)
    for bound in introduced_bounds(op_type, inputs, attributes, outputs, Declaration(storage=FLOAT16)):
        assert bound is not None
        assert not bound.any()


def test_selections_may_flush_subnormals() -> None:
    x = np.array([1e-40, -1e-40, 1.0])
    assert worst("Relu", (x,), {}, np.array([0.0, 0.0, 1.0])) <= 1
    assert worst("Relu", (x,), {}, np.array([1e-38, 0.0, 1.0])) > 1
    assert worst("Ceil", (x,), {}, np.array([0.0, 0.0, 1.0])) <= 1


def test_quantisation_may_go_either_way_at_a_tie_only() -> None:
    x, scale, zero = np.array([0.25, 0.26, 0.75, -1e3]), np.asarray(0.5), np.asarray(0, np.int8)
    truth = OPERATIONS["QuantizeLinear"](x, scale, zero)
    bound = introduced_bound("QuantizeLinear", (x, scale, zero), {}, truth)
    assert bound is not None
    assert bound.tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("mode", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
@settings(max_examples=30, deadline=None)
@given(old=st.integers(1, 300), new=st.integers(1, 300))
def test_nearest_coordinates_in_float32(mode: str, old: int, new: int) -> None:
    x = np.random.default_rng(0).normal(size=(1, 1, old, 1))
    scale = np.float32(new) / np.float32(old)
    coordinate = (np.arange(new, dtype=np.float32) + np.float32(0.5)) / scale - np.float32(0.5)
    choose: dict[str, Callable[[Array], Array]] = {
        "floor": np.floor,
        "ceil": np.ceil,
        "round_prefer_floor": lambda c: np.ceil(c - 0.5),
        "round_prefer_ceil": lambda c: np.floor(c + 0.5),
    }
    index = choose[mode](coordinate.astype(np.float64))
    candidate = x[:, :, np.clip(index, 0, old - 1).astype(int)]
    attributes = {"mode": "nearest", "nearest_mode": mode}
    assert worst("Resize", (x, None, None, np.array([1, 1, new, 1])), attributes, candidate) <= 1


@settings(max_examples=40, deadline=None)
@given(old=st.integers(2, 300), new=st.integers(1, 300), seed=SEEDS)
def test_linear_coordinates_in_float32(old: int, new: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=old)
    scale = np.float32(new) / np.float32(old)
    coordinate = (np.arange(new, dtype=np.float32) + np.float32(0.5)) / scale - np.float32(0.5)
    candidate = np.interp(coordinate, np.arange(old), x)
    inputs = (x, None, None, np.array([new]))
    assert worst("Resize", inputs, {"mode": "linear"}, candidate) <= 1


def test_doubling_has_exact_coordinates() -> None:
    x = np.random.default_rng(0).normal(size=(1, 1, 64, 64)) * 1e-4 + 0.0
    inputs = (x, None, None, np.array([1, 1, 128, 128]))
    truth = OPERATIONS["Resize"](*inputs, mode="linear")
    bound = introduced_bound("Resize", inputs, {"mode": "linear"}, truth)
    assert bound is not None
    assert bound.max() <= 20 * FLOAT32.unit_roundoff * np.abs(x).max()


def test_a_mobile_runtime_may_approximate_the_sigmoid() -> None:
    x = np.linspace(-5, 5, 100)
    approximated = OPERATIONS["Sigmoid"](x) + 5e-6
    assert worst("Sigmoid", (x,), {}, approximated) > 1
    assert worst("Sigmoid", (x,), {}, approximated, Declaration(runtime=MOBILE)) <= 1


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes"),
    [
        ("Mod", (np.array([5.5]), np.array([2.0])), {}),
        ("Resize", (np.ones(4), np.array([0.0, 1.0]), None, np.array([3])), {
            "mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize"
        }),
        ("TopK", (np.ones(4), np.array([2])), {"sorted": 0}),
    ],
)  # fmt: skip
def test_what_no_bound_holds_for_is_not_judged(op_type: str, inputs: Any, attributes: Any) -> None:
    result = OPERATIONS[op_type](*inputs, **attributes)
    first = result[0] if isinstance(result, tuple) else result
    assert introduced_bound(op_type, inputs, attributes, first) is None


# --- faults ---------------------------------------------------------------------------------------


def test_small_faults_show() -> None:
    smallest = {row.fault: row for row in smallest_detectable_faults()}
    assert all(row.by_bound < 0.01 for row in smallest.values())
    assert smallest["batch normalisation: epsilon, absolutely"].by_bound < 9e-6
    assert smallest["convolution, K = 576: bias, absolutely"].by_statistics < 3e-4
    for row in smallest.values():
        assert row.by_statistics < 2 * row.by_bound


# --- bias and variance ----------------------------------------------------------------------------


def conv_error(seed: int) -> tuple[Array, Array, Array]:
    """Return error, bound and scale of a float32 convolution."""
    x, w = operands(seed, FLOAT32, (1, 32, 24, 24), (16, 32, 3, 3))
    truth = OPERATIONS["Conv"](x, w)
    error = OPERATIONS["Conv"](x.astype(np.float32), w.astype(np.float32)) - truth
    bound, scale = (introduced_bound("Conv", (x, w), {}, truth, probable=p) for p in (False, True))
    assert bound is not None
    assert scale is not None
    return error, bound, scale


def test_rounding_has_neither_bias_nor_excess() -> None:
    assert not any(bias_test(*conv_error(seed)).suspicious for seed in range(10))


def test_less_than_some_roundings_of_a_result_is_no_bias() -> None:
    """What is carried through several steps may bound 10⁷ times what is likely; then only results tell.

    So ncnn's attention in float16, one layer, was called wrong: bounds of 10⁸, errors of 10⁻³.
    """
    rng = np.random.default_rng(0)
    bound, scale, rounding = (np.full(25600, x) for x in (1e8, 12.0, 5e-4))
    error = rng.uniform(-2e-3, 2e-3, 25600) + 8e-5
    assert bias_test(error, bound, scale).suspicious
    assert not bias_test(error, bound, scale, rounding).suspicious
    assert bias_test(error + 4e-3, bound, scale, rounding).suspicious


def test_a_shift_within_the_bound_is_biased() -> None:
    error, bound, scale = conv_error(0)
    shifted = error + 0.3 * scale
    assert (np.abs(shifted) < bound).all()
    found = bias_test(shifted, bound, scale)
    assert found.suspicious
    assert found.bias_probability < 1e-20


def test_an_excess_within_the_bound_is_seen() -> None:
    error, bound, scale = conv_error(0)
    noisy = error + scale * np.random.default_rng(0).uniform(-3, 3, error.shape)
    assert (np.abs(noisy) < bound).all()
    assert bias_test(noisy, bound, scale).variance_probability < 1e-9


def test_one_error_repeated_is_one_sample() -> None:
    found = bias_test(np.full(10**5, 0.6), np.full(10**5, 20.0), np.ones(10**5))
    assert found.samples == 1
    assert not found.suspicious


def test_false_alarms_are_as_rare_as_stated() -> None:
    """The probabilities are uniform, or above, for independent uniform rounding."""
    rng = np.random.default_rng(0)
    bound = np.full(640, 1e9)
    found = [bias_test(rng.uniform(-1, 1, 640), bound, np.ones(640)) for _ in range(400)]
    assert np.mean([test.bias_probability < 0.1 for test in found]) < 0.15
    assert np.mean([test.variance_probability < 0.1 for test in found]) < 0.15


# --- fused chains ---------------------------------------------------------------------------------


def node(op_type: str, inputs: tuple[str, ...], outputs: tuple[str, ...], **attributes: Any) -> Node:
    """Return a node of a chain."""
    return Node(outputs[0], op_type, inputs, outputs, attributes)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_batch_normalisation_folded_into_a_convolution(seed: int) -> None:
    x, w, scale, shift, mean = operands(seed, FLOAT32, (1, 8, 9, 9), (6, 8, 3, 3), (6,), (6,), (6,))
    var = FLOAT32.rounded(np.random.default_rng(seed).uniform(0.1, 2, 6))
    chain = [
        node("Conv", ("x", "w"), ("c",)),
        node("BatchNormalization", ("c", "scale", "shift", "mean", "var"), ("n",)),
        node("Relu", ("n",), ("y",)),
    ]
    exact = {"x": x, "w": w, "scale": scale, "shift": shift, "mean": mean, "var": var}
    values, bounds = propagated_bound(chain, exact)
    narrow = {name: array.astype(np.float32) for name, array in exact.items()}
    factor = narrow["scale"] / np.sqrt(narrow["var"] + np.float32(1e-5))
    folded = OPERATIONS["Conv"](
        narrow["x"], narrow["w"] * factor[:, None, None, None], narrow["shift"] - narrow["mean"] * factor
    )
    assert bounds["y"] is not None
    assert utilisation(np.maximum(folded, 0), values["y"], bounds["y"]).max() <= 1


def attention() -> list[Node]:
    """A block of a transformer: normalisation, attention, a perceptron with GELU, a residual."""
    return [
        node("LayerNormalization", ("x", "g", "h"), ("n",)),
        node("MatMul", ("n", "wq"), ("q",)),
        node("MatMul", ("n", "wk"), ("k",)),
        node("Transpose", ("k",), ("kt",), perm=(1, 0)),
        node("MatMul", ("q", "kt"), ("logits",)),
        node("Softmax", ("logits",), ("p",)),
        node("MatMul", ("p", "n"), ("a",)),
        node("Gelu", ("a",), ("e",)),
        node("Add", ("e", "x"), ("y",)),
    ]


@pytest.mark.parametrize("precision", [FLOAT32, FLOAT16], ids=lambda f: f.name)
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_a_chain_in_narrow_arithmetic(precision: Format, seed: int) -> None:
    x, wq, wk = operands(seed, precision, (7, 16), (16, 16), (16, 16), scale=0.3)
    exact = {"x": x, "g": np.ones(16), "h": np.zeros(16), "wq": wq, "wk": wk}
    values, bounds = propagated_bound(attention(), exact, Declaration(precision, precision))
    narrow = {name: array.astype(precision.name) for name, array in exact.items()}
    for call in attention():
        narrow[call.outputs[0]] = OPERATIONS[call.op_type](
            *(narrow[i] for i in call.inputs), **call.attributes
        )
    for name, bound in bounds.items():
        assert bound is not None
        assert utilisation(narrow[name], values[name], bound).max() <= 1


_FROM_THE_EDGE: dict[str, Callable[[Array], Array]] = {
    **dict.fromkeys(("Sqrt", "Log"), np.abs),
    **dict.fromkeys(("Asin", "Acos", "Atanh"), lambda x: 1 - np.abs(x)),
    "Acosh": lambda x: x - 1,
}
"""Operator → how far its operand is from where there is no result."""


@pytest.mark.parametrize("op_type", sorted(set(CARRIED) & set(tried())))
@settings(max_examples=8, deadline=None)
@given(seed=SEEDS, size=st.sampled_from([1e-7, 1e-3, 0.1]))
def test_errors_of_operands_are_carried(op_type: str, seed: int, size: float) -> None:
    call = trial(op_type, seed)
    rng = np.random.default_rng(seed)
    names = tuple(f"x{i}" if x is not None else "" for i, x in enumerate(call.inputs))
    exact = {name: x for name, x in zip(names, call.inputs, strict=True) if x is not None}
    both = op_type in ("Conv", "MatMul", "Gemm", "Einsum", "Add", "Sub", "Mul", "Div", "Max", "Min", "Sum")
    wrong = [name for name in exact if exact[name].dtype.kind == "f"][: None if both else 1]
    errors = {name: size * rng.random(exact[name].shape) for name in wrong}
    if op_type in _FROM_THE_EDGE:
        errors = {
            name: np.minimum(error, _FROM_THE_EDGE[op_type](exact[name]) / 2)
            for name, error in errors.items()
        }
    carried = propagated_bound(
        [node(op_type, names, ("y",), **call.attributes)], exact, Declaration(FLOAT64, FLOAT64), errors=errors
    )
    values, bound = carried[0]["y"], carried[1]["y"]
    if bound is None:
        assert op_type == "Resize"
        return
    moved = dict(exact)
    for name in wrong:
        moved[name] = exact[name] + errors[name] * rng.choice([-1.0, 1.0, 0.3], exact[name].shape)
    with np.errstate(all="ignore"):
        made = OPERATIONS[op_type](*(moved[n] if n else None for n in names), **call.attributes)
    candidate = made[0] if isinstance(made, tuple) else made
    # The comparison itself is made in float64, and carrying is to first order.
    own = 1e-13 * (1 + np.abs(values))
    assert utilisation(candidate, values, bound * (1 + 1e-6) + own).max() <= 1


def test_an_error_of_a_limit_counts_where_it_cuts_off() -> None:
    x, error = np.array([-1.0, 0.2, 0.7, 0.95, 3.0]), np.full((), 0.1)
    known = {"x": x, "low": np.zeros(()), "high": np.ones(())}
    _, bounds = propagated_bound(
        [node("Clip", ("x", "low", "high"), ("y",))],
        known,
        Declaration(FLOAT64, FLOAT64),
        errors={"high": error},
    )
    np.testing.assert_allclose(bounds["y"], [0, 0, 0, 0.05, 0.1], atol=1e-12)


@pytest.mark.parametrize("op_type", ["ConvInteger", "DequantizeLinear", "MatMulInteger"])
@given(seed=SEEDS)
def test_errors_of_integers_are_carried(op_type: str, seed: int) -> None:
    """Some integers are others, by so many steps."""
    rng = np.random.default_rng(seed)
    shapes = {"ConvInteger": [(1, 2, 4, 4), (3, 2, 2, 2)], "MatMulInteger": [(3, 4), (4, 2)]}
    exact = [rng.integers(-99, 100, shape).astype(np.int8) for shape in shapes.get(op_type, [(3, 4)])]
    points: list[Array] = [np.array(rng.integers(-9, 9), np.int8) for _ in exact]
    if op_type == "DequantizeLinear":
        points = [rng.uniform(0.1, 2, 3), rng.integers(-9, 9, 3).astype(np.int8)]
    how = {"axis": 0} if op_type == "DequantizeLinear" else {}
    steps = [rng.integers(0, 4, x.shape) * rng.integers(0, 2, x.shape) for x in exact]
    names = [f"x{place}" for place in range(len(exact) + len(points))]
    _, bounds = propagated_bound(
        [node(op_type, names, ("y",), **how)],
        dict(zip(names, [*exact, *points], strict=True)),
        Declaration(FLOAT64, FLOAT64),
        errors={name: each.astype(np.float64) for name, each in zip(names, steps, strict=False)},
    )
    moved = [x + each * rng.choice([-1, 1], x.shape) for x, each in zip(exact, steps, strict=True)]
    ours, theirs = (
        OPERATIONS[op_type](*(np.asarray(x, np.int8) for x in side), *points, **how).astype(np.float64)
        for side in (exact, moved)
    )
    assert bounds["y"] is not None
    assert (np.abs(ours - theirs) <= bounds["y"] * (1 + 1e-12)).all()


def test_an_error_and_a_rounding_that_bring_a_quotient_to_a_tie_together_are_allowed_for() -> None:
    scale, zero = np.ones((), np.float32), np.zeros((), np.int8)
    chain = [node("QuantizeLinear", ("x", "scale", "zero"), ("y",))]
    known = {"x": np.full(1, 0.5 - 1.2e-7), "scale": scale, "zero": zero}
    allowed = [
        propagated_bound(chain, known, errors={"x": np.full(1, error)} if error else {})[1]["y"]
        for error in (0.0, 1e-7)
    ]
    assert allowed[0] is not None
    assert allowed[1] is not None
    assert (allowed[0][0], allowed[1][0] >= 1) == (0.0, True)


def test_a_chain_ends_where_errors_cannot_be_carried() -> None:
    chain = [node("Exp", ("x",), ("e",)), node("CumSum", ("e", "axis"), ("c",)), node("Relu", ("c",), ("y",))]
    _, bounds = propagated_bound(chain, {"x": np.ones(4), "axis": np.array(0)})
    assert bounds["e"] is not None
    assert bounds["c"] is None
    assert bounds["y"] is None
