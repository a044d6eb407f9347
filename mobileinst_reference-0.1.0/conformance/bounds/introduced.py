"""The error that one operation may introduce: the rule of its family, then storage and range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from conformance.bounds import (
    elementwise,  # noqa: F401
    exact,  # noqa: F401
    linear,  # noqa: F401
    normalization,  # noqa: F401
    quantization,  # noqa: F401
    reduction,  # noqa: F401
    resizing,  # noqa: F401
)
from conformance.bounds.allowances import CPU, Runtime
from conformance.bounds.formats import FLOAT32, Format
from conformance.bounds.step import RULES, Shared, Step, completed
from conformance.graph.evaluation import as_tuple
from refimpl.ops.operation import Array


def introduced_bound(
    op_type: str,
    inputs: Sequence[Any],
    attributes: Mapping[str, Any],
    output: Array,
    arithmetic: Format = FLOAT32,
    storage: Format = FLOAT32,
    *,
    runtime: Runtime = CPU,
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
    arithmetic, storage
        The formats of the products and sums, and of the results.
    runtime
        What is declared of the implementation.
    probable
        Give the size that rounding is expected to have, √n instead of n roundings; no bound, but what noise
        is made from.

    Returns
    -------
    array of the output's shape, float64, or None
        Infinite where the format may overflow; 0 where the truth is infinite or NaN, which the candidate must
        be too. None: no bound, not judged.
    """
    return introduced_bounds(
        op_type, inputs, attributes, (output,), arithmetic, storage, runtime=runtime, probable=probable
    )[0]


def introduced_bounds(
    op_type: str,
    inputs: Sequence[Any],
    attributes: Mapping[str, Any],
    outputs: Sequence[Array],
    arithmetic: Format = FLOAT32,
    storage: Format = FLOAT32,
    *,
    runtime: Runtime = CPU,
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
        arithmetic=arithmetic,
        storage=storage,
        runtime=runtime,
        extra=extra,
        probable=probable,
        shared={} if shared is None else shared,
    )
    with np.errstate(all="ignore"):
        listed = as_tuple(registered.bound(step))
        listed += (None,) * (len(results) - len(listed))
        return tuple(
            completed(bound, y, step, registered.stored) for bound, y in zip(listed, results, strict=False)
        )
