"""An ONNX graph in ONNX Runtime: as users run it, and with every tensor captured."""

from __future__ import annotations

import copy
import ctypes
import importlib
import json
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import ml_dtypes
import numpy as np
import onnx

from conformance.bounds import BFLOAT16, FLOAT32, Declaration, Format, format_of
from conformance.bounds.allowances import onnx_runtime as runtime_of_version
from conformance.candidates.arrays import first_line
from conformance.candidates.candidate import OwnGraph
from conformance.candidates.onnx_runtime_optimizers import applied_optimizers
from conformance.graph.large_models import arrays_of, is_large, lacked_by, lacking_data, saved
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.submodel import feed_each_node, given_to_each, is_same_node
from conformance.silent_onnxruntime import onnxruntime
from refimpl.errors import CandidateError, ConfigurationError, MissingDependencyError, MobileInstError
from refimpl.ops import ONNX_DTYPES
from refimpl.ops.operation import Array

LEVELS = {
    "disabled": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
"""Optimisation levels, each with what the one before does and more."""


PLUGINS = {"QNNExecutionProvider": ("onnxruntime_qnn", "qnn")}
"""Providers that are packages of their own → the module, the extra that installs it."""


def plugin(provider: str) -> Any:
    """Return the module of a provider that is a package of its own.

    Raises
    ------
    MissingDependencyError
        It is not installed.
    """
    module, extra = PLUGINS[provider]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"{provider} is not installed: pip install 'mobileinst-reference[{extra}]' ({first_line(error)})"
        ) from error


def _device(provider: str) -> Any:
    """Register a plugin once and return the device that it brings."""
    if not any(device.ep_name == provider for device in onnxruntime.get_ep_devices()):
        onnxruntime.register_execution_provider_library(provider, plugin(provider).get_library_path())
    return next(device for device in onnxruntime.get_ep_devices() if device.ep_name == provider)


MOST_THREADS = 1024
"""It would start as many as it is told, and come to no end."""


@dataclass(frozen=True)
class RuntimeOptions:
    """How ONNX Runtime is to run a model.

    Attributes
    ----------
    level
        Optimisation level, one of `LEVELS`.
    threads
        Threads within an operator; 0 lets the runtime choose.
    provider
        Execution provider; nodes that it does not take fall to the CPU's.
    provider_options
        The provider's own, as its documentation names them.
    disabled_optimizers
        Names of graph transformers that are not to run.
    entries
        Configuration entries of the session, as ONNX Runtime's ``onnxruntime_session_options_config_keys.h``
        names them.
    save_to
        File into which the model is written as optimised; empty: none.

    Raises
    ------
    ConfigurationError
        There is no such level, or the provider is not installed.
    MissingDependencyError
        The provider is a package of its own, which is not installed.
    """

    level: str = "all"
    threads: int = 0
    provider: str = "CPUExecutionProvider"
    provider_options: Mapping[str, str] = field(default_factory=dict)
    disabled_optimizers: Sequence[str] = ()
    entries: Mapping[str, str] = field(default_factory=dict)
    save_to: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.threads <= MOST_THREADS:
            raise ConfigurationError(
                f"{self.threads} threads; expected at most {MOST_THREADS}, 0: its own choice"
            )
        if self.level not in LEVELS:
            raise ConfigurationError(
                f"there is no optimisation level {self.level!r}; expected one of {', '.join(LEVELS)}"
            )
        if self.provider in PLUGINS:
            plugin(self.provider)
            return
        available = onnxruntime.get_available_providers()
        if self.provider not in available:
            raise ConfigurationError(
                f"ONNX Runtime has no provider {self.provider!r} here; installed are {', '.join(available)}"
            )
        if self.provider_options and self.provider == "CPUExecutionProvider":
            raise ConfigurationError(
                f"the CPU provider has no option {', '.join(self.provider_options)}; "
                "expected level, threads, provider or disabled"
            )

    def session(
        self, model: onnx.ModelProto, severity: int = 4, arrays: Mapping[str, Array] | None = None
    ) -> Any:
        """Return an inference session of a model.

        It logs what is at least so severe, of 0 to 4; the initializers that the model lacks it shares with
        ``arrays``.
        """
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = LEVELS[self.level]
        options.intra_op_num_threads = self.threads
        options.log_severity_level = severity
        options.optimized_model_filepath = self.save_to
        # Where every tensor is kept, an arena keeps the memory of all of them a second time.
        options.enable_cpu_mem_arena = self.level != "disabled"
        # A thread that waits asleep leaves the processor to others; the numbers are the same.
        for name, value in {"session.intra_op.allow_spinning": "0", **self.entries}.items():
            options.add_session_config_entry(name, value)
        if lacking := lacked_by(model):
            values = [onnxruntime.OrtValue.ortvalue_from_numpy((arrays or {})[name]) for name in lacking]
            options.add_external_initializers(lacking, values)
        given = {
            "providers": self._providers(options),
            "disabled_optimizers": list(self.disabled_optimizers) or None,
        }
        if not is_large(model):
            return onnxruntime.InferenceSession(model.SerializeToString(), options, **given)
        with tempfile.TemporaryDirectory(prefix="onnxruntime-") as folder:
            return onnxruntime.InferenceSession(str(saved(model, Path(folder))), options, **given)

    def _providers(self, options: Any) -> list[Any] | None:
        """Return the providers to ask; a plugin is added to the session's options instead."""
        own = dict(self.provider_options)
        if self.provider in PLUGINS:
            options.add_provider_for_devices([_device(self.provider)], own)
            return None
        others = [] if self.provider == "CPUExecutionProvider" else ["CPUExecutionProvider"]
        return [(self.provider, own), *others]


class OnnxRuntimeGraph:
    """Any ONNX graph in ONNX Runtime, with any inputs.

    Parameters
    ----------
    graph
        The model, read and checked.
    options
        How users run it.
    declaration
        The arithmetic it is judged by.

    Attributes
    ----------
    shares_weights
        Whether what does not run as users run it reads the weights where they are.
    """

    shares_weights = True

    def __init__(
        self,
        graph: OnnxGraph,
        options: RuntimeOptions | None = None,
        declaration: Declaration | None = None,
    ) -> None:
        self.graph = graph
        self.options = options or RuntimeOptions()
        self.declaration = declaration or declared_by(graph)
        self._sessions: dict[str, tuple[onnx.ModelProto, Any]] = {}
        self._light: onnx.ModelProto | None = None
        self._shown: onnx.ModelProto | None = None
        self._arrays: Mapping[str, Array] | None = None

    def _other(self, **changes: Any) -> Self:
        other = copy.copy(self)
        vars(other).update({"_sessions": {}, "_light": None, "_shown": None, "_arrays": None, **changes})
        return other

    def without(self, optimizers: Sequence[str]) -> Self:
        """Return the same graph, in which these optimisers do not run either."""
        disabled = (*self.options.disabled_optimizers, *optimizers)
        return self._other(options=replace(self.options, disabled_optimizers=disabled))

    def with_graph(self, graph: OnnxGraph) -> Self:
        """Return another graph, run in the same way."""
        return self._other(graph=graph)

    def unoptimized(self) -> Self:
        """Return the same graph, in which no optimiser runs."""
        return self._other(options=replace(self.options, level="disabled"))

    def optimizers(self) -> list[str]:
        """Return the graph transformers that change the model, as the installed version's log names them."""
        return applied_optimizers(self.graph.model, json.dumps(asdict(self.options)))

    def optimized(
        self, feeds: Mapping[str, Array], captured: Mapping[str, Array]
    ) -> tuple[dict[str, set[str]], dict[str, Array]]:
        """Return the captured tensors that the optimised graph's own nodes make, of which others, and them.

        Its own are those that are not in the graph as it is. Convolutions' blocked layouts, which only the
        level of all brings, are left out: what is in blocks has no name of the model's.

        Raises
        ------
        CandidateError
            The runtime fails, or cannot write what it made.
        """
        model = self._written_again(feeds)
        nodes = self.graph.model.graph.node
        before = {name: node for node in nodes for name in node.output if name in captured}
        made = {name: node for node in model.graph.node for name in node.output if name in before}
        own = [name for name, node in made.items() if not is_same_node(node, before[name])]
        if not own:
            return {}, {}
        given = feed_each_node(model, captured, own, self.graph.bfloat16)
        unchanged = replace(self.options, level="disabled")
        arrays = arrays_of(model) if self.shares_weights else {}
        other = self._other(_arrays=arrays)
        results = other._run(lacking_data(model, arrays), {**feeds, **given}, unchanged)
        return given_to_each(model, own), results

    def _written_again(self, feeds: Mapping[str, Array]) -> onnx.ModelProto:
        """Return the model as the runtime optimises it."""
        if is_large(self.graph.model) or self.options.provider != "CPUExecutionProvider":
            raise CandidateError("a model of this size, or that a provider compiles, is not written again")
        level = "extended" if self.options.level == "all" else self.options.level
        with tempfile.TemporaryDirectory(prefix="onnxruntime-") as folder:
            path = Path(folder) / "optimized.onnx"
            saving = replace(self.options, level=level, save_to=str(path))
            self._other()._load(self._sharing(), feeds, saving)
            if not path.exists():
                raise CandidateError("ONNX Runtime does not write the model that it optimised")
            return onnx.load(path)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model as users do and return its outputs by name.

        Raises
        ------
        CandidateError
            The runtime fails.
        """
        return self._run(self.graph.model, feeds, self.options)

    def capture(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model unoptimised and return every node's output by name, in topological order."""
        model = self._shown or self._exposed()
        tensors = self._run(model, feeds, replace(self.options, level="disabled"))
        names = [name for node in model.graph.node for name in node.output if name in tensors]
        # An output may be an input or a constant, which no node makes.
        return {name: tensors[name] for name in dict.fromkeys([*names, *tensors])}

    def _exposed(self) -> onnx.ModelProto:
        made = (name for node in self.graph.model.graph.node if not is_blocked(node) for name in node.output)
        self._shown = exposed(self._sharing(), set(made))
        return self._shown

    def _sharing(self) -> onnx.ModelProto:
        """Return the model, without those weights that the runtime can read where they are."""
        if not self.shares_weights:
            return self.graph.model
        self._light = self._light or lacking_data(self.graph.model, self.graph.initializers)
        return self._light

    def own_graph(self, feeds: Mapping[str, Array]) -> OwnGraph:
        """Return the graph and what it is fed."""
        on_cpu = self.options.provider == "CPUExecutionProvider"
        return OwnGraph(self.graph, self.graph, feeds, optimising=self, wide_float16=on_cpu)

    def _run(
        self, model: onnx.ModelProto, feeds: Mapping[str, Array], options: RuntimeOptions
    ) -> dict[str, Array]:
        return run_session(self._session(model, feeds, options), feeds)

    def _load(self, model: onnx.ModelProto, feeds: Mapping[str, Array], options: RuntimeOptions) -> None:
        """Have the runtime make what it makes of a model; it need not run it."""
        self._session(model, feeds, options)

    def _session(self, model: onnx.ModelProto, feeds: Mapping[str, Array], options: RuntimeOptions) -> Any:
        """Return a session of a model, which is kept for its next run, unless it is large."""
        key = repr(options)
        made_of, session = self._sessions.get(key, (None, None))
        if made_of is not model:
            self._sessions.pop(key, None)
            with named_failure(feeds):
                session = options.session(model, arrays=self._arrays or self.graph.initializers)
            if not is_large(model):
                self._sessions[key] = model, session
        return session


def run_session(session: Any, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Run a session once and return its outputs by name.

    Raises
    ------
    CandidateError
        The runtime fails.
    """
    with named_failure(feeds):
        results = _results(session, feeds)
        named = zip((output.name for output in session.get_outputs()), results, strict=True)
        # What is no array is a sequence, or an optional that holds nothing.
        return {name: result for name, result in named if isinstance(result, np.ndarray)}


_BFLOAT16 = "tensor(bfloat16)"


def _results(session: Any, feeds: Mapping[str, Array]) -> list[Any]:
    """Run a session; bfloat16, which NumPy has not, goes in and comes out as float32."""
    narrow = {each.name for each in session.get_inputs() if each.type == _BFLOAT16}
    if not narrow and all(each.type != _BFLOAT16 for each in session.get_outputs()):
        return list(session.run(None, dict(feeds)))
    values = {name: _ort_value(array, name in narrow) for name, array in feeds.items()}
    return [_array(value) for value in session.run_with_ort_values(None, values)]


def _ort_value(array: Array, narrow: bool) -> Any:
    if not narrow:
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)
    bits = array.astype(ml_dtypes.bfloat16).view(np.uint16)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, onnx.TensorProto.BFLOAT16)


def _array(value: Any) -> Any:
    if not value.is_tensor() or value.data_type() != _BFLOAT16:
        return value.numpy()
    count = int(np.prod(value.shape()))
    bits = np.ctypeslib.as_array(ctypes.cast(value.data_ptr(), ctypes.POINTER(ctypes.c_uint16)), (count,))
    return bits.view(ml_dtypes.bfloat16).astype(np.float32).reshape(value.shape())


@contextmanager
def named_failure(feeds: Mapping[str, Array]) -> Iterator[None]:
    """Turn what a runtime raises, fed these arrays, into `CandidateError`."""
    try:
        yield
    except MobileInstError:
        raise
    except Exception as error:  # ONNX Runtime raises its own unrelated types
        shapes = ", ".join(f"{name} {array.shape}" for name, array in feeds.items())
        raise CandidateError(f"ONNX Runtime cannot run the model on {shapes}: {first_line(error)}") from error


def declared_by(
    graph: OnnxGraph, arithmetic: Format | None = None, storage: Format | None = None
) -> Declaration:
    """Return what ONNX Runtime is judged by: float32 arithmetic, stored in the graph's narrowest format."""
    arrays = [*graph.initializers.values()]
    dtypes = {array.dtype for array in arrays} | {info.dtype for info in graph.declared.values()}
    casts = {node.attributes["to"] for node in graph.nodes if node.op_type == "Cast"}
    dtypes |= {np.dtype(ONNX_DTYPES[code]) for code in casts & ONNX_DTYPES.keys()}
    formats = [format_of(dtype) for dtype in dtypes if dtype is not None and dtype.kind == "f"]
    formats += [BFLOAT16] * bool(graph.bfloat16)
    own = max([FLOAT32, *formats], key=lambda format: format.unit_roundoff)
    chosen = arithmetic or FLOAT32
    coarser = max(chosen, own, key=lambda format: format.unit_roundoff)
    runtime = runtime_of_version(onnxruntime.__version__)
    otherwise = None if storage or coarser == chosen else chosen
    return Declaration(chosen, storage or coarser, runtime, otherwise=otherwise)


def is_blocked(node: onnx.NodeProto) -> bool:
    """Tell whether a node makes tensors in blocks of channels, as wide as a processor likes."""
    return node.domain == "com.microsoft.nchwc" and node.op_type != "ReorderOutput"


def exposed(model: onnx.ModelProto, names: Collection[str] | None = None) -> onnx.ModelProto:
    """Return a copy of a model with every node's output among its outputs, or those named."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    expose(wide, names)
    return wide


def expose(model: onnx.ModelProto, names: Collection[str] | None = None) -> None:
    """Add every node's output to a model's outputs, or those named."""
    shown = {output.name for output in model.graph.output}
    for name in (name for node in model.graph.node for name in node.output if name):
        if name not in shown and (names is None or name in names):
            model.graph.output.append(onnx.ValueInfoProto(name=name))
            shown.add(name)
