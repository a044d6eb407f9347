"""Small files that claim much are refused before memory is taken; so are files that start programs."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from PIL import Image

import refimpl.weights.files
from conformance.graph.onnx_file import read_model
from conformance.json_files import parse_json, read_json
from conformance.limits import MOST_BYTES, check_size
from conformance.pictures.graph_inputs import read_array
from conformance.pictures.picture import FORMATS, read_picture
from conformance.video.frames import open_video
from conformance.video.results import TrackLog
from refimpl.errors import FileError
from refimpl.weights import read_arrays

# --- totals ---------------------------------------------------------------------------------------


@given(st.integers(-(10**12), 10**12), st.integers(0, 10**12))
def test_a_claim_is_of_a_gibibyte_or_of_what_is_there(claimed, present):
    fits = 0 <= claimed <= max(MOST_BYTES, present)
    try:
        check_size(claimed, "x", present)
    except FileError:
        assert not fits
    else:
        assert fits


def bomb(path: Path, members: int) -> None:
    """Each member small enough on its own."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for index in range(members):
            with archive.open(f"{index}.npy", "w", force_zip64=True) as file:
                fields = {"descr": "|u1", "fortran_order": False, "shape": (2**18,)}
                np.lib.format.write_array_header_1_0(file, fields)
                file.write(bytes(2**18))


def test_many_members_count_together(tmp_path, monkeypatch):
    monkeypatch.setattr(refimpl.weights.files, "LARGEST_TOTAL", 2**20)
    bomb(tmp_path / "few.npz", 3)
    bomb(tmp_path / "many.npz", 5)
    assert len(read_arrays(tmp_path / "few.npz")) == 3
    with pytest.raises(FileError, match="in total"):
        read_arrays(tmp_path / "many.npz")


LIMITED = """
import resource, sys
from refimpl.weights import read_arrays
from refimpl.errors import FileError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_arrays(sys.argv[1])
except FileError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_bomb_takes_no_memory(tmp_path):
    bomb(tmp_path / "bomb.npz", 4100)
    assert (tmp_path / "bomb.npz").stat().st_size < 10_000_000
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "bomb.npz")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 100_000 * (1024 if sys.platform == "darwin" else 1)


def external_model(folder: Path, tensors: int, size: int) -> Path:
    """A model whose tensors all name the same bytes."""
    (folder / "data").write_bytes(bytes(size))
    weights = []
    for index in range(tensors):
        weight = TensorProto(name=f"w{index}", data_type=TensorProto.UINT8, dims=[size])
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value="data")
        weights.append(weight)
    output = helper.make_tensor_value_info("y", TensorProto.UINT8, [size])
    graph = helper.make_graph([helper.make_node("Identity", ["w0"], ["y"])], "g", [], [output], weights)
    path = folder / "model.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    return path


def test_external_data_named_often_counts_often(tmp_path, monkeypatch):
    monkeypatch.setattr("conformance.limits.MOST_BYTES", 2**20)
    assert len(read_model(external_model(tmp_path, 4, 2**18)).graph.initializer) == 4
    assert len(read_model(external_model(tmp_path, 1, 2**22)).graph.initializer) == 1
    with pytest.raises(FileError, match=r"external data: claims 1310720 bytes in total"):
        read_model(external_model(tmp_path, 5, 2**18))


@pytest.mark.parametrize("location", ["a\0b", "x" * 5000, "", "..", "/etc/passwd", "../data", "circle"])
def test_external_data_with_a_name_that_is_none(location, tmp_path):
    path = external_model(tmp_path, 1, 16)
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data[0].value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(FileError, match="external data") as raised:
        read_model(path)
    assert len(str(raised.value)) < 6000


def nested(depth: int, circle: bool = False) -> onnx.ModelProto:
    """Functions each of which calls the one before twice."""
    opset = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    functions = []
    for level in range(depth):
        below = ("own", f"f{level - 1}") if level else (("own", f"f{depth - 1}") if circle else ("", "Relu"))
        nodes = [
            helper.make_node(below[1], ["x"], ["m"], domain=below[0]),
            helper.make_node(below[1], ["m"], ["y"], domain=below[0]),
        ]
        functions.append(helper.make_function("own", f"f{level}", ["x"], ["y"], nodes, opset))
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    node = helper.make_node(f"f{depth - 1}", ["x"], ["y"], domain="own")
    graph = helper.make_graph([node], "g", infos[:1], infos[1:])
    return helper.make_model(graph, functions=functions, opset_imports=opset)


def test_functions_of_functions_of_functions():
    assert len(read_model(nested(6)).graph.node) == 64
    for model in (nested(40), nested(4000)):
        with pytest.raises(FileError, match="more than 1000000 nodes"):
            read_model(model)
    with pytest.raises(FileError, match="calls itself"):
        read_model(nested(5, circle=True))


# --- arrays and JSON ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000,), }",
        "{'descr': '|S1000000000', 'fortran_order': False, 'shape': (), }",
        "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 10000000000000000000000000), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': ('a',), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), ",
        "(" * 5000,
        "'''",
    ],
)
def test_a_header_of_an_array_that_lies(text, tmp_path):
    header = text.encode() + b"\n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64)
    (tmp_path / "a.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", content)
    for read in (lambda: read_array(tmp_path / "a.npy"), lambda: read_arrays(tmp_path / "a.npz")):
        with pytest.raises(FileError):
            read()


@pytest.mark.parametrize(
    "text",
    ["NaN", "[Infinity]", '{"a": -Infinity}', "1e999", "[" * 100_000, "9" * 5000, "\xff", "", '"\\ud8', "{"],
)
def test_json_that_is_none(text, tmp_path):
    (tmp_path / "a.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(FileError, match=r"a\.json") as raised:
        read_json(tmp_path / "a.json")
    assert len(str(raised.value)) < 500


LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)


@given(st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_that_is_some(value):
    assert parse_json(json.dumps(value), "x") == value


# --- pictures and videos --------------------------------------------------------------------------


def test_pictures_of_other_formats_start_no_program(tmp_path, monkeypatch):
    path = tmp_path / "a.eps"
    Image.new("RGB", (8, 8)).save(path, "EPS")
    started = []
    monkeypatch.setattr(subprocess, "check_call", lambda *a, **k: started.append(a))
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(a))
    for name in ("a.eps", "b.png"):
        (tmp_path / name).write_bytes(path.read_bytes())
        with pytest.raises(FileError, match=r"give a whole file of PNG, JPEG"):
            read_picture(tmp_path / name)
    assert started == []


@pytest.mark.runtimes
def test_a_video_that_is_a_picture_starts_no_program(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(subprocess, "check_call", lambda *a, **k: started.append(a))
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(a))
    for name in ("a.eps", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name, "EPS")
        with pytest.raises(FileError):
            next(open_video(tmp_path / name).frames())
    assert started == []


@pytest.mark.parametrize("form", FORMATS)
def test_the_formats_listed_are_read(form, tmp_path):
    pixels = np.full((8, 8, 3), 200, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture", form)
    assert np.abs(read_picture(tmp_path / "picture").astype(int) - 200).max() <= 2


def test_a_picture_of_many_pixels(tmp_path):
    (tmp_path / "a.ppm").write_bytes(b"P6 1000000 1000000 255\n" + bytes(100))
    with pytest.raises(FileError, match="pixels"):
        read_picture(tmp_path / "a.ppm")


@pytest.mark.runtimes
@pytest.mark.parametrize("text", [
    "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{film}\n#EXT-X-ENDLIST\n",
    "ffconcat version 1.0\nfile '{film}'\n",
    "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
])  # fmt: skip
def test_a_video_that_names_other_files_is_refused(text, tmp_path):
    import av

    film = tmp_path / "film.mp4"
    with av.open(str(film), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 64
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert len(list(open_video(film).frames())) == 3
    for name in ("list.mp4", "list.m3u8", "list.ffconcat"):
        (tmp_path / name).write_text(text.format(film=film))
        with pytest.raises(FileError, match="not a readable video"):
            open_video(tmp_path / name)


# --- a tracker's state ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"dtypes": {"scores": "S1000000000"}},
        {"dtypes": {"scores": "object"}},
        {"dtypes": []},
        {"frame": 10**30},
        {"frame": -1},
        {"frame": 1.5},
        {"queries": [10**30]},
        {"kernels": [["a"]]},
        {"kernels": [[1], [1, 2]]},
        {"kernels": 3},
        {"more": 1},
    ],
)
def test_a_state_that_lies(change, tmp_path):
    state = {"dtypes": {}, "frame": 0, "keyframes": 0, "next_identity": 0, "queries": [], "kernels": [],
             "scores": [], "score_sums": [], "identities": [], "born": []}  # fmt: skip
    (tmp_path / "state.json").write_text(json.dumps(state))
    assert TrackLog(tmp_path).resume() is not None
    (tmp_path / "state.json").write_text(json.dumps({**state, **change}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FileError, match=r"state\.json"):
        TrackLog(tmp_path).resume()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
