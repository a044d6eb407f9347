"""Convolution against PyTorch, SciPy and exact whole numbers."""

import gc
import itertools
from unittest import mock

import numpy as np
import onnx
import onnx.reference
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import signal

import refimpl.ops.winograd
from refimpl.errors import ConfigurationError, ShapeError
from refimpl.ops.convolution import conv, convolve
from refimpl.ops.fast_convolution import correlate
from refimpl.ops.operation import is_fixed
from refimpl.ops.transposed_convolution import conv_transpose
from refimpl.ops.windows import padded, sliding_windows, split_padding
from refimpl.ops.winograd import winograd, winograd_pays

quick = settings(max_examples=80)


@st.composite
def convolutions(draw, rank=2):
    """Draw sizes and attributes of a convolution whose kernel fits."""
    group = draw(st.integers(1, 4))
    depthwise = draw(st.booleans())
    # 24 channels with a wide kernel take the way of the large kernels
    several = draw(st.sampled_from([1, 2, 3, 24])), draw(st.integers(1, 3))
    per_input, per_output = (1, 1) if depthwise else several
    kernel = draw(st.tuples(*[st.integers(1, 5)] * rank))
    dilations = draw(st.tuples(*[st.integers(1, 3)] * rank))
    pads = draw(st.tuples(*[st.integers(0, 3)] * (2 * rank)))
    spatial = tuple(
        draw(st.integers(max(1, (k - 1) * d + 1 - p - q), 14))
        for k, d, p, q in zip(kernel, dilations, pads[:rank], pads[rank:], strict=True)
    )
    return {
        "x": (draw(st.integers(1, 2)), group * per_input, *spatial),
        "w": (group * per_output, per_input, *kernel),
        "attributes": {
            "group": group,
            "dilations": dilations,
            "pads": pads,
            "strides": draw(st.tuples(*[st.integers(1, 3)] * rank)),
        },
        "seed": draw(st.integers(0, 2**32 - 1)),
    }


def operands(case, dtype=np.float64):
    """Return x, w and b of a drawn case."""
    rng = np.random.default_rng(case["seed"])
    shapes = case["x"], case["w"], case["w"][:1]
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def torch_conv(torch, x, w, b, *, group, dilations, pads, strides):
    """PyTorch's convolution with ONNX's asymmetric padding."""
    rank = x.ndim - 2
    both = [n for axis in reversed(range(rank)) for n in (pads[axis], pads[axis + rank])]
    padded = torch.nn.functional.pad(torch.from_numpy(x), both)
    function = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}[
        rank
    ]
    return function(padded, torch.from_numpy(w), torch.from_numpy(b), strides, 0, dilations, group).numpy()


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.mark.runtimes
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv_equals_pytorch(torch, rank):
    @quick
    @given(case=convolutions(rank=rank))
    def check(case):
        x, w, b = operands(case)
        expected = torch_conv(torch, x, w, b, **case["attributes"])
        actual = conv(x, w, b, **case["attributes"])
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12 * w[0].size)

    check()


@pytest.mark.runtimes
@pytest.mark.parametrize(
    ("c_in", "c_out", "kernel", "stride", "group", "size"),
    [
        (48, 32, 3, 1, 1, (20, 24)),
        (48, 32, 3, 2, 2, (21, 23)),
        (64, 32, 1, 1, 1, (20, 24)),
        (64, 80, 3, 1, 1, (23, 25)),
        (3, 16, 3, 2, 1, (32, 64)),
        (40, 40, 3, 1, 40, (17, 40)),
        (40, 40, 5, 2, 40, (40, 37)),
        (600, 600, 3, 1, 600, (10, 20)),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layers_of_the_network_equal_pytorch(torch, c_in, c_out, kernel, stride, group, size, dtype):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, c_in, *size)).astype(dtype)
    w = rng.standard_normal((c_out, c_in // group, kernel, kernel)).astype(dtype)
    b = rng.standard_normal(c_out).astype(dtype)
    attributes = {
        "group": group,
        "dilations": (1, 1),
        "pads": (kernel // 2,) * 4,
        "strides": (stride, stride),
    }
    expected = torch_conv(torch, *(a.astype(np.float64) for a in (x, w, b)), **attributes)
    actual = conv(x, w, b, **attributes)
    assert actual.dtype == dtype
    # γ_n of n products and n additions, times the sum of the magnitudes
    magnitude = torch_conv(torch, *(np.abs(a.astype(np.float64)) for a in (x, w, b)), **attributes)
    unit_roundoff = np.finfo(dtype).eps / 2
    assert (np.abs(actual - expected) <= 2 * (w[0].size + 2) * unit_roundoff * magnitude).all()


def placed(case):
    """Return the windows of a drawn case, and its groups."""
    attributes = dict(case["attributes"])
    group = attributes.pop("group")
    return sliding_windows(case["x"][2:], case["w"][2:], **attributes), group


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_fast_ways_are_the_definition(rank):
    @quick
    @given(case=convolutions(rank=rank))
    def check(case):
        x, w, _ = operands(case)
        windows, group = placed(case)
        expected = convolve(x, w, windows, group)
        actual = correlate(x, w, windows, group)
        assert actual.shape == expected.shape == (case["x"][0], case["w"][0], *windows.output)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-13 * w[0].size)

    check()


@st.composite
def winograd_convolutions(draw):
    """Draw operands of small whole numbers, the windows of a 3×3 kernel, and how many tiles make a block."""
    pads = draw(st.tuples(*[st.integers(0, 3)] * 4))
    rows, columns = (draw(st.integers(max(1, 3 - pads[i] - pads[i + 2]), 19)) for i in (0, 1))
    images, inputs, outputs = (draw(st.integers(1, most)) for most in (2, 5, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.integers(-9, 10, (images, inputs, rows, columns)).astype(np.float32)
    w = rng.integers(-9, 10, (outputs, inputs, 3, 3)).astype(np.float32)
    return x, w, sliding_windows(x.shape[2:], (3, 3), pads=pads), draw(st.integers(1, 60))


@given(case=winograd_convolutions())
@quick
def test_winograds_way_is_exact_of_whole_numbers(case):
    x, w, windows, block = case
    with mock.patch.object(refimpl.ops.winograd, "BLOCK", block):
        np.testing.assert_array_equal(winograd(x, w, windows), convolve(x, w, windows, group=1))


def large_convolution():
    """Return operands in float32 that Winograd's way pays for, and their windows."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 96, 24, 31)).astype(np.float32)
    w = rng.standard_normal((64, 96, 3, 3)).astype(np.float32)
    windows = sliding_windows(x.shape[2:], (3, 3), pads=(1, 1, 1, 1))
    assert winograd_pays(x, w, windows)
    return x, w, windows


def test_winograds_way_errs_about_as_much_as_products_do():
    x, w, windows = large_convolution()
    exact = convolve(x.astype(np.float64), w.astype(np.float64), windows, group=1)
    error = np.abs(correlate(x, w, windows, group=1) - exact)
    assert 0 < error.max() < 2 * np.abs(convolve(x, w, windows, group=1) - exact).max()


def test_the_truth_is_not_computed_by_winograds_way():
    x, w, windows = large_convolution()
    assert not winograd_pays(x.astype(np.float64), w.astype(np.float64), windows)


def transforms(w):
    """Return how often weights are transformed in two convolutions, and the second, halved before it."""
    x, _, windows = large_convolution()
    with mock.patch.object(refimpl.ops.winograd, "_filters", wraps=refimpl.ops.winograd._filters) as made:
        winograd(x, w, windows)
        if w.flags.writeable or not is_fixed(w):
            (w if w.flags.writeable else w.base)[:] /= 2
        second = winograd(x, w, windows)
    return made.call_count, second


def test_weights_that_nobody_can_change_are_transformed_once():
    x, w, windows = large_convolution()
    whole, half = winograd(x, w, windows), winograd(x, w / 2, windows)
    fixed, view = w.copy(), w.copy().view()
    fixed.flags.writeable = view.flags.writeable = False
    part = fixed[:]
    for weights, times, expected in (
        (fixed, 1, whole),
        (part, 1, whole),
        (view, 2, half),
        (w.copy(), 2, half),
    ):
        count, made = transforms(weights)
        assert count == times
        np.testing.assert_array_equal(made, expected)
    kept = len(refimpl.ops.winograd._kept)
    del fixed, part, weights
    gc.collect()  # what was counted with refers to itself
    assert len(refimpl.ops.winograd._kept) == kept - 2


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3e38])
def test_what_is_not_finite_stays_in_the_windows_that_read_it(value):
    x, w, windows = large_convolution()
    x[0, :, 10, 11] = value
    with np.errstate(invalid="ignore", over="ignore"):
        expected = convolve(x, w, windows, group=1)
        actual = correlate(x, w, windows, group=1)
    far = np.ones(expected.shape, bool)
    far[:, :, 9:12, 10:13] = False
    assert not np.isfinite(actual[~far]).any()
    np.testing.assert_allclose(actual[far], expected[far], rtol=0, atol=1e-3)


@pytest.mark.parametrize("value", [1e4, -1e12, 1e30])
def test_what_is_huge_is_lost_by_no_window_that_does_not_read_it(value):
    x, w, windows = large_convolution()
    x[0, 5, 10, 11] = value
    expected = convolve(x.astype(np.float64), w.astype(np.float64), windows, group=1)
    far = np.ones(expected.shape, bool)
    far[:, :, 9:12, 10:13] = False
    np.testing.assert_allclose(correlate(x, w, windows, 1)[far], expected[far], rtol=0, atol=1e-4)


@given(case=convolutions(rank=1))
@settings(max_examples=40)
def test_one_group_equals_scipy_correlation(case):
    x, w, b = operands(case)
    attributes = dict(case["attributes"])
    x, attributes["group"] = x[:, : w.shape[1]], 1
    (before, after), (dilation,), (stride,) = (
        attributes["pads"],
        attributes["dilations"],
        attributes["strides"],
    )
    spread = np.zeros((*w.shape[:2], (w.shape[2] - 1) * dilation + 1))
    spread[..., ::dilation] = w
    padded = np.pad(x, ((0, 0), (0, 0), (before, after)))
    expected = np.stack(
        [
            [signal.correlate(image, kernel, mode="valid", method="direct")[0, ::stride] for kernel in spread]
            for image in padded
        ]
    )
    np.testing.assert_allclose(conv(x, w, b, **attributes), expected + b[:, None], rtol=0, atol=1e-12)


def brute_force(x, w, strides, pads, dilations, group):
    """Convolve whole numbers in Python's unbounded integers."""
    x = np.pad(x, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3]))).astype(object)
    batch, _, height, width = x.shape
    c_out, depth, rows, columns = w.shape
    out_h = (height - (rows - 1) * dilations[0] - 1) // strides[0] + 1
    out_w = (width - (columns - 1) * dilations[1] - 1) // strides[1] + 1
    result = np.zeros((batch, c_out, out_h, out_w), dtype=object)
    for n, m, i, j in itertools.product(*map(range, result.shape)):
        base = m // (c_out // group) * depth
        for c, u, v in itertools.product(range(depth), range(rows), range(columns)):
            y, z = i * strides[0] + u * dilations[0], j * strides[1] + v * dilations[1]
            result[n, m, i, j] += int(x[n, base + c, y, z]) * int(w[m, c, u, v])
    return result.astype(np.float64)


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "attributes"),
    [
        (
            (1, 4, 7, 6),
            (4, 4, 3, 3),
            {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), "group": 1},
        ),
        (
            (1, 33, 6, 5),
            (2, 33, 2, 3),
            {"strides": (1, 2), "pads": (0, 1, 1, 0), "dilations": (1, 1), "group": 1},
        ),
        (
            (1, 5, 9, 8),
            (5, 1, 3, 3),
            {"strides": (2, 2), "pads": (1, 1, 1, 1), "dilations": (1, 1), "group": 5},
        ),
        (
            (2, 3, 9, 9),
            (3, 1, 2, 3),
            {"strides": (1, 1), "pads": (2, 0, 0, 1), "dilations": (2, 3), "group": 3},
        ),
        (
            (2, 24, 9, 8),
            (2, 24, 3, 3),
            {"strides": (2, 1), "pads": (1, 2, 0, 3), "dilations": (2, 3), "group": 1},
        ),
        (
            (1, 4, 6, 6),
            (6, 2, 3, 1),
            {"strides": (1, 3), "pads": (0, 0, 0, 0), "dilations": (1, 1), "group": 2},
        ),
    ],
)
def test_whole_numbers_are_convolved_exactly(x_shape, w_shape, attributes):
    rng = np.random.default_rng(3)
    x, w = (rng.integers(-(2**20), 2**20, shape).astype(np.float64) for shape in (x_shape, w_shape))
    expected = brute_force(x, w, **attributes)
    np.testing.assert_array_equal(conv(x, w, **attributes), expected)
    case = {"x": x_shape, "w": w_shape, "attributes": attributes}
    np.testing.assert_array_equal(convolve(x, w, *placed(case)), expected)


@given(
    x=arrays(np.float64, (1, 2, 6, 7), elements=st.floats(-8, 8, width=16)),
    shift=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
@quick
def test_a_unit_kernel_shifts(x, shift):
    w = np.zeros((2, 1, 3, 3))
    w[:, :, shift[0], shift[1]] = 1
    expected = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))[
        :, :, shift[0] : shift[0] + 6, shift[1] : shift[1] + 7
    ]
    np.testing.assert_array_equal(conv(x, w, group=2, pads=(1, 1, 1, 1)), expected)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_a_value_that_is_not_finite_reaches_its_windows_only(value):
    x = np.ones((1, 2, 12, 12))
    x[0, 1, 5, 5] = value
    result = conv(x, np.ones((2, 1, 3, 3)), group=2, pads=(1, 1, 1, 1))
    reached = np.zeros(result.shape, dtype=bool)
    reached[0, 1, 4:7, 4:7] = True
    np.testing.assert_array_equal(~np.isfinite(result), reached)
    np.testing.assert_array_equal(result[reached], value)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("group", [1, 4])
def test_dtype_is_kept(dtype, group):
    x, w = np.ones((1, 4, 6, 6), dtype), np.ones((4, 4 // group, 3, 3), dtype)
    for result in (conv(x, w, w[:, 0, 0, 0], group=group), conv_transpose(x, w, group=group)):
        assert result.dtype == dtype
        assert result.flags.c_contiguous


def test_operands_are_left_alone():
    rng = np.random.default_rng(0)
    x, w, b = rng.random((1, 4, 5, 5)), rng.random((4, 4, 1, 1)), rng.random(4)
    before = [a.copy() for a in (x, w, b)]
    conv(x, w, b)[:] = 7
    for array, kept in zip((x, w, b), before, strict=True):
        np.testing.assert_array_equal(array, kept)


@pytest.mark.parametrize(("auto_pad", "pads"), [("SAME_UPPER", (0, 0, 1, 1)), ("SAME_LOWER", (1, 1, 0, 0))])
def test_auto_pad_places_the_odd_element(auto_pad, pads):
    rng = np.random.default_rng(0)
    x, w = rng.random((1, 2, 6, 8)), rng.random((3, 2, 3, 3))
    same = conv(x, w, auto_pad=auto_pad, strides=(2, 2))
    assert same.shape == (1, 3, 3, 4)
    np.testing.assert_array_equal(same, conv(x, w, pads=pads, strides=(2, 2)))
    np.testing.assert_array_equal(conv(x, w, auto_pad="VALID"), conv(x, w))


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
def test_same_padding_is_what_onnx_computes(auto_pad):
    """An impulse at every place finds where ONNX's reference puts the windows."""
    for size, kernel, stride in [(6, 3, 2), (7, 3, 2), (5, 4, 1), (9, 2, 3), (8, 5, 3), (4, 4, 4)]:
        x, w = np.eye(size)[:, None], np.arange(1.0, kernel + 1)[None, None]
        node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], auto_pad=auto_pad, strides=[stride])
        evaluator = onnx.reference.ReferenceEvaluator(node)
        (expected,) = evaluator.run(None, {"x": x, "w": w})
        windows = sliding_windows((size,), (kernel,), auto_pad=auto_pad, strides=(stride,))
        total = windows.begin[0] + windows.end[0]
        assert (windows.begin, windows.end) == split_padding(auto_pad, (total,))
        found = [padded(x, windows)[index] * w[0, 0, tap] for (tap,), index in windows.taps()]
        np.testing.assert_array_equal(sum(found), expected)


@given(st.data())
def test_windows_are_numpys(data):
    rank = data.draw(st.integers(1, 3))

    def draw(low, high):
        return tuple(data.draw(st.integers(low, high)) for _ in range(rank))

    kernel, strides, dilations, begin, end = draw(1, 3), draw(1, 3), draw(1, 2), draw(0, 2), draw(0, 2)
    size = draw(5, 8)
    x = np.random.default_rng(0).normal(size=(2, 3, *size))
    windows = sliding_windows(size, kernel, dilations=dilations, pads=(*begin, *end), strides=strides)
    around = np.pad(x, [(0, 0), (0, 0), *zip(begin, end, strict=True)])
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    views = np.lib.stride_tricks.sliding_window_view(around, spans, axis=tuple(range(2, 2 + rank)))
    views = views[(..., *(slice(None, None, s) for s in strides), *(slice(None, None, d) for d in dilations))]
    assert windows.output == views.shape[2 : 2 + rank]
    given_to = padded(x, windows)
    for tap, index in windows.taps():
        np.testing.assert_array_equal(given_to[index], views[(..., *tap)])


@st.composite
def transposed(draw):
    """Draw a transposed convolution that leaves some output."""
    group, stride, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    return {
        "x": (
            draw(st.integers(1, 2)),
            group * draw(st.integers(1, 3)),
            *draw(st.tuples(*[st.integers(3, 7)] * 2)),
        ),
        "w": (group, draw(st.integers(1, 3)), *kernel),
        "stride": stride,
        "dilation": dilation,
        "padding": draw(st.integers(0, min(kernel) // 2)),
        "extra": draw(st.integers(0, max(stride, dilation) - 1)),
        "seed": draw(st.integers(0, 2**32 - 1)),
    }


@pytest.mark.runtimes
@quick
@given(case=transposed())
def test_conv_transpose_equals_pytorch(torch, case):
    group, per_group, *kernel = case["w"]
    rng = np.random.default_rng(case["seed"])
    x = rng.standard_normal(case["x"])
    w = rng.standard_normal((case["x"][1], per_group, *kernel))
    b = rng.standard_normal(group * per_group)
    stride, dilation, padding, extra = (case[name] for name in ("stride", "dilation", "padding", "extra"))
    expected = torch.nn.functional.conv_transpose2d(
        *map(torch.from_numpy, (x, w, b)), stride, padding, extra, group, dilation
    )
    actual = conv_transpose(
        x,
        w,
        b,
        group=group,
        strides=(stride,) * 2,
        pads=(padding,) * 4,
        dilations=(dilation,) * 2,
        output_padding=(extra,) * 2,
    )
    np.testing.assert_allclose(actual, expected.numpy(), rtol=0, atol=1e-12)


@quick
@given(case=convolutions())
def test_conv_transpose_is_the_adjoint(case):
    """⟨conv(x), y⟩ = ⟨x, conv_transpose(y)⟩."""
    x, w, _ = operands(case)
    y = conv(x, w, **case["attributes"])
    y = np.random.default_rng(case["seed"]).standard_normal(y.shape)
    back = conv_transpose(y, w, **(case["attributes"] | {"pads": (0,) * 4}))
    top, left = case["attributes"]["pads"][:2]
    extents = zip(back.shape[2:], x.shape[2:], (top, left), strict=True)
    whole = np.zeros((*x.shape[:2], *(max(n, m + p) for n, m, p in extents)))
    whole[:, :, : back.shape[2], : back.shape[3]] = back
    inside = whole[:, :, top : top + x.shape[2], left : left + x.shape[3]]
    np.testing.assert_allclose(
        (conv(x, w, **case["attributes"]) * y).sum(), (x * inside).sum(), rtol=0, atol=1e-9
    )


def test_conv_transpose_output_shape_decides_the_padding():
    rng = np.random.default_rng(0)
    x, w = rng.random((1, 2, 3, 3)), rng.random((2, 1, 3, 3))
    full = conv_transpose(x, w, strides=(2, 2))
    wanted = conv_transpose(x, w, strides=(2, 2), output_shape=(6, 6), auto_pad="SAME_UPPER")
    np.testing.assert_array_equal(wanted, full[:, :, :6, :6])
    wanted = conv_transpose(x, w, strides=(2, 2), auto_pad="SAME_LOWER")
    np.testing.assert_array_equal(wanted, full[:, :, 1:, 1:])


@pytest.mark.parametrize(
    ("x", "w", "b", "attributes", "message"),
    [
        ((3, 8, 8), (4, 3, 3, 3), None, {}, "rank"),
        ((1, 4, 8, 8), (4, 1, 3, 3), None, {"group": 3}, "3 groups"),
        ((1, 4, 8, 8), (4, 3, 3, 3), None, {}, "4 channels"),
        ((1, 4, 2, 8), (4, 4, 3, 3), None, {}, "spans 3"),
        ((1, 4, 8, 8), (4, 4, 3, 3), (5,), {}, "bias"),
        ((1, 4, 8, 8), (4, 4, 3, 3), None, {"pads": (1, 1)}, "pads"),
        ((1, 4, 8, 8), (4, 4, 3, 3), None, {"strides": (0, 1)}, "strides"),
        ((1, 4, 8, 8), (4, 4, 3, 3), None, {"kernel_shape": (5, 5)}, "kernel_shape"),
    ],
)
def test_operands_that_do_not_fit_are_named(x, w, b, attributes, message):
    with pytest.raises(ShapeError, match=message):
        conv(np.zeros(x), np.zeros(w), None if b is None else np.zeros(b), **attributes)


def test_an_unknown_auto_pad_is_named():
    with pytest.raises(ConfigurationError, match="SAME_MIDDLE"):
        conv(np.zeros((1, 1, 4, 4)), np.zeros((1, 1, 3, 3)), auto_pad="SAME_MIDDLE")
