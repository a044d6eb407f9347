"""Implementations that are not ours, asked at build time: ONNX's reference, ONNX Runtime, PyTorch, mpmath."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from conformance.bounds import FLOAT32
from golden.case import Bounds, Confirmation
from golden.sources import pytorch as pytorch_source
from golden.sources.comparison import confirmed
from refimpl.errors import MissingDependencyError, VerificationError
from refimpl.graph import Graph
from refimpl.ops.operation import Array

__all__ = ["FLOAT32", "confirm_operation", "confirm_with_pytorch", "settled"]

LARGEST_ULP = 1.0
"""Of the special functions, in float64."""

_ROUNDED_ERF = "its erf is a polynomial of float32's accuracy"
_ROUNDED_CONSTANTS = "holds its constants in float32"
NOT_FOLLOWED = {
    ("onnx.reference", "Erf"): _ROUNDED_ERF,
    ("onnx.reference", "Gelu"): _ROUNDED_ERF,
    ("onnx.reference", "HardSwish"): _ROUNDED_CONSTANTS,
    ("ONNX Runtime", "HardSwish"): _ROUNDED_CONSTANTS,
    ("ONNX Runtime", "Gelu"): _ROUNDED_CONSTANTS,
    ("ONNX Runtime", "GroupNormalization"): "normalises in float32, its stash_type",
    ("onnx.reference", "GroupNormalization"): "normalises in float32, its stash_type",
    ("ONNX Runtime", "DFT"): "where the length is no power of two, its angles are of float32's accuracy",
    ("onnx.reference", "GridSample/cubic"): "its cubic is of float32's accuracy",
    ("ONNX Runtime", "Attention"): "takes the scale in float32",
    ("onnx.reference", "LRN"): "goes through as many channels as there are samples",
    ("onnx.reference", "Resize/cubic"): "takes the scale, sizes / shape, in float32",
}
"""(source, operator) → why its float64 is none. Each has another source."""


def confirm_operation(
    op_type: str,
    model: onnx.ModelProto,
    feeds: Mapping[str, Array],
    computation: Graph,
    truth: Mapping[str, Array],
    bounds: Bounds,
) -> list[Confirmation]:
    """Ask every source that can compute a single operation.

    Raises
    ------
    VerificationError
        One disagrees, or none can.
    """
    wide = widened_model(model)
    results: dict[str, Mapping[str, Array] | None] = {
        f"PyTorch {_torch_version()}, float64": pytorch_source.computed(computation),
        f"ONNX Runtime {_version('onnxruntime')}, float64": _onnx_runtime(wide, feeds, truth),
        f"onnx.reference {onnx.__version__}, float64": _onnx_reference(wide, feeds, truth),
    }
    confirmations = [
        confirmed(source, result, truth, bounds)
        for source, result in results.items()
        if result is not None and not _left_out(source, computation)
    ]
    if op_type in _SPECIAL:
        confirmations.insert(0, _mpmath(computation, truth))
    if not confirmations:
        raise VerificationError(f"no independent implementation computes this {op_type}")
    return confirmations


def confirm_with_pytorch(
    computation: Graph, truth: Mapping[str, Array], bounds: Bounds
) -> list[Confirmation]:
    """Ask PyTorch's operators for each recorded step of a block or a network."""
    result = pytorch_source.computed(computation)
    if result is None:
        raise VerificationError("the block has an operation that is not translated to PyTorch")
    return [confirmed(f"PyTorch {_torch_version()}, step by step, float64", result, truth, bounds)]


def module_source() -> str:
    """Return the name under which the independent modules confirm."""
    return f"independent nn.Module, PyTorch {_torch_version()}, float64"


def module_results(name: str, x: Array, further: Mapping[str, Array]) -> dict[str, Array]:
    """Run the independent module of a block or a network; its outputs and every submodule's result by path.

    Raises
    ------
    MissingDependencyError
        PyTorch is not installed.
    """
    from golden.sources.independent.parts import computed

    return computed(name, x, further)


def _left_out(source: str, computation: Graph) -> bool:
    (node,) = computation.nodes
    names = (node.op_type, f"{node.op_type}/{node.attributes.get('mode', '')}")
    return any(source.startswith(who) and what in names for who, what in NOT_FOLLOWED)


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def _torch_version() -> str:
    return _version("torch").partition("+")[0]


# --- ONNX -----------------------------------------------------------------------------------------


def widened_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model in float64: inputs, initializers, and what it casts to."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    for info in wide.graph.input:
        if info.type.tensor_type.elem_type == TensorProto.FLOAT:
            info.type.tensor_type.elem_type = TensorProto.DOUBLE
    for tensor in wide.graph.initializer:
        resize_scales = wide.graph.node[0].op_type == "Resize"
        if tensor.data_type == TensorProto.FLOAT and not resize_scales:
            tensor.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name)
            )
    for node in wide.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t") and attribute.t.data_type == TensorProto.FLOAT:
                value = numpy_helper.to_array(attribute.t).astype(np.float64)
                attribute.t.CopyFrom(numpy_helper.from_array(value))
    names = [info.name for info in wide.graph.output]
    del wide.graph.output[:]
    wide.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    del wide.graph.value_info[:]
    return wide


def _wide(feeds: Mapping[str, Array]) -> dict[str, Array]:
    return {name: x.astype(np.float64) if x.dtype == np.float32 else x for name, x in feeds.items()}


def _named(results: Any, truth: Mapping[str, Array]) -> dict[str, Array] | None:
    """Return the results by name; None if the source computed in another dtype than float64."""
    named = dict(zip(truth, (np.asarray(x) for x in results), strict=True))
    same = all(named[name].dtype == x.dtype for name, x in truth.items())
    return named if same else None


def _onnx_runtime(model: onnx.ModelProto, feeds: Mapping[str, Array], truth: Mapping[str, Array]) -> Any:
    from conformance.silent_onnxruntime import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        return _named(session.run(list(truth), _wide(feeds)), truth)
    except Exception:
        return None  # no kernel in float64


def _onnx_reference(model: onnx.ModelProto, feeds: Mapping[str, Array], truth: Mapping[str, Array]) -> Any:
    from onnx.reference import ReferenceEvaluator

    try:
        with np.errstate(all="ignore"):
            return _named(ReferenceEvaluator(model).run(list(truth), _wide(feeds)), truth)
    except Exception:
        return None  # not implemented for these types or attributes


# --- mpmath ---------------------------------------------------------------------------------------


def _functions(mp: Any) -> dict[str, Callable[..., Any]]:
    def sigmoid(x: Any) -> Any:
        return 1 / (1 + mp.exp(-x))

    def gelu(x: Any, approximate: str = "none") -> Any:
        if approximate == "none":
            return x * mp.erfc(-x / mp.sqrt(2)) / 2
        # (1 + tanh z) / 2 as a sigmoid, which does not cancel all digits.
        return x * sigmoid(2 * mp.sqrt(2 / mp.pi) * (x + mp.mpf("0.044715") * x**3))

    return {
        "Exp": mp.exp,
        "Log": mp.log,
        "Sin": mp.sin,
        "Cos": mp.cos,
        "Sqrt": mp.sqrt,
        "Tanh": mp.tanh,
        "Erf": mp.erf,
        "Sigmoid": sigmoid,
        "Reciprocal": lambda x: 1 / x,
        "Pow": lambda x, y: x**y,
        "Softplus": lambda x: mp.log1p(mp.exp(x)),
        "Mish": lambda x: x * mp.tanh(mp.log1p(mp.exp(x))),
        "Swish": lambda x, alpha=1.0: x * sigmoid(alpha * x),
        "Gelu": gelu,
        "Elu": lambda x, alpha=1.0: x if x >= 0 else alpha * mp.expm1(x),
    }


# fmt: off
_SPECIAL = frozenset((
    "Exp", "Log", "Sin", "Cos", "Sqrt", "Tanh", "Erf", "Sigmoid", "Reciprocal", "Pow",
    "Softplus", "Mish", "Swish", "Gelu", "Elu",
))
# fmt: on


def import_mpmath() -> Any:
    """Return mpmath, or say which extra brings it."""
    try:
        import mpmath
    except ImportError as error:
        raise MissingDependencyError(
            "mpmath is not installed: pip install 'mobileinst-reference[golden]'"
        ) from error
    return mpmath


def settled(computation: Graph) -> Callable[[], dict[str, Array]] | None:
    """Return what computes a special function to the last bit of float64; None for any other operation."""
    (node,) = computation.nodes
    if node.op_type not in _SPECIAL:
        return None

    def compute() -> dict[str, Array]:
        mp = import_mpmath()
        function = _functions(mp)[node.op_type]
        operands = np.broadcast_arrays(*(computation.initializers[name] for name in node.inputs))
        with mp.workdps(60):
            values = [
                float(function(*(mp.mpf(float(x)) for x in element), **node.attributes))
                for element in zip(*(x.ravel() for x in operands), strict=True)
            ]
        return {node.outputs[0]: np.asarray(values, np.float64).reshape(operands[0].shape)}

    return compute


def _mpmath(computation: Graph, truth: Mapping[str, Array]) -> Confirmation:
    """Compare in units of the last place of float64."""
    compute = settled(computation)
    assert compute is not None
    (node,) = computation.nodes
    largest = 0.0
    for name, exact in compute().items():
        largest = max(largest, float((np.abs(truth[name] - exact) / np.spacing(np.abs(exact))).max()))
    if largest > LARGEST_ULP:
        raise VerificationError(f"{node.op_type} is {largest:.2f} ulp from mpmath, more than {LARGEST_ULP:g}")
    return Confirmation(f"mpmath {_version('mpmath')}, 60 digits", largest, "ulp")
