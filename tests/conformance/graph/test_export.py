"""Our ONNX export against implementations of ONNX that are not ours."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from narrow_network import CONFIG, FIELDS, network, picture, weights
from onnx.reference import ReferenceEvaluator

from conformance.graph.onnx_export import export, save, to_onnx
from refimpl import MobileInst, MobileInstConfig, Network, record
from refimpl.config import PRESETS
from refimpl.errors import FileError
from refimpl.model import parameter_shapes
from refimpl.ops.operation import OPERATIONS, Array


def every_network() -> dict[MobileInstConfig, str]:
    """Return the presets as narrow networks, each once; the tables' rows on the smallest backbone."""
    rivals = {"head_dim": 16, "mask_dim": 16, "norm_groups": 8, "grids": (5, 4, 3, 2, 1)}
    narrow = {**FIELDS, "num_queries": 6, **rivals}
    rows = {name: {"backbone": "topformer-tiny"} for name in PRESETS if name.startswith("table")}
    return {MobileInstConfig.preset(name, **narrow, **rows.get(name, {})): name for name in reversed(PRESETS)}


def random_weights(config: MobileInstConfig) -> dict[str, Array]:
    """Make weights that need no calibration: as much comes out of each layer as goes in."""
    rng = np.random.default_rng(0)

    def array(name: str, shape: tuple[int, ...]) -> Array:
        if len(shape) == 1:
            return (
                np.ones(shape)
                if name.endswith(("running_var", "weight"))
                else 0.1 * rng.standard_normal(shape)
            )
        return rng.standard_normal(shape) * math.prod(shape[1:]) ** -0.5

    return {name: array(name, shape).astype(np.float32) for name, shape in parameter_shapes(config).items()}


def in_runtime(model: onnx.ModelProto, images: Array) -> dict[str, Array]:
    """Run a model in ONNX Runtime, unoptimised."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return dict(
        zip(
            (output.name for output in session.get_outputs()),
            session.run(None, {"images": images}),
            strict=True,
        )
    )


def in_onnx_reference(model: onnx.ModelProto, images: Array) -> dict[str, Array]:
    """Run a model in the reference implementation that comes with ONNX."""
    names = [output.name for output in model.graph.output]
    return dict(zip(names, ReferenceEvaluator(model).run(None, {"images": images}), strict=True))


def assert_close(results: dict[str, Array], expected: dict[str, Array], tolerance: float) -> None:
    """Compare outputs, relative to each one's largest element."""
    assert list(results) == list(expected)
    for name, values in expected.items():
        assert results[name].dtype == values.dtype
        assert results[name].shape == values.shape
        assert np.abs(results[name] - values).max() <= tolerance * np.abs(values).max(), name


def with_stored_attributes(model: MobileInst, images: Array) -> dict[str, Array]:
    """Run the network with its attributes as an ONNX file stores them: epsilons and slopes in float32."""

    def rounded(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*operands: Any, **attributes: Any) -> Any:
            stored = {k: float(np.float32(v)) if isinstance(v, float) else v for k, v in attributes.items()}
            return function(*operands, **stored)

        return call

    recording = record(model, images, operations={name: rounded(call) for name, call in OPERATIONS.items()})
    return {name: recording.tensors[tensor] for name, tensor in recording.outputs.items()}


@pytest.mark.parametrize("fold", [False, True])
def test_a_float64_export_agrees_with_onnx_reference_to_1e_12(fold: bool) -> None:
    model = MobileInst(CONFIG, weights(np.float64).folded()) if fold else network(np.float64)
    images = picture(2).astype(np.float64)
    results = in_onnx_reference(export(model, images), images)
    assert_close(results, with_stored_attributes(model, images), 1e-12)
    # What storing epsilon and slopes in float32 does to the whole.
    assert_close(results, dict(model(images).items()), 1e-7)


@pytest.mark.parametrize(("config", "name"), every_network().items(), ids=every_network().values())
def test_every_preset_is_exported_at_a_small_odd_size(config: MobileInstConfig, name: str) -> None:
    """96×160 is three by five at 1/32, which no pooling divides; ONNX Runtime agrees with float64."""
    made = random_weights(config)
    model = Network(config, made)
    images = np.random.default_rng(0).standard_normal((1, 3, 96, 160)).astype(np.float32)
    exported = export(model, images)
    onnx.checker.check_model(exported, full_check=True)
    wide = Network(config, {weight: array.astype(np.float64) for weight, array in made.items()})
    expected, narrow = dict(wide(images.astype(np.float64)).items()), dict(model(images).items())
    results = in_runtime(exported, images)
    assert list(results) == list(expected)
    for output, values in expected.items():
        noise = np.abs(narrow[output] - values).max()
        assert np.abs(results[output] - values).max() <= 16 * noise, output


def test_a_float32_export_is_right_in_onnx_runtime() -> None:
    images = picture()
    wide = dict(network(np.float64)(images.astype(np.float64)).items())
    narrow = dict(network()(images).items())
    for name, values in in_runtime(export(network(), images), images).items():
        assert values.dtype == np.float32
        noise = np.abs(narrow[name] - wide[name]).max()
        assert np.abs(values - wide[name]).max() <= 16 * noise, name


def test_the_file_is_valid_with_full_shape_inference(tmp_path: Path) -> None:
    model = export(network(), picture(2))
    save(model, tmp_path / "it.onnx")
    onnx.checker.check_model(str(tmp_path / "it.onnx"), full_check=True)
    loaded = onnx.load(tmp_path / "it.onnx")
    (version,) = loaded.opset_import
    assert version.domain == ""
    assert version.version >= 17
    assert [path.name for path in tmp_path.iterdir()] == ["it.onnx"]
    # Every tensor has its static shape, as recorded.
    recording = record(network(), picture(2))
    renamed = {name: output for output, name in recording.outputs.items()}
    shapes = {
        info.name: tuple(dim.dim_value for dim in info.type.tensor_type.shape.dim)
        for info in (*loaded.graph.value_info, *loaded.graph.output)
    }
    for step, name in recording.results():
        assert shapes[renamed.get(name, name)] == recording.tensors[name].shape, step.name


def test_names_are_readable() -> None:
    graph = export(network(), picture()).graph
    assert [info.name for info in graph.input] == ["images"]
    fields = ["class_logits", "objectness", "kernels", "mask_features", "masks", "global_queries"]
    assert [info.name for info in graph.output] == fields
    initializers = {tensor.name for tensor in graph.initializer}
    assert set(weights()) <= initializers
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    stages = {"backbone", "mask_decoder", "instance_decoder", "masks"}
    for name in (*names, *(name for node in graph.node for name in node.output)):
        assert name in fields or name.split("/")[0].split(".")[0] in stages, name
    made = {name for node in graph.node for name in node.output}
    assert {"backbone.tpm.stem.0", "mask_decoder.output.1", "instance_decoder.kernel_head.0"} <= made


def test_the_weights_are_in_the_file_bit_for_bit() -> None:
    graph = export(network(), picture()).graph
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for name, array in weights().items():
        assert arrays[name].dtype == array.dtype
        assert np.array_equal(arrays[name], array)


def test_a_folded_export_has_no_batch_norm() -> None:
    operations = {
        node.op_type for node in export(MobileInst(CONFIG, weights().folded()), picture()).graph.node
    }
    assert "BatchNormalization" not in operations
    assert "Conv" in operations


@pytest.mark.parametrize("opset", [17, 18, 19, 20, 21])
def test_newer_operator_sets(opset: int) -> None:
    images = picture().astype(np.float64)
    model = to_onnx(record(network(np.float64), images), "newer", opset=opset)
    assert model.opset_import[0].version == opset
    expected = with_stored_attributes(network(np.float64), images)
    assert_close(in_onnx_reference(model, images), expected, 1e-12)


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="there is no folder"):
        save(export(network(), picture()), tmp_path / "missing" / "it.onnx")
    assert not list(tmp_path.iterdir())
