"""The examples in JavaScript, C++ and Kotlin have every property, online ones included."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from conformance.trackers.command_candidate import CommandCandidate
from conformance.trackers.properties import check_candidate

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
GSON = "/usr/share/java/gson.jar"


def in_javascript(folder: Path) -> str:
    """Return the command of the example in JavaScript, which is run as it is."""
    return f"{found('node')} {EXAMPLES}/tracker.js"


def in_cpp(folder: Path) -> str:
    """Compile the example in C++17 without a warning, and return its command."""
    flags = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror"]
    compiled([found("g++"), *flags, f"{EXAMPLES}/tracker.cpp", "-o", f"{folder}/tracker"])
    return f"{folder}/tracker"


def in_kotlin(folder: Path) -> str:
    """Compile the example in Kotlin, and return its command."""
    options = ["-cp", GSON, "-include-runtime", "-d", f"{folder}/tracker.jar"]
    compiled([found("kotlinc"), f"{EXAMPLES}/Tracker.kt", *options])
    return f"{found('java')} -cp {folder}/tracker.jar:{GSON} TrackerKt"


def found(program: str) -> str:
    """Return the path of a program that this test needs."""
    path = shutil.which(program)
    assert path, f"this test needs {program}"
    return path


def compiled(command: list[str]) -> None:
    """Run a compiler, and show what it says if it fails."""
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.runtimes
@pytest.mark.parametrize("language", [in_javascript, in_cpp, in_kotlin], ids=lambda one: one.__name__)
def test_the_example_has_every_property(language, tmp_path):
    with CommandCandidate(language(tmp_path)) as candidate:
        outcomes = list(check_candidate(candidate, cases=15))
    assert len(outcomes) >= 40
    assert [(one.name, one.message) for one in outcomes if not one.holds] == []
