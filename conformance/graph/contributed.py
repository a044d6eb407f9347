"""Operators of ONNX Runtime's own domain, com.microsoft, that its optimisers save: each by what it means.

Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from conformance.graph.opset import Context
from refimpl.errors import UnsupportedOperationError
from refimpl.graph import Node

MICROSOFT = "com.microsoft"
WITHOUT_DOMAIN = frozenset(("SimplifiedLayerNormalization",))
"""What ONNX Runtime keeps in ONNX's own domain, where ONNX has no such operator."""
Meaning = Callable[[Node, "Writer"], None]

MEANINGS: dict[str, Meaning] = {}
"""Operator → what writes the nodes that it means."""


def meant(node: Node, context: Context) -> list[Node]:
    """Return the nodes of ONNX's operators that one of com.microsoft means.

    Raises
    ------
    UnsupportedOperationError
        Its meaning is not known here.
    """
    if node.op_type not in MEANINGS:
        raise UnsupportedOperationError("no such operation")
    writer = Writer(node, context, [])
    MEANINGS[node.op_type](node, writer)
    return writer.nodes


@dataclasses.dataclass
class Writer:
    """Writes nodes that together are one."""

    whole: Node
    context: Context
    nodes: list[Node]

    def add(self, op_type: str, *inputs: str, result: str = "", **attributes: Any) -> str:
        """Add a node; return the name of its first result, ``result`` or a new one."""
        place = len(self.nodes)
        made = result or f"{self.whole.name}/{place}"
        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        self.nodes.append(Node(f"{self.whole.name}/{op_type}_{place}", op_type, inputs, (made,), attributes))
        return made

    def constant(self, value: Any) -> str:
        """Add a constant operand."""
        return self.context.constant(self.whole, f"constant_{len(self.context.constants)}", value)

    def operand(self, place: int) -> str:
        """Return the name of an operand, "" if absent."""
        return self.whole.inputs[place] if place < len(self.whole.inputs) else ""

    def wanted(self, place: int) -> str:
        """Return the name of a result, "" if nobody wants it."""
        return self.whole.outputs[place] if place < len(self.whole.outputs) else ""


def meaning(*names: str) -> Callable[[Meaning], Meaning]:
    """Register what writes the nodes that these operators mean."""

    def register(function: Meaning) -> Meaning:
        MEANINGS.update(dict.fromkeys(names, function))
        return function

    return register


def chosen(node: Node, *names: str) -> dict[str, Any]:
    """Return some of a node's attributes, as far as they are given."""
    return {name: node.attributes[name] for name in names if name in node.attributes}


# --- products with an activation ------------------------------------------------------------------

_ACTIVATIONS = {
    "Relu": (),
    "Tanh": (),
    "Sigmoid": (),
    "LeakyRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Clip": (),
}
"""Activation of a fused product → its parameters, in order."""


def _activated(write: Writer, x: str, name: str, parameters: tuple[float, ...], result: str) -> None:
    """Write the activation of a fused product."""
    if not name:
        write.add("Identity", x, result=result)
    elif name not in _ACTIVATIONS:
        raise UnsupportedOperationError(f"fused with {name}; known are {', '.join(_ACTIVATIONS)}")
    elif name == "Clip":
        write.add("Clip", x, *(write.constant(np.float32(limit)) for limit in parameters), result=result)
    else:
        write.add(name, x, result=result, **dict(zip(_ACTIVATIONS[name], parameters, strict=False)))


_WINDOWS = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


@meaning("FusedConv", "NhwcFusedConv")
def _fused_conv(node: Node, write: Writer) -> None:
    """A convolution, another map added, an activation; NHWC where its name says so."""
    last = node.op_type == "NhwcFusedConv"
    x, weight, bias, added = (write.operand(place) for place in range(4))
    if last:
        x = write.add("Transpose", x, perm=(0, 3, 1, 2))
        added = write.add("Transpose", added, perm=(0, 3, 1, 2)) if added else ""
    y = write.add("Conv", x, weight, bias, **chosen(node, *_WINDOWS))
    y = write.add("Add", y, added) if added else y
    name, parameters = node.attributes.get("activation", ""), node.attributes.get("activation_params", ())
    result = f"{node.name}/activated" if last else write.wanted(0)
    _activated(write, y, name, parameters, result)
    if last:
        write.add("Transpose", result, perm=(0, 2, 3, 1), result=write.wanted(0))


@meaning("FusedGemm")
def _fused_gemm(node: Node, write: Writer) -> None:
    given = chosen(node, "alpha", "beta", "transA", "transB")
    y = write.add("Gemm", *node.inputs, **given)
    names = ("activation_alpha", "activation_beta")
    parameters = tuple(node.attributes[name] for name in names if name in node.attributes)
    _activated(write, y, node.attributes.get("activation", ""), parameters, write.wanted(0))


@meaning("FusedMatMul", "TransposeMatMul")
def _fused_mat_mul(node: Node, write: Writer) -> None:
    """A product of transposed operands, times ``alpha``."""
    operands = []
    for place, side in enumerate("AB"):
        x = write.operand(place)
        batch, matrix = (bool(node.attributes.get(f"trans{kind}{side}")) for kind in ("Batch", ""))
        operands.append(_transposed(write, x, batch, matrix) if batch or matrix else x)
    alpha = node.attributes.get("alpha", 1.0)
    if alpha == 1.0:
        write.add("MatMul", *operands, result=write.wanted(0))
        return
    y = write.add("MatMul", *operands)
    write.add("Mul", y, write.constant(np.float32(alpha)), result=write.wanted(0))


def _transposed(write: Writer, x: str, batch: bool, matrix: bool) -> str:
    """Move the first axis behind the batch's, and swap the last two, of a tensor whose rank is known."""
    kind = write.context.types.get(x)
    if kind is None or not kind.tensor_type.HasField("shape"):
        raise UnsupportedOperationError(f"transposes {x!r}, whose rank is not known")
    rank = len(kind.tensor_type.shape.dim)
    *others, row, column = (*range(1, rank - 1), 0, rank - 1) if batch else range(rank)
    return write.add("Transpose", x, perm=(*others, column, row) if matrix else (*others, row, column))


# --- activations ----------------------------------------------------------------------------------


@meaning("Gelu")
def _gelu(node: Node, write: Writer) -> None:
    write.add("Gelu", write.operand(0), result=write.wanted(0))


@meaning("BiasGelu")
def _bias_gelu(node: Node, write: Writer) -> None:
    write.add("Gelu", write.add("Add", *node.inputs), result=write.wanted(0))


@meaning("FastGelu")
def _fast_gelu(node: Node, write: Writer) -> None:
    """With a bias, or without."""
    x = write.add("Add", *node.inputs) if write.operand(1) else write.operand(0)
    write.add("Gelu", x, approximate="tanh", result=write.wanted(0))


@meaning("QuickGelu")
def _quick_gelu(node: Node, write: Writer) -> None:
    alpha = node.attributes.get("alpha", float(np.float32(1.702)))
    write.add("Swish", write.operand(0), alpha=alpha, result=write.wanted(0))


# --- normalisation --------------------------------------------------------------------------------


def _skipped(write: Writer, bias: str) -> str:
    """Write the sum of data, skipped data and bias, which may be wanted itself."""
    x, skip = write.operand(0), write.operand(1)
    wanted = write.wanted(3)
    if not bias:
        return write.add("Add", x, skip, result=wanted)
    return write.add("Add", write.add("Add", x, skip), bias, result=wanted)


def epsilon(node: Node) -> dict[str, Any]:
    """Return the ε of a normalisation, com.microsoft's default if it does not say."""
    return {"epsilon": node.attributes.get("epsilon", float(np.float32(1e-12)))}


@meaning("SkipLayerNormalization")
def _skip_layer_normalization(node: Node, write: Writer) -> None:
    """Operands: data, skipped data, scale, shift, bias; the sum may be a result, too."""
    if write.wanted(1) or write.wanted(2):
        raise UnsupportedOperationError("its statistics are wanted, of training only")
    total = _skipped(write, write.operand(4))
    given = epsilon(node)
    write.add(
        "LayerNormalization", total, write.operand(2), write.operand(3), result=write.wanted(0), **given
    )


@meaning("SkipSimplifiedLayerNormalization")
def _skip_simplified_layer_normalization(node: Node, write: Writer) -> None:
    """Operands: data, skipped data, scale, bias; without subtracting the mean."""
    if write.wanted(1) or write.wanted(2):
        raise UnsupportedOperationError("its statistics are wanted, of training only")
    total = _skipped(write, write.operand(3))
    write.add("RMSNormalization", total, write.operand(2), result=write.wanted(0), **epsilon(node))


@meaning("SimplifiedLayerNormalization")
def _simplified_layer_normalization(node: Node, write: Writer) -> None:
    """Layer normalisation without subtracting the mean, which ONNX Runtime keeps in ONNX's own domain."""
    if write.wanted(1):
        raise UnsupportedOperationError("its statistics are wanted, of training only")
    given = chosen(node, "axis", "epsilon")
    write.add("RMSNormalization", *node.inputs, result=write.wanted(0), **given)
