"""A PyTorch module or exported program as a candidate, every tensor captured while it runs eagerly."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import numpy as np

from conformance.bounds import Declaration
from conformance.candidates.arrays import Given, attempted, crash_of, first_line, operands_of
from conformance.candidates.plain import GraphlessCandidate
from conformance.graph.pytorch_replay import import_torch
from refimpl.errors import CandidateError, ConfigurationError, FileError
from refimpl.ops.operation import Array

OTHERWISE_IN_TRAINING = (
    *("AlphaDropout", "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "Dropout", "Dropout1d", "Dropout2d"),
    *("Dropout3d", "FeatureAlphaDropout", "RReLU", "SyncBatchNorm"),
)
"""PyTorch's modules that in training mode are random, or take their statistics from the batch."""


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
    ConfigurationError
        It cannot be made one of float64.
    """

    captures_all = True

    @property
    def remarks(self) -> list[str]:
        """Say which parts compute otherwise than users of the module will have it: in training mode."""
        nn, module = self.torch.nn, self.given
        kinds = tuple(getattr(nn, name) for name in OTHERWISE_IN_TRAINING)
        parts = module.named_modules() if isinstance(module, nn.Module) else ()
        names = [f"{name or 'it'} ({type(part).__name__})" for name, part in parts if _trains(part, kinds)]
        if not names:
            return []
        more = f" and {len(names) - 1} more" if names[1:] else ""
        return [f"{names[0]}{more} in training mode, so that it computes otherwise: call .eval() before"]

    def __init__(self, module: Any, declaration: Declaration | None = None, wide: bool = False) -> None:
        super().__init__(declaration)
        self.torch = import_torch()
        self.wide = wide
        self.constants = list(self._as_numpy(dict(module.state_dict())).values()) if wide else None
        self.given = module
        self.module = self._widened(module) if wide else module

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
            module = torch.export.load(path).module()
        except Exception as error:  # PyTorch raises types of many libraries here
            raise FileError(f"{path}: is no exported program: {first_line(error)}") from error
        finally:
            logging.disable(logging.NOTSET)
        return cls(module, declaration, wide)

    def _widened(self, module: Any) -> Any:
        try:
            return copy.deepcopy(module).double()
        except Exception as error:  # modules may do anything when they are copied
            raise _not_wide(crash_of(error)) from error

    def run(self, images: Given) -> dict[str, Array]:
        """Run it without gradients and return its outputs.

        Raises
        ------
        CandidateError
            It crashes, or returns no arrays.
        ConfigurationError
            It does so in float64 only, in which nobody but this program runs it.
        """
        try:
            return attempted(self._returned, images)
        except CandidateError as error:
            if self.wide and self._runs_as_given(images):
                raise _not_wide(str(error)) from error
            raise

    def _returned(self, images: Given) -> Any:
        with self.torch.no_grad():
            operands = map(self._tensor, operands_of(images))
            return self._as_numpy(self.module(*(self._as_wide(tensor) for tensor in operands)))

    def _runs_as_given(self, images: Given) -> bool:
        try:
            with self.torch.no_grad():
                self.given(*map(self._tensor, operands_of(images)))
        except Exception:  # whatever its code raises
            return False
        return True

    def _tensor(self, array: Array) -> Any:
        return self.torch.from_numpy(np.require(array, requirements="W"))

    def _as_wide(self, tensor: Any) -> Any:
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


def _trains(part: Any, kinds: tuple[type, ...]) -> bool:
    return bool(part.training) and isinstance(part, kinds)


def _not_wide(said: str) -> ConfigurationError:
    return ConfigurationError(
        f"the module cannot be run in float64, in which it is compared with its export: {said}; keep its "
        "constants in buffers and leave out .float() and checks of types, or judge its float32 beside the "
        "export: verify EXPORT.onnx --graph-only --candidate pytorch:FILE.py:NAME"
    )
