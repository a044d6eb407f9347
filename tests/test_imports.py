"""What may import what, in a fresh interpreter."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from pathlib import Path
before = set(sys.modules)
import {module}
packages = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(*sorted(packages - set(sys.stdlib_module_names)))
"""


@pytest.mark.parametrize("module", ["refimpl.ops", "refimpl"])
def test_the_reference_imports_numpy_and_scipy_only(module: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(module=module)], capture_output=True, text=True, check=True
    )
    allowed = {"refimpl", "numpy", "scipy"}
    # SciPy's compiled modules register parts of themselves under names of their own.
    assert {name for name in run.stdout.split() if not name.startswith(("_", "cython"))} <= allowed
    assert {"numpy", "refimpl"} <= set(run.stdout.split())


ORDER = [
    "silent_onnxruntime",
    "foreign_names",
    "named_values",
    "limits",
    "allocation",
    "json_files",
    "files",
    "folders",
    "threads",
    "trackers",
    "evaluation",
    "graph",
    "reports",
    "pictures",
    "bounds",
    "video",
    "conversion",
    "candidates",
    "faults",
    "teaching",
    "judge",
    "tnn",
    "reproduction",
    "sweep",
    "evidence",
    "cli",
    "pytest_plugin",
]
"""The rooms of ``conformance``: each imports only what stands before it."""
ROOT = Path(__file__).parents[1]


def imported(path: Path) -> set[str]:
    """Return the modules of ``conformance`` that a file imports when it runs, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            names |= {name.name for name in node.names}
    return {name for name in names if name.startswith("conformance.")}


def room(name: str) -> str:
    """Return the folder or root module a module stands in."""
    return name.split(".")[1]


@pytest.mark.parametrize("here", ORDER)
def test_each_room_imports_only_those_before_it(here: str) -> None:
    found = ROOT / "conformance" / here
    files = sorted(found.rglob("*.py")) if found.is_dir() else [found.with_suffix(".py")]
    below = {
        name
        for path in files
        for name in imported(path)
        if room(name) in ORDER and ORDER.index(room(name)) > ORDER.index(here)
    }
    assert files
    assert below == set()


def test_every_room_has_its_place_in_the_order() -> None:
    there = {path.stem for path in (ROOT / "conformance").iterdir() if path.suffix in ("", ".py")}
    assert there - {"__init__", "__pycache__"} == set(ORDER)


def test_onnx_runtime_is_imported_with_its_telemetry_off() -> None:
    own = ROOT / "conformance" / "silent_onnxruntime.py"
    for package in ("conformance", "golden", "refimpl"):
        for path in (ROOT / package).rglob("*.py"):
            assert path == own or "import onnxruntime\n" not in path.read_text().replace(
                "from conformance.silent_onnxruntime import onnxruntime\n", ""
            )
