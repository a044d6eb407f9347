"""How far a candidate's own copies of the weights may be off, where their format is declared apart."""

from __future__ import annotations

import numpy as np

from conformance.bounds.declaration import Declaration
from refimpl import Recording, Step
from refimpl.ops import TRAITS, Trait
from refimpl.ops.operation import Array


def copied_weights(recording: Recording, declaration: Declaration) -> dict[str, Array]:
    """Return how far each element of kernels and matrices may be off, by the format declared for weights.

    And of what is added to a matrix product: converters make it the bias of one layer. Numbers below the
    format's smallest normal one may be flushed; where a batch norm is folded in, that is the product with
    its factor. Nothing where no format of weights is declared.
    """
    copied = declaration.weights
    if copied is None:
        return {}
    return {
        name: np.where(size < copied.smallest_normal / factor, size, copied.unit_roundoff * size)
        for name, factor in _factors(recording).items()
        for size in [np.abs(recording.tensors[name])]
    }


def _factors(recording: Recording) -> dict[str, Array | float]:
    """Return the weights that are operands of products, each with what a norm behind it multiplies it by."""
    moved = {name: name for name in recording.weights}
    found: dict[str, Array | float] = {}
    products: set[str] = set()
    for step in recording.steps:
        traits = TRAITS[step.op_type]
        if Trait.MOVES in traits and step.inputs[0] in moved:
            moved.update(dict.fromkeys(step.outputs, moved[step.inputs[0]]))
        elif Trait.PRODUCTS in traits or (step.op_type == "Add" and products & {*step.inputs}):
            products |= {*step.outputs} if step.op_type != "Conv" else set()
            operands = step.inputs[1:2] if step.op_type == "Conv" else step.inputs
            found |= {moved[name]: _norm_behind(recording, step) for name in operands if name in moved}
    return found


def _norm_behind(recording: Recording, step: Step) -> Array | float:
    """Return what a batch norm behind a convolution multiplies each channel by; at least 2⁻²⁴."""
    users = recording.graph.consumers.get(step.outputs[0], [])
    norm = next((user for user in users if user.op_type == "BatchNormalization"), None)
    if norm is None or step.op_type != "Conv":
        return 1.0
    scale, variance = (recording.tensors[norm.inputs[place]] for place in (1, 4))
    factor = np.abs(scale) / np.sqrt(variance + norm.attributes.get("epsilon", 1e-5))
    return np.maximum(factor, 2.0**-24).reshape(-1, 1, 1, 1)
