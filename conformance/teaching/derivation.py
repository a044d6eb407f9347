"""Any recorded number, derived: the step that made it, on which numbers, and how far rounding may move it."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from conformance.bounds.introduced import introduced_bounds
from conformance.graph.evaluation import as_tuple
from conformance.teaching.arithmetic import Arithmetic, Call, Operand
from conformance.teaching.rules import RULES
from refimpl import Recording
from refimpl.errors import ConfigurationError, UnsupportedOperationError
from refimpl.graph import Node
from refimpl.ops import OPERATIONS
from refimpl.ops.operation import Array, Trait, having

MOVES = having(Trait.MOVES)
MOST = 200
"""Derivations that one call makes at most."""

SYMBOLS = {"M": "masks", "K": "kernels", "X_mask": "mask_features", "Q_G": "global_queries"}
"""The paper's symbols → the outputs that they stand for."""

Index = tuple[int, ...]


@dataclass(frozen=True)
class Cell:
    """One number of a recording: a tensor's name and an index into it."""

    tensor: str
    index: Index

    def __str__(self) -> str:
        """Return it as it is asked for."""
        return f"{self.tensor}[{','.join(map(str, self.index))}]"


@dataclass(frozen=True)
class Derivation:
    """How one number came to be.

    Attributes
    ----------
    cell, value
        Which number, and its value in the recording.
    node
        The step that made it; None for what is given.
    given
        What it is if no step made it: "a weight", "a constant" or "an input".
    source
        The cell it was moved from, if its step only moves.
    arithmetic
        What its step computed, if it does more than move.
    bound
        How far float32 may be off on the same operands; None if nothing bounds it.
    """

    cell: Cell
    value: float
    node: Node | None = None
    given: str = ""
    source: Cell | None = None
    arithmetic: Arithmetic | None = None
    bound: float | None = None

    @property
    def operands(self) -> list[Operand]:
        """The letters of the arithmetic that stand for cells of tensors."""
        used = [*self.arithmetic.each, *self.arithmetic.singles] if self.arithmetic else []
        return [each for each in used if each.tensor]

    def largest(self, count: int) -> Array:
        """Return the places of the ``count`` terms that weigh most, heaviest first."""
        if not self.arithmetic or not self.arithmetic.terms:
            return np.zeros(0, np.int64)
        last = self.arithmetic.reductions[-1]
        weight = np.abs(last.terms) if last.kind == "sum" else last.terms
        return np.argsort(-weight, kind="stable")[:count]


def find_cell(recording: Recording, text: str) -> Cell:
    """Return the cell that ``name[i,j,…]`` names.

    Parameters
    ----------
    recording
        A forward pass.
    text
        A tensor, an output or a block by name, or one of `SYMBOLS`, then the index.

    Raises
    ------
    ConfigurationError
        There is no such tensor, or the index is not one of its cells.
    """
    found = re.fullmatch(r"\s*(.+?)\s*(?:\[([^\[\]]*)\])?\s*", text)
    name, inside = found.groups() if found else (text, None)
    tensor = _tensor(recording, name)
    shape = recording.tensors[tensor].shape
    numbers = [part.strip() for part in inside.split(",") if part.strip()] if inside is not None else []
    if inside is None or len(numbers) != len(shape) or not all(each.isdecimal() for each in numbers):
        example = f"{name}[{','.join('0' * len(shape))}]"
        raise ConfigurationError(
            f"{name} has shape {shape}; give {len(shape)} whole numbers, such as '{example}'"
        )
    index = tuple(int(each) for each in numbers)
    for axis, (place, length) in enumerate(zip(index, shape, strict=True)):
        if place >= length:
            raise ConfigurationError(
                f"{name} has shape {shape}; {place} is out of range on axis {axis}: 0 to {length - 1}"
            )
    return Cell(tensor, index)


def _tensor(recording: Recording, name: str) -> str:
    """Return the name in the recording of a tensor, an output or a block."""
    names: dict[str, str] = {**recording.blocks, **recording.outputs, **recording.inputs}
    names |= {symbol: names[name] for symbol, name in SYMBOLS.items() if name in names}
    names |= {each: each for each in recording.tensors}
    if name in names:
        return names[name]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    near += [each for each in names if name and name.lower() in each.lower()][: 3 - len(near)]
    hint = (
        f"did you mean {' or '.join(dict.fromkeys(near))}?" if near else f"try {', '.join(recording.outputs)}"
    )
    raise ConfigurationError(f"nothing recorded is called {name!r}; {hint}")


def derive(recording: Recording, cell: Cell) -> Derivation:
    """Return how a number came to be from the operands of its step.

    Parameters
    ----------
    recording
        A forward pass, in float64.
    cell
        Which of its numbers.

    Raises
    ------
    UnsupportedOperationError
        Its operator is none of the networks'.
    """
    value = recording.tensors[cell.tensor][cell.index].item()
    node = recording.graph.producer(cell.tensor)
    if node is None:
        return Derivation(cell, value, given=_kind(recording, cell.tensor))
    if node.op_type in MOVES:
        before = move_back(recording, node, cell.tensor, np.array([cell.index], np.int64))
        source = Cell(before[0], tuple(before[1][0].tolist())) if before else None
        return Derivation(cell, value, node, source=source, bound=0.0)
    if node.op_type not in RULES:
        raise UnsupportedOperationError(
            f"{node.op_type} is not derived; the networks have {', '.join(RULES)}"
        )
    arithmetic = RULES[node.op_type](Call(node, recording.tensors, cell.tensor), cell.index)
    return Derivation(cell, value, node, arithmetic=arithmetic, bound=_bound(recording, node, cell))


def _kind(recording: Recording, tensor: str) -> str:
    if tensor in recording.inputs.values():
        return "an input"
    return "a weight" if tensor in recording.weights else "a constant"


def _bound(recording: Recording, node: Node, cell: Cell) -> float | None:
    """Return how far a float32 step may be off on these operands."""
    outputs = [recording.tensors[name] for name in node.outputs]
    bounds = introduced_bounds(node.op_type, node.operands(recording.tensors), node.attributes, outputs)
    bound = bounds[node.outputs.index(cell.tensor)]
    return None if bound is None else float(bound[cell.index])


def move_back(recording: Recording, node: Node, output: str, indices: Array) -> tuple[str, Array] | None:
    """Return from which operand, and which of its cells, a step that only moves took cells of its result.

    The step is run on numbered cells instead of values.

    Parameters
    ----------
    recording, node, output
        The step, and which of its results.
    indices
        (n, rank) of the result.

    Returns
    -------
    name, (n, rank) int64
        None if they come from several operands.
    """
    moved = _moved_numbers(recording, node)
    numbers = as_tuple(OPERATIONS[node.op_type](*moved, **node.attributes))
    taken = numbers[node.outputs.index(output)][tuple(indices.T)]
    for name, start in _starts(recording, node):
        shape, places = recording.tensors[name].shape, taken - start
        if places.min() >= 0 and places.max() < math.prod(shape):
            return name, np.stack(np.unravel_index(places, shape), axis=1)
    return None


def _starts(recording: Recording, node: Node) -> list[tuple[str, int]]:
    """Return the operands that are moved, each with the number of its first cell."""
    names = node.uses if node.op_type == "Concat" else node.uses[:1]
    sizes = [recording.tensors[name].size for name in names]
    return list(zip(names, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))


def _moved_numbers(recording: Recording, node: Node) -> list[Array | None]:
    """Return the operands, with the numbers of their cells in place of what is moved."""
    numbered = [
        np.arange(start, start + recording.tensors[name].size).reshape(recording.tensors[name].shape)
        for name, start in _starts(recording, node)
    ]
    return [*numbered, *node.operands(recording.tensors)[len(numbered) :]]


def origin(recording: Recording, operand: Operand) -> tuple[str, Array]:
    """Return where an operand's cells were computed, before steps that only moved them."""
    tensor, indices = operand.tensor, operand.indices
    while (node := recording.graph.producer(tensor)) is not None and node.op_type in MOVES:
        before = move_back(recording, node, tensor, indices)
        if before is None:
            break
        tensor, indices = before
    return tensor, indices


def derive_deep(recording: Recording, cell: Cell, depth: int, terms: int) -> list[Derivation]:
    """Derive a number, what it was moved from, and its operands' numbers.

    Parameters
    ----------
    recording, cell
        As of `derive`.
    depth
        How often to go on into operands; 0 is the number alone.
    terms
        Into how many of the heaviest terms.

    Returns
    -------
    list of Derivation
        Each number once, at most `MOST`; what was given is left out, unless it was asked for.
    """
    found: dict[Cell, Derivation] = {}
    level = [cell]
    for _ in range(depth + 1):
        made = [each for start in level for each in _to_arithmetic(recording, start, found)]
        level = [each for one in made for each in operand_cells(recording, one, terms)]
    return [each for each in found.values() if each.node is not None or each.cell == cell]


def _to_arithmetic(recording: Recording, cell: Cell, found: dict[Cell, Derivation]) -> list[Derivation]:
    """Derive a cell and, as long as it was only moved, where it came from."""
    made = []
    at: Cell | None = cell
    while at is not None and at not in found and len(found) < MOST:
        found[at] = derive(recording, at)
        made.append(found[at])
        at = found[at].source
    return made


def operand_cells(recording: Recording, derivation: Derivation, terms: int) -> Sequence[Cell]:
    """Return the cells that a number was computed from, of the heaviest terms only."""
    rows = derivation.largest(terms)
    cells = []
    for operand in derivation.operands:
        tensor, indices = origin(recording, operand)
        chosen = rows if len(indices) > 1 else [0]
        cells += [Cell(tensor, tuple(indices[row].tolist())) for row in chosen]
    return cells


def to_json(recording: Recording, derivation: Derivation) -> dict[str, Any]:
    """Return a derivation for machines, with every term."""
    node, arithmetic = derivation.node, derivation.arithmetic
    content: dict[str, Any] = {
        "cell": str(derivation.cell),
        "value": derivation.value,
        "step": node.name if node else None,
        "operator": node.op_type if node else None,
        "given": derivation.given or None,
        "moved_from": str(derivation.source) if derivation.source else None,
        "bound": derivation.bound,
    }
    if arithmetic:
        content["formula"] = arithmetic.formula
        content["between"] = {
            name: {"formula": text, "value": float(v)} for name, text, v in arithmetic.between
        }
        content["operands"] = [
            _operand_json(recording, each) for each in (*arithmetic.singles, *arithmetic.each)
        ]
        content["reductions"] = {each.text: float(each.over(np.s_[:])) for each in arithmetic.reductions}
    return content


def _operand_json(recording: Recording, operand: Operand) -> dict[str, Any]:
    tensor, indices = origin(recording, operand) if operand.tensor else ("", operand.indices)
    return {
        "symbol": operand.symbol,
        "tensor": tensor or None,
        "indices": indices.tolist(),
        "values": operand.values.astype(float).tolist(),
    }
