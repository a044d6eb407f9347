"""What one cell of a result is computed from: operands, terms that are summed or compared, a formula."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refimpl.graph import Node
from refimpl.ops.operation import Array

NOWHERE = ""
"""In place of a tensor's name: a number of the operation's own."""


@dataclass(frozen=True)
class Operand:
    """Cells of one tensor that stand for one letter of a formula.

    Attributes
    ----------
    symbol
        The letter.
    tensor
        The tensor's name, or `NOWHERE`.
    indices
        One row for each cell, (n, rank) int64.
    values
        (n,); one value for a letter that is the same in every term.
    """

    symbol: str
    tensor: str
    indices: Array
    values: Array

    @property
    def value(self) -> Any:
        """The value of a letter that stands for one cell."""
        return self.values[0]


@dataclass(frozen=True)
class Reduction:
    """Terms that are added, or of which the largest is taken.

    Attributes
    ----------
    kind
        "sum" or "max".
    expression
        Of one term, in the letters of the operands.
    terms
        (n,) its value for each.
    """

    kind: str
    expression: str
    terms: Array

    @property
    def text(self) -> str:
        """How a formula has it."""
        return f"{self.kind}({self.expression})"

    def over(self, chosen: Any) -> Any:
        """Return the sum, or the largest, of some of the terms."""
        terms = self.terms[chosen]
        return terms.sum() if self.kind == "sum" else terms.max()


@dataclass(frozen=True)
class Arithmetic:
    """The arithmetic of one cell.

    Attributes
    ----------
    formula
        In letters; ``sum(…)`` and ``max(…)`` go over the terms.
    singles
        Letters that stand for one number.
    each
        Letters that stand for another number in every term.
    reductions
        What is summed or compared.
    between
        (letter, formula, value) of what is computed first, in order.
    """

    formula: str
    singles: Sequence[Operand] = ()
    each: Sequence[Operand] = ()
    reductions: Sequence[Reduction] = ()
    between: Sequence[tuple[str, str, Any]] = ()

    @property
    def terms(self) -> int:
        """How many terms there are."""
        return len(self.each[0].values) if self.each else 0


@dataclass(frozen=True)
class Call:
    """A recorded step with its operands, as a rule looks at it."""

    node: Node
    tensors: Mapping[str, Array]
    output: str

    @property
    def attributes(self) -> Mapping[str, Any]:
        """The step's attributes."""
        return self.node.attributes

    def has(self, place: int) -> bool:
        """Whether an operand is given."""
        return place < len(self.node.inputs) and bool(self.node.inputs[place])

    def array(self, place: int) -> Array:
        """Return an operand."""
        return self.tensors[self.node.inputs[place]]

    def cells(self, symbol: str, place: int, indices: Any) -> Operand:
        """Return cells of an operand, one for each row of ``indices``."""
        rows = np.atleast_2d(np.asarray(indices, np.int64))
        values = self.array(place)[tuple(rows.T)] if rows.shape[1] else self.array(place).reshape(1)
        return Operand(symbol, self.node.inputs[place], rows, values)

    def broadcast_cell(self, symbol: str, place: int, index: Sequence[int]) -> Operand:
        """Return the one cell of an operand that broadcasting brings to ``index`` of the result."""
        shape = self.array(place).shape
        kept = index[len(index) - len(shape) :]
        return self.cells(symbol, place, [[0 if n == 1 else i for i, n in zip(kept, shape, strict=True)]])


def own(symbol: str, values: Any) -> Operand:
    """Return a number, or one for each term, that the operation itself brings."""
    numbers = np.atleast_1d(np.asarray(values, np.float64))
    return Operand(symbol, NOWHERE, np.zeros((len(numbers), 0), np.int64), numbers)
