"""LiteRT (extra ``litert``): a ``.tflite``, every operator's results captured, with XNNPACK or without."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np

from conformance.bounds import FLOAT16, FLOAT32, INT8, LITERT, Declaration, Format
from conformance.candidates.arrays import Given, first_line
from conformance.candidates.candidate import Candidate, OwnGraph
from conformance.candidates.phone_runtime import (
    SWITCH,
    THREADS,
    PhoneRuntime,
    RuntimeOption,
    Settings,
    only_array,
)
from conformance.conversion.litert_model import read_litert
from refimpl.errors import CandidateError, ConfigurationError, ShapeError
from refimpl.graph import Graph, Node
from refimpl.ops.operation import Array

WEIGHTS: dict[str, Format | None] = {"float32": None, "float16": FLOAT16, "int8": INT8}
OPTIONS = (
    THREADS,
    RuntimeOption("xnnpack", "on", "XNNPACK's kernels; off: LiteRT's own", SWITCH),
    RuntimeOption(
        "weights",
        "float32",
        "of the file, widened when used; int8: by output channel",
        tuple(WEIGHTS),
    ),
)


class LitertCandidate(Candidate):
    """A model in LiteRT, as users run it and with all of its tensors kept.

    Parameters
    ----------
    package
        The Python module ``ai_edge_litert``.
    settings
        The ``.tflite`` and the options.

    Raises
    ------
    FileError
        It is no model of LiteRT, or cut off.
    ConfigurationError
        LiteRT lacks an operator of it, or it takes several inputs.
    """

    captures_all = True
    fusion_reach = 8

    def __init__(self, package: Any, settings: Settings) -> None:
        self.settings = settings
        # Read first: LiteRT itself reads beyond a file that is cut off.
        self.model = read_litert(settings.model)
        self.runtime = importlib.import_module(f"{package.__name__}.interpreter")
        self.shipped = self._interpreter(keep=False)
        self.kept: Any = None

    @property
    def declaration(self) -> Declaration:
        """Float32 arithmetic and tensors; weights as declared."""
        return Declaration(FLOAT32, FLOAT32, LITERT, WEIGHTS[self.settings.values["weights"]])

    def run(self, images: Given) -> dict[str, Array]:
        """Return the outputs by the names of the signature, as users run it."""
        self._invoke(self.shipped, images)
        return {name: self._values(self.shipped, place) for name, place in self.model.outputs.items()}

    def capture(self, images: Given) -> dict[str, Array]:
        """Return every operator's results; keeping them makes XNNPACK compute operator by operator."""
        if self.kept is None:
            self.kept = self._interpreter(keep=True)
        self._invoke(self.kept, images)
        made = [place for each in self.model.operators for place in each.outputs]
        found = {self.model.names[place]: self._values(self.kept, place) for place in made}
        return found | {name: self._values(self.kept, place) for name, place in self.model.outputs.items()}

    def own_graph(self, images: Given) -> OwnGraph:
        """Return its operators."""
        names = self.model.names
        nodes = [
            Node(
                f"{each.kind}_{number}",
                each.kind,
                tuple(names[place] for place in each.inputs if place >= 0),
                tuple(names[place] for place in each.outputs),
            )
            for number, each in enumerate(self.model.operators)
        ]
        return OwnGraph(Graph(nodes))

    def _interpreter(self, keep: bool) -> Any:
        kinds = self.runtime.OpResolverType
        plain = kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        with warnings.catch_warnings(action="ignore"):  # keeping all tensors takes memory
            try:
                interpreter = self.runtime.Interpreter(
                    str(self.settings.model),
                    num_threads=self.settings.threads,
                    experimental_op_resolver_type=kinds.AUTO if self.settings.is_on("xnnpack") else plain,
                    experimental_preserve_all_tensors=keep,
                )
                interpreter.allocate_tensors()
            except (ValueError, RuntimeError) as error:
                raise ConfigurationError(
                    f"LiteRT refuses {self.settings.model}: {first_line(error)}"
                ) from error
        return interpreter

    def _invoke(self, interpreter: Any, images: Given) -> None:
        array = only_array(images)
        self.settings.check_shape(array)
        given = interpreter.get_input_details()
        if len(given) != 1:
            raise CandidateError(f"the model has {len(given)} inputs; expected one, the pictures")
        wanted = tuple(int(side) for side in given[0]["shape"])
        if wanted != array.shape and array.ndim == len(wanted) == 4:
            array = np.ascontiguousarray(array.transpose(0, 2, 3, 1))
        if wanted != array.shape:
            raise ShapeError(
                f"{self.settings.model} takes {wanted}, but the input given has {only_array(images).shape}"
            )
        interpreter.set_tensor(given[0]["index"], array)
        interpreter.invoke()

    def _values(self, interpreter: Any, place: int) -> Array:
        return np.array(interpreter.get_tensor(place), copy=True)


WAYS = ("xnnpack=on", "xnnpack=off", "weights=float16", "weights=int8")
LITERT_RUNTIME = PhoneRuntime("litert", "ai_edge_litert", ".tflite", OPTIONS, LitertCandidate, WAYS)
