"""Faults of attention: scale, softmax, heads, projections."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from conformance.faults.catalogue import Rewriting, Site, Variant, fault

_VASWANI = "Vaswani et al., Attention Is All You Need (2017), §3.2.1"
_TORCH_MHA = "PyTorch, torch.nn.MultiheadAttention: in_proj_weight packs q, k, v"
_NEVER = -1e4
"""What masks add to a logit: below float16's range it would be infinite."""
_SOFTMAX = "ONNX Softmax-11 and -13: axis 1 of a matrix, then −1; TNN uses 1 when it is absent"


def _scale(site: Site) -> float | None:
    """Return the constant of a scaling of queries or logits: a scalar factor on a tensor of four axes."""
    value = site.constant(1)
    if value is None or value.size != 1 or len(site.output_shape) < 3:
        return None
    return float(value.reshape(()))


def _makes_logits(site: Site) -> bool:
    return any(user.op_type == "Softmax" for user in site.consumers())


@fault("attention/scale missing", "Mul", source=_VASWANI)
def scale_missing(site: Site) -> Iterator[Variant]:
    """Logits without 1/√d."""
    scale = _scale(site)
    if scale is not None and scale != 1:
        yield site.fed("factor 1", {1: np.ones(site.shape(1), np.float32)})


@fault(
    "attention/scale doubled",
    "Mul",
    source="PyTorch, scaled_dot_product_attention scales by itself; "
    "queries scaled before it are scaled twice",
)
def scale_doubled(site: Site) -> Iterator[Variant]:
    """1/√d applied twice."""
    scale = _scale(site)
    if scale is not None and scale != 1:
        yield site.fed("factor 1/d", {1: np.full(site.shape(1), scale * scale)})


@fault("attention/scale of the whole width", "Mul", source=f"{_VASWANI}: d is that of one head")
def scale_of_width(site: Site) -> Iterator[Variant]:
    """1/√(heads · d) instead of 1/√d."""
    scale = _scale(site)
    if scale is not None and len(site.output_shape) == 4:
        heads = site.output_shape[1]
        yield site.fed(f"{heads} heads", {1: np.full(site.shape(1), scale / math.sqrt(heads))})


@fault(
    "attention/scale added",
    "MatMul",
    source="TopFormer's attention has no scale; PyTorch's scaled_dot_product_attention adds it",
)
def scale_added(site: Site) -> Iterator[Variant]:
    """Logits times 1/√d where the network has none."""
    maker = site.producer(0)
    if _makes_logits(site) and (maker is None or maker.op_type != "Mul"):
        yield site.after("1/√d", "Mul", np.asarray(site.shape(0)[-1] ** -0.5))


@fault("attention/softmax over the wrong axis", "Softmax", source=_SOFTMAX)
def softmax_axis(site: Site) -> Iterator[Variant]:
    """Softmax over queries, or heads, instead of keys."""
    rank = len(site.output_shape)
    for axis in (rank - 2, 1):
        if axis != site.attribute("axis", -1) % rank and site.output_shape[axis] > 1:
            yield site.changed(f"axis {axis}", axis=axis)


@fault("attention/softmax of a flattened matrix", "Softmax", source=_SOFTMAX)
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
    source="PyTorch, CrossEntropyLoss takes logits: a softmax left in the model",
)
def softmax_twice(site: Site) -> Iterator[Variant]:
    """The softmax of the softmax."""
    yield site.after("twice", "Softmax", axis=site.attribute("axis", -1))


@fault(
    "attention/softmax missing",
    "Softmax",
    source="linear attention: Katharopoulos et al., Transformers are RNNs (2020)",
)
def softmax_missing(site: Site) -> Iterator[Variant]:
    """Logits used as weights."""
    yield site.instead("identity", "Identity", site.call.inputs[0])


@fault(
    "attention/queries and keys swapped",
    "MatMul",
    source="PyTorch, einsum('bhqd,bhkd->bhqk'): letters exchanged",
)
def logits_transposed(site: Site) -> Iterator[Variant]:
    """Each key asks the queries: logits transposed."""
    shape = site.output_shape
    if _makes_logits(site) and shape[-1] == shape[-2] > 1:
        yield site.after(
            "transposed", "Transpose", perm=(*range(len(shape) - 2), len(shape) - 1, len(shape) - 2)
        )


@fault("attention/causal mask", "MatMul", source="Vaswani et al. (2017), §3.2.3: masked in a decoder of text")
def causal(site: Site) -> Iterator[Variant]:
    """A query attends to no key after its own place."""
    shape = site.output_shape
    if _makes_logits(site) and shape[-1] == shape[-2] > 1:
        yield site.after("causal", "Add", np.triu(np.full(shape[-2:], _NEVER), 1))


@fault(
    "attention/keys masked",
    "MatMul",
    source="PyTorch, torch.nn.MultiheadAttention: key_padding_mask, of a batch padded to its largest picture",
)
def keys_masked(site: Site) -> Iterator[Variant]:
    """The last keys are taken for padding."""
    keys = site.output_shape[-1]
    if _makes_logits(site):
        for count in sorted({keys // 2, keys // 4} - {0}):
            yield site.after(f"the last {count}", "Add", np.where(np.arange(keys) < keys - count, 0, _NEVER))


@fault("attention/projections in another order", "Split", source=_TORCH_MHA)
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
    source="timm against Hugging Face: channels as (heads, d) or (d, heads)",
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
    source="PyTorch, Tensor.view against permute: heads merged as they lie",
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
    source="timm against Hugging Face: a packed projection's heads, split in another order",
)
def heads_reversed(site: Site) -> Iterator[Variant]:
    """The heads of one of queries, keys and values are reversed."""
    maker, shape = site.producer(0), site.output_shape
    if len(shape) == 4 and maker is not None and maker.op_type == "Reshape" and 1 < shape[1] <= 16:
        yield site.after("reversed", "Gather", np.arange(shape[1])[::-1].astype(np.int64), axis=1)


@fault(
    "attention/position added to the values",
    "MatMul",
    source="Carion et al., DETR (2020), appendix A.3: positions join queries and keys only",
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


@fault("attention/position missing", "Add", source="Carion et al., DETR (2020), §3.2")
def position_missing(site: Site) -> Iterator[Variant]:
    """The position embedding is not added."""
    for index in (0, 1):
        if _is_table(site, site.call.inputs[index]) and site.shape(1 - index) == site.output_shape:
            yield site.instead("none", "Identity", site.call.inputs[1 - index])


def _is_table(site: Site, name: str) -> bool:
    constant = site.graph.constants.get(name)
    return constant is not None and constant.ndim == 3 and constant.shape[1] > 1
