"""The runtime's side of `conformance.candidates.onnx_runtime_optimizers`: a session whose log says all."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import onnx

from conformance.candidates.onnx_runtime import RuntimeOptions


def main(folder: Path) -> None:
    """Make a session of a folder's model, and nothing of it."""
    settings = json.loads((folder / "options.json").read_text(encoding="utf-8"))
    RuntimeOptions(**settings).session(onnx.load(folder / "model.onnx"), severity=0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
