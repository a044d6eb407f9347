"""One step to be judged, the registry of the rules, and what is common to all bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from conformance.bounds.allowances import Runtime
from conformance.bounds.declaration import Declaration
from conformance.bounds.formats import FLOAT32, Format, gamma, probable_gamma
from refimpl.ops import OPERATIONS
from refimpl.ops.operation import Array

Bound = Array | float | None
"""Of one output: per element, or broadcasting to it; None is no bound."""

Shared = dict[int, Array]
"""Number of roundings → the operation on absolute values."""


@dataclass(frozen=True)
class Step:
    """An operation, its exact operands and results, and how the candidate computes.

    Attributes
    ----------
    op_type, inputs, attributes
        The call, floats in float64.
    outputs
        Its exact results.
    declaration
        What the candidate is declared to compute with.
    extra
        Roundings beyond those of the operation itself, such as those of constants folded into its weights.
    probable
        Whether accumulated roundings count as √n instead of n.
    shared
        What is computed once for the bound and for the probable size.
    """

    op_type: str
    inputs: tuple[Any, ...]
    attributes: dict[str, Any]
    outputs: tuple[Array, ...]
    declaration: Declaration
    extra: int = 0
    probable: bool = False
    shared: Shared = field(default_factory=dict)

    @property
    def arithmetic(self) -> Format:
        """The format in which the candidate computes and accumulates."""
        return self.declaration.arithmetic

    @property
    def storage(self) -> Format:
        """The format of its results."""
        return self.declaration.storage

    @property
    def runtime(self) -> Runtime:
        """How well its special functions approximate."""
        return self.declaration.runtime

    @property
    def y(self) -> Array:
        """First output."""
        return self.outputs[0]

    @property
    def unit_roundoff(self) -> float:
        """Unit roundoff of the arithmetic."""
        return self.arithmetic.unit_roundoff

    @property
    def floor(self) -> float:
        """What one flush to zero loses at most."""
        return self.arithmetic.smallest_normal

    def operand(self, index: int) -> Array | None:
        """Return an input as an array, None if absent."""
        value = self.inputs[index] if index < len(self.inputs) else None
        return None if value is None else np.asarray(value)

    def required(self, index: int) -> Array:
        """Return an input that the operation cannot be without."""
        return np.asarray(self.inputs[index])

    def gamma(self, n: float) -> float:
        """Return what n roundings of the arithmetic accumulate to, relatively."""
        return (probable_gamma if self.probable else gamma)(n + self.extra, self.unit_roundoff)

    def gamma_of_sum(self, n: float) -> float:
        """Return what n roundings of a sum accumulate to; those of its operands come on top."""
        if not self.runtime.rounds_operands:
            return self.gamma(n)
        return (probable_gamma if self.probable else gamma)(n, FLOAT32.unit_roundoff)

    def gamma_of_products(self, n: float) -> float:
        """Return what n roundings of a sum of products accumulate to, and those of its operands before it."""
        before = self.gamma(2) if self.runtime.rounds_operands else 0.0
        return before + self.gamma_of_sum(n)

    def run(self, *inputs: Any, **changed: Any) -> Any:
        """Compute the operation on other operands."""
        with np.errstate(all="ignore"):
            return OPERATIONS[self.op_type](*inputs, **(self.attributes | changed))

    @property
    def flushes_are_negligible(self) -> bool:
        """Whether the smallest normal number is far below any data: then one figure serves all elements."""
        return self.floor < 1e-30

    def magnitude(self, x: Array, n: float) -> Array:
        """Return |x|, and more where x may be flushed: γₙ of it is the loss."""
        size = np.abs(x)
        flushed = size < self.floor
        if flushed.any():
            flushed &= size > 0
            size[flushed] /= self.gamma(n)
        return size

    def allowance(self, function: str, y: Array, scale: Array | float = 1.0) -> Array:
        """Return what the runtime's ``function`` of result ``y``, times ``scale``, may err by."""
        table = self.runtime.allowances[function]
        u = self.unit_roundoff
        relative = 2 * table.ulps * u + table.relative
        return scale * (relative * np.abs(y) + table.roundoffs * u + table.absolute)

    def like(self, op_type: str, *inputs: Any, outputs: Sequence[Array], **attributes: Any) -> Step:
        """Return another step computed in the same way."""
        return replace(
            self,
            op_type=op_type,
            inputs=inputs,
            attributes=attributes,
            outputs=tuple(outputs),
            shared={},
        )


Rule = Callable[[Step], Bound | tuple[Bound, ...]]


@dataclass(frozen=True)
class Registered:
    """A rule, and whether it covers the storing of the result."""

    bound: Rule
    stored: bool
    """False: storing in a narrower format adds its rounding. True: none, or the rule has it."""


RULES: dict[str, Registered] = {}
"""ONNX operator → its rule."""


def rule(*op_types: str, stored: bool = False) -> Callable[[Rule], Rule]:
    """Register the rule of some operators."""

    def register(function: Rule) -> Rule:
        RULES.update((op_type, Registered(function, stored)) for op_type in op_types)
        return function

    return register


def is_float(x: Array) -> bool:
    """Tell whether an array is of floats: only these round."""
    return x.dtype.kind == "f"


def completed(bound: Bound, y: Array, step: Step, stored: bool) -> Array | None:
    """Return a rule's bound per element, with the rounding and range of the stored format."""
    if bound is None:
        return None
    arithmetic, storage = step.arithmetic, step.storage
    per_element = np.broadcast_to(np.asarray(bound, np.float64), y.shape)
    if stored or not is_float(y):
        return per_element
    largest = min(arithmetic.largest, storage.largest)
    with np.errstate(all="ignore"):
        if storage.unit_roundoff > arithmetic.unit_roundoff or storage.largest < arithmetic.largest:
            per_element = per_element + _storing(np.abs(y), per_element, storage)
        if _extent(y) + _extent(per_element) <= largest:
            return per_element
        overflows = ~(np.abs(y) + per_element <= largest)
    # Where the truth itself is infinite or NaN, so is every correct candidate.
    return np.where(overflows, np.where(np.isfinite(y), np.inf, 0.0), per_element)


def _extent(x: Array) -> float:
    """Return the largest size, NaN if there is one."""
    return float(np.maximum(x.max(), -x.min())) if x.size else 0.0


def _storing(size: Array, bound: Array, storage: Format) -> Array:
    rounding = storage.unit_roundoff * (size + bound)
    flush = np.where(
        size - bound < storage.smallest_normal, np.minimum(size + bound, storage.smallest_normal), 0
    )
    return np.maximum(rounding, flush)
