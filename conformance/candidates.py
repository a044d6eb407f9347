"""Candidates: implementations under test, run on an input and asked for their tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime

from conformance.bounds import ONNX_RUNTIME
from conformance.graph_judgement import judge_nodes
from conformance.onnx_graph import OnnxGraph
from conformance.report import Comparison
from conformance.verification import Declaration
from refimpl.errors import CandidateError, ShapeError
from refimpl.ops.operation import Array


@dataclass(frozen=True)
class GraphInput:
    """The candidate's only input: its name and shape, None where an axis is bound by what is given."""

    name: str
    shape: tuple[int | None, ...]

    def check(self, images: Array) -> None:
        """Raise `ShapeError` unless an array of that shape can be fed."""
        fits = len(images.shape) == len(self.shape) and all(
            wanted in (None, given) for wanted, given in zip(self.shape, images.shape, strict=True)
        )
        if not fits:
            wanted = tuple("any" if size is None else size for size in self.shape)
            raise ShapeError(
                f"the candidate's input {self.name!r} takes shape {wanted}, but the input given has {images.shape}"
            )


class OnnxRuntimeCandidate:
    """An ONNX model in ONNX Runtime, on the CPU.

    Parameters
    ----------
    graph
        The model, read and checked.
    threads
        Threads within an operator; 0 lets the runtime choose.
    """

    def __init__(self, graph: OnnxGraph, threads: int = 0) -> None:
        self.graph = graph
        self.threads = threads
        self.input = self._only_input()
        self.declaration = Declaration(runtime=ONNX_RUNTIME)

    def _only_input(self) -> GraphInput:
        inputs = list(self.graph.inputs.items())
        if len(inputs) != 1:
            raise CandidateError(
                f"the model has {len(inputs)} inputs ({', '.join(name for name, _ in inputs) or 'none'}); "
                "expected one, the normalised images (batch, 3, height, width)"
            )
        name, info = inputs[0]
        if info.shape is None or len(info.shape) != 4:
            raise CandidateError(f"the model's input {name!r} has shape {info.shape}; expected (batch, 3, height, width)")
        return GraphInput(name, tuple(size if isinstance(size, int) else None for size in info.shape))

    def run(self, images: Array) -> dict[str, Array]:
        """Run the model as users do, fully optimised, and return its outputs by name.

        Raises
        ------
        ShapeError, CandidateError
            The input does not fit, or the runtime fails.
        """
        return self._run(self.graph.model, images, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)

    def capture(self, images: Array) -> dict[str, Array]:
        """Run the model unoptimised and return the tensor of every node's output by name, in topological order."""
        model = onnx.ModelProto()
        model.CopyFrom(self.graph.model)
        exposed = {output.name for output in model.graph.output}
        for node in model.graph.node:
            for name in node.output:
                if name and name not in exposed:
                    model.graph.output.append(onnx.ValueInfoProto(name=name))
                    exposed.add(name)
        tensors = self._run(model, images, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
        return {name: tensors[name] for node in model.graph.node for name in node.output if name}

    def judge(self, images: Array, tensors: Mapping[str, Array]) -> list[Comparison]:
        """Replay every node in float64 on the tensors it was fed, and judge what the runtime made of them."""
        declared = self.declaration
        return judge_nodes(
            self.graph,
            {self.input.name: images},
            tensors,
            arithmetic=declared.arithmetic,
            storage=declared.storage,
            runtime=declared.runtime,
        )

    def nodes_between(self, tensor: str, known: set[str]) -> list[str]:
        """Return the nodes, in order, that compute ``tensor`` from ``known`` tensors and constants."""
        producers = {name: node for node in self.graph.nodes for name in node.outputs if name}
        waiting, found = [tensor], set()
        while waiting:
            node = producers.get(waiting.pop())
            if node is not None and node.name not in found:
                found.add(node.name)
                waiting += [name for name in node.inputs if name not in known]
        return [node.name for node in self.graph.nodes if node.name in found]

    def _run(self, model: onnx.ModelProto, images: Array, level: onnxruntime.GraphOptimizationLevel) -> dict[str, Array]:
        self.input.check(images)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 4
        try:
            session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            arrays = session.run(None, {self.input.name: images.astype(np.float32)})
        except Exception as error:  # ONNX Runtime raises its own unrelated types
            first_line = str(error).strip().splitlines()[0]
            raise CandidateError(f"ONNX Runtime cannot run the model on an input of shape {images.shape}: {first_line}") from error
        return dict(zip((output.name for output in session.get_outputs()), arrays, strict=True))
