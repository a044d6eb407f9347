"""LiteRT (extra ``litert``): a ``.tflite``, every operator's results captured, with XNNPACK or without."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from conformance.bounds import FLOAT16, FLOAT32, INT8, LITERT, LITERT_DYNAMIC, Declaration, Format
from conformance.candidates.arrays import Given
from conformance.candidates.candidate import OwnGraph
from conformance.candidates.phone_runtime import (
    DYNAMIC,
    STATIC,
    SWITCH,
    THREADS,
    PhoneCandidate,
    PhoneRuntime,
    RuntimeOption,
)
from conformance.conversion.litert_model import LitertModel, read_litert, stored_in_litert
from conformance.conversion.stored_weight import StoredWeight
from refimpl.graph import Graph, Node

WEIGHTS: dict[str, Format | None] = {
    "float32": None,
    "float16": FLOAT16,
    "int8": INT8,
    DYNAMIC: INT8,
    STATIC: INT8,
}
OPTIONS = (
    THREADS,
    RuntimeOption("xnnpack", "on", "XNNPACK's kernels; off: LiteRT's own", SWITCH),
    RuntimeOption(
        "weights",
        "float32",
        "of the file, widened when used; int8: by output channel; int8-dynamic: not widened, what they are "
        "multiplied by is made integers, too; int8-static: all is of integers, with --graph-only",
        tuple(WEIGHTS),
    ),
)


class LitertCandidate(PhoneCandidate):
    """A model in LiteRT, as users run it and with all of its tensors kept.

    Parameters and errors as of `PhoneCandidate`; a file that is cut off is a `FileError`.
    """

    @property
    def declaration(self) -> Declaration:
        """Float32 arithmetic and tensors; weights as declared."""
        weights = self.settings.values["weights"]
        runtime = LITERT_DYNAMIC if weights == DYNAMIC else LITERT
        return Declaration(FLOAT32, FLOAT32, runtime, WEIGHTS[weights], self.read)

    @property
    def stored(self) -> Iterable[StoredWeight]:
        """The constants of the model."""
        weights = self.settings.values["weights"]
        return stored_in_litert(self.model) if weights in ("int8", DYNAMIC) else ()

    def check_files(self, files: Sequence[Path]) -> None:
        """Read the model: LiteRT itself reads beyond a file that is cut off."""
        super().check_files(files)
        self.model = read_litert(files[0])
        self.check_integers(_integers(self.model))

    @property
    def said(self) -> dict[str, Any]:
        """Threads, kernels, and where its tensors are: outputs by the names of the signature."""
        made = [place for each in self.model.operators for place in each.outputs]
        return {
            "threads": self.settings.threads,
            "xnnpack": self.settings.is_on("xnnpack"),
            "outputs": self.model.outputs,
            "tensors": {self.model.names[place]: place for place in made},
        }

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


def _integers(model: LitertModel) -> str:
    """Return the weights that a model should be declared to have, if of integers."""
    if model.integers:
        return STATIC
    held = {place for place, array in model.constants.items() if array.dtype == np.int8}
    takers = {each.kind for each in model.operators if not held.isdisjoint(each.inputs)}
    return DYNAMIC if takers - {"DEQUANTIZE"} else "int8" if takers else ""


WAYS = ("xnnpack=on", "xnnpack=off", "weights=float16", "weights=int8", "weights=int8-dynamic")
LITERT_RUNTIME = PhoneRuntime("litert", "ai_edge_litert", ".tflite", OPTIONS, LitertCandidate, WAYS)
