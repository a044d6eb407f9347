"""A folder of dumped tensors beside a graph: what a vendor's tool wrote down of one run of it.

Besides the files of `conformance.candidates.dumps` it may hold ``.raw``: little-endian numbers and nothing
else, as Qualcomm's ``qnn-net-run`` and ``snpe-net-run`` write them under ``Result_0``, with names that have
lost their signs and often with channels last. What they are is read from the graph's own tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from conformance.bounds import Declaration
from conformance.bounds.worst_element import absolute_error
from conformance.candidates.arrays import Given
from conformance.candidates.dumps import read_dumps
from conformance.candidates.plain import GraphlessCandidate
from conformance.graph.onnx_graph import OnnxGraph
from refimpl.errors import CandidateError, FileError, first_of
from refimpl.ops.operation import Array

RAW = ".raw"
RUN = "Result_*"
"""Folders of runs, one for each input."""
SIZES: dict[str, dict[int, Any]] = {
    "f": {2: np.float16, 4: np.float32, 8: np.float64},
    "i": {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64},
    "u": {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64},
    "b": {1: np.bool_},
}
"""Kind of a tensor → bytes of an element → how its numbers are written."""


class GraphDumps(GraphlessCandidate):
    """The tensors in a folder, beside the graph that they should be of.

    Parameters
    ----------
    folder
        Nothing but dumps of one run may be in it.
    graph
        Whose tensors they should be.
    declaration
        What they were computed with.

    Raises
    ------
    FileError
        The folder is missing or empty, or a file is of another format.
    """

    reruns = False

    def __init__(self, folder: Path, graph: OnnxGraph, declaration: Declaration | None = None) -> None:
        super().__init__(declaration)
        self.folder = run_folder(folder)
        self.graph = graph
        self.raw = {
            str(path.relative_to(self.folder).with_suffix("")): path
            for path in sorted(self.folder.rglob(f"*{RAW}"))
            if not path.name.startswith(".")
        }
        self.tensors = {} if self.raw else read_dumps(self.folder)

    def fit(self, truths: Mapping[str, Array]) -> None:
        """Read what has no shape of its own as the graph's tensors are.

        Parameters
        ----------
        truths
            Every tensor of the graph on the input that the dumps should be of.

        Raises
        ------
        FileError
            A file is of another length than the tensor of its name, or the dumps are of another model.
        """
        names = {_bare(name): name for name in truths} | {name: name for name in truths}
        own = {name: names.get(name, names.get(_bare(name), "")) for name in (*self.raw, *self.tensors)}
        sizes = {array.size for name, array in truths.items() if name not in self.graph.initializers}
        if self.raw:
            self.tensors = {name: self._read(path, own[name], truths) for name, path in self.raw.items()}
        if not any(own.values()) and not any(array.size in sizes for array in self.tensors.values()):
            listed = ", ".join(first_of(list(self.tensors)))
            raise FileError(
                f"{self.folder}: the dumps are of another model: no tensor of the graph has the name or the "
                f"size of {listed}"
            )
        self.tensors = {own[name] or name: array for name, array in self.tensors.items()}

    def _read(self, path: Path, own: str, truths: Mapping[str, Array]) -> Array:
        """Return a file's numbers as the tensor of the graph is, flat float32 if it has none there."""
        content = path.read_bytes()
        if not own:
            if len(content) % 4:
                raise FileError(f"{path}: its {len(content)} bytes are no float32 numbers")
            return np.frombuffer(content, "<f4").astype(np.float32)
        truth = truths[own]
        width = len(content) // max(truth.size, 1)
        dtype = SIZES[truth.dtype.kind].get(width, truth.dtype)
        if len(content) != truth.size * np.dtype(dtype).itemsize:
            expected = truth.size * (4 if truth.dtype.kind == "f" else truth.itemsize)
            raise FileError(
                f"{path} has {len(content)} bytes; the graph's tensor {own!r} of shape {truth.shape} takes "
                f"{expected}: it is of another model, or of an input of another size"
            )
        written = np.frombuffer(content, np.dtype(dtype).newbyteorder("<"))
        return laid_out(written.astype(dtype), truth)

    def run(self, images: Given) -> dict[str, Array]:
        """Return all tensors but the inputs, if the folder is of these as far as it tells.

        Raises
        ------
        CandidateError
            The folder's own input is another.
        """
        feeds = images if isinstance(images, Mapping) else dict.fromkeys(self.graph.inputs, images)
        for name, array in feeds.items():
            dumped = self.tensors.get(name)
            if dumped is not None and not np.array_equal(dumped.ravel(), array.astype(dumped.dtype).ravel()):
                raise CandidateError(
                    f"the dumps in {self.folder} are of another input: {name!r} differs from the one judged"
                )
        return {name: array for name, array in self.tensors.items() if name not in feeds}


def run_folder(folder: Path) -> Path:
    """Return the folder of the one run that a tool's output folder holds, or the folder itself.

    Raises
    ------
    FileError
        It is missing, or holds several runs.
    """
    if not folder.is_dir():
        raise FileError(f"{folder}: there is no such folder of dumps")
    runs = sorted(path for path in folder.glob(RUN) if path.is_dir())
    if len(runs) > 1:
        raise FileError(f"{folder} holds {len(runs)} runs; name one, as {runs[0]}, and the --input it is of")
    return runs[0] if runs else folder


def laid_out(values: Array, truth: Array) -> Array:
    """Return flat numbers in a tensor's shape, as they stand or with channels last: the nearer."""
    standing = values.reshape(truth.shape)
    if truth.ndim < 3:
        return standing
    last = (truth.shape[0], *truth.shape[2:], truth.shape[1])
    moved = np.moveaxis(values.reshape(last), -1, 1)
    return min((standing, moved), key=lambda x: float(absolute_error(x, truth).sum()))


def _bare(name: str) -> str:
    """Return a name without its signs, as tools write it."""
    return re.sub(r"\W", "_", name).lstrip("_")
