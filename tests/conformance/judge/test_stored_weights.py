"""Weights of a file in the place of the reference's: rounded here, channel by channel, as converters do."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import narrow_network
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from conformance.bounds import INT8, INT8_OF_RANGE, Declaration, copied_weights
from conformance.conversion.stored_weight import StoredWeight
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.recorded import graph_recording
from conformance.judge.against import verify_against
from conformance.judge.stored_weights import taken_over, weights_of_file, with_weights_of_file
from refimpl import MobileInst, Recording, record
from refimpl.ops.operation import Array

KERNEL = "mask_decoder.lateral.1.conv.weight"
RESULT = "mask_decoder.lateral.1/BatchNormalization"
DECLARED = {each.name: Declaration(weights=each) for each in (INT8, INT8_OF_RANGE)}
FOLDED = narrow_network.weights(np.float64).folded()


@functools.cache
def recording() -> Recording:
    """Return the network's run, its batch norms apart from its convolutions."""
    return record(narrow_network.network(np.float64), narrow_network.picture().astype(np.float64))


def symmetric(array: Array) -> StoredWeight:
    """Round to a 127th of each output channel's largest, kernels laid out with channels last."""
    laid = array.transpose(0, 2, 3, 1)
    scale = (np.abs(laid).max(axis=(1, 2, 3), keepdims=True) / 127).astype(np.float32)
    return StoredWeight(np.rint(laid / scale).astype(np.int8), scale)


def of_range(array: Array) -> StoredWeight:
    """Round to a 255th of each output channel's range, the step stored in float16."""
    axes = tuple(range(1, array.ndim))
    low, high = (end(array, axis=axes, keepdims=True, initial=0.0) for end in (np.min, np.max))
    scale = (high - low) / 255
    point = np.rint(-low / scale)
    whole = np.clip(np.rint(array / scale + point), 0, 255)
    return StoredWeight(whole.astype(np.uint8), scale.astype(np.float16), point)


ROUNDED: dict[str, Callable[[Array], StoredWeight]] = {INT8.name: symmetric, INT8_OF_RANGE.name: of_range}


def altered(channels: slice, factor: float) -> Array:
    """Return the kernel with its norm folded in, some of its channels multiplied."""
    array = np.array(FOLDED[KERNEL])
    array[channels] *= factor
    return array


@pytest.mark.parametrize("name", ROUNDED)
def test_a_rounding_is_taken_over_with_the_norm_taken_out_again(name: str) -> None:
    stored = ROUNDED[name](FOLDED[KERNEL])
    found = taken_over(recording(), [stored], DECLARED[name])
    ours, rounded = recording().tensors[KERNEL], found.weights[KERNEL]
    numbers = stored.numbers.transpose(0, 3, 1, 2) if name == INT8.name else stored.numbers
    scale = (FOLDED[KERNEL] / ours).mean(axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(rounded * scale, numbers, rtol=0, atol=1e-12)
    assert found.weights.keys() == {KERNEL}
    assert found.runs == ((KERNEL, 0, ours.size),)
    assert not found.wrong


@pytest.mark.parametrize("weight", [KERNEL, "w"])
@pytest.mark.parametrize("name", ROUNDED)
def test_no_bound_allows_for_what_was_taken_over(name: str, weight: str) -> None:
    """Whichever axis is that of output channels: of the matrix the last."""
    read, run = ((weight, 0, 3),), recording() if weight == KERNEL else normed()
    before, after = (
        copied_weights(run, declared) for declared in (DECLARED[name], replace(DECLARED[name], read=read))
    )
    assert (after[weight].ravel()[:3] == 0).all()
    np.testing.assert_array_equal(after[weight].ravel()[3:], before[weight].ravel()[3:])
    assert (before[weight] > 0).all()


@pytest.mark.parametrize("name", ROUNDED)
def test_a_slice_that_is_wrong_is_named_and_taken_over_as_far_as_rounding_goes(name: str) -> None:
    right = taken_over(recording(), [ROUNDED[name](FOLDED[KERNEL])], DECLARED[name])
    stored = ROUNDED[name](altered(slice(4, 8), 1.05))
    found = taken_over(recording(), [stored], DECLARED[name])
    assert found.wrong[RESULT].startswith(
        f"weight {KERNEL} is 1.05 × yours in 4 of 32 output channels, the first 4"
    )
    off = np.abs(found.weights[KERNEL] - recording().tensors[KERNEL])
    # Half a step of the file's own, which are 5 % larger there.
    assert (off <= 1.051 * copied_weights(recording(), DECLARED[name])[KERNEL]).all()
    assert off[4:8].max() > 0.99 * copied_weights(recording(), DECLARED[name])[KERNEL][4:8].min()
    others = np.delete(np.arange(32), range(4, 8))
    np.testing.assert_array_equal(found.weights[KERNEL][others], right.weights[KERNEL][others])


@pytest.mark.parametrize("name", ROUNDED)
def test_a_slice_of_input_channels_that_is_wrong_is_named(name: str) -> None:
    """As of a matrix whose first rows are multiplied: every output channel has some of them."""
    array = np.array(FOLDED[KERNEL])
    array[:, 3:5] *= 1.08
    found = taken_over(recording(), [ROUNDED[name](array)], DECLARED[name])
    said, count = found.wrong[RESULT], array.shape[1]
    assert said.startswith(
        f"weight {KERNEL} is 1.08 × yours in 2 of {count} slices along axis 1, the first 3"
    )
    off = np.abs(found.weights[KERNEL] - recording().tensors[KERNEL])
    # Half a step of the file's own, which are 8 % larger where the largest is.
    assert (off <= 1.081 * copied_weights(recording(), DECLARED[name])[KERNEL]).all()


@pytest.mark.parametrize("factor", [1.0, 1.05])
@pytest.mark.parametrize("apart", [False, True])
def test_a_bias_that_is_multiplied_is_named_where_its_kernel_is_right(factor: float, apart: bool) -> None:
    """Where the kernel is multiplied, too, a factor of the next step was folded into both."""
    bias = FOLDED[KERNEL.replace("weight", "bias")]
    kernel = symmetric(altered(slice(None), 1.0 if apart else factor))
    found = taken_over(recording(), [kernel, StoredWeight(factor * bias)], DECLARED[INT8.name])
    said = {RESULT: "weight mask_decoder.lateral.1.bn.bias is 1.05 × yours"}
    assert found.wrong == (said if apart and factor != 1 else {})


@pytest.mark.parametrize("factor", [1.05, 0.7, 1 / 7])
def test_what_is_multiplied_everywhere_is_neither_taken_over_nor_called_wrong(factor: float) -> None:
    """A converter may have folded a factor of the next step into it."""
    found = taken_over(recording(), [symmetric(altered(slice(None), factor))], DECLARED[INT8.name])
    assert not found.weights
    assert not found.wrong


def test_a_factor_that_a_step_has_may_be_folded_in() -> None:
    """HardSigmoid's sixth."""
    name = "mask_decoder.enhancer.0.global_act.conv.weight"
    stored = symmetric(FOLDED[name] / 6)
    found = taken_over(recording(), [stored], DECLARED[INT8.name])
    scale = (FOLDED[name] / recording().tensors[name]).mean(axis=(1, 2, 3), keepdims=True) / 6
    numbers = stored.numbers.transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found.weights[name] * scale, numbers, rtol=0, atol=1e-12)


def test_groups_of_a_convolution_may_have_an_axis_of_their_own() -> None:
    """As in OpenVINO's GroupConvolution."""
    kernel = np.random.default_rng(9).normal(size=(32, 4, 3, 3)).astype(np.float32)
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[1, 16, 6, 6] x) => (float[1, 32, 4, 4] y) '
        "{ y = Conv <group = 4> (x, w) }"
    )
    model.graph.initializer.append(numpy_helper.from_array(kernel, "w"))
    run = graph_recording(OnnxGraph.load(model), {"x": np.ones((1, 16, 6, 6), np.float32)})
    run = replace(run, weights=["w"], constants=[])
    whole = of_range(kernel.astype(np.float64))
    assert whole.scale is not None
    parts = (
        each.reshape(4, 8, *each.shape[1:]) for each in (whole.held, whole.scale, np.asarray(whole.point))
    )
    found = taken_over(run, [StoredWeight(*parts)], DECLARED[INT8_OF_RANGE.name])
    np.testing.assert_array_equal(found.weights["w"], whole.numbers)


def test_of_two_constants_that_could_be_it_none_is() -> None:
    one = symmetric(FOLDED[KERNEL])
    assert one.scale is not None
    other = replace(one, scale=one.scale * np.float32(1 + 1e-5))
    assert taken_over(recording(), [one, one], DECLARED[INT8.name]).weights
    assert not taken_over(recording(), [one, other], DECLARED[INT8.name]).weights


def test_steps_about_zero_may_be_as_coarse_as_a_range_is_wide() -> None:
    found = taken_over(recording(), [symmetric(FOLDED[KERNEL])], DECLARED[INT8_OF_RANGE.name])
    assert found.runs
    assert not found.wrong


def test_what_is_cut_off_is_named_so_however_many_channels_it_is_in() -> None:
    """As ncnn2int8 cuts off matrices by the largest of their first row."""
    kernel = altered(slice(0), 1.0)
    end = np.quantile(np.abs(kernel), 0.9)
    assert (np.abs(kernel) > end).reshape(len(kernel), -1).any(axis=1).mean() > 0.9
    scale = np.full((1, 1, 1, 1), end / 127)
    stored = StoredWeight(np.clip(np.rint(kernel / scale), -127, 127).astype(np.int8), scale)
    found = taken_over(recording(), [stored], DECLARED[INT8.name])
    (said,) = found.wrong.values()
    assert f"is cut off at ±{end:.3g}: 10" in said
    assert said.endswith(f"up to {np.abs(kernel).max():.3g}")
    assert found.runs == ((KERNEL, 0, kernel.size),)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_groups_of_output_channels_may_share_a_step(groups: int) -> None:
    """As those of ncnn's grouped convolutions do; a slice of one that is wrong is named all the same."""
    kernel = altered(slice(0), 1.0)
    largest = np.abs(kernel).reshape(groups, -1).max(axis=1).repeat(len(kernel) // groups)
    scale = (largest / 127).reshape(-1, 1, 1, 1)
    for factor in (1.0, 1.2):
        changed = kernel * np.where(np.arange(len(kernel)) < 2, factor, 1.0).reshape(-1, 1, 1, 1)
        stored = StoredWeight(np.clip(np.rint(changed / scale), -127, 127).astype(np.int8), scale)
        found = taken_over(recording(), [stored], DECLARED[INT8.name])
        assert (KERNEL, 0, kernel.size) in found.runs
        assert bool(found.wrong) == (factor != 1.0)


@pytest.mark.parametrize(
    ("name", "levels", "taken"),
    [
        ("mask_decoder.top_down.1", 31, True),
        ("mask_decoder.top_down.1", 40, False),
        ("mask_decoder.lateral.1", 31, False),
    ],
)
def test_kernels_for_winograd_may_be_of_six_bits(name: str, levels: int, taken: bool) -> None:
    """ncnn's of 3×3 are; of others, or where integers are larger, steps as coarse are a mistake."""
    kernel, folded = f"{name}.conv.weight", FOLDED[f"{name}.conv.weight"]
    largest = np.abs(folded).max(axis=(1, 2, 3), keepdims=True)
    # The first channel has as many levels as are tried, the others 31.
    scale = largest / np.where(np.arange(len(folded)) == 0, levels, 31).reshape(-1, 1, 1, 1)
    stored = StoredWeight(np.rint(folded / scale).astype(np.int8), scale)
    found = taken_over(recording(), [stored], DECLARED[INT8.name])
    assert found.runs == (((kernel, 0, folded.size),) if taken else ())


def test_floats_among_integers_may_not_be_rounded() -> None:
    """A kernel that is stored as it is must be it, slice by slice."""
    found = taken_over(recording(), [StoredWeight(altered(slice(0, 8), 1.004))], DECLARED[INT8.name])
    assert found.wrong[RESULT].startswith(f"weight {KERNEL} is 1 × yours in 8 of 32 output channels")
    right = taken_over(recording(), [StoredWeight(FOLDED[KERNEL])], DECLARED[INT8.name])
    assert not right.wrong
    np.testing.assert_allclose(right.weights[KERNEL], recording().tensors[KERNEL], rtol=1e-12)


@pytest.mark.parametrize("shape", [(5,), (3, 1, 1), (2, 32, 1, 1)])
def test_a_scale_that_fits_no_weight_is_passed_over(shape: tuple[int, ...]) -> None:
    stored = replace(of_range(FOLDED[KERNEL]), scale=np.ones(shape, np.float16))
    assert not stored.fits
    assert not taken_over(recording(), [stored], DECLARED[INT8_OF_RANGE.name]).weights


@pytest.mark.parametrize("behind", ["Mul", "Relu"])
def test_constants_that_multiply_channels_next_may_be_folded_in(behind: str) -> None:
    """Where they are one for most channels, the others are no mistake."""
    kernel = np.random.default_rng(0).normal(size=(8, 4, 3, 3)).astype(np.float32)
    factors = np.array([1, 1, 1, 1, 1, 1, 0.95, 0.95], np.float32).reshape(1, 8, 1, 1)
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["y"], "c"),
        onnx.helper.make_node(behind, ["y", "f"][: 2 if behind == "Mul" else 1], ["z"], "m"),
    ]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", (1, 4, 5, 5)), ("z", (1, 8, 3, 3)))
    ]
    held = [numpy_helper.from_array(array, name) for array, name in ((kernel, "w"), (factors, "f"))]
    made = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
    graph = OnnxGraph.load(onnx.helper.make_model(made, ir_version=8))
    run = graph_recording(graph, {"x": np.ones((1, 4, 5, 5), np.float32)})
    stored = symmetric(kernel.astype(np.float64) * factors.reshape(8, 1, 1, 1))
    found = taken_over(run, [stored], DECLARED[INT8.name])
    assert bool(found.weights) == bool(found.wrong) == (behind == "Relu")


NORMED = """
<ir_version: 8, opset_import: ["" : 18]>
g (float[1, 6, 32] x) => (float[1, 6, 24] y)
{
  n = LayerNormalization <axis = -1> (x, factors, shift)
  z = MatMul (n, w)
  y = Add (z, bias)
}
"""


def normed(**constants: Array) -> Recording:
    """Return a run of a layer norm and the matrix behind it; those of its factors lie ten times apart."""
    rng = np.random.default_rng(4)
    held = {
        "factors": rng.uniform(0.3, 3.0, 32),
        "shift": rng.normal(size=32),
        "w": rng.normal(size=(32, 24)),
        "bias": rng.normal(size=24),
    } | constants
    model = onnx.parser.parse_model(NORMED)
    arrays = {name: array.astype(np.float32) for name, array in held.items()}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    run = graph_recording(OnnxGraph.load(model), {"x": rng.normal(size=(1, 6, 32)).astype(np.float32)})
    return replace(run, weights=[*held], constants=[])


@pytest.mark.parametrize("scaled", [False, True])
def test_slices_of_inputs_tell_nothing_where_these_are_multiplied_before(scaled: bool) -> None:
    """A factor of few channels, all others one, may be folded into the matrix behind."""
    rng = np.random.default_rng(6)
    held = {"f": np.ones(32), "b": rng.normal(size=32), "w": rng.normal(size=(32, 24))}
    held["f"][:4] = rng.uniform(1.05, 1.2, 4)
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[1, 6, 32] x) => (float[1, 6, 24] z)'
        f"{{ a = {'Mul' if scaled else 'Add'} (x, f) t = Add (a, b) z = MatMul (t, w) }}"
    )
    arrays = {name: array.astype(np.float32) for name, array in held.items()}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    run = graph_recording(OnnxGraph.load(model), {"x": rng.normal(size=(1, 6, 32)).astype(np.float32)})
    folded = held["w"] * held["f"][:, None]
    scale = np.abs(folded).max(axis=0, keepdims=True) / 127
    stored = StoredWeight(np.rint(folded / scale).astype(np.int8), scale)
    found = taken_over(replace(run, weights=[*held], constants=[]), [stored], DECLARED[INT8.name])
    assert bool(found.wrong) != scaled


def test_a_weight_that_is_integers_and_floats_is_neither() -> None:
    """As a quantiser leaves one of several products: which of the two a product takes is not known."""
    run = normed()
    w = run.tensors["w"]
    scale = np.abs(w).max(axis=0, keepdims=True) / 127
    integers = StoredWeight(np.rint(w / scale).astype(np.int8), scale)
    assert taken_over(run, [integers], DECLARED[INT8.name]).weights.keys() == {"w"}
    found = taken_over(run, [integers, StoredWeight(w.astype(np.float32))], DECLARED[INT8.name])
    assert not found.weights
    assert not found.wrong
    assert all(name != "w" for name, _, _ in found.runs)


def test_a_step_may_be_coarse_where_a_quantiser_makes_none_smaller() -> None:
    """As XNNPACK's: of a channel of small weights a 127th of the largest is less than its least step."""
    rng = np.random.default_rng(8)
    w = rng.normal(size=(32, 24))
    w[:, :5] *= 3e-3
    run = normed(w=w)
    for least, taken in ((2.0**-12, True), (2.0**-11, False)):
        scale = np.maximum(np.abs(w).max(axis=0, keepdims=True) / 127, least).astype(np.float32)
        stored = StoredWeight(np.rint(np.float32(w) / scale).astype(np.int8), scale)
        found = taken_over(run, [stored], DECLARED[INT8.name])
        assert bool(found.wrong) != taken
        if taken:
            np.testing.assert_allclose(found.weights["w"], stored.numbers, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("beyond", "taken"), [(1.03, True), (1.2, False)])
def test_of_a_matrix_whose_numbers_share_a_step_few_may_be_cut_off(beyond: float, taken: bool) -> None:
    w = np.random.default_rng(9).uniform(-1, 1, size=(32, 24))
    w[3, 7], w[9, 2] = beyond, -beyond
    scale = np.float32(1 / 127)
    stored = StoredWeight(np.clip(np.rint(w / scale), -127, 127).astype(np.int8), scale)
    found = taken_over(normed(w=w), [stored], DECLARED[INT8.name])
    assert bool(found.wrong) != taken
    assert bool((np.abs(found.weights["w"] - stored.numbers) < 1e-12).all()) == taken


def folded_into(run: Recording) -> tuple[StoredWeight, Array]:
    """Return the matrix with the norm's factors, rounded to a 127th of each row's largest; and the bias."""
    held = run.tensors
    matrix = held["w"].T * held["factors"]
    scale = np.abs(matrix).max(axis=1, keepdims=True) / 127
    bias = (held["shift"] @ held["w"] + held["bias"]).astype(np.float32)
    return StoredWeight(np.rint(matrix / scale).astype(np.int8), scale), bias


def test_what_a_norm_before_multiplies_by_may_be_folded_in_and_its_shift_into_the_bias() -> None:
    """As LiteRT's converter does, before the matrix is rounded: what the file computes is computed."""
    run = normed()
    matrix, bias = folded_into(run)
    candidate = Filed(matrix, StoredWeight(bias))
    made = with_weights_of_file(candidate, run).tensors
    x = run.tensors["x"].astype(np.float64)
    normal = x - x.mean(axis=-1, keepdims=True)
    normal /= np.sqrt(np.square(normal).mean(axis=-1, keepdims=True) + np.float64(np.float32(1e-5)))
    expected = normal @ matrix.numbers.T + bias.astype(np.float64)
    np.testing.assert_allclose(made["y"], expected, rtol=0, atol=1e-12)
    assert np.abs(made["y"] - run.tensors["y"]).max() > 1e-3, "then this shows nothing"
    assert {name for name, *_ in candidate.read} == {"w", "bias"}


def rounded_vector(array: Array, steps: int) -> StoredWeight:
    """Round to so many steps of the largest, which all share."""
    scale = np.abs(array).max().reshape(1) / steps
    return StoredWeight(np.rint(array / scale).astype(np.int32), scale)


RESIDUAL = """
<ir_version: 8, opset_import: ["" : 18]>
g (float[1, 6, 32] x) => (float[1, 6, 24] y, float[1, 6, 32] r)
{
  n = LayerNormalization <axis = -1> (x, factors, shift)
  r = Add (n, x)
  z = MatMul (n, w)
  y = Add (z, bias)
}
"""


@pytest.mark.parametrize(("floats", "zeros"), [(False, 0), (True, 0), (False, 2)])
def test_a_norms_factors_may_be_rounded_twice(
    monkeypatch: pytest.MonkeyPatch, floats: bool, zeros: int
) -> None:
    """In integers for what adds its results, and in the matrix behind it, into which they went unrounded.

    The file may hold the bias as floats besides, and factors may be zero.
    """
    monkeypatch.setattr(f"{__name__}.NORMED", RESIDUAL)
    some = np.random.default_rng(4).uniform(0.3, 3.0, 32)
    some[:zeros] = 0
    run = normed(factors=some)
    held = run.tensors
    matrix, bias = folded_into(run)
    vectors = {name: rounded_vector(held[name], 100) for name in ("factors", "shift")}
    whole = rounded_vector(bias.astype(np.float64), 2**20)
    stored = [matrix, whole, *vectors.values(), *[StoredWeight(bias)] * floats]
    made = with_weights_of_file(Filed(*stored), run).tensors
    x = held["x"].astype(np.float64)
    normal = x - x.mean(axis=-1, keepdims=True)
    normal /= np.sqrt(np.square(normal).mean(axis=-1, keepdims=True) + np.float64(np.float32(1e-5)))
    factors, shift = (vectors[name].numbers for name in ("factors", "shift"))
    np.testing.assert_allclose(made["r"], normal * factors + shift + x, rtol=0, atol=1e-12)
    np.testing.assert_allclose(made["y"], normal @ matrix.numbers.T + whole.numbers, rtol=0, atol=1e-12)


def test_vectors_that_are_integers_are_taken_over() -> None:
    """A bias behind a matrix, and what a norm scales and shifts by."""
    run = normed()
    held, scale = run.tensors, np.abs(run.tensors["w"]).max(axis=0).reshape(-1, 1) / 127
    matrix = StoredWeight(np.rint(held["w"].T / scale).astype(np.int8), scale)
    vectors = {name: rounded_vector(held[name], 100) for name in ("factors", "shift", "bias")}
    found = weights_of_file(Filed(matrix, *vectors.values()), run).weights
    assert found.keys() == {"w", *vectors}
    for name, stored in vectors.items():
        np.testing.assert_allclose(found[name], stored.numbers, rtol=0, atol=1e-12)
        assert not np.array_equal(found[name], held[name])


@pytest.mark.parametrize(("places", "beyond", "taken"), [(1, 1.05, True), (1, 1.3, False), (9, 1.05, False)])
def test_few_numbers_may_be_cut_off_and_not_by_much(places: int, beyond: float, taken: bool) -> None:
    """As ranges are, that a quantiser takes of a histogram."""
    rng = np.random.default_rng(8)
    factors = rng.uniform(-1, 1, 32)
    factors[:places] = beyond
    run = normed(factors=factors)
    stored = StoredWeight(np.clip(np.rint(factors * 127), -127, 127).astype(np.int8), np.full(1, 1 / 127))
    assert ("factors" in weights_of_file(Filed(stored), run).weights) == taken


SUMMED = {
    "a bias, then more": """
        g (float[1, 6, 32] x) => (float[1, 6, 32] y)
        { z = MatMul (x, w)
          s = Add (z, first)
          y = Add (s, second) }""",
    "a bias, a mean, then more": """
        g (float[1, 4, 8, 9] x) => (float[1, 32, 8] y)
        { z = Conv (x, k, first)
          s = ReduceMean <axes = [3], keepdims = 0> (z)
          y = Add (s, second) }""",
}


@pytest.mark.parametrize("how", SUMMED)
def test_constants_that_are_added_one_after_the_other_may_be_one(how: str) -> None:
    rng = np.random.default_rng(6)
    model = onnx.parser.parse_model('<ir_version: 8, opset_import: ["" : 17]>' + SUMMED[how])
    shape = [side.dim_value for side in model.graph.output[0].type.tensor_type.shape.dim]
    held = {"first": rng.normal(size=32), "second": rng.normal(size=shape)}
    held |= (
        {"w": rng.normal(size=(32, 32))} if "MatMul" in SUMMED[how] else {"k": rng.normal(size=(32, 4, 1, 1))}
    )
    arrays = {name: array.astype(np.float32) for name, array in held.items()}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    sides = [side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim]
    run = graph_recording(OnnxGraph.load(model), {"x": rng.normal(size=sides).astype(np.float32)})
    run = replace(run, weights=[*held], constants=[name for name in run.constants if name not in held])
    first = run.tensors["first"] if "MatMul" in SUMMED[how] else run.tensors["first"].reshape(32, 1)
    stored = rounded_vector(run.tensors["second"] + first, 127)
    found = weights_of_file(Filed(stored), run).weights
    assert found.keys() == {"second"}
    np.testing.assert_allclose(found["second"] + first, stored.numbers, rtol=0, atol=1e-12)


def test_a_norm_folded_in_with_another_bias_is_not_taken_over() -> None:
    run = normed()
    matrix, bias = folded_into(run)
    assert not weights_of_file(Filed(matrix, StoredWeight(bias * np.float32(1.05))), run).weights
    assert not weights_of_file(Filed(matrix), run).weights


def test_rows_of_a_matrix_that_a_norm_is_folded_into_are_named_if_wrong() -> None:
    run = normed()
    wrong = np.array(run.tensors["w"])
    wrong[:, 3:5] *= 1.05
    matrix, bias = folded_into(normed(w=wrong))
    found = weights_of_file(Filed(matrix, StoredWeight(bias)), run)
    assert found.wrong.keys() == {"z"}
    assert found.wrong["z"].startswith("weight w is 1.05 × yours in 2 of 24 output channels, the first 3")
    assert not found.weights


COMPUTED = """
<ir_version: 8, opset_import: ["" : 18]>
g (float[1, 4, 16, 6] keys) => (float[1, 4, 20, 6] y)
{
  projected = MatMul (queries, w)
  rows = Reshape (projected, sides)
  heads = Transpose <perm = [0, 2, 1, 3]> (rows)
  y = MatMul (heads, keys)
}
"""


@pytest.mark.parametrize("whole", [False, True])
def test_what_is_computed_of_weights_alone_may_be_a_weight_of_the_file(whole: bool) -> None:
    """Learned queries, multiplied by their matrix ahead of time, as floats or rounded to integers."""
    rng = np.random.default_rng(5)
    model = onnx.parser.parse_model(COMPUTED)
    held = {
        "queries": rng.normal(size=(1, 20, 64)).astype(np.float32),
        "w": rng.normal(size=(64, 64)).astype(np.float32),
        "sides": np.array([1, 20, 4, 16]),
    }
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in held.items())
    keys = rng.normal(size=(1, 4, 16, 6)).astype(np.float32)
    run = graph_recording(OnnxGraph.load(model), {"keys": keys})
    queries = run.tensors["heads"][0]
    scale = np.abs(queries).max().reshape(1, 1, 1) / 127
    stored = StoredWeight(np.rint(queries / scale).astype(np.int8), scale)
    if not whole:
        stored = StoredWeight(queries.astype(np.float32))
    made = with_weights_of_file(Filed(stored), replace(run, weights=[*held], constants=[]), ahead=True)
    np.testing.assert_allclose(made.tensors["y"][0], stored.numbers @ keys[0], rtol=0, atol=1e-12)
    assert "projected" not in {name for _, name in made.results()}


class Filed:
    """A candidate that has a file."""

    def __init__(self, *stored: StoredWeight) -> None:
        self.stored, self.read = stored, (("left over", 0, 1),)

    @property
    def declaration(self) -> Declaration:
        return Declaration(weights=INT8, read=self.read)


def test_a_candidate_declares_what_its_file_has() -> None:
    candidate = Filed(symmetric(FOLDED[KERNEL]))
    found = weights_of_file(candidate, recording())
    assert candidate.read == ((KERNEL, 0, FOLDED[KERNEL].size),)
    assert "weights of int8, 1 of them as the file has them" in str(candidate.declaration)
    rounded = with_weights_of_file(candidate, recording())
    np.testing.assert_array_equal(rounded.tensors[KERNEL], found.weights[KERNEL])
    network = MobileInst(narrow_network.CONFIG, {**narrow_network.weights(np.float64), **found.weights})
    again = record(network, narrow_network.picture().astype(np.float64))
    for name in again.outputs.values():
        np.testing.assert_allclose(rounded.tensors[name], again.tensors[name], rtol=1e-9, atol=1e-9)


def test_scales_that_are_not_finite_are_no_rounding() -> None:
    stored = symmetric(FOLDED[KERNEL])
    assert stored.scale is not None
    for scale in (np.inf, np.nan):
        candidate = Filed(replace(stored, scale=np.full_like(stored.scale, scale)))
        assert weights_of_file(candidate, recording()).weights == {}


def test_a_candidate_without_a_file_has_no_weights_of_one() -> None:
    assert weights_of_file(object(), recording()).weights == {}
    assert with_weights_of_file(object(), recording()) is recording()


def test_a_wrong_weight_stays_known_where_a_computed_table_is_not_found() -> None:
    """Then the file is looked through twice, and as much of it is taken over as rounding explains."""
    rng = np.random.default_rng(0)
    weight, table, scale = (
        rng.normal(size=size).astype(np.float32) for size in ((64, 32), (32, 16), (32, 1))
    )
    changed = weight * np.where(np.arange(32) < 8, 1.05, 1.0)
    step = np.abs(changed).max(axis=0, keepdims=True) / 127
    held = StoredWeight(np.rint(changed / step).astype(np.int8), step)

    def graph(matrix: Array) -> OnnxGraph:
        nodes = [
            onnx.helper.make_node("MatMul", ["x", "weight"], ["y"], "first"),
            onnx.helper.make_node("Mul", ["table", "scale"], ["scaled"], "both"),
            onnx.helper.make_node("MatMul", ["y", "scaled"], ["z"], "second"),
        ]
        known = {"weight": matrix, "table": table, "scale": scale}
        initializers = [numpy_helper.from_array(array, name) for name, array in known.items()]
        ends = [
            [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)]
            for name, shape in (("x", [4, 64]), ("z", [4, 16]))
        ]
        made = onnx.helper.make_graph(nodes, "twice", *ends, initializers)
        return OnnxGraph.load(onnx.helper.make_model(made))

    inputs = {"drawn": {"x": rng.normal(size=(4, 64)).astype(np.float32)}}
    after = graph(held.numbers.astype(np.float32))
    stored = [held, StoredWeight(held.numbers.astype(np.float32))]
    report = verify_against(after, graph(weight), inputs, stored=stored, weights=INT8)
    assert report.verdict == "fail"
    assert "weight weight is 1.05 × yours in 8 of 32 output channels" in report.headline()
