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
from conformance.conversion.ncnn_model import NcnnLayer, read_ncnn
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
TOLERANCE = 1e-5
"""Of ncnn's float32, by the largest number that is made, or 1."""


def drawn(generator: np.random.Generator, draw: str, shape: tuple[int, ...]) -> Array:
    """Return numbers for an operand or a weight."""
    if draw == "words":
        return generator.integers(0, 12, shape).astype(np.int32)
    if draw == "box":
        return np.array([1.2, 0.7, 6.1, 5.9], np.float32) if shape == (4,) else drawn(generator, "", shape)
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
        content += struct.pack("<I", 0) * weight.tagged
        content += drawn(generator, weight.draw, (weight.count,)).tobytes()
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
