"""ONNX Runtime in a process of its own for each run: it may crash or hang, and the judge goes on.

A folder holds the model, what it is fed and how it is run, and then what came out. Run as a module, this is
the runtime's side.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx

from conformance.bounds import Declaration
from conformance.candidates.child_process import STARTING, crashed, hung, next_line, start
from conformance.candidates.onnx_runtime import OnnxRuntimeGraph, RuntimeOptions, run_model
from conformance.graph.large_models import saved
from conformance.graph.onnx_graph import OnnxGraph
from refimpl.errors import CandidateError, ConfigurationError
from refimpl.ops.operation import Array

Run = Callable[[onnx.ModelProto, Mapping[str, Array], RuntimeOptions], Mapping[str, Array]]
"""A model, what it is fed, how it is run → its outputs."""


class IsolatedOnnxRuntimeGraph(OnnxRuntimeGraph):
    """An ONNX graph whose every run is a process.

    Parameters
    ----------
    graph, options, declaration
        As of `OnnxRuntimeGraph`.
    timeout
        Seconds that a run may take.
    """

    module = "conformance.candidates.onnx_runtime_process"
    """The runtime's side."""

    def __init__(
        self,
        graph: OnnxGraph,
        options: RuntimeOptions | None = None,
        declaration: Declaration | None = None,
        timeout: float = STARTING,
    ) -> None:
        super().__init__(graph, options, declaration)
        self.timeout = timeout

    def _run(
        self, model: onnx.ModelProto, feeds: Mapping[str, Array], options: RuntimeOptions
    ) -> dict[str, Array]:
        with tempfile.TemporaryDirectory(prefix="onnxruntime-") as name:
            folder = Path(name)
            saved(model, folder)
            (folder / "options.json").write_text(json.dumps(dataclasses.asdict(options)), encoding="utf-8")
            _write(folder, "feeds", feeds)
            self._wait(folder)
            self.take_note(folder)
            return _read(folder, "results")

    def take_note(self, folder: Path) -> None:
        """Look at what else the process left; nothing of most runtimes."""

    def _wait(self, folder: Path) -> None:
        """Run the process; raise `CandidateError` unless it ends well."""
        process = start(self.module, str(folder))
        try:
            if next_line(process, STARTING) is None:
                raise hung(STARTING)
            status = process.wait(self.timeout)
        except subprocess.TimeoutExpired as error:
            raise hung(self.timeout) from error
        finally:
            process.kill()
            process.communicate()
        problem = folder / "error.json"
        if problem.exists():
            refused, message = json.loads(problem.read_text(encoding="utf-8"))
            raise (ConfigurationError if refused else CandidateError)(message)
        if status:
            raise crashed(status)


def runtime_graph(
    graph: OnnxGraph,
    options: RuntimeOptions | None = None,
    declaration: Declaration | None = None,
    timeout: float | None = None,
) -> OnnxRuntimeGraph:
    """Return a graph in ONNX Runtime, each run a process if its time is limited."""
    if timeout is None:
        return OnnxRuntimeGraph(graph, options, declaration)
    return IsolatedOnnxRuntimeGraph(graph, options, declaration, timeout)


def _write(folder: Path, kind: str, arrays: Mapping[str, Array]) -> None:
    for place, array in enumerate(arrays.values()):
        np.save(folder / f"{kind}_{place}.npy", array, allow_pickle=False)
    (folder / f"{kind}.json").write_text(json.dumps(list(arrays)), encoding="utf-8")


def _read(folder: Path, kind: str) -> dict[str, Array]:
    names = json.loads((folder / f"{kind}.json").read_text(encoding="utf-8"))
    return {
        name: np.load(folder / f"{kind}_{place}.npy", allow_pickle=False) for place, name in enumerate(names)
    }


def main(folder: Path, run: Run = run_model) -> None:
    """Run what the folder holds, and leave there what came out or why nothing did."""
    # Ctrl-C reaches both processes; the other one ends this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("ready", flush=True)
    os.dup2(2, 1)
    options = RuntimeOptions(**json.loads((folder / "options.json").read_text(encoding="utf-8")))
    try:
        results = run(onnx.load(folder / "model.onnx"), _read(folder, "feeds"), options)
    except (CandidateError, ConfigurationError) as error:
        refused = isinstance(error, ConfigurationError)
        (folder / "error.json").write_text(json.dumps([refused, str(error)]), encoding="utf-8")
    else:
        _write(folder, "results", results)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
