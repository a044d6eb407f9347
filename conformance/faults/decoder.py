"""Faults of the decoder: position embeddings, residuals, wiring, heads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from conformance.faults.catalogue import Rewriting, Site, Variant, fault
from refimpl.ops.operation import Array

_RESIDUAL = "He et al., Deep Residual Learning (2016), https://arxiv.org/abs/1512.03385"
TEMPERATURE = 10000.0
EPSILON = 1e-6


def _embed(coordinate: Array, channels: int, temperature: float = TEMPERATURE) -> Array:
    channel = np.arange(channels)
    angle = coordinate[:, None] / temperature ** (2 * (channel // 2) / channels)
    return np.where(channel % 2 == 0, np.sin(angle), np.cos(angle))


def _normalised(size: int) -> Array:
    return np.arange(1, size + 1) / (size + EPSILON) * 2 * np.pi


def _table(height: int, width: int, channels: int, embed: Callable[[int, int], Array]) -> Array:
    rows = np.broadcast_to(embed(height, channels // 2)[:, None], (height, width, channels // 2))
    columns = np.broadcast_to(embed(width, channels // 2)[None], (height, width, channels // 2))
    return np.concatenate([rows, columns], axis=-1).reshape(1, height * width, channels)


def _grid(table: Array) -> tuple[int, int] | None:
    """Return the height and width of the map that a table of sines embeds."""
    _, tokens, channels = table.shape
    for height in range(1, tokens + 1):
        if tokens % height == 0:
            right = _table(height, tokens // height, channels, lambda size, c: _embed(_normalised(size), c))
            if np.abs(right - table).max() < 1e-3:
                return height, tokens // height
    return None


def _positions(site: Site) -> Iterator[tuple[int, Array, int, int]]:
    """Yield the operand that is a position embedding, and its map's size."""
    for index in (0, 1):
        table = site.constant(index)
        if table is not None and table.ndim == 3 and table.shape[2] % 4 == 0 and (grid := _grid(table)):
            yield index, table, *grid


def _other_table(site: Site, detail: str, embed: Callable[[int, int], Array]) -> Iterator[Variant]:
    for index, table, height, width in _positions(site):
        other = _table(height, width, table.shape[2], embed)
        if not np.allclose(other, table):
            yield site.fed(detail, {index: other})


@fault(
    "decoder/position x and y swapped",
    "Add",
    source="DETR, PositionEmbeddingSine: concatenates y, then x, "
    "https://github.com/facebookresearch/detr/blob/main/models/position_encoding.py",
)
def position_swapped(site: Site) -> Iterator[Variant]:
    """The column's embedding stands before the row's."""
    for index, table, _, _ in _positions(site):
        yield site.fed("x, y", {index: np.roll(table, table.shape[2] // 2, axis=2)})


@fault(
    "decoder/position not normalised",
    "Add",
    source="DETR, PositionEmbeddingSine: normalize defaults to False, "
    "https://github.com/facebookresearch/detr/blob/main/models/position_encoding.py",
)
def position_raw(site: Site) -> Iterator[Variant]:
    """Coordinates in pixels instead of 0 … 2π."""
    yield from _other_table(site, "pixels", lambda size, c: _embed(np.arange(1.0, size + 1), c))


@fault(
    "decoder/position temperature",
    "Add",
    source="Liu et al., DAB-DETR (2022): 20, where DETR has 10000, https://arxiv.org/abs/2201.12329",
)
def position_temperature(site: Site) -> Iterator[Variant]:
    """Another base of the wavelengths."""
    for temperature in (20.0, 100.0, 1000.0):
        yield from _other_table(site, f"temperature {temperature:g}", _warmer(temperature))


def _warmer(temperature: float) -> Callable[[int, int], Array]:
    return lambda size, channels: _embed(_normalised(size), channels, temperature)


@fault(
    "decoder/position from zero",
    "Add",
    source="Deformable DETR: 0.5 less than DETR, which counts from 1, "
    "https://github.com/fundamentalvision/Deformable-DETR/blob/main/models/position_encoding.py",
)
def position_offset(site: Site) -> Iterator[Variant]:
    """Coordinates start at 0, or at ½, instead of 1."""
    for offset in (0.0, 0.5):
        yield from _other_table(site, f"from {offset:g}", _starting(offset))


def _starting(offset: float) -> Callable[[int, int], Array]:
    return lambda size, channels: _embed((np.arange(size) + offset) / (size + EPSILON) * 2 * np.pi, channels)


@fault(
    "decoder/sines before cosines",
    "Add",
    source="Tensor2Tensor: halves of sines and cosines, which the paper interleaves, "
    "https://github.com/tensorflow/tensor2tensor/issues/1925",
)
def position_halves(site: Site) -> Iterator[Variant]:
    """All sines, then all cosines, instead of alternating."""

    def embed(size: int, channels: int) -> Array:
        both = _embed(_normalised(size), channels)
        return np.concatenate([both[:, ::2], both[:, 1::2]], axis=1)

    yield from _other_table(site, "[sin, cos]", embed)


def _joins(site: Site) -> bool:
    """Tell whether two tensors of one shape, both computed from the inputs, meet."""
    inputs = site.call.inputs
    return (
        len(inputs) == 2
        and site.shape(0) == site.shape(1)
        and not any(name in site.graph.constants for name in inputs)
    )


@fault("decoder/residual missing", "Add", source=_RESIDUAL)
def residual_missing(site: Site) -> Iterator[Variant]:
    """Only one of the two summands is passed on."""
    if _joins(site):
        for kept in site.call.inputs:
            yield site.instead(f"only {kept}", "Identity", kept)


@fault("decoder/residual added twice", "Add", source=_RESIDUAL)
def residual_twice(site: Site) -> Iterator[Variant]:
    """A summand is added twice."""
    if _joins(site):
        for twice in site.call.inputs:
            yield site.after(f"{twice} twice", "Add", twice)


@fault(
    "decoder/concatenated in another order",
    "Concat",
    source="Mask DINO: features listed coarse level first, their masks fine first, "
    "https://github.com/IDEA-Research/MaskDINO/issues/127",
)
def concat_order(site: Site) -> Iterator[Variant]:
    """The operands are concatenated backwards."""
    inputs = site.call.inputs
    if len(inputs) > 1 and not all(name in site.graph.constants for name in inputs):
        yield site.instead("backwards", "Concat", *inputs[::-1], **site.call.attributes)


@fault(
    "decoder/wired to another tensor",
    "Add",
    "Mul",
    source="Liu et al., PANet (2018), §3.1: which of lateral, top-down and bottom-up map is added, "
    "https://arxiv.org/abs/1803.01534",
)
def wired_elsewhere(site: Site) -> Iterator[Variant]:
    """An operand is another map of the same shape, such as the wrong lateral."""
    if not _joins(site):
        return
    place = site.graph.places[site.output]
    for index, name in enumerate(site.call.inputs):
        for other in _alike(site, name, place):
            yield site.fed(f"{other} for {name}", {index: other})


def _alike(site: Site, name: str, place: int) -> list[str]:
    """Return the activations of a tensor's shape that are made before ``place``, the latest first."""
    shape, taken = site.graph.shapes[name], set(site.call.inputs)
    calls = [
        call
        for call in site.graph.nodes[:place]
        if call.op_type in ("Relu", "Resize", "Add", "LayerNormalization")
    ]
    alike = [call.outputs[0] for call in calls if site.graph.shapes[call.outputs[0]] == shape]
    dependent = [other for other in alike if other not in taken and other not in site.graph.constants]
    return dependent[::-1][:8]


@fault(
    "decoder/product instead of sum",
    "Add",
    source="Chen et al., BlendMask (2020): fusion by product and sum, https://arxiv.org/abs/2001.00309",
)
def product_for_sum(site: Site) -> Iterator[Variant]:
    """Two maps are multiplied instead of added."""
    if _joins(site):
        yield site.instead("product", "Mul", *site.call.inputs)


@fault(
    "decoder/sum instead of product",
    "Mul",
    source="Wan et al., SeaFormer (2023), §3.3: fusion by product or sum, https://arxiv.org/abs/2301.13156",
)
def sum_for_product(site: Site) -> Iterator[Variant]:
    """A gate is added instead of multiplied."""
    if _joins(site):
        yield site.instead("sum", "Add", *site.call.inputs)


@fault(
    "decoder/layer skipped",
    "MatMul",
    "Conv",
    source="Tensorflow-YOLACT: a head of one convolution, of two in the paper, "
    "https://github.com/leohsuofnthu/Tensorflow-YOLACT/issues/14",
)
def layer_skipped(site: Site) -> Iterator[Variant]:
    """A layer whose input and output have one shape is left out."""
    if site.constant(1) is not None and site.shape(0) == site.output_shape:
        yield site.instead("identity", "Identity", site.call.inputs[0])


@fault(
    "decoder/kernels normalised",
    "MatMul",
    source="Zhang et al., MobileInst (2023), §3.4: cosine similarity needs no length, the masks do, "
    "https://arxiv.org/abs/2303.17594",
)
def kernels_normalised(site: Site) -> Iterator[Variant]:
    """Kernels of length one times the mask features."""
    if _makes_masks(site):
        rewriting = Rewriting(site)
        unit = rewriting.apply("LpNormalization", site.call.inputs[0], axis=-1, p=2)
        yield rewriting.same("length 1", {0: unit})


@fault(
    "decoder/masks scaled",
    "MatMul",
    source="Vaswani et al., Attention Is All You Need (2017), §3.2.1: 1/√d, there for logits, "
    "https://arxiv.org/abs/1706.03762",
)
def masks_scaled(site: Site) -> Iterator[Variant]:
    """The product of kernels and mask features times 1/√dim."""
    if _makes_masks(site):
        yield site.after("1/√dim", "Mul", np.asarray(1 / math.sqrt(site.shape(0)[-1])))


@fault(
    "decoder/mask features transposed",
    "MatMul",
    source="REMINDER: transpose(1, 3) flattens a map column by column, "
    "https://github.com/hieuvmphan/REMINDER/issues/6",
)
def mask_features_transposed(site: Site) -> Iterator[Variant]:
    """Positions are flattened column by column."""
    maker = site.producer(1)
    if not _makes_masks(site) or maker is None:
        return
    shape = site.graph.shapes[maker.inputs[0]]
    if len(shape) == 4 and min(shape[2:]) > 1:
        rewriting = Rewriting(site)
        turned = rewriting.apply("Transpose", maker.inputs[0], perm=(0, 1, 3, 2))
        flat = rewriting.apply("Reshape", turned, np.asarray(site.shape(1), np.int64))
        yield rewriting.same("columns first", {1: flat})


def _makes_masks(site: Site) -> bool:
    """Tell whether kernels meet mask features: a product of three axes whose result becomes a map."""
    makes_map = any(
        user.op_type == "Reshape" and len(site.graph.shapes[user.outputs[0]]) == 4
        for user in site.consumers()
    )
    return makes_map and site.constant(1) is None and len(site.output_shape) == 3
