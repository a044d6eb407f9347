"""Models that are too large for one message of protobuf: their data goes beside them, into a file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from conformance.graph.onnx_graph import outer_names
from refimpl.ops.operation import Array

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


def lacking_data(model: onnx.ModelProto, arrays: Mapping[str, Array]) -> onnx.ModelProto:
    """Return a copy of a model whose large initializers are to be given it: those that are among arrays.

    Where they are said to be is no file. What no node takes stays: a runtime that drops it misses it.
    """
    light, held = without_data(model)
    empty = {tensor.name: tensor for tensor in light.graph.initializer}
    taken = {name for node in model.graph.node for name in (*node.input, *outer_names(node))}
    for tensor in held:
        array = arrays.get(tensor.name) if tensor.name in taken else None
        if array is not None and _is_in(tensor, array):
            _say_where(empty[tensor.name], IN_MEMORY, 0, array.nbytes)
        else:
            empty[tensor.name].raw_data = tensor.raw_data
    return light


def _is_in(tensor: onnx.TensorProto, array: Array) -> bool:
    """Tell whether an array has a tensor's bytes: what NumPy has not is held wider."""
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    alike = array.dtype == dtype and array.shape == tuple(tensor.dims) and array.flags.c_contiguous
    if not alike or array.dtype.isbuiltin != 1:
        return False
    own, held = (np.frombuffer(data, np.uint8) for data in (array.data, tensor.raw_data))
    return np.array_equal(own, held)


def arrays_of(model: onnx.ModelProto) -> dict[str, Array]:
    """Return what a model's large initializers hold, by name."""
    _, held = without_data(model)
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in held}


IN_MEMORY = "in memory"
"""The file in which data is said to be that is given to whoever reads a model."""


def lacked_by(model: onnx.ModelProto) -> list[str]:
    """Return the initializers whose data a model lacks."""
    return [each.name for each in model.graph.initializer if each.data_location == onnx.TensorProto.EXTERNAL]


def _say_where(tensor: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    tensor.data_location = onnx.TensorProto.EXTERNAL
    place = {"location": location, "offset": str(offset), "length": str(length)}
    tensor.external_data.extend(
        onnx.StringStringEntryProto(key=key, value=value) for key, value in place.items()
    )


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
            _say_where(empty[tensor.name], "model.data", file.tell(), len(tensor.raw_data))
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
