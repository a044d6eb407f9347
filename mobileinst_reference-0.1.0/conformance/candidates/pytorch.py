"""A PyTorch module or exported program as a candidate, every tensor captured while it runs eagerly."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from conformance.bounds.declaration import Declaration
from conformance.candidates.arrays import attempted, first_line
from conformance.candidates.plain import GraphlessCandidate
from conformance.graph.pytorch_replay import import_torch
from refimpl.errors import FileError
from refimpl.ops.operation import Array


class PyTorchCandidate(GraphlessCandidate):
    """A module, or a program of ``torch.export``, on PyTorch's CPU operators.

    Parameters
    ----------
    module
        Called with float32 images (B, 3, H, W), in the mode it is given in; usually ``module.eval()``.
    declaration
        The arithmetic it is judged by.

    Raises
    ------
    MissingDependencyError
        PyTorch is not installed.
    """

    captures_all = True

    def __init__(self, module: Any, declaration: Declaration | None = None) -> None:
        super().__init__(declaration)
        self.torch = import_torch()
        self.module = module

    @classmethod
    def load(cls, path: Path, declaration: Declaration | None = None) -> PyTorchCandidate:
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
            return cls(torch.export.load(path).module(), declaration)
        except Exception as error:  # PyTorch raises types of many libraries here
            raise FileError(f"{path}: is no exported program: {first_line(error)}") from error
        finally:
            logging.disable(logging.NOTSET)

    def run(self, images: Array) -> dict[str, Array]:
        """Run it without gradients and return its outputs."""
        return attempted(self._returned, images)

    def _returned(self, images: Array) -> Any:
        with self.torch.no_grad():
            result = self.module(self.torch.from_numpy(np.require(images, requirements="W")))
        return self._as_numpy(result)

    def capture(self, images: Array) -> dict[str, Array]:
        """Run it with every operator's result written down, in order, attention not fused."""
        capture = _capture(self.torch)
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
            return array_of(self.torch, value) if _is_plain(self.torch, value) else value
        if callable(getattr(value, "items", None)):
            return {name: self._as_numpy(item) for name, item in value.items()}
        if hasattr(value, "_asdict"):
            return self._as_numpy(value._asdict())
        if hasattr(value, "__dataclass_fields__"):
            return {name: self._as_numpy(getattr(value, name)) for name in value.__dataclass_fields__}
        return [self._as_numpy(item) for item in value] if isinstance(value, list | tuple) else value


def array_of(torch: Any, tensor: Any) -> Array:
    """Return a copy of a tensor's numbers; bfloat16, which NumPy has not, as float32."""
    plain = tensor.detach().to(torch.float32) if tensor.dtype == torch.bfloat16 else tensor.detach()
    return np.array(plain.cpu().numpy())


def _is_plain(torch: Any, tensor: Any) -> bool:
    """Tell whether a tensor's numbers can be read: it is dense, and has some."""
    return tensor.layout == torch.strided and tensor.device.type != "meta"


def _capture(torch: Any) -> Any:
    """Return a dispatch mode that writes down what every operator returns."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Capture(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.tensors: dict[str, Array] = {}
            self.sources: dict[str, tuple[str, ...]] = {}
            self.path: list[str] = []
            self.names: dict[int, str] = {}
            self.alive: list[Any] = []  # an id is only good while its tensor lives

        def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = operator(*args, **(kwargs or {}))
            inputs = tuple(dict.fromkeys(self._known([args, kwargs or {}])))
            returned = [value.alias_info for value in operator._schema.returns]
            is_view = any(alias is not None and not alias.is_write for alias in returned)
            size = max((tensor.numel() for tensor in _tensors(torch, args)), default=0)
            for tensor in _tensors(torch, result):
                # A part of a packed tensor is one of its own; a mere change of shape is not.
                self._note(tensor, operator._schema.name, inputs, is_view and tensor.numel() == size)
            return result

        def _known(self, value: Any) -> Iterator[str]:
            for tensor in _tensors(torch, value):
                if id(tensor) in self.names:
                    yield self.names[id(tensor)]

        def _note(self, tensor: Any, operator: str, inputs: tuple[str, ...], same: bool) -> None:
            if same and len(inputs) == 1:
                name = inputs[0]
            else:
                path, kind = self.path[-1] if self.path else "", operator.split("::")[-1]
                name = _unused(f"{path}/{kind}".lstrip("/"), self.sources)
                self.sources[name] = inputs
                if not same and tensor.is_floating_point() and _is_plain(torch, tensor):
                    self.tensors[name] = array_of(torch, tensor)
            self.names[id(tensor)] = name
            self.alive.append(tensor)

        @contextmanager
        def modules(self, module: Any) -> Iterator[None]:
            """Keep the path of the module that is running."""
            handles = []
            for path, part in module.named_modules():
                handles.append(part.register_forward_pre_hook(self._enter(path)))
                handles.append(part.register_forward_hook(lambda *_: self._leave(), always_call=True))
            try:
                yield
            finally:
                for handle in handles:
                    handle.remove()

        def _enter(self, path: str) -> Callable[..., None]:
            return lambda *_: self.path.append(path)

        def _leave(self) -> None:
            self.path.pop()

    return Capture()


def _tensors(torch: Any, value: Any) -> Iterator[Any]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(torch, item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(torch, item)


def _unused(name: str, taken: Any) -> str:
    number, candidate = 1, name
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    return candidate
