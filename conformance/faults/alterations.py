"""What else may have been computed at a call: alterations made of the call alone, by rules, not by memory.

No entry of the catalogue is used, so that a mistake nobody foresaw is still described: which attribute, which
operation, which operand. Each is a `Fault` whose source is empty; it is believed only where it computes what
the candidate has.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from conformance.faults.catalogue import Fault, Rewriting, Site, Variant, Variants
from refimpl.ops import OPERATIONS, Trait, having
from refimpl.ops.operation import Array

ALTERATIONS: dict[str, Fault] = {}
"""Name → alteration."""
MOST_TENSORS = 32
"""How many tensors are tried in the place of an operand: the nearest before the call."""
MOST_ORDERS = 24
"""How many orders of operands are tried."""
_UNARY: dict[str, tuple[dict[str, Any], ...]] = {
    "Relu": ({},),
    "LeakyRelu": ({"alpha": 0.01}, {"alpha": 0.1}, {"alpha": 0.2}),
    "Elu": ({},),
    "Sigmoid": ({},),
    "HardSigmoid": ({"alpha": 1 / 6}, {"alpha": 0.2}),
    "HardSwish": ({},),
    "Swish": ({}, {"alpha": 1.702}),
    "Mish": ({},),
    "Softplus": ({},),
    "Tanh": ({},),
    "Gelu": ({}, {"approximate": "tanh"}),
    "Neg": ({},),
    "Abs": ({},),
    "Exp": ({},),
    "Sqrt": ({},),
    "Reciprocal": ({},),
}
"""Operation of one operand → the attributes it is tried with."""
_BINARY = ("Add", "Sub", "Mul", "Div", "Max", "Min")
_REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2")
_EPSILONS = (1e-3, 1e-5, 1e-6, 1e-8, 1e-12, 0.0)
_CHOICES: dict[str, dict[str, Sequence[Any]]] = {
    "Resize": {
        "coordinate_transformation_mode": (
            "half_pixel",
            "half_pixel_symmetric",
            "pytorch_half_pixel",
            "align_corners",
            "asymmetric",
        ),
        "mode": ("nearest", "linear", "cubic"),
        "nearest_mode": ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
        "cubic_coeff_a": (-0.5, -0.75),
        "antialias": (0, 1),
        "exclude_outside": (0, 1),
    },
    "AveragePool": {"count_include_pad": (0, 1), "ceil_mode": (0, 1)},
    "MaxPool": {"ceil_mode": (0, 1)},
    "BatchNormalization": {"epsilon": _EPSILONS},
    "LayerNormalization": {"epsilon": _EPSILONS},
    "InstanceNormalization": {"epsilon": _EPSILONS},
    "GroupNormalization": {"epsilon": _EPSILONS, "num_groups": (1, 2, 4, 8, 16, 32)},
    "Gelu": {"approximate": ("none", "tanh")},
    "HardSigmoid": {"alpha": (1 / 6, 0.2, 0.25), "beta": (0.0, 0.5)},
    "LeakyRelu": {"alpha": (0.01, 0.1, 0.2, 0.3)},
    "Elu": {"alpha": (0.5, 1.0)},
    "Gemm": {"alpha": (0.5, 1.0), "beta": (0.0, 1.0)},
    "DepthToSpace": {"mode": ("DCR", "CRD")},
}
"""Operator → attribute → the values it is tried with."""
_WINDOWS = ("Conv", "MaxPool", "AveragePool", "ConvTranspose")
_ALONG = ("Softmax", "LogSoftmax", "ArgMax", "ArgMin", "Gather")


def alteration(name: str, *operators: str) -> Any:
    """Register an alteration, of calls of some operators or, without, of all."""

    def register(variants: Variants) -> Variants:
        happens = (variants.__doc__ or "").strip().splitlines()[0]
        ALTERATIONS[name] = Fault(name, operators or tuple(OPERATIONS), happens, "", variants)
        return variants

    return register


@alteration("structure/attribute", *_CHOICES)
def another_attribute(site: Site) -> Iterator[Variant]:
    """An attribute has another value."""
    for name, values in _CHOICES[site.call.op_type].items():
        present = site.attribute(name)
        for value in values:
            if value != present and not (present is None and value == values[0]):
                yield site.changed(f"{name} {_shown(value)}{_instead(present)}", **{name: value})


@alteration("structure/axis", *_ALONG)
def another_axis(site: Site) -> Iterator[Variant]:
    """It goes along another axis."""
    rank = len(site.shape(0))
    present = site.attribute("axis", -1) % rank
    for axis in range(rank):
        if axis != present and site.shape(0)[axis] > 1:
            yield site.changed(f"axis {axis} instead of {present}", axis=axis)
    for first in range(rank - 1) if "Softmax" in site.call.op_type else ():
        shape = np.asarray(site.shape(0), np.int64)
        rewriting = Rewriting(site)
        flat = rewriting.apply("Reshape", site.call.inputs[0], np.append(shape[:first], -1))
        made = rewriting.apply(site.call.op_type, flat, axis=-1)
        yield rewriting.result(f"all axes from {first} on as one", "Reshape", made, shape)


@alteration("structure/window", *_WINDOWS)
def another_window(site: Site) -> Iterator[Variant]:
    """Padding, stride or dilation are others."""
    axes = len(site.output_shape) - 2
    pads = tuple(site.attribute("pads") or (0,) * 2 * axes)
    lasting = {
        "pads at the end": (0,) * axes + tuple(a + b for a, b in _pairs(pads)),
        "pads at the beginning": tuple(a + b for a, b in _pairs(pads)) + (0,) * axes,
        "pads exchanged": pads[axes:] + pads[:axes],
    }
    for said, other in lasting.items():
        if other != pads:
            yield site.changed(f"{said}: {list(other)} instead of {list(pads)}", pads=other)
    if site.call.op_type == "Conv" and site.constant(1) is not None:
        yield from _dilated(site, axes)


def _pairs(pads: Sequence[int]) -> list[tuple[int, int]]:
    half = len(pads) // 2
    return list(zip(pads[:half], pads[half:], strict=True))


def _dilated(site: Site, axes: int) -> Iterator[Variant]:
    """Yield the convolution with other dilations, padded to the same size."""
    kernel = site.shape(1)[2:]
    present = tuple(site.attribute("dilations") or (1,) * axes)
    pads = tuple(site.attribute("pads") or (0,) * 2 * axes)
    for dilation in (1, 2, 3):
        other = (dilation,) * axes
        if other == present or max(kernel) == 1:
            continue
        more = [(a - b) * (k - 1) for a, b, k in zip(other, present, kernel, strict=True)]
        wider = tuple(
            p + (m // 2 if i < axes else m - m // 2)
            for i, (p, m) in enumerate(zip(pads, more * 2, strict=True))
        )
        if min(wider) >= 0:
            yield site.changed(f"dilation {dilation} instead of {present[0]}", dilations=other, pads=wider)


@alteration("structure/operation", *_UNARY, "Clip", "Identity")
def another_function(site: Site) -> Iterator[Variant]:
    """Another function of one operand is computed."""
    for op_type, choices in _UNARY.items():
        for attributes in choices:
            if op_type != site.call.op_type:
                yield site.instead(
                    f"{_named(op_type, attributes)} instead of {site.call.op_type}",
                    op_type,
                    site.call.inputs[0],
                    **attributes,
                )
    low, high = (np.asarray(x, np.float32) for x in (0, 6))
    operand = site.call.inputs[0]
    yield site.instead(f"Clip to 0 … 6 instead of {site.call.op_type}", "Clip", operand, low, high)
    for place, said in ((1, "lower"), (2, "upper")) if site.call.op_type == "Clip" else ():
        if site.has(place):
            ends = [name or None for name in (*site.call.inputs, "", "")[:3]]
            ends[place] = None
            yield Rewriting(site).result(f"Clip without its {said} end", "Clip", *ends)


@alteration("structure/operation of two", *_BINARY)
def another_arithmetic(site: Site) -> Iterator[Variant]:
    """Another operation of two operands is computed, or they are exchanged."""
    first, second = site.call.inputs[:2]
    for op_type in _BINARY:
        if op_type != site.call.op_type:
            yield site.instead(f"{op_type} instead of {site.call.op_type}", op_type, first, second)
    if site.call.op_type in ("Sub", "Div"):
        yield site.instead("operands exchanged", site.call.op_type, second, first)


@alteration("structure/reduction", *_REDUCTIONS)
def another_reduction(site: Site) -> Iterator[Variant]:
    """Another reduction is computed, or over other axes."""
    keep = site.attribute("keepdims", 1)
    axes = site.constant(1)
    single = None if axes is None or axes.size != 1 else int(axes.ravel()[0])
    for op_type in _REDUCTIONS:
        if op_type != site.call.op_type:
            yield site.instead(
                f"{op_type} instead of {site.call.op_type}", op_type, *site.call.inputs, keepdims=keep
            )
    rank = len(site.shape(0))
    for axis in range(rank):
        if single is not None and axis != single % rank:
            yield site.fed(f"over axis {axis}", {1: np.asarray([axis], np.int64)})


@alteration("structure/pooling", "MaxPool", "AveragePool")
def another_pooling(site: Site) -> Iterator[Variant]:
    """The largest is taken instead of the mean, or the reverse."""
    other = "AveragePool" if site.call.op_type == "MaxPool" else "MaxPool"
    shared = ("kernel_shape", "strides", "pads", "ceil_mode", "auto_pad")
    kept = {name: value for name in shared if (value := site.attribute(name)) is not None}
    yield site.instead(f"{other} instead of {site.call.op_type}", other, site.call.inputs[0], **kept)


@alteration("structure/left out")
def left_out(site: Site) -> Iterator[Variant]:
    """The call is left out: an operand is handed on."""
    for place, name in enumerate(site.call.inputs):
        same = name and site.graph.shapes[name] == site.output_shape
        if same and name not in site.graph.constants and len(site.call.outputs) == 1:
            of = f" operand {place}," if len(site.call.inputs) > 1 else ""
            yield site.instead(f"{site.call.op_type} left out:{of} {name} is handed on", "Identity", name)


@alteration("structure/operand left out", "Conv", "Gemm", "LayerNormalization")
def operand_left_out(site: Site) -> Iterator[Variant]:
    """The bias is left out."""
    if site.has(2):
        rest = site.call.inputs[:2]
        yield site.instead(
            f"{site.call.inputs[2]} is not added", site.call.op_type, *rest, **site.call.attributes
        )


@alteration("structure/done twice")
def twice(site: Site) -> Iterator[Variant]:
    """The call is made twice, one on the other's result, or an operand is added once more."""
    if site.call.op_type == "Add":
        for name in site.call.inputs:
            if site.graph.shapes[name] == site.output_shape:
                yield site.after(f"{name} added twice", "Add", name)
    unchanged = site.has(0) and site.shape(0) == site.output_shape
    if unchanged and len(site.call.outputs) == 1 and site.call.inputs[0] not in site.graph.constants:
        rest = [name or None for name in site.call.inputs[1:]]
        rewriting = Rewriting(site)
        made = rewriting.apply(site.call.op_type, *site.call.inputs, **site.call.attributes)
        yield rewriting.result(
            f"{site.call.op_type} twice", site.call.op_type, made, *rest, **site.call.attributes
        )


@alteration("structure/added after")
def added_after(site: Site) -> Iterator[Variant]:
    """Something is done to the result that should not be."""
    if len(site.call.outputs) != 1 or site.output in site.graph.constants:
        return
    for op_type, choices in _UNARY.items():
        if op_type != site.call.op_type:
            for attributes in choices:
                yield site.after(
                    f"{_named(op_type, attributes)} after {site.call.op_type}", op_type, **attributes
                )
    for axis, length in enumerate(site.output_shape):
        if length > 1:
            yield site.after(f"Softmax along axis {axis} after it", "Softmax", axis=axis)
            yield _normalized(site, axis)
            yield site.after(f"axis {axis} reversed after it", "Slice", *_reversing(axis))
    for first, second in itertools.combinations(range(len(site.output_shape)), 2):
        if site.output_shape[first] == site.output_shape[second] > 1:
            perm = _exchanged(len(site.output_shape), first, second)
            yield site.after(f"axes {first} and {second} exchanged after it", "Transpose", perm=perm)


def _normalized(site: Site, axis: int) -> Variant:
    rewriting = Rewriting(site)
    made = rewriting.apply(site.call.op_type, *site.call.inputs, **site.call.attributes)
    length = rewriting.apply("ReduceL2", made, np.asarray([axis], np.int64), keepdims=1)
    return rewriting.result(f"divided by its length along axis {axis}", "Div", made, length)


@alteration("structure/added before")
def added_before(site: Site) -> Iterator[Variant]:
    """Something is done to an operand that should not be."""
    for place, name in enumerate(site.call.inputs):
        if not name or name in site.graph.constants or site.graph.shapes[name] == ():
            continue
        said = f"operand {place}"
        for op_type, choices in _UNARY.items():
            for attributes in choices:
                yield site.before(
                    f"{_named(op_type, attributes)} of {said} first", op_type, index=place, **attributes
                )
        for axis, length in enumerate(site.graph.shapes[name]):
            if length > 1:
                yield site.before(
                    f"axis {axis} of {said} reversed first", "Slice", *_reversing(axis), index=place
                )


@alteration("structure/another tensor")
def another_tensor(site: Site) -> Iterator[Variant]:
    """Another tensor stands in the place of an operand."""
    place_of_call = site.graph.places[site.output]
    made = [name for node in site.graph.nodes[:place_of_call] for name in node.outputs]
    known = [*site.graph.inputs.values(), *site.graph.weights, *made]
    for place, name in enumerate(site.call.inputs):
        if not name:
            continue
        alike = [
            other
            for other in known
            if other != name
            and site.graph.shapes[other] == site.graph.shapes[name]
            and (other in site.graph.constants) == (name in site.graph.constants)
        ]
        for other in alike[-MOST_TENSORS:]:
            yield site.fed(f"operand {place} is {other} instead of {name}", {place: other})


@alteration("structure/operands in another order", "Concat", "MatMul", "Where", "BatchNormalization")
def another_order(site: Site) -> Iterator[Variant]:
    """The operands come in another order."""
    names = site.call.inputs
    orders = itertools.islice(itertools.permutations(range(len(names))), 1, MOST_ORDERS)
    for order in orders:
        shapes = [site.graph.shapes[names[i]] for i in order]
        fits = site.call.op_type == "Concat" or shapes == [site.graph.shapes[name] for name in names]
        if fits:
            yield site.fed(f"operands in the order {list(order)}", {i: names[j] for i, j in enumerate(order)})


@alteration("structure/results in another order", "Split")
def another_order_of_results(site: Site) -> Iterator[Variant]:
    """The parts are handed on in another order."""
    outputs = site.call.outputs
    if len({site.graph.shapes[name] for name in outputs}) > 1:
        return
    for order in itertools.islice(itertools.permutations(range(len(outputs))), 1, MOST_ORDERS):
        names = tuple(outputs[i] for i in order)
        other = type(site.call)(site.call.name, "Split", site.call.inputs, names, site.call.attributes)
        yield Variant(f"parts in the order {list(order)}", (other,))


@alteration("structure/constant laid out otherwise")
def laid_out_otherwise(site: Site) -> Iterator[Variant]:
    """A constant is transposed, reversed or negated."""
    for place, name in enumerate(site.call.inputs):
        array = site.graph.constants.get(name) if name else None
        if array is None or array.dtype.kind != "f" or array.size < 2:
            continue
        for said, other in _layouts(array):
            if not np.array_equal(other, array):
                yield site.fed(f"{name} {said}", {place: other})


def _layouts(array: Array) -> Iterator[tuple[str, Array]]:
    wide = array.astype(np.float64)
    yield "negated", -wide
    if wide.ndim == 4:
        yield "reversed along axes 2 and 3", np.flip(wide, (2, 3))
    for axis in range(wide.ndim):
        if wide.shape[axis] > 1:
            yield f"reversed along axis {axis}", np.flip(wide, axis)
        for blocks in (2, 3, 4):
            if wide.shape[axis] % blocks == 0 and wide.shape[axis] > blocks:
                yield from _shuffled(wide, axis, blocks)
    for first, second in itertools.combinations(range(wide.ndim), 2):
        if wide.shape[first] == wide.shape[second] > 1:
            yield f"with axes {first} and {second} exchanged", np.swapaxes(wide, first, second)
        elif wide.shape[first] > 1 and wide.shape[second] > 1:
            read = np.swapaxes(wide, first, second).reshape(wide.shape)
            yield f"read as if axes {first} and {second} were exchanged", read


def _shuffled(array: Array, axis: int, blocks: int) -> Iterator[tuple[str, Array]]:
    parts = np.split(array, blocks, axis)
    for order in itertools.islice(itertools.permutations(range(blocks)), 1, 6):
        said = f"with its {blocks} blocks along axis {axis} in the order {list(order)}"
        yield said, np.concatenate([parts[i] for i in order], axis)
    shape = (*array.shape[:axis], blocks, array.shape[axis] // blocks, *array.shape[axis + 1 :])
    interleaved = np.swapaxes(array.reshape(shape), axis, axis + 1).reshape(array.shape)
    yield f"with its {blocks} blocks along axis {axis} interleaved", interleaved


@alteration("structure/arranged otherwise", "Reshape", "Transpose")
def arranged_otherwise(site: Site) -> Iterator[Variant]:
    """Elements are read in another order: axes exchanged, or not exchanged."""
    data, shape = site.call.inputs[0], site.shape(0)
    wanted = np.asarray(site.output_shape, np.int64)
    if data in site.graph.constants or len(shape) > 5:
        return
    if site.call.op_type == "Transpose":
        yield site.instead("not transposed: read as it lies", "Reshape", data, wanted)
    for perm in itertools.islice(itertools.permutations(range(len(shape))), 1, MOST_ORDERS):
        if perm == tuple(site.attribute("perm") or ()):
            continue
        rewriting = Rewriting(site)
        turned = rewriting.apply("Transpose", data, perm=perm)
        yield rewriting.result(f"its operand transposed by {list(perm)}", "Reshape", turned, wanted)


@alteration("structure/parts exchanged", "Reshape")
def parts_exchanged(site: Site) -> Iterator[Variant]:
    """An axis is divided into its parts in the other order."""
    after = site.output_shape
    if site.call.inputs[0] in site.graph.constants:
        return
    for axis in range(len(after) - 1):
        if min(after[axis], after[axis + 1]) > 1:
            other = list(after)
            other[axis], other[axis + 1] = after[axis + 1], after[axis]
            rewriting = Rewriting(site)
            made = rewriting.apply("Reshape", site.call.inputs[0], np.asarray(other, np.int64))
            said = f"axes {axis} and {axis + 1} divided as {other[axis]}×{other[axis + 1]}"
            yield rewriting.result(said, "Transpose", made, perm=_exchanged(len(after), axis, axis + 1))


_POINTWISE = tuple(having(Trait.ELEMENTWISE) & {*_UNARY, "Clip"})


@alteration("structure/in the other order", *_POINTWISE)
def in_the_other_order(site: Site) -> Iterator[Variant]:
    """A function is computed before what should come before it."""
    maker = site.producer(0)
    if maker is None or len(maker.outputs) != 1 or len(site.call.inputs) != 1:
        return
    for place, name in enumerate(maker.inputs):
        if not name or name in site.graph.constants:
            continue
        rewriting = Rewriting(site)
        first = rewriting.apply(site.call.op_type, name, **site.call.attributes)
        operands = [first if i == place else x or None for i, x in enumerate(maker.inputs)]
        said = f"{site.call.op_type} before {maker.op_type} instead of after it"
        yield rewriting.result(said, maker.op_type, *operands, **maker.attributes)


@alteration("structure/picture", "Conv")
def picture(site: Site) -> Iterator[Variant]:
    """The picture's channels, rows or columns come in another order."""
    if site.call.inputs[0] not in site.graph.inputs.values() or len(site.shape(0)) != 4:
        return
    channels = site.shape(0)[1]
    for order in itertools.islice(itertools.permutations(range(channels)), 1, 6):
        yield site.before(
            f"channels in the order {list(order)}", "Gather", np.asarray(order, np.int64), axis=1
        )
    rewriting = Rewriting(site)
    turned = rewriting.apply("Transpose", site.call.inputs[0], perm=(0, 2, 3, 1))
    read = rewriting.apply("Reshape", turned, np.asarray(site.shape(0), np.int64))
    yield rewriting.same("laid out NHWC", {0: read})


def _reversing(axis: int) -> tuple[Array, ...]:
    return tuple(np.asarray([x], np.int64) for x in (-1, np.iinfo(np.int64).min, axis, -1))


def _exchanged(rank: int, first: int, second: int) -> tuple[int, ...]:
    perm = list(range(rank))
    perm[first], perm[second] = second, first
    return tuple(perm)


def _named(op_type: str, attributes: dict[str, Any]) -> str:
    said = ", ".join(f"{name} {_shown(value)}" for name, value in attributes.items())
    return f"{op_type} ({said})" if said else op_type


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _instead(present: Any) -> str:
    return "" if present is None else f" instead of {_shown(present)}"
