"""TNN's text: real files come back byte for byte, damaged ones are named errors, and reading is fast."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from tnn_data import file, graph_names, unpacked

from conformance.tnn.text import (
    parse_dump_name,
    read_check,
    read_check_folder,
    read_dump,
    read_input,
    read_output,
    write_check,
    write_dump,
    write_input,
    write_output,
)
from refimpl.errors import FileError, NonFiniteError

OUTPUT = "2\na mat_type: 32 dims: 2 1 2\nb mat_type: 33 dims: 1 3\n0.500000\n-nan\n1\n2\n3\n"
CHECK = "2\na 2 1 2 0\n0.5\n-nan\nb 1 3 3\n1\n2\n3\n"


@pytest.mark.parametrize("name", graph_names())
def test_real_outputs_come_back_byte_for_byte(name, tmp_path):
    write_output(tmp_path / "out", read_output(file(name, ".NAIVE.out")))
    assert (tmp_path / "out").read_bytes() == file(name, ".NAIVE.out").read_bytes()


@pytest.mark.parametrize("name", ["mha.mc_in.txt", "mha.mc_ref.txt"])
def test_real_model_check_text_comes_back_byte_for_byte(name, tmp_path):
    source = unpacked("mha_dumps") / "model_check" / name
    write_check(tmp_path / "again", read_check(source))
    assert (tmp_path / "again").read_bytes() == source.read_bytes()


def test_real_model_check_values_are_those_it_was_given():
    folder = unpacked("mha_dumps") / "model_check"
    reference = read_check(folder / "mha.mc_ref.txt")["y"]
    cpu, device = read_check_folder(folder / "mc_do", {"y": reference.shape})["y"]
    np.testing.assert_allclose(cpu, reference, rtol=5e-6, atol=2e-6)
    np.testing.assert_allclose(device, reference, rtol=5e-6, atol=2e-6)
    with pytest.raises(FileError, match=r"cpu_z.txt: cannot be read"):
        read_check_folder(folder / "mc_do", {"z": (1,)})


def test_real_dumps_come_back_byte_for_byte(tmp_path):
    paths = sorted((unpacked("mha_dumps") / "mha_dumps").rglob("*.txt"))
    assert len(paths) > 100
    for path in paths:
        name = parse_dump_name(path.name)
        assert name.file_name == path.name
        write_dump(tmp_path, name, read_dump(path))
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_values_are_those_numpy_reads():
    np.testing.assert_array_equal(
        read_output(file("mha", ".NAIVE.out"))["y"].ravel(),
        np.loadtxt(file("mha", ".NAIVE.out"), skiprows=2, dtype=np.float32),
    )


@given(arrays(np.float32, array_shapes(max_dims=4), elements=st.floats(width=32, allow_infinity=False)))
def test_check_text_gives_every_float32_back(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("check") / "blobs.txt"
    write_check(path, {"x": values})
    np.testing.assert_array_equal(read_check(path)["x"], values)


def test_input_text_gives_every_float32_back(tmp_path):
    values = np.random.default_rng(0).standard_normal((1, 3, 4, 5)).astype(np.float32) * 1e-7
    write_input(tmp_path / "in", {"x": values})
    np.testing.assert_array_equal(read_input(tmp_path / "in", {"x": values.shape})["x"], values)


def test_several_inputs_read_the_same_file_from_its_start(tmp_path):
    values = np.arange(6, dtype=np.float32)
    write_input(tmp_path / "in", {"a": values, "b": values[:4].reshape(2, 2)})
    found = read_input(tmp_path / "in", {"a": (6,), "b": (2, 2)})
    np.testing.assert_array_equal(found["a"], values)
    np.testing.assert_array_equal(found["b"], values[:4].reshape(2, 2))
    with pytest.raises(FileError, match="prefix"):
        write_input(tmp_path / "in", {"a": values, "b": values[1:4]})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_input_that_would_end_parsing_is_refused(bad, tmp_path):
    with pytest.raises(NonFiniteError, match="stop reading"):
        write_input(tmp_path / "in", {"x": np.array([1.0, bad])})
    assert list(tmp_path.iterdir()) == []


def test_nan_is_a_value(tmp_path):
    (tmp_path / "out").write_text(OUTPUT.replace("0.500000", "inf"))
    found = read_output(tmp_path / "out")
    np.testing.assert_array_equal(found["a"], np.array([[np.inf, np.nan]], np.float32))
    assert found["b"].dtype == np.int32
    (tmp_path / "check").write_text(CHECK)
    np.testing.assert_array_equal(read_check(tmp_path / "check")["a"], np.array([[0.5, np.nan]], np.float32))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("1\n2\n3\n", "1\n2\n", "4 numbers, expected 5; the file is too short"),
        ("1\n2\n3\n", "1\n2\n3\n4\n", "6 numbers, expected 5; the file is too long"),
        ("1\n2\n3\n", "1\n2.5\n3\n", "integers"),
        ("1\n2\n3\n", "1\nnan\n3\n", "integers"),
        ("-nan", "no", r"byte 9: 'no' is no number"),
        ("-nan", "1,5", "is no number"),
        ("0.500000\n", "0.500000", "is no number"),
        ("mat_type: 32", "mat_type: 7", "mat_type 7"),
        ("dims: 2 1 2", "dims: 2 1 3", "too short"),
        ("dims: 2 1 2", "dims: 3 1 2", "rank 3, but 2 dimensions"),
        ("dims: 2 1 2", "dims: 2 99999 99999", "more elements"),
        ("dims: 2 1 2", "dims: 2 1 99999999999", "more elements"),
        ("b mat_type", "a mat_type", "twice"),
        ("2\na", "3\na", "line 4 is"),
        ("2\na", "x\na", "number of blobs"),
        ("2\na", "0\na", "number of blobs"),
        (OUTPUT, "", "empty"),
    ],
)
def test_damaged_outputs_are_named(old, new, message, tmp_path):
    assert old in OUTPUT
    (tmp_path / "out").write_text(OUTPUT.replace(old, new))
    with pytest.raises(FileError, match=message):
        read_output(tmp_path / "out")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("1\n2\n3\n", "1\n2\n", "too short"),
        ("1\n2\n3\n", "1\n2\n3\n4\n", "left over"),
        ("a 2 1 2 0", "a 2 1 2 7", "dtype 7"),
        ("a 2 1 2 0", "a 3 1 2 0", "rank 3"),
        ("a 2 1 2 0", "a 2 1 3 0", "is no number"),
        ("b 1 3 3", "a 1 3 3", "twice"),
        ("0.5\n", "", "is no number|no numbers"),
        ("2\na", "1\na", "left over"),
        (CHECK, "\n", "empty"),
    ],
)
def test_damaged_model_check_text_is_named(old, new, message, tmp_path):
    assert old in CHECK
    (tmp_path / "check").write_text(CHECK.replace(old, new))
    with pytest.raises(FileError, match=message):
        read_check(tmp_path / "check")


def test_missing_short_and_unnamed_files_are_errors(tmp_path):
    with pytest.raises(FileError, match="cannot be read"):
        read_output(tmp_path / "absent")
    (tmp_path / "in").write_text("1 2 3")
    with pytest.raises(FileError, match="3 numbers, expected 4"):
        read_input(tmp_path / "in", {"x": (4,)})
    for name in ("x.txt", "00001-a-in-0-b.txt", "00001-a-up-0-b-dims-1.txt", "1-a-in-0-b-dims-1.txt"):
        with pytest.raises(FileError, match="no blob dump"):
            parse_dump_name(name)
    (tmp_path / "00001-a-in-0-b-dims-2-2.txt").write_text("1\n2\n3\n")
    with pytest.raises(FileError, match="3 numbers, expected 4"):
        read_dump(tmp_path / "00001-a-in-0-b-dims-2-2.txt")


def test_dump_names_with_dashes_in_layer_and_blob():
    name = parse_dump_name("00032-node-in-1-x-out-0-a-in-0-b-dims-1-10-32.txt")
    assert (name.index, name.dims) == (32, (1, 10, 32))
    assert name.file_name == "00032-node-in-1-x-out-0-a-in-0-b-dims-1-10-32.txt"


def test_reading_is_silent(tmp_path):
    values = np.random.default_rng(0).standard_normal(400_000).astype(np.float32)
    write_output(tmp_path / "out", {"x": values})
    write_check(tmp_path / "check", {"x": values})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path, read in ((tmp_path / "out", read_output), (tmp_path / "check", read_check)):
            np.testing.assert_allclose(read(path)["x"].reshape(-1), values, rtol=1e-5, atol=1e-6)
