"""Recurrent layers: running error analysis through the steps, by computing with arrays and their errors.

Every gate is evaluated at both ends of its argument's error, so that a saturated one forgets it. Through the
hidden states errors may grow from step to step, by more than they do in fact: who knows a candidate's own
hidden states begins each step with these (``given``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from conformance.bounds.declaration import Declaration
from conformance.bounds.step import Bound, Step, completed, rule
from refimpl.ops.operation import Array
from refimpl.ops.recurrent import Activation, assembled, layers

_ALLOWED = {"sigmoid": "Sigmoid", "tanh": "Tanh", "scaledtanh": "Tanh", "elu": "Elu", "softplus": "Softplus"}
"""Activation → whose allowance it has; the others are a few products."""


class Approximate:
    """An array and its error, under the operations that cells are written with."""

    __array_ufunc__ = None

    def __init__(self, step: Step, value: Array, error: Array | float = 0.0) -> None:
        self.step, self.value, self.error = step, value, np.broadcast_to(error, value.shape)

    def _rounded(self, value: Array, error: Array, roundings: int = 1) -> Approximate:
        own = self.step.gamma(roundings) * np.abs(value) + self.step.floor
        return Approximate(self.step, value, error + own)

    def __add__(self, other: Approximate | Array) -> Approximate:
        """Add an array, exact or not."""
        value, error = _both(other)
        return self._rounded(self.value + value, self.error + error)

    __radd__ = __add__

    def __rsub__(self, other: float) -> Approximate:
        """Subtract from a number."""
        return self._rounded(other - self.value, self.error)

    def __mul__(self, other: Approximate | Array) -> Approximate:
        """Multiply by an array, exact or not."""
        value, error = _both(other)
        carried = self.error * (np.abs(value) + error) + np.abs(self.value) * error
        return self._rounded(self.value * value, carried)

    __rmul__ = __mul__

    def __matmul__(self, matrix: Array) -> Approximate:
        """Multiply by an exact matrix; probably, the errors' signs are independent."""
        own = self.step.gamma_of_products(len(matrix) + 1) * (np.abs(self.value) @ np.abs(matrix))
        if self.step.probable:
            carried = np.sqrt(np.square(self.error) @ np.square(matrix))
        else:
            carried = self.error @ np.abs(matrix)
        return Approximate(self.step, self.value @ matrix, own + carried + len(matrix) * self.step.floor)

    def affine(self, matrix: Array, addends: Sequence[Array], further: int) -> Approximate:
        """Multiply by an exact matrix and add; the sum may begin with what is added, and go on further."""
        size = sum(map(np.abs, addends), np.abs(self.value) @ np.abs(matrix))
        terms = len(matrix) + len(addends) + further
        value = sum(addends, self.value @ matrix)
        carried = self.error @ np.abs(matrix)
        return Approximate(self.step, value, self.step.gamma_of_products(terms) * size + carried)

    def __len__(self) -> int:
        """Return the length of the first axis."""
        return len(self.value)

    def __getitem__(self, index: Any) -> Approximate:
        """Return a part."""
        return Approximate(self.step, self.value[index], self.error[index])

    def activated(self, function: Activation) -> Approximate:
        """Return a function that rises or falls, at both ends of the error."""
        value = function.of_array(self.value)
        ends = [function.of_array(self.value + sign * self.error) for sign in (-1, 1)]
        carried = np.maximum(np.abs(ends[0] - value), np.abs(ends[1] - value))
        name = _ALLOWED.get(function.name)
        own = self.step.allowance(name, value) if name else self.step.gamma(3) * np.abs(value)
        if function.name in ("affine", "hardsigmoid"):
            own = own + self.step.gamma(3) * (np.abs(function.alpha * self.value) + abs(function.beta))
        return Approximate(self.step, value, carried + own + 2 * self.step.floor)

    def stacked(self, items: Sequence[Approximate]) -> Approximate:
        """Return several along a new first axis."""
        return Approximate(self.step, np.stack([x.value for x in items]), np.stack([x.error for x in items]))


def _both(x: Approximate | Array) -> tuple[Array, Array | float]:
    return (x.value, x.error) if isinstance(x, Approximate) else (np.asarray(x), 0.0)


def analysed(
    step: Step, given: Array | None = None, wrong_by: Array | float = 0.0
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Return the outputs of a recurrent operator, and their bounds.

    Parameters
    ----------
    step
    given
        The first output as the candidate made it: each step begins with its hidden state. None: with the
        exact one, whatever its error.
    wrong_by
        What the first operand may be off by.
    """
    layout = step.attributes.get("layout", 0)
    every: Array | None = None if given is None else np.asarray(given, np.float64)
    if every is not None and layout:
        every = every.transpose(1, 2, 0, 3)
    error = np.broadcast_to(wrong_by, np.shape(step.inputs[0]))
    error = error.swapaxes(0, 1) if layout else error
    results = [
        replace(layer, inputs=Approximate(step, layer.inputs, error)).run(
            lambda x: x if isinstance(x, Approximate) else Approximate(step, x),
            None if every is None else every[:, place],
        )
        for place, layer in enumerate(layers(step.op_type, step.inputs, step.attributes))
    ]
    values = assembled([tuple(x.value for x in result) for result in results], layout)
    errors = assembled([tuple(x.error for x in result) for result in results], layout)
    return values, errors


RECURRENT = frozenset(("LSTM", "GRU", "RNN"))


def step_by_step(
    op_type: str, operands: Sequence[Any], attributes: dict[str, Any], given: Array, declaration: Declaration
) -> tuple[tuple[Array, ...], tuple[Array | None, ...]]:
    """Return what a recurrent operator makes of a candidate's own hidden states, and the bounds of that.

    Parameters
    ----------
    op_type, operands, attributes
        The call, floats in float64.
    given
        The candidate's first output: every step is computed from the state before it.
    declaration
        What the candidate is declared to compute with.
    """
    step = Step(op_type, tuple(operands), attributes, (), declaration)
    with np.errstate(all="ignore"):
        truths, errors = analysed(step, given)
        bounds = tuple(
            completed(error, y, step, stored=False) for error, y in zip(errors, truths, strict=True)
        )
    return truths, bounds


@rule(*sorted(RECURRENT))
def recurrent(step: Step) -> tuple[Bound, ...]:
    """What running error analysis finds, from the first step to the last."""
    return analysed(step)[1]
