"""Faults of attention: scale, softmax, heads, projections."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from conformance.faults.catalogue import Rewriting, Site, Variant, fault

_NEVER = -1e4
"""What masks add to a logit: below float16's range it would be infinite."""


def _scale(site: Site) -> float | None:
    """Return the constant of a scaling of queries or logits: a scalar factor on a tensor of four axes."""
    value = site.constant(1)
    if value is None or value.size != 1 or len(site.output_shape) < 3:
        return None
    return float(value.reshape(()))


def _makes_logits(site: Site) -> bool:
    return any(user.op_type == "Softmax" for user in site.consumers())


@fault(
    "attention/scale missing",
    "Mul",
    source="Vaswani et al., Attention Is All You Need (2017), §3.2.1, https://arxiv.org/abs/1706.03762",
)
def scale_missing(site: Site) -> Iterator[Variant]:
    """Logits without 1/√d."""
    scale = _scale(site)
    if scale is not None and scale != 1:
        yield site.fed("factor 1", {1: np.ones(site.shape(1), np.float32)})


@fault(
    "attention/scale doubled",
    "Mul",
    source="Transformers, OPT: queries scaled before an attention that scales them, "
    "https://github.com/huggingface/transformers/pull/38290",
)
def scale_doubled(site: Site) -> Iterator[Variant]:
    """1/√d applied twice."""
    scale = _scale(site)
    if scale is not None and scale != 1:
        yield site.fed("factor 1/d", {1: np.full(site.shape(1), scale * scale)})


@fault(
    "attention/scale of the whole width",
    "Mul",
    source="Vaswani et al., Attention Is All You Need (2017), §3.2.1: d is that of one head, "
    "https://arxiv.org/abs/1706.03762",
)
def scale_of_width(site: Site) -> Iterator[Variant]:
    """1/√(heads · d) instead of 1/√d."""
    scale = _scale(site)
    if scale is not None and len(site.output_shape) == 4:
        heads = site.output_shape[1]
        yield site.fed(f"{heads} heads", {1: np.full(site.shape(1), scale / math.sqrt(heads))})


@fault(
    "attention/scale added",
    "MatMul",
    source="TopFormer, Attention: a scale that is set and never used, "
    "https://github.com/hustvl/TopFormer/blob/main/mmseg/models/backbones/topformer.py",
)
def scale_added(site: Site) -> Iterator[Variant]:
    """Logits times 1/√d where the network has none."""
    maker = site.producer(0)
    if _makes_logits(site) and (maker is None or maker.op_type != "Mul"):
        yield site.after("1/√d", "Mul", np.asarray(site.shape(0)[-1] ** -0.5))


@fault(
    "attention/softmax over the wrong axis",
    "Softmax",
    source="ONNX-MLIR: Softmax-13's default axis, −1, used for Softmax-11's, 1, "
    "https://github.com/onnx/onnx-mlir/issues/832",
)
def softmax_axis(site: Site) -> Iterator[Variant]:
    """Softmax over queries, or heads, instead of keys."""
    rank = len(site.output_shape)
    for axis in (rank - 2, 1):
        if axis != site.attribute("axis", -1) % rank and site.output_shape[axis] > 1:
            yield site.changed(f"axis {axis}", axis=axis)


@fault(
    "attention/softmax of a flattened matrix",
    "Softmax",
    source="OpenVINO: Softmax flattens to a matrix before opset 13, and not since, "
    "https://github.com/openvinotoolkit/openvino/issues/37823",
)
def softmax_flattened(site: Site) -> Iterator[Variant]:
    """Opset 11's softmax: all axes from 1 on are one."""
    shape = site.output_shape
    rewriting = Rewriting(site)
    flat = rewriting.apply("Reshape", site.call.inputs[0], np.asarray([shape[0], -1], np.int64))
    made = rewriting.apply("Softmax", flat, axis=-1)
    yield rewriting.result("axis 1 of opset 11", "Reshape", made, np.asarray(shape, np.int64))


@fault(
    "attention/softmax applied twice",
    "Softmax",
    source="Lightning Bolts: softmax in the model and in its loss, "
    "https://github.com/Lightning-Universe/lightning-bolts/issues/654",
)
def softmax_twice(site: Site) -> Iterator[Variant]:
    """The softmax of the softmax."""
    yield site.after("twice", "Softmax", axis=site.attribute("axis", -1))


@fault(
    "attention/softmax missing",
    "Softmax",
    source="Katharopoulos et al., Transformers are RNNs (2020): linear attention, "
    "https://arxiv.org/abs/2006.16236",
)
def softmax_missing(site: Site) -> Iterator[Variant]:
    """Logits used as weights."""
    yield site.instead("identity", "Identity", site.call.inputs[0])


@fault(
    "attention/queries and keys swapped",
    "MatMul",
    source="llm.c: K Qᵀ for Q Kᵀ, as a column-major product looks, "
    "https://github.com/karpathy/llm.c/pull/531",
)
def logits_transposed(site: Site) -> Iterator[Variant]:
    """Each key asks the queries: logits transposed."""
    shape = site.output_shape
    if _makes_logits(site) and shape[-1] == shape[-2] > 1:
        yield site.after(
            "transposed", "Transpose", perm=(*range(len(shape) - 2), len(shape) - 1, len(shape) - 2)
        )


@fault(
    "attention/causal mask",
    "MatMul",
    source="Vaswani et al., Attention Is All You Need (2017), §3.2.3: masked in a decoder of text, "
    "https://arxiv.org/abs/1706.03762",
)
def causal(site: Site) -> Iterator[Variant]:
    """A query attends to no key after its own place."""
    shape = site.output_shape
    if _makes_logits(site) and shape[-1] == shape[-2] > 1:
        yield site.after("causal", "Add", np.triu(np.full(shape[-2:], _NEVER), 1))


@fault(
    "attention/keys masked",
    "MatMul",
    source="PyTorch, MultiheadAttention: key_padding_mask, of a padded batch, "
    "https://docs.pytorch.org/docs/stable/generated/torch.nn.MultiheadAttention.html",
)
def keys_masked(site: Site) -> Iterator[Variant]:
    """The last keys are taken for padding."""
    keys = site.output_shape[-1]
    if _makes_logits(site):
        for count in sorted({keys // 2, keys // 4} - {0}):
            yield site.after(f"the last {count}", "Add", np.where(np.arange(keys) < keys - count, 0, _NEVER))


@fault(
    "attention/projections in another order",
    "Split",
    source="Transformers, OPT-IML: a packed projection in the order k, v, q, "
    "https://github.com/huggingface/transformers/pull/21519",
)
def projection_order(site: Site) -> Iterator[Variant]:
    """The packed projection is read as k, q, v (or v, k, q or q, v, k)."""
    outputs = site.call.outputs
    if len(outputs) == 3 and len({site.graph.shapes[name] for name in outputs}) == 1:
        q, k, v = outputs
        for detail, names in (("k, q, v", (k, q, v)), ("v, k, q", (v, k, q)), ("q, v, k", (q, v, k))):
            plain = site.changed(detail)
            yield Variant(
                detail,
                (type(site.call)(site.call.name, "Split", site.call.inputs, names, site.call.attributes),),
                plain.constants,
            )


def _splits_heads(site: Site) -> bool:
    """Tell whether one axis becomes two, heads first, of four."""
    before, after = site.shape(0), site.output_shape
    return len(after) == 4 and before != after and site.feeds("Transpose")


@fault(
    "attention/heads interleaved",
    "Reshape",
    source="Guided diffusion, use_new_attention_order: heads split before or after q, k, v, "
    "https://github.com/openai/guided-diffusion/blob/main/guided_diffusion/unet.py",
)
def heads_interleaved(site: Site) -> Iterator[Variant]:
    """Channels are read as (d, heads) instead of (heads, d)."""
    before, after = site.shape(0), site.output_shape
    if not _splits_heads(site):
        return
    axis = next(
        (i for i in range(3) if after[i] * after[i + 1] in before and after[i] > 1 and after[i + 1] > 1), None
    )
    if axis is None or after[axis] * after[axis + 1] == before[-1] == after[-1]:
        return
    other = list(after)
    other[axis], other[axis + 1] = after[axis + 1], after[axis]
    perm = list(range(4))
    perm[axis], perm[axis + 1] = axis + 1, axis
    rewriting = Rewriting(site)
    made = rewriting.apply("Reshape", site.call.inputs[0], np.asarray(other, np.int64))
    yield rewriting.result("(d, heads)", "Transpose", made, perm=tuple(perm))


@fault(
    "attention/heads merged without permutation",
    "Transpose",
    source="transformer-from-scratch: heads merged by reshape, without permute, "
    "https://github.com/jsbaan/transformer-from-scratch/pull/6",
)
def heads_merged(site: Site) -> Iterator[Variant]:
    """(heads, N, d) is reshaped to (N, heads · d) without a transpose."""
    merges = site.feeds("Reshape") and len(site.output_shape) == 4
    if merges and site.call.inputs[0] not in site.graph.constants:
        yield site.instead(
            "as it lies", "Reshape", site.call.inputs[0], np.asarray(site.output_shape, np.int64)
        )


@fault(
    "attention/heads in another order",
    "Transpose",
    source="SGLang: rows packed head by head, read as one block for each of q, k, v, "
    "https://github.com/sgl-project/sglang/issues/40127",
)
def heads_reversed(site: Site) -> Iterator[Variant]:
    """The heads of one of queries, keys and values are reversed."""
    maker, shape = site.producer(0), site.output_shape
    if len(shape) == 4 and maker is not None and maker.op_type == "Reshape" and 1 < shape[1] <= 16:
        yield site.after("reversed", "Gather", np.arange(shape[1])[::-1].astype(np.int64), axis=1)


@fault(
    "attention/position added to the values",
    "MatMul",
    source="Carion et al., DETR (2020), appendix A.3: positions join queries and keys only, "
    "https://arxiv.org/abs/2005.12872",
)
def position_in_values(site: Site) -> Iterator[Variant]:
    """The position embedding is added to the values as to the keys."""
    tokens = site.call.inputs[0]
    if site.constant(1) is None or site.constant(0) is not None or len(site.shape(0)) != 3:
        return
    for user in site.graph.consumers.get(tokens, []):
        earlier = site.graph.places[user.outputs[0]] < site.graph.places[site.output]
        if user.op_type == "Add" and earlier and any(_is_table(site, name) for name in user.inputs):
            yield site.fed("as keys", {0: user.outputs[0]})


@fault(
    "attention/position missing",
    "Add",
    source="Carion et al., DETR (2020), §3.2, https://arxiv.org/abs/2005.12872",
)
def position_missing(site: Site) -> Iterator[Variant]:
    """The position embedding is not added."""
    for index in (0, 1):
        if _is_table(site, site.call.inputs[index]) and site.shape(1 - index) == site.output_shape:
            yield site.instead("none", "Identity", site.call.inputs[1 - index])


def _is_table(site: Site, name: str) -> bool:
    constant = site.graph.constants.get(name)
    return constant is not None and constant.ndim == 3 and constant.shape[1] > 1
