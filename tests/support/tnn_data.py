"""Files the real converter and runtime wrote, unpacked once per test run."""

from __future__ import annotations

import functools
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from conformance.tnn.graph import TnnGraph, read_graph
from conformance.tnn.text import read_input, read_output

_ARCHIVES = Path(__file__).parents[1] / "data" / "tnn"
#: Graphs whose conversion lost their meaning, and the rule that says why.
TRAP_OF = {
    "avgpool3_p1_incl": "average-pool-counts-padding",
    "resize_asym": "resize-asymmetric-linear",
    "softmax_default_axis": "softmax-default-axis",
}
_TEMPORARY = tempfile.TemporaryDirectory(prefix="tnn-")


@functools.cache
def unpacked(archive: str) -> Path:
    """Return the folder with the contents of ``<archive>.tar.xz``: ops, more, arm or mha_dumps."""
    with tarfile.open(_ARCHIVES / f"{archive}.tar.xz") as content:
        # Python 3.11.2, that of Debian 12, has no filters.
        options = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        content.extractall(_TEMPORARY.name, **options)
    return Path(_TEMPORARY.name)


@functools.cache
def graph_names(archive: str = "ops") -> list[str]:
    """Return the names of the small graphs of ops or more; names of more begin with ``more/``."""
    prefix = "more/" if archive == "more" else ""
    return sorted(prefix + path.stem for path in (unpacked(archive) / archive).glob("*.tnnproto"))


def file(name: str, suffix: str) -> Path:
    """Return ``ops/<name><suffix>``, or of ``more/<name>`` that file."""
    archive, _, stem = name.rpartition("/")
    return unpacked(archive or "ops") / (archive or "ops") / f"{stem}{suffix}"


def graph(name: str) -> TnnGraph:
    """Return a small graph."""
    return read_graph(file(name, ".tnnproto"))


def inputs(name: str) -> dict[str, NDArray[np.float32]]:
    """Return the inputs the runtime was given."""
    shapes = {declaration.name: declaration.dims for declaration in graph(name).proto.inputs}
    return read_input(file(name, ".in.txt"), shapes)


def naive_outputs(name: str) -> dict[str, NDArray[np.float32]]:
    """Return what the runtime computed on its device NAIVE."""
    return read_output(file(name, ".NAIVE.out"))
