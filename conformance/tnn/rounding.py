"""What rounding may do to a layer, to an output, and to the text of either: the bounds of the verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from conformance.bounds import BFLOAT16, FLOAT16, FLOAT32, MOBILE, Declaration, carried_bounds
from conformance.bounds.envelope import envelope
from conformance.tnn.graph import TnnGraph
from conformance.tnn.proto import Layer
from conformance.tnn.recording import record_graph, record_layers, stored_errors, with_stored_inputs
from refimpl import Recording
from refimpl.errors import ConfigurationError
from refimpl.graph import Node

Array = NDArray[Any]
DUMP_TEXT = 1e-9
"""Half of the last of a dump's nine decimals, and the float32 rounding of what is read."""
OUTPUT_TEXT = 1e-6
"""The same of an output's six decimals."""
SIX_DIGITS = 5e-6
"""Largest relative error of a number written with six significant digits, as `model_check -do` does."""
WINOGRAD = 16.0
"""How much larger than a direct convolution's the probable error of Winograd's F(4×4, 3×3) is.

Measured on ARM's own output of 3×3 convolutions: 8 to 17. The transforms' worst case, 36 100, would hide any
fault, so this is no rigorous bound but a declared allowance.
"""


@dataclass(frozen=True)
class Declared(Declaration):
    """What a run is declared to compute with."""

    def __str__(self) -> str:
        """Say what a verdict under this declaration allows."""
        return (
            f"rounding of {self.arithmetic.name} arithmetic, unit roundoff "
            f"{self.arithmetic.unit_roundoff:.1e}, TNN's approximations, and the digits of its text"
        )


_TNN = replace(MOBILE, name="tnn", one_pass_variance=True)
# TNN makes bfloat16 by dropping the low bits: twice the error of rounding.
_TRUNCATED = replace(BFLOAT16, unit_roundoff=2 * BFLOAT16.unit_roundoff)
DECLARED = {
    "float32": Declared(FLOAT32, FLOAT32, _TNN),
    "float16": Declared(FLOAT16, FLOAT16, _TNN),
    "bfloat16": Declared(_TRUNCATED, _TRUNCATED, _TNN),
}
"""What can be declared of a run, by the name of its arithmetic."""


def declared(arithmetic: str) -> Declared:
    """Return what an arithmetic's name stands for, else `ConfigurationError`."""
    if arithmetic not in DECLARED:
        raise ConfigurationError(f"arithmetic {arithmetic!r}; expected one of {', '.join(DECLARED)}")
    return DECLARED[arithmetic]


@dataclass(frozen=True, eq=False)
class Allowed:
    """What a layer's output should be, and how far a correct one may be from it.

    Attributes
    ----------
    expected
        The exact result, float64.
    bound
        Per element; infinite where the format may overflow, None where there is no bound.
    scale
        The same for what rounding is likely to do; what a hidden fault is held against.
    """

    expected: Array
    bound: Array | None
    scale: Array | None


def allowed_of(
    graph: TnnGraph,
    chain: Sequence[Layer],
    operands: Mapping[str, Array],
    text: Callable[[Array], Array],
    how: Declared,
) -> list[Allowed]:
    """Return what layers that ran as one should make, and how far a correct run may be from it.

    Parameters
    ----------
    graph, chain, operands
        As of `conformance.tnn.recording.record_layers`.
    text
        How far an array that was read from text may be from the one that was written.
    how
        What the run is declared to compute with.
    """
    recording = record_layers(graph, chain, operands)
    errors = {name: text(array) for name, array in operands.items()} | _constant_errors(recording, how)
    bounds, scales = (_carried(recording, errors, how, probable) for probable in (False, True))
    return [
        Allowed(recording.tensors[tensor], bounds.get(tensor), scales.get(tensor))
        for tensor in recording.outputs.values()
    ]


def _constant_errors(recording: Recording, how: Declared) -> dict[str, Array]:
    return {} if how.arithmetic == FLOAT32 else stored_errors(recording, how.arithmetic.unit_roundoff)


def _carried(
    recording: Recording, errors: Mapping[str, Array], how: Declared, probable: bool
) -> dict[str, Array | None]:
    """Carry errors of the operands through the operations, adding to them what each may err by."""
    known: dict[str, Array | None] = dict(errors)
    for call in recording.steps:
        operands = call.operands(recording.tensors)
        outputs = tuple(recording.tensors[name] for name in call.outputs)
        before = [known.get(name, 0.0) for name in call.inputs]
        after = carried_bounds(call, operands, before, outputs, how, probable=probable)
        if not probable and after[0] is not None and _may_be_winograd(call, operands):
            nothing = [0.0] * len(operands)
            (likely, *_) = carried_bounds(call, operands, nothing, outputs, how, probable=True)
            after = (after[0] + WINOGRAD * likely if likely is not None else None,)
        known.update(zip(call.outputs, after, strict=False))
    return known


def _may_be_winograd(call: Node, operands: Sequence[Array | None]) -> bool:
    if call.op_type != "Conv" or operands[1] is None or operands[1].shape[2:] != (3, 3):
        return False
    once = all(set(call.attributes.get(name) or (1,)) == {1} for name in ("strides", "dilations"))
    return once and call.attributes.get("group", 1) == 1


def allowed_outputs(
    graph: TnnGraph, inputs: Mapping[str, Array], how: Declared, text: float = OUTPUT_TEXT
) -> dict[str, tuple[Array, float]]:
    """Return for each output of a graph the exact result, and how far rounding alone may carry it.

    The latter is the noise envelope of `conformance.bounds.envelope`, the inputs' own rounding included, and
    the text's.
    """
    recording = with_stored_inputs(record_graph(graph, inputs), how.storage)
    noise = envelope(recording, how)
    return {
        name: (recording.tensors[tensor], noise[name] + text) for name, tensor in recording.outputs.items()
    }
