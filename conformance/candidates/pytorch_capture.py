"""What PyTorch's operators return while a module runs. Needs PyTorch, which `pytorch` asks for first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from refimpl.ops.operation import Array


class Capture(TorchDispatchMode):
    """A dispatch mode that writes down what every operator returns.

    Attributes
    ----------
    tensors
        Name → array, in order: the path of the module that ran and the operator.
    sources
        Name → the names of what it was computed from.
    """

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
        size = max((tensor.numel() for tensor in tensors_of(args)), default=0)
        for tensor in tensors_of(result):
            # A part of a packed tensor is one of its own; a mere change of shape is not.
            self._note(tensor, operator._schema.name, inputs, is_view and tensor.numel() == size)
        return result

    def _known(self, value: Any) -> Iterator[str]:
        for tensor in tensors_of(value):
            if id(tensor) in self.names:
                yield self.names[id(tensor)]

    def _note(self, tensor: Tensor, operator: str, inputs: tuple[str, ...], same: bool) -> None:
        if same and len(inputs) == 1:
            name = inputs[0]
        else:
            path, kind = self.path[-1] if self.path else "", operator.split("::")[-1]
            name = _unused(f"{path}/{kind}".lstrip("/"), self.sources)
            self.sources[name] = inputs
            if not same and tensor.is_floating_point() and is_plain(tensor):
                self.tensors[name] = array_of(tensor)
        self.names[id(tensor)] = name
        self.alive.append(tensor)

    @contextmanager
    def modules(self, module: nn.Module) -> Iterator[None]:
        """Keep the path of the module that is running; compiled ones, scripted or traced, take no hooks."""
        handles = []
        for path, part in module.named_modules():
            if isinstance(part, torch.jit.ScriptModule):
                continue
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


def array_of(tensor: Tensor) -> Array:
    """Return a copy of a tensor's numbers; bfloat16, which NumPy has not, as float32."""
    plain = tensor.detach().to(torch.float32) if tensor.dtype == torch.bfloat16 else tensor.detach()
    return np.array(plain.cpu().numpy())


def is_plain(tensor: Tensor) -> bool:
    """Tell whether a tensor's numbers can be read: it is dense, and has some."""
    return tensor.layout == torch.strided and tensor.device.type != "meta"


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in a structure of mappings and sequences."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_of(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_of(item)


def _unused(name: str, taken: Any) -> str:
    number, candidate = 1, name
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    return candidate
