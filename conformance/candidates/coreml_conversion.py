"""Core ML's own converter, coremltools, called on an ONNX file in a process of its own.

It takes exported PyTorch modules: the graph's nodes in PyTorch's words are one.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from conformance.candidates.child_process import end_with_starter
from conformance.candidates.module_to_convert import module_and_inputs
from conformance.graph.pytorch_replay import import_torch
from refimpl.errors import UnsupportedOperationError


def write_coreml(source: Path, target: Path, precision: str) -> None:
    """Convert an ONNX file to an ML program, for inputs of the shapes that it declares.

    Parameters
    ----------
    source, target
    precision
        ``float32``, or ``float16``: constants, and all that it computes with. Inputs and outputs are float32.

    Raises
    ------
    UnsupportedOperationError
        PyTorch has no word for some nodes, or coremltools loses one.
    ShapeError
        An axis of an input has no length.
    """
    module, given = module_and_inputs(source)
    torch = import_torch()
    # After what may be refused: it takes seconds.
    import coremltools

    with torch.no_grad():
        program = torch.export.export(module, given).run_decompositions(_written_out(torch))
    _refuse_lost(program)
    made = coremltools.convert(
        program,
        convert_to="mlprogram",
        # Unless told so, it stores and computes in float16, and takes what suits the oldest systems.
        compute_precision=getattr(coremltools.precision, precision.upper()),
        minimum_deployment_target=coremltools.target.iOS17,
        skip_model_load=True,
    )
    made.save(str(target))


def _refuse_lost(program: Any) -> None:
    """Raise for what coremltools 9.0 converts to something else, and cannot be said in other words."""
    for node in program.graph.nodes:
        if "_aa" in str(node.target):
            raise UnsupportedOperationError(
                f"{node.name}: coremltools leaves out antialiasing; resize without it"
            )


def _written_out(torch: Any) -> dict[Any, Any]:
    """Return what coremltools 9.0 gets wrong, in words that it gets right.

    Of exported programs it takes no keyword, so that GELU's tanh is lost; 1 / x is 1 / (x + 1e-4); an RMS
    norm's epsilon is multiplied by the largest square, and a row of zeros is divided by zero.
    """
    aten = torch.ops.aten

    def inverse(x: Any) -> Any:
        return torch.ones_like(x) / x

    def root_mean_square_norm(x: Any, shape: Any, weight: Any = None, eps: float | None = None) -> Any:
        axes = tuple(range(-len(shape), 0))
        held = torch.finfo(x.dtype).eps if eps is None else eps
        made = x / torch.sqrt((x * x).mean(axes, keepdim=True) + held)
        return made if weight is None else made * weight

    found = torch._decomp.get_decompositions([aten.gelu])
    return {**found, aten.reciprocal.default: inverse, aten.rms_norm.default: root_mean_square_norm}


if __name__ == "__main__":
    end_with_starter()
    write_coreml(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
