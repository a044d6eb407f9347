"""The eleven chapters: question, what is so, functions, and an exercise with its known wrong answers."""

from __future__ import annotations

import importlib
import inspect
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("chapters.toml")


@dataclass(frozen=True)
class Chapter:
    """One question.

    Attributes
    ----------
    question, belief, lead
        What is asked, what most believe, and what is so.
    formula
        In HTML.
    paper, equation
        Its section, and its equation's number there, if it has one.
    functions
        Dotted names of the functions it explains, the most important first.
    task, answer, hint
        An exercise with a number for an answer.
    wrong
        What mistake leads to which other number.
    """

    question: str
    belief: str
    lead: str
    formula: str
    functions: tuple[str, ...]
    task: str
    answer: float
    hint: str
    wrong: Mapping[str, float]
    paper: str = ""
    equation: str = ""


@lru_cache(maxsize=1)
def chapters() -> tuple[Chapter, ...]:
    """Return the chapters in order."""
    entries = tomllib.loads(FILE.read_text(encoding="utf-8"))["chapter"]
    return tuple(Chapter(**{**entry, "functions": tuple(entry["functions"])}) for entry in entries)


def function(name: str) -> Callable[..., Any]:
    """Return the function or class of a dotted name."""
    module, _, attribute = name.rpartition(".")
    found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return found


def source(name: str) -> tuple[str, str]:
    """Return where a function stands, ``refimpl/forward.py:120``, and its text."""
    found = inspect.unwrap(function(name))
    lines, start = inspect.getsourcelines(found)
    return f"{found.__module__.replace('.', '/')}.py:{start}", "".join(lines)
