"""Transformers' operators of ONNX Runtime's own domain, where they have no mask and no past.

Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

import numpy as np

from conformance.graph.contributed import Writer, chosen, epsilon, meaning
from refimpl.errors import UnsupportedOperationError
from refimpl.graph import Node


def _refuse_operands(write: Writer, places: range, what: str) -> None:
    if any(write.operand(place) for place in places):
        raise UnsupportedOperationError(f"has {what}")


def _refuse_results(write: Writer, what: str) -> None:
    if any(write.wanted(place) for place in range(1, len(write.whole.outputs))):
        raise UnsupportedOperationError(f"its {what} is wanted")


@meaning("MultiHeadAttention")
def _multi_head_attention(node: Node, write: Writer) -> None:
    """Operands: query, key, value, one bias for the three, a mask, what is added to the logits."""
    _refuse_operands(write, range(4, 5), "a mask of its keys")
    _refuse_operands(write, range(6, len(node.inputs)), "a past")
    parts = [write.operand(place) for place in range(3)]
    if not all(parts):
        raise UnsupportedOperationError("has its query, key and value packed")
    if write.operand(3):
        biases = _split(write, write.operand(3), 0)
        parts = [write.add("Add", part, bias) for part, bias in zip(parts, biases, strict=True)]
    _attend(write, parts, _last_length(write, write.operand(0)), write.operand(5))


@meaning("Attention")
def _attention(node: Node, write: Writer) -> None:
    """Operands: data, weights and bias of query, key and value together."""
    _refuse_operands(write, range(3, len(node.inputs)), "a mask or a past")
    if "qkv_hidden_sizes" in node.attributes:
        raise UnsupportedOperationError("has query, key and value of several sizes")
    product = write.add("MatMul", write.operand(0), write.operand(1))
    product = write.add("Add", product, write.operand(2)) if write.operand(2) else product
    _attend(write, _split(write, product, -1), _last_length(write, write.operand(1)) // 3, "")


def _split(write: Writer, x: str, axis: int) -> list[str]:
    """Split a tensor in three equal parts."""
    names = [f"{write.whole.name}/{len(write.nodes)}/{part}" for part in range(3)]
    attributes = {"axis": axis, "num_outputs": 3}
    write.nodes.append(Node(f"{names[0]}/Split", "Split", (x,), tuple(names), attributes))
    return names


def _last_length(write: Writer, x: str) -> int:
    """Return the length of a tensor's last axis, if ONNX's inference finds it."""
    kind = write.context.types.get(x)
    dims = kind.tensor_type.shape.dim if kind is not None else ()
    if not dims or not dims[-1].dim_value:
        raise UnsupportedOperationError(f"the length of {x!r} is not known")
    return int(dims[-1].dim_value)


def _attend(write: Writer, parts: list[str], width: int, added: str) -> None:
    """Write attention of several heads, whose channels lie side by side."""
    attributes = write.whole.attributes
    if attributes.get("unidirectional"):
        raise UnsupportedOperationError("is causal")
    _refuse_results(write, "past")
    heads = attributes["num_heads"]
    shape = write.constant(np.array([0, 0, heads, -1]))
    query, key, value = (write.add("Reshape", part, shape) for part in parts)
    scale = attributes.get("scale") or 1 / np.sqrt(width / heads)
    query, value = (write.add("Transpose", x, perm=(0, 2, 1, 3)) for x in (query, value))
    key = write.add("Transpose", key, perm=(0, 2, 3, 1))
    logits = write.add("Mul", write.add("MatMul", query, key), write.constant(np.float32(scale)))
    logits = write.add("Add", logits, added) if added else logits
    mixed = write.add("MatMul", write.add("Softmax", logits, axis=-1), value)
    joined = write.add("Transpose", mixed, perm=(0, 2, 1, 3))
    write.add("Reshape", joined, write.constant(np.array([0, 0, -1])), result=write.wanted(0))


@meaning("RotaryEmbedding")
def _rotary_embedding(node: Node, write: Writer) -> None:
    """Operands: data, positions, cosines, sines; ONNX has the positions last."""
    kind = write.context.types.get(write.operand(1))
    if kind is None or len(kind.tensor_type.shape.dim) != 2:
        raise UnsupportedOperationError("its positions are not one for each token")
    data, positions, cosines, sines = node.inputs
    given = chosen(node, "interleaved", "num_heads", "rotary_embedding_dim")
    write.add("RotaryEmbedding", data, cosines, sines, positions, result=write.wanted(0), **given)


@meaning("EmbedLayerNormalization")
def _embed_layer_normalization(node: Node, write: Writer) -> None:
    """Operands: words, segments, tables, scale, shift, mask, positions; without a mask its ends are 0."""
    _refuse_operands(write, range(7, len(node.inputs)), "a mask or positions")
    words, segments, of_words, of_positions, of_segments, scale, shift = node.inputs[:7]
    shape = write.add("Shape", words)
    if write.wanted(1):
        batch = write.add("Gather", shape, write.constant(np.array([0])))
        write.add("ConstantOfShape", batch, result=write.wanted(1), value=np.zeros(1, np.int32))
    length = write.add("Gather", shape, write.constant(np.int64(1)))
    ends = write.constant(np.int64(0)), length, write.constant(np.int64(1))
    total = write.add("Gather", of_positions, write.add("Range", *ends))
    total = write.add("Add", write.add("Gather", of_words, words), total)
    if segments:
        total = write.add("Add", total, write.add("Gather", of_segments, segments))
    total = write.add("Identity", total, result=write.wanted(2)) if write.wanted(2) else total
    write.add("LayerNormalization", total, scale, shift, result=write.wanted(0), **epsilon(node))
