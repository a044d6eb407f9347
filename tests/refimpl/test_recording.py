"""A recording is the whole computation: replayed, it gives the same bits; what bypasses it is an error."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from narrow_network import CONFIG, network, picture, weights
from onnx.reference import ReferenceEvaluator

from conformance.graph.onnx_export import to_onnx
from refimpl import MobileInst, Recording, ops, record
from refimpl.errors import UnrecordedComputationError
from refimpl.ops.operation import OPERATIONS, Array, active_interceptor
from refimpl.scope import Scope, block


class Model:
    """A function of a tensor and of one weight, as a model that can be recorded."""

    def __init__(self, function: Callable[[Any, Any], Any], dtype: type = np.float64) -> None:
        self.function = function
        self.weights = {"scale": np.arange(1, 4, dtype=dtype)}

    def __call__(self, images: Array) -> dict[str, Any]:
        return {"result": self.function(images, self.weights["scale"])}


IMAGES = np.linspace(-1, 1, 24).reshape(2, 1, 4, 3)


def recorded(function: Callable[[Any, Any], Any], dtype: type = np.float64) -> Recording:
    return record(Model(function, dtype), IMAGES)


def replayed(recording: Recording) -> dict[str, Array]:
    """Compute every step with the plain operations, from inputs, weights and literals alone."""
    known = [*recording.inputs.values(), *recording.weights, *recording.constants]
    values = {name: recording.tensors[name] for name in known}
    for step in recording.steps:
        operands = [values[name] if name else None for name in step.inputs]
        result = OPERATIONS[step.operation](*operands, **step.attributes)
        values.update(zip(step.outputs, result if isinstance(result, tuple) else (result,), strict=True))
    return values


# The whole network.


@pytest.fixture(scope="module", params=[np.float32, np.float64])
def recording(request: pytest.FixtureRequest) -> Recording:
    return record(network(request.param), picture(2))


def test_replaying_the_steps_gives_every_tensor_bit_for_bit(recording: Recording) -> None:
    values = replayed(recording)
    assert values.keys() == recording.tensors.keys()
    for name, values_again in values.items():
        assert values_again.dtype == recording.tensors[name].dtype
        assert np.array_equal(values_again, recording.tensors[name]), name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_recording_does_not_change_the_result(dtype: type) -> None:
    model = network(dtype)
    recording = record(model, picture(2))
    plain = dict(model(picture(2)).items())
    assert recording.outputs.keys() == plain.keys()
    for name, values in plain.items():
        assert np.array_equal(recording.tensors[recording.outputs[name]], values)
    assert active_interceptor() is None


def test_names_are_unique_and_every_tensor_is_made_once(recording: Recording) -> None:
    steps = [step.name for step in recording.steps]
    assert len(set(steps)) == len(steps)
    made = [name for _, name in recording.results()]
    known = [*recording.inputs.values(), *recording.weights, *recording.constants]
    assert sorted(made + known) == sorted(recording.tensors)


def test_names_come_from_the_weight_scope(recording: Recording) -> None:
    assert set(recording.weights) == set(weights())
    for step in recording.steps:
        assert step.name.startswith(f"{step.block}/{step.operation}")
        for name in step.inputs:
            # The weight a layer uses stands in the block it runs in.
            if name in weights() and step.operation in ("Conv", "BatchNormalization", "LayerNormalization"):
                assert name.startswith(f"{step.block}.")
    for path in (
        "backbone.tpm.stem.0",
        "backbone.trans.transformer_blocks.0",
        "mask_decoder.output.1",
        "masks",
    ):
        assert any(block == path or block.startswith(f"{path}.") for block in recording.blocks)
    for name, tensor in recording.blocks.items():
        assert tensor in recording.tensors, name


def test_a_step_uses_only_what_was_made_before(recording: Recording) -> None:
    known = {*recording.inputs.values(), *recording.weights, *recording.constants}
    for step in recording.steps:
        assert {name for name in step.inputs if name} <= known
        known.update(step.outputs)
    assert set(recording.outputs.values()) <= known


def test_constants_are_only_what_stands_in_the_code(recording: Recording) -> None:
    """Another picture of the same shape and other weights leave all of them as they are."""
    other = record(
        MobileInst(CONFIG, {name: 2 * array for name, array in network().weights.items()}), 0.5 * picture(2)
    )
    for name in recording.constants:
        same = recording.tensors[name].astype(other.tensors[name].dtype)
        # float64 position embeddings are rounded to float32 in the other.
        assert np.allclose(same, other.tensors[name], rtol=1e-6, atol=0), name
        assert not set(recording.constants) & set(recording.weights)


def test_recording_needs_no_special_case_of_the_batch() -> None:
    single, double = record(network(), picture()), record(network(), picture(2))
    assert [step.name for step in single.steps] == [step.name for step in double.steps]
    assert double.tensors[double.outputs["masks"]].shape[0] == 2


# Literals: what the code writes as a number is recorded in the dtype that ONNX wants.

FLOATS = [np.float32, np.float64]
LITERALS: dict[str, Callable[[Any, Any], Any]] = {
    **{
        f"{name} {literal}": lambda x, w, name=name, literal=literal: getattr(ops, name)(x, literal)
        for name in ("add", "sub", "mul", "div", "power", "maximum", "minimum", "mod")
        for literal in (2, 2.5, (1, 2, 3))
        if not (name == "power" and literal == 2.5) and not (name == "mod" and literal == (1, 2, 3))
    },
    "literal first": lambda x, w: ops.sub(1, x),
    "fmod": lambda x, w: ops.mod(x, 2, fmod=1),
    "sum": lambda x, w: ops.sum_of(x, 1, x),
    "mean": lambda x, w: ops.mean_of(x, 1, 2),
    "clip": lambda x, w: ops.clip(x, 0, 6),
    "clip above": lambda x, w: ops.clip(x, None, 0.25),
    "where": lambda x, w: ops.where(ops.less(x, 0), 0.25, x),
    "where of whole numbers": lambda x, w: ops.where(ops.greater_or_equal(x, 0), x, 3),
    "less or equal": lambda x, w: ops.where(ops.less_or_equal(x, 0), x, w),
    "equal": lambda x, w: ops.where(ops.equal(x, 1), w, x),
    "pad": lambda x, w: ops.pad(x, (0, 0, 1, 0, 0, 0, 0, 2), 3),
    "reshape": lambda x, w: ops.reshape(x, (2, -1)),
    "slice": lambda x, w: ops.slice_(x, (1,), (3,), (2,), (1,)),
    "gather": lambda x, w: ops.gather(x, (0, 2), axis=3),
    "gather one": lambda x, w: ops.gather(x, 1, axis=3),
    "resize by scales": lambda x, w: ops.resize(x, None, (1.0, 1.0, 1.5, 2.0), None, mode="linear"),
    "resize to sizes": lambda x, w: ops.resize(x, None, None, (2, 1, 8, 3), mode="nearest"),
    "reduce": lambda x, w: ops.reduce_mean(x, (2, 3), keepdims=0),
    "cumulated": lambda x, w: ops.cum_sum(x, 2),
    "triangle": lambda x, w: ops.trilu(x, 1),
    "prelu": lambda x, w: ops.prelu(x, w),
    "tile": lambda x, w: ops.tile(x, (1, 2, 1, 1)),
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", LITERALS)
def test_literals_are_recorded_as_the_operation_takes_them(name: str, dtype: type) -> None:
    plain = LITERALS[name](IMAGES.astype(dtype), np.arange(1, 4, dtype=dtype))
    recording = recorded(LITERALS[name], dtype)
    result = recording.tensors[recording.outputs["result"]]
    assert result.dtype == plain.dtype == dtype
    assert np.array_equal(result, plain)
    assert np.array_equal(replayed(recording)[recording.outputs["result"]], plain)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", [name for name in LITERALS if name not in ("mod 2", "mod 2.5")])
def test_literals_are_exported_as_onnx_takes_them(name: str, dtype: type) -> None:
    """The checker and shape inference accept the types, and another implementation computes the same."""
    recording = recorded(LITERALS[name], dtype)
    (result,) = ReferenceEvaluator(to_onnx(recording, "literals")).run(None, {"images": IMAGES.astype(dtype)})
    expected = recording.tensors[recording.outputs["result"]]
    assert result.dtype == dtype
    assert np.allclose(result, expected, rtol=4 * np.finfo(dtype).eps, atol=4 * np.finfo(dtype).eps)


@given(st.sampled_from(["Add", "Mul", "Sub", "Max"]), st.integers(-(2**20), 2**20) | st.floats(-1e6, 1e6))
def test_a_number_is_recorded_with_its_value(operation: str, number: float) -> None:
    function = {"Add": ops.add, "Mul": ops.mul, "Sub": ops.sub, "Max": ops.maximum}[operation]
    recording = recorded(lambda x, w: function(x, number))
    (name,) = recording.constants
    assert recording.tensors[name].dtype == np.float64
    assert recording.tensors[name] == number


def test_a_scale_of_a_quantised_tensor_is_not_truncated() -> None:
    def quantised(x: Any, w: Any) -> Any:
        return ops.div(ops.cast(x, to=7), 2)

    recording = recorded(quantised)
    (name,) = recording.constants
    assert recording.tensors[name].dtype == np.int64


# What bypasses the vocabulary.

BYPASSES: dict[str, Callable[[Any, Any], Any]] = {
    "operator": lambda x, w: x * 2,
    "operator from the right": lambda x, w: 2 * x,
    "product": lambda x, w: x @ x,
    "comparison": lambda x, w: x > 0,
    "equality": lambda x, w: x == 0,
    "negation": lambda x, w: -x,
    "ufunc": lambda x, w: np.exp(x),
    "ufunc of two": lambda x, w: np.add(w, x),
    "ufunc into": lambda x, w: np.add(w, 1.0, out=x),
    "ufunc reduced": lambda x, w: np.add.reduce(x),
    "SciPy": lambda x, w: scipy.special.expit(x),
    "function": lambda x, w: np.concatenate([x, x]),
    "einsum": lambda x, w: np.einsum("bchw->bc", x),
    "where": lambda x, w: np.where(w > 0, x, 0.0),
    "asarray": lambda x, w: np.asarray(x) * 2,
    "array": lambda x, w: np.array(x),
    "ascontiguousarray": lambda x, w: np.ascontiguousarray(x),
    "stack by list": lambda x, w: np.array([x, x]),
    "method": lambda x, w: x.sum(),
    "copy": lambda x, w: x.copy(),
    "astype": lambda x, w: x.astype(np.float32),
    "reshape": lambda x, w: x.reshape(-1),
    "transpose": lambda x, w: x.T,
    "flat": lambda x, w: x.flat[0],
    "bytes": lambda x, w: x.tobytes(),
    "list": lambda x, w: x.tolist(),
    "slicing": lambda x, w: x[..., 1:],
    "element": lambda x, w: ops.mul(w, float(x[0, 0, 0, 0])),
    "place of the largest": lambda x, w: ops.mul(w, int(x.argmax())),
    "iteration": lambda x, w: next(iter(x)),
    "unpacking": lambda x, w: ops.add(*x),
    "membership": lambda x, w: ops.mul(w, 1.0 if 0.5 in x else 2.0),
    "item": lambda x, w: ops.mul(w, x.item(0)),
    "float": lambda x, w: ops.mul(w, float(ops.reduce_sum(x, None, keepdims=0))),
    "int": lambda x, w: ops.mul(w, int(ops.reduce_sum(x, None, keepdims=0))),
    "bool": lambda x, w: x if ops.reduce_sum(x, None, keepdims=0) else w,
    "index": lambda x, w: ops.reshape(w, (range(9)[ops.arg_max(x)], 1)),
    "round": lambda x, w: round(x),
    "math": lambda x, w: math.floor(ops.reduce_sum(x, None, keepdims=0)),
    "in place": lambda x, w: x.__iadd__(1),
    "assignment": lambda x, w: x.__setitem__(0, 1.0),
    "fill": lambda x, w: x.fill(0.0),
    "a view given to an operation": lambda x, w: ops.relu(x.view(np.ndarray)),
    "an array of elsewhere": lambda x, w: ops.add(x, np.ones(3)),
    "a scalar of elsewhere": lambda x, w: ops.add(x, np.float64(2)),
    "a changed weight": lambda x, w: ops.add(x, w + 1),
    "a view of a weight": lambda x, w: ops.add(x, w[:1]),
    "a result of elsewhere": lambda x, w: np.ones(3),
    "an input by keyword": lambda x, w: ops.clip(x, max=w),
}


@pytest.mark.parametrize("name", BYPASSES)
def test_a_computation_that_bypasses_the_vocabulary_is_an_error(name: str) -> None:
    with pytest.raises(UnrecordedComputationError):
        recorded(BYPASSES[name])
    assert active_interceptor() is None


def test_the_error_says_where_and_what_to_do() -> None:
    @block
    def part(x: Any, w: Scope) -> Any:
        return ops.add(x, np.ones(3))

    with pytest.raises(UnrecordedComputationError, match=r"Add in block head.part .*\(3,\).*ops.constant"):
        recorded(lambda x, w: part(x, Scope({}) / "head" / "part"))


def test_shapes_may_be_read() -> None:
    def shape_only(x: Any, w: Any) -> Any:
        assert (x.shape, x.dtype, x.ndim, x.size, len(x)) == ((2, 1, 4, 3), np.float64, 4, 24, 2)
        return ops.reshape(x, (x.shape[0], -1))

    assert recorded(shape_only).tensors["/Reshape"[1:]].shape == (2, 12)


def test_a_declared_constant_is_recorded_as_one() -> None:
    recording = recorded(lambda x, w: ops.add(x, ops.constant(value=np.full(3, 0.5))))
    (name,) = recording.constants
    assert recording.tensors[name].tolist() == [0.5] * 3
    assert [step.operation for step in recording.steps] == ["Add"]


def test_nested_recording_is_undone_after_an_error() -> None:
    with pytest.raises(UnrecordedComputationError):
        recorded(lambda x, w: x + 1)
    assert np.array_equal(ops.relu(IMAGES), np.maximum(IMAGES, 0))
