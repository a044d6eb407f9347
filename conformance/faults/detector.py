"""Faults of the detectors among the paper's rivals: coordinates, levels, priors, group norms, regions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from conformance.faults.catalogue import Rewriting, Site, Variant, fault
from refimpl.graph import Node
from refimpl.ops.operation import Array

_SOLO = "https://github.com/WXinlong/SOLO/blob/master/mmdet/models/anchor_heads/solov2_head.py"
_ROI_ALIGN = "https://docs.pytorch.org/vision/stable/generated/torchvision.ops.roi_align.html"


def _coordinates(site: Site) -> Iterator[tuple[int, Array]]:
    """Yield the operand of a concatenation of channels that is a map of x and y, and its value."""
    for index in range(len(site.call.inputs)):
        places = site.constant(index)
        if places is not None and site.attribute("axis") == 1 and places.ndim == 4 and places.shape[1] == 2:
            yield index, places


@fault(
    "detector/coordinates y before x",
    "Concat",
    source="Liu et al., CoordConv (2018), §3: the row's channel i, then the column's j; SOLO has x first, "
    "https://arxiv.org/abs/1807.03247",
)
def coordinates_swapped(site: Site) -> Iterator[Variant]:
    """The row's coordinate stands before the column's."""
    for index, places in _coordinates(site):
        yield site.fed("y, x", {index: places[:, ::-1]})


@fault(
    "detector/coordinates in another range",
    "Concat",
    source="Liu et al., CoordConv (2018), §3: −1 … 1, of what are indices at first, https://arxiv.org/abs/1807.03247",
)
def coordinates_scaled(site: Site) -> Iterator[Variant]:
    """Coordinates from 0 to 1, in cells, or of the cells' middles, instead of −1 … 1."""
    for index, places in _coordinates(site):
        sides = np.array(places.shape[:1:-1])[None, :, None, None]
        yield site.fed("0 … 1", {index: (places + 1) / 2})
        yield site.fed("cells", {index: (places + 1) / 2 * (sides - 1)})
        yield site.fed("middles of cells", {index: places * (sides - 1) / sides})


@fault(
    "detector/coordinates after resizing",
    "Resize",
    source=f"SOLO, SOLOv2Head: coordinates join before the grid is sampled, {_SOLO}",
)
def coordinates_late(site: Site) -> Iterator[Variant]:
    """Coordinates are those of the resized map, not resized themselves."""
    joined = site.producer(0)
    if joined is None or joined.op_type != "Concat" or len(site.output_shape) != 4:
        return
    inner = Site(site.graph, joined)
    batch, _, height, width = site.output_shape
    for index, _ in _coordinates(inner):
        rewriting, parts = Rewriting(site), list[str | Array](joined.inputs)
        for place, name in enumerate(joined.inputs):
            if place == index:
                x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
                parts[place] = np.broadcast_to(np.stack([x, y])[None], (batch, 2, height, width)).copy()
            else:
                sizes = np.array([*inner.shape(place)[:2], height, width], np.int64)
                parts[place] = rewriting.apply("Resize", name, None, None, sizes, **site.call.attributes)
        yield rewriting.result("of the grid", "Concat", *parts, **joined.attributes)


@fault(
    "detector/aligned bilinear as plain",
    "Slice",
    source="AdelaiDet, aligned_bilinear: padded, resized with corners aligned, moved by half a factor, "
    "https://github.com/aim-uofa/AdelaiDet/blob/master/adet/utils/comm.py",
)
def plain_bilinear(site: Site) -> Iterator[Variant]:
    """CondInst's magnification by an ordinary bilinear resize."""
    chain: list[Node] = [site.call]
    for op_type in ("Pad", "Resize", "Pad"):
        made = site.graph.producer(chain[-1].inputs[0])
        if made is None or made.op_type != op_type:
            return
        chain.append(made)
    for mode in ("half_pixel", "align_corners"):
        sizes = np.array(site.output_shape, np.int64)
        attributes = {"mode": "linear", "coordinate_transformation_mode": mode}
        x = chain[-1].inputs[0]
        yield Rewriting(site).result(mode, "Resize", x, None, None, sizes, **attributes)


def _level_scale(site: Site) -> int | None:
    """Return which operand of a product is one learned number, if the other is computed."""
    learned = [
        index
        for index, name in enumerate(site.call.inputs)
        if name in site.graph.weights and site.shape(index) in ((), (1,))
    ]
    return learned[0] if len(learned) == 1 else None


@fault(
    "detector/scale of the level missing",
    "Mul",
    source="Tian et al., FCOS (2019), §3.2: exp(s·x), s trained for each level, https://arxiv.org/abs/1904.01355",
)
def level_scale_missing(site: Site) -> Iterator[Variant]:
    """Boxes are not multiplied by the level's own number."""
    index = _level_scale(site)
    if index is not None:
        yield site.instead("no scale", "Identity", site.call.inputs[1 - index])


@fault(
    "detector/distances by exponent",
    "Relu",
    source="Tian et al., FCOS (2019), §3.2: exp, for which its later code has ReLU, https://arxiv.org/abs/1904.01355",
)
def exponential_distances(site: Site) -> Iterator[Variant]:
    """exp of the boxes' numbers instead of ReLU."""
    scaled = site.producer(0)
    if scaled is not None and scaled.op_type == "Mul" and _level_scale(Site(site.graph, scaled)) is not None:
        yield site.instead("exp", "Exp", site.call.inputs[0])


@fault(
    "detector/coarsest level by a window",
    "MaxPool",
    source="torchvision, LastLevelMaxPool: a window of one, stride 2, "
    "https://github.com/pytorch/vision/blob/main/torchvision/ops/feature_pyramid_network.py",
)
def coarsest_pooled(site: Site) -> Iterator[Variant]:
    """The maximum, or the mean, of 2×2 instead of every second position."""
    if tuple(site.attribute("kernel_shape", ())) == (1, 1) and tuple(site.attribute("strides", ())) == (2, 2):
        window = {"kernel_shape": (2, 2), "strides": (2, 2), "ceil_mode": 1}
        yield site.instead("maximum of 2×2", "MaxPool", site.call.inputs[0], **window)
        yield site.instead("mean of 2×2", "AveragePool", site.call.inputs[0], **window)


@fault(
    "detector/stride in the other convolution",
    "Conv",
    source="Detectron2, RESNETS.STRIDE_IN_1X1: True for MSRA's weights, False for PyTorch's, "
    "https://github.com/facebookresearch/detectron2/blob/main/detectron2/config/defaults.py",
)
def stride_elsewhere(site: Site) -> Iterator[Variant]:
    """A bottleneck's stride is in its 3×3 instead of its first 1×1, or the reverse."""
    between: list[Node] = []
    made = site.producer(0)
    while made is not None and made.op_type in ("Relu", "BatchNormalization") and len(between) < 2:
        between.insert(0, made)
        made = site.graph.producer(made.inputs[0])
    if made is None or made.op_type != "Conv" or (1, 1) not in (kernels := _kernels(site, made)):
        return
    first, second = (tuple(call.attributes.get("strides") or (1, 1)) for call in (made, site.call))
    strides = {first, second} == {(1, 1), (2, 2)}
    if kernels != ((1, 1), (3, 3)) or not strides or site.attribute("group", 1) != 1:
        return
    rewriting = Rewriting(site)
    x = rewriting.apply("Conv", *made.inputs, **{**made.attributes, "strides": second})
    for call in between:
        x = rewriting.apply(call.op_type, x, *call.inputs[1:], **call.attributes)
    yield rewriting.same(f"strides {second[0]}, {first[0]}", {0: x}, strides=first)


def _kernels(site: Site, before: Node) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return site.graph.shapes[before.inputs[1]][2:], site.shape(1)[2:]


@fault(
    "detector/priors after their numbers",
    "Reshape",
    source="torchvision, permute_and_flatten: channels are (priors, numbers), "
    "https://github.com/pytorch/vision/blob/main/torchvision/models/detection/rpn.py",
)
def priors_last(site: Site) -> Iterator[Variant]:
    """Channels are read as (numbers, priors) instead of (priors, numbers)."""
    moved = site.producer(0)
    if (
        moved is None
        or moved.op_type != "Transpose"
        or len(site.output_shape) != 3
        or len(site.shape(0)) != 4
    ):
        return
    batch, rows, numbers = site.output_shape
    positions = int(np.prod(site.shape(0)[1:3]))
    if rows % positions or rows == positions or numbers == 1:
        return
    rewriting = Rewriting(site)
    shape = np.array([batch, positions, numbers, rows // positions], np.int64)
    apart = rewriting.apply("Reshape", site.call.inputs[0], shape)
    exchanged = rewriting.apply("Transpose", apart, perm=(0, 1, 3, 2))
    yield rewriting.result("(numbers, priors)", "Reshape", exchanged, np.array(site.output_shape, np.int64))


@fault(
    "detector/sigmoid instead of tanh",
    "Tanh",
    source="Bolya et al., YOLACT (2019), §3.1: tanh, so that prototypes are subtracted too, "
    "https://arxiv.org/abs/1904.02689",
)
def coefficients_by_sigmoid(site: Site) -> Iterator[Variant]:
    """Coefficients from 0 to 1, so that no prototype is subtracted."""
    yield site.instead("σ", "Sigmoid", site.call.inputs[0])


@fault(
    "detector/norm of other groups",
    "InstanceNormalization",
    source="Wu & He, Group Normalization (2018), §3.1: one group is layer norm, a group each instance norm, "
    "https://arxiv.org/abs/1803.08494",
)
def other_groups(site: Site) -> Iterator[Variant]:
    """Another number of groups: one, twice as many, or each channel its own."""
    joined = site.producer(0)
    if joined is None or joined.op_type != "Reshape" or len(site.output_shape) != 3:
        return
    batch, groups, length = site.output_shape
    channels = site.graph.shapes[joined.inputs[0]][1]
    for count in sorted({1, 2 * groups, channels} - {groups}):
        if groups * length % count or channels % count:
            continue
        rewriting = Rewriting(site)
        shape = np.array([batch, count, groups * length // count], np.int64)
        x = rewriting.apply("Reshape", joined.inputs[0], shape)
        ones, zeros = (np.full(count, value, np.float32) for value in (1, 0))
        x = rewriting.apply("InstanceNormalization", x, ones, zeros, **site.call.attributes)
        yield rewriting.result(f"{count} groups", "Reshape", x, np.array(site.output_shape, np.int64))


@fault(
    "detector/group norm epsilon",
    "InstanceNormalization",
    source="Keras, GroupNormalization: epsilon 0.001, PyTorch's 0.00001, "
    "https://keras.io/api/layers/normalization_layers/group_normalization/",
)
def group_epsilon(site: Site) -> Iterator[Variant]:
    """Another ε in the groups' norm."""
    epsilon = 1e-3
    if not np.isclose(epsilon, site.attribute("epsilon", 1e-5)):
        yield site.changed(f"epsilon = {epsilon:g}", epsilon=epsilon)


@fault(
    "detector/half a pixel in RoIAlign",
    "RoiAlign",
    source="ONNX Runtime: half a pixel off Detectron2's RoIAlign, https://github.com/microsoft/onnxruntime/issues/6921",
)
def half_pixel(site: Site) -> Iterator[Variant]:
    """Regions are moved by half a pixel (`aligned=True`), or not."""
    mode = site.attribute("coordinate_transformation_mode", "half_pixel")
    other = "half_pixel" if mode == "output_half_pixel" else "output_half_pixel"
    yield site.changed(other, coordinate_transformation_mode=other)


@fault(
    "detector/samples of RoIAlign",
    "RoiAlign",
    source=f"torchvision, roi_align: sampling_ratio defaults to as many as pixels, {_ROI_ALIGN}",
)
def other_samples(site: Site) -> Iterator[Variant]:
    """Another number of samples in a cell, or the largest in place of the mean."""
    for ratio in {0, 1, 2} - {site.attribute("sampling_ratio", 0)}:
        yield site.changed(f"sampling_ratio = {ratio}", sampling_ratio=ratio)
    yield site.changed("maximum", mode="max")


@fault(
    "detector/regions in another level's pixels",
    "RoiAlign",
    source=f"torchvision, roi_align: spatial_scale is the level's own, {_ROI_ALIGN}",
)
def other_level(site: Site) -> Iterator[Variant]:
    """Regions are scaled for a level once finer or coarser, or not at all."""
    scale = site.attribute("spatial_scale", 1.0)
    for other in sorted({1.0, scale / 2, scale * 2} - {scale}):
        yield site.changed(f"spatial_scale = {other:g}", spatial_scale=other)


@fault(
    "detector/transposed kernel flipped",
    "ConvTranspose",
    source="TVM, conv2d_transpose: I and O of the kernel's layout mixed up, https://github.com/apache/tvm/pull/9336",
)
def transposed_flipped(site: Site) -> Iterator[Variant]:
    """The kernel of a transposed convolution is turned by half a turn, or its sides are exchanged."""
    sides = site.shape(1)[2:]
    if len(sides) == 2 and max(sides) > 1:
        back = (np.full(2, number, np.int64) for number in (-1, -(2**31)))
        axes, steps = np.array([2, 3]), np.array([-1, -1])
        yield site.before("flipped", "Slice", *back, axes, steps, index=1)
        if sides[0] == sides[1]:
            yield site.before("height and width", "Transpose", index=1, perm=(0, 1, 3, 2))
