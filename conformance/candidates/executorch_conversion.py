"""ExecuTorch's own converter called on an ONNX file, in a process of its own.

It takes exported PyTorch modules: the graph's nodes in PyTorch's words are one.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conformance.candidates.child_process import end_with_starter
from conformance.candidates.module_to_convert import calibrating, module_and_inputs
from conformance.candidates.phone_runtime import STATIC
from conformance.graph.pytorch_replay import import_torch
from refimpl.errors import ConfigurationError


def write_executorch(source: Path, target: Path, weights: str, delegate: str) -> None:
    """Convert an ONNX file, for inputs of the shapes that it declares.

    Parameters
    ----------
    source, target
    weights
        ``float32``; ``int8-dynamic``: convolutions' and matrices' of integers, and what they are multiplied
        by made such as it runs; ``int8-static``: all that XNNPACK's quantiser knows is of integers, by ranges
        of what `calibrating` gives.
    delegate
        One of `conformance.conversion.executorch_model.DELEGATES`.

    Raises
    ------
    UnsupportedOperationError
        PyTorch has no word for some nodes.
    ShapeError
        An axis of an input has no length.
    ConfigurationError
        What is of integers should be handed to XNNPACK as a whole; or its quantiser makes none.
    """
    if weights == STATIC and delegate == "xnnpack-whole":
        raise ConfigurationError(f"{STATIC} is not for delegate={delegate}: its integers are not read")
    from executorch import exir

    module, given = module_and_inputs(source)
    torch = import_torch()
    with torch.no_grad():
        program = torch.export.export(module, given)
        if weights != "float32":
            dynamic = weights != STATIC
            inputs = [given] if dynamic else [(torch.from_numpy(each),) for each in calibrating(source)]
            program = torch.export.export(_of_integers(program.module(), inputs, dynamic), given)
    if delegate == "portable":
        edge = exir.to_edge(program)
    else:
        edge = exir.to_edge_transform_and_lower(program, partitioner=[_partitioner(delegate == "xnnpack")])
    target.write_bytes(edge.to_executorch().buffer)


def _of_integers(module: Any, inputs: Sequence[tuple[Any, ...]], dynamic: bool) -> Any:
    """Return a module of integers, by XNNPACK's quantiser, or of products that make them as they run."""
    importlib.import_module("executorch.kernels.quantized")  # which declares their kernels
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer
    from torchao.quantization.pt2e import quantize_pt2e

    torch = import_torch()
    # Batch norms are folded into parameters, which ours are not.
    for name, held in list(module.named_buffers()):
        place, _, own = name.rpartition(".")
        delattr(module.get_submodule(place), own)
        kept = torch.nn.Parameter(held, requires_grad=False)
        module.get_submodule(place).register_parameter(own, kept)
    if dynamic:
        _as_linear(module)
    how = xnnpack_quantizer.get_symmetric_quantization_config(is_per_channel=True, is_dynamic=dynamic)
    prepared = quantize_pt2e.prepare_pt2e(module, xnnpack_quantizer.XNNPACKQuantizer().set_global(how))
    for each in inputs:
        prepared(*each)
    made = quantize_pt2e.convert_pt2e(prepared)
    if not any("quantize" in str(node.target) for node in made.graph.nodes):
        raise ConfigurationError("XNNPACK's quantiser makes integers of nothing of it")
    return made


def _as_linear(module: Any) -> None:
    """Write products with matrices that are parameters as the quantiser knows them."""
    aten = import_torch().ops.aten
    for node in list(module.graph.nodes):
        if node.target == aten.matmul.default and (turned := _turned(module, node)) is not None:
            node.target, node.args = aten.linear.default, (node.args[0], turned)
    module.recompile()


def _turned(module: Any, node: Any) -> Any:
    """Return the second factor with its axes swapped, if it is a matrix that is a parameter; else None."""
    torch, matrix = import_torch(), node.args[1]
    if matrix.target == torch.ops.aten.permute.default and [*matrix.args[1]] == [1, 0]:
        return matrix.args[0] if matrix.args[0].op == "get_attr" else None
    held = module.get_parameter(matrix.target) if matrix.op == "get_attr" else None
    if held is None or held.ndim != 2:
        return None
    own = f"{node.name}_turned"
    module.register_parameter(own, torch.nn.Parameter(held.T.contiguous(), requires_grad=False))
    with module.graph.inserting_before(node):
        return module.graph.get_attr(own)


def _partitioner(alone: bool) -> Any:
    """Return what says what XNNPACK is handed: each operation alone, or as many as it can in one.

    ``exir.backend.backend_api.to_backend`` cuts one part after the other out of the graph that it gets back;
    ``torch.fx.passes.tools_common.legalize_graph`` sets the graph anew each time, which writes the Python of
    all of it and of every part cut out so far. Nobody runs that Python: a new module is made of the graph in
    the end.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    class Partitioner(XnnpackPartitioner):
        def partition(self, exported_program: Any) -> Any:
            result = super().partition(exported_program)
            result.tagged_exported_program.graph_module.recompile = lambda: None
            return result

    return Partitioner(per_op_mode=alone)


if __name__ == "__main__":
    end_with_starter()
    write_executorch(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4])
