"""A PyTorch module or exported program as a candidate, every tensor captured while it runs eagerly."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import numpy as np

from conformance.bounds import Declaration
from conformance.candidates.arrays import Given, attempted, first_line, operands_of
from conformance.candidates.plain import GraphlessCandidate
from conformance.graph.pytorch_replay import import_torch
from refimpl.errors import FileError
from refimpl.ops.operation import Array


class PyTorchCandidate(GraphlessCandidate):
    """A module, or a program of ``torch.export``, on PyTorch's CPU operators.

    Parameters
    ----------
    module
        Called with float32 images (B, 3, H, W), or with a graph's inputs one after another, in the mode it is
        given in; usually ``module.eval()``.
    declaration
        The arithmetic it is judged by.
    wide
        Whether it is to compute in float64, as far as it lets.

    Raises
    ------
    MissingDependencyError
        PyTorch is not installed.
    """

    captures_all = True

    def __init__(self, module: Any, declaration: Declaration | None = None, wide: bool = False) -> None:
        super().__init__(declaration)
        self.torch = import_torch()
        self.wide = wide
        self.constants = list(self._as_numpy(dict(module.state_dict())).values()) if wide else None
        self.module = copy.deepcopy(module).double() if wide else module

    @classmethod
    def load(cls, path: Path, declaration: Declaration | None = None, wide: bool = False) -> PyTorchCandidate:
        """Read a program that ``torch.export.save`` wrote (``.pt2``).

        Raises
        ------
        FileError
            It is missing, or no such program.
        """
        torch = import_torch()
        if not path.is_file():
            raise FileError(f"{path}: there is no such file")
        logging.disable()  # PyTorch would show the traceback of what is caught here
        try:
            return cls(torch.export.load(path).module(), declaration, wide)
        except Exception as error:  # PyTorch raises types of many libraries here
            raise FileError(f"{path}: is no exported program: {first_line(error)}") from error
        finally:
            logging.disable(logging.NOTSET)

    def run(self, images: Given) -> dict[str, Array]:
        """Run it without gradients and return its outputs."""
        return attempted(self._returned, images)

    def _returned(self, images: Given) -> Any:
        with self.torch.no_grad():
            return self._as_numpy(self.module(*map(self._tensor, operands_of(images))))

    def _tensor(self, array: Array) -> Any:
        tensor = self.torch.from_numpy(np.require(array, requirements="W"))
        return tensor.double() if self.wide and tensor.is_floating_point() else tensor

    def capture(self, images: Given) -> dict[str, Array]:
        """Run it with every operator's result written down, in order, attention not fused."""
        from conformance.candidates.pytorch_capture import Capture

        capture = Capture()
        attention = self.torch.backends.mha
        fused = attention.get_fastpath_enabled()
        attention.set_fastpath_enabled(False)
        try:
            with capture, capture.modules(self.module):
                outputs = self.run(images)
        finally:
            attention.set_fastpath_enabled(fused)
        self.sources = capture.sources
        # What runs compiled, or outside of PyTorch, shows no operator.
        self.captures_all = bool(capture.tensors)
        return capture.tensors or outputs

    def _as_numpy(self, value: Any) -> Any:
        if isinstance(value, self.torch.Tensor):
            from conformance.candidates.pytorch_capture import array_of, is_plain

            return array_of(value) if is_plain(value) else value
        if callable(getattr(value, "items", None)):
            return {name: self._as_numpy(item) for name, item in value.items()}
        if hasattr(value, "_asdict"):
            return self._as_numpy(value._asdict())
        if hasattr(value, "__dataclass_fields__"):
            return {name: self._as_numpy(getattr(value, name)) for name in value.__dataclass_fields__}
        return [self._as_numpy(item) for item in value] if isinstance(value, list | tuple) else value
