"""Models that are too large for one message of protobuf: their data goes beside them, into a file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx

LARGEST_MESSAGE = 2**31 - 2**20
"""Bytes of tensors that a message holds, and room for the rest: protobuf ends at 2 GiB."""

SMALL = 1024
"""Bytes of a tensor that stays in the message: shapes are looked at before data is loaded."""


def is_large(model: onnx.ModelProto) -> bool:
    """Tell whether a model does not fit one message."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer) > LARGEST_MESSAGE


@contextmanager
def detached(model: onnx.ModelProto) -> Iterator[list[tuple[onnx.TensorProto, bytes]]]:
    """Take the large initializers' data out of a model, and put it back after the ``with`` block."""
    tensors = [tensor for tensor in model.graph.initializer if len(tensor.raw_data) > SMALL]
    held = [(tensor, tensor.raw_data) for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.ClearField("raw_data")
        yield held
    finally:
        for tensor, data in held:
            del tensor.external_data[:]
            tensor.data_location = onnx.TensorProto.DEFAULT
            tensor.raw_data = data


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    """Write a model of any size into a folder; return the path of ``model.onnx``."""
    path = folder / "model.onnx"
    if not is_large(model):
        path.write_bytes(model.SerializeToString())
        return path
    with detached(model) as held, (folder / "model.data").open("wb") as file:
        for tensor, data in held:
            place = {"location": "model.data", "offset": str(file.tell()), "length": str(len(data))}
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.extend(
                onnx.StringStringEntryProto(key=key, value=value) for key, value in place.items()
            )
            file.write(data)
        path.write_bytes(model.SerializeToString())
    return path


def digest(model: onnx.ModelProto) -> str:
    """Return a SHA-256 of a model; of a large one, of its message without data and then of the data."""
    if not is_large(model):
        return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
    found = hashlib.sha256()
    with detached(model) as held:
        found.update(model.SerializeToString(deterministic=True))
        for _, data in held:
            found.update(data)
    return found.hexdigest()
