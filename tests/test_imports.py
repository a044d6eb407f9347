"""What may import what, in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
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
