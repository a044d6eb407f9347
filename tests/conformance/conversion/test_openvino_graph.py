"""OpenVINO's IR read as a graph: what the converter kept of it, and that OpenVINO computes the same."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import narrow_network
import numpy as np
import onnx
import pytest
from converted_files import beside_its_source, read, with_slice_multiplied
from onnx import numpy_helper
from onnx_cases_left_out import official_cases, reasons
from typer.testing import CliRunner

import conformance.cli
from conformance.candidates.converters import CONVERTERS, convert
from conformance.candidates.evaluated import EvaluatedGraph
from conformance.candidates.kinds import PHONE_RUNTIMES
from conformance.conversion.openvino_graph import openvino_graph
from conformance.conversion.openvino_model import read_openvino
from conformance.graph.onnx_export import export
from conformance.graph.onnx_graph import OnnxGraph
from refimpl.errors import FileError, ShapeError, UnsupportedOperationError

runtimes = pytest.mark.runtimes
SHAPE = (1, 3, 128, 128)
IMAGES = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
SMALL = """<?xml version="1.0"?>
<net name="n" version="11"><layers>
<layer id="0" name="x" type="Parameter" version="opset1"><data shape="1,2" element_type="f32"/>
<output><port id="0" names="x"><dim>1</dim><dim>2</dim></port></output></layer>
<layer id="1" name="c" type="Const" version="opset1">
<data element_type="f32" shape="1, 2" offset="0" size="8"/>
<output><port id="0"><dim>1</dim><dim>2</dim></port></output></layer>
<layer id="2" name="a" type="Add" version="opset1"><data auto_broadcast="numpy"/>
<input><port id="0"/><port id="1"/></input>
<output><port id="2" names="y"><dim>1</dim><dim>2</dim></port></output></layer>
<layer id="3" name="r" type="Result" version="opset1"><input><port id="0"/></input></layer>
</layers><edges><edge from-layer="0" from-port="0" to-layer="2" to-port="0"/>
<edge from-layer="1" from-port="0" to-layer="2" to-port="1"/>
<edge from-layer="2" from-port="2" to-layer="3" to-port="0"/></edges></net>
"""


@pytest.fixture(scope="module")
def xml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The narrow network's IR; the ONNX file lies beside it."""
    folder = tmp_path_factory.mktemp("openvino")
    onnx.save(export(narrow_network.network(), IMAGES), folder / "m.onnx")
    return convert(CONVERTERS["openvino"], folder / "m.onnx", folder / "m.xml")[0]


@runtimes
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_converted_network_means_what_it_was_made_from(xml: Path, tmp_path: Path, precision: str) -> None:
    """Halved weights as halves."""
    source = xml.with_suffix(".onnx")
    path = convert(CONVERTERS["openvino"], source, tmp_path / "m.xml", precision)[0]
    beside_its_source(path, source).raise_on_failure()


@pytest.fixture(scope="module")
def integers(xml: Path) -> Path:
    """The same with weights of int8."""
    return convert(CONVERTERS["openvino"], xml.with_suffix(".onnx"), xml.with_name("m8.xml"), "int8")[0]


@runtimes
def test_integer_weights_are_roundings_of_their_source(xml: Path, integers: Path) -> None:
    report = beside_its_source(integers, xml.with_suffix(".onnx"))
    report.raise_on_failure()
    assert sum(row.verdict == "pass" for row in report.leading.steps) > 200
    assert all(row.verdict == "pass" for row in report.leading.outputs)


@runtimes
@pytest.mark.parametrize(
    "weight", ["mask_decoder.lateral.1.conv.weight", "instance_decoder.kernel_head.0.weight"]
)
def test_integer_weights_of_another_source_are_named(xml: Path, integers: Path, weight: str) -> None:
    source = with_slice_multiplied(xml.with_suffix(".onnx"), weight, 1.05)
    assert f"weight {weight} is 0.9" in beside_its_source(integers, source).headline()


@runtimes
def test_openvino_computes_what_its_file_is_read_as(xml: Path) -> None:
    """Every tensor that both have, in OpenVINO's own kernels and by our evaluation of the graph."""
    own = PHONE_RUNTIMES["openvino"].candidate(str(xml)).capture(IMAGES)
    ours = EvaluatedGraph(read(xml, xml.with_suffix(".onnx"))[0]).capture({"images": IMAGES})
    shared = own.keys() & ours.keys()
    assert len(shared) > 100
    for name in shared:
        assert own[name].shape == ours[name].shape, name
        assert np.abs(own[name] - ours[name]).max() <= 1e-3 * max(np.abs(ours[name]).max(), 1e-3), name


@runtimes
def test_a_weight_changed_on_the_way_is_found(xml: Path, tmp_path: Path) -> None:
    shutil.copy(xml, tmp_path / "m.xml")
    content = bytearray(xml.with_suffix(".bin").read_bytes())
    weight = narrow_network.weights()["instance_decoder.class_head.weight"].astype(np.float32)
    at = content.find(weight.tobytes())
    assert at >= 0
    content[at : at + 64] = (weight.ravel()[:16] * np.float32(1.05)).tobytes()
    (tmp_path / "m.bin").write_bytes(content)
    report = beside_its_source(tmp_path / "m.xml", xml.with_suffix(".onnx"))
    assert report.verdict == "fail"
    assert report.leading.first_fault is not None
    assert report.leading.first_fault.step.startswith("instance_decoder.class_head")


@runtimes
def test_biases_that_nncf_has_moved_are_judged_by_nobody(xml: Path, tmp_path: Path) -> None:
    path = convert(CONVERTERS["openvino"], xml.with_suffix(".onnx"), tmp_path / "m.xml", "int8-static")[0]
    line = ["verify", str(path), "--against", str(xml.with_suffix(".onnx")), "--no-cache"]
    result = CliRunner().invoke(conformance.cli.app, line)
    assert isinstance(result.exception, UnsupportedOperationError)
    assert "NNCF moves biases by what its samples tell" in str(result.exception)


@runtimes
def test_the_command_takes_an_ir(xml: Path) -> None:
    line = ["verify", str(xml), "--against", str(xml.with_suffix(".onnx")), "--no-cache"]
    result = CliRunner().invoke(conformance.cli.app, line)
    assert result.exit_code == 0, result.output


def small(folder: Path, change: Callable[[str], str] = str) -> Path:
    """Write an IR that adds (1, 2) to its input."""
    (folder / "m.xml").write_text(change(SMALL))
    (folder / "m.bin").write_bytes(np.array([1, 2], np.float32).tobytes())
    return folder / "m.xml"


def test_a_small_one_is_read(tmp_path: Path) -> None:
    graph = OnnxGraph.load(openvino_graph(read_openvino(small(tmp_path)), {"x": (1, 2)}, ["y"]))
    found = EvaluatedGraph(graph).run({"x": np.array([[10, 20]], np.float32)})
    np.testing.assert_array_equal(found["y"], [[11, 22]])


def replaced(before: str, after: str) -> Callable[[str], str]:
    """Return what puts one text in another's place, once."""
    return lambda text: text.replace(before, after, 1)


BROKEN: dict[str, tuple[Callable[[str], str], str]] = {
    "half": (lambda text: text[: len(text) // 2], "cut off or malformed"),
    "another": (lambda text: "<html></html>", "begins with <html>, not <net>"),
    "long": (replaced('offset="0"', 'offset="4"'), "a constant ends at byte 12, the weights at 8"),
    "type": (
        replaced('element_type="f32" shape="1, 2"', 'element_type="u1" shape="1, 2"'),
        "constants of u1",
    ),
    "circle": (
        replaced('from-layer="0" from-port="0"', 'from-layer="2" from-port="2"'),
        "what is made of it",
    ),
    "entities": (replaced("<net", "<!DOCTYPE net><net"), "declares entities"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_named(tmp_path: Path, kind: str) -> None:
    change, said = BROKEN[kind]
    with pytest.raises(FileError, match=said):
        read_openvino(small(tmp_path, change))


def test_a_file_without_its_weights_is_named(tmp_path: Path) -> None:
    path = small(tmp_path)
    path.with_suffix(".bin").unlink()
    with pytest.raises(FileError, match=r"m\.bin: cannot be read"):
        read_openvino(path)


def test_a_layer_that_lacks_what_it_should_be_told_is_named(tmp_path: Path) -> None:
    layers = read_openvino(small(tmp_path, replaced('type="Add"', 'type="Clamp"')))
    with pytest.raises(FileError, match="Clamp a: it is malformed"):
        openvino_graph(layers, {"x": (1, 2)}, ["y"])


def test_what_is_not_known_is_named(tmp_path: Path) -> None:
    layers = read_openvino(small(tmp_path, replaced('type="Add"', 'type="Frobnicate"')))
    with pytest.raises(UnsupportedOperationError, match="a: what Frobnicate means is not written down"):
        openvino_graph(layers, {"x": (1, 2)}, ["y"])


def test_a_source_of_another_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match=r"takes \[\(1, 2\)\], its source \[\(1, 3\)\]"):
        openvino_graph(read_openvino(small(tmp_path)), {"x": (1, 3)}, ["y"])


# --- ONNX's own cases -----------------------------------------------------------------------------

PER_OPERATOR = 2
"""Cases of each, of the many."""
LOST = {"Attention", "Resize", "SpaceToDepth"}
"""Operators of which OpenVINO's converter loses an attribute: the runtime computes what is read."""


def own_cases() -> Iterator[tuple[str, onnx.ModelProto, dict[str, np.ndarray], list[np.ndarray]]]:
    """Yield some of ONNX's cases: operators, model, inputs and outputs; whole numbers are constants."""
    cases = official_cases()
    left_out, seen = reasons(cases), Counter[str]()
    for name in sorted(cases.keys() - left_out.keys()):
        model = onnx.ModelProto()
        model.CopyFrom(cases[name].model)
        kinds = "+".join(sorted({node.op_type for node in model.graph.node}))
        given, made = cases[name].data_sets[0]
        arrays = [[np.asarray(each) for each in side] for side in (given, made)]
        if any(each.dtype.kind not in "fiub" for side in arrays for each in side):
            continue
        feeds = dict(zip((each.name for each in model.graph.input), arrays[0], strict=False))
        fixed = {each: array for each, array in feeds.items() if array.dtype != np.float32}
        if fixed.keys() == feeds.keys() or seen[kinds] >= PER_OPERATOR or len(feeds) != len(given):
            continue
        seen[kinds] += 1
        inputs = [each for each in model.graph.input if each.name not in fixed]
        del model.graph.input[:]
        model.graph.input.extend(inputs)
        model.graph.initializer.extend(numpy_helper.from_array(fixed[each], each) for each in fixed)
        yield kinds, model, {each: feeds[each] for each in feeds if each not in fixed}, arrays[1]


def are_alike(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> bool:
    return all(
        found[name].shape == array.shape
        and np.allclose(found[name].astype(float), array.astype(float), 2e-3, 1e-5, equal_nan=True)
        for name, array in wanted.items()
    )


@runtimes
def test_of_onnxs_own_cases_what_is_read_is_what_openvino_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")  # so that it sends no report of its use
    import openvino

    refused = (openvino.frontend.OpConversionFailure, openvino.frontend.GeneralFailure, RuntimeError)
    right, lost = set[str](), set[str]()
    for kinds, model, feeds, outputs in own_cases():
        onnx.save(model, tmp_path / "m.onnx")
        names = [each.name for each in model.graph.output]
        try:
            converted = openvino.convert_model(tmp_path / "m.onnx")
            openvino.save_model(converted, tmp_path / "m.xml", compress_to_fp16=False)
            shapes = {name: array.shape for name, array in feeds.items()}
            graph = OnnxGraph.load(openvino_graph(read_openvino(tmp_path / "m.xml"), shapes, names))
            found = EvaluatedGraph(graph).run(feeds)
        except (*refused, UnsupportedOperationError, ShapeError, FileError):
            continue  # not converted, not read, or of shapes that are not known
        if are_alike(found, dict(zip(names, outputs, strict=True))):
            right.add(kinds)
            continue
        compiled = openvino.compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        results = [np.asarray(each) for each in compiled([*feeds.values()]).values()]
        assert are_alike(found, dict(zip(names, results, strict=True))), kinds
        lost.add(kinds)
    assert len(right) > 170
    assert {kinds for kinds in lost if "+" not in kinds} <= LOST


# --- layers that OpenVINO's converter of ONNX does not write -----------------------------------------

X = np.random.default_rng(2).normal(size=(2, 6, 5, 4)).astype(np.float32)
KERNEL = np.random.default_rng(3).normal(size=(3, 2, 2, 3, 3)).astype(np.float32)
BUILT: dict[str, Callable[[Any, Any], Any]] = {
    "a strided slice": lambda ops, x: ops.strided_slice(
        x, [0, 1, 4, 3], [2, 6, 0, 0], [1, 2, -1, -1], [0, 0, 0, 1], [0, 1, 0, 1]
    ),
    "of which an axis goes": lambda ops, x: ops.strided_slice(
        x,
        [0, 2, -1, 0],
        [2, 3, 0, 4],
        [1, 1, 1, 1],
        [1, 0, 0, 0],
        [1, 0, 0, 0],
        shrink_axis_mask=[0, 1, 1, 0],
    ),
    "squared difference": lambda ops, x: ops.squared_difference(x, X[:1]),
    "a choice": lambda ops, x: ops.select(ops.not_equal(x, X), X, ops.negative(x)),
    "floor modulus": lambda ops, x: ops.floor_mod(x, np.float32(0.7)),
    "modulus": lambda ops, x: ops.mod(x, np.float32(0.7)),
    "hard sigmoid by sixths": lambda ops, x: ops.hsigmoid(x),
    "swish": lambda ops, x: ops.swish(x, np.float32(1.7)),
    "GELU by tanh": lambda ops, x: ops.gelu(x, "TANH"),
    "unit length, added": lambda ops, x: ops.normalize_l2(x, [1], 0.3, "add"),
    "unit length, at least": lambda ops, x: ops.normalize_l2(x, [1, 2], 9.0, "max"),
    "normalised": lambda ops, x: ops.mvn(x, [2, 3], True, 0.1, "OUTSIDE_SQRT"),
    "parts": lambda ops, x: ops.concat(ops.variadic_split(x, 1, [1, 3, -1]).outputs()[::-1], 1),
    "the largest": lambda ops, x: ops.topk(x, 2, 1, "max", "value").output(0),
    "padded by edges": lambda ops, x: ops.pad(x, [0, 1, 2, 0], [0, 0, 1, 3], "edge"),
    "broadcast": lambda ops, x: ops.multiply(
        ops.broadcast(np.float32([[2.0], [3.0]]), [6, 2, 4]).output(0), X[0, 0, 0]
    ),
    "transposed, in groups": lambda ops, x: ops.group_convolution_backprop_data(
        x, KERNEL, [2, 1], None, [1, 0], [0, 1], [1, 1], "explicit", [1, 0]
    ),
    "like another": lambda ops, x: ops.add(x, ops.convert_like(ops.shape_of(x), x)),
    "a running sum": lambda ops, x: ops.cum_sum(x, 1, True, True),
    "slopes": lambda ops, x: ops.prelu(x, np.float32([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])),
}


@runtimes
@pytest.mark.parametrize("kind", BUILT)
def test_a_layer_is_read_as_openvino_computes_it(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    import openvino
    from openvino import opset13

    x = opset13.parameter(X.shape, np.float32, "x")
    x.output(0).set_names({"x"})
    made = BUILT[kind](opset13, x)
    end = made if isinstance(made, openvino.Output) else made.output(0)
    end.set_names({"y"})
    model = openvino.Model([opset13.result(end)], [x], "m")
    openvino.save_model(model, tmp_path / "m.xml", compress_to_fp16=False)
    graph = OnnxGraph.load(openvino_graph(read_openvino(tmp_path / "m.xml"), {"x": X.shape}, ["y"]))
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    (wanted,) = (np.asarray(each) for each in compiled([X]).values())
    assert are_alike(EvaluatedGraph(graph).run({"x": X}), {"y": wanted})
