"""Bounds of what rounding may do, derived step by step: the tolerance of every verdict.

`introduced_bound` is the error one operation may make on exact operands; `propagated_bound` that of a fused
chain; `bias_test` finds a small systematic fault inside a bound that is loose. The rules stand in one module
per family, registered under the ONNX name; the functions that are approximated have their allowances in
`conformance.bounds.allowances`.
"""

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
from conformance.bounds.allowances import CPU, MOBILE, ONNX_RUNTIME, Allowance, Runtime
from conformance.bounds.formats import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, Format, format_of
from conformance.bounds.step import RULES, Step, completed
from refimpl.ops.operation import Array

__all__ = [
    "BFLOAT16",
    "CPU",
    "FLOAT16",
    "FLOAT32",
    "FLOAT64",
    "MOBILE",
    "ONNX_RUNTIME",
    "RULES",
    "Allowance",
    "Format",
    "Runtime",
    "format_of",
    "introduced_bound",
    "introduced_bounds",
]


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
) -> tuple[Array | None, ...]:
    """Return the bound of every output; parameters as of `introduced_bound`.

    ``extra`` counts roundings besides those of the operation, such as of constants that were folded into its
    weights.
    """
    registered = RULES.get(op_type)
    if registered is None:
        return (None,) * len(outputs)
    results = tuple(np.asarray(y) for y in outputs)
    step = Step(
        op_type, tuple(inputs), dict(attributes), results, arithmetic, storage, runtime, extra, probable
    )
    with np.errstate(all="ignore"):
        bounds = registered.bound(step)
        listed = bounds if isinstance(bounds, tuple) else (bounds,)
        listed += (None,) * (len(results) - len(listed))
        return tuple(
            completed(bound, y, step, registered.stored) for bound, y in zip(listed, results, strict=False)
        )
