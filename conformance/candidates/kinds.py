"""Candidates by name: the kinds in this package, and those of others."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from conformance.bounds import CPU, FLOAT32, FORMATS, Declaration, Format
from conformance.candidates.arrays import crash_of, first_line
from conformance.candidates.candidate import Candidate, needed_outputs
from conformance.candidates.converters import shipped
from conformance.candidates.dumps import DumpCandidate
from conformance.candidates.evaluated import EvaluatedGraph
from conformance.candidates.executorch import EXECUTORCH_RUNTIME
from conformance.candidates.graph_dumps import GraphDumps
from conformance.candidates.litert import LITERT_RUNTIME
from conformance.candidates.mnn import MNN_RUNTIME
from conformance.candidates.ncnn import NCNN_RUNTIME
from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate, checked_candidate
from conformance.candidates.onnx_runtime import OnnxRuntimeGraph, RuntimeOptions, declared_by
from conformance.candidates.onnx_runtime_process import runtime_graph
from conformance.candidates.openvino import OPENVINO_RUNTIME
from conformance.candidates.phone_runtime import STATIC, PhoneRuntime
from conformance.candidates.plain import NumpyCandidate, PythonCandidate
from conformance.candidates.pytorch import PyTorchCandidate
from conformance.candidates.qnn import Npu, NpuCandidate, npu_graph
from conformance.graph.onnx_graph import OnnxGraph
from conformance.named_values import values_in
from refimpl import MobileInstConfig
from refimpl.errors import CandidateError, ConfigurationError, FileError
from refimpl.model import output_names
from refimpl.ops.operation import Array

GROUP = "mobileinst.candidates"
"""Entry points of this group are candidates of other packages: functions of a `Request`."""


@dataclass(frozen=True)
class Request:
    """What a candidate is made from.

    Attributes
    ----------
    options
        What follows the colon of ``--candidate NAME:OPTIONS``.
    config, weights
        The network it should be; None and nothing where it should be the graph of ``model``.
    model
        The model file named on the command line, if any.
    arithmetic, storage
        The formats declared, None where not.
    threads
        Threads it may use; 0: its own choice.
    timeout
        Seconds that ONNX Runtime may take for a run, in a process of its own; None: in this one.
    trusted
        Whether files may be read that can run code of whoever wrote them.
    wide
        Whether it is to compute in float64, as far as it lets.
    interpreter
        The words that start the Python in which the runtime is installed; none: this one.
    """

    options: str
    config: MobileInstConfig | None
    weights: Mapping[str, Array]
    model: Path | None = None
    arithmetic: Format | None = None
    storage: Format | None = None
    threads: int = 0
    timeout: float | None = None
    trusted: bool = False
    wide: bool = False
    interpreter: Sequence[str] = ()

    @property
    def declaration(self) -> Declaration:
        """The formats declared; float32 where not, and stored as computed."""
        arithmetic = self.arithmetic or FLOAT32
        return Declaration(arithmetic, self.storage or arithmetic, CPU)


Kind = Callable[[Request], Candidate]


def files_named(text: str) -> Iterator[str]:
    """Yield what may be paths in ``dumps:FOLDER``, ``python:FILE.py:NAME``, ``ncnn:FILE,…``."""
    rest = text.partition(":")[2]
    yield from dict.fromkeys(path for path in (rest, rest.rpartition(":")[0], rest.partition(",")[0]) if path)


def onnx_runtime(request: Request) -> Candidate:
    """``onnxruntime:level=basic,threads=2,provider=NAME,disabled=A+B``; other keys are the provider's."""
    if request.model is None:
        raise ConfigurationError("--candidate onnxruntime runs a model: name its .onnx file")
    graph = OnnxGraph.load(request.model, partly=True)
    declaration = declared_by(graph, request.arithmetic, request.storage)
    return OnnxRuntimeCandidate(
        graph,
        options=runtime_options(request.options, request.threads),
        declaration=declaration,
        timeout=request.timeout,
        interpreter=request.interpreter,
    )


def runtime_options(text: str, threads: int) -> RuntimeOptions:
    """Return the options of ONNX Runtime that ``level=basic,threads=2`` names."""
    pairs = values_in(text.split(","), "--candidate onnxruntime")
    wanted = pairs.pop("threads", str(threads))
    if not wanted.isdecimal():
        raise ConfigurationError(f"--candidate onnxruntime: threads={wanted!r} is no number")
    return RuntimeOptions(
        level=pairs.pop("level", "all"),
        threads=int(wanted),
        provider=pairs.pop("provider", "CPUExecutionProvider"),
        disabled_optimizers=tuple(name for name in pairs.pop("disabled", "").split("+") if name),
        provider_options=pairs,
    )


def graph_candidate(
    text: str,
    graph: OnnxGraph,
    declaration: Declaration,
    threads: int,
    timeout: float | None,
    interpreter: Sequence[str] = (),
) -> OnnxRuntimeGraph:
    """Return any graph in the runtime that ``onnxruntime:OPTIONS`` or ``qnn:OPTIONS`` stands for.

    Raises
    ------
    ConfigurationError
        Another candidate: it does not run the graph itself.
    """
    name, _, options = text.partition(":")
    if name == "qnn":
        return npu_graph(graph, Npu.parse(options), timeout=timeout)
    if name != "onnxruntime":
        raise ConfigurationError(
            f"--candidate {text} does not run the graph itself; expected onnxruntime or qnn"
        )
    return runtime_graph(graph, runtime_options(options, threads), declaration, timeout, interpreter)


def qnn(request: Request) -> Candidate:
    """``qnn:CHIP``, ``qnn:htp_arch=73,soc_model=43``, with ``,strict`` and the provider's options."""
    if request.model is None:
        raise ConfigurationError("--candidate qnn runs a model: name its .onnx file")
    return NpuCandidate(OnnxGraph.load(request.model), Npu.parse(request.options), timeout=request.timeout)


def pytorch(request: Request) -> Candidate:
    """``pytorch:FILE.pt2``, an exported program; ``pytorch:FILE.py:NAME``, a module or what returns one."""
    if request.options.endswith(".pt2"):
        if not request.trusted:
            raise FileError(
                f"{request.options}: reading a .pt2 unpickles, which can run code of whoever wrote it; "
                "give --trust if you know who did, or export to ONNX"
            )
        return PyTorchCandidate.load(Path(request.options), request.declaration, request.wide)
    module = _made(_named(request.options), "named_modules")
    return PyTorchCandidate(module, request.declaration, request.wide)


def python(request: Request) -> Candidate:
    """``python:FILE.py:NAME``, a function of the images."""
    function = _named(request.options)
    if not callable(function):
        raise ConfigurationError(
            f"{request.options} is {type(function).__name__}, which cannot be called; name a function"
        )
    return PythonCandidate(function, declaration=request.declaration)


def dumps(request: Request) -> Candidate:
    """``dumps:FOLDER``."""
    if not request.options:
        raise ConfigurationError("--candidate dumps:FOLDER names the folder; there is none after the colon")
    if request.config is None:
        return GraphDumps(Path(request.options), _graph_of(request), request.declaration)
    needed, given = (of(request.config.architecture) for of in (needed_outputs, output_names))
    return DumpCandidate(Path(request.options), needed, request.declaration, given)


GRAPH_RUNNERS = ("onnxruntime", "qnn")
"""Kinds that run an ONNX graph as it is, and show its nodes."""


def _shipped(runtime: PhoneRuntime, request: Request) -> Candidate:
    """``NAME:MODEL,option=value``, or ``NAME:option=value`` with an ONNX file that is converted for it."""
    if f"weights={STATIC}" in request.options.split(","):
        raise ConfigurationError(
            "a model of integers is another than the network; judge it by itself: mobileinst verify "
            f"MODEL{runtime.suffix} --graph-only --candidate {runtime.name}:weights={STATIC}"
        )
    return shipped(runtime, request.options, request.model, request.interpreter, request.timeout)


def numpy_network(request: Request) -> Candidate:
    """``numpy:FORMAT``: float64, float32, float16 or bfloat16."""
    storage = FORMATS.get(request.options or FLOAT32.name)
    if storage is None:
        raise ConfigurationError(f"--candidate numpy:{request.options}: there is no such format")
    if request.config is None:
        return EvaluatedGraph(_graph_of(request), storage)
    return NumpyCandidate(request.config, request.weights, storage)


def _graph_of(request: Request) -> OnnxGraph:
    """Return the graph that a candidate should be."""
    if request.model is None:
        raise ConfigurationError("there is no graph beside which to judge: name its .onnx file")
    return OnnxGraph.load(request.model)


PHONE_RUNTIMES = {
    each.name: each
    for each in (NCNN_RUNTIME, OPENVINO_RUNTIME, MNN_RUNTIME, LITERT_RUNTIME, EXECUTORCH_RUNTIME)
}
"""What is shipped on phones: a line each."""


KINDS: dict[str, Kind] = {
    "onnxruntime": onnx_runtime,
    "qnn": qnn,
    **{name: partial(_shipped, runtime) for name, runtime in PHONE_RUNTIMES.items()},
    "pytorch": pytorch,
    "python": python,
    "dumps": dumps,
    "numpy": numpy_network,
}


def make(text: str, request: Request) -> Candidate:
    """Return the candidate that ``NAME`` or ``NAME:OPTIONS`` stands for.

    Raises
    ------
    ConfigurationError
        There is no candidate of that name; the message lists all.
    CandidateError
        Another package's function returned something else than a candidate.
    MobileInstError
        As the candidate's own.
    """
    name, _, options = text.partition(":")
    return checked_candidate(_kind(name)(Request(**{**vars(request), "options": options})))


def _kind(name: str) -> Kind:
    if name in KINDS:
        return KINDS[name]
    others = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in others:
        raise ConfigurationError(
            f"there is no candidate {name!r}; expected one of {', '.join([*KINDS, *others])}, "
            f"or a package with an entry point of the group {GROUP}"
        )
    try:
        kind: Kind = others[name].load()
    except Exception as error:  # other people's code
        raise CandidateError(f"candidate {name!r} cannot be imported: {first_line(error)}") from error
    return kind


def _named(text: str) -> Any:
    """Return what ``FILE.py:NAME`` names; the file is run, and may import its neighbours."""
    path, sign, name = text.rpartition(":")
    if not sign or not path.endswith(".py"):
        raise ConfigurationError(f"--candidate: {text!r} is not of the form FILE.py:NAME")
    if not Path(path).is_file():
        raise FileError(f"{path}: there is no such file")
    # Last, so that no neighbour stands in the place of a library.
    sys.path.append(str(Path(path).resolve().parent))
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise CandidateError(f"{path}: cannot be imported: {crash_of(error)}") from error
    if not hasattr(module, name):
        raise ConfigurationError(f"{path} has no {name!r}")
    return getattr(module, name)


def _made(value: Any, method: str) -> Any:
    """Return ``value`` if it has a method, else what calling it returns."""
    if hasattr(value, method) and not isinstance(value, type):
        return value
    if not callable(value):
        raise ConfigurationError(
            f"{type(value).__name__} is no module and cannot be called; name a module, or what returns one"
        )
    try:
        return value()
    except Exception as error:
        raise CandidateError(f"cannot be made: {crash_of(error)}") from error
