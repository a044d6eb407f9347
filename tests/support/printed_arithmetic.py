"""A reader of what `mobileinst derive` prints, which shares nothing with its writer.

It reads the formula, the letters and the table from the text, and works the formula out with `math.fsum`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

TOKEN = re.compile(r"\s*(\d+\.?\d*(?:e[+-]?\d+)?|[A-Za-z]\w*|[-+*/^(),])")
PLACE = re.compile(r"(.+?)\[([\d,]*)\]")
NUMBER = r"[-+]?(?:\d+\.?\d*(?:e[+-]?\d+)?|inf|nan)"


@dataclass
class Printed:
    """One derivation as it was read.

    Attributes
    ----------
    cell, value
        What the first line says.
    source
        The cell it was moved from.
    formulas
        Letter → formula, in order; ``y`` last.
    letters
        Letter → number.
    places
        (tensor, index, number) of every operand that names its place.
    rows
        Letter → its column.
    rest
        ``sum(…)`` or ``max(…)`` → that of the terms not listed.
    """

    cell: str
    value: float
    source: str = ""
    formulas: dict[str, str] = field(default_factory=dict)
    letters: dict[str, float] = field(default_factory=dict)
    places: list[tuple[str, tuple[int, ...], float]] = field(default_factory=list)
    rows: dict[str, list[float]] = field(default_factory=dict)
    rest: dict[str, float] = field(default_factory=dict)

    def result(self) -> float:
        """Work the formula out."""
        letters = dict(self.letters)
        for letter, formula in self.formulas.items():
            letters[letter] = Formula(formula, letters, self.rows, self.rest).value()
        return letters["y"]


def read(text: str) -> Printed:
    """Read one printed derivation."""
    first, *lines = text.splitlines()
    cell, _, value = first.rpartition(" = ")
    found, tensors, y = Printed(cell, float(value)), dict[str, str](), ""
    heads: list[str] = []
    for line in lines:
        if line.startswith("    "):
            heads = _table_line(line.split(), heads, tensors, found)
        elif match := re.fullmatch(r"  moved by \w+ from (.+)", line):
            found.source = match[1]
        elif match := re.fullmatch(r"  y = (.+)", line):
            y = match[1]
        elif match := re.fullmatch(r"  (\w+) is of (.+)", line):
            tensors[match[1]] = match[2]
        elif match := re.fullmatch(r"  the other \d+: (.+) = (\S+)", line):
            found.rest[match[1]] = float(match[2])
        elif match := re.fullmatch(rf"  (\w+) = ({NUMBER})(?:  (.+))?", line):
            found.letters[match[1]] = float(match[2])
            if match[3]:
                found.places.append((*_place(match[3]), float(match[2])))
        elif match := re.fullmatch(r"  (\w+) = (.+) = \S+", line):
            found.formulas[match[1]] = match[2]
    if y:
        found.formulas["y"] = y
    return found


def _place(text: str) -> tuple[str, tuple[int, ...]]:
    match = PLACE.fullmatch(text)
    assert match, text
    return match[1], tuple(int(part) for part in match[2].split(",") if part)


def _table_line(cells: list[str], heads: list[str], tensors: Mapping[str, str], found: Printed) -> list[str]:
    if not heads:
        return cells
    at = ""
    for head, cell in zip(heads, cells, strict=True):
        if head == "at":
            at = cell
            continue
        if head.isidentifier():
            found.rows.setdefault(head, []).append(float(cell))
            if at:
                found.places.append((*_place(f"{tensors[head]}{at}"), float(cell)))
        at = ""
    return heads


class Formula:
    """A formula in the letters of a derivation: + − * / ^, exp, sqrt, min, max, and sums over its terms."""

    def __init__(
        self,
        text: str,
        letters: Mapping[str, float],
        rows: Mapping[str, list[float]] | None = None,
        rest: Mapping[str, float] | None = None,
    ) -> None:
        self.text, self.letters, self.rows, self.rest = text, letters, rows or {}, rest or {}
        self.at = 0

    def value(self) -> float:
        """Work it out."""
        value = self._sum()
        assert self.at == len(self.text), self.text[self.at :]
        return value

    def _next(self) -> str:
        match = TOKEN.match(self.text, self.at)
        return match[1] if match else ""

    def _take(self, wanted: str = "") -> str:
        match = TOKEN.match(self.text, self.at)
        assert match, self.text[self.at :]
        assert wanted in ("", match[1])
        self.at = match.end()
        return match[1]

    def _sum(self) -> float:
        parts = [self._product()]
        while self._next() in ("+", "-"):
            parts.append((1 if self._take() == "+" else -1) * self._product())
        return math.fsum(parts)

    def _product(self) -> float:
        value = self._power()
        while self._next() in ("*", "/"):
            value = value * self._power() if self._take() == "*" else value / self._power()
        return value

    def _power(self) -> float:
        if self._next() == "-":
            self._take()
            return -self._power()
        value = self._atom()
        if self._next() == "^":
            self._take()
            value **= self._atom()
        return value

    def _atom(self) -> float:
        token = self._take()
        if token == "(":
            value = self._sum()
            self._take(")")
            return value
        if self._next() == "(":
            return self._call(token)
        return float(token) if token[0].isdigit() else self.letters[token]

    def _call(self, name: str) -> float:
        start = self.at - len(name)
        self._take("(")
        if name == "sum" or (name == "max" and self.rows):
            return self._over_terms(name, start)
        arguments = [self._sum()]
        while self._next() == ",":
            self._take()
            arguments.append(self._sum())
        self._take(")")
        functions: dict[str, Callable[..., float]] = {
            "exp": math.exp,
            "sqrt": math.sqrt,
            "min": min,
            "max": max,
        }
        return functions[name](*arguments)

    def _over_terms(self, name: str, start: int) -> float:
        depth, end = 1, self.at
        while depth:
            depth += {"(": 1, ")": -1}.get(self.text[end], 0)
            end += 1
        inner = self.text[self.at : end - 1]
        self.at = end
        count = len(next(iter(self.rows.values())))
        terms = [
            Formula(
                inner, {**self.letters, **{key: column[row] for key, column in self.rows.items()}}
            ).value()
            for row in range(count)
        ]
        terms += [self.rest[whole] for whole in [self.text[start:end]] if whole in self.rest]
        return math.fsum(terms) if name == "sum" else max(terms)
