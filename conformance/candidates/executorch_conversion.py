"""ExecuTorch's own converter called on an ONNX file, in a process of its own.

It takes exported PyTorch modules: the graph's nodes in PyTorch's words are one.
"""

from __future__ import annotations

import sys
from pathlib import Path

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
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

        partitioner = XnnpackPartitioner(per_op_mode=delegate == "xnnpack")
        edge = exir.to_edge_transform_and_lower(program, partitioner=[partitioner])
    target.write_bytes(edge.to_executorch().buffer)


if __name__ == "__main__":
    end_with_starter()
    write_executorch(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
