"""Core ML's packages read as the graphs that they mean: beside PyTorch, from which coremltools made them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import narrow_network
import numpy as np
import onnx
import pytest
from converted_files import beside_its_source
from pytorch_functions import CASES, MAP, functional, wrapped
from typer.testing import CliRunner

import conformance.cli
from conformance.candidates.converters import CONVERTERS, convert
from conformance.candidates.evaluated import EvaluatedGraph
from conformance.conversion.coreml_graph import coreml_graph
from conformance.conversion.coreml_model import read_coreml
from conformance.graph.onnx_export import export
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.against import verify_against
from refimpl.errors import FileError, MissingDependencyError, ShapeError, UnsupportedOperationError
from refimpl.ops.operation import Array

pytestmark = pytest.mark.runtimes
SHAPE = (1, 3, 128, 128)
IMAGES = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def saved(module: Any, x: Array, place: Path, **how: Any) -> Path:
    """Convert a module by coremltools, which is not told what we would tell it."""
    import coremltools
    import torch

    program = torch.export.export(module, (torch.from_numpy(x),)).run_decompositions({})
    how = {"compute_precision": coremltools.precision.FLOAT32, **how}
    target = how.pop("target", coremltools.target.iOS17)
    made = coremltools.convert(program, convert_to="mlprogram", minimum_deployment_target=target, **how)
    made.save(str(place))
    return place


def meaning(package: Path, *shape: int) -> OnnxGraph:
    return OnnxGraph.load(coreml_graph(read_coreml(package), {"x": shape}, ["y"]))


@pytest.mark.parametrize("name", CASES)
def test_what_is_read_is_what_pytorch_computes(name: str, tmp_path: Path) -> None:
    """In float64 on both sides; constants are float32 in the file and in PyTorch."""
    import torch

    module = wrapped(CASES[name])
    package = saved(module, MAP, tmp_path / "m.mlpackage")
    found = EvaluatedGraph(meaning(package, *MAP.shape)).run({"x": MAP})["y"]
    expected = module(torch.from_numpy(MAP.astype(np.float64))).numpy()
    assert found.shape == expected.shape
    # A constant that torch has in float64 is float32 in the file.
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6)


def _scaled_sum(x: Any) -> Any:
    import torch

    return torch.add(x, x.sin(), alpha=2)


LOST: dict[str, Callable[[Any], Any]] = {
    "a keyword: GELU by tanh": functional("gelu", approximate="tanh"),
    "a keyword: a sum's factor": _scaled_sum,
    "antialiasing": functional("interpolate", size=(3, 5), mode="bilinear", antialias=True),
    "an RMS norm's epsilon": functional("rms_norm", normalized_shape=[9], eps=1e-2),
    "what is near zero, inverted": lambda x: (x * 1e-3).reciprocal() * 1e-3,
}
"""What coremltools 9.0 converts to something else without a word."""


@pytest.mark.parametrize("name", LOST)
def test_what_coremltools_loses_is_seen_in_its_file(name: str, tmp_path: Path) -> None:
    """If this fails, it has learnt it: `docs/runtimes.md` and our conversion say that it has not."""
    import torch

    module = wrapped(LOST[name])
    package = saved(module, MAP, tmp_path / "m.mlpackage")
    found = EvaluatedGraph(meaning(package, *MAP.shape)).run({"x": MAP})["y"]
    expected = module(torch.from_numpy(MAP)).numpy()
    assert np.abs(found - expected).max() > 1e-4


def single(opset: int, kind: str, constants: dict[str, Array], **attributes: Any) -> onnx.ModelProto:
    """Return a graph of one node on `MAP`."""
    node = onnx.helper.make_node(kind, ["x", *constants], ["y"], **attributes)
    x = onnx.helper.make_tensor_value_info("x", 1, MAP.shape)
    y = onnx.helper.make_tensor_value_info("y", 1, None)
    held = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = onnx.helper.make_graph([node], "g", [x], [y], held)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10)


AVOIDED: dict[str, onnx.ModelProto] = {
    "gelu": single(20, "Gelu", {}, approximate="tanh"),
    "reciprocal": single(17, "Reciprocal", {}),
    "norm": single(23, "RMSNormalization", {"s": np.full(9, 2, np.float32)}, axis=-1, epsilon=1e-2),
}


@pytest.mark.parametrize("name", AVOIDED)
def test_our_conversion_loses_none_of_it(name: str, tmp_path: Path) -> None:
    onnx.save(AVOIDED[name], tmp_path / "m.onnx")
    package = convert(CONVERTERS["coreml"], tmp_path / "m.onnx", tmp_path / "m.mlpackage")[0]
    feeds = {"x": MAP * np.float32(1e-3)}
    verify_against(
        meaning(package, *MAP.shape), OnnxGraph.load(tmp_path / "m.onnx"), {"small": feeds}
    ).raise_on_failure()


def test_antialiasing_is_refused(tmp_path: Path) -> None:
    sizes = {"roi": np.zeros(0, np.float32), "s": np.zeros(0, np.float32), "to": np.array([2, 4, 3, 5])}
    model = single(18, "Resize", sizes, mode="linear", antialias=1, exclude_outside=1)
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(FileError, match="coremltools leaves out antialiasing"):
        convert(CONVERTERS["coreml"], tmp_path / "m.onnx", tmp_path / "m.mlpackage")
    assert not (tmp_path / "m.mlpackage").exists()


# A network.


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The narrow network's package; the ONNX file lies beside it."""
    folder = tmp_path_factory.mktemp("coreml")
    onnx.save(export(narrow_network.network(), IMAGES), folder / "m.onnx")
    return convert(CONVERTERS["coreml"], folder / "m.onnx", folder / "m.mlpackage")[0]


def test_a_converted_network_means_what_it_was_made_from(package: Path) -> None:
    beside_its_source(package, package.with_suffix(".onnx")).raise_on_failure()


def test_a_halved_network_means_what_it_was_made_from(package: Path, tmp_path: Path) -> None:
    source = package.with_suffix(".onnx")
    half = convert(CONVERTERS["coreml"], source, tmp_path / "m.mlpackage", "float16")[0]
    beside_its_source(half, source).raise_on_failure()


def test_weights_changed_on_the_way_are_found(package: Path, tmp_path: Path) -> None:
    shutil.copytree(package, tmp_path / "m.mlpackage")
    (blob,) = (tmp_path / "m.mlpackage").rglob("weight.bin")
    content = bytearray(blob.read_bytes())
    weight = narrow_network.weights()["instance_decoder.class_head.weight"].astype(np.float32)
    at = content.find(weight.tobytes())
    assert at >= 0
    content[at : at + 64] = (weight.ravel()[:16] * np.float32(1.05)).tobytes()
    blob.write_bytes(content)
    report = beside_its_source(tmp_path / "m.mlpackage", package.with_suffix(".onnx"))
    assert report.verdict == "fail"
    assert report.leading.first_fault is not None
    assert report.leading.first_fault.step.startswith("instance_decoder.class_head")


def test_the_commands_make_and_take_a_package(package: Path, tmp_path: Path) -> None:
    onnx.save(AVOIDED["gelu"], tmp_path / "gelu.onnx")
    runner = CliRunner()
    line = ["convert", str(tmp_path / "gelu.onnx"), "--to", "coreml"]
    assert runner.invoke(conformance.cli.app, line).exit_code == 0
    record = json.loads((tmp_path / "gelu.conversion.json").read_text())
    assert record["versions"]["coremltools"]
    # A package that is there is replaced; a folder of somebody else's is not.
    assert runner.invoke(conformance.cli.app, line).exit_code == 0
    (tmp_path / "mine.mlpackage").mkdir()
    (tmp_path / "mine.mlpackage" / "note.txt").write_text("mine")
    result = runner.invoke(conformance.cli.app, [*line[:2], str(tmp_path / "mine.mlpackage"), *line[2:]])
    assert isinstance(result.exception, FileError)
    assert (tmp_path / "mine.mlpackage" / "note.txt").read_text() == "mine"
    verify = [
        "verify",
        str(tmp_path / "gelu.mlpackage"),
        "--against",
        str(tmp_path / "gelu.onnx"),
        "--no-cache",
    ]
    result = runner.invoke(conformance.cli.app, verify)
    assert result.exit_code == 0, result.output


# Bad input.


def copied(package: Path, place: Path) -> Path:
    shutil.copytree(package, place)
    return place


def the_program(package: Path) -> Path:
    (found,) = package.rglob("*.mlmodel")
    return found


def cut(package: Path) -> None:
    path = the_program(package)
    path.write_bytes(path.read_bytes()[:-999])


def without_weights(package: Path) -> None:
    next(package.rglob("weight.bin")).unlink()


def short_weights(package: Path) -> None:
    path = next(package.rglob("weight.bin"))
    path.write_bytes(path.read_bytes()[:1000])


def other_record(package: Path) -> None:
    path = next(package.rglob("weight.bin"))
    path.write_bytes(path.read_bytes().replace(b"\xef\xbe\xad\xde", b"\0\0\0\0"))


def leading_out(package: Path) -> None:
    manifest = json.loads((package / "Manifest.json").read_text())
    for entry in manifest["itemInfoEntries"].values():
        entry["path"] = "../../../m.onnx"
    (package / "Manifest.json").write_text(json.dumps(manifest))


def without_root(package: Path) -> None:
    (package / "Manifest.json").write_text("{}")


def of_trees(package: Path) -> None:
    from conformance.conversion.coreml_model import _schema

    model = _schema().Model()
    model.treeEnsembleClassifier.SetInParent()
    the_program(package).write_bytes(model.SerializeToString())


BROKEN: dict[Callable[[Path], None], tuple[type[Exception], str]] = {
    cut: (FileError, "cut off or malformed"),
    without_weights: (FileError, r"weight\.bin: cannot be read"),
    short_weights: (FileError, "cut off or malformed"),
    other_record: (FileError, "no constant begins at byte"),
    leading_out: (FileError, "leads out of the package"),
    without_root: (FileError, "does not say where the program is"),
    of_trees: (UnsupportedOperationError, "holds treeEnsembleClassifier; expected an mlProgram"),
}


@pytest.mark.parametrize("damage", BROKEN, ids=lambda each: each.__name__)
def test_a_broken_package_is_named(damage: Callable[[Path], None], package: Path, tmp_path: Path) -> None:
    place = copied(package, tmp_path / "m.mlpackage")
    damage(place)
    kind, said = BROKEN[damage]
    with pytest.raises(kind, match=said):
        read_coreml(place)


def test_a_file_is_no_package(tmp_path: Path) -> None:
    (tmp_path / "m.mlpackage").write_bytes(b"x")
    with pytest.raises(FileError, match="it is no folder"):
        read_coreml(tmp_path / "m.mlpackage")


def test_a_source_of_another_shape_is_refused(package: Path) -> None:
    with pytest.raises(ShapeError, match=r"takes \{'given_0': \(1, 3, 128, 128\)\}"):
        coreml_graph(read_coreml(package), {"images": (1, 3, 64, 64)}, ["y"])


def test_what_is_not_known_is_named(tmp_path: Path) -> None:
    package = saved(wrapped(lambda x: x.atan()), MAP, tmp_path / "m.mlpackage")
    with pytest.raises(UnsupportedOperationError, match="what atan means is not written down"):
        meaning(package, *MAP.shape)


def test_without_coremltools_its_extra_is_named(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'mobileinst-reference\[coreml\]'"):
        read_coreml(package)
