"""Right models that look wrong: an independent network written in ways that nobody would call usual.

`python tests/support/unusual_exports.py` judges each, and prints a table; none may fail. A way is a rewriting
that computes the same: an operation written out or in another one's terms, layouts, merged projections,
further outputs, other operator sets, and what simplifiers and optimisers make of a model.
"""

from __future__ import annotations

import argparse
import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate
from conformance.evidence.fault_score import MODELS, NOT_EXPORTED, OWN, Case, anonymous, case
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.network import verify
from conformance.reports.report import Report

Array = NDArray[Any]
NETWORKS = ("topformer-tiny", "seaformer-tiny", "sparseinst-topformer-tiny")
WEIGHTS = 3
"""Their seed."""


class NotHere(Exception):
    """The network has nothing to write in this way."""


# --- rewriting ------------------------------------------------------------------------------------


@dataclass
class Making:
    """The nodes and constants that take a node's place."""

    shapes: dict[str, tuple[int, ...]]
    constants: dict[str, Array]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    made: list[onnx.TensorProto] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def node(
        self, op_type: str, *inputs: str | Array | float, out: str | Sequence[str] = "", **attributes: Any
    ) -> str:
        """Add a node; return the name of its first output."""
        number = next(self.numbers)
        outputs = [out or f"made{number}"] if isinstance(out, str) else list(out)
        names = [each if isinstance(each, str) else self.constant(each) for each in inputs]
        self.nodes.append(helper.make_node(op_type, names, outputs, name=f"maker{number}", **attributes))
        return outputs[0]

    def constant(self, array: Array | float) -> str:
        """Add an initializer: floats in float32."""
        values = np.asarray(array)
        values = values.astype(np.float32) if values.dtype.kind == "f" else values
        name = f"given{next(self.numbers)}"
        self.made.append(numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name))
        return name


Way = Callable[[onnx.NodeProto, Making], Any]
Rewrite = Callable[[onnx.ModelProto, dict[str, Array]], onnx.ModelProto]


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Return the attributes by name."""
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def everywhere(*operators: str) -> Callable[[Way], Rewrite]:
    """Make a rewriting of one node, which adds nothing where it does not fit, one of the whole model."""

    def rewriting(way: Way) -> Rewrite:
        def rewrite(model: onnx.ModelProto, tensors: dict[str, Array]) -> onnx.ModelProto:
            shapes = {name: array.shape for name, array in tensors.items()}
            constants = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
            constants |= _constant_nodes(model)
            making = Making(shapes | {name: array.shape for name, array in constants.items()}, constants)
            changed = 0
            for node in model.graph.node:
                before = len(making.nodes)
                if node.op_type in operators:
                    way(node, making)
                if len(making.nodes) == before:
                    making.nodes.append(node)
                else:
                    changed += 1
            if not changed:
                raise NotHere
            return _with(model, making.nodes, making.made)

        rewrite.__name__ = way.__name__
        return rewrite

    return rewriting


def _constant_nodes(model: onnx.ModelProto) -> dict[str, Array]:
    return {
        node.output[0]: numpy_helper.to_array(helper.get_attribute_value(node.attribute[0]))
        for node in model.graph.node
        if node.op_type == "Constant" and node.attribute[0].name == "value"
    }


def _with(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], made: Sequence[onnx.TensorProto] = ()
) -> onnx.ModelProto:
    new = onnx.ModelProto()
    new.CopyFrom(model)
    kept = [copy.deepcopy(node) for node in nodes]
    del new.graph.node[:], new.graph.value_info[:]
    new.graph.node.extend(kept)
    new.graph.initializer.extend(made)
    return new


# --- operations in other terms --------------------------------------------------------------------


@everywhere("Relu")
def relu_as_max(node: onnx.NodeProto, it: Making) -> None:
    it.node("Max", node.input[0], 0.0, out=node.output[0])


@everywhere("Relu")
def relu_as_clip(node: onnx.NodeProto, it: Making) -> None:
    it.node("Clip", node.input[0], 0.0, out=node.output[0])


@everywhere("Relu")
def relu_as_where(node: onnx.NodeProto, it: Making) -> None:
    it.node("Where", it.node("Greater", node.input[0], 0.0), node.input[0], 0.0, out=node.output[0])


@everywhere("Relu")
def relu_as_leaky(node: onnx.NodeProto, it: Making) -> None:
    it.node("LeakyRelu", node.input[0], out=node.output[0], alpha=0.0)


@everywhere("Clip")
def clip_as_min_and_max(node: onnx.NodeProto, it: Making) -> None:
    if len(node.input) == 3:
        low, high = node.input[1:]
        it.node("Min", it.node("Max", node.input[0], low), high, out=node.output[0])


@everywhere("HardSigmoid")
def hard_sigmoid_by_relu6(node: onnx.NodeProto, it: Making) -> None:
    up = it.node("Clip", it.node("Add", node.input[0], 3.0), 0.0, 6.0)
    it.node("Div", up, 6.0, out=node.output[0])


@everywhere("HardSigmoid")
def hard_sigmoid_written_out(node: onnx.NodeProto, it: Making) -> None:
    line = it.node("Add", it.node("Mul", node.input[0], 1 / 6), 0.5)
    it.node("Clip", line, 0.0, 1.0, out=node.output[0])


@everywhere("Sigmoid")
def sigmoid_written_out(node: onnx.NodeProto, it: Making) -> None:
    power = it.node("Exp", it.node("Neg", node.input[0]))
    it.node("Reciprocal", it.node("Add", power, 1.0), out=node.output[0])


@everywhere("Sigmoid")
def sigmoid_by_tanh(node: onnx.NodeProto, it: Making) -> None:
    tanh = it.node("Tanh", it.node("Mul", node.input[0], 0.5))
    it.node("Mul", it.node("Add", tanh, 1.0), 0.5, out=node.output[0])


@everywhere("Softmax")
def softmax_written_out(node: onnx.NodeProto, it: Making) -> None:
    axes = np.asarray([attributes_of(node).get("axis", -1)], np.int64)
    largest = it.node("ReduceMax", node.input[0], axes, keepdims=1)
    power = it.node("Exp", it.node("Sub", node.input[0], largest))
    it.node("Div", power, it.node("ReduceSum", power, axes, keepdims=1), out=node.output[0])


@everywhere("Softmax")
def softmax_in_float64(node: onnx.NodeProto, it: Making) -> None:
    wide = it.node("Cast", node.input[0], to=TensorProto.DOUBLE)
    soft = it.node("Softmax", wide, **attributes_of(node))
    it.node("Cast", soft, out=node.output[0], to=TensorProto.FLOAT)


@everywhere("Softmax")
def softmax_as_exp_of_log_softmax(node: onnx.NodeProto, it: Making) -> None:
    it.node("Exp", it.node("LogSoftmax", node.input[0], **attributes_of(node)), out=node.output[0])


@everywhere("LayerNormalization")
def layer_norm_written_out(node: onnx.NodeProto, it: Making) -> None:
    given = attributes_of(node)
    axes = np.asarray([-1], np.int64)
    centred = it.node("Sub", node.input[0], it.node("ReduceMean", node.input[0], axes))
    variance = it.node("ReduceMean", it.node("Pow", centred, 2.0), axes)
    deviation = it.node("Sqrt", it.node("Add", variance, given.get("epsilon", 1e-5)))
    scaled = it.node("Mul", it.node("Div", centred, deviation), node.input[1])
    it.node("Add", scaled, node.input[2], out=node.output[0])


@everywhere("LayerNormalization")
def layer_norm_without_its_affine(node: onnx.NodeProto, it: Making) -> None:
    length = it.shapes[node.input[1]]
    normed = it.node("LayerNormalization", node.input[0], np.ones(length), **attributes_of(node))
    it.node("Add", it.node("Mul", normed, node.input[1]), node.input[2], out=node.output[0])


@everywhere("BatchNormalization")
def batch_norm_as_line(node: onnx.NodeProto, it: Making) -> None:
    scale, shift, mean, variance = (it.constants[name].astype(np.float64) for name in node.input[1:])
    factor = scale / np.sqrt(variance + attributes_of(node).get("epsilon", 1e-5))
    column = (1, -1, 1, 1)
    scaled = it.node("Mul", node.input[0], factor.reshape(column))
    it.node("Add", scaled, (shift - mean * factor).reshape(column), out=node.output[0])


@everywhere("BatchNormalization")
def batch_norm_as_depthwise_convolution(node: onnx.NodeProto, it: Making) -> None:
    scale, shift, mean, variance = (it.constants[name].astype(np.float64) for name in node.input[1:])
    factor = scale / np.sqrt(variance + attributes_of(node).get("epsilon", 1e-5))
    kernel = factor.reshape(-1, 1, 1, 1)
    it.node("Conv", node.input[0], kernel, shift - mean * factor, out=node.output[0], group=len(scale))


@everywhere("Conv")
def pointwise_convolution_as_product(node: onnx.NodeProto, it: Making) -> None:
    kernel, given = it.constants.get(node.input[1]), attributes_of(node)
    strided = any(each != 1 for each in given.get("strides", ()))
    if kernel is None or kernel.shape[2:] != (1, 1) or given.get("group", 1) != 1 or strided:
        return
    batch, channels, height, width = it.shapes[node.input[0]]
    flat = it.node("Reshape", node.input[0], np.asarray([batch, channels, height * width], np.int64))
    product = it.node("MatMul", kernel[:, :, 0, 0], flat)
    if len(node.input) > 2:
        product = it.node("Add", product, it.constants[node.input[2]].reshape(-1, 1))
    it.node("Reshape", product, np.asarray([batch, -1, height, width], np.int64), out=node.output[0])


@everywhere("Conv")
def explicit_pads(node: onnx.NodeProto, it: Making) -> None:
    given = attributes_of(node)
    pads = given.pop("pads", ())
    if not any(pads):
        return
    top, left, bottom, right = pads
    widths = np.asarray([0, 0, top, left, 0, 0, bottom, right], np.int64)
    padded = it.node("Pad", node.input[0], widths)
    it.node("Conv", padded, *node.input[1:], out=node.output[0], **given)


@everywhere("Conv")
def same_padding_by_name(node: onnx.NodeProto, it: Making) -> None:
    given = attributes_of(node)
    if any(each != 1 for each in given.get("strides", ())) or not any(given.get("pads", ())):
        return
    del given["pads"]
    it.node("Conv", *node.input, out=node.output[0], **{**given, "auto_pad": "SAME_UPPER"})


@everywhere("Conv")
def bias_added_after(node: onnx.NodeProto, it: Making) -> None:
    if len(node.input) < 3:
        return
    product = it.node("Conv", *node.input[:2], **attributes_of(node))
    it.node("Add", product, it.constants[node.input[2]].reshape(-1, 1, 1), out=node.output[0])


@everywhere("Conv")
def zero_bias_given(node: onnx.NodeProto, it: Making) -> None:
    if len(node.input) == 2:
        zeros = np.zeros(it.constants[node.input[1]].shape[0])
        it.node("Conv", *node.input, zeros, out=node.output[0], **attributes_of(node))


@everywhere("Conv")
def output_channels_in_halves(node: onnx.NodeProto, it: Making) -> None:
    kernel, given = it.constants.get(node.input[1]), attributes_of(node)
    if kernel is None or given.get("group", 1) != 1 or len(kernel) < 8:
        return
    half, parts = len(kernel) // 2, []
    for part in (slice(0, half), slice(half, None)):
        bias = [it.constants[name][part] for name in node.input[2:]]
        parts.append(it.node("Conv", node.input[0], kernel[part], *bias, **given))
    it.node("Concat", *parts, out=node.output[0], axis=1)


@everywhere("Conv")
def wide_kernel_written_larger(node: onnx.NodeProto, it: Making) -> None:
    """A kernel with a ring of zeros, and one more pixel of padding."""
    kernel, given = it.constants.get(node.input[1]), attributes_of(node)
    if kernel is None or kernel.shape[2:] != (3, 3):
        return
    given["pads"] = [each + 1 for each in given["pads"]]
    given["kernel_shape"] = [5, 5]
    larger = np.pad(kernel, [(0, 0), (0, 0), (1, 1), (1, 1)])
    it.node("Conv", node.input[0], larger, *node.input[2:], out=node.output[0], **given)


@everywhere("Conv")
def convolution_between_transposes(node: onnx.NodeProto, it: Making) -> None:
    last = it.node("Transpose", node.input[0], perm=[0, 2, 3, 1])
    first = it.node("Transpose", last, perm=[0, 3, 1, 2])
    it.node("Conv", first, *node.input[1:], out=node.output[0], **attributes_of(node))


@everywhere("Relu", "Clip", "HardSigmoid", "Sigmoid")
def activations_channels_last(node: onnx.NodeProto, it: Making) -> None:
    if len(it.shapes[node.input[0]]) != 4:
        return
    last = it.node("Transpose", node.input[0], perm=[0, 2, 3, 1])
    made = it.node(node.op_type, last, *node.input[1:], **attributes_of(node))
    it.node("Transpose", made, out=node.output[0], perm=[0, 3, 1, 2])


@everywhere("Add", "Mul")
def sums_channels_last(node: onnx.NodeProto, it: Making) -> None:
    if any(len(it.shapes[name]) != 4 for name in node.input):
        return
    last = [it.node("Transpose", name, perm=[0, 2, 3, 1]) for name in node.input]
    it.node("Transpose", it.node(node.op_type, *last), out=node.output[0], perm=[0, 3, 1, 2])


@everywhere("Add", "Mul")
def operands_exchanged(node: onnx.NodeProto, it: Making) -> None:
    it.node(node.op_type, *reversed(node.input), out=node.output[0])


@everywhere("Add")
def sum_as_difference(node: onnx.NodeProto, it: Making) -> None:
    if it.shapes[node.input[0]]:
        it.node("Sub", node.input[0], it.node("Neg", node.input[1]), out=node.output[0])


@everywhere("Add")
def sum_of_many(node: onnx.NodeProto, it: Making) -> None:
    it.node("Sum", *node.input, out=node.output[0])


@everywhere("Div")
def quotient_as_product(node: onnx.NodeProto, it: Making) -> None:
    divisor = it.constants.get(node.input[1])
    if divisor is not None and divisor.dtype == np.float32:
        it.node("Mul", node.input[0], 1 / divisor.astype(np.float64), out=node.output[0])


@everywhere("MatMul")
def product_of_transposes(node: onnx.NodeProto, it: Making) -> None:
    """AB as (BᵀAᵀ)ᵀ."""
    turned = []
    for name in reversed(node.input):
        perm = list(range(len(it.shapes[name])))
        turned.append(it.node("Transpose", name, perm=[*perm[:-2], perm[-1], perm[-2]]))
    perm = list(range(len(it.shapes[node.output[0]])))
    product = it.node("MatMul", *turned)
    it.node("Transpose", product, out=node.output[0], perm=[*perm[:-2], perm[-1], perm[-2]])


@everywhere("MatMul")
def linear_weights_transposed(node: onnx.NodeProto, it: Making) -> None:
    weight = it.constants.get(node.input[1])
    if weight is not None and weight.ndim == 2:
        it.node("MatMul", node.input[0], it.node("Transpose", weight.T, perm=[1, 0]), out=node.output[0])


@everywhere("MatMul")
def product_by_einsum(node: onnx.NodeProto, it: Making) -> None:
    left, right = (len(it.shapes[name]) for name in node.input)
    if (left, right) == (3, 3):
        it.node("Einsum", *node.input, out=node.output[0], equation="bij,bjk->bik")
    elif (left, right) == (4, 4):
        it.node("Einsum", *node.input, out=node.output[0], equation="bhij,bhjk->bhik")


@everywhere("Gemm")
def linear_as_product_and_sum(node: onnx.NodeProto, it: Making) -> None:
    given = attributes_of(node)
    weight = it.constants[node.input[1]]
    product = it.node("MatMul", node.input[0], weight.T if given.get("transB") else weight)
    it.node("Add", product, node.input[2], out=node.output[0])


@everywhere("Gemm")
def linear_as_convolution(node: onnx.NodeProto, it: Making) -> None:
    weight = it.constants[node.input[1]]
    kernel = (weight if attributes_of(node).get("transB") else weight.T)[:, :, None]
    rows, width = it.shapes[node.input[0]]
    line = it.node("Reshape", node.input[0], np.asarray([rows, width, 1], np.int64))
    made = it.node("Conv", line, kernel, node.input[2])
    it.node("Reshape", made, np.asarray([rows, -1], np.int64), out=node.output[0])


@everywhere("Resize")
def resized_by_scales(node: onnx.NodeProto, it: Making) -> None:
    before, after = it.shapes[node.input[0]], it.shapes[node.output[0]]
    scales = np.asarray(after, np.float64) / before
    if (scales == np.round(scales)).all():
        it.node("Resize", node.input[0], "", scales, out=node.output[0], **attributes_of(node))


@everywhere("Resize")
def resized_by_sizes(node: onnx.NodeProto, it: Making) -> None:
    sizes = np.asarray(it.shapes[node.output[0]], np.int64)
    it.node("Resize", node.input[0], "", "", sizes, out=node.output[0], **attributes_of(node))


@everywhere("Resize")
def resized_channels_last(node: onnx.NodeProto, it: Making) -> None:
    batch, channels, height, width = it.shapes[node.output[0]]
    last = it.node("Transpose", node.input[0], perm=[0, 2, 3, 1])
    sizes = np.asarray([batch, height, width, channels], np.int64)
    made = it.node("Resize", last, "", "", sizes, **attributes_of(node))
    it.node("Transpose", made, out=node.output[0], perm=[0, 3, 1, 2])


@everywhere("ReduceMean")
def mean_as_sum(node: onnx.NodeProto, it: Making) -> None:
    axes = it.constants[node.input[1]]
    count = float(np.prod([it.shapes[node.input[0]][axis] for axis in axes]))
    total = it.node("ReduceSum", *node.input, **attributes_of(node))
    it.node("Div", total, count, out=node.output[0])


@everywhere("Split")
def split_as_slices(node: onnx.NodeProto, it: Making) -> None:
    axis, start = attributes_of(node).get("axis", 0), 0
    for name in node.output:
        stop = start + it.shapes[name][axis]
        bounds = [np.asarray([each], np.int64) for each in (start, stop, axis)]
        it.node("Slice", node.input[0], *bounds, out=name)
        start = stop


@everywhere("Concat")
def concatenated_by_pads(node: onnx.NodeProto, it: Making) -> None:
    """Each operand among zeros, and all added: what an old converter does."""
    if len({it.shapes[name] for name in node.input}) == 0 or it.shapes[node.output[0]] == ():
        return
    total, axis = it.shapes[node.output[0]], attributes_of(node)["axis"]
    if len(total) != 4 or any(len(it.shapes[name]) != 4 for name in node.input):
        return
    start, parts = 0, []
    for name in node.input:
        pads = np.zeros((2, 4), np.int64)
        pads[:, axis] = start, total[axis] - start - it.shapes[name][axis]
        parts.append(it.node("Pad", name, pads.reshape(-1)))
        start += it.shapes[name][axis]
    it.node("Sum", *parts, out=node.output[0])


@everywhere("Conv", "Add", "MatMul", "Relu")
def identities_between(node: onnx.NodeProto, it: Making) -> None:
    made = it.node(node.op_type, *node.input, **attributes_of(node))
    it.node("Identity", made, out=node.output[0])


@everywhere("Relu", "Softmax")
def dropout_at_rest(node: onnx.NodeProto, it: Making) -> None:
    made = it.node(node.op_type, *node.input, **attributes_of(node))
    it.node("Dropout", made, out=node.output[0])


@everywhere("Relu", "Add")
def there_and_back_in_shape(node: onnx.NodeProto, it: Making) -> None:
    made = it.node(node.op_type, *node.input)
    flat = it.node("Reshape", made, np.asarray([-1], np.int64))
    shape = np.asarray(it.shapes[node.output[0]], np.int64)
    it.node("Reshape", flat, shape, out=node.output[0])


@everywhere("Relu")
def relu_in_a_branch(node: onnx.NodeProto, it: Making) -> None:
    branches = {}
    for name, op_type in (("then_branch", "Relu"), ("else_branch", "Abs")):
        inner = f"{name}{next(it.numbers)}"
        out = helper.make_tensor_value_info(inner, TensorProto.FLOAT, None)
        branches[name] = helper.make_graph(
            [helper.make_node(op_type, [node.input[0]], [inner], name=f"in {inner}")], name, [], [out]
        )
    it.node("If", np.asarray(True), out=node.output[0], **branches)


@everywhere("Mul")
def factor_squared_roots(node: onnx.NodeProto, it: Making) -> None:
    """A scalar factor in two halves, as attention's scale on queries and on keys."""
    for place, name in enumerate(node.input):
        factor = it.constants.get(name)
        if factor is not None and factor.size == 1 and factor.dtype == np.float32 and factor.item() > 0:
            root = np.sqrt(factor.astype(np.float64)).reshape(factor.shape)
            it.node("Mul", it.node("Mul", node.input[1 - place], root), root, out=node.output[0])
            return


# --- of the whole model ---------------------------------------------------------------------------


def constants_as_nodes(model: onnx.ModelProto, tensors: dict[str, Array]) -> onnx.ModelProto:
    nodes = [helper.make_node("Constant", [], [each.name], value=each) for each in model.graph.initializer]
    new = _with(model, [*nodes, *model.graph.node])
    del new.graph.initializer[:]
    return new


def names_scrambled(model: onnx.ModelProto, tensors: dict[str, Array]) -> onnx.ModelProto:
    return anonymous(model)


def names_that_lie(model: onnx.ModelProto, tensors: dict[str, Array]) -> onnx.ModelProto:
    """Every inner tensor bears the name of another of its shape."""
    kept = {each.name for each in (*model.graph.input, *model.graph.output)}
    alike: dict[Any, list[str]] = {}
    for node in model.graph.node:
        for name in node.output:
            if name not in kept and name in tensors:
                alike.setdefault(tensors[name].shape, []).append(name)
    other = {a: b for group in alike.values() for a, b in zip(group, [*group[1:], group[0]], strict=True)}
    new = _with(model, model.graph.node)
    for node in new.graph.node:
        for names in (node.input, node.output):
            names[:] = [other.get(name, name) for name in names]
    return new


def outputs_renamed(model: onnx.ModelProto, tensors: dict[str, Array]) -> onnx.ModelProto:
    new = _with(model, model.graph.node)
    for place, output in enumerate(new.graph.output):
        new.graph.node.append(helper.make_node("Identity", [output.name], [f"out{place}"]))
        output.name = f"out{place}"
    return new


def outputs_in_another_order(model: onnx.ModelProto, tensors: dict[str, Array]) -> onnx.ModelProto:
    new = _with(model, model.graph.node)
    outputs = list(new.graph.output)[::-1]
    del new.graph.output[:]
    new.graph.output.extend(outputs)
    return new


def _further(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> onnx.ModelProto:
    new = _with(model, [*model.graph.node, *nodes])
    new.graph.output.extend(onnx.ValueInfoProto(name=node.output[0]) for node in nodes)
    return new


def probabilities_as_well(model: onnx.ModelProto, tensors: dict[str, Array]) -> onnx.ModelProto:
    outputs = [each.name for each in model.graph.output]
    return _further(model, [helper.make_node("Sigmoid", [name], [f"{name}_p"]) for name in outputs])


def classes_as_well(model: onnx.ModelProto, tensors: dict[str, Array]) -> onnx.ModelProto:
    name = next(each.name for each in model.graph.output if "class" in each.name or "logits" in each.name)
    return _further(model, [helper.make_node("ArgMax", [name], ["classes"], axis=-1)])


def features_as_well(model: onnx.ModelProto, tensors: dict[str, Array]) -> onnx.ModelProto:
    kept = {each.name for each in model.graph.output}
    convs = [n.output[0] for n in model.graph.node if n.op_type == "Conv" and n.output[0] not in kept]
    new = _with(model, model.graph.node)
    new.graph.output.extend(onnx.ValueInfoProto(name=name) for name in (convs[2], convs[-2], convs[9]))
    return new


def masks_thresholded_as_well(model: onnx.ModelProto, tensors: dict[str, Array]) -> onnx.ModelProto:
    name = next(each.name for each in model.graph.output if "mask" in each.name)
    zero = helper.make_node("Constant", [], ["zero"], value_float=0.0)
    new = _with(model, [*model.graph.node, zero])
    return _further(new, [helper.make_node("Greater", [name, "zero"], ["shown"])])


def any_size_declared(model: onnx.ModelProto, tensors: dict[str, Array]) -> onnx.ModelProto:
    new = _with(model, model.graph.node)
    for value in (*new.graph.input, *new.graph.output):
        for place, length in enumerate(value.type.tensor_type.shape.dim):
            length.dim_param = f"{value.name}{place}"
    return new


def picture_in_bfloat16(model: onnx.ModelProto, tensors: dict[str, Array]) -> onnx.ModelProto:
    """The picture's numbers are bfloat16's, and the model keeps them so."""
    new = _with(model, model.graph.node)
    name = new.graph.input[0].name
    for node in new.graph.node:
        node.input[:] = ["wide" if each == name else each for each in node.input]
    narrow = helper.make_node("Cast", [name], ["narrow"], to=TensorProto.BFLOAT16)
    new.graph.node.insert(0, helper.make_node("Cast", ["narrow"], ["wide"], to=TensorProto.FLOAT))
    new.graph.node.insert(0, narrow)
    return new


def weights_in_float64(model: onnx.ModelProto, tensors: dict[str, Array]) -> onnx.ModelProto:
    """Weights are stored in float64 and cast."""
    new = _with(model, model.graph.node)
    casts = []
    for tensor in new.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and array.ndim > 1:
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float64), f"{name} wide"))
            casts.append(helper.make_node("Cast", [f"{name} wide"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *new.graph.node]
    return _with(new, nodes)


def merged_projections(model: onnx.ModelProto, tensors: dict[str, Array]) -> onnx.ModelProto:
    """Convolutions of one input, such as queries, keys and values, are one, and split."""
    constants = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    groups: dict[Any, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        if node.op_type == "Conv" and len(node.input) == 3 and node.input[1] in constants:
            kernel = constants[node.input[1]]
            if kernel.shape[2:] == (1, 1) and attributes_of(node).get("group", 1) == 1:
                groups.setdefault((node.input[0], str(attributes_of(node))), []).append(node)
    merged = {nodes[0].name: nodes for nodes in groups.values() if len(nodes) > 1}
    gone = {node.name for nodes in merged.values() for node in nodes}
    if not merged:
        raise NotHere
    making = Making({}, constants)
    for node in model.graph.node:
        if node.name in merged:
            together = merged[node.name]
            kernels, biases = ([constants[each.input[place]] for each in together] for place in (1, 2))
            whole = making.node(
                "Conv", node.input[0], np.concatenate(kernels), np.concatenate(biases), **attributes_of(node)
            )
            lengths = np.asarray([len(each) for each in kernels], np.int64)
            making.node("Split", whole, lengths, out=[each.output[0] for each in together], axis=1)
        elif node.name not in gone:
            making.nodes.append(node)
    return _with(model, making.nodes, making.made)


def functions_of_its_own(model: onnx.ModelProto, tensors: dict[str, Array]) -> onnx.ModelProto:
    """Relu is a function that the model brings."""
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Relu":
            node = helper.make_node("Rectify", list(node.input), list(node.output), node.name, domain="mine")
        nodes.append(node)
    new = _with(model, nodes)
    opset = helper.make_opsetid("", next(each.version for each in model.opset_import if not each.domain))
    zero = helper.make_node("Constant", [], ["zero"], value_float=0.0)
    largest = helper.make_node("Max", ["x", "zero"], ["y"])
    new.functions.append(helper.make_function("mine", "Rectify", ["x"], ["y"], [zero, largest], [opset]))
    new.opset_import.append(helper.make_opsetid("mine", 1))
    return new


def _runtime_saved(level: str) -> Rewrite:
    """Return the model as ONNX Runtime itself saves it, optimised."""

    def rewrite(model: onnx.ModelProto, tensors: dict[str, Array]) -> onnx.ModelProto:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
        with TemporaryDirectory() as folder:
            options.optimized_model_filepath = str(Path(folder) / "saved.onnx")
            onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            return onnx.load(options.optimized_model_filepath)

    return rewrite


def by_onnxsim(model: onnx.ModelProto, tensors: dict[str, Array]) -> onnx.ModelProto:
    import onnxsim

    simplified, right = onnxsim.simplify(model)
    assert right
    return simplified


def by_onnxslim(model: onnx.ModelProto, tensors: dict[str, Array]) -> onnx.ModelProto:
    import onnxslim

    return onnxslim.slim(model)


def by_onnxoptimizer(model: onnx.ModelProto, tensors: dict[str, Array]) -> onnx.ModelProto:
    import onnxoptimizer

    return onnxoptimizer.optimize(model, onnxoptimizer.get_fuse_and_elimination_passes())


def _version(opset: int) -> Rewrite:
    """Return the model in another operator set, by onnx's own converter."""

    def rewrite(model: onnx.ModelProto, tensors: dict[str, Array]) -> onnx.ModelProto:
        from onnx import version_converter

        return version_converter.convert_version(model, opset)

    return rewrite


WAYS: dict[str, Rewrite] = {
    way.__name__: way
    for way in (
        relu_as_max,
        relu_as_clip,
        relu_as_where,
        relu_as_leaky,
        clip_as_min_and_max,
        hard_sigmoid_by_relu6,
        hard_sigmoid_written_out,
        sigmoid_written_out,
        sigmoid_by_tanh,
        softmax_written_out,
        softmax_in_float64,
        softmax_as_exp_of_log_softmax,
        layer_norm_written_out,
        layer_norm_without_its_affine,
        pointwise_convolution_as_product,
        explicit_pads,
        same_padding_by_name,
        bias_added_after,
        output_channels_in_halves,
        wide_kernel_written_larger,
        convolution_between_transposes,
        activations_channels_last,
        sums_channels_last,
        operands_exchanged,
        sum_as_difference,
        sum_of_many,
        quotient_as_product,
        product_of_transposes,
        linear_weights_transposed,
        product_by_einsum,
        linear_as_product_and_sum,
        linear_as_convolution,
        resized_by_scales,
        resized_by_sizes,
        resized_channels_last,
        mean_as_sum,
        split_as_slices,
        concatenated_by_pads,
        identities_between,
        dropout_at_rest,
        there_and_back_in_shape,
        relu_in_a_branch,
        factor_squared_roots,
        constants_as_nodes,
        names_scrambled,
        names_that_lie,
        outputs_renamed,
        outputs_in_another_order,
        probabilities_as_well,
        classes_as_well,
        features_as_well,
        masks_thresholded_as_well,
        any_size_declared,
        picture_in_bfloat16,
        weights_in_float64,
        merged_projections,
        functions_of_its_own,
    )
}
WAYS |= {f"saved by ONNX Runtime, {level}": _runtime_saved(level) for level in ("BASIC", "EXTENDED", "ALL")}
WAYS |= {"onnxsim": by_onnxsim, "onnxslim": by_onnxslim, "onnxoptimizer": by_onnxoptimizer}
WAYS |= {f"converted to operator set {opset}": _version(opset) for opset in (19, 20, 21, 22, 23, 24)}
OF_NORMS = {
    way.__name__: way for way in (batch_norm_as_line, batch_norm_as_depthwise_convolution, zero_bias_given)
}
"""Ways to write what PyTorch's exporters fold: of this project's own export."""
EXPORTS = [("torchscript", opset) for opset in (11, 12, 13, 14, 15, 16, 17, 19, 20)]
EXPORTS += [("dynamo", opset) for opset in (18, 20, 21, 22, 23, 24)]
BATCHES = ("torchscript", "dynamo")


@dataclass(frozen=True)
class Unusual:
    """A right model, judged."""

    network: str
    way: str
    nodes: int
    report: Report


def judged(network: str, way: str) -> Unusual | None:
    """Judge one way of writing a network; None where it has no place."""
    if way in OF_NORMS:
        return _judged(case(network, OWN, WEIGHTS), network, way, OF_NORMS[way])
    if way in WAYS:
        return _judged(case(network, "dynamo", WEIGHTS), network, way, WAYS[way])
    return None


def _judged(it: Case, network: str, way: str, rewrite: Rewrite) -> Unusual | None:
    tensors = {**it.captured, it.model.graph.input[0].name: it.images}
    try:
        model = rewrite(it.model, tensors)
    except NotHere:
        return None
    images = it.images
    if way == "picture_in_bfloat16":
        images = images.astype(ml_dtypes.bfloat16).astype(np.float32)
    return _verdict(it, network, way, model, images)


def _verdict(it: Case, network: str, way: str, model: onnx.ModelProto, images: Array) -> Unusual:
    candidate = OnnxRuntimeCandidate(OnnxGraph.load(model, partly=True), threads=1)
    report = verify(candidate, it.config, it.weights, {"scene": images})
    return Unusual(network, way, len(model.graph.node), report)


def exported_otherwise(network: str, exporter: str, opset: int, batch: int = 1) -> Unusual | None:
    """Judge an export by another exporter, operator set or batch size."""
    from golden.sources.independent.export import exported

    if network in NOT_EXPORTED.get(exporter, ()):
        return None
    it = case(network, "dynamo", WEIGHTS)
    pictures = [it.images, it.images[..., ::-1].copy()][:batch]
    images = np.concatenate(pictures)
    model = exported(network, MODELS[network], it.weights, images, exporter, opset)
    way = f"{exporter}, operator set {opset}" + (f", batch {batch}" if batch > 1 else "")
    return _verdict(it, network, way, model, images)


def every(networks: Sequence[str] = NETWORKS) -> Iterator[Unusual]:
    """Judge all."""
    for network in networks:
        tasks: list[Callable[[], Unusual | None]] = [
            lambda network=network, way=way: judged(network, way) for way in (*WAYS, *OF_NORMS)
        ]
        tasks += [
            lambda network=network, export=export: exported_otherwise(network, *export) for export in EXPORTS
        ]
        tasks += [
            lambda network=network, exporter=exporter: exported_otherwise(network, exporter, 18, batch=2)
            for exporter in BATCHES
        ]
        for task in tasks:
            if (found := task()) is not None:
                yield found


def main() -> None:
    """Judge, print what failed, and a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", action="append", choices=MODELS)
    parser.add_argument("--way", help="only the ways whose names begin so")
    given = parser.parse_args()
    if given.way:
        chosen = [way for way in (*WAYS, *OF_NORMS) if way.startswith(given.way)]
        found = (judged(network, way) for network in given.network or NETWORKS for way in chosen)
    else:
        found = every(given.network or NETWORKS)
    table: dict[str, list[Unusual]] = {}
    for each in filter(None, found):
        table.setdefault(each.way, []).append(each)
        leading = each.report.leading
        if each.report.verdict != "pass":
            print(f"{each.way}, {each.network}: {each.report.headline()}", flush=True)
            for said in leading.evidence[:3]:
                print(f"    {said[:160]}")
    print("| way | networks | pass | nodes |\n|---|--:|--:|--:|")
    for way, group in table.items():
        passed = sum(each.report.verdict == "pass" for each in group)
        nodes = max(each.nodes for each in group)
        print(f"| {way.replace('_', ' ')} | {len(group)} | {passed} | {nodes} |")
    everything = [each for group in table.values() for each in group]
    print(f"| all | {len(everything)} | {sum(e.report.verdict == 'pass' for e in everything)} | |")


if __name__ == "__main__":
    main()
