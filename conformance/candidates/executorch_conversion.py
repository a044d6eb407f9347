"""ExecuTorch's own converter called on an ONNX file, in a process of its own.

It takes exported PyTorch modules: the graph's nodes in PyTorch's words are one.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from conformance.candidates.child_process import end_with_starter
from conformance.candidates.module_to_convert import module_and_inputs
from conformance.graph.pytorch_replay import import_torch


def write_executorch(source: Path, target: Path, delegate: str) -> None:
    """Convert an ONNX file, for inputs of the shapes that it declares.

    Parameters
    ----------
    source, target
    delegate
        One of `conformance.conversion.executorch_model.DELEGATES`.

    Raises
    ------
    UnsupportedOperationError
        PyTorch has no word for some nodes.
    ShapeError
        An axis of an input has no length.
    """
    from executorch import exir

    module, given = module_and_inputs(source)
    torch = import_torch()
    with torch.no_grad():
        program = torch.export.export(module, given)
    if delegate == "portable":
        edge = exir.to_edge(program)
    else:
        edge = exir.to_edge_transform_and_lower(program, partitioner=[_partitioner(delegate == "xnnpack")])
    target.write_bytes(edge.to_executorch().buffer)


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
    write_executorch(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
