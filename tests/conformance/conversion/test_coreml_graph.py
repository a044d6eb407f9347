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
MAP = np.random.default_rng(1).normal(size=(2, 4, 6, 9)).astype(np.float32)


def wrapped(function: Callable[[Any], Any]) -> Any:
    """Return a function of one tensor as a module of float32."""
    import torch

    class Module(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return function(x)

    return Module().eval()


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


def weight(*shape: int) -> Any:
    import torch

    return torch.from_numpy(np.random.default_rng(2).normal(size=shape).astype(np.float32))


def _functional(name: str, *shapes: tuple[int, ...], **said: Any) -> Callable[[Any], Any]:
    """Return a call of ``torch.nn.functional`` with weights of these shapes."""

    def call(x: Any) -> Any:
        import torch

        return getattr(torch.nn.functional, name)(x, *(weight(*each).to(x) for each in shapes), **said)

    return call


def _normed(x: Any) -> Any:
    import torch

    mean, variance = weight(4).to(x), weight(4).to(x).abs() + 0.5
    return torch.nn.functional.batch_norm(torch.relu(x), mean, variance, weight(4).to(x), weight(4).to(x))


def _joined(x: Any) -> Any:
    import torch

    return torch.stack([x[:, 1:3], x[:, 0:4:2]], dim=1)


def _attention(x: Any) -> Any:
    import torch

    return torch.nn.functional.scaled_dot_product_attention(x, x * 0.5, torch.tanh(x))


def _masked_attention(x: Any) -> Any:
    import torch

    mask = x[:, :1, :, :6]
    return torch.nn.functional.scaled_dot_product_attention(x, x * 0.5, torch.tanh(x), mask, scale=0.2)


def _chosen(x: Any) -> Any:
    import torch

    middle = torch.logical_and(x > 0.2, torch.logical_not(x >= 1))
    return torch.where(torch.logical_or(middle, x < -1), x, torch.where(x <= -2, x * 0.1, x * 2))


def _divided(x: Any) -> Any:
    import torch

    return torch.div(x, x.abs() + 0.7, rounding_mode="floor") + torch.remainder(x, 0.3)


def _kernels_times_features(x: Any) -> Any:
    import torch

    return torch.einsum("bqc,bchw->bqhw", x[:, :3, :4, 0], x)


CASES: dict[str, Callable[[Any], Any]] = {
    "convolution": _functional("conv2d", (6, 4, 3, 3), (6,), stride=2, padding=1),
    "convolution, uneven": _functional("conv2d", (6, 4, 3, 2), stride=(1, 2), padding=(2, 1), dilation=2),
    "convolution, grouped": _functional("conv2d", (8, 2, 3, 3), (8,), groups=2),
    "convolution, to the same size": _functional("conv2d", (4, 4, 4, 3), padding="same"),
    "transposed": _functional("conv_transpose2d", (4, 5, 3, 3), (5,), stride=2, padding=1, output_padding=1),
    "transposed, grouped": _functional("conv_transpose2d", (4, 3, 2, 2), stride=2, groups=2),
    "linear": _functional("linear", (5, 9), (5,)),
    "average": _functional("avg_pool2d", kernel_size=3, stride=2, padding=1, count_include_pad=False),
    "average, zeros counted": _functional("avg_pool2d", kernel_size=3, stride=2, padding=1),
    "maximum": _functional("max_pool2d", kernel_size=3, stride=2, padding=1),
    "maximum, beyond": _functional("max_pool2d", kernel_size=2, stride=2, ceil_mode=True),
    "mean": lambda x: x.mean((2, 3), keepdim=True),
    "sum": lambda x: x.sum(1),
    "largest": lambda x: x.amax((1, 3)),
    "least": lambda x: x.amin(2, keepdim=True),
    "relu6": _functional("relu6"),
    "hardsigmoid": _functional("hardsigmoid"),
    "hardswish": _functional("hardswish"),
    "gelu": _functional("gelu"),
    "silu": _functional("silu"),
    "leaky": _functional("leaky_relu", negative_slope=0.2),
    "elu": _functional("elu", alpha=0.7),
    "prelu": _functional("prelu", (4,)),
    "softplus": _functional("softplus"),
    "sigmoid": _functional("sigmoid"),
    "clamp": lambda x: x.clamp(-0.3, 0.6),
    "exponential": lambda x: x.exp() + x.abs().sqrt() + x.erf() + x.tanh(),
    "logarithm": lambda x: (x.abs() + 0.5).log(),
    "reciprocal root": lambda x: (x * x + 0.25).rsqrt(),
    "power": lambda x: (x.abs() + 0.1) ** 1.5,
    "arithmetic": lambda x: (x - 0.3) / (x * x + 1) + x.sin() * x.cos(),
    "rounded": lambda x: (3 * x).floor() + (3 * x).ceil(),
    "larger": lambda x: x.maximum(x.roll(1, 3)).minimum(x * 0 + 1),
    "layer norm": lambda x: _functional("layer_norm", normalized_shape=[9], weight=weight(9).to(x))(x),
    "layer norm of two axes": _functional("layer_norm", normalized_shape=[6, 9], eps=1e-2),
    "instance norm": _functional("instance_norm", eps=1e-2),
    "group norm": _functional("group_norm", num_groups=2),
    "batch norm": _normed,
    "softmax": _functional("softmax", dim=1),
    "bilinear": _functional("interpolate", scale_factor=2, mode="bilinear", align_corners=False),
    "bilinear, corners": _functional("interpolate", scale_factor=2, mode="bilinear", align_corners=True),
    "bilinear to a size": _functional("interpolate", size=(13, 20), mode="bilinear", align_corners=False),
    "nearest": _functional("interpolate", scale_factor=2, mode="nearest"),
    "nearest to a size": _functional("interpolate", size=(9, 14), mode="nearest"),
    "padded": _functional("pad", pad=(1, 2, 0, 3), value=0.5),
    "reflected": _functional("pad", pad=(1, 2, 2, 1), mode="reflect"),
    "replicated": _functional("pad", pad=(1, 2, 2, 1), mode="replicate"),
    "sliced": lambda x: x[:, 1:, :-1:2, 3],
    "from the end": lambda x: x[..., -4:-1],
    "split": lambda x: x.split([1, 3], 1)[1] * 2,
    "chunks": lambda x: x.chunk(2, 1)[0] - x.chunk(2, 1)[1],
    "stacked": _joined,
    "turned": lambda x: x.permute(0, 2, 3, 1).flatten(1, 2).unsqueeze(0).squeeze(0),
    "repeated": lambda x: x.repeat(1, 2, 1, 3),
    "chosen": _chosen,
    "divided": _divided,
    "nearest whole": lambda x: (3 * x).round() + x.sign(),
    "norms": lambda x: x.norm(dim=1) + x.norm(p=1, dim=1) + x.logsumexp(1),
    "place of the largest": lambda x: x.argmax(1).float() + x.argmin(1).float(),
    "running": lambda x: x.cumsum(1),
    "turned around": lambda x: x.flip(3),
    "shuffled": _functional("pixel_shuffle", upscale_factor=2),
    "softplus, steep": _functional("softplus", beta=2.0),
    "hardtanh": _functional("hardtanh", min_val=-0.4, max_val=0.3),
    "from a threshold": _functional("threshold", threshold=0.1, value=-2.0),
    "variance": lambda x: x.var((2, 3), correction=0),
    "adaptive average": _functional("adaptive_avg_pool2d", output_size=(3, 3)),
    "average, beyond": _functional("avg_pool2d", kernel_size=3, stride=2, padding=1, ceil_mode=True),
    "bilinear, smaller": _functional("interpolate", size=(3, 5), mode="bilinear"),
    "attention, masked": _masked_attention,
    "kernels times features": _kernels_times_features,
    "product": lambda x: x @ x.transpose(2, 3),
    "attention": _attention,
}


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
    "a keyword: GELU by tanh": _functional("gelu", approximate="tanh"),
    "a keyword: a sum's factor": _scaled_sum,
    "antialiasing": _functional("interpolate", size=(3, 5), mode="bilinear", antialias=True),
    "an RMS norm's epsilon": _functional("rms_norm", normalized_shape=[9], eps=1e-2),
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
