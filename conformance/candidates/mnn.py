"""MNN (extra ``mnn``): a ``.mnn``, every operation's results captured, named as in the ONNX file."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from conformance.bounds import FLOAT32, MNN, TRUNCATED_FLOAT16, Declaration, with_winograd
from conformance.candidates.arrays import Given
from conformance.candidates.candidate import Candidate, OwnGraph
from conformance.candidates.phone_runtime import (
    SWITCH,
    THREADS,
    PhoneRuntime,
    RuntimeOption,
    Settings,
    only_array,
)
from refimpl.errors import CandidateError, ConfigurationError, FileError
from refimpl.graph import Graph, Node
from refimpl.ops.operation import Array

HINT = 3
"""``Interpreter::HintMode::WINOGRAD_MEMORY_LEVEL``: 0 allows the smallest tile alone, 3 all of them."""
OPTIONS = (
    THREADS,
    RuntimeOption(
        "winograd",
        "on",
        "Winograd's convolutions in the tiles that it chooses; 2, 4, 6: so, and their error allowed for",
        (*SWITCH, "2", "4", "6"),
    ),
    RuntimeOption(
        "precision",
        "high",
        "high: float32; low: float16 on Arm or bfloat16 where the chip has it; normal: as high on x86",
        ("high", "normal", "low"),
    ),
    RuntimeOption(
        "weights", "float32", "of the file: float16 by --fp16, which truncates", ("float32", "float16")
    ),
)


class MnnCandidate(Candidate):
    """A model in MNN.

    Parameters
    ----------
    package
        The Python module ``MNN``.
    settings
        The ``.mnn`` and the options.

    Raises
    ------
    FileError
        It is no model of MNN.
    """

    captures_all = True
    fusion_reach = 8
    without_winograd = "winograd=off"

    def __init__(self, package: Any, settings: Settings) -> None:
        self.mnn, self.settings = package, settings
        self.nodes: list[Node] = []
        try:
            self.interpreter = package.Interpreter(str(settings.model))
        except Exception as error:  # MNN raises its own types
            raise FileError(f"{settings.model}: MNN cannot read it: it is no model of MNN") from error
        if settings.values["winograd"] == "off":
            self.interpreter.setSessionHint(HINT, 0)
        how = {"backend": "CPU", "numThread": settings.threads, "precision": settings.values["precision"]}
        self.session = self.interpreter.createSession(how)
        if self.session is None:
            raise ConfigurationError(f"MNN makes no session of {settings.model}: it lacks an operator of it")

    @property
    def declaration(self) -> Declaration:
        """Float32 arithmetic, and Winograd's if a tile is named."""
        values = self.settings.values
        tile = int(values["winograd"]) if values["winograd"].isdecimal() else 0
        weights = TRUNCATED_FLOAT16 if values["weights"] == "float16" else None
        return Declaration(FLOAT32, FLOAT32, with_winograd(MNN, tile), weights)

    def run(self, images: Given) -> dict[str, Array]:
        """Return the outputs."""
        self._feed(images)
        self.interpreter.runSession(self.session)
        outputs = self.interpreter.getSessionOutputAll(self.session)
        return {name: self._values(tensor) for name, tensor in outputs.items()}

    def capture(self, images: Given) -> dict[str, Array]:
        """Return every operation's results, in the order in which they are made, and the outputs."""
        found: dict[str, Array] = {}
        made: list[Node] = []

        def note(tensors: list[Any], operation: Any) -> bool:
            names = [
                f"{operation.getName()}:{place}" if place else operation.getName()
                for place in range(len(tensors))
            ]
            found.update(zip(names, map(self._values, tensors), strict=True))
            made.append(Node(operation.getName(), operation.getType(), (), tuple(names)))
            return True

        self._feed(images)
        self.interpreter.runSessionWithCallBackInfo(self.session, lambda tensors, operation: True, note)
        self.nodes = made
        outputs = self.interpreter.getSessionOutputAll(self.session)
        return found | {name: self._values(tensor) for name, tensor in outputs.items()}

    def own_graph(self, images: Given) -> OwnGraph:
        """Return its operations; MNN does not say what each takes."""
        return OwnGraph(Graph(self.nodes))

    def _feed(self, images: Given) -> None:
        array = only_array(images)
        self.settings.check_shape(array)
        inputs = self.interpreter.getSessionInputAll(self.session)
        if len(inputs) != 1:
            raise CandidateError(f"the model has {len(inputs)} inputs; expected one, the pictures")
        (place,) = inputs.values()
        if tuple(place.getShape()) != array.shape:
            self.interpreter.resizeTensor(place, array.shape)
            self.interpreter.resizeSession(self.session)
        place.copyFromHostTensor(self._host(array.shape, array))

    def _host(self, shape: tuple[int, ...], values: Array) -> Any:
        return self.mnn.Tensor(shape, self.mnn.Halide_Type_Float, values, self.mnn.Tensor_DimensionType_Caffe)

    def _values(self, tensor: Any) -> Array:
        shape = tuple(tensor.getShape())
        host = self._host(shape, np.zeros(math.prod(shape), np.float32))
        if not tensor.copyToHostTensor(host):
            raise CandidateError(f"MNN does not give a tensor of shape {shape}")
        return np.array(host.getNumpyData(), np.float32, copy=True).reshape(shape)


WAYS = ("winograd=on", "winograd=6", "winograd=off", "winograd=off,weights=float16")
MNN_RUNTIME = PhoneRuntime("mnn", "MNN", ".mnn", OPTIONS, MnnCandidate, WAYS)
