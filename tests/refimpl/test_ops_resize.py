"""Resize against PyTorch, onnx.reference, ONNX Runtime and the definition of interpolation."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnxruntime import InferenceSession

from refimpl.errors import ConfigurationError, ShapeError
from refimpl.ops.resize import resize

MODES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_crop_and_resize",
)
sizes = st.tuples(st.integers(1, 13), st.integers(1, 13))


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def picture(size, dtype=np.float64):
    return np.random.default_rng(0).standard_normal((2, 3, *size)).astype(dtype)


@pytest.mark.runtimes
@pytest.mark.parametrize(("pytorch_mode", "mode"), [("bilinear", "linear"), ("bicubic", "cubic")])
@pytest.mark.parametrize("align_corners", [False, True])
def test_interpolation_equals_pytorch(torch, pytorch_mode, mode, align_corners):
    @settings(max_examples=60)
    @given(old=sizes, new=sizes)
    def check(old, new):
        x = picture(old)
        expected = torch.nn.functional.interpolate(
            torch.from_numpy(x), size=new, mode=pytorch_mode, align_corners=align_corners
        )
        coordinates = "align_corners" if align_corners else "half_pixel"
        actual = resize(x, None, None, (2, 3, *new), mode=mode, coordinate_transformation_mode=coordinates)
        np.testing.assert_allclose(actual, expected.numpy(), rtol=0, atol=1e-13)

    check()


@pytest.mark.runtimes
@settings(max_examples=60)
@given(old=sizes, factors=st.tuples(st.integers(1, 4), st.integers(1, 4)))
def test_nearest_equals_pytorch(torch, old, factors):
    x = picture(old)
    new = [n * f for n, f in zip(old, factors, strict=True)]
    expected = torch.nn.functional.interpolate(torch.from_numpy(x), size=new, mode="nearest").numpy()
    attributes = {"nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    np.testing.assert_array_equal(resize(x, None, None, (2, 3, *new), **attributes), expected)
    np.testing.assert_array_equal(resize(x, None, (1.0, 1.0, *factors), None, **attributes), expected)


@pytest.mark.runtimes
@pytest.mark.parametrize("rank", [1, 3])
def test_linear_in_other_ranks_equals_pytorch(torch, rank):
    x = np.random.default_rng(0).standard_normal((2, 3, *(5, 4, 6)[:rank]))
    new = (8, 9, 3)[:rank]
    mode = {1: "linear", 3: "trilinear"}[rank]
    expected = torch.nn.functional.interpolate(torch.from_numpy(x), size=new, mode=mode)
    actual = resize(x, None, None, (2, 3, *new), mode="linear")
    np.testing.assert_allclose(actual, expected.numpy(), rtol=0, atol=1e-14)


def reference(x, roi, scales, new_sizes, **attributes):
    """Resize by onnx.reference."""
    given_inputs = {"x": x}
    for name, value, dtype in (
        ("roi", roi, np.float64),
        ("scales", scales, np.float32),
        ("sizes", new_sizes, np.int64),
    ):
        if value is not None:
            given_inputs[name] = np.asarray(value, dtype)
    names = [name if name in given_inputs else "" for name in ("x", "roi", "scales", "sizes")]
    node = helper.make_node("Resize", names, ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "resize",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), None)
            for n, a in given_inputs.items()
        ],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
    return ReferenceEvaluator(model).run(None, given_inputs)[0]


def bound(x, mode):
    """Largest difference that arithmetic explains: onnx.reference computes cubic weights in float32.

    Its Horner steps pass through numbers up to 8 |a| = 6 and round about eight times; four weights, two axes.
    """
    roundoff = 2.0**-24 if mode == "cubic" else 2.0**-53
    return 8 * 6 * 4 * 2 * roundoff * np.abs(x).max()


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("coordinates", MODES)
@pytest.mark.parametrize(
    ("scales", "new_sizes"),
    [((2.0, 0.625), None), ((1.3, 2.7), None), ((0.5, 0.3), None), (None, (9, 4)), (None, (2, 13))],
)
def test_every_coordinate_mode_equals_onnx_reference(mode, coordinates, scales, new_sizes):
    x = np.random.default_rng(0).standard_normal((6, 8))
    roi = (-0.1, 0.2, 0.8, 1.1) if coordinates == "tf_crop_and_resize" else None
    scales = None if scales is None else np.float32(scales)
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates, "extrapolation_value": 7.0}
    expected = reference(x, roi, scales, new_sizes, **attributes)
    np.testing.assert_allclose(
        resize(x, roi, scales, new_sizes, **attributes), expected, rtol=0, atol=bound(x, mode)
    )


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_exclude_outside_equals_onnx_reference(mode):
    x = np.random.default_rng(0).standard_normal((5, 6))
    attributes = {"mode": mode, "exclude_outside": 1, "cubic_coeff_a": -0.5}
    expected = reference(x, None, (1.6, 0.5), None, **attributes)
    actual = resize(x, None, np.float32((1.6, 0.5)), **attributes)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=bound(x, mode))


@pytest.mark.parametrize("policy", ["stretch", "not_larger", "not_smaller"])
def test_aspect_ratio_policies_equal_onnx_reference(policy):
    x = np.random.default_rng(0).standard_normal((1, 2, 5, 8))
    attributes = {"axes": [2, 3], "keep_aspect_ratio_policy": policy, "mode": "linear"}
    expected = reference(x, None, None, (8, 9), **attributes)
    actual = resize(x, None, None, (8, 9), **attributes)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("nearest_mode", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
def test_nearest_modes_settle_ties(nearest_mode):
    x = np.arange(4.0)
    attributes = {"nearest_mode": nearest_mode, "coordinate_transformation_mode": "asymmetric"}
    expected = {  # coordinates 0, ½, 1, 1½, 2, 2½, 3, 3½
        "round_prefer_floor": [0, 0, 1, 1, 2, 2, 3, 3],
        "round_prefer_ceil": [0, 1, 1, 2, 2, 3, 3, 3],
        "floor": [0, 0, 1, 1, 2, 2, 3, 3],
        "ceil": [0, 1, 1, 2, 2, 3, 3, 3],
    }
    np.testing.assert_array_equal(resize(x, None, (2.0,), **attributes), expected[nearest_mode])


def test_tensorflow_half_pixel_for_nearest():
    """(i + ½) / scale, without the half of the input pixel."""
    actual = resize(
        np.arange(6.0),
        None,
        (0.5,),
        coordinate_transformation_mode="tf_half_pixel_for_nn",
        nearest_mode="floor",
    )
    np.testing.assert_array_equal(actual, [1, 3, 5])


@settings(max_examples=60)
@given(old=st.integers(2, 300), new=st.integers(2, 300), slope=st.floats(-4, 4), start=st.floats(-4, 4))
def test_linear_interpolation_keeps_a_line(old, new, slope, start):
    """Corner to corner a line stays the line, on axes short and long."""
    x = start + slope * np.linspace(0, 1, old)
    actual = resize(x, None, None, (new,), mode="linear", coordinate_transformation_mode="align_corners")
    np.testing.assert_allclose(actual, start + slope * np.linspace(0, 1, new), rtol=0, atol=1e-12)


def test_coordinates_follow_the_given_scale():
    """7 · 0.5 = 3.5 is cut to 3 elements, but neighbours stay two apart."""
    actual = resize(np.arange(7.0), None, (0.5,), mode="linear", coordinate_transformation_mode="asymmetric")
    np.testing.assert_array_equal(actual, [0, 2, 4])


def test_the_new_size_is_onnx_runtimes():
    """The product is float32's: 10 · 0.7 is 7, which 0.7 as float32, taken to float64, falls short of."""
    graph = helper.make_graph(
        [helper.make_node("Resize", ["x", "", "scales"], ["y"])],
        "resize",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"]),
            helper.make_tensor_value_info("scales", TensorProto.FLOAT, [1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["m"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for size, tenths in itertools.product(range(1, 31), range(10, 41)):
        feeds = {"x": np.zeros(size, np.float32), "scales": np.float32([tenths / 10])}
        expected = session.run(None, feeds)[0].shape
        assert resize(feeds["x"], None, feeds["scales"]).shape == expected, (size, tenths)


def test_infinity_reaches_only_its_neighbours():
    x = np.zeros((1, 1, 8, 8))
    x[0, 0, 4, 4] = np.inf
    result = resize(x, None, (1, 1, 2, 2), mode="linear")
    reached = np.zeros((16, 16), dtype=bool)
    reached[7:11, 7:11] = True
    np.testing.assert_array_equal(~np.isfinite(result[0, 0]), reached)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_dtype_is_kept(dtype, mode):
    x = np.array([[0, 255], [255, 0]], dtype)
    result = resize(x, None, (3.0, 3.0), mode=mode)
    assert result.dtype == dtype
    if dtype == np.uint8 and mode != "nearest":
        exact = resize(x.astype(np.float64), None, (3.0, 3.0), mode=mode)
        np.testing.assert_array_equal(result, np.rint(exact).clip(0, 255))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_the_input_is_left_alone(mode):
    x = np.ones((1, 1, 3, 3))
    resize(x, None, (1, 1, 2, 2), mode=mode)[...] = 5
    np.testing.assert_array_equal(x, 1)


@pytest.mark.parametrize(
    ("arguments", "attributes", "error", "message"),
    [
        ((None, None, None), {}, ShapeError, "either scales or sizes"),
        ((None, (2.0, 2.0), (4, 4)), {}, ShapeError, "either scales or sizes"),
        ((None, (2.0,), None), {}, ShapeError, "scales"),
        ((None, None, (4, 0)), {}, ShapeError, "sizes"),
        (((0.0, 1.0), (2.0, 2.0), None), {}, ShapeError, "roi"),
        ((None, (2.0, 2.0), None), {"axes": (0, 2)}, ShapeError, "axes"),
        ((None, (2.0, 2.0), None), {"mode": "area"}, ConfigurationError, "area"),
        ((None, (2.0, 2.0), None), {"nearest_mode": "up"}, ConfigurationError, "up"),
        ((None, (2.0, 2.0), None), {"coordinate_transformation_mode": "x"}, ConfigurationError, "'x'"),
        ((None, None, (4, 4)), {"keep_aspect_ratio_policy": "x"}, ConfigurationError, "'x'"),
        ((None, (0.1, 2.0), None), {}, ShapeError, "nothing"),
    ],
)
def test_arguments_that_do_not_fit_are_named(arguments, attributes, error, message):
    with pytest.raises(error, match=message):
        resize(np.zeros((2, 2)), *arguments, **attributes)


@pytest.mark.parametrize("roi", [(0.2, 0.8), (0.0, 1.0), (0.5, 0.5), (0.1, 0.3)])
@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_region_cut_out_and_resized_to_any_length(roi, length):
    """One element is taken from the middle of the region."""
    x = np.array([3, 1, 4, 1, 5, 9, 2], np.float64)
    middles = [(roi[0] + roi[1]) / 2] if length == 1 else np.linspace(*roi, length)
    expected = np.interp(np.asarray(middles) * (x.size - 1), np.arange(x.size), x)
    found = resize(
        x, list(roi), None, [length], mode="linear", coordinate_transformation_mode="tf_crop_and_resize"
    )
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("roi", [[0.0], [0.0, 0.0, 1.0], [0.0] * 5])
def test_a_region_has_two_ends_for_every_axis(roi):
    with pytest.raises(ShapeError, match="expected 2 starts, then 2 ends"):
        resize(np.ones((2, 2)), roi, None, [2, 2], coordinate_transformation_mode="tf_crop_and_resize")
