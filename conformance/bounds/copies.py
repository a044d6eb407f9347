"""How far a candidate's own copies of the weights may be off, where their format is declared apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from conformance.bounds.declaration import Declaration
from conformance.bounds.formats import Format
from refimpl import Recording, Step
from refimpl.graph import Node
from refimpl.ops import TRAITS, Trait
from refimpl.ops.operation import Array


def copied_weights(recording: Recording, declaration: Declaration) -> dict[str, Array]:
    """Return how far each element of kernels and matrices may be off, by the format declared for weights.

    And of what is added to a matrix product: converters make it the bias of one layer, which stays as it is
    where kernels are made integers. Numbers below the format's smallest normal one may be flushed; where a
    batch norm is folded in, that is the product with its factor. Other vectors only of a runtime that narrows
    them. Nothing where no format is declared, and of what the truth has as the file does.
    """
    copied = declaration.weights
    if copied is None:
        return {}
    found = {
        name: _by_channel(recording.tensors[name], copied, axis, factor)
        if copied.by_channel
        else _narrowed(recording.tensors[name], copied, factor)
        for name, (factor, axis) in _factors(recording, sums=not copied.by_channel).items()
        if not (copied.by_channel and recording.tensors[name].ndim < 2)
    }
    for name, first, last in declaration.read:
        found |= _known(name, found.get(name), slice(first, last))
    return found | dict(_vectors(recording, copied) if _narrows_vectors(declaration) else ())


def _known(name: str, error: Array | None, run: slice) -> dict[str, Array]:
    """Return a weight's error, none of it in a run of its elements."""
    if error is None:
        return {}
    rest = np.array(error, order="C")
    rest.reshape(-1)[run] = 0.0
    return {name: rest}


def narrowed_attributes(
    step: Node, operands: Sequence[Array | None], declaration: Declaration
) -> Array | float:
    """Return what a HardSigmoid's slope and offset, stored as weights are, may be off by in its result."""
    copied = declaration.weights
    if copied is None or not _narrows_vectors(declaration) or step.op_type != "HardSigmoid":
        return 0.0
    slope, offset = step.attributes.get("alpha", 0.2), step.attributes.get("beta", 0.5)
    return copied.unit_roundoff * (np.abs(slope * np.asarray(operands[0])) + abs(offset))


def _narrows_vectors(declaration: Declaration) -> bool:
    """Tell whether more than kernels and matrices is narrowed: integers are for these alone."""
    copied = declaration.weights
    return declaration.runtime.narrows_vectors and copied is not None and not copied.by_channel


def _narrowed(x: Array, copied: Format, factor: Array | float = 1.0) -> Array:
    size = np.abs(x)
    return np.where(size < copied.smallest_normal / factor, size, copied.unit_roundoff * size)


def _by_channel(x: Array, copied: Format, axis: int, factor: Array | float) -> Array:
    """Return the roundings of each output channel, whose largest, or range, they are steps of.

    A norm's factor scales all of a channel alike; it counts where the steps' size is rounded, too.
    """
    others = tuple(place for place in range(x.ndim) if place != axis % x.ndim)
    largest, lowest = (sign * (sign * x).max(axis=others, keepdims=True, initial=0.0) for sign in (1, -1))
    extent = largest - lowest if copied.of_range else np.maximum(largest, -lowest)
    error = np.broadcast_to(copied.unit_roundoff * extent, x.shape)
    if copied.step is None:
        return error
    step = np.maximum(2 * copied.unit_roundoff * extent * factor, copied.step.smallest_normal**2)
    return np.asarray(error + (np.abs(x) + error) * copied.step.rounding_of(step) / step)


def of_largest(x: Array, copied: Format) -> Array:
    """Return a rounding of the largest element, of each."""
    largest = float(np.abs(x).max(initial=0.0))
    return np.full(x.shape, copied.unit_roundoff * max(largest, copied.smallest_normal))


def _factors(recording: Recording, *, sums: bool) -> dict[str, tuple[Array | float, int]]:
    """Return the weights that are operands of products, matrices that are written down among them.

    And of ``sums`` with a product. Each with what a norm behind it multiplies it by, and the axis of its
    output channels.
    """
    written = (name for name in recording.constants if recording.tensors[name].ndim > 1)
    moved = {name: (name, False) for name in (*recording.weights, *written)}
    found: dict[str, tuple[Array | float, int]] = {}
    products: set[str] = set()
    for step in recording.steps:
        traits = TRAITS[step.op_type]
        if Trait.MOVES in traits and step.inputs[0] in moved:
            name, turned = moved[step.inputs[0]]
            moved.update(dict.fromkeys(step.outputs, (name, turned ^ (step.op_type == "Transpose"))))
        elif Trait.PRODUCTS in traits or (sums and step.op_type == "Add" and products & {*step.inputs}):
            products |= {*step.outputs} if step.op_type != "Conv" else set()
            factor = _factor(recording, norm_behind(recording, step))
            for place, operand in enumerate(step.inputs):
                if operand in moved and not (step.op_type == "Conv" and place != 1):
                    name, turned = moved[operand]
                    found[name] = factor, output_axis(step, place, turned)
    return found


def output_axis(step: Node, place: int, turned: bool = False) -> int:
    """Return the axis along which an operand of a product makes other outputs.

    ``turned``: of the weight that it is the transpose of.
    """
    if step.op_type == "Conv":
        return -1 if turned else 0
    on_the_left = place == 0 and step.op_type in ("MatMul", "Gemm")
    turned ^= bool(step.attributes.get("transA" if on_the_left else "transB", 0))
    return -2 if on_the_left ^ turned else -1


def _vectors(recording: Recording, copied: Format) -> Iterator[tuple[str, Array]]:
    """Yield biases, what norms scale and shift by, tables and factors, each with its error.

    What a batch norm folded into a convolution shifts by is computed first, and narrowed then; so is a table
    that is computed of weights alone, of which each element is a mean of some of theirs.
    """
    fixed = {*recording.weights, *recording.constants}
    sources = {name: {name} for name in fixed}
    for step in recording.steps:
        if sources.keys() >= {*step.uses}:
            sources.update(dict.fromkeys(step.outputs, set().union(*(sources[name] for name in step.uses))))
            continue
        names = [name for name in step.inputs if name in fixed]
        for name in (each for each in step.inputs if each in sources.keys() - fixed):
            held = ((source, recording.tensors[source]) for source in sources[name])
            yield from ((source, of_largest(x, copied)) for source, x in held if x.dtype.kind == "f")
        if step.op_type == "Conv":
            norm = norm_behind(recording, step)
            if norm is None:
                yield from ((name, _narrowed(recording.tensors[name], copied)) for name in step.uses[2:])
                continue
            shift, mean = (recording.tensors[norm.inputs[place]] for place in (2, 3))
            biases = [recording.tensors[name] for name in step.uses[2:]]
            factor = norm_scale(recording, norm)
            yield norm.inputs[2], _narrowed(shift + (sum(biases) - mean) * factor, copied)
        elif step.op_type in ("LayerNormalization", "Add", "Mul"):
            yield from ((name, _narrowed(recording.tensors[name], copied)) for name in names)


def norm_behind(recording: Recording, step: Step) -> Node | None:
    """Return the batch norm that uses a convolution's result."""
    users = recording.graph.consumers.get(step.outputs[0], [])
    norms = [user for user in users if user.op_type == "BatchNormalization"]
    return norms[0] if norms and step.op_type == "Conv" else None


def _factor(recording: Recording, norm: Node | None) -> Array | float:
    """Return by what a norm's folding multiplies a kernel's channels, in size; at least 2⁻²⁴."""
    if norm is None:
        return 1.0
    return np.maximum(np.abs(norm_scale(recording, norm)), 2.0**-24).reshape(-1, 1, 1, 1)


def norm_scale(recording: Recording, norm: Node) -> Array:
    """Return what a batch norm multiplies each channel by."""
    scale, variance = (recording.tensors[norm.inputs[place]] for place in (1, 4))
    return np.asarray(scale / np.sqrt(variance + norm.attributes.get("epsilon", 1e-5)))
