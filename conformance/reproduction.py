"""The failing step as a folder that anyone can run: a minimal model, its inputs, what came out and what
should have."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from conformance.bounds import Format, Runtime, introduced_bounds
from conformance.graph_inputs import read_array
from conformance.graph_judgement import judge_nodes
from conformance.onnx_file import Node
from conformance.onnx_graph import OnnxGraph, evaluate_node
from conformance.onnx_runtime import OnnxRuntimeGraph
from conformance.report import Comparison, Report
from conformance.submodel import submodel
from conformance.verification import Declaration
from refimpl.errors import FileError, ShapeError
from refimpl.ops.operation import Array

MODEL = "step.onnx"


def write_node(
    folder: Path, graph: OnnxGraph, node: Node, known: Mapping[str, Array], declaration: Declaration
) -> str:
    """Write a failing node of a graph as a folder, whole or not at all.

    Parameters
    ----------
    folder
        Does not exist yet, or is empty.
    graph, node
        The node and its graph.
    known
        The inputs and the tensors that were captured, by name.
    declaration
        What the candidate is declared to compute with.

    Returns
    -------
    str
        The command that shows the step again, run in a shell.

    Raises
    ------
    FileError
        The folder cannot be written, or is not empty.
    ShapeError
        The node's operands or outputs were not captured.
    """
    fixed = {**graph.initializers, **known}
    missing = [name for name in (*node.inputs, *node.outputs) if name and name not in fixed]
    if missing:
        raise ShapeError(f"{node.name}: {', '.join(missing)} was not captured; nothing to reproduce")
    model, fed = submodel(graph, [node], fixed, [name for name in node.outputs if name])
    operands = [_widened(fixed[name]) if name else None for name in node.inputs]
    truths = evaluate_node(node, operands, np.float64)
    bounds = _bounds(node, operands, truths, declaration.arithmetic, declaration.storage, declaration.runtime)
    files = {f"input_{place}.npy": fixed[name] for place, name in enumerate(fed)}
    for name, truth, bound in zip(node.outputs, truths, bounds, strict=False):
        if name:
            place = node.outputs.index(name)
            files |= {f"candidate_{place}.npy": fixed[name], f"truth_{place}.npy": truth}
            files |= {f"bound_{place}.npy": bound} if bound is not None else {}
    command = _command(folder, fed, declaration)
    _write_folder(folder, model, files, _readme(node, fed, command))
    return command


def _widened(array: Array) -> Array:
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _bounds(
    node: Node,
    operands: Sequence[Array | None],
    truths: tuple[Array, ...],
    arithmetic: Format,
    storage: Format,
    runtime: Runtime,
) -> tuple[Array | None, ...]:
    return introduced_bounds(
        node.op_type, operands, node.attributes, truths, arithmetic, storage, runtime=runtime
    )


def _command(folder: Path, fed: Sequence[str], declaration: Declaration) -> str:
    words = ["mobileinst", "verify", str(folder / MODEL), "--graph-only"]
    for place, name in enumerate(fed):
        words += ["--input", f"{name}={folder / f'input_{place}.npy'}"]
    words += ["--format", declaration.arithmetic.name, "--storage", declaration.storage.name]
    return shlex.join([*words, "--recorded", str(folder)])


def _readme(node: Node, fed: Sequence[str], command: str) -> str:
    inputs = "\n".join(f"- `input_{place}.npy`: operand `{name}`" for place, name in enumerate(fed))
    return f"""# {node.op_type} {node.name}

One step that introduced more error than rounding may.

    {command}

- `{MODEL}`: the step alone, its weights in it
{inputs}
- `candidate_N.npy`: what the candidate made of them, output N
- `truth_N.npy`: what the step is in float64 on the same operands
- `bound_N.npy`: how far rounding may carry each element; |candidate − truth| must not be larger

Without `--recorded` the installed ONNX Runtime computes the step anew.
"""


def _write_folder(folder: Path, model: onnx.ModelProto, files: Mapping[str, Array], readme: str) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileError(f"{folder}: exists and is no empty folder; name a new one")
    temporary = folder.with_name(f".{secrets.token_hex(8)}")
    try:
        temporary.mkdir(parents=True)
        (temporary / MODEL).write_bytes(model.SerializeToString())
        for name, array in files.items():
            np.save(temporary / name, array, allow_pickle=False)
        (temporary / "README.md").write_text(readme, encoding="utf-8")
        os.replace(temporary, folder)
    except OSError as error:
        raise FileError(f"cannot write {folder}: {error.strerror or error}; choose another folder") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class RecordedStep:
    """A step that `write_node` wrote, as a candidate: it answers with what was recorded.

    Parameters
    ----------
    graph
        The step's model.
    folder
        Where its outputs are.
    declaration
        The arithmetic it is judged by.
    """

    def __init__(self, graph: OnnxGraph, folder: Path, declaration: Declaration) -> None:
        self.graph = graph
        self.declaration = declaration
        outputs = [name for node in graph.nodes for name in node.outputs]
        self.tensors = {
            name: read_array(folder / f"candidate_{place}.npy") for place, name in enumerate(outputs) if name
        }

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the recorded outputs, whatever is fed."""
        return {name: self.tensors[name] for name in self.graph.outputs}

    def capture(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the recorded outputs."""
        return dict(self.tensors)

    def judge(self, feeds: Mapping[str, Array], tensors: Mapping[str, Array]) -> list[Comparison]:
        """Judge them as the step's results."""
        declared = self.declaration
        return judge_nodes(
            self.graph,
            feeds,
            tensors,
            arithmetic=declared.arithmetic,
            storage=declared.storage,
            runtime=declared.runtime,
        )


def reproduce(
    folder: Path, report: Report, candidate: OnnxRuntimeGraph, feeds: Mapping[str, Array]
) -> str | None:
    """Write the first node that a runtime computes wrongly as a folder.

    Returns
    -------
    str or None
        The command that shows it again; None if the report has no such node.
    """
    fault = report.leading.first_fault
    if fault is None or fault.question != "graph":
        return None
    graph = candidate.graph
    node = next(
        node for node in graph.nodes if node.name in fault.candidate_nodes or fault.step in node.outputs
    )
    return write_node(folder, graph, node, {**feeds, **candidate.capture(feeds)}, candidate.declaration)
