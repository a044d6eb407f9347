"""How much of the bounds correct implementations use, and how small a fault they still show."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from conformance.bounds.allowances import ONNX_RUNTIME
from conformance.bounds.bias import bias_test, utilisation
from conformance.bounds.declaration import DEFAULT, Declaration
from conformance.bounds.formats import FLOAT16, FLOAT32, Format
from conformance.bounds.introduced import introduced_bound, introduced_bounds
from conformance.evidence.bound_trials import Trial, trial, tried
from conformance.graph.evaluation import as_tuple
from refimpl.errors import UnsupportedOperationError
from refimpl.ops import OPERATIONS
from refimpl.ops.operation import Array

SCALES = (1.0, 1e-3, 30.0)
"""Sizes of the data that the utilisation is measured at."""

NEWER = {"Swish": 24, "RMSNormalization": 23, "RotaryEmbedding": 23, "Attention": 23, "CumProd": 26}
"""Operator → its operator set, where ONNX Runtime is asked for one above 21."""


@dataclass(frozen=True)
class Utilisation:
    """The largest error / bound of an operation, as one implementation computes it."""

    op_type: str
    implementation: str
    largest: float


@dataclass(frozen=True)
class Implementation:
    """A way to compute a trial, and what it is judged as."""

    name: str
    compute: Callable[[Trial], Sequence[Array] | None]
    operands: Format
    declaration: Declaration = DEFAULT


# --- implementations ------------------------------------------------------------------------------


def _as_tuple(result: Any) -> tuple[Array, ...]:
    return tuple(map(np.asarray, as_tuple(result)))


def _computed(call: Trial, dtype: Any) -> tuple[Array, ...]:
    inputs = [x.astype(dtype) if x is not None and x.dtype.kind == "f" else x for x in call.inputs]
    attributes = dict(call.attributes)
    if call.op_type == "Cast":
        attributes["to"] = dtype
    with np.errstate(all="ignore"):
        return _as_tuple(OPERATIONS[call.op_type](*inputs, **attributes))


def _stored_in_half(call: Trial) -> tuple[Array, ...]:
    """Compute in float32 and round to float16, as runtimes with half storage do."""
    with np.errstate(over="ignore"):
        results = _computed(call, np.float32)
        return tuple(y.astype(np.float16) if y.dtype == np.float32 else y for y in results)


def _shuffled(call: Trial) -> tuple[Array, ...] | None:
    """Compute in float32 with the terms of every sum in another order; None if the call has no sums."""
    rng = np.random.default_rng(0)
    axes: dict[str, tuple[tuple[int, int], ...]] = {
        "MatMul": ((0, -1), (1, -2)),
        "Gemm": ((0, 1), (1, 1)),
        "Einsum": ((0, 2), (1, 1)),
    }
    axes |= dict.fromkeys(("ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare"), ((0, 1),))
    axes |= {"GlobalAveragePool": ((0, 2),), "ReduceLogSumExp": ((0, 1),)}
    if call.attributes.get("group") == 1:
        axes["Conv"] = ((0, 1), (1, 1))
    if call.op_type not in axes:
        return None
    inputs: list[Any] = list(call.inputs)
    first, along = axes[call.op_type][0]
    order = rng.permutation(np.shape(inputs[first])[along])
    for index, axis in axes[call.op_type]:
        inputs[index] = np.take(inputs[index], order, axis=axis)
    return _computed(Trial(call.op_type, tuple(inputs), call.attributes), np.float32)


_OUTPUTS = {"TopK": 2, "DynamicQuantizeLinear": 3, "LSTM": 3, "GRU": 2, "RNN": 2, "Attention": 4}


def _onnx_runtime(call: Trial) -> Sequence[Array] | None:
    """Run a model of one node; None if the runtime has no such kernel."""
    from conformance.silent_onnxruntime import onnxruntime

    names = [f"x{i}" if x is not None else "" for i, x in enumerate(call.inputs)]
    inputs = {
        name: x.astype(np.float32) if x.dtype.kind == "f" else x
        for name, x in zip(names, call.inputs, strict=True)
        if x is not None
    }
    attributes = {k: v for k, v in call.attributes.items() if call.op_type != "Cast"}
    if call.op_type == "Cast":
        attributes["to"] = onnx.TensorProto.FLOAT
    outputs = [f"y{i}" for i in range(_OUTPUTS.get(call.op_type, 1))]
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in inputs.items()
    ]
    made = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph(
        [helper.make_node(call.op_type, names, outputs, **attributes)], "trial", infos, made
    )
    opset = {"Swish": 24, "RMSNormalization": 23, "RotaryEmbedding": 23, "Attention": 24}.get(
        call.op_type, 21
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception:
        return None
    return [np.asarray(y) for y in session.run(None, inputs)]


_HALF = Declaration(FLOAT16, FLOAT16)
IMPLEMENTATIONS = (
    Implementation("numpy float32", lambda t: _computed(t, np.float32), FLOAT32),
    Implementation("numpy float32, shuffled", _shuffled, FLOAT32),
    Implementation("numpy float16", lambda t: _computed(t, np.float16), FLOAT16, _HALF),
    Implementation("float16 storage of float32", _stored_in_half, FLOAT16, Declaration(storage=FLOAT16)),
    Implementation("onnxruntime float32", _onnx_runtime, FLOAT32, Declaration(runtime=ONNX_RUNTIME)),
)


# --- utilisation ----------------------------------------------------------------------------------


def measured(call: Trial, implementation: Implementation) -> float | None:
    """Return the largest error / bound of one call by one implementation.

    None if the implementation cannot compute it, or nothing of it has a bound.
    """
    rounded = Trial(call.op_type, _operands(call, implementation.operands), call.attributes)
    results = implementation.compute(rounded)
    if results is None:
        return None
    with np.errstate(all="ignore"):
        truths = _as_tuple(OPERATIONS[call.op_type](*rounded.inputs, **call.attributes))
    bounds = introduced_bounds(
        call.op_type,
        rounded.inputs,
        call.attributes,
        truths,
        implementation.declaration,
    )
    ratios = [
        float(utilisation(given, truth, bound).max(initial=0.0))
        for given, truth, bound in zip(results, truths, bounds, strict=True)
        if bound is not None
    ]
    return max(ratios, default=None)


def _operands(call: Trial, storage: Format) -> tuple[Array | None, ...]:
    return tuple(storage.rounded(x) if x is not None and x.dtype.kind == "f" else x for x in call.inputs)


def largest_utilisations(trials: int = 6, op_types: Sequence[str] | None = None) -> Iterator[Utilisation]:
    """Yield the largest error / bound seen of every operation and implementation.

    Parameters
    ----------
    trials
        Random calls of each operation, at each of `SCALES`; seeded.
    op_types
        None: all that compute.
    """
    for op_type in op_types or tried():
        for implementation in IMPLEMENTATIONS:
            seen = [
                measured(trial(op_type, seed, scale), implementation)
                for seed in range(trials)
                for scale in SCALES
            ]
            known = [ratio for ratio in seen if ratio is not None]
            if known:
                yield Utilisation(op_type, implementation.name, max(known))


# --- detectable faults ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Detectable:
    """The smallest size at which a fault shows.

    Attributes
    ----------
    fault
        What is wrong, "by" what the sizes are relative to.
    by_bound
        From this size on an element exceeds its bound.
    by_statistics
        From this size on `bias_test` is suspicious.
    """

    fault: str
    by_bound: float
    by_statistics: float


Faulty = Callable[[float], Trial]


def _faults(seed: int) -> Iterator[tuple[str, Trial, Faulty]]:
    """Yield faults of a size: name, the correct call, and the wrong one."""
    rng = np.random.default_rng(seed)
    x, w, b = rng.normal(size=(1, 64, 32, 32)), rng.normal(size=(16, 64, 3, 3)), rng.normal(size=16)
    conv = {"pads": (1, 1, 1, 1)}
    right = Trial("Conv", (x, w, b), conv)
    single = np.zeros_like(w)
    single[3, 5, 1, 1] = w[3, 5, 1, 1]
    yield (
        "convolution, K = 576: one weight, relatively",
        right,
        lambda t: Trial("Conv", (x, w + t * single, b), conv),
    )
    yield (
        "convolution, K = 576: all weights, relatively",
        right,
        lambda t: Trial("Conv", (x, w * (1 + t), b), conv),
    )
    yield "convolution, K = 576: bias, absolutely", right, lambda t: Trial("Conv", (x, w, b + t), conv)
    yield from _element_faults(rng)


def _element_faults(rng: np.random.Generator) -> Iterator[tuple[str, Trial, Faulty]]:
    parameters = (rng.normal(size=8), rng.normal(size=8), rng.normal(size=8), rng.uniform(0.5, 2, 8))
    x = rng.normal(size=(1, 8, 32, 32))
    right = Trial("BatchNormalization", (x, *parameters), {"epsilon": 1e-5})
    yield "batch normalisation: epsilon, absolutely", right, lambda t: _changed(right, "epsilon", 1e-5 + t)
    rows = rng.normal(size=(128, 256))
    layer = Trial("LayerNormalization", (rows, np.ones(256), np.zeros(256)), {"epsilon": 1e-5})
    yield (
        "layer normalisation, n = 256: epsilon, absolutely",
        layer,
        lambda t: _changed(layer, "epsilon", 1e-5 + t),
    )
    gate = Trial("HardSigmoid", (x,), {"alpha": 0.2, "beta": 0.5})
    yield "hard sigmoid: slope, absolutely", gate, lambda t: _changed(gate, "alpha", 0.2 + t)
    product = Trial("Mul", (x, np.asarray(0.125)))
    yield "product: scale, relatively", product, lambda t: Trial("Mul", (x, np.asarray(0.125 * (1 + t))))
    logits = rng.normal(size=(64, 100)) * 3
    attention = Trial("Softmax", (logits,))
    yield (
        "softmax, n = 100: temperature, relatively",
        attention,
        lambda t: Trial("Softmax", (logits * (1 + t),)),
    )
    mean = Trial("GlobalAveragePool", (x + 2,))
    yield (
        "mean of 1024: divisor, relatively",
        mean,
        lambda t: Trial("GlobalAveragePool", ((x + 2) * (1 + t),)),
    )


def _changed(call: Trial, name: str, value: float) -> Trial:
    return Trial(call.op_type, call.inputs, call.attributes | {name: value})


def smallest_detectable_faults(seed: int = 0) -> Iterator[Detectable]:
    """Yield the smallest size of each kind of fault that shows in float32, to a factor of 1.1."""
    for name, right, faulty in _faults(seed):
        yield Detectable(name, *_smallest(right, faulty))


def _smallest(right: Trial, faulty: Faulty) -> tuple[float, float]:
    """Return from which size a fault exceeds the bound, and from which the statistics are suspicious."""
    right = Trial(right.op_type, _operands(right, FLOAT32), right.attributes)
    truth = _computed(right, np.float64)[0]
    arguments = (right.op_type, right.inputs, right.attributes, truth)
    bound, scale = introduced_bound(*arguments), introduced_bound(*arguments, probable=True)
    if bound is None or scale is None:
        raise UnsupportedOperationError(f"{right.op_type} has no bound that a fault could exceed")
    # Rounding as the correct call has it, and the fault in float64: float32 weights cannot change by less
    # than u.
    rounding = _computed(right, np.float32)[0] - truth
    baseline = _computed(faulty(0.0), np.float64)[0]

    def error(size: float) -> Array:
        return rounding + (_computed(faulty(size), np.float64)[0] - baseline)

    return (
        _threshold(lambda size: bool((np.abs(error(size)) > bound).any())),
        _threshold(lambda size: bias_test(error(size), bound, scale).suspicious),
    )


def _threshold(shows: Callable[[float], bool]) -> float:
    """Return the least size from 1e-9 to 1 at which a fault shows, by bisection of the exponent."""
    low, high = -9.0, 0.0
    if not shows(1.0):
        return float("inf")
    while high - low > 0.04:
        middle = (low + high) / 2
        low, high = (low, middle) if shows(10.0**middle) else (middle, high)
    return float(10.0**high)
