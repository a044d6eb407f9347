"""Pooling against PyTorch, SciPy and brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import maximum_filter, uniform_filter

from refimpl.errors import ShapeError
from refimpl.ops.operation import OPERATIONS, intercepted
from refimpl.ops.pooling import (
    adaptive_average_pool,
    average_pool,
    global_average_pool,
    global_max_pool,
    max_pool,
    max_pool_with_indices,
)

quick = settings(max_examples=80)


@st.composite
def poolings(draw, dilated):
    """Draw an input shape and attributes that both sides take: padding of at most half the kernel."""
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    dilations = draw(st.tuples(st.integers(1, 3), st.integers(1, 3))) if dilated else (1, 1)
    spatial = [draw(st.integers((k - 1) * d + 1, 14)) for k, d in zip(kernel, dilations, strict=True)]
    return (draw(st.integers(1, 2)), draw(st.integers(1, 3)), *spatial), {
        "kernel_shape": kernel,
        "dilations": dilations,
        "strides": draw(st.tuples(st.integers(1, 4), st.integers(1, 4))),
        "pads": tuple(draw(st.integers(0, k // 2)) for k in kernel) * 2,
        "ceil_mode": draw(st.integers(0, 1)),
    }


def pixels(shape):
    """Return distinct numbers, so that a maximum has one place; most are negative."""
    return np.random.default_rng(0).permutation(np.prod(shape)).reshape(shape) * 0.5 - np.prod(shape)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.mark.runtimes
@quick
@given(case=poolings(dilated=True))
def test_max_pool_equals_pytorch(torch, case):
    shape, attributes = case
    x = pixels(shape)
    expected, indices = torch.nn.functional.max_pool2d(
        torch.from_numpy(x),
        attributes["kernel_shape"],
        attributes["strides"],
        attributes["pads"][:2],
        attributes["dilations"],
        bool(attributes["ceil_mode"]),
        return_indices=True,
    )
    np.testing.assert_array_equal(max_pool(x, **attributes), expected.numpy())
    maxima, place = max_pool_with_indices(x, **attributes)
    np.testing.assert_array_equal(maxima, expected.numpy())
    np.testing.assert_array_equal(place % (shape[2] * shape[3]), indices.numpy())
    np.testing.assert_array_equal(x.reshape(-1)[place], maxima)


@pytest.mark.runtimes
@quick
@given(case=poolings(dilated=False), count_include_pad=st.integers(0, 1))
def test_average_pool_equals_pytorch(torch, case, count_include_pad):
    shape, attributes = case
    x = np.random.default_rng(1).standard_normal(shape)
    expected = torch.nn.functional.avg_pool2d(
        torch.from_numpy(x),
        attributes["kernel_shape"],
        attributes["strides"],
        attributes["pads"][:2],
        bool(attributes["ceil_mode"]),
        bool(count_include_pad),
    )
    actual = average_pool(x, count_include_pad=count_include_pad, **attributes)
    np.testing.assert_allclose(actual, expected.numpy(), rtol=0, atol=1e-14)


@pytest.mark.runtimes
@pytest.mark.parametrize("size", [(10, 20), (7, 13), (11, 9), (1, 1)])
@pytest.mark.parametrize("output_size", [(1, 1), (2, 2), (3, 3), (6, 5), (5, 10), (13, 30)])
def test_adaptive_average_pool_equals_pytorch(torch, size, output_size):
    x = np.random.default_rng(0).standard_normal((2, 3, *size))
    expected = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(x), output_size)
    actual = adaptive_average_pool(x, output_size)
    np.testing.assert_allclose(actual, expected.numpy(), rtol=0, atol=1e-14)
    single = adaptive_average_pool(x.astype(np.float32), output_size)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected.numpy(), rtol=0, atol=1e-5)


class Names:
    """Notes the name of every operation called."""

    def __init__(self):
        self.seen = []

    def call(self, name, inputs, attributes):
        self.seen.append(name)
        return OPERATIONS[name](*inputs, **attributes)

    def block(self, path, compute):
        return compute()


@pytest.mark.parametrize(
    ("output_size", "expected"),
    [((2, 4), ["AveragePool"]), ((3, 4), ["Constant", "Constant", "MatMul", "MatMul"])],
)
def test_adaptive_average_pool_is_composed_of_operations(output_size, expected):
    names = Names()
    with intercepted(names):
        adaptive_average_pool(np.ones((1, 1, 4, 8)), output_size)
    assert names.seen == expected


def test_dilated_average_equals_brute_force():
    x = np.random.default_rng(0).standard_normal((1, 1, 9, 8))
    actual = average_pool(x, kernel_shape=(3, 2), dilations=(2, 3), strides=(2, 1), pads=(1, 0, 2, 1))
    expected = np.empty((4, 6))
    for i, j in itertools.product(range(4), range(6)):
        places = itertools.product((2 * i - 1, 2 * i + 1, 2 * i + 3), (j, j + 3))
        expected[i, j] = np.mean([x[0, 0, u, v] for u, v in places if 0 <= u < 9 and 0 <= v < 8])
    np.testing.assert_allclose(actual[0, 0], expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("kernel", [3, 5])
def test_windows_around_every_pixel_equal_scipy_filters(kernel):
    x = np.random.default_rng(0).standard_normal((12, 15))
    attributes = {"kernel_shape": (kernel, kernel), "pads": (kernel // 2,) * 4}
    largest = maximum_filter(x, kernel, mode="constant", cval=-np.inf)
    np.testing.assert_array_equal(max_pool(x[None, None], **attributes)[0, 0], largest)
    mean = uniform_filter(x, kernel, mode="constant")
    actual = average_pool(x[None, None], count_include_pad=1, **attributes)[0, 0]
    np.testing.assert_allclose(actual, mean, rtol=0, atol=1e-14)


def test_a_window_that_starts_in_the_right_padding_is_dropped():
    x = np.arange(4.0).reshape(1, 1, 4)
    attributes = {"kernel_shape": (1,), "strides": (4,), "pads": (0, 1), "ceil_mode": 1}
    np.testing.assert_array_equal(max_pool(x, **attributes), [[[0.0]]])
    np.testing.assert_array_equal(average_pool(x, **attributes), [[[0.0]]])


def test_padding_never_wins_and_nan_always_does():
    x = np.full((1, 1, 4, 4), -5.0)
    attributes = {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1)}
    np.testing.assert_array_equal(max_pool(x, **attributes), x)
    whole = (x - 123).astype(np.int8)
    np.testing.assert_array_equal(max_pool(whole, **attributes), whole)
    x[0, 0, 0, 0] = np.nan
    reached = np.zeros((4, 4), dtype=bool)
    reached[:2, :2] = True
    np.testing.assert_array_equal(np.isnan(max_pool(x, **attributes)[0, 0]), reached)


def test_column_major_indices():
    x = pixels((1, 2, 3, 5))
    attributes = {"kernel_shape": (2, 2), "strides": (1, 2)}
    maxima, place = max_pool_with_indices(x, storage_order=1, **attributes)
    np.testing.assert_array_equal(x.swapaxes(2, 3).reshape(-1)[place], maxima)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dtype_is_kept_and_the_input_left_alone(dtype):
    x = np.random.default_rng(0).random((1, 2, 4, 4)).astype(dtype)
    before = x.copy()
    window = {"kernel_shape": (2, 2), "strides": (2, 2)}
    for result in (
        max_pool(x, **window),
        average_pool(x, **window),
        global_average_pool(x),
        global_max_pool(x),
        adaptive_average_pool(x, (3, 3)),
    ):
        assert result.dtype == dtype
        result[...] = 9
    np.testing.assert_array_equal(x, before)


def test_global_pooling_equals_one_window_over_everything():
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 6))
    np.testing.assert_array_equal(global_max_pool(x), max_pool(x, kernel_shape=(5, 6)))
    np.testing.assert_allclose(
        global_average_pool(x), average_pool(x, kernel_shape=(5, 6)), rtol=0, atol=1e-15
    )
    assert global_average_pool(np.ones((2, 3, 4))).shape == (2, 3, 1)


@pytest.mark.parametrize(
    ("shape", "attributes", "message"),
    [
        ((2, 3), {"kernel_shape": (1,)}, r"\(2, 3\)"),
        ((1, 1, 4, 4), {"kernel_shape": (5, 1)}, "spans 5"),
        ((1, 1, 4, 4), {"kernel_shape": (2,)}, "kernel_shape"),
        ((1, 1, 4, 4), {"kernel_shape": (2, 2), "pads": (1, -1, 0, 0)}, "pads"),
    ],
)
def test_windows_that_do_not_fit_are_named(shape, attributes, message):
    for pool in (max_pool, max_pool_with_indices, average_pool):
        with pytest.raises(ShapeError, match=message):
            pool(np.zeros(shape), **attributes)


def test_sizes_that_cannot_be_pooled_to_are_named():
    for x, size in (
        (np.zeros((1, 4, 4)), (2, 2)),
        (np.zeros((1, 1, 4, 4)), (0, 2)),
        (np.zeros((1, 1, 4, 4)), (2,)),
    ):
        with pytest.raises(ShapeError, match="output_size"):
            adaptive_average_pool(x, size)
    for pool in (global_average_pool, global_max_pool):
        with pytest.raises(ShapeError, match="spatial"):
            pool(np.zeros((2, 3)))
