"""ONNX Runtime in processes of its own: they may crash or hang, and the judge goes on.

A process is started for a model and the way it is run, and kept for further runs of it. A folder holds both,
what the model is fed, and then what came out. Run as a module, this is the runtime's side.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from conformance.bounds import Declaration
from conformance.bounds.allowances import onnx_runtime as runtime_of_version
from conformance.candidates.candidate import OwnGraph
from conformance.candidates.child_process import STARTING, crashed, end, hung, next_line, start
from conformance.candidates.far_process import FarProcess, Opening
from conformance.candidates.onnx_runtime import (
    LEVELS,
    OnnxRuntimeGraph,
    RuntimeOptions,
    named_failure,
    run_session,
)
from conformance.files import temporary_files
from conformance.foreign_names import shown
from conformance.graph.large_models import digest, is_large, saved
from conformance.graph.onnx_graph import OnnxGraph
from refimpl.errors import CandidateError, ConfigurationError, MobileInstError, SpaceError
from refimpl.ops.operation import Array

MOST_KEPT = 2
"""Processes of a graph: as shipped, and with its tensors shown."""
DONE = "done"
"""What a process says after a run; else the name of an error and its message, in JSON."""

SAID = {kind.__name__: kind for kind in (CandidateError, ConfigurationError, SpaceError)}
"""What a process may say is wrong."""

Load = Callable[[onnx.ModelProto, RuntimeOptions], Any]
"""A model and how it is run → a session of ONNX Runtime."""


class IsolatedOnnxRuntimeGraph(OnnxRuntimeGraph):
    """An ONNX graph that processes of their own run, kept as long as this is.

    Parameters
    ----------
    graph, options, declaration
        As of `OnnxRuntimeGraph`.
    timeout
        Seconds that a run may take.
    """

    module = "conformance.candidates.onnx_runtime_process"
    """The runtime's side."""
    shares_weights = False

    def __init__(
        self,
        graph: OnnxGraph,
        options: RuntimeOptions | None = None,
        declaration: Declaration | None = None,
        timeout: float = STARTING,
    ) -> None:
        super().__init__(graph, options, declaration)
        self.timeout = timeout
        self.kept: dict[str, Any] = {}
        self.shipped: tuple[onnx.ModelProto, str] | None = None

    def _run(
        self, model: onnx.ModelProto, feeds: Mapping[str, Array], options: RuntimeOptions
    ) -> dict[str, Array]:
        settings = json.dumps(dataclasses.asdict(options))
        key = self._digest(model) + settings
        # Taken out while it runs: one that crashes or hangs is not kept, and the last used stands last.
        process = self.kept.pop(key, None) or self._process(model, options)
        results: dict[str, Array] = process.run(feeds, self.timeout)
        self.take_note(process.folder)
        while len(self.kept) >= MOST_KEPT:
            del self.kept[next(iter(self.kept))]
        self.kept[key] = process
        return results

    def _load(self, model: onnx.ModelProto, feeds: Mapping[str, Array], options: RuntimeOptions) -> None:
        self._run(model, feeds, options)  # never in this process

    def _process(self, model: onnx.ModelProto, options: RuntimeOptions) -> Any:
        return _Process(self.module, model, json.dumps(dataclasses.asdict(options)))

    def _digest(self, model: onnx.ModelProto) -> str:
        """Return a model's digest; of the graph's own, which is run again and again, it is kept."""
        if model is not self.graph.model:
            return digest(model)
        if self.shipped is None or self.shipped[0] is not model:
            self.shipped = (model, digest(model))
        return self.shipped[1]

    def take_note(self, folder: Path) -> None:
        """Look at what else the process left; nothing of most runtimes."""


class _Process:
    """A process that runs one model; it ends when nothing refers to this any more."""

    def __init__(self, module: str, model: onnx.ModelProto, settings: str) -> None:
        with temporary_files():
            place = tempfile.TemporaryDirectory(prefix="onnxruntime-")
            self.folder = Path(place.name)
            saved(model, self.folder)
            (self.folder / "options.json").write_text(settings, encoding="utf-8")
        self.process = start(module, place.name)
        weakref.finalize(self, _end, self.process, place)
        if next_line(self.process, STARTING) is None:
            raise hung(STARTING)

    def run(self, feeds: Mapping[str, Array], timeout: float) -> dict[str, Array]:
        """Return the outputs; raise what the process says, or `CandidateError` unless it answers."""
        _write(self.folder, "feeds", feeds)
        answer = self._asked(timeout)
        if answer is None:
            raise hung(timeout)
        if not answer:
            raise crashed(self.process.wait())
        if answer.strip() != DONE:
            raise _error_of(answer)
        return _read(self.folder, "results")

    def _asked(self, timeout: float) -> str | None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write("run\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return ""
        return next_line(self.process, timeout)


class FarOnnxRuntimeGraph(IsolatedOnnxRuntimeGraph):
    """An ONNX graph that ONNX Runtime runs under another interpreter.

    Parameters
    ----------
    graph, options, declaration, timeout
        As of `IsolatedOnnxRuntimeGraph`.
    interpreter
        The words that start it.

    Raises
    ------
    ConfigurationError
        Another provider than the CPU's is asked for.
    """

    def __init__(
        self,
        graph: OnnxGraph,
        options: RuntimeOptions | None,
        declaration: Declaration | None,
        timeout: float,
        interpreter: Sequence[str],
    ) -> None:
        super().__init__(graph, options, declaration, timeout)
        if self.options.provider != "CPUExecutionProvider":
            raise ConfigurationError(
                f"provider={self.options.provider}: with --interpreter only the CPU's is asked for"
            )
        self.interpreter, self.version = interpreter, ""

    def own_graph(self, feeds: Mapping[str, Array]) -> OwnGraph:
        """Return the graph and what it is fed; its optimisers are of another version than this one's."""
        return dataclasses.replace(super().own_graph(feeds), optimising=None)

    def _process(self, model: onnx.ModelProto, options: RuntimeOptions) -> Any:
        return _FarModel(model, options, self)

    def note_version(self, version: str) -> None:
        """Be judged by what that version is."""
        self.version = version
        self.declaration = dataclasses.replace(self.declaration, runtime=runtime_of_version(version))


class _FarModel:
    """A model in a far process; it ends when nothing refers to this any more."""

    def __init__(self, model: onnx.ModelProto, options: RuntimeOptions, graph: FarOnnxRuntimeGraph) -> None:
        place = tempfile.TemporaryDirectory(prefix="onnxruntime-")
        self.place, self.folder = place, Path(place.name)
        if is_large(model):
            raise ConfigurationError("a model of more than 2 GiB is not sent to another interpreter")
        (self.folder / "model.onnx").write_bytes(model.SerializeToString())
        said = {
            "level": LEVELS[options.level].name,
            "threads": options.threads,
            "disabled": list(options.disabled_optimizers),
        }
        opening = Opening("onnxruntime", "onnxruntime", [self.folder / "model.onnx"], said)
        self.process, self.noted = FarProcess(opening, graph.interpreter, graph.timeout), graph.note_version

    def run(self, feeds: Mapping[str, Array], timeout: float) -> dict[str, Array]:
        """Return the outputs; errors as of `FarProcess`."""
        found = self.process.ask("run", feeds)[1]
        self.noted(self.process.known["version"])
        return found


def _end(process: subprocess.Popen[str], place: tempfile.TemporaryDirectory[str]) -> None:
    end(process)
    process.communicate()
    place.cleanup()


def runtime_graph(
    graph: OnnxGraph,
    options: RuntimeOptions | None = None,
    declaration: Declaration | None = None,
    timeout: float | None = None,
    interpreter: Sequence[str] = (),
) -> OnnxRuntimeGraph:
    """Return a graph in ONNX Runtime, in processes if its time is limited or another Python is to run it."""
    if interpreter:
        return FarOnnxRuntimeGraph(graph, options, declaration, timeout or STARTING, interpreter)
    if timeout is None:
        return OnnxRuntimeGraph(graph, options, declaration)
    return IsolatedOnnxRuntimeGraph(graph, options, declaration, timeout)


def _error_of(answer: str) -> MobileInstError:
    """Return the error that a process says, or that it says something else."""
    try:
        kind, message = json.loads(answer)
        return SAID[kind](str(message))
    except (ValueError, TypeError, KeyError):
        return CandidateError(f"its process answers {shown(answer.strip())}, which is no answer")


def _write(folder: Path, kind: str, arrays: Mapping[str, Array]) -> None:
    with temporary_files():
        for place, array in enumerate(arrays.values()):
            np.save(folder / f"{kind}_{place}.npy", array, allow_pickle=False)
        (folder / f"{kind}.json").write_text(json.dumps(list(arrays)), encoding="utf-8")


def _read(folder: Path, kind: str) -> dict[str, Array]:
    names = json.loads((folder / f"{kind}.json").read_text(encoding="utf-8"))
    return {
        name: np.load(folder / f"{kind}_{place}.npy", allow_pickle=False) for place, name in enumerate(names)
    }


def main(folder: Path, load: Load = lambda model, options: options.session(model)) -> None:
    """Run what the folder holds whenever a line comes; leave there what came out, or say why nothing did."""
    # Ctrl-C reaches both processes; the other one ends this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Runtimes speak on standard output, too.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print("ready", file=answers, flush=True)
    session: Any = None
    for _ in sys.stdin:
        feeds = _read(folder, "feeds")
        try:
            session = session or _loaded(folder, load, feeds)
            _write(folder, "results", run_session(session, feeds))
            answer = DONE
        except tuple(SAID.values()) as error:
            answer = json.dumps([type(error).__name__, str(error)])
        print(answer, file=answers, flush=True)


def _loaded(folder: Path, load: Load, feeds: Mapping[str, Array]) -> Any:
    options = RuntimeOptions(**json.loads((folder / "options.json").read_text(encoding="utf-8")))
    with named_failure(feeds):
        return load(onnx.load(folder / "model.onnx"), options)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
