"""Real dumps are rounding at every layer; a planted error is found at its layer and named for what it is."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from tnn_data import graph, inputs, unpacked

from conformance.tnn.dumps import (
    CONSTANT,
    INPUT,
    REFORMAT,
    TRANSFER,
    Step,
    difference,
    match_layers,
    misread_layout,
    packed_layout,
    read_folder,
    replay,
    unpacked_layout,
)
from conformance.tnn.evaluation import evaluate_layer
from conformance.tnn.proto import parse_proto, write_proto
from conformance.tnn.text import DumpName, parse_dump_name, read_dump, write_dump
from refimpl.errors import FileError

DEVICES = {"dump_mha_x86": "float32", "dump_mha_arm_HIGH": "float32", "dump_mha_arm_AUTO": "float16"}


def real(device: str) -> Path:
    return unpacked("mha_dumps") / "mha_dumps" / device


def steps(folder: Path, arithmetic: str = "float32") -> list[Step]:
    return list(replay(graph("mha"), folder, inputs("mha"), arithmetic))


@pytest.mark.parametrize(("device", "arithmetic"), DEVICES.items())
def test_real_dumps_are_rounding_at_every_layer(device, arithmetic):
    found = steps(real(device), arithmetic)
    assert {layer.name for step in found for layer in step.layers} == {
        x.name for x in graph("mha").proto.layers
    }
    assert {step.verdict for step in found} == {"pass"}
    assert all(step.worst.error == 0 for step in found if step.type in ("Permute", "Reshape"))
    assert {step.tensor for step in found} >= set(graph("mha").proto.outputs)


def test_hidden_files_are_no_dumps(tmp_path):
    shutil.copytree(real("dump_mha_x86"), tmp_path, dirs_exist_ok=True)
    found = read_folder(tmp_path)
    (tmp_path / ".DS_Store").touch()
    assert read_folder(tmp_path) == found


def test_half_precision_is_told_from_single():
    found = steps(real("dump_mha_arm_AUTO"))
    assert max(step.worst.utilisation for step in found if step.layers) > 1000


def test_reformat_layers_are_understood():
    found = [step for step in steps(real("dump_mha_arm_HIGH")) if step.type == REFORMAT]
    assert len(found) == 11
    assert all(step.worst.error == 0 and step.layers == () for step in found)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy of the ARM dump to damage."""
    return Path(shutil.copytree(real("dump_mha_arm_HIGH"), tmp_path / "dump"))


def alter(folder: Path, blob: str, change, sides: tuple[bool, ...] = (True, False)) -> None:
    """Change a blob wherever it was dumped, as an input or an output."""
    for path in sorted(folder.iterdir()):
        name = parse_dump_name(path.name)
        if name.blob == blob and name.is_input in sides:
            write_dump(folder, name, change(read_dump(path)))


def nudged(values: np.ndarray) -> np.ndarray:
    values = values.copy()
    values.flat[values.size // 3] += 1e-3 * np.abs(values).max()
    return values


def faults(folder: Path) -> list[Step]:
    return [step for step in steps(folder) if step.verdict == "fail"]


@pytest.mark.parametrize(
    "blob",
    [
        *("matmul1", "add2", "reshape3", "transpose8", "matmul9", "matmul13", "mul14", "softmax15"),
        *("transpose17", "add20", "add21_0_layout_reformat", "y"),
    ],
)
def test_an_error_planted_in_a_blob_is_found_where_it_was_made(folder, blob):
    alter(folder, blob, nudged)
    assert faults(folder)[0].tensor == blob


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_are_infinitely_wrong(folder, bad):
    def poison(values):
        values = values.copy()
        values.flat[5] = bad
        return values

    alter(folder, "add20", poison)
    assert faults(folder)[0].tensor == "add20"
    assert faults(folder)[0].worst.error == np.inf


def test_an_altered_constant_is_blamed_and_not_the_layer_that_uses_it(folder):
    alter(folder, "w15", nudged)
    fault = faults(folder)[0]
    assert (fault.type, fault.tensor, fault.name) == (CONSTANT, "w15", "Add_30")


@pytest.mark.parametrize("shape", [(1, 32), (1, 1, 32), (1, 1, 1, 32)])
def test_a_constant_dumped_with_another_rank_is_the_same(folder, shape):
    """A device keeps a bias in the rank it computes with."""
    for path in sorted(folder.iterdir()):
        name = parse_dump_name(path.name)
        if name.blob in graph("mha").constants and name.is_input:
            values = read_dump(path)
            path.unlink()
            write_dump(folder, dataclasses.replace(name, dims=shape), values.reshape(shape))
    assert faults(folder) == []


WAYS = {
    "rounded to float16": lambda x: x.astype(np.float16).astype(np.float32),
    "cut off to bfloat16": lambda x: (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32),
    "the same values in another order": lambda x: np.roll(x, 3, axis=-1),
    "all times 1.37": lambda x: x * np.float32(1.37),
    "all larger by 0.5": lambda x: x + np.float32(0.5),
    "every fourth element, as NC4HW4 read flat": lambda x: spread(x),
    "": nudged,
}


def spread(x: np.ndarray) -> np.ndarray:
    apart = np.zeros(4 * x.size, np.float32)
    apart[::4] = x.reshape(-1)
    return apart[: x.size].reshape(x.shape)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("blob", ["w15", "add2"])
def test_it_is_said_how_values_differ(folder, way, blob):
    alter(folder, blob, WAYS[way])
    fault = next(step for step in steps(folder) if step.verdict == "fail" and step.tensor == blob)
    assert difference(fault, 1e-5) == way
    assert difference(fault, float(fault.bound.max())) == way


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_an_operand_beyond_float32_with_finite_results_fails(folder, bad):
    """Also where the input that was meant is not known."""

    def poison(values):
        values = values.copy()
        values.flat[5] = bad
        return values

    alter(folder, "x", poison)
    alter(folder, "x_0_layout_reformat", poison, sides=(True,))
    failing = [step for step in replay(graph("mha"), folder, {}, "float32") if step.verdict == "fail"]
    assert failing
    assert {difference(step, 1e-5) for step in failing} == {""}


def test_a_blob_that_arrives_other_than_it_was_made_is_a_transfer(folder):
    alter(folder, "softmax15_0_layout_reformat", nudged, sides=(True,))
    fault = faults(folder)[0]
    assert (fault.type, fault.name) == (TRANSFER, "MatMul_16")


def test_another_input_than_meant_is_named(folder):
    alter(folder, "x", nudged)
    assert faults(folder)[0].type == INPUT


def test_a_misread_layout_is_recognised(folder):
    alter(folder, "transpose4_0_layout_reformat", packed_layout)
    fault = faults(folder)[0]
    assert fault.type == REFORMAT
    assert misread_layout(fault, 1e-6) == "NC4HW4 read as NCHW"
    alter(folder, "transpose4_0_layout_reformat", lambda v: unpacked_layout(unpacked_layout(v)))
    assert misread_layout(faults(folder)[0], 1e-6) == "NCHW read as NC4HW4"
    alter(folder, "transpose4_0_layout_reformat", nudged)
    assert misread_layout(faults(folder)[0], 1e-6) == ""


def test_packing_is_its_definition():
    array = np.arange(2 * 8 * 3 * 5).reshape(2, 8, 3, 5)
    memory = packed_layout(array).ravel()
    n, c, h, w = 1, 6, 2, 3
    assert memory[n * 120 + ((c // 4 * 3 + h) * 5 + w) * 4 + c % 4] == array[n, c, h, w]
    np.testing.assert_array_equal(unpacked_layout(packed_layout(array)), array)
    assert packed_layout(np.zeros((1, 3, 2, 2))) is None


def run_float32(name: str, changed: str = "") -> dict[str, np.ndarray]:
    """Return the blobs of a float32 run in which one blob or constant came out changed."""
    found, blobs = graph(name), dict(inputs(name))
    blobs |= {key: buffer.values for key, buffer in found.constants.items()}
    blobs |= {changed: nudged(blobs[changed])} if changed in blobs else {}
    for layer in found.proto.layers:
        results = evaluate_layer(found, layer, tuple(blobs[key] for key in layer.inputs))
        for key, values in zip(layer.outputs, results, strict=True):
            blobs[key] = nudged(values) if key == changed else values
    return blobs


def dump_graph(name: str, folder: Path, absorbed: tuple[str, ...] = (), changed: str = "") -> None:
    """Write the dump of a float32 run; layers in ``absorbed`` ran inside the one before them."""
    blobs, index = run_float32(name, changed), 0
    layers = list(graph(name).proto.layers)
    for position, layer in enumerate(layers):
        if layer.name in absorbed:
            continue
        after = layers[position + 1] if position + 1 < len(layers) else layer
        outputs = after.outputs if after.name in absorbed else layer.outputs
        for is_input, names in ((True, layer.inputs), (False, outputs)):
            for operand, blob in enumerate(names):
                values = blobs[blob]
                write_dump(folder, DumpName(index, layer.name, is_input, operand, blob, values.shape), values)
        index += 1


@pytest.mark.parametrize("layer", graph("mha").proto.layers, ids=lambda layer: layer.name)
def test_a_run_that_goes_on_with_an_error_is_blamed_at_one_layer_alone(layer, tmp_path):
    """Whoever reads the blob is replayed on what it was given, so nobody downstream is blamed."""
    dump_graph("mha", tmp_path, changed=layer.outputs[0])
    (fault,) = faults(tmp_path)
    assert (fault.name, fault.tensor) == (layer.name, layer.outputs[0])


def test_a_run_that_goes_on_with_an_altered_constant_blames_the_constant_alone(tmp_path):
    dump_graph("mha", tmp_path, changed="w16")
    (fault,) = faults(tmp_path)
    assert (fault.type, fault.tensor) == (CONSTANT, "w16")


@pytest.mark.parametrize(("name", "activation"), [("dwconv_s2", "Relu_2"), ("conv_bn_relu6", "Clip_3")])
def test_an_absorbed_activation_is_replayed_with_its_convolution(name, activation, tmp_path):
    dump_graph(name, tmp_path, (activation,))
    (step,) = replay(graph(name), tmp_path)
    assert [layer.name for layer in step.layers] == ["Conv_1", activation]
    assert step.verdict == "pass"
    alter(tmp_path, "y", lambda values: values - 0.5)
    (step,) = replay(graph(name), tmp_path)
    assert step.worst.utilisation > 1000


def test_an_activation_that_a_layer_cannot_absorb_is_missing(tmp_path):
    dump_graph("mha", tmp_path)
    (tmp_path / "00021-Add_30-out-0-y-dims-1-10-32.txt").unlink()
    with pytest.raises(FileError, match="layer 21 'Add_30' has no output"):
        list(replay(graph("mha"), tmp_path))
    for path in tmp_path.glob("00021-*"):
        path.unlink()
    with pytest.raises(FileError, match=r"the dump has not: \['Add_30'\]"):
        list(replay(graph("mha"), tmp_path))


def test_several_inputs_and_outputs(tmp_path):
    for name in ("multi_io", "split_swap_concat"):
        (tmp_path / name).mkdir()
        dump_graph(name, tmp_path / name)
        assert {step.verdict for step in replay(graph(name), tmp_path / name)} == {"pass"}


def remove(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
        path.unlink()


def copy(folder: Path, old: str, new: str) -> None:
    shutil.copy(folder / old, folder / new)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: remove(f, "00005-*"), r"layers \[5\] are missing"),
        (lambda f: remove(f, "00030-Add_21-in-0*"), "'Add_21' are missing or doubled"),
        (lambda f: remove(f, "00030-Add_21-in-1*"), "another model"),
        (lambda f: remove(f, "0003*"), "the dump has not"),
        (
            lambda f: copy(
                f, "00003-Add_2-out-0-add2-dims-1-10-32.txt", "00003-Add_9-out-0-add2-dims-1-10-32.txt"
            ),
            "layer 3 is there twice",
        ),
        (
            lambda f: copy(
                f, "00003-Add_2-out-0-add2-dims-1-10-32.txt", "00003-Add_2-out-0-add3-dims-1-10-32.txt"
            ),
            "missing or doubled",
        ),
        (lambda f: (f / "log.txt").write_text("done"), "is no blob dump"),
        (
            lambda f: (f / "00003-Add_2-out-0-add2-dims-1-10-32.txt").write_text("1.0\n2.0\n"),
            "2 numbers, expected 320",
        ),
        (lambda f: (f / "00003-Add_2-out-0-add2-dims-1-10-32.txt").write_text(""), "empty"),
        (lambda f: remove(f, "*"), "empty"),
    ],
)
def test_damaged_folders_are_named(folder, damage, message):
    damage(folder)
    with pytest.raises(FileError, match=message):
        steps(folder)


def test_layers_that_files_cannot_tell_apart_are_named(folder):
    content = write_proto(graph("mha").proto).replace(b"MatMul_5 ", b"a/b ").replace(b"MatMul_9 ", b"a:b ")
    clash = dataclasses.replace(graph("mha"), proto=parse_proto(content, "p"))
    with pytest.raises(FileError, match="same name"):
        match_layers(clash, read_folder(folder))


def test_a_dump_of_another_model_is_named(folder, tmp_path):
    with pytest.raises(FileError, match="another model"):
        match_layers(graph("gemm"), read_folder(folder))
    with pytest.raises(FileError, match="no folder"):
        read_folder(tmp_path / "absent")
