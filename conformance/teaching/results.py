"""Figures of the results page, read and not typed again."""

from __future__ import annotations

from pathlib import Path

from refimpl.errors import FileError

PAGE = Path(__file__).parents[2] / "docs" / "results.md"


def rows(*begins: str) -> list[str]:
    """Return the rows of the page's tables that begin so, as ``name: cell, cell``.

    Raises
    ------
    FileError
        The page is not there, as where only the package is installed, or has no such row.
    """
    if not PAGE.is_file():
        raise FileError(f"{PAGE} is not there; the chapters are run in a checkout")
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    found = []
    for begin in begins:
        line = next((each for each in lines if each.startswith(begin)), None)
        if line is None:
            raise FileError(f"{PAGE} has no row that begins with {begin!r}")
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        found.append(f"{name}: {', '.join(cells)}")
    return found


def leading(row: str) -> float:
    """Return the first number of a row."""
    return float(row.partition(": ")[2].split()[0].split("[")[0].strip(","))
