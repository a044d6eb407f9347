"""ncnn's models of integers: files of its own programs, and of every way of a layer, in its own kernels.

`tests/data/ncnn`: ``small`` is a small network as pnnx 20261020 writes it; ``small8`` and
``small8-first-row`` are what ncnn2table and ncnn2int8, built from commit a4d2ea1d4422 of
github.com/Tencent/ncnn, make of it, with its matrices turned and as they are.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import conformance.cli
from conformance.candidates.converters import CONVERTERS, convert
from conformance.candidates.integer_graph import IntegerGraph, integer_graph
from conformance.candidates.kinds import Request, make
from conformance.candidates.ncnn_conversion import turn_matrices
from conformance.conversion.ncnn_graph import ncnn_graph
from conformance.conversion.ncnn_model import INTEGERS, NcnnLayer, read_ncnn
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.any_graph import verify_graph
from conformance.judge.unrounded import verify_unrounded
from conformance.reports.report import Report
from refimpl import MobileInstConfig
from refimpl.errors import ConfigurationError, FileError, MissingDependencyError, UnsupportedOperationError
from refimpl.ops.operation import Array

runtimes = pytest.mark.runtimes
DATA = Path(__file__).parents[2] / "data" / "ncnn"
STATIC = "ncnn:weights=int8-static"
SHAPE = (1, 3, 16, 16)
X = np.random.default_rng(5).normal(size=SHAPE).astype(np.float32)


def judged(made: IntegerGraph, x: Array = X) -> Report:
    return verify_graph(made, {next(iter(made.graph.inputs)): x})


def meaning(layers: list[NcnnLayer]) -> OnnxGraph:
    return OnnxGraph.load(ncnn_graph(layers, {"x": SHAPE}, ["m", "k", "s", "p"]))


# --- files of ncnn's own programs -----------------------------------------------------------------


@runtimes
@pytest.mark.parametrize("said", ["", ",winograd=off", ",sgemm=off", ",packing=off"])
def test_a_right_file_passes(said: str) -> None:
    report = judged(integer_graph(DATA / "small8.param", f"{STATIC}{said}"))
    assert report.verdict == "pass", report.headline()
    assert all(row.verdict == "pass" for row in report.leading.nodes)
    assert len(report.leading.nodes) > 30


@pytest.mark.parametrize("seed", range(3))
def test_a_right_file_means_what_it_was_made_of(seed: int) -> None:
    after, before = (meaning(read_ncnn(DATA / name)) for name in ("small8.param", "small.param"))
    x = np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)
    report = verify_unrounded(after, before, {"drawn": {"x": x}})
    assert report.verdict == "pass", report.headline()


def test_a_matrix_that_is_cut_off_by_its_first_row_is_named() -> None:
    """As ncnn2int8 does it: of each matrix that is stored by rows it looks for the largest in the first."""
    layers, source = (read_ncnn(DATA / name) for name in ("small8-first-row.param", "small.param"))
    held = {layer.name: layer for layer in source}
    cut = [
        layer.name
        for layer in layers
        if layer.kind == "Gemm" and np.abs(held[layer.name].weights[0]).max() > 130 / layer.scales[0][0]
    ]
    assert cut
    report = verify_unrounded(meaning(layers), meaning(source), {"drawn": {"x": X}})
    assert report.verdict == "fail"
    assert any(name in str(report.leading.first_fault) for name in cut), report.leading.first_fault
    assert any("is cut off at ±" in said for said in report.leading.evidence), report.leading.evidence


def scaled(layer: NcnnLayer, place: int, factor: float, part: slice = slice(None)) -> None:
    layer.scales[place] = np.array(layer.scales[place])
    layer.scales[place][part] *= np.float32(factor)


def moved(layer: NcnnLayer) -> None:
    layer.weights[0] = np.array(layer.weights[0])
    some = layer.weights[0][: layer.weights[0].size // 4]
    some[:] = np.where(some > 0, some - 8, some + 8)


def biased(layer: NcnnLayer) -> None:
    layer.weights[1] = layer.weights[1] * np.where(np.arange(layer.weights[1].size) < 2, 1.05, 1)


MISTAKES: dict[str, tuple[str, Callable[[NcnnLayer], None]]] = {
    "scale of some kernels": ("conv_8", lambda layer: scaled(layer, 0, 1.05, slice(3))),
    "scale of an operand": ("conv_11", lambda layer: scaled(layer, 1, 1.05)),
    "scale of a result": ("convclip_2", lambda layer: scaled(layer, 2, 1.05)),
    "integers of a kernel": ("convdwrelu_0", moved),
    "integers of a grouped kernel": ("convdw_18", moved),
    "bias": ("linear_13", biased),
    "scale of a matrix": ("gemm_0", lambda layer: scaled(layer, 0, 1.05)),
    "integers of a matrix": ("gemm_1", moved),
    "scale of an attention's": ("attention_14", lambda layer: scaled(layer, 2, 1.05, slice(3))),
    "slope": ("convdwrelu_1", lambda layer: layer.params.update({10: (0.2,)})),
    "end of a clip": ("convclip_2", lambda layer: layer.params.update({10: (0.0, 0.6)})),
    "pads": ("convdw_18", lambda layer: layer.params.update({4: 0, 15: 2, 14: 1})),
}
"""What is changed → the layer, and how."""


def with_mistake(name: str, layers: list[NcnnLayer]) -> NcnnLayer:
    """Change a layer; return it."""
    place, change = MISTAKES[name]
    (layer,) = (each for each in layers if each.name == place)
    change(layer)
    return layer


@runtimes
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_found_where_it_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that runs has other numbers than the one that it is judged by."""
    layers = read_ncnn(DATA / "small8.param")
    wrong = with_mistake(name, layers)
    monkeypatch.setattr("conformance.candidates.integer_graph.read_ncnn", lambda path: layers)
    report = judged(integer_graph(DATA / "small8.param", STATIC))
    assert report.verdict == "fail"
    assert report.leading.first_fault is not None
    assert report.leading.first_fault.step in wrong.tops


@pytest.mark.parametrize("name", [name for name in MISTAKES if name != "scale of a matrix"])
def test_a_mistake_is_found_beside_the_source(name: str) -> None:
    after, before = read_ncnn(DATA / "small8.param"), read_ncnn(DATA / "small.param")
    wrong = with_mistake(name, after)
    report = verify_unrounded(meaning(after), meaning(before), {"drawn": {"x": X}})
    assert report.verdict == "fail"
    assert wrong.name in str(report.leading.first_fault), report.leading.first_fault


# --- every way of a layer --------------------------------------------------------------------------


def tagged(array: Array) -> bytes:
    """Return what ncnn's ``ModelBin`` reads as type 0."""
    tag = INTEGERS if array.dtype == np.int8 else 0
    held = array.tobytes()
    return np.uint32(tag).tobytes() + held + bytes(-len(held) % 4)


def written(folder: Path, lines: list[str], parts: list[bytes]) -> Path:
    """Write a model of one input and these layers."""
    lines = [f"{line.split()[0]} l{place} {' '.join(line.split()[1:])}" for place, line in enumerate(lines)]
    blobs = sum(int(line.split()[3]) for line in lines)
    text = ["7767517", f"{len(lines)} {blobs}", *lines]
    (folder / "m.param").write_text("\n".join(text) + "\n", encoding="utf-8")
    (folder / "m.bin").write_bytes(b"".join(parts))
    return folder / "m.param"


RNG = np.random.default_rng(3)


def whole(*shape: int) -> Array:
    return RNG.integers(-127, 128, shape).astype(np.int8)


def floats(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def steps(count: int, largest: float = 1.0) -> Array:
    """Return scales of weights of about this size."""
    return (127 / RNG.uniform(largest / 2, largest, count)).astype(np.float32)


def one(scale: float) -> bytes:
    return np.array([scale], np.float32).tobytes()


def convolution(
    channels: int, made: int, how: str = "", *, kernel: int = 3, group: int = 1, loaded: bool = False
) -> tuple[str, list[bytes]]:
    """Return a convolution of integers between blobs 0 and 1, and what the ``.bin`` has of it."""
    size = made * channels // group * kernel**2
    kind, own = ("ConvolutionDepthWise", f" 7={group} 8=1") if group > 1 else ("Convolution", " 8=2")
    scales = steps(group if group > 1 else made)
    if " 8=" in how:
        own = own.replace(" 8=1", "").replace(" 8=2", "")
        scales = scales[:1] if how.split(" 8=")[1][-1] == "2" and group > 1 else scales
    taps = floats(size) / 3 if loaded else whole(size)
    line = f"{kind} 1 1 a out0 0={made} 1={kernel} 5=1 6={size}{own}{how}"
    top = [one(20.0)] if any(f"8=10{n}" in how for n in (1, 2)) else []
    parts = [tagged(taps), floats(made).tobytes(), scales.tobytes(), one(40.0), *top]
    return line, parts


CONVOLUTIONS = {
    "plain": convolution(3, 8),
    "of one": convolution(3, 5, kernel=1),
    "strided": convolution(3, 16, " 3=2 4=1"),
    "padded unevenly": convolution(3, 8, " 4=2 14=1 15=0 16=3"),
    "dilated": convolution(3, 4, " 2=2 4=2"),
    "relu": convolution(3, 8, " 9=1"),
    "leaky relu": convolution(3, 8, " 9=2 -23310=1,2.000000e-01"),
    "clip": convolution(3, 8, " 9=3 -23310=2,-1.000000e+00,2.000000e+00"),
    "sigmoid": convolution(3, 8, " 9=4"),
    "made integers": convolution(3, 8, loaded=True),
    "integers again": convolution(3, 8, " 8=102"),
    "integers again, rectified": convolution(3, 7, " 8=102 9=1"),
    "grouped": convolution(3, 9, group=3),
    "depthwise": convolution(3, 3, group=3),
    "one scale": convolution(3, 3, " 8=2", group=3),
    "integers again, depthwise": convolution(3, 3, " 8=101", group=3),
    "integers again, one scale": convolution(3, 3, " 8=102", group=3),
    "depthwise, made integers": convolution(3, 3, group=3, loaded=True),
}
CONVOLUTIONS["oblong"] = (
    "Convolution 1 1 a out0 0=4 1=1 11=3 5=1 6=36 8=2 14=1",
    [tagged(whole(36)), floats(4).tobytes(), steps(4).tobytes(), one(40.0)],
)


@runtimes
@pytest.mark.parametrize("packing", ["on", "off"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_each_way_of_a_convolution_is_computed_as_it_is_read(name: str, packing: str, tmp_path: Path) -> None:
    line, parts = CONVOLUTIONS[name]
    path = written(tmp_path, ["Input 0 1 a", line], parts)
    report = judged(integer_graph(path, f"{STATIC},packing={packing}"), X)
    assert report.verdict == "pass", report.headline()
    assert all(row.verdict == "pass" for row in report.leading.nodes)


PACKED = [
    "Input 0 1 a",
    "Convolution 1 1 a b 0=16 1=3 4=1 5=1 6=432 8=102 9=1",
    "Split 1 2 b c d",
    "ConvolutionDepthWise 1 1 c e 0=16 1=3 4=1 5=1 6=144 7=16 8=101",
    "ConvolutionDepthWise 1 1 d f 0=16 1=5 4=2 5=1 6=400 7=16 8=1 9=1",
    "Convolution 1 1 e out0 0=4 1=1 5=1 6=64 8=2",
    "ReLU 1 1 f out1",
]


def packed(top: float) -> list[bytes]:
    """Return the weights of `PACKED`; what the first hands on has this scale, what takes it 20 and 10."""
    return [
        *(tagged(whole(432)), floats(16).tobytes(), steps(16).tobytes(), one(40.0), one(top)),
        *(tagged(whole(144)), floats(16).tobytes(), steps(16).tobytes(), one(20.0), one(30.0)),
        *(tagged(whole(400)), floats(16).tobytes(), steps(16).tobytes(), one(10.0)),
        *(tagged(whole(64)), floats(4).tobytes(), steps(4).tobytes(), one(30.0)),
    ]


@runtimes
@pytest.mark.parametrize("packing", ["on", "off"])
@pytest.mark.parametrize("top", [20.0, 13.0])
def test_integers_are_handed_on_whatever_scale_takes_them(top: float, packing: str, tmp_path: Path) -> None:
    path = written(tmp_path, PACKED, packed(top))
    made = integer_graph(path, f"{STATIC},packing={packing}")
    report = judged(made)
    assert report.verdict == "pass", report.headline()
    found = made.capture({"input": X})
    np.testing.assert_array_equal(found["c"], found["c"].astype(np.int8))


def product(before: str, kind: str, how: str, *parts: Array) -> tuple[list[str], list[bytes]]:
    """Return what makes blob b of the input, and the product; and its weights."""
    lines = ["Input 0 1 a", f"{before}", f"{kind} 1 1 b out0 {how}"]
    return lines, [tagged(x) if x.ndim == 2 else x.tobytes() for x in parts]


ROWS, COLUMNS = "Reshape 1 1 a b 0=16 1=48", "Reshape 1 1 a b 0=48 1=16"
VECTOR, MAP = "Reshape 1 1 a b 0=768", "ReLU 1 1 a b"
ONE = steps(1, 3)
PRODUCTS = {
    "vector": product(VECTOR, "InnerProduct", "0=4 1=1 2=3072 8=2", whole(4, 768), floats(4), steps(4), ONE),
    "map": product(MAP, "InnerProduct", "0=4 1=1 2=3072 8=2 9=1", whole(4, 768), floats(4), steps(4), ONE),
    "made integers": product(MAP, "InnerProduct", "0=4 1=0 2=3072 8=2", floats(4, 768) / 3, steps(4), ONE),
    "rows": product(ROWS, "InnerProduct", "0=5 1=1 2=80 8=2", whole(5, 16), floats(5), steps(5), ONE),
    "turned matrix": product(
        ROWS, "Gemm", "3=1 5=1 6=1 7=48 8=5 9=16 10=4 18=2", whole(5, 16), floats(1, 5), steps(1)
    ),
    "matrix": product(ROWS, "Gemm", "3=0 5=1 6=1 7=48 8=5 9=16 10=-1 18=2", whole(16, 5), steps(1)),
    "first matrix": product(COLUMNS, "Gemm", "3=0 4=1 6=1 7=5 8=48 9=16 10=-1 18=2", whole(5, 16), steps(5)),
}


@runtimes
@pytest.mark.parametrize("name", PRODUCTS)
def test_each_way_of_a_product_is_computed_as_it_is_read(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, *PRODUCTS[name])
    report = judged(integer_graph(path, STATIC))
    assert report.verdict == "pass", report.headline()
    assert all(row.verdict == "pass" for row in report.leading.nodes)


# --- what is refused --------------------------------------------------------------------------------


def test_weights_in_blocks_are_refused_by_name(tmp_path: Path) -> None:
    path = written(tmp_path, ["Input 0 1 a", "Gemm 1 1 a out0 3=1 5=1 7=4 8=4 9=32 18=800"], [])
    with pytest.raises(UnsupportedOperationError, match="Gemm in blocks are not read"):
        read_ncnn(path)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.inf, np.nan])
def test_a_scale_that_makes_no_integers_is_refused(scale: float, tmp_path: Path) -> None:
    line, parts = convolution(3, 8)
    path = written(tmp_path, ["Input 0 1 a", line], [*parts[:-1], one(scale)])
    with pytest.raises(FileError, match="scale"):
        ncnn_graph(read_ncnn(path), {"x": SHAPE}, ["y"])


def test_floats_where_a_product_has_scales_of_integers_are_refused() -> None:
    layer = NcnnLayer("Gemm", "l", ("a",), ("out0",), {3: 1, 5: 1, 6: 1, 7: 4, 8: 5, 9: 16, 10: -1, 18: 2})
    layer.weights.append(np.ones(80, np.float32))
    layer.scales.append(np.ones(1, np.float32))
    given = NcnnLayer("Input", "a", (), ("a",), {})
    for each in (layer, replace(layer, weights=[np.ones(80, np.int8)], scales=[])):
        with pytest.raises(UnsupportedOperationError, match="scales of integers mean is not written down"):
            ncnn_graph([given, each], {"x": (1, 4, 16)}, ["y"])


@runtimes
def test_a_file_of_integers_is_not_judged_as_the_network(tmp_path: Path) -> None:
    network = Request("", MobileInstConfig.preset("topformer-tiny"), {})
    with pytest.raises(ConfigurationError, match="another than the network; judge it by itself"):
        make(f"ncnn:{DATA / 'small8.param'},weights=int8-static", network)
    with pytest.raises(ConfigurationError, match="has weights of int8-static: declare weights=int8-static"):
        make(f"ncnn:{DATA / 'small8.param'}", network)
    with pytest.raises(ConfigurationError, match="has no weights of int8-static"):
        integer_graph(DATA / "small.param", STATIC)


@runtimes
def test_programs_that_are_not_there_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "m.onnx").write_bytes(b"")
    with pytest.raises(MissingDependencyError, match="ncnn2table is not on the path"):
        convert(CONVERTERS["ncnn"], tmp_path / "m.onnx", tmp_path / "m.param", "int8-static")


def test_turned_matrices_mean_the_same(tmp_path: Path) -> None:
    for suffix in (".param", ".bin"):
        shutil.copy(DATA / f"small{suffix}", tmp_path)
    turn_matrices(tmp_path / "small.param")
    before, after = (read_ncnn(folder / "small.param") for folder in (DATA, tmp_path))
    turned = 0
    for first, other in zip(before, after, strict=True):
        assert replace(first, params={}, weights=[]) == replace(other, params={}, weights=[])
        if first.params == other.params:
            assert all(map(np.array_equal, first.weights, other.weights))
            continue
        turned += 1
        assert (first.param(3), other.param(3)) == (1, 0)
        n, k = first.param(8), first.param(9)
        assert np.array_equal(first.weights[0].reshape(n, k), other.weights[0].reshape(k, n).T)
    assert turned == 2


@runtimes
def test_the_command_judges_a_file_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for suffix in (".param", ".bin"):
        shutil.copy(DATA / f"small8{suffix}", tmp_path)
    monkeypatch.chdir(tmp_path)
    line = ["verify", "small8.param", "--graph-only", "--candidate", STATIC]
    result = CliRunner().invoke(conformance.cli.app, [*line, "--shape", "input=1x3x16x16"])
    assert result.exit_code == 0, result.output
    assert "33 results of" in result.output
    assert isinstance(CliRunner().invoke(conformance.cli.app, line).exception, ValueError)
