"""One operation in somebody's test: is an array what it makes of its operands, but for rounding?"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from conformance.bounds import FORMATS, Declaration, introduced_bounds
from conformance.bounds.worst_element import absolute_error, worst_of
from conformance.graph.evaluation import as_tuple, evaluate_node, widened
from conformance.judge.diagnosis import diagnose
from conformance.reports.report import Comparison
from refimpl import Recording, Step
from refimpl.errors import ConfigurationError, UnsupportedOperationError, VerificationError
from refimpl.ops import OPERATIONS
from refimpl.ops.operation import Array

Call = str | Callable[..., Any]
"""An operation of the vocabulary: its ONNX name, or the function of `refimpl.ops`."""


def check_call(
    actual: Any,
    operation: Call,
    operands: tuple[Any, ...],
    attributes: dict[str, Any],
    formats: tuple[str, str],
) -> None:
    """Raise unless an array is an operation's first result.

    Parameters
    ----------
    actual, operation, operands, attributes
        As of `conformance.assert_within`.
    formats
        Of the arithmetic and of the result.

    Raises
    ------
    VerificationError, ConfigurationError, UnsupportedOperationError
        As of `conformance.assert_within`.
    """
    op_type = _name_of(operation)
    given = tuple(None if x is None else np.asarray(x) for x in operands)
    wide = tuple(None if x is None else widened(x) for x in given)
    step = _step(op_type, given, attributes)
    truth = as_tuple(evaluate_node(step, wide, np.float64))[0]
    declared = Declaration(*map(_format, formats))
    (bound,) = introduced_bounds(op_type, wide, attributes, (truth,), declared)
    if bound is None:
        raise UnsupportedOperationError(f"nothing bounds {op_type} so; give an array and a bound")
    tensors = {name: x for name, x in zip(step.inputs, wide, strict=True) if name and x is not None}
    inputs = {name: name for name in tensors}
    recording = Recording([step], {**tensors, "result": truth}, inputs, {"result": "result"})
    shapes = ", ".join("nothing" if x is None else f"{x.dtype}{list(x.shape)}" for x in given)
    told = [f"operands              {shapes}", f"attributes            {attributes or 'none'}"]

    def likely(values: Array, row: Comparison) -> list[str]:
        return _likely(recording, row, values, declared)

    _compare(actual, truth, bound, f"{op_type} in {formats[0]}", told, likely)


def check_array(actual: Any, expected: Any, bound: Any) -> None:
    """Raise unless an array is within a bound of another; parameters as of `conformance.assert_within`."""
    _compare(actual, np.asarray(expected), bound, "the array", [], lambda x, row: [])


def _name_of(operation: Call) -> str:
    names = {function: name for name, function in OPERATIONS.items()}
    plain = operation if isinstance(operation, str) else inspect.unwrap(operation)
    name = plain if isinstance(plain, str) else names.get(plain, "")
    if name not in OPERATIONS:
        called = operation if isinstance(operation, str) else getattr(operation, "__name__", operation)
        raise ConfigurationError(f"{called!r} is no operation of refimpl.ops; give an ONNX operator's name")
    return name


def _format(name: str) -> Any:
    if name not in FORMATS:
        raise ConfigurationError(f"there is no format {name!r}; expected one of {', '.join(FORMATS)}")
    return FORMATS[name]


def _step(op_type: str, operands: tuple[Array | None, ...], attributes: dict[str, Any]) -> Step:
    names = tuple("" if x is None else f"operand {place}" for place, x in enumerate(operands))
    return Step(op_type, op_type, names, ("result",), attributes)


def _compare(
    actual: Any,
    truth: Array,
    bound: Any,
    what: str,
    told: list[str],
    likely: Callable[[Array, Comparison], list[str]],
) -> None:
    """Raise `VerificationError` with what is wrong, unless nothing is."""
    __tracebackhide__ = True
    values = np.asarray(actual)
    if values.shape != truth.shape:
        raise VerificationError(f"{what}: shape {values.shape}, expected {truth.shape}\n" + "\n".join(told))
    allowed = np.broadcast_to(np.asarray(bound, np.float64), truth.shape)
    worst = worst_of(values, truth, allowed)
    if worst.utilisation <= 1:
        return
    error = absolute_error(values, truth)
    wrong = int(np.count_nonzero(error > allowed))
    row = Comparison.judged(
        *("result", what.partition(" ")[0], "actual", truth, float(error.max()), worst.index),
        introduced=worst.error,
        allowed=worst.bound,
        utilisation=worst.utilisation,
    )
    place = worst.index
    lines = [
        f"{what}: {wrong} of {values.size} elements ({wrong / values.size:.1%}) are off by more than allowed",
        f"greatest error/bound  {worst.utilisation:.3g} at {list(place)}",
        f"  there               {values[place]!s}, exact is {truth[place]!s}",
        f"  error, allowed      {worst.error:.3g}, {worst.bound:.3g}",
        f"greatest error        {float(error.max()):.3g} of numbers up to {float(np.abs(truth).max()):.3g}",
        *told,
        *likely(values, row),
    ]
    raise VerificationError("\n".join(lines))


def _likely(recording: Recording, row: Comparison, values: Array, declared: Declaration) -> list[str]:
    """Return what explains a wrong result: a known mistake, or what the numbers tell."""
    if not np.isfinite(values).all():
        return []
    explained = diagnose(recording, [row], [], {"actual": values}, {}, declared)
    known = [f"likely mistake        {found.named}: {found.happens}" for found in explained.diagnoses[:1]]
    return known or [
        f"what differs          {said.removeprefix('result: ')}" for said in explained.evidence[:1]
    ]
