"""Qualcomm's NPU in a process of its own: what `conformance.candidates.qnn` starts for each model."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import onnx

from conformance.candidates.arrays import first_line
from conformance.candidates.onnx_runtime import RuntimeOptions
from conformance.candidates.onnx_runtime_process import main
from refimpl.errors import ConfigurationError

FALLBACKS = "fallbacks.json"
"""Where the process leaves which nodes the CPU computed."""


def run_on_npu(folder: Path) -> None:
    """Run what the folder holds, and leave there which nodes fell back."""

    def load(model: onnx.ModelProto, options: RuntimeOptions) -> Any:
        session = session_on_npu(model, options)
        (folder / FALLBACKS).write_text(json.dumps(_fallbacks(session)), encoding="utf-8")
        return session

    # The emulation speaks on both streams; what matters comes back as an error.
    log = os.open(folder / "log.txt", os.O_CREAT | os.O_WRONLY)
    os.dup2(log, 2)
    main(folder, load)


def session_on_npu(model: onnx.ModelProto, options: RuntimeOptions) -> Any:
    """Return a model loaded there; `ConfigurationError` says why the NPU refuses it."""
    try:
        return options.session(model)
    except Exception as error:  # ONNX Runtime raises its own unrelated types
        raise ConfigurationError(_why_refused(first_line(error), options)) from error


def _why_refused(words: str, options: RuntimeOptions) -> str:
    chip = ", ".join(f"{name}={options.provider_options[name]}" for name in ("htp_arch", "soc_model"))
    if "fallback to CPU EP has been explicitly disabled" in words:
        return "the NPU lacks some of the model's nodes, which strict refuses; without it they are named"
    return (
        f"the NPU ({chip}) refuses the model: {words}; float models need htp_arch 69 or newer and a "
        "soc_model that fits it, older chips take models quantised to 8 bits"
    )


def _fallbacks(session: Any) -> list[tuple[str, str]]:
    return [
        (node.name, node.op_type)
        for part in session.get_provider_graph_assignment_info()
        if part.ep_name == "CPUExecutionProvider"
        for node in part.get_nodes()
    ]


if __name__ == "__main__":
    run_on_npu(Path(sys.argv[1]))
