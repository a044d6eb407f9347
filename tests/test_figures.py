"""The figures of the code stay within what the project asks of it, and are what they are said to be."""

from __future__ import annotations

import functools
from pathlib import Path

import figures
import numpy as np
import pytest

modules = functools.cache(figures.modules)
packages = pytest.mark.parametrize("package", figures.PACKAGES)
MEDIAN, NINETY, MOST = 5, 15, 40


@packages
def test_functions_are_short(package: str) -> None:
    lengths = figures.body_lengths(modules(package))
    assert np.median(list(lengths.values())) <= MEDIAN
    assert np.percentile(list(lengths.values()), 90) <= NINETY
    assert {name.partition(":")[0] for name, lines in lengths.items() if lines > MOST} == set()


@packages
def test_public_names_are_documented(package: str) -> None:
    assert [name for name, documented in figures.public_names(modules(package)) if not documented] == []


@packages
def test_parameters_are_annotated(package: str) -> None:
    pairs = [pair for module in modules(package) for pair in figures.parameters(module)]
    assert [name for name, annotated in pairs if not annotated] == []


def test_no_modules_import_each_other() -> None:
    assert figures.circles([module for package in figures.PACKAGES for module in modules(package)]) == []


ONE = '''"""Documented."""

from toy import two


def told(first: int, second) -> str:
    """Documented,
    in two lines."""
    # a comment

    text = """a string
    of two lines"""
    return text  # and a comment


class Base:
    """Documented."""

    def told(self, *rest: int, **named) -> None:
        """Documented."""

    def silent(self): ...


class Derived(Base):
    """Documented."""

    def told(self, *rest: int, **named) -> None:
        def inner() -> None:
            pass

        inner()
'''
TWO = "def late() -> None:\n    from toy.one import told\n"


def toy(folder: Path) -> list[figures.Module]:
    (folder / "toy").mkdir()
    for name, text in (("__init__", ""), ("one", ONE), ("two", TWO)):
        (folder / "toy" / f"{name}.py").write_text(text, encoding="utf-8")
    return figures.modules("toy", folder)


def test_the_figures_of_a_known_file(tmp_path: Path) -> None:
    found = toy(tmp_path)
    lengths = sorted(figures.body_lengths(found).items(), key=lambda item: int(item[0].partition(":")[2]))
    # told, Base.told (nothing but its docstring), Base.silent, Derived.told and what it holds.
    assert [lines for name, lines in lengths if ".one." in name] == [3, 0, 1, 3, 1]
    names = dict(figures.public_names(found))
    assert [name for name, documented in names.items() if not documented] == [
        "toy",
        "toy.one.Base.silent",
        "toy.two",
        "toy.two.late",
    ]
    missing = [name for module in found for name, annotated in figures.parameters(module) if not annotated]
    assert missing == ["toy.one.told(second)", "toy.one.told(named)", "toy.one.told(named)"]
    assert figures.circles(found) == [["toy.one", "toy.two"]]
