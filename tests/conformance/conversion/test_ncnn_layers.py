"""Every layer of ncnn's that is read, computed by ncnn itself and by our evaluation of what it is read as."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import ncnn_layer_cases
import ncnn_product_cases
import numpy as np
import pytest
from ncnn_layer_cases import Case

from conformance.candidates.evaluated import EvaluatedGraph
from conformance.conversion.ncnn_graph import KINDS, ncnn_graph
from conformance.conversion.ncnn_model import HALF, INTEGERS, NcnnLayer, read_ncnn
from conformance.graph.onnx_graph import OnnxGraph
from refimpl.errors import UnsupportedOperationError
from refimpl.ops.operation import Array

runtimes = pytest.mark.runtimes
CASES = {
    f"{case.line} {'; '.join(map(str, case.shapes))} {case.draw}": case
    for module in (ncnn_layer_cases, ncnn_product_cases)
    for group in module.GROUPS
    for case in group()
}
TAGS = {"float16": HALF, "int8": INTEGERS}
"""Type of an array that is not of float32 → what a file begins it with."""
TOLERANCE = 1e-5
"""Of ncnn's float32, by the largest number that is made, or 1."""


def drawn(generator: np.random.Generator, draw: str, shape: tuple[int, ...]) -> Array:
    """Return numbers for an operand or a weight."""
    if draw == "words":
        return generator.integers(0, 12, shape).astype(np.int32)
    if draw == "integers":
        return generator.integers(-127, 128, shape).astype(np.int8)
    if draw == "box":
        return np.array([1.2, 0.7, 6.1, 5.9], np.float32) if shape == (4,) else drawn(generator, "", shape)
    if draw == "half":
        return generator.normal(size=shape).astype(np.float16)
    low, high = {"positive": (0.5, 2), "unit": (-0.9, 0.9), "above": (1.1, 3)}.get(draw, (0, 0))
    made = generator.uniform(low, high, shape) if high else generator.normal(size=shape)
    return made.astype(np.float32)


def written(case: Case, folder: Path, generator: np.random.Generator) -> Path:
    """Write a layer's two files."""
    kind, *params = case.line.split()
    ends = [f"in{at}" for at in range(len(case.shapes))], [f"out{at}" for at in range(case.tops)]
    lines = [f"Input {name} 0 1 {name}" for name in ends[0]]
    lines.append(" ".join([kind, "layer", *(str(len(each)) for each in ends), *ends[0], *ends[1], *params]))
    param = folder / "m.param"
    param.write_text("\n".join(["7767517", f"{len(lines)} {len(ends[0]) + len(ends[1])}", *lines, ""]))
    content = b""
    for weight in case.weights:
        array = drawn(generator, weight.draw, (weight.count,))
        content += struct.pack("<I", TAGS.get(array.dtype.name, 0)) * weight.tagged
        content += array.tobytes() + bytes(-array.nbytes % 4)
    param.with_suffix(".bin").write_bytes(content)
    return param


def by_ncnn(param: Path, given: dict[str, Array], tops: int) -> list[Array]:
    """Return what ncnn makes of a layer."""
    package: Any = pytest.importorskip("ncnn")
    net = package.Net()
    for name in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage", "winograd_convolution"):
        setattr(net.opt, f"use_{name}", False)
    net.opt.num_threads = 1
    assert net.load_param(str(param)) == 0
    assert net.load_model(str(param.with_suffix(".bin"))) == 0
    extractor = net.create_extractor()
    for name, array in given.items():
        # A copy of its own: a layer that works in place ends the process on NumPy's memory.
        extractor.input(name, package.Mat(np.ascontiguousarray(array)).clone())
    made = []
    for at in range(tops):
        status, blob = extractor.extract(f"out{at}")
        assert status == 0
        made.append(np.array(blob, copy=True))
    return made


def by_us(param: Path, given: dict[str, Array], tops: int) -> list[Array]:
    """Return what our reading of a layer makes."""
    shapes = {f"of {name}": (1, *array.shape) for name, array in given.items()}
    graph = OnnxGraph.load(ncnn_graph(read_ncnn(param), shapes, [f"y{at}" for at in range(tops)]))
    feeds = {f"of {name}": array[None].astype(np.float32) for name, array in given.items()}
    found = EvaluatedGraph(graph).capture(feeds)
    return [found[f"out{at}"] for at in range(tops)]


@runtimes
@pytest.mark.parametrize("name", CASES)
def test_ncnn_computes_what_a_layer_is_read_as(name: str, tmp_path: Path) -> None:
    case, generator = CASES[name], np.random.default_rng(zlib.crc32(name.encode()))
    param = written(case, tmp_path, generator)
    given = {f"in{at}": drawn(generator, case.draw, shape) for at, shape in enumerate(case.shapes)}
    ours = by_us(param, given, case.tops)
    for own, read in zip(by_ncnn(param, given, case.tops), ours, strict=True):
        assert own.shape == read.shape
        assert np.abs(own - read).max() <= TOLERANCE * max(np.abs(read).max(), 1)


@runtimes
def test_every_kind_that_is_read_is_computed_here() -> None:
    assert {case.line.split()[0] for case in CASES.values()} == KINDS


GIVEN = (
    NcnnLayer("Input", "a", (), ("a",), {}),
    NcnnLayer("MemoryData", "v", (), ("v",), {0: 7}, [np.zeros(7, np.float32)]),
    NcnnLayer("MemoryData", "m", (), ("m",), {0: 6, 1: 5}, [np.zeros(30, np.float32)]),
    NcnnLayer("MemoryData", "d", (), ("d",), {0: 6, 1: 5, 11: 4, 2: 3}, [np.zeros(360, np.float32)]),
)
REFUSED = {
    "an unknown kind": ("Frobnicate", "a", {}, "what Frobnicate means"),
    "an unknown activation": ("InnerProduct", "v", {0: 1, 9: 7}, "activation 7"),
    "a slope that falls": ("HardSwish", "a", {0: -0.2}, "a slope of -0.2"),
    "an unknown operation": ("UnaryOp", "a", {0: 28}, "operation 28"),
    "an unknown BinaryOp": ("BinaryOp", "a a", {0: 19}, "BinaryOp 19"),
    "blobs of two shapes": ("Eltwise", "a m", {}, "this Eltwise of 2 blobs"),
    "an unknown reduction": ("Reduction", "a", {0: 11}, "Reduction 11"),
    "axes with a batch": ("Reduction", "a", {1: 0, 3: (1,)}, "a Reduction whose axes count the batch"),
    "an axis with a batch": ("Softmax", "a", {0: 1}, "a Softmax whose axis counts the batch"),
    "an axis too far": ("Softmax", "m", {0: 2, 1: 1}, "axis 2 of 2"),
    "an odd GLU": ("GLU", "v", {}, "a GLU of 7"),
    "a swapped result": ("Einsum", "m m", {0: tuple(map(ord, "ij,kj->ik"))}, "the equation ij,kj->ik"),
    "a Scale that adds": ("Scale", "a v", {0: -233, 1: 1}, "a Scale by a blob that adds something"),
    "groups that do not fit": ("GroupNorm", "a", {0: 3, 1: 4, 3: 0}, "a GroupNorm of 4 channels in 3 groups"),
    "other channels": ("GroupNorm", "a", {0: 2, 1: 6, 3: 0}, "a GroupNorm of 6 channels of 4"),
    "no product of axes": ("LayerNorm", "a", {0: 12, 2: 0}, "a LayerNorm over 12"),
    "an LRN of volumes": ("LRN", "d", {}, "LRN of 4 axes"),
    "a Reshape of batches": ("Reshape", "a", {0: -1, 12: 0}, "a Reshape of batches"),
    "a Reshape to nothing": ("Reshape", "a", {}, r"a Reshape to \[\]"),
    "an unknown side": ("Reshape", "a", {6: "0q,-1"}, "the side '0q'"),
    "an expression cut off": ("Reshape", "a", {6: "+(0w"}, "this Reshape"),
    "five axes": ("ExpandDims", "d", {3: (0,)}, "an ExpandDims of 4 axes"),
    "an order of more axes": ("Permute", "m", {0: 5}, "this Permute"),
    "channels left over": ("ShuffleChannel", "a", {0: 3}, "a shuffle of 4 channels in 3 groups"),
    "no such diagonal": ("Diag", "m", {0: 9}, "diagonal 9"),
    "more than there is": ("Slice", "v", {0: (9,)}, "a Slice of 7 from 0 to 9"),
    "a Crop to nothing": ("Crop", "v", {6: 1}, "a Crop to 0 from 0 to 1"),
    "numbers of a blob": ("Crop", "v v", {0: -233}, "a Crop by the numbers of a blob"),
    "laid beside it": ("CopyTo", "m v", {}, "a CopyTo of"),
    "a far reflection": ("Padding", "m", {0: 5, 4: 2}, "a reflection of 5 by 5 and 0"),
    "words that are computed": ("Embed", "v", {0: 2, 1: 3, 3: 6}, "an Embed of v, which is computed"),
    "mixed padding": ("Pooling", "a", {1: 3, 3: 1, 5: 2}, "mode 2 of padding"),
    "a window outside": ("Pooling", "a", {1: 3, 2: 3, 3: 1}, "a pooling of 8 by 3 with a window outside"),
    "no way of resizing": ("Interp", "a", {1: 2.0, 2: 2.0}, "way 0 of resizing"),
    "one length": ("Interp", "a", {0: 2, 3: 9}, "an Interp to one length and by the factor of the other"),
    "too short for cubic": ("Interp", "m", {0: 3, 1: 1.0, 2: 0.1}, "an Interp to"),
    "a volume sampled": ("GridSample", "d d", {}, "GridSample of 4 axes"),
    "clipped windows": ("ROIAlign", "a v", {0: 2, 1: 2}, "a ROIAlign that clips its windows"),
    "kept keys": ("SDPA", "a a a a a", {7: 1}, "an attention that keeps its keys"),
    "keys kept by heads": (
        "MultiHeadAttention",
        "m m m",
        {0: 6, 2: 36, 7: 1},
        "an attention that keeps its keys",
    ),
    "a projection": ("LSTM", "m", {0: 2, 3: 4}, "an LSTM that projects what it carries"),
    "recurrent integers": ("GRU", "m", {0: 2, 8: 1}, "a GRU of integers"),
    "a result without padding": ("Deconvolution", "a", {0: 1, 1: 1, 20: 9}, r"a result of \[9, 9\] without"),
    "an Einsum of nothing": ("Einsum", "a", {}, "this Einsum"),
    "a Gemm of maps": ("Gemm", "a m", {}, r"a Gemm of \[4, 8, 9\]"),
    "a Packing that pads": ("Packing", "a", {1: 1}, "a Packing that pads"),
}
"""What a layer is → its kind, its operands, its parameters, what is said of it."""


@pytest.mark.parametrize("name", REFUSED)
def test_a_way_of_a_layer_that_is_not_read_is_named(name: str) -> None:
    kind, bottoms, params, said = REFUSED[name]
    weights = [np.zeros(7, np.float32)] * (kind == "InnerProduct")
    weights += [np.zeros(4, np.float32)] * (kind == "Deconvolution")
    layer = NcnnLayer(kind, "x", tuple(bottoms.split()), ("out0",), params, weights)
    with pytest.raises(UnsupportedOperationError, match=f"layer x: {said}.* is not written down"):
        ncnn_graph([*GIVEN, layer], {"picture": (1, 4, 8, 9)}, ["y"])


def test_a_length_that_is_not_declared_is_named() -> None:
    layer = NcnnLayer("Squeeze", "x", ("a",), ("out0",), {0: 1})
    with pytest.raises(UnsupportedOperationError, match="layer x: Squeeze of a, whose axes are not declared"):
        ncnn_graph([GIVEN[0], layer], {"picture": (1, "channels", "height", "width")}, ["y"])


def test_words_of_integers_stand_for_numbers() -> None:
    held = np.arange(-6, 6, dtype=np.int8)
    scale = np.array([2.0], np.float32)
    layer = NcnnLayer("Embed", "x", ("a",), ("out0",), {0: 3, 1: 4, 3: 12, 18: 1}, [held], [scale])
    graph = OnnxGraph.load(ncnn_graph([GIVEN[0], layer], {"words": (1, 2)}, ["y"]))
    found = EvaluatedGraph(graph).capture({"words": np.array([[3, 0]], np.float32)})["out0"]
    assert np.array_equal(found, held.reshape(4, 3)[[3, 0]] / 2)
