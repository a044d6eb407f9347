"""`lint` for the runtimes of phones: by their own converters and lists of operators, as they are installed.

What a converter writes is looked through, and its meaning compared where it can be read; of ExecuTorch, whose
converter takes minutes, the list of kernels is read alone.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx

from conformance.candidates.child_process import safe_environment
from conformance.candidates.converters import CONVERTERS, LONGEST, convert
from conformance.conversion.mnn_graph import mnn_graph
from conformance.conversion.mnn_model import read_mnn
from conformance.conversion.ncnn_graph import ncnn_graph
from conformance.conversion.ncnn_model import read_ncnn
from conformance.graph.findings import CHANGES, FAILS, UNJUDGED, Finding
from conformance.graph.onnx_file import read_model
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.against import verify_against
from conformance.judge.aten_kernels import kernels_missing
from conformance.pictures.graph_inputs import described, graph_inputs
from refimpl.errors import FileError, MissingDependencyError, MobileInstError, UnsupportedOperationError

Meaning = Callable[[Mapping[str, Sequence[int]], Sequence[str]], onnx.ModelProto]
"""The source's inputs and outputs → what a converted model means."""
INSTEAD = "express it by operators that are listed, or leave it to what runs after the network"


@dataclass(frozen=True)
class Target:
    """Where a model is to run.

    Attributes
    ----------
    package
        The distribution that says what is taken.
    module
        What it is imported as.
    install
        What pip is told.
    findings
        Of an ONNX file.
    """

    package: str
    module: str
    install: str
    findings: Callable[[Path], list[Finding]]


def lint_for_target(name: str, path: Path) -> list[Finding]:
    """Return what in a model will break or silently change on a target, in graph order.

    Parameters
    ----------
    name
        One of `TARGETS`.
    path
        The ONNX file; it may hold any operator.

    Raises
    ------
    FileError
        The file is missing or no ONNX model.
    MissingDependencyError
        What says so is not installed.
    """
    read_model(path)
    target = TARGETS[name]
    if importlib.util.find_spec(target.module) is None:
        raise MissingDependencyError(f"{target.package} is not installed: pip install {target.install}")
    return target.findings(path)


def said_by(name: str) -> str:
    """Return the distribution, with its version, that says what a target takes."""
    package = TARGETS[name].package
    return f"{package} {importlib.metadata.version(package)}"


def _place(module: str) -> Path:
    """Return the folder of an installed package, which is not imported."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    return Path(next(iter(spec.submodule_search_locations or ())))


def _unlisted(path: Path, listed: set[str], package: str) -> list[Finding]:
    """Return a finding for each node, those of subgraphs too, whose operator is not listed."""
    happens = f"{package} has no such operator"
    return [
        Finding("operator", f"{node.op_type} {node.name!r}", FAILS, happens, INSTEAD)
        for node in _nodes(read_model(path).graph)
        if node.op_type not in listed
    ]


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _mnn(path: Path) -> list[Finding]:
    """Look for operators that MNN's converter does not list; convert, and compare what the others mean."""
    unlisted = _unlisted(path, _operators_of_mnn(), "MNN's converter")
    if unlisted:
        return unlisted
    with tempfile.TemporaryDirectory(prefix="lint-") as folder:
        try:
            model = read_mnn(convert(CONVERTERS["mnn"], path, Path(folder) / "model.mnn")[0])
        except UnsupportedOperationError as error:
            return [_unknown(error, "MODEL.mnn")]
        except FileError as error:
            return [Finding("refused", "model", FAILS, str(error), INSTEAD)]
    return _other_meaning(path, "MNN's", "MODEL.mnn", partial(mnn_graph, model))


def _operators_of_mnn() -> set[str]:
    """Return what MNN's converter prints when it is asked."""
    program = "import MNN, _tools; _tools.mnnconvert(['mnnconvert', '--OP', '-f', 'ONNX'])"
    try:
        told = subprocess.run(
            [sys.executable, "-P", "-c", program],
            capture_output=True,
            text=True,
            env=safe_environment(),
            timeout=LONGEST,
            check=False,
        ).stdout
    except subprocess.TimeoutExpired as error:
        raise FileError(f"MNN's converter hangs: it has not ended within {LONGEST:g} s") from error
    found = set(re.findall(r"^\w+$", told, re.MULTILINE))
    if not found:
        raise FileError("MNN's converter does not list its operators; is this another version?")
    return found


def _litert(path: Path) -> list[Finding]:
    """Convert a model; name the nodes, those of branches too, for which PyTorch's words are lacking."""
    refused = _refused("litert", path)
    said = _UNTRANSLATED.search(refused[0].happens) if refused else None
    if said is None:
        return refused
    known = {node.op_type for node in _nodes(read_model(path).graph)} - {*said[1].split(", ")}
    return _unlisted(path, known, "litert-torch, which takes PyTorch modules,") or refused


_UNTRANSLATED = re.compile(r"not translated to PyTorch: (\w+(?:, \w+)*)")


def _openvino(path: Path) -> list[Finding]:
    return _refused("openvino", path)


def _refused(runtime: str, path: Path) -> list[Finding]:
    """Convert a model, and return what the converter says against it."""
    with tempfile.TemporaryDirectory(prefix="lint-") as folder:
        try:
            convert(CONVERTERS[runtime], path, Path(folder) / f"model{CONVERTERS[runtime].suffixes[0]}")
        except FileError as error:
            return [Finding("refused", "model", FAILS, str(error), INSTEAD)]
    return []


def _ncnn(path: Path) -> list[Finding]:
    """Convert a model, look for layers that ncnn does not have, and compare what the others mean."""
    import ncnn

    with tempfile.TemporaryDirectory(prefix="lint-") as folder:
        param = Path(folder) / "model.param"
        try:
            convert(CONVERTERS["ncnn"], path, param)
            layers = read_ncnn(param)
        except FileError as error:
            return [Finding("refused", "model", FAILS, str(error), INSTEAD)]
    happens = "pnnx leaves it as it is, and ncnn has no such layer"
    unknown = [
        Finding("layer", f"{layer.kind} {layer.name!r}", FAILS, happens, INSTEAD)
        for layer in layers
        if ncnn.layer_to_index(layer.kind) < 0
    ]
    meaning = partial(ncnn_graph, layers)
    return unknown or _other_meaning(path, "ncnn's", "MODEL.param", meaning)


def _unknown(error: UnsupportedOperationError, file: str) -> Finding:
    happens = f"what it becomes is not known: {error}"
    return Finding("meaning", "model", UNJUDGED, happens, _SHOWN.format(file))


_SHOWN = "mobileinst verify {} --against MODEL.onnx shows where"


def _other_meaning(path: Path, whose: str, file: str, meaning: Meaning) -> list[Finding]:
    """Compare a conversion with its source in float64, on a random input."""
    instead = _SHOWN.format(file)
    try:
        before = OnnxGraph.load(path)
        feeds = graph_inputs(before, [], [], 0)
        shapes = {name: list(array.shape) for name, array in feeds.items()}
        after = OnnxGraph.load(meaning(shapes, list(before.outputs)))
        inputs = {described(feeds): feeds}
        report = verify_against(after, before, inputs, names=(whose, path.name), partly=True)
    except UnsupportedOperationError as error:
        return [_unknown(error, file)]
    except MobileInstError as error:
        return [Finding("meaning", "model", CHANGES, f"it becomes another model: {error}", instead)]
    if report.verdict != "fail":
        return []
    return [Finding("meaning", "model", CHANGES, report.headline().partition("  ")[2], instead)]


def _executorch(path: Path) -> list[Finding]:
    """Compare with the portable kernels what PyTorch's operators of the model come down to."""
    listed = (_place("executorch") / "kernels" / "portable" / "functions.yaml").read_text(encoding="utf-8")
    kernels = set(re.findall(r"^- op: ([\w:]+)", listed, re.MULTILINE))
    return kernels_missing(OnnxGraph.load(path, partly=True), kernels)


TARGETS = {
    "ncnn": Target("pnnx", "pnnx", "'mobileinst-reference[ncnn]'", _ncnn),
    "mnn": Target("MNN", "MNN", "'mobileinst-reference[mnn]'", _mnn),
    "openvino": Target("openvino", "openvino", "'mobileinst-reference[openvino]'", _openvino),
    "litert": Target("litert-torch", "litert_torch", "'mobileinst-reference[litert]'", _litert),
    "executorch": Target("executorch", "executorch", "'mobileinst-reference[executorch]'", _executorch),
}
"""Name → where a model is to run."""
