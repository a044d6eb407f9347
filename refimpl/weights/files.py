"""Files of weights: ``.safetensors``, ``.npz`` and, with PyTorch, ``.pth``; none is trusted."""

from __future__ import annotations

import os
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from refimpl.errors import FileError, MissingDependencyError
from refimpl.ops.operation import Array
from refimpl.weights.npy_header import check_claim

IGNORED_SUFFIX = "num_batches_tracked"


def read_arrays(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Read every array of a ``.safetensors``, ``.npz`` or ``.pth`` file, without ``num_batches_tracked``.

    Raises
    ------
    FileError
        The file is missing, empty, damaged or of another format.
    MissingDependencyError
        The reader of that format is not installed.
    """
    path = Path(path)
    if path.suffix not in _READERS:
        raise FileError(f"{path} is no weights file: the name must end in {', '.join(_READERS)}")
    if not path.is_file():
        raise FileError(f"weights file {path} does not exist")
    arrays = _READERS[path.suffix](path)
    return {name: array for name, array in arrays.items() if not name.endswith(IGNORED_SUFFIX)}


def _read_safetensors(path: Path) -> dict[str, Array]:
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError as error:
        raise MissingDependencyError(
            "reading .safetensors needs the package safetensors: pip install safetensors"
        ) from error
    try:
        return dict(load_file(path))
    except (SafetensorError, ValueError, TypeError, KeyError, OSError) as error:
        raise FileError(f"{path} is not a readable .safetensors file: {error}") from error


def _read_npz(path: Path) -> dict[str, Array]:
    try:
        with zipfile.ZipFile(path) as archive:
            _check_npz_members(archive, path)
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, KeyError, RuntimeError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{path} is not a readable .npz file of plain arrays: {error}") from error


LARGEST_INFLATED = 2**28
MOST_INFLATION = 200
"""A member that is larger and was deflated by more is no array of numbers anyone computed."""
LARGEST_TOTAL = 2**30
"""Bytes that all members together may inflate to, if the file itself has not as many."""


def _check_npz_members(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse what NumPy would read without asking: arrays of one name, and those far larger than the file."""
    names = Counter(member.filename.removesuffix(".npy") for member in archive.infolist())
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise FileError(f"{path} holds {', '.join(map(repr, twice))} more than once")
    _check_total(archive.infolist(), path)
    for member in archive.infolist():
        _check_inflation(member, path)
        with archive.open(member) as file:
            check_claim(file, member.file_size, f"{path}: {member.filename}")


def _check_inflation(member: zipfile.ZipInfo, path: Path) -> None:
    if member.file_size > max(LARGEST_INFLATED, MOST_INFLATION * member.compress_size):
        raise FileError(
            f"{path}: {member.filename} inflates {member.compress_size} bytes to {member.file_size}; "
            "save the arrays uncompressed"
        )


def _check_total(members: list[zipfile.ZipInfo], path: Path) -> None:
    total = sum(member.file_size for member in members)
    if total > max(LARGEST_TOTAL, path.stat().st_size):
        raise FileError(
            f"{path}: its members inflate to {total} bytes in total, more than {LARGEST_TOTAL}; "
            "save the arrays uncompressed"
        )


def _read_pth(path: Path) -> dict[str, Array]:
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError(
            "reading .pth needs PyTorch: pip install 'mobileinst-reference[torch]', "
            "or convert the file to .safetensors"
        ) from error
    held = _bytes_held(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many unrelated types on damaged files
        # PyTorch's own message advises to load the file with weights_only=False, which would execute it.
        raise FileError(
            f"{path} is damaged or holds more than plain tensors; save the model's state_dict() again"
        ) from error
    tensors = _state_dict(state)
    if not all(isinstance(name, str) and isinstance(x, torch.Tensor) for name, x in tensors.items()):
        raise FileError(f"{path} holds no state dict: expected a mapping of names to tensors")
    for name, tensor in tensors.items():
        # A tensor may claim any shape of one number, by strides of 0.
        if tensor.numel() * tensor.element_size() > held:
            raise FileError(f"{path}: {name} claims shape {tuple(tensor.shape)}, more than the file holds")
    return {name: _as_numpy(x, f"{path}: {name}") for name, x in tensors.items()}


def _as_numpy(tensor: Any, where: str) -> Array:
    import torch

    try:
        # NumPy has no bfloat16; float32 holds its values exactly.
        plain: Array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
    except (TypeError, RuntimeError) as error:  # sparse, quantised, on no device, of a type of 8 bits
        kind = f"{tensor.dtype}, {tensor.layout}"
        raise FileError(f"{where} is {kind}, which NumPy cannot hold; save dense float32 tensors") from error
    return plain


def _bytes_held(path: Path) -> int:
    """Return how many bytes of tensors a checkpoint can hold; raise if it inflates as none does."""
    try:
        if not zipfile.is_zipfile(path):
            return path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception as error:  # what a broken directory raises is not documented
        raise FileError(f"{path} is damaged: {error}; save the model's state_dict() again") from error
    _check_total(members, path)
    for member in members:
        _check_inflation(member, path)
    return sum(member.file_size for member in members)


def _state_dict(saved: Any) -> Mapping[Any, Any]:
    """Return the state dict of what was saved, which may stand inside a training checkpoint."""
    for key in ("state_dict", "model"):
        if isinstance(saved, dict) and isinstance(saved.get(key), dict):
            saved = saved[key]
    return saved if isinstance(saved, dict) else {None: saved}


_READERS: dict[str, Callable[[Path], dict[str, Array]]] = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    ".pth": _read_pth,
    ".pt": _read_pth,
}


def write_arrays(arrays: dict[str, Array], path: str | os.PathLike[str]) -> None:
    """Write ``.safetensors`` or ``.npz``; the file appears whole or not at all.

    Raises
    ------
    FileError
        The suffix is neither, or the place cannot be written.
    """
    check_save_name(path)
    path = Path(path)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            temporary = Path(folder) / path.name
            _WRITERS[path.suffix](arrays, temporary)
            temporary.replace(path)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error}") from error


def check_save_name(path: str | os.PathLike[str]) -> None:
    """Raise `FileError` unless a file of that name can hold weights: ``.safetensors`` or ``.npz``."""
    if Path(path).suffix not in _WRITERS:
        raise FileError(f"cannot save weights as {path}: the name must end in {' or '.join(_WRITERS)}")


def _save_safetensors(arrays: dict[str, Array], path: Path) -> None:
    from safetensors.numpy import save

    # Not `save_file`, whose files none but their owner may read.
    path.write_bytes(save({name: np.asarray(array, order="C") for name, array in arrays.items()}))


def _save_npz(arrays: dict[str, Array], path: Path) -> None:
    with open(path, "wb") as file:
        np.savez(file, **cast(Any, arrays))


_WRITERS: dict[str, Callable[[dict[str, Array], Path], None]] = {
    ".safetensors": _save_safetensors,
    ".npz": _save_npz,
}
