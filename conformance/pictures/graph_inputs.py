"""Inputs of any ONNX graph: arrays from files, and seeded random numbers for what no file gives."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from conformance.graph.onnx_graph import OnnxGraph, TensorInfo
from conformance.named_values import given_once, values_in
from refimpl.errors import (
    ConfigurationError,
    FileError,
    NonFiniteError,
    ShapeError,
    UnsupportedOperationError,
)
from refimpl.ops.operation import Array
from refimpl.weights.npy_header import check_claim

LARGEST_INPUT = 2**28
"""Elements of one random input."""

Shape = tuple[int, ...]


def graph_inputs(
    graph: OnnxGraph, files: Sequence[str] = (), shapes: Sequence[str] = (), seed: int = 0
) -> dict[str, Array]:
    """Return an array for every input of a graph.

    Parameters
    ----------
    graph
    files
        Each ``name=file.npy``, or ``file.npy`` for the next input in the graph's order that none names.
    shapes
        Each ``name=1x3x224x224``, or the shape alone for the next input: for random inputs with dynamic axes.
    seed
        Of the random inputs: floats are of a standard normal distribution, bytes of any value, other integers
        0 or 1, which are valid indices almost everywhere.

    Raises
    ------
    ConfigurationError
        An option is malformed, or names no input, or one that another does.
    FileError
        A file is missing, no array, or of another dtype.
    ShapeError
        An axis of a random input has no length.
    NonFiniteError
        A file holds numbers that are NaN or infinite.
    UnsupportedOperationError
        An input is of a type that NumPy has not.
    """
    _check_types(graph)
    paths = _assigned(graph, files, "--input")
    named = {name: _read(Path(path), graph.declared[name]) for name, path in paths.items()}
    lengths = {name: parse_shape(text) for name, text in _assigned(graph, shapes, "--shape").items()}
    return {
        name: named[name] if name in named else random_input(info, lengths.get(name), seed)
        for name, info in graph.declared.items()
    }


def _check_types(graph: OnnxGraph) -> None:
    """Raise unless every input can be fed numbers."""
    for info in graph.model.graph.input:
        kind = info.type.tensor_type.elem_type
        if kind and info.name in graph.declared and graph.declared[info.name].dtype is None:
            name = onnx.TensorProto.DataType.Name(kind).lower()
            raise UnsupportedOperationError(f"input {info.name!r} is of {name}, which NumPy has not")


def _read(path: Path, info: TensorInfo) -> Array:
    """Read an array in native byte order; of NaN and infinities every runtime makes the same nothing."""
    array = read_array(path)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if info.dtype is not None and array.dtype != info.dtype:
        raise FileError(f"{path} holds {array.dtype}; the graph's input {info.name!r} takes {info.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        count = np.count_nonzero(~np.isfinite(array))
        raise NonFiniteError(
            f"{path} has {count} of {array.size} numbers that are NaN or infinite; give finite input"
        )
    return array


def _assigned(graph: OnnxGraph, options: Sequence[str], option: str) -> dict[str, str]:
    """Return input → value of ``name=value`` options; those without a name go to the others in order."""
    pairs = [text.partition("=") for text in options]
    named = given_once(
        ((name, value) for name, sign, value in pairs if sign and name in graph.inputs), option
    )
    rest = [text for text in options if text.partition("=")[0] not in named or "=" not in text]
    free = [name for name in graph.inputs if name not in named]
    if len(rest) > len(free):
        raise ConfigurationError(
            f"{option} {rest[len(free)]!r} is for no input of the graph; "
            f"its inputs are {', '.join(graph.inputs) or 'none'}"
        )
    return named | dict(zip(free, rest, strict=False))


def named_shapes(texts: Sequence[str]) -> dict[str, Shape]:
    """Return name → shape of ``NAME=1x3x224x224`` each.

    Raises
    ------
    ConfigurationError
        One is not of that form, or names what another does.
    """
    for text in texts:
        name, sign, _ = text.partition("=")
        if not (name and sign):
            raise ConfigurationError(f"--shape {text}: expected NAME=1x3x224x224")
    return {name: parse_shape(sides) for name, sides in values_in(texts, "--shape").items()}


def parse_shape(text: str) -> Shape:
    """Return (1, 3, 224, 224) of ``1x3x224x224``; an empty text is a scalar's shape."""
    parts = text.lower().replace("×", "x").split("x") if text else []
    if not all(part.isdecimal() for part in parts):
        raise ConfigurationError(f"--shape {text!r} is not of the form 1x3x224x224")
    return tuple(int(part) for part in parts)


def read_array(path: Path) -> Array:
    """Return the array of a ``.npy`` file.

    Raises
    ------
    FileError
        The file is missing, truncated, of another format, or holds Python objects.
    """
    try:
        with path.open("rb") as file:
            check_claim(file, path.stat().st_size, str(path))
            file.seek(0)
            array = np.load(file, allow_pickle=False)
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}; give a .npy file") from error
    except Exception as error:  # what broken bytes lead NumPy to is not documented
        raise FileError(f"{path}: is no array of numbers in NumPy's .npy format: {error}") from error
    return np.asarray(array)


def random_input(info: TensorInfo, shape: Shape | None, seed: int) -> Array:
    """Return seeded numbers of the declared dtype; the name enters the seed, so no two are alike."""
    rng = np.random.default_rng([seed, zlib.crc32(info.name.encode())])
    size = shape if shape is not None else _declared(info)
    if math.prod(size) > LARGEST_INPUT:
        raise ShapeError(
            f"input {info.name!r} of shape {size} has more than {LARGEST_INPUT} elements; give --shape"
        )
    dtype = info.dtype or np.dtype(np.float32)
    if dtype.kind == "b":
        return rng.integers(0, 2, size).astype(bool)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        low, high = (limits.min, limits.max) if dtype.itemsize == 1 else (0, 1)
        return rng.integers(low, high, size, dtype, endpoint=True)
    return rng.standard_normal(size).astype(dtype)


def _declared(info: TensorInfo) -> Shape:
    if info.shape is None or not all(isinstance(length, int) for length in info.shape):
        declared = "undeclared" if info.shape is None else tuple(length or "any" for length in info.shape)
        raise ShapeError(
            f"input {info.name!r} has dynamic axes, its shape is {declared}; "
            f"give --shape {info.name}=… or --input"
        )
    return tuple(int(length or 0) for length in info.shape)


def described(inputs: Mapping[str, Array]) -> str:
    """Return the inputs' names, dtypes and shapes in one line."""
    return (
        ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in inputs.items()) or "no inputs"
    )
