"""OpenVINO (extra ``openvino``): an IR's ``.xml`` with its ``.bin``, every result captured on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.bounds import FLOAT16, FLOAT32, FORMATS, OPENVINO, Declaration
from conformance.candidates.arrays import Given, first_line
from conformance.candidates.candidate import Candidate, OwnGraph
from conformance.candidates.phone_runtime import THREADS, PhoneRuntime, RuntimeOption, Settings, only_array
from refimpl.errors import CandidateError, ConfigurationError, FileError
from refimpl.graph import Graph, Node
from refimpl.ops.operation import Array

HINTS = {"float32": "f32", "bfloat16": "bf16"}
OPTIONS = (
    THREADS,
    RuntimeOption(
        "storage",
        "float32",
        "what it computes and stores in; left to itself it takes bfloat16 where the CPU has it",
        tuple(HINTS),
    ),
    RuntimeOption(
        "weights", "float32", "of the .bin: float16 unless the converter is told", ("float32", "float16")
    ),
)
GIVEN = ("Parameter", "Constant", "Result")
"""Operations that compute nothing."""


class OpenVinoCandidate(Candidate):
    """An IR on OpenVINO's CPU plugin.

    Parameters
    ----------
    package
        The Python module ``openvino``.
    settings
        The ``.xml`` and the options.

    Raises
    ------
    FileError
        It is no IR.
    ConfigurationError
        This CPU does not compute in what is asked for.
    """

    captures_all = True
    fusion_reach = 8

    def __init__(self, package: Any, settings: Settings) -> None:
        self.settings, self.core = settings, package.Core()
        try:
            self.model = self.core.read_model(settings.model)
        except Exception as error:  # OpenVINO raises RuntimeError
            raise FileError(f"{settings.model}: OpenVINO cannot read it: {first_line(error)}") from error
        self.compiled = self._compiled(self.model)
        self.exposed: Any = None

    @property
    def declaration(self) -> Declaration:
        """Float32 arithmetic; tensors and weights as declared."""
        values = self.settings.values
        halved = values["weights"] == "float16"
        return Declaration(FLOAT32, FORMATS[values["storage"]], OPENVINO, weights=FLOAT16 if halved else None)

    def run(self, images: Given) -> dict[str, Array]:
        """Return the outputs of the model as it is."""
        return self._results(self.compiled, images)

    def capture(self, images: Given) -> dict[str, Array]:
        """Return every operation's results; showing them keeps the plugin from fusing most of them."""
        if self.exposed is None:
            model = self.model.clone()
            for operation in model.get_ordered_ops():
                if operation.get_type_name() not in GIVEN:
                    model.add_outputs(operation.outputs())
            self.exposed = self._compiled(model)
        return self._results(self.exposed, images)

    def own_graph(self, images: Given) -> OwnGraph:
        """Return its operations by the names that the IR has for them."""
        nodes = [
            Node(
                operation.get_friendly_name(),
                operation.get_type_name(),
                tuple(_name(value.get_source_output()) for value in operation.inputs()),
                tuple(map(_name, operation.outputs())),
            )
            for operation in self.model.get_ordered_ops()
            if operation.get_type_name() not in GIVEN
        ]
        return OwnGraph(Graph(nodes))

    def _compiled(self, model: Any) -> Any:
        wanted = HINTS[self.settings.values["storage"]]
        options = {"INFERENCE_PRECISION_HINT": wanted, "INFERENCE_NUM_THREADS": self.settings.threads}
        if wanted == "bf16" and "BF16" not in self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise ConfigurationError("this CPU has no bfloat16; OpenVINO would compute in float32 unasked")
        try:
            return self.core.compile_model(model, "CPU", options)
        except Exception as error:  # OpenVINO raises RuntimeError
            raise ConfigurationError(f"OpenVINO refuses the model: {first_line(error)}") from error

    def _results(self, compiled: Any, images: Given) -> dict[str, Array]:
        array = only_array(images)
        self.settings.check_shape(array)
        try:
            results = compiled(array)
        except Exception as error:  # OpenVINO raises RuntimeError
            raise CandidateError(f"OpenVINO cannot run the model: {first_line(error)}") from error
        return {_name(output): np.array(values, copy=True) for output, values in results.items()}


def _name(output: Any) -> str:
    """Return a tensor's own name, else that of the operation and the place."""
    names = sorted(output.get_names())
    return names[0] if names else f"{output.get_node().get_friendly_name()}:{output.get_index()}"


WAYS = ("storage=float32", "weights=float16", "storage=bfloat16")
OPENVINO_RUNTIME = PhoneRuntime("openvino", "openvino", ".xml", OPTIONS, OpenVinoCandidate, WAYS)
