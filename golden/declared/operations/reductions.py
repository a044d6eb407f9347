"""Reductions and selections."""

from __future__ import annotations

from golden.case import halves
from golden.declared.operations.call import Call, call, randn, uniform

_REDUCTIONS = (
    *("reduce_sum", "reduce_mean", "reduce_l1", "reduce_l2"),
    *("reduce_sum_square", "reduce_log_sum_exp", "reduce_max", "reduce_min"),
)

# One line per call.
# fmt: off
CALLS: tuple[Call, ...] = (
    *(each for name in _REDUCTIONS for each in (
        call(f"{name}.two_axes", "axes 1 and 3, kept", randn(2, 3, 4, 5), (1, 3)),
        call(f"{name}.dropped", "the last axis, dropped", randn(2, 3, 4), (-1,), keepdims=0),
    )),
    call("reduce_prod.ordinary", "eight factors", uniform(0.5, 1.5, 3, 8), (1,)),
    call("reduce_log_sum.ordinary", "positive numbers", uniform(0.1, 2, 3, 8), (1,)),
    call("cum_sum.forward", "along rows", randn(3, 12), 1),
    call("cum_prod.exclusive", "without the own element", uniform(0.5, 1.5, 3, 6), 1, exclusive=1),
    call("cum_sum.reverse", "from the end, without the element itself", randn(5, 4), 0, reverse=1, exclusive=1),
    *(each for name in ("arg_max", "arg_min") for each in (
        call(f"{name}.ordinary", "axis 1, kept", randn(3, 5, 4), axis=1),
        call(f"probes/{name}.ties", "exact ties: the first of equals", halves([[1, 3, 3, 1], [2, 2, 2, 2]]), axis=1, keepdims=0),
    )),
    call("arg_max.last", "the last of equals", halves([[1, 3, 3, 1]]), axis=1, select_last_index=1),
    call("top_k.ordinary", "four of nine, descending", randn(3, 9), (4,), outputs=2),
    call("top_k.smallest", "the two smallest of each column", randn(5, 3), (2,), outputs=2, axis=0, largest=0),
    call("probes/top_k.ties", "exact ties: of equals the lower index first", halves([[1, 5, 5, 3, 5], [2, 2, 2, 2, 2]]), (3,), outputs=2),
)
