"""Models that are too large for one message of protobuf: their data goes beside them, into a file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import onnx

LARGEST_MESSAGE = 2**31 - 2**20
"""Bytes of tensors that a message holds, and room for the rest: protobuf ends at 2 GiB."""

SMALL = 1024
"""Bytes of a tensor that stays in the message: shapes are looked at before data is loaded."""


def is_large(model: onnx.ModelProto) -> bool:
    """Tell whether a model does not fit one message."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer) > LARGEST_MESSAGE


def without_data(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[onnx.TensorProto]]:
    """Return a copy of a model whose large initializers have no data, and those of the model, in order.

    The model is left alone: what is taken out of a message and put back takes its memory twice.
    """
    light = onnx.ModelProto()
    _copy(model, light, "graph")
    _copy(model.graph, light.graph, "initializer")
    large = []
    for tensor in model.graph.initializer:
        own = light.graph.initializer.add()
        is_small = len(tensor.raw_data) <= SMALL
        _copy(tensor, own, "" if is_small else "raw_data")
        large += [] if is_small else [tensor]
    return light, large


def _copy(source: Any, target: Any, left_out: str) -> None:
    """Copy all fields of a message but one."""
    for field, value in source.ListFields():
        if field.name == left_out:
            continue
        if field.is_repeated:
            getattr(target, field.name).extend(value)
        elif field.message_type:
            getattr(target, field.name).CopyFrom(value)
        else:
            setattr(target, field.name, value)


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    """Write a model of any size into a folder; return the path of ``model.onnx``."""
    path = folder / "model.onnx"
    if not is_large(model):
        path.write_bytes(model.SerializeToString())
        return path
    light, held = without_data(model)
    empty = {tensor.name: tensor for tensor in light.graph.initializer}
    with (folder / "model.data").open("wb") as file:
        for tensor in held:
            size = len(tensor.raw_data)
            place = {"location": "model.data", "offset": str(file.tell()), "length": str(size)}
            empty[tensor.name].data_location = onnx.TensorProto.EXTERNAL
            empty[tensor.name].external_data.extend(
                onnx.StringStringEntryProto(key=key, value=value) for key, value in place.items()
            )
            file.write(tensor.raw_data)
    path.write_bytes(light.SerializeToString())
    return path


def digest(model: onnx.ModelProto) -> str:
    """Return a SHA-256 of a model; of a large one, of its message without data and then of the data."""
    if not is_large(model):
        return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
    light, held = without_data(model)
    found = hashlib.sha256(light.SerializeToString(deterministic=True))
    for tensor in held:
        found.update(tensor.raw_data)
    return found.hexdigest()
