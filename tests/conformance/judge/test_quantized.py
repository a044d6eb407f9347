"""Quantised results in steps of their scale: exact integers pass, altered scales and points fail."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.quantized import CPUS, judge_units, only_as_shipped
from refimpl.ops.operation import Array

SHAPE = (1, 3, 8, 8)
SCALES = {"x": 0.02, "a": 0.05, "b": 0.04}
POINTS = {"x": 120, "a": 0, "b": 131}
RNG = np.random.default_rng(7)
WEIGHTS = {name: RNG.integers(-127, 128, (3, 3, 3, 3)).astype(np.int8) for name in ("v", "w")}
FACTOR = RNG.integers(-127, 128, (8, 8)).astype(np.int8)
X = {"x": RNG.normal(size=SHAPE).astype(np.float32)}


def node(op_type: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    """Return a node named after what it makes."""
    return helper.make_node(op_type, inputs.split(), [output], f"{output}/{op_type}", **attributes)


@functools.cache
def graph(dtype: str = "uint8", domain: str = "", first: str = "Conv") -> OnnxGraph:
    """Return x quantised, two convolutions, the first saturating at zero as a ReLU does, dequantised."""
    made = [node("QuantizeLinear", "x x_scale x_point", "xq", domain=domain)]
    for given, weight, result in (("x", "v", "a"), ("a", "w", "b")):
        made += [
            node("DequantizeLinear", f"{given}q {given}_scale {given}_point", f"{given}d", domain=domain),
            node("DequantizeLinear", f"{weight}q {weight}_scale", f"{weight}d"),
            node("MatMul", f"{given}d md", f"{result}r")
            if (weight, first) == ("v", "MatMul")
            else node("Conv", f"{given}d {weight}d", f"{result}r", pads=[1, 1, 1, 1]),
            node("QuantizeLinear", f"{result}r {result}_scale {result}_point", f"{result}q", domain=domain),
        ]
    points = dict(POINTS)
    if first == "MatMul":
        # Nothing is cut off in between, so that leaving it out would change little.
        points["a"] = 128
        made.insert(1, node("DequantizeLinear", "mq v_scale", "md"))
    made.append(node("DequantizeLinear", "bq b_scale b_point", "y", domain=domain))
    constants = {f"{name}_scale": np.float32(scale) for name, scale in SCALES.items()}
    constants |= {f"{name}_point": np.dtype(dtype).type(point) for name, point in points.items()}
    constants |= {f"{name}q": weight for name, weight in WEIGHTS.items()}
    constants |= {f"{name}_scale": np.float32(0.001) for name in WEIGHTS} | {"mq": FACTOR}
    model = helper.make_model(
        helper.make_graph(
            made,
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, SHAPE)],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 21)] + [helper.make_opsetid(domain, 1)] * bool(domain),
        ir_version=10,
    )
    return OnnxGraph.load(model)


def convolved(integers: Array, point: float, weight: str) -> Array:
    """Convolve by sums over taps, in integers: what no floating point has touched."""
    padded = np.pad(integers.astype(np.int64) - int(point), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.einsum("bchwij,ocij->bohw", windows, WEIGHTS[weight].astype(np.int64))


def integers(dtype: str = "uint8", *, scale_of_a: float = 1.0, point_of_b: int = 0) -> dict[str, Array]:
    """Return what an integer runtime makes of X, with a scale or a point that may be wrong."""
    ends = np.iinfo(dtype)

    def stored(real: Array, name: str, factor: float = 1.0, shift: int = 0) -> Array:
        steps = np.rint(real / (np.float64(np.float32(SCALES[name])) * factor)) + POINTS[name] + shift
        return np.clip(steps, ends.min, ends.max).astype(dtype)

    unit = np.float64(np.float32(0.001))
    xq = stored(X["x"].astype(np.float64), "x")
    aq = stored(convolved(xq, POINTS["x"], "v") * unit * np.float32(SCALES["x"]), "a", scale_of_a)
    real = convolved(aq, POINTS["a"], "w") * unit * np.float32(SCALES["a"])
    return {"xq": xq, "aq": aq, "bq": stored(real, "b", shift=point_of_b)}


def verdicts(tensors: dict[str, Array], dtype: str = "uint8", domain: str = "") -> dict[str, str]:
    """Return the verdict on each integer result."""
    rows, _ = judge_units(graph(dtype, domain), X, tensors)
    return {row.name: row.verdict for row in rows}


@pytest.mark.parametrize(("dtype", "domain"), [("uint8", ""), ("uint16", ""), ("uint16", "com.microsoft")])
def test_exact_integers_pass_half_a_step_apart(dtype: str, domain: str) -> None:
    tensors = integers(dtype)
    rows, remarks = judge_units(graph(dtype, domain), X, tensors)
    assert [row.verdict for row in rows] == ["pass"] * 3
    assert all(row.introduced_error is not None and row.introduced_error <= 0.5 + 1e-6 for row in rows)
    assert not remarks
    assert tensors["aq"].min() == 0, "the first convolution is meant to saturate"


@pytest.mark.parametrize("dtype", ["uint8"])
def test_a_scale_and_a_point_that_are_wrong_fail_where_they_are(dtype: str) -> None:
    assert verdicts(integers(dtype, scale_of_a=1.05)) == {"xq": "pass", "aq": "fail", "bq": "pass"}
    assert verdicts(integers(dtype, point_of_b=3)) == {"xq": "pass", "aq": "pass", "bq": "fail"}


def test_a_saturation_left_out_in_between_is_said() -> None:
    """As a runtime fuses the two convolutions: what is below zero in between is not cut off."""
    tensors = integers()
    unit = np.float64(np.float32(0.001))
    wide = convolved(tensors["xq"], POINTS["x"], "v") * unit * np.float32(SCALES["x"])
    padded = np.pad(wide, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    real = np.einsum("bchwij,ocij->bohw", windows, WEIGHTS["w"].astype(np.float64)) * unit
    steps = np.rint(real / np.float32(SCALES["b"])) + POINTS["b"]
    fused = {**tensors, "bq": np.clip(steps, 0, 255).astype(np.uint8)}
    assert np.abs(fused["bq"].astype(int) - tensors["bq"]).max() > 3
    rows, remarks = judge_units(graph(), X, fused)
    assert [row.verdict for row in rows] == ["pass"] * 3
    assert len(remarks) == 1
    assert "left out" in remarks[0]


def test_what_a_unit_before_may_lose_explains_nothing_of_the_next() -> None:
    """The NPU loses up to 2.5 steps in a product of activations, and none in a convolution behind it."""
    model = graph(first="MatMul")
    unit = np.float64(np.float32(0.001))
    xq = integers()["xq"]
    product = (xq.astype(np.int64) - POINTS["x"]) @ FACTOR.astype(np.int64)
    real = product * unit * np.float32(SCALES["x"])
    aq = np.clip(np.rint(real / np.float32(SCALES["a"])) + 128, 0, 255).astype(np.uint8)
    real = convolved(aq, 128, "w") * unit * np.float32(SCALES["a"])
    bq = np.clip(np.rint(real / np.float32(SCALES["b"])) + POINTS["b"], 0, 255)
    for off in range(5):
        tensors = {"xq": xq, "aq": aq, "bq": np.clip(bq + off, 0, 255).astype(np.uint8)}
        rows, _ = judge_units(model, X, tensors)
        assert [row.verdict for row in rows] == ["pass", "pass", "fail" if off else "pass"], off


def test_a_result_of_another_shape_fails() -> None:
    tensors = integers()
    assert verdicts({**tensors, "bq": tensors["bq"][..., :4]})["bq"] == "fail"


def test_what_leads_only_to_an_output_that_is_another_when_shown_is_not_judged() -> None:
    tensors = integers()
    rows, _ = judge_units(graph(), X, {**tensors, "bq": tensors["bq"] + np.uint8(9)})
    assert rows[-1].verdict == "fail"
    y = {"y": np.ones(SHAPE, np.float32)}
    kept, remarks = only_as_shipped(graph(), rows, y, y)
    assert (kept, remarks) == (rows, [])
    left, (remark,) = only_as_shipped(graph(), rows, y, {"y": 2 * y["y"]})
    assert [row.verdict for row in left] == ["not judged"] * 3
    assert "y; the 3 results" in remark


def pooled() -> OnnxGraph:
    """Return the largest of 2×2 integers of a byte, in the same steps."""
    held = {"scale": np.float32(0.05), "point": np.int8(-3)}
    nodes = [
        node("QuantizeLinear", "x scale point", "xq"),
        node("DequantizeLinear", "xq scale point", "xd"),
        node("MaxPool", "xd", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("QuantizeLinear", "p scale point", "pq"),
        node("DequantizeLinear", "pq scale point", "y"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    ends[0] = helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)
    constants = [numpy_helper.from_array(np.asarray(each), name) for name, each in held.items()]
    made = helper.make_graph(nodes, "pooled", ends[:1], ends[1:], constants)
    return OnnxGraph.load(helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))


def windows(x: Array) -> Array:
    return x.reshape(1, 3, 4, 2, 4, 2)


@pytest.mark.parametrize("how", ["right", "as if signed", "one column"])
def test_how_a_kernel_of_a_cpu_is_wrong_is_said(how: str) -> None:
    x = np.random.default_rng(3).integers(-128, 128, SHAPE).astype(np.int8)
    right = windows(x).max(axis=(3, 5))
    made = {
        "right": right,
        "as if signed": windows(x ^ np.int8(-128)).max(axis=(3, 5)) ^ np.int8(-128),
        "one column": np.where(np.arange(4) == 3, np.int8(0), right),
    }[how]
    rows, remarks = judge_units(pooled(), X, {"xq": x, "pq": made}, CPUS)
    (row,) = (each for each in rows if each.name == "pq")
    assert row.verdict == ("pass" if how == "right" else "fail")
    said = [each for each in remarks if each.startswith("p/MaxPool")]
    expected = {"right": [], "as if signed": ["right if bytes of 128 more are compared as signed"]}
    for text in expected.get(how, ["in 1 of 4 columns only: 3"]):
        assert text in said[0]
    assert bool(said) == (how != "right")
