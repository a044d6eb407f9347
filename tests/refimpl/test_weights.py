"""Weights: read strictly, written whole, made reproducibly, folded exactly."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import struct
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from narrow_network import CONFIG, FIELDS, SIZE, network, picture, weights
from scipy.signal import correlate

from refimpl import MobileInst, MobileInstConfig, Weights, ops, record
from refimpl.config import BACKBONES
from refimpl.errors import FileError, MobileInstError, NonFiniteError, ShapeError, WeightsError
from refimpl.inference import preprocess
from refimpl.model import parameter_shapes
from refimpl.ops.operation import Array
from refimpl.scenes import render_picture
from refimpl.scope import Scope
from refimpl.weights.folding import batch_norms, fold_batch_norm
from refimpl.weights.hint import likely_configuration
from refimpl.weights.seeding import CALIBRATION_SIZE, _round_to_bits

QUERIES = "instance_decoder.queries"


def contents_of(folder: Path) -> list[Path]:
    """Return what stands in a folder."""
    return sorted(folder.iterdir())


# Round trips.


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_saved_and_loaded_weights_are_the_same_bits(tmp_path: Path, suffix: str, dtype: type) -> None:
    path = tmp_path / f"w{suffix}"
    weights(dtype).save(path)
    loaded = Weights.load(path, CONFIG)
    assert loaded.dtype == dtype
    assert set(loaded) == set(weights())
    for name, array in loaded.items():
        assert np.array_equal(array, weights(dtype)[name])
        assert array.dtype == dtype
    assert contents_of(tmp_path) == [path]


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_folded_weights_are_saved_and_loaded(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    weights().folded().save(path)
    loaded = Weights.load(path, CONFIG)
    assert np.array_equal(
        MobileInst(CONFIG, loaded)(picture()).masks, MobileInst(CONFIG, weights().folded())(picture()).masks
    )


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_saved_file_may_be_read_by_whoever_may_read_others(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "other").write_bytes(b"")
    weights().save(tmp_path / f"w{suffix}")
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_saving_replaces_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    path.write_bytes(b"old")
    weights().save(path)
    assert set(Weights.load(path, CONFIG)) == set(weights())


def test_arrays_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        weights()[QUERIES][0] = 0


def test_what_others_can_write_into_is_copied() -> None:
    given = {name: array.copy() for name, array in weights().items()}
    made = Weights(given)
    given[QUERIES][:] = 0
    np.testing.assert_array_equal(made[QUERIES], weights()[QUERIES])
    again = Weights(made)
    assert all(again[name] is made[name] for name in made)


def test_other_dtypes() -> None:
    for dtype in (np.float16, np.float64):
        other = weights().astype(dtype)
        assert other.dtype == dtype
        assert {array.dtype for array in other.values()} == {np.dtype(dtype)}
        assert np.array_equal(other[QUERIES], weights()[QUERIES].astype(dtype))
    assert network(np.float64)(picture()).masks.dtype == np.float64


# Strictness.


def broken() -> dict[str, Array]:
    """Weights with one problem of each kind."""
    arrays = dict(weights())
    del arrays[QUERIES]
    arrays["class_head.nonsense"] = np.zeros(3, np.float32)
    arrays["instance_decoder.class_head.bias"] = np.zeros(9, np.float32)
    arrays["mask_decoder.output.1.bn.bias"] = np.full(32, np.nan, np.float32)
    arrays["mask_decoder.output.1.bn.running_mean"] = np.r_[np.inf, np.zeros(31)].astype(np.float32)
    arrays["mask_decoder.output.1.bn.running_var"] = np.full(32, -1, np.float32)
    return arrays


PROBLEMS = [
    "missing instance_decoder.queries, expected shape (5, 32)",
    "extra class_head.nonsense of shape (3,)",
    "instance_decoder.class_head.bias has shape (9,), expected (7,)",
    "mask_decoder.output.1.bn.bias holds 32 values that are NaN or infinite",
    "mask_decoder.output.1.bn.running_mean holds 1 values that are NaN or infinite",
    "mask_decoder.output.1.bn.running_var holds 32 negative variances",
]


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", None])
def test_one_error_lists_all_problems(tmp_path: Path, suffix: str | None) -> None:
    def load() -> Any:
        if suffix is None:
            return MobileInst(CONFIG, broken())
        path = tmp_path / f"w{suffix}"
        Weights(broken()).save(path)
        return Weights.load(path, CONFIG)

    with pytest.raises(WeightsError) as caught:
        load()
    message = str(caught.value)
    listed = "\n".join(caught.value.items)
    for problem in PROBLEMS:
        assert listed.count(problem) == 1
    assert f"{len(PROBLEMS)} problems" in message
    assert len(caught.value.items) == len(PROBLEMS)
    assert len(message.splitlines()) == 1 + 5 + 1
    assert message.endswith(f"and {len(PROBLEMS) - 5} more")


@pytest.mark.parametrize(
    "array", [np.zeros((5, 32), np.int32), np.zeros((5, 32), np.complex64), np.zeros((5, 32), bool)]
)
def test_what_is_not_float_is_refused(array: Array) -> None:
    with pytest.raises(WeightsError, match=f"{QUERIES} has dtype {array.dtype}, expected a float"):
        MobileInst(CONFIG, {**weights(), QUERIES: array})


def test_mixed_dtypes_are_refused() -> None:
    with pytest.raises(WeightsError, match="different dtypes: float32, float64"):
        MobileInst(CONFIG, {**weights(), QUERIES: weights(np.float64)[QUERIES]})


def test_no_weights_at_all_is_a_named_error() -> None:
    with pytest.raises(WeightsError, match=r"missing backbone\.tpm\.stem\.0"):
        MobileInst(CONFIG, {})


@pytest.mark.parametrize("other", ["topformer-small", "seaformer-tiny", "table4/none"])
def test_weights_of_another_preset_are_refused(tmp_path: Path, other: str) -> None:
    path = tmp_path / "w.safetensors"
    weights().save(path)
    with pytest.raises(WeightsError, match="do not fit this configuration"):
        Weights.load(path, MobileInstConfig.preset(other, **FIELDS))


@pytest.mark.parametrize(
    ("preset", "fields"),
    [
        ("topformer-small", {"dim": 64, "num_queries": 9, "num_classes": 40}),
        ("seaformer-tiny", {"num_queries": 20}),
        ("table5/fpn-1conv", {"dim": 32}),
        ("table3/local-x2", {}),
        ("sparseinst-topformer-tiny", {"dim": 32, "num_queries": 7, "num_classes": 3, "kernel_dim": 16}),
    ],
)
def test_the_configuration_of_other_weights_is_named(preset: str, fields: dict[str, int]) -> None:
    made_for = MobileInstConfig.preset(preset, **fields)
    shapes = parameter_shapes(made_for)
    made = {name: np.broadcast_to(np.float32(0.5), shape) for name, shape in shapes.items()}
    said = likely_configuration(made, CONFIG)
    words = said.removeprefix("they are those of --model ").split(" --set ")
    named, overrides = words[0], dict(word.split("=") for word in words[1:])
    config = MobileInstConfig.preset(named, **{field: int(value) for field, value in overrides.items()})
    # Presets may differ in what has no weights.
    assert parameter_shapes(config) == shapes
    assert named == preset
    assert likely_configuration(made, made_for) == ""


def test_no_configuration_is_named_without_need_or_likeness() -> None:
    assert likely_configuration(broken(), CONFIG) == ""
    assert likely_configuration({}, CONFIG).startswith("no preset has such weights")
    assert likely_configuration({"a": np.zeros(()), "b.c": np.zeros(3)}, CONFIG).startswith("no preset")


def test_a_hint_leads_and_every_weight_is_listed_once(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    weights().save(path)
    with pytest.raises(WeightsError) as caught:
        Weights.load(path, MobileInstConfig.preset("topformer-small", **FIELDS))
    first, lines = str(caught.value).splitlines()[0], caught.value.items
    assert re.search(
        r"\d+ problems \(\d+ missing, \d+ misshapen\); they are those of --model topformer-tiny", first
    )
    total = int(re.findall(r"(\d+) problems", first)[0])
    counted = [int(found[1]) if (found := re.search(r", (\d+) weights: ", line)) else 1 for line in lines]
    assert sum(counted) == total
    assert len(lines) < total / 5


def test_a_scope_names_what_it_misses() -> None:
    scope = Scope({"a.b.weight": np.zeros((2, 3))}) / "a" / "b"
    assert scope["weight", 2, 3].shape == (2, 3)
    assert "weight" in scope
    assert "bias" not in scope
    with pytest.raises(ShapeError, match=r"a.b.weight has shape \(2, 3\), expected \(3, 2\)"):
        scope["weight", 3, 2]
    with pytest.raises(WeightsError, match=r"a.b.bias is missing; expected an array of shape \(3,\)"):
        scope["bias", 3]


# Damaged files.


def npz(path: Path, **members: bytes) -> Path:
    """Write a zip archive of raw members."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def header(text: str, version: bytes = b"\x01\x00") -> bytes:
    """Return the start of a .npy file with any header."""
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text.encode()


LYING = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }\n"
PLAIN = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n"
DAMAGED_NPZ: dict[str, bytes] = {
    "a lying header": header(LYING) + bytes(64),
    "a truncated array": header(PLAIN) + bytes(5),
    "a negative shape": header(PLAIN.replace("2,", "-2,")) + bytes(8),
    "an overflowing shape": header(PLAIN.replace("2,", "2**70,")) + bytes(8),
    "an enormous shape": header(PLAIN.replace("(2,)", f"({2**40}, {2**40})")) + bytes(8),
    "no header": b"nonsense",
    "an empty member": b"",
    "a header of code": header("__import__('os').system('true')"),
    "a header of no dtype": header("{'descr': 'zz', 'fortran_order': False, 'shape': (2,), }\n"),
    "a header of nothing": header("{}"),
    "an unknown version": header(PLAIN, b"\x09\x00") + bytes(8),
    "version 2, short": b"\x93NUMPY\x02\x00\xff",
}


@pytest.mark.parametrize("name", DAMAGED_NPZ)
def test_a_damaged_npz_is_a_named_error(tmp_path: Path, name: str) -> None:
    path = npz(tmp_path / "w.npz", **{QUERIES: DAMAGED_NPZ[name]})
    with pytest.raises(FileError, match=r"w\.npz") as caught:
        Weights.load(path, CONFIG)
    assert "\n" not in str(caught.value)


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """A member of one name twice, or one that claims a petabyte, costs no memory."""
    path = tmp_path / "w.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("readme.txt", b"\0" * 10_000_000)
    with pytest.raises(FileError):
        Weights.load(path, CONFIG)


def test_objects_in_an_npz_are_refused(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "executed"),))

    content = io.BytesIO()
    np.lib.format.write_array(content, np.array([Malicious()], dtype=object), allow_pickle=True)
    path = npz(tmp_path / "w.npz", **{QUERIES: content.getvalue()})
    with pytest.raises(FileError):
        Weights.load(path, CONFIG)
    assert not (tmp_path / "executed").exists()


DAMAGED_SAFETENSORS: dict[str, bytes] = {
    "empty": b"",
    "short": b"\x10",
    "a header longer than the file": struct.pack("<Q", 2**60) + b"{}",
    "no JSON": struct.pack("<Q", 4) + b"nope",
    "a lying shape": struct.pack("<Q", 64)
    + json.dumps({"a": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4]}}).ljust(64).encode()
    + bytes(4),
    "an unknown type": struct.pack("<Q", 64)
    + json.dumps({"a": {"dtype": "F77", "shape": [1], "data_offsets": [0, 4]}}).ljust(64).encode()
    + bytes(4),
}


@pytest.mark.parametrize("name", DAMAGED_SAFETENSORS)
def test_a_damaged_safetensors_file_is_a_named_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(DAMAGED_SAFETENSORS[name])
    with pytest.raises(FileError, match=r"w\.safetensors is not a readable"):
        Weights.load(path, CONFIG)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("saved")
    for suffix in (".safetensors", ".npz"):
        weights().save(folder / f"w{suffix}")
    return {path.suffix: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=25)
@given(suffix=st.sampled_from([".safetensors", ".npz"]), fraction=st.floats(0, 0.999))
def test_a_truncated_file_is_a_named_error(
    saved: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, suffix: str, fraction: float
) -> None:
    path = tmp_path_factory.mktemp("truncated") / f"w{suffix}"
    path.write_bytes(saved[suffix][: int(fraction * len(saved[suffix]))])
    with pytest.raises(FileError, match="is not a readable"):
        Weights.load(path, CONFIG)


@settings(max_examples=40)
@given(suffix=st.sampled_from([".safetensors", ".npz"]), place=st.integers(0, 2000), byte=st.integers(0, 255))
def test_a_garbled_file_is_weights_or_a_named_error(
    saved: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, suffix: str, place: int, byte: int
) -> None:
    content = bytearray(saved[suffix])
    content[place] = byte
    path = tmp_path_factory.mktemp("garbled") / f"w{suffix}"
    path.write_bytes(content)
    try:
        loaded = Weights.load(path, CONFIG)
    except MobileInstError:
        return
    assert set(loaded) == set(weights())


@pytest.mark.parametrize("name", ["w.onnx", "w", "w.bin", "w.SAFETENSORS"])
def test_another_suffix_is_refused_either_way(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileError, match="name must end in"):
        weights().save(tmp_path / name)
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(FileError, match="name must end in"):
        Weights.load(tmp_path / name, CONFIG)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"nowhere\.npz does not exist"):
        Weights.load(tmp_path / "nowhere.npz", CONFIG)
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(FileError, match=r"folder\.npz"):
        Weights.load(tmp_path / "folder.npz", CONFIG)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_an_unwritable_place_is_named_and_nothing_is_left(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(FileError, match="cannot write"):
        weights().save(tmp_path / "missing" / f"w{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    with pytest.raises(FileError, match="cannot write"):
        weights().save(tmp_path / f"folder{suffix}")
    assert contents_of(tmp_path) == [tmp_path / f"folder{suffix}"]


# Public backbones.


@pytest.mark.parametrize("prefix", ["", "backbone."])
@pytest.mark.parametrize(
    "head", ["SIM.0.conv.weight", "head.l.weight", "linear.bias", "decode_head.conv_seg.bias"]
)
def test_a_public_backbone_takes_the_place_of_the_seeded_one(tmp_path: Path, prefix: str, head: str) -> None:
    other = Weights.seeded(CONFIG, seed=1)
    arrays = {
        prefix + name.removeprefix("backbone."): array.astype(np.float64)
        for name, array in other.items()
        if name.startswith("backbone.")
    }
    arrays[head] = np.zeros(3)
    arrays[f"{prefix}tpm.stem.0.bn.num_batches_tracked"] = np.zeros((), np.int64)
    np.savez(tmp_path / "backbone.npz", **arrays)
    joined = Weights.load_backbone(tmp_path / "backbone.npz", CONFIG, rest=weights())
    assert set(joined) == set(weights())
    assert joined.dtype == np.float32
    for name, array in joined.items():
        assert np.array_equal(array, (other if name.startswith("backbone.") else weights())[name])


def test_a_backbone_of_another_size_lists_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "backbone.npz"
    arrays = {name: array for name, array in weights().items() if name.startswith("backbone.")}
    del arrays["backbone.tpm.stem.0.c.weight"]
    np.savez(path, **{**arrays, "backbone.tpm.extra": np.zeros(1, np.float32)})
    with pytest.raises(WeightsError) as caught:
        Weights.load_backbone(path, CONFIG, rest=weights())
    assert "missing backbone.tpm.stem.0.c.weight" in str(caught.value)
    assert "extra backbone.tpm.extra" in str(caught.value)


# Seeded weights.


def test_a_seed_gives_the_same_weights_again_and_another_seed_others() -> None:
    def digest(seed: int) -> str:
        made = Weights.seeded(CONFIG, seed)
        return hashlib.sha256(b"".join(array.tobytes() for array in made.values())).hexdigest()

    assert digest(0) == hashlib.sha256(b"".join(array.tobytes() for array in weights().values())).hexdigest()
    assert digest(0) != digest(1)


def test_seeded_weights_have_every_name_and_shape() -> None:
    made = Weights.seeded(CONFIG, 5)
    assert {name: array.shape for name, array in made.items()} == dict(parameter_shapes(CONFIG))
    assert made.dtype == np.float32


@pytest.mark.parametrize("seed", [-1, 1.5, "0"])
def test_an_impossible_seed_is_an_error(seed: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        Weights.seeded(CONFIG, seed)


@pytest.mark.parametrize("name", BACKBONES)
def test_activations_are_of_order_one_through_all_stages(name: str) -> None:
    """On the rendered picture that the batch norms are calibrated on."""
    config = MobileInstConfig.preset(name, **FIELDS)
    images, _ = preprocess(render_picture(*CALIBRATION_SIZE, seed=3), sizing="native", dtype=np.float32)
    recording = record(MobileInst(config, Weights.seeded(config, 3)), images)
    for path, tensor in {**recording.blocks, **recording.outputs}.items():
        size = np.sqrt(np.mean(recording.tensors[tensor] ** 2))
        assert 1 / 16 < size < 16, (path, size)


# Folding.


def test_folding_is_the_formula_of_batch_normalisation_after_a_convolution() -> None:
    """Against SciPy's correlation and the definition of the batch norm, in float64."""
    rng = np.random.default_rng(0)
    arrays = {
        "a.c.weight": rng.standard_normal((3, 2, 3, 3)),
        **{f"a.bn.{part}": rng.standard_normal(3) for part in ("weight", "bias", "running_mean")},
        "a.bn.running_var": rng.uniform(0.1, 2, 3),
    }
    x = rng.standard_normal((1, 2, 6, 7))
    kernel = arrays["a.c.weight"]
    convolved = np.stack([sum(correlate(x[0, i], kernel[o, i], "valid") for i in range(2)) for o in range(3)])
    gamma, beta, mean, variance = (
        arrays[f"a.bn.{part}"][:, None, None] for part in ("weight", "bias", "running_mean", "running_var")
    )
    expected = gamma * (convolved - mean) / np.sqrt(variance + 1e-5) + beta
    folded = fold_batch_norm(arrays)
    assert folded.keys() == {"a.c.weight", "a.c.bias"}
    result = ops.conv(x, folded["a.c.weight"], folded["a.c.bias"])
    np.testing.assert_allclose(result[0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["topformer-tiny", "seaformer-tiny", "table5/fpn-1conv"])
def test_the_folded_network_is_the_network(name: str) -> None:
    config = MobileInstConfig.preset(name, **FIELDS)
    made = Weights.seeded(config, 0).astype(np.float64)
    images = picture().astype(np.float64)
    folded = MobileInst(config, made.folded())
    plain = dict(MobileInst(config, made)(images).items())
    for field, values in folded(images).items():
        scale = np.abs(plain[field]).max()
        assert np.abs(values - plain[field]).max() <= 1e-12 * max(1.0, scale), field
    assert not any(".running_" in weight for weight in made.folded())
    assert not any(step.operation == "BatchNormalization" for step in record(folded, images).steps)


def test_every_batch_norm_follows_a_convolution_of_as_many_channels() -> None:
    for name in BACKBONES:
        shapes = parameter_shapes(MobileInstConfig.preset(name, **FIELDS))
        pairs = batch_norms(shapes)
        assert len(set(pairs.values())) == len(pairs) > 50
        for norm, convolution in pairs.items():
            assert shapes[f"{convolution}.weight"][0] == shapes[f"{norm}.weight"][0]


def test_folding_leaves_the_weights_alone_and_twice_is_once() -> None:
    before = {name: array.copy() for name, array in weights().items()}
    folded = weights().folded()
    assert all(np.array_equal(array, before[name]) for name, array in weights().items())
    assert folded.folded().keys() == folded.keys()


# Images.


@pytest.mark.parametrize("shape", [(3, 64, 96), (1, 4, 64, 96), (0, 3, 64, 96), (1, 3, 0, 96)])
def test_impossible_images_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="expected"):
        network()(np.zeros(shape, np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_images_that_are_not_finite_are_named(value: float) -> None:
    images = np.zeros((1, 3, *SIZE), np.float32)
    images[0, 1, 2, 3] = value
    with pytest.raises(NonFiniteError):
        network()(images)
    with pytest.raises(NonFiniteError):
        record(network(), images)


# Checkpoints of PyTorch.


@pytest.mark.runtimes
@pytest.mark.parametrize("wrapping", [None, "state_dict", "model"])
@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_a_pytorch_checkpoint_is_read(tmp_path: Path, wrapping: str | None, suffix: str) -> None:
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(array.copy()) for name, array in weights().items()}
    state["backbone.tpm.stem.0.bn.num_batches_tracked"] = torch.tensor(3)
    path = tmp_path / f"w{suffix}"
    torch.save(state if wrapping is None else {wrapping: state, "epoch": 3}, path)
    loaded = Weights.load(path, CONFIG)
    assert all(np.array_equal(array, weights()[name]) for name, array in loaded.items())
    assert loaded.keys() == weights().keys()


@pytest.mark.runtimes
@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_pickle_is_refused_unexecuted(tmp_path: Path, legacy: bool) -> None:
    torch = pytest.importorskip("torch")

    class Malicious:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "executed"),))

    path = tmp_path / "w.pth"
    torch.save({"weight": Malicious()}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(FileError, match=r"w\.pth") as caught:
        Weights.load(path, CONFIG)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


@pytest.mark.runtimes
def test_what_is_no_state_dict_is_a_named_error(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    contents: list[Any] = [
        torch.zeros(3),
        {"a": 1},
        [torch.zeros(3)],
        {},
        {"state_dict": 3},
        {1: torch.zeros(2)},
    ]
    for content in contents:
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises((FileError, WeightsError)):
            Weights.load(tmp_path / "w.pth", CONFIG)
    (tmp_path / "w.pth").write_bytes(b"no pickle")
    with pytest.raises(FileError):
        Weights.load(tmp_path / "w.pth", CONFIG)
    state = {name: torch.from_numpy(array.copy()).to(torch.bfloat16) for name, array in weights().items()}
    torch.save(state, tmp_path / "w.pth")
    assert Weights.load(tmp_path / "w.pth", CONFIG).dtype == np.float32


@pytest.mark.runtimes
@pytest.mark.parametrize("zipped", [False, True])
def test_a_tensor_larger_than_its_checkpoint_is_refused(tmp_path: Path, zipped: bool) -> None:
    torch = pytest.importorskip("torch")
    endless = torch.zeros(1).expand(10**6, 10**6)
    path = tmp_path / "w.pth"
    torch.save({"endless": endless}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(FileError, match="endless claims shape"):
        Weights.load(path, CONFIG)


@pytest.mark.runtimes
def test_a_checkpoint_that_inflates_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a/data/0", "w") as member:
        for _ in range(257):
            member.write(bytes(2**20))
    with pytest.raises(FileError, match="inflates"):
        Weights.load(path, CONFIG)


@pytest.mark.runtimes
def test_an_archive_that_claims_several_disks_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data/0", b"0")
    content = path.read_bytes()
    end = content.rindex(b"PK\5\6")
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, 0, 2)
    path.write_bytes(content[:end] + locator + content[end:])
    with pytest.raises(FileError, match="damaged"):
        Weights.load(path, CONFIG)


@given(st.floats(-1e30, 1e30, allow_subnormal=False), st.integers(2, 20))
def test_statistics_are_the_nearest_numbers_of_so_many_bits(value: float, bits: int) -> None:
    """By exact fractions: of so many bits, and none such is nearer."""
    if abs(value) < 1e-30:
        value = 0.0
    (found,) = _round_to_bits(np.array([value]), bits)
    exact, rounded = Fraction(value), Fraction(float(found))
    exponent = math.frexp(value)[1]
    unit = Fraction(2) ** (exponent - bits)
    assert (rounded / unit).denominator == 1
    assert abs(rounded - exact) <= unit / 2
