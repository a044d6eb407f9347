"""A derivation as text: the formula, its operands and their places, the heaviest terms, the rest summed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from conformance.teaching.arithmetic import Arithmetic, Operand
from conformance.teaching.derivation import Cell, Derivation, origin
from refimpl import Recording
from refimpl.ops.operation import Array


def derivation_text(recording: Recording, derivation: Derivation, *, terms: int = 8, digits: int = 9) -> str:
    """Return a derivation in lines.

    Parameters
    ----------
    recording
        The forward pass.
    derivation
        One of its numbers.
    terms
        How many terms are listed, the heaviest first.
    digits
        Significant digits of every number.
    """
    return "\n".join(_lines(recording, derivation, terms, digits))


def _lines(recording: Recording, derivation: Derivation, terms: int, digits: int) -> Iterator[str]:
    yield f"{derivation.cell} = {number(derivation.value, digits)}"
    node, arithmetic = derivation.node, derivation.arithmetic
    if node is None:
        yield f"  {derivation.given}, not computed"
    elif derivation.source is not None:
        yield f"  moved by {node.op_type} from {derivation.source}"
    elif arithmetic is not None:
        yield f"  {node.op_type}, step {node.name}"
        yield f"  y = {arithmetic.formula}"
        yield from _singles(recording, arithmetic, digits)
        yield from _terms(recording, derivation, arithmetic, terms, digits)
        yield from (f"  {name} = {text} = {number(v, digits)}" for name, text, v in arithmetic.between)
        yield f"  float32 on these operands: {_bound(derivation.bound)}"


def _bound(bound: float | None) -> str:
    if bound is None:
        return "no bound is known"
    return f"at most {bound:.2e} off" if bound else "exact"


def number(value: Any, digits: int) -> str:
    """Return a number in so many significant digits."""
    return f"{float(value):.{digits}g}"


def _singles(recording: Recording, arithmetic: Arithmetic, digits: int) -> Iterator[str]:
    for operand in arithmetic.singles:
        yield f"  {operand.symbol} = {number(operand.value, digits)}{_place(recording, operand)}"


def _place(recording: Recording, operand: Operand) -> str:
    if not operand.tensor:
        return ""
    tensor, indices = origin(recording, operand)
    return f"  {Cell(tensor, tuple(indices[0].tolist()))}"


def _terms(
    recording: Recording, derivation: Derivation, arithmetic: Arithmetic, terms: int, digits: int
) -> Iterator[str]:
    if not arithmetic.each:
        return
    places = [origin(recording, each) if each.tensor else ("", each.indices) for each in arithmetic.each]
    for operand, (tensor, _) in zip(arithmetic.each, places, strict=True):
        if tensor:
            yield f"  {operand.symbol} is of {tensor}"
    shown = derivation.largest(terms)
    yield from _table(arithmetic, [indices for _, indices in places], shown, digits)
    rest = np.setdiff1d(np.arange(arithmetic.terms), shown)
    for reduction in arithmetic.reductions:
        if len(rest):
            yield f"  the other {len(rest)}: {reduction.text} = {number(reduction.over(rest), digits)}"
        yield f"  all {arithmetic.terms}: {reduction.text} = {number(reduction.over(np.s_[:]), digits)}"


def _table(arithmetic: Arithmetic, places: Sequence[Array], shown: Array, digits: int) -> Iterator[str]:
    """Yield a row for each term: where each operand stands, what it is, what the term is."""
    symbols = {each.symbol for each in arithmetic.each}
    computed = [each for each in arithmetic.reductions if each.expression not in symbols]
    heads: list[str] = []
    columns: list[list[str]] = []
    for operand, indices in zip(arithmetic.each, places, strict=True):
        if operand.tensor:
            heads.append("at")
            columns.append([f"[{','.join(map(str, indices[row]))}]" for row in shown])
        heads.append(operand.symbol)
        columns.append([number(operand.values[row], digits) for row in shown])
    for reduction in computed:
        heads.append(reduction.expression.replace(" ", ""))
        columns.append([number(reduction.terms[row], digits) for row in shown])
    widths = [max(map(len, [head, *column])) for head, column in zip(heads, columns, strict=True)]
    for cells in [heads, *zip(*columns, strict=True)]:
        yield "    " + "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
