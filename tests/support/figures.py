"""Figures of the code: how long its functions are, what is documented and annotated, circles, lines.

Run as ``make figures``, or on another checkout as ``python tests/support/figures.py FOLDER``.

*Body lines* of a function are the lines of its statements, a nested function's among them, without signature,
docstring, blank lines and lines of comments only. *Public names* are modules, classes, functions and methods
without a leading underscore, themselves or where they stand; a method may have the docstring of the one it
overrides. *Parameters* are those of every ``def``, without
``self`` and ``cls``. A *circle* is a set of modules that import each other, wherever in them the import
stands; what only a type checker reads does not count. *Lines of code* are all but blank lines, comments and
docstrings.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

PACKAGES = ("refimpl", "golden", "conformance")
ROOT = Path(__file__).parents[2]

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = ast.Module | ast.ClassDef | Function


@dataclass(frozen=True)
class Module:
    """One file of a package."""

    name: str
    tree: ast.Module
    nodes: tuple[ast.AST, ...]
    """All of the tree."""
    code: frozenset[int]
    """Lines that hold code, docstrings aside."""

    def functions(self) -> Iterator[tuple[str, Function]]:
        """Yield every function with its name for messages."""
        for node in self.nodes:
            if isinstance(node, Function):
                yield f"{self.name}.{node.name}", node

    def body_lines(self, function: Function) -> int:
        """Return how many lines of a function hold its statements."""
        first = function.body[0].lineno
        return sum(first <= line <= (function.end_lineno or first) for line in self.code)


def modules(package: str, root: Path = ROOT) -> list[Module]:
    """Return the files of a package."""
    return [_module(path, root) for path in sorted((root / package).rglob("*.py"))]


def _module(path: Path, root: Path) -> Module:
    parts = path.relative_to(root).with_suffix("").parts
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    nodes = tuple(ast.walk(tree))
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Module(name, tree, nodes, frozenset(_code_lines(source, nodes)))


def _code_lines(source: str, nodes: Iterable[ast.AST]) -> set[int]:
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.string.strip() and token.type != tokenize.COMMENT:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in nodes:
        if isinstance(node, Documented) and ast.get_docstring(node, clean=False) is not None:
            lines -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return lines


def public_names(found: list[Module]) -> Iterator[tuple[str, bool]]:
    """Yield each public name and whether it is documented, itself or, of a method, where it overrides."""
    classes = {node.name: node for module in found for node in module.nodes if isinstance(node, ast.ClassDef)}
    for module in found:
        if not any(part.startswith("_") for part in module.name.split(".")):
            yield module.name, ast.get_docstring(module.tree) is not None
            yield from _public(module.name, module.tree, classes)


def _public(
    place: str, node: ast.Module | ast.ClassDef, classes: dict[str, ast.ClassDef]
) -> Iterator[tuple[str, bool]]:
    for name, inner in _members(node).items():
        if not name.startswith("_"):
            yield f"{place}.{name}", _documented(name, node, classes)
            if isinstance(inner, ast.ClassDef):
                yield from _public(f"{place}.{name}", inner, classes)


def _members(node: ast.Module | ast.ClassDef) -> dict[str, ast.ClassDef | Function]:
    return {inner.name: inner for inner in node.body if isinstance(inner, ast.ClassDef | Function)}


def _documented(name: str, node: ast.Module | ast.ClassDef, classes: dict[str, ast.ClassDef]) -> bool:
    """Tell whether a member has a docstring, or the one that it overrides."""
    own = _members(node).get(name)
    if own is not None and ast.get_docstring(own) is not None:
        return True
    bases = [base.id for base in getattr(node, "bases", ()) if isinstance(base, ast.Name)]
    return any(_documented(name, classes[base], classes) for base in bases if base in classes)


def parameters(module: Module) -> Iterator[tuple[str, bool]]:
    """Yield each parameter of a module's functions and whether it is annotated."""
    for name, function in module.functions():
        given = function.args
        every = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
        for parameter in every:
            if parameter is not None and parameter.arg not in ("self", "cls"):
                yield f"{name}({parameter.arg})", parameter.annotation is not None


def circles(found: list[Module]) -> list[list[str]]:
    """Return the sets of modules that import each other."""
    place = {module.name: i for i, module in enumerate(found)}
    edges = [(i, place[name]) for i, module in enumerate(found) for name in _imported(module, set(place))]
    start, end = np.reshape(np.array(edges, int), (-1, 2)).T
    graph = coo_array((np.ones(len(start)), (start, end)), shape=(len(found), len(found)))
    _, component = connected_components(graph, connection="strong")
    members = [
        [module.name for module, of in zip(found, component, strict=True) if of == c] for c in set(component)
    ]
    return [names for names in members if len(names) > 1]


def _imported(module: Module, known: set[str]) -> set[str]:
    """Return which of the known modules a module imports, wherever in it; names of a package are its own."""
    names: set[str] = set()
    for node in _that_run(module.tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(module, node)
            inside = {f"{origin}.{alias.name}" for alias in node.names}
            names |= inside & known or {origin}
    return (names & known) - {module.name}


def _origin(module: Module, node: ast.ImportFrom) -> str:
    """Return the full name of what is imported from; the relative imports here are of one dot."""
    if not node.level:
        return node.module or ""
    return ".".join(filter(None, (module.name.rpartition(".")[0], node.module)))


def _that_run(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield every node but those that only a type checker reads."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _that_run(node)


def body_lengths(found: list[Module]) -> dict[str, int]:
    """Return the body lines of every function by its name, and the line it begins in."""
    return {
        f"{name}:{function.lineno}": module.body_lines(function)
        for module in found
        for name, function in module.functions()
    }


def _percent(pairs: list[tuple[str, bool]]) -> str:
    return f"{100 * np.mean([is_so for _, is_so in pairs]):.1f} %"


def rows(root: Path = ROOT) -> list[tuple[str, ...]]:
    """Return the table: a head, and a row for each figure with a column for each package."""
    packages = [modules(package, root) for package in PACKAGES]
    lengths = [list(body_lengths(found).values()) for found in packages]
    documented = [list(public_names(found)) for found in packages]
    annotated = [[pair for module in found for pair in parameters(module)] for found in packages]
    return [
        ("", *PACKAGES),
        ("body lines, median", *(f"{np.median(each):g}" for each in lengths)),
        ("body lines, 90th percentile", *(f"{np.percentile(each, 90):g}" for each in lengths)),
        ("body lines, most", *(str(max(each)) for each in lengths)),
        ("functions of more than 40", *(str(sum(n > 40 for n in each)) for each in lengths)),
        ("public names documented", *map(_percent, documented)),
        ("parameters annotated", *map(_percent, annotated)),
        ("circles of imports", *(str(len(circles(found))) for found in packages)),
        ("files", *(str(len(found)) for found in packages)),
        ("lines of code", *(str(sum(len(module.code) for module in found)) for found in packages)),
    ]


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    for first, *others in rows(where):
        print(f"| {first:28} | {' | '.join(f'{other:>11}' for other in others)} |")
