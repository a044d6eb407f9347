"""A PyTorch module to an ONNX file, by PyTorch's own exporter, in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from conformance.candidates.arrays import first_line
from conformance.candidates.child_process import end_with_starter
from conformance.candidates.kinds import Request, pytorch
from conformance.candidates.pytorch import PyTorchCandidate
from conformance.graph.pytorch_replay import import_torch
from conformance.pictures.graph_inputs import named_shapes
from refimpl.errors import CandidateError

OPSET = 18


def write_onnx(text: str, target: Path, shapes: Sequence[str], trusted: bool) -> None:
    """Export a module, in the mode in which it is given, for inputs of these shapes.

    Parameters and what is refused as of `conformance.candidates.converters.export_module`.

    Raises
    ------
    ConfigurationError
        There is nothing of that name.
    CandidateError, FileError
        The module cannot be made.
    """
    torch = import_torch()
    named = named_shapes(shapes)
    made = pytorch(Request(text, None, {}, trusted=trusted))
    assert isinstance(made, PyTorchCandidate)
    rng = np.random.default_rng(0)
    given = tuple(torch.from_numpy(rng.normal(size=shape).astype(np.float32)) for shape in named.values())
    how = {"input_names": [*named], "dynamo": True, "external_data": False, "opset_version": OPSET}
    try:
        torch.onnx.export(made.module, given, target, verbose=False, **how)
    except Exception as error:  # it raises types of several libraries
        raise CandidateError(f"PyTorch's exporter refuses it: {first_line(_first(error))}") from error


def _first(error: BaseException) -> BaseException:
    """Return what an error comes from."""
    return error if error.__cause__ is None else _first(error.__cause__)


if __name__ == "__main__":
    end_with_starter()
    write_onnx(sys.argv[1], Path(sys.argv[2]), sys.argv[4:], bool(sys.argv[3]))
