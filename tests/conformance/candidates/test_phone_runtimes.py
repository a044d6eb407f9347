"""The phones' runtimes as candidates: their own converters and kernels, right models and wrong ones."""

from __future__ import annotations

import functools
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import narrow_network
import numpy as np
import onnx
import pytest
from narrow_network import CONFIG, FIELDS, OPTIONS, weights
from onnx import numpy_helper
from typer.testing import CliRunner

import conformance.cli
from conformance.candidates.converters import CONVERTERS, convert
from conformance.candidates.kinds import PHONE_RUNTIMES, Request, make
from conformance.conversion.ncnn_model import read_ncnn
from conformance.evidence import runtime_matrix
from conformance.graph.onnx_export import export
from conformance.judge.network import verify
from conformance.reports.matrix_report import markdown_table, page_of_table
from conformance.reports.report import Report
from conformance.reproduction.folder import reproduce
from conformance.reproduction.recorded_step import judge_folder
from refimpl import MobileInst, MobileInstConfig, Weights
from refimpl.errors import ConfigurationError, FileError, MissingDependencyError, ShapeError
from refimpl.inference import preprocess
from refimpl.ops.operation import Array
from refimpl.scenes import render_picture

runtimes = pytest.mark.runtimes
SIZE, LARGE = (128, 128), (128, 192)


@functools.cache
def picture(size: tuple[int, int] = SIZE) -> Array:
    """Return a rendered picture, float32, of a size of which every pooling window is whole."""
    images = preprocess(render_picture(*size, 0), sizing="native")[0].astype(np.float32)
    images.flags.writeable = False
    return images


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The narrow network as an ONNX file, in a folder for what becomes of it."""
    place = tmp_path_factory.mktemp("models")
    onnx.save(export(narrow_network.network(), picture()), place / "m.onnx")
    return place


@functools.cache
def converted(folder: Path, runtime: str, precision: str = "float32") -> Path:
    """Return the network as the runtime's own converter writes it."""
    converter = CONVERTERS[runtime]
    # Two runtimes' files end in .bin.
    place = folder / f"{runtime}-{precision}{converter.suffixes[0]}"
    return convert(converter, folder / "m.onnx", place, precision)[0]


def judged(
    text: str, config: MobileInstConfig = CONFIG, drawn: Weights | None = None, images: Array | None = None
) -> Report:
    """Return the verdict on a candidate in a process of its own."""
    own = weights() if drawn is None else drawn
    candidate = make(text, Request("", config, own, timeout=100.0))
    return verify(candidate, config, own, {"scene": picture() if images is None else images})


RIGHT = [
    ("ncnn", "float32", "winograd=on"),
    ("ncnn", "float32", "winograd=off"),
    ("ncnn", "float16", "weights=float16"),
    ("ncnn", "float32", "storage=bfloat16"),
    ("openvino", "float32", "storage=float32"),
    ("openvino", "float16", "weights=float16"),
    ("openvino", "int8", "weights=int8"),
    ("openvino", "int8", "weights=int8,dynamic=on"),
    ("mnn", "float32", "winograd=off"),
    ("mnn", "float32", "winograd=6"),
    ("mnn", "float16", "winograd=off,weights=float16"),
    ("mnn", "int8", "winograd=off,weights=int8"),
    ("mnn", "int8", "winograd=off,weights=int8,dynamic=on"),
    ("litert", "float32", "xnnpack=on"),
    ("litert", "float32", "xnnpack=off"),
    ("litert", "float16", "weights=float16"),
    ("litert", "int8", "weights=int8"),
    ("litert", "int8-dynamic", "weights=int8-dynamic"),
    ("litert", "int8-dynamic", "weights=int8-dynamic,xnnpack=off"),
    ("executorch", "float32", "delegate=portable"),
    ("executorch", "int8-dynamic", "weights=int8-dynamic"),
]


@runtimes
@pytest.mark.parametrize(("runtime", "precision", "said"), RIGHT)
def test_a_right_model_passes(folder: Path, runtime: str, precision: str, said: str) -> None:
    report = judged(f"{runtime}:{converted(folder, runtime, precision)},{said}")
    report.raise_on_failure()
    steps = report.leading.steps
    assert sum(row.verdict == "pass" for row in steps) > len(steps) / 2


@runtimes
@pytest.mark.parametrize(("runtime", "precision"), [("ncnn", "float16"), ("litert", "float16")])
def test_narrow_weights_are_seen_unless_declared(folder: Path, runtime: str, precision: str) -> None:
    """pnnx halves them unless it is told not to."""
    report = judged(f"{runtime}:{converted(folder, runtime, precision)}")
    assert report.verdict == "fail"


@runtimes
@pytest.mark.parametrize(
    ("runtime", "precision", "said", "why"),
    [
        ("openvino", "int8", "", "has weights of int8: declare weights=int8"),
        ("openvino", "int8", ",weights=float16", "has weights of int8: declare weights=int8"),
        ("openvino", "float32", ",weights=int8", "has no weights of int8"),
        ("openvino", "float32", ",dynamic=on", "dynamic=on is of products with integer weights"),
        ("litert", "int8", "", "has weights of int8: declare weights=int8"),
        ("litert", "int8", ",weights=int8-dynamic", "has weights of int8: declare weights=int8"),
        ("litert", "float32", ",weights=int8", "has no weights of int8"),
        ("litert", "float32", ",weights=int8-dynamic", "has no weights of int8-dynamic"),
        ("litert", "int8-dynamic", "", "has weights of int8-dynamic: declare weights=int8-dynamic"),
        ("mnn", "int8", "", "has weights of int8: declare weights=int8"),
        ("mnn", "int8", ",weights=float16", "has weights of int8: declare weights=int8"),
        ("mnn", "float32", ",weights=int8", "has no weights of int8"),
        ("mnn", "float16", ",weights=int8", "has no weights of int8"),
        ("mnn", "float32", ",dynamic=on", "dynamic=on is of products with integer weights"),
        ("executorch", "int8-dynamic", "", "has weights of int8-dynamic: declare weights=int8-dynamic"),
        ("executorch", "float32", ",weights=int8-dynamic", "has no weights of int8-dynamic"),
    ],
)
def test_integer_weights_are_declared_or_the_file_is_refused(
    folder: Path, runtime: str, precision: str, said: str, why: str
) -> None:
    with pytest.raises(ConfigurationError, match=why):
        make(f"{runtime}:{converted(folder, runtime, precision)}{said}", Request("", CONFIG, weights()))


@runtimes
@pytest.mark.parametrize("runtime", ["mnn", "openvino"])
def test_operands_made_integers_are_seen_unless_declared(
    runtime: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As both may do where they are not told to leave it."""
    made = PHONE_RUNTIMES[runtime].make
    told = functools.partial(make, f"{runtime}:{converted(folder, runtime, 'int8')},weights=int8")
    dynamic = made.said.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(made, "said", property(lambda self: dynamic(self) | {"memory": 2, "group": 32}))
    candidate = told(Request("", CONFIG, weights(), timeout=100.0))
    assert verify(candidate, CONFIG, weights(), {"scene": picture()}).verdict == "fail"


@runtimes
def test_weights_of_fewer_bits_are_refused(folder: Path, tmp_path: Path) -> None:
    """MNN's converter makes them, too."""
    told = replace(CONVERTERS["mnn"], precisions={"int4": ["--weightQuantBits", "4"]})
    path = convert(told, folder / "m.onnx", tmp_path / "m.mnn", "int4")[0]
    with pytest.raises(ConfigurationError, match="has weights of 4 bits, which cannot be declared"):
        make(f"mnn:{path},weights=int8", Request("", CONFIG, weights()))


@runtimes
def test_a_narrower_that_is_not_installed_names_the_extra(folder: Path, tmp_path: Path) -> None:
    absent = replace(CONVERTERS["openvino"], narrower="no_such_narrower")
    with pytest.raises(MissingDependencyError, match=r"no_such_narrower.*mobileinst-reference\[openvino\]"):
        convert(absent, folder / "m.onnx", tmp_path / "m.xml", "int8")
    assert list(tmp_path.iterdir()) == []


@runtimes
@pytest.mark.parametrize(
    ("runtime", "precision"),
    [
        ("openvino", "int8"),
        ("mnn", "int8-static"),
        ("executorch", "int8-dynamic"),
        ("executorch", "int8-static"),
    ],
)
def test_a_model_without_weights_is_not_made_integers(tmp_path: Path, runtime: str, precision: str) -> None:
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (2, 3)) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
    onnx.save(onnx.helper.make_model(graph, ir_version=8), tmp_path / "m.onnx")
    place = tmp_path / f"m{CONVERTERS[runtime].suffixes[0]}"
    with pytest.raises(FileError, match="makes integers of no"):
        convert(CONVERTERS[runtime], tmp_path / "m.onnx", place, precision)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def shifted(folder: Path, place: Path) -> list[str]:
    """Write the network with one depthwise convolution's padding at the ends; return its tensors' names."""
    model = onnx.load(folder / "m.onnx")
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    found = [
        (node, pads)
        for node in convolutions
        for pads in node.attribute
        if pads.name == "pads" and min(pads.ints) > 0 and "layer9" in node.input[1]
    ]
    node, pads = found[0]
    both = [first + last for first, last in zip(pads.ints[:2], pads.ints[2:], strict=True)]
    pads.ints[:] = [0, 0, *both]
    onnx.save(model, place)
    names = [node.output[0]]
    while (user := next(each for each in model.graph.node if names[-1] in each.input)).op_type != "Conv":
        names.append(user.output[0])
    return names


@runtimes
@pytest.mark.parametrize("weights", ["float32", "float16"])
def test_a_wrong_map_between_fused_layers_is_found_whatever_the_weights(
    weights: str, folder: Path, tmp_path: Path
) -> None:
    """It is known by what is computed of it, which weights of half precision move."""
    names = shifted(folder, tmp_path / "wrong.onnx")
    path = convert(CONVERTERS["mnn"], tmp_path / "wrong.onnx", tmp_path / "wrong.mnn", weights)[0]
    (item,) = judged(f"mnn:{path},winograd=off,weights={weights}").inputs
    assert item.first_fault is not None
    assert item.first_fault.step in names


SLICE = "mask_decoder.enhancer.0.global_act.conv.weight"


def wrong_in_a_slice(folder: Path, place: Path) -> Path:
    """Write the network with 5 % more in a few numbers of a weight."""
    model = onnx.load(folder / "m.onnx")
    tensor = next(each for each in model.graph.initializer if each.name == SLICE)
    array = numpy_helper.to_array(tensor).copy()
    array[:2] *= np.float32(1.05)
    tensor.CopyFrom(numpy_helper.from_array(array, SLICE))
    onnx.save(model, place)
    return place


@runtimes
@pytest.mark.parametrize("runtime", ["ncnn", "openvino"])
def test_what_bfloat16_hides_is_seen_in_the_file(runtime: str, folder: Path, tmp_path: Path) -> None:
    """A few numbers 5 % off move no result by more than bfloat16 may."""
    source = wrong_in_a_slice(folder, tmp_path / "wrong.onnx")
    path = convert(CONVERTERS[runtime], source, tmp_path / f"wrong{CONVERTERS[runtime].suffixes[0]}")[0]
    report = judged(f"{runtime}:{path},storage=bfloat16")
    (item,) = report.inputs
    assert item.verdict == "fail"
    assert item.first_fault is not None
    assert item.first_fault.step.startswith(SLICE.removesuffix(".conv.weight"))
    assert all(row.verdict != "fail" for row in item.steps), "then this shows nothing"
    assert any(said.startswith(f"weight {SLICE} is 1.05 × yours") for said in item.evidence)


@runtimes
def test_what_bfloat16_hides_is_seen_in_the_file_of_any_graph(folder: Path, tmp_path: Path) -> None:
    source = wrong_in_a_slice(folder, tmp_path / "wrong.onnx")
    param = convert(CONVERTERS["ncnn"], source, tmp_path / "wrong.param")[0]
    right = convert(CONVERTERS["ncnn"], folder / "m.onnx", tmp_path / "right.param")[0]
    line = ["verify", str(folder / "m.onnx"), "--graph-only", "--no-cache", "--candidate"]
    result = CliRunner().invoke(conformance.cli.app, [*line, f"ncnn:{right},storage=bfloat16"])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(conformance.cli.app, [*line, f"ncnn:{param},storage=bfloat16"])
    assert result.exit_code == 1, result.output
    assert "what its file says is something else" in result.output


@runtimes
@pytest.mark.parametrize("runtime", ["ncnn", "openvino"])
def test_a_mistake_that_narrow_arithmetic_hides_goes_before_one_that_it_shows(
    runtime: str, folder: Path, tmp_path: Path
) -> None:
    """The run leaves the reference at the last layer only."""
    model = onnx.load(wrong_in_a_slice(folder, tmp_path / "m.onnx"))
    name = "instance_decoder.kernel_head.1.weight"
    last = next(each for each in model.graph.initializer if each.name == name)
    last.CopyFrom(numpy_helper.from_array(1.5 * numpy_helper.to_array(last), name))
    onnx.save(model, tmp_path / "m.onnx")
    place = tmp_path / f"m{CONVERTERS[runtime].suffixes[0]}"
    path = convert(CONVERTERS[runtime], tmp_path / "m.onnx", place)[0]
    (item,) = judged(f"{runtime}:{path},storage=bfloat16").inputs
    shown = next(row.name for row in item.steps if row.verdict == "fail")
    assert shown.startswith("instance_decoder.kernel_head")
    assert item.first_fault is not None
    assert SLICE.startswith(item.first_fault.step)


@runtimes
def test_a_file_that_is_not_read_whole_is_a_remark(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdict on what was run stands."""
    from conformance.conversion import ncnn_graph

    monkeypatch.delitem(ncnn_graph._LAYERS, "Pooling")
    (item,) = judged(f"ncnn:{converted(folder, 'ncnn')},storage=bfloat16").inputs
    assert item.verdict == "pass"
    assert any("what its file means was not compared: layer" in said for said in item.remarks)


@runtimes
def test_openvino_in_bfloat16_passes(folder: Path) -> None:
    judged(f"openvino:{converted(folder, 'openvino')},storage=bfloat16").raise_on_failure()


@runtimes
def test_the_winograd_that_mnn_chooses_fails_and_is_named(tmp_path: Path) -> None:
    """Its tiles of 6×6 lose twelve bits where maps are large; told to do without, it passes."""
    config = MobileInstConfig.preset("topformer-tiny", **{**FIELDS, "dim": 64})
    drawn = Weights.seeded(config, seed=0).astype(np.float32)
    onnx.save(export(MobileInst(config, drawn), picture(LARGE)), tmp_path / "m.onnx")
    model = convert(CONVERTERS["mnn"], tmp_path / "m.onnx", tmp_path / "m.mnn")[0]
    report = judged(f"mnn:{model}", config, drawn, picture(LARGE))
    assert report.verdict == "fail"
    assert "Winograd's F(6×6, 3×3) explains it" in report.headline()
    assert "winograd=off cures it" in report.headline()
    judged(f"mnn:{model},winograd=off", config, drawn, picture(LARGE)).raise_on_failure()


@runtimes
@pytest.mark.parametrize(
    "weight", ["backbone.tpm.layer9.conv.4.c.weight", "instance_decoder.kernel_head.1.weight"]
)
def test_a_mistake_is_named_beside_the_winograd_that_mnn_chooses(weight: str, tmp_path: Path) -> None:
    """Whether it is before the convolutions that lose too much, or behind them."""
    config = MobileInstConfig.preset("topformer-tiny", **{**FIELDS, "dim": 64})
    drawn = Weights.seeded(config, seed=0).astype(np.float32)
    onnx.save(export(MobileInst(config, drawn), picture(LARGE)), tmp_path / "m.onnx")
    planted(tmp_path / "m.onnx", tmp_path / "wrong.onnx", weight)
    model = convert(CONVERTERS["mnn"], tmp_path / "wrong.onnx", tmp_path / "m.mnn")[0]
    (item,) = judged(f"mnn:{model}", config, drawn, picture(LARGE)).inputs
    assert item.first_fault is not None
    assert weight.startswith(item.first_fault.step)


def planted(source: Path, target: Path, weight: str) -> None:
    """Write a model whose one weight is off by 5 % in a slice."""
    model = onnx.load(source)
    held = next(each for each in model.graph.initializer if each.name == weight)
    array = numpy_helper.to_array(held).copy()
    array[: max(1, len(array) // 4)] *= 1.05
    held.CopyFrom(numpy_helper.from_array(array, weight))
    onnx.save(model, target)


@runtimes
@pytest.mark.parametrize(
    ("runtime", "said", "weight"),
    [
        ("openvino", "weights=int8", "mask_decoder.lateral.1.conv.weight"),
        ("openvino", "weights=int8", "instance_decoder.kernel_head.1.weight"),
        ("openvino", "weights=int8,dynamic=on", "mask_decoder.lateral.1.conv.weight"),
        ("litert", "weights=int8,xnnpack=off", "mask_decoder.lateral.1.conv.weight"),
        ("litert", "weights=int8-dynamic", "mask_decoder.lateral.1.conv.weight"),
        ("mnn", "weights=int8,winograd=off", "mask_decoder.lateral.1.conv.weight"),
        ("mnn", "weights=int8,winograd=off", "instance_decoder.kernel_head.1.weight"),
        ("mnn", "weights=int8,winograd=off,dynamic=on", "mask_decoder.lateral.1.conv.weight"),
        ("openvino", "weights=int8", "mask_decoder.lateral.1.bn.bias"),
        ("mnn", "weights=int8,winograd=off", "mask_decoder.lateral.1.bn.bias"),
        ("litert", "weights=int8,xnnpack=off", "mask_decoder.lateral.1.bn.bias"),
    ],
)
def test_a_wrong_slice_does_not_hide_in_what_rounding_to_integers_may_do(
    folder: Path, tmp_path: Path, runtime: str, said: str, weight: str
) -> None:
    planted(folder / "m.onnx", tmp_path / "m.onnx", weight)
    converter, precision = CONVERTERS[runtime], said.partition(",")[0].removeprefix("weights=")
    model = convert(converter, tmp_path / "m.onnx", tmp_path / f"m{converter.suffixes[0]}", precision)[0]
    report = judged(f"{runtime}:{model},{said}")
    fault = report.leading.first_fault
    assert fault is not None
    assert fault.step.startswith(weight.rpartition(".")[0].removesuffix(".conv").removesuffix(".bn"))
    named = f"weight {weight} is 1.05 × yours in 8 of 32 output channels, the first 0"
    assert weight.endswith("bias") or any(text.startswith(named) for text in report.leading.evidence)


@runtimes
def test_a_step_on_integers_is_reproduced_with_the_files_own_weights(folder: Path, tmp_path: Path) -> None:
    """So that nothing is off but the channels whose bias is."""
    planted(folder / "m.onnx", tmp_path / "m.onnx", "mask_decoder.lateral.1.bn.bias")
    model = convert(CONVERTERS["openvino"], tmp_path / "m.onnx", tmp_path / "m.xml", "int8")[0]
    candidate = make(f"openvino:{model},weights=int8", Request("", CONFIG, weights(), timeout=100.0))
    report = verify(candidate, CONFIG, weights(), {"scene": picture()})
    network = narrow_network.network(np.float64)
    assert reproduce(tmp_path / "step", report, candidate, network, picture()) is not None
    assert judge_folder(tmp_path / "step").verdict == "fail"
    made, truth, bound = (
        np.load(tmp_path / "step" / f"{name}_0.npy") for name in ("candidate", "truth", "bound")
    )
    outside = (np.abs(made - truth) > bound).any(axis=(0, 2, 3))
    assert outside[:8].any()
    assert not outside[8:].any()


@runtimes
@pytest.mark.parametrize(
    ("runtime", "weight", "place"),
    [
        ("ncnn", "mask_decoder.lateral.1.conv.weight", "mask_decoder.lateral.1"),
        ("openvino", "backbone.tpm.layer3.conv.0.c.weight", "backbone.tpm.layer3"),
        ("mnn", "mask_decoder.lateral.1.conv.weight", "mask_decoder.lateral.1"),
        ("litert", "mask_decoder.lateral.1.conv.weight", "mask_decoder.lateral.1"),
        ("executorch", "mask_decoder.lateral.1.conv.weight", "mask_decoder.lateral.1"),
    ],
)
def test_a_wrong_weight_is_found_where_it_is(
    folder: Path, tmp_path: Path, runtime: str, weight: str, place: str
) -> None:
    planted(folder / "m.onnx", tmp_path / "m.onnx", weight)
    converter = CONVERTERS[runtime]
    model = convert(converter, tmp_path / "m.onnx", tmp_path / f"m{converter.suffixes[0]}")[0]
    off = {"mnn": ",winograd=off"}.get(runtime, "")
    report = judged(f"{runtime}:{model}{off}")
    assert report.verdict == "fail"
    fault = report.leading.first_fault
    assert fault is not None
    assert fault.step.startswith(place)


@runtimes
def test_the_weights_of_a_converted_model_are_the_sources(folder: Path) -> None:
    held = [
        np.sort(array.ravel()) for layer in read_ncnn(converted(folder, "ncnn")) for array in layer.weights
    ]
    unfolded = [name for name in weights() if name.endswith("_head.weight")]
    assert len(unfolded) == 2
    for name in unfolded:
        wanted = np.sort(weights()[name].ravel())
        assert any(np.array_equal(array, wanted) for array in held), name


@runtimes
def test_a_pooling_of_uneven_windows_goes_wrong_on_the_way(tmp_path: Path) -> None:
    """ncnn multiplies the first matrix of the pyramid's pooling as a vector, and reads beyond it."""
    own = narrow_network.picture()
    onnx.save(export(narrow_network.network(), own), tmp_path / "m.onnx")
    model = convert(CONVERTERS["ncnn"], tmp_path / "m.onnx", tmp_path / "m.param")[0]
    assert judged(f"ncnn:{model},winograd=off", images=own).verdict == "fail"


@runtimes
def test_a_model_for_another_size_is_refused(folder: Path) -> None:
    model = converted(folder, "ncnn")
    candidate = make(f"ncnn:{model}", Request("", CONFIG, weights()))
    with pytest.raises(ShapeError, match=r"converted for pictures .*--size 128x128"):
        candidate.run(np.zeros((1, 3, 64, 96), np.float32))


@runtimes
def test_a_chip_without_float16_is_named(folder: Path) -> None:
    """On x86 ncnn computes in float32 whatever it is told."""
    with pytest.raises(ConfigurationError, match=r"this chip \(.*\) computes in float32"):
        make(f"ncnn:{converted(folder, 'ncnn')},arithmetic=float16", Request("", CONFIG, weights()))


@runtimes
def test_a_batch_is_refused(folder: Path) -> None:
    model = shutil.copy(converted(folder, "ncnn"), folder / "bare.param")
    shutil.copy(converted(folder, "ncnn").with_suffix(".bin"), folder / "bare.bin")
    candidate = make(f"ncnn:{model}", Request("", CONFIG, weights()))
    with pytest.raises(ShapeError, match="no batch axis"):
        candidate.run(np.zeros((2, 3, 128, 128), np.float32))


@runtimes
def test_an_operator_that_ncnn_lacks_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.param").write_text("7767517\n2 2\nInput in0 0 1 in0\nFrobnicate x 1 1 in0 out0\n")
    (tmp_path / "m.bin").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="lacks the operators Frobnicate"):
        make(f"ncnn:{tmp_path / 'm.param'}", Request("", CONFIG, weights()))


@runtimes
def test_half_a_file_is_not_kept(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A converter that ends well and leaves half of its file."""
    whole = converted(folder, "ncnn")

    def halved(source: Path, place: Path, said: Any) -> list[str]:
        shutil.copy(whole, place / "model.ncnn.param")
        content = whole.with_suffix(".bin").read_bytes()
        (place / "model.ncnn.bin").write_bytes(content[: len(content) // 2])
        return ["true"]

    broken = replace(CONVERTERS["ncnn"], command=halved)
    with pytest.raises(FileError, match=r"ends well but what it writes is not whole.*ends within layer"):
        convert(broken, folder / "m.onnx", tmp_path / "m.param")
    assert list(tmp_path.iterdir()) == []


def test_a_runtime_that_is_not_installed_names_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.param").write_text("7767517\n0 0\n")
    absent = replace(PHONE_RUNTIMES["ncnn"], package="no_such_runtime")
    with pytest.raises(MissingDependencyError, match=r"pip install 'mobileinst-reference\[ncnn\]'"):
        absent.candidate(str(tmp_path / "m.param"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("m.param,speed=9", "no option speed; known: threads, winograd"),
        ("m.param,winograd=maybe", "winograd=maybe: expected on, off"),
        ("m.param,threads=0", "threads=0: expected a number from 1"),
        ("m.onnx", "names the model.*given is 'm.onnx'"),
        ("", "names the model.*given is 'none'"),
        ("none.param", "there is no such file"),
    ],
)
def test_what_cannot_be_is_refused(text: str, said: str) -> None:
    with pytest.raises((ConfigurationError, FileError), match=said):
        PHONE_RUNTIMES["ncnn"].settings(text)


@pytest.mark.parametrize("name", PHONE_RUNTIMES)
def test_help_lists_every_option(name: str) -> None:
    result = CliRunner().invoke(conformance.cli.app, ["verify", "--candidate", f"{name}:help"])
    assert result.exit_code == 0
    assert all(option.name in result.output for option in PHONE_RUNTIMES[name].options)


@pytest.mark.parametrize(
    ("param", "said"),
    [
        ("7767517\n3 2\nInput in0 0 1 in0\n", "says 3 layers and has 1"),
        ("TFL3", "is no .param of ncnn"),
        ("7767517\n1 1\nInput in0 0 9 in0\n", "fewer than 0 . 9 blobs"),
        ("7767517\n1 1\nInput in0 0 1 in0 0=x\n", "is no layer"),
        ("7767517\n1 1\nConvolution c 1 1 in0 a 0=1 6=9\n", "ends within layer c"),
        ("7767517\n1 1\nInput in0 0 1 in0\n", "4 bytes are left over"),
    ],
)
def test_a_malformed_file_of_ncnn_is_named(tmp_path: Path, param: str, said: str) -> None:
    (tmp_path / "m.param").write_text(param)
    (tmp_path / "m.bin").write_bytes(b"\0\0\0\0")
    with pytest.raises(FileError, match=said):
        read_ncnn(tmp_path / "m.param")


@runtimes
def test_the_command_converts_and_judges(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(folder / "m.onnx", "m.onnx")
    weights().save(Path("w.npz"))
    run = functools.partial(CliRunner().invoke, conformance.cli.app)
    assert run(["convert", "m.onnx", "--to", "ncnn"]).exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "m.bin",
        "m.conversion.json",
        "m.onnx",
        "m.param",
        "w.npz",
    ]
    line = ["verify", "--candidate", "ncnn:m.param", "--weights", "w.npz", "--size", "128x128", *OPTIONS]
    assert run(line).exit_code == 0


@runtimes
@pytest.mark.parametrize("runtime", ["ncnn"])
def test_seaformer_passes(tmp_path: Path, runtime: str) -> None:
    config = MobileInstConfig.preset("seaformer-tiny", **FIELDS)
    drawn = Weights.seeded(config, seed=1).astype(np.float32)
    onnx.save(export(MobileInst(config, drawn), picture()), tmp_path / "m.onnx")
    converter = CONVERTERS[runtime]
    model = convert(converter, tmp_path / "m.onnx", tmp_path / f"m{converter.suffixes[0]}")[0]
    judged(f"{runtime}:{model}", config, drawn).raise_on_failure()


@runtimes
def test_the_matrix_holds_every_runtime_and_names_what_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two runtimes here, for time; one of them as if it were not installed."""
    absent = replace(PHONE_RUNTIMES["mnn"], package="no_such_runtime")
    few = {"openvino": replace(PHONE_RUNTIMES["openvino"], ways=("storage=float32",)), "mnn": absent}
    monkeypatch.setattr(runtime_matrix, "PHONE_RUNTIMES", few)
    monkeypatch.setattr(runtime_matrix, "OTHERS", {"onnxruntime": ("level=all",)})
    monkeypatch.chdir(tmp_path)
    line = ["matrix", *OPTIONS, "--seed", "0", "--size", "64x96", "--no-cache"]
    files = ["--json", "m.json", "--markdown", "m.md", "--html", "m.html"]
    result = CliRunner().invoke(conformance.cli.app, [*line, *files])
    assert result.exit_code == 0, result.output
    cells = json.loads(Path("m.json").read_text())["cells"]
    assert [(cell["runtime"], cell["verdict"]) for cell in cells] == [
        ("onnxruntime", "pass"),
        ("openvino", "pass"),
        ("mnn", "not installed"),
    ]
    assert "| openvino | " in Path("m.md").read_text()
    assert Path("m.html").read_text().count("<tr>") == 4


@runtimes
def test_the_matrix_of_another_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_matrix, "PHONE_RUNTIMES", {})
    monkeypatch.chdir(tmp_path)
    line = ["matrix", *OPTIONS, "--seed", "0", "--size", "64x96", "--no-cache", "--json", "m.json"]
    result = CliRunner().invoke(conformance.cli.app, [*line, "--interpreter", sys.executable])
    assert result.exit_code == 0, result.output
    cells = json.loads(Path("m.json").read_text())["cells"]
    assert [(cell["runtime"], cell["verdict"]) for cell in cells] == [("onnxruntime", "pass")] * 2


@runtimes
@pytest.mark.parametrize(
    ("interpreter", "said"),
    [(f"{sys.executable} -I -S", "has no NumPy"), ("no_such_python", "cannot be started")],
)
def test_a_matrix_of_nothing_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], interpreter: str, said: str
) -> None:
    monkeypatch.setattr(runtime_matrix, "PHONE_RUNTIMES", {})
    line = ["matrix", *OPTIONS, "--seed", "0", "--size", "64x96", "--no-cache"]
    monkeypatch.setattr(sys, "argv", ["mobileinst", *line, "--interpreter", interpreter])
    with pytest.raises(SystemExit) as ended:
        conformance.cli.main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_cells_of_tables_cannot_break_out_of_them() -> None:
    assert "<b>" not in page_of_table("t", ["h"], [["<b>"]], "c")
    assert markdown_table(["h"], [["a|b"]]).splitlines()[-1] == r"| a\|b |"


@runtimes
def test_a_bias_within_the_bound_of_its_product_is_added_already(tmp_path: Path) -> None:
    """In bfloat16 it lay within the bound of the product alone, and then seemed missing."""
    config = MobileInstConfig.preset("topformer-tiny", dim=32, num_queries=7, num_classes=5)
    drawn = Weights.seeded(config, seed=3).astype(np.float32)
    onnx.save(export(MobileInst(config, drawn), picture()), tmp_path / "m.onnx")
    model = convert(CONVERTERS["ncnn"], tmp_path / "m.onnx", tmp_path / "m.param")[0]
    judged(f"ncnn:{model},storage=bfloat16", config, drawn).raise_on_failure()
