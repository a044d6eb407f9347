"""The vocabulary as an ONNX backend, so that ONNX's own conformance suite can run against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import DTypeLike
from onnx.backend.base import Backend, BackendRep, DeviceType

from conformance.graph.onnx_graph import OnnxGraph, evaluate
from refimpl.errors import MobileInstError, ShapeError
from refimpl.ops.operation import Array


class PreparedGraph(BackendRep):
    """A graph ready to run.

    Parameters
    ----------
    graph : OnnxGraph
    dtype : float dtype, optional
        Replay in at least this precision, as in `conformance.graph.onnx_graph.evaluate`.
    """

    def __init__(self, graph: OnnxGraph, dtype: DTypeLike | None = None) -> None:
        self.graph = graph
        self.dtype = dtype

    def run(self, inputs: Mapping[str, Array] | Sequence[Array], **_: Any) -> tuple[Array, ...]:
        """Return the outputs of the graph, given its inputs by name or in order.

        Raises
        ------
        ShapeError
            The number of inputs, or one of them, does not fit.
        """
        if not isinstance(inputs, Mapping):
            if len(inputs) != len(self.graph.inputs):
                raise ShapeError(
                    f"{len(inputs)} inputs given; the graph takes {', '.join(self.graph.inputs)}"
                )
            inputs = dict(zip(self.graph.inputs, (np.asarray(array) for array in inputs), strict=True))
        tensors = evaluate(self.graph, inputs, self.dtype, keep=list(self.graph.outputs))
        return tuple(tensors[name] for name in self.graph.outputs)


class ReferenceBackend(Backend):
    """`onnx.backend.base.Backend` over `conformance.graph.onnx_graph`."""

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **_: Any) -> bool:
        """Tell whether the graph can be prepared: all its operators and types are in the vocabulary."""
        try:
            OnnxGraph.load(model)
        except MobileInstError:
            return False
        return cls.supports_device(device)

    @classmethod
    def prepare(
        cls, model: onnx.ModelProto, device: str = "CPU", dtype: DTypeLike | None = None, **_: Any
    ) -> PreparedGraph:
        """Return the graph ready to run."""
        return PreparedGraph(OnnxGraph.load(model), dtype)

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Sequence[Array],
        device: str = "CPU",
        outputs_info: Any = None,
        **options: Any,
    ) -> tuple[Array, ...]:
        """Run a single node of the latest operator set (or ``opset_version``) and return its outputs."""
        opset = options.get("opset_version", onnx.defs.onnx_opset_version())
        arrays = [np.asarray(array) for array in inputs]
        names = [name for name in node.input if name]
        declared = [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in zip(names, arrays, strict=True)
        ]
        made = [onnx.ValueInfoProto(name=name) for name in node.output if name]
        for info in made:
            info.type.tensor_type.elem_type = 0
        graph = onnx.helper.make_graph([node], node.op_type, declared, made)
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
        return cls.prepare(model, device).run(arrays)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Tell whether the device is the CPU, the only one there is."""
        return bool(onnx.backend.base.Device(device).type == DeviceType.CPU)
