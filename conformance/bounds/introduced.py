"""The error that one operation may introduce: the rule of its family, then storage and range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from conformance.bounds import (
    deformation,  # noqa: F401
    detection,  # noqa: F401
    elementwise,  # noqa: F401
    exact,  # noqa: F401
    fourier,  # noqa: F401
    linear,  # noqa: F401
    normalization,  # noqa: F401
    quantization,  # noqa: F401
    recurrent,  # noqa: F401
    reduction,  # noqa: F401
    resizing,  # noqa: F401
    sampling,  # noqa: F401
    transformer,  # noqa: F401
)
from conformance.bounds.carry import passed_on
from conformance.bounds.declaration import DEFAULT, Declaration
from conformance.bounds.formats import FLOAT32
from conformance.bounds.integer_operands import made_integers
from conformance.bounds.step import RULES, Shared, Step, completed, is_float
from conformance.graph.evaluation import as_tuple
from refimpl.graph import Node
from refimpl.ops import TRAITS, Trait
from refimpl.ops.operation import Array

_RESULT = 2 * FLOAT32.unit_roundoff
"""Of a result of wide arithmetic, relatively."""


def introduced_bound(
    op_type: str,
    inputs: Sequence[Any],
    attributes: Mapping[str, Any],
    output: Array,
    declaration: Declaration = DEFAULT,
    *,
    probable: bool = False,
) -> Array | None:
    """Return how far the first output of a correct candidate may be from the truth, per element.

    Parameters
    ----------
    op_type
        The ONNX operator.
    inputs
        The candidate's own operands, floats widened to float64; None where absent.
    attributes
        As `refimpl.ops` takes them.
    output
        The exact result of the operation on these inputs, float64.
    declaration
        What the candidate is declared to compute with.
    probable
        Give the size that rounding is expected to have, √n instead of n roundings; no bound, but what noise
        is made from.

    Returns
    -------
    array of the output's shape, float64, or None
        Infinite where the format may overflow; 0 where the truth is infinite or NaN, which the candidate must
        be too. None: no bound, not judged.
    """
    return introduced_bounds(op_type, inputs, attributes, (output,), declaration, probable=probable)[0]


def introduced_bounds(
    op_type: str,
    inputs: Sequence[Any],
    attributes: Mapping[str, Any],
    outputs: Sequence[Array],
    declaration: Declaration = DEFAULT,
    *,
    probable: bool = False,
    extra: int = 0,
    shared: Shared | None = None,
) -> tuple[Array | None, ...]:
    """Return the bound of every output; parameters as of `introduced_bound`.

    ``extra`` counts roundings besides those of the operation, such as of constants that were folded into its
    weights. ``shared`` is a dictionary, empty at first, given to several calls on the same operands, which
    then compute only once what does not depend on ``probable``.
    """
    registered = RULES.get(op_type)
    if registered is None:
        return (None,) * len(outputs)
    results = tuple(np.asarray(y) for y in outputs)
    step = Step(
        op_type=op_type,
        inputs=tuple(inputs),
        attributes=dict(attributes),
        outputs=results,
        declaration=declaration,
        extra=extra,
        probable=probable,
        shared={} if shared is None else shared,
    )
    with np.errstate(all="ignore"):
        listed = as_tuple(registered.bound(step))
        listed += (None,) * (len(results) - len(listed))
        own = tuple(
            completed(bound, y, step, registered.stored) for bound, y in zip(listed, results, strict=False)
        )
        if declaration.runtime.makes_integers and own[0] is not None:
            own = (own[0] + made_integers(step), *own[1:])
        return _with_operands(step, own) if declaration.runtime.rounds_operands else own


def _with_operands(step: Step, own: tuple[Array | None, ...]) -> tuple[Array | None, ...]:
    """Add what rounding the operands first makes of the results, and the results' rounding to float32."""
    call = Node("", step.op_type, (), (), step.attributes)
    errors = [
        0.0 if x is None or not is_float(np.asarray(x)) else step.arithmetic.rounding_of(x)
        for x in step.inputs
    ]
    within_sum = Trait.SUMS in TRAITS[step.op_type]
    passed = (0.0,) * len(own) if within_sum else passed_on(call, list(step.inputs), errors, step.outputs)
    return tuple(
        None if bound is None or before is None else bound + before + _RESULT * np.abs(y)
        for bound, before, y in zip(own, passed, step.outputs, strict=False)
    )
