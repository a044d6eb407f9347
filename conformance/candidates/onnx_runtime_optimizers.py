"""Which optimisers of ONNX Runtime have a part in a model: told by the installed version, not by a list.

Its log names every graph transformer that it applies and whether that changed the model. Those that are sets
of rules are named as a whole; the rules' own names stand as text in its library.
"""

from __future__ import annotations

import mmap
import re
import subprocess
import tempfile
from pathlib import Path

import onnx

from conformance.candidates.child_process import STARTING, python_command, safe_environment
from conformance.files import temporary_files
from conformance.graph.large_models import saved
from conformance.silent_onnxruntime import onnxruntime

APPLIED = re.compile(r"GraphTransformer (\w+) modified: ([01]) ")
"""What the log says of a transformer that has run: its name, and whether it changed the model."""
BEGUN = re.compile(r"Applying graph transformer (\w+) on step")
"""What it says before; the last of a process that dies is the one that it died of."""
NAME = re.compile(rb"(?<=\0)[A-Z][A-Za-z0-9_]{3,63}(?=\0)")
"""A text in the library that may be a rule's name."""


def applied_optimizers(model: onnx.ModelProto, settings: str) -> list[str]:
    """Return the graph transformers that change a model, the last first, and the one that ends the process.

    With one set of rules come all: the same rule stands in several.

    Parameters
    ----------
    model
    settings
        How it is run: the `RuntimeOptions`, in JSON.
    """
    with tempfile.TemporaryDirectory(prefix="onnxruntime-") as place:
        with temporary_files():
            saved(model, Path(place))
            (Path(place) / "options.json").write_text(settings, encoding="utf-8")
        try:
            done = subprocess.run(
                python_command("conformance.candidates.onnx_runtime_log", place),
                capture_output=True,
                text=True,
                errors="replace",
                env=safe_environment(),
                timeout=STARTING,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return []
    applied = APPLIED.findall(done.stderr)
    changing = [name for name, changed in applied if changed == "1"]
    sets = [name for name, _ in applied if is_set_of_rules(name)] * any(map(is_set_of_rules, changing))
    died_of = BEGUN.findall(done.stderr)[-1:] if done.returncode else []
    found = (name for name in reversed([*changing, *died_of]) if not is_set_of_rules(name))
    return list(dict.fromkeys([*sets, *found]))


def is_set_of_rules(name: str) -> bool:
    """Tell whether a transformer applies rules that can be disabled one by one."""
    return name.endswith("RuleBasedTransformer")


def names_in_library() -> list[str]:
    """Return the names that stand in the installed runtime's library, those of its rules among them."""
    with (
        Path(onnxruntime.capi.onnxruntime_pybind11_state.__file__).open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as library,
    ):
        return sorted({found.decode() for found in NAME.findall(library)})
