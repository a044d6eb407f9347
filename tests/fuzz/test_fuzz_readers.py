"""Every reader on damaged files: what it returns is right, or the error has a name; nothing else happens.

Seeded, so a failure comes again, with as little damage as brings it. `make fuzz` runs many times as many and
prints how they ended. A file that carries a hash must be read as it was or not at all.
"""

from __future__ import annotations

import io
import json
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tnn_data
from onnx import TensorProto, helper
from PIL import Image
from safetensors.numpy import save

from conformance.candidates.dumps import read_dumps
from conformance.conversion.executorch_graph import executorch_graph
from conformance.conversion.executorch_model import read_executorch
from conformance.conversion.mnn_graph import mnn_graph
from conformance.conversion.mnn_model import read_mnn
from conformance.conversion.ncnn_graph import ncnn_graph
from conformance.conversion.ncnn_model import read_ncnn
from conformance.evaluation import ytvis
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge import envelope_cache, weights_cache
from conformance.pictures.graph_inputs import read_array
from conformance.pictures.picture import read_network_input, read_picture
from conformance.reproduction.recorded_step import NOTE, RecordedStep
from conformance.tnn.archive import dump_folder
from conformance.tnn.model import read_model
from conformance.tnn.proto import read_proto
from conformance.tnn.text import read_check, read_dump, read_input, read_output, write_check
from conformance.video.frames import open_video
from conformance.video.results import TrackLog, video_results
from golden.store import integrity_problems, read_manifest
from refimpl.errors import MobileInstError
from refimpl.weights import read_arrays

CASES = int(os.environ.get("MOBILEINST_FUZZ_CASES", "20000"))
LONGEST = 20.0
"""Seconds that one small file may take, on a busy machine."""
DATA = Path(__file__).parents[1] / "data"
IMAGES = np.zeros((1, 3, 32, 32), np.float16)
ARRAYS = {"a": np.arange(24, dtype=np.float32).reshape(2, 3, 4), "b": np.ones(3, np.int64)}


@dataclass(frozen=True)
class Reader:
    """What reads a file, the sound file to begin with, and whether any damage to it is noticed.

    Attributes
    ----------
    name
        The file's.
    content
        Makes the sound file's bytes.
    read
        Reads the file at a path.
    exact
        Whether what is read must be what the sound file holds.
    """

    name: str
    content: Callable[[], bytes]
    read: Callable[[Path], Any]
    exact: bool = False


# --- sound files ----------------------------------------------------------------------------------


def saved(write: Callable[[io.BytesIO], Any]) -> bytes:
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


def model() -> bytes:
    """Two operations with attributes, a constant and an initializer."""
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, 4, 4]) for name in "xy"]
    weight = onnx.numpy_helper.from_array(np.ones((2, 2, 3, 3), np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["m"], pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["m", "low"], ["y"]),
    ]
    low = onnx.numpy_helper.from_array(np.float32(0), "low")
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], [weight, low])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


def picture(form: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (9, 7, 3), np.uint8)
    return saved(lambda stream: Image.fromarray(pixels).save(stream, form))


def animation() -> bytes:
    frames = [Image.new("P", (8, 8), colour) for colour in (1, 2, 3)]
    return saved(lambda stream: frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:]))


TRUTH = {
    "videos": [{"id": 1, "height": 4, "width": 5, "length": 1}],
    "categories": [{"id": 1, "name": "a"}],
    "annotations": [
        {"id": 1, "video_id": 1, "category_id": 1, "iscrowd": 0,
         "segmentations": [{"size": [4, 5], "counts": [3, 7, 10]}]},
    ],
}  # fmt: skip
STATE = {
    "dtypes": {"queries": "int64", "kernels": "float64"}, "frame": 1, "keyframes": 1, "next_identity": 1,
    "queries": [0, 1], "kernels": [[0.5, 1.0], [1.5, 2.0]], "scores": [[0.1], [0.9]],
    "score_sums": [[0.1], [0.9]], "identities": [0, -1], "born": [0, -1],
}  # fmt: skip
FRAME = {
    "frame": 0, "keyframe": True, "tracks": [0], "slots": [0], "scores": [0.5], "labels": [0], "margin": None,
    "track_margins": [None], "seconds": 0.1, "segmentations": [{"size": [4, 5], "counts": "37:"}, None],
}  # fmt: skip


def text(document: object) -> Callable[[], bytes]:
    return lambda: json.dumps(document).encode()


def lines(document: object) -> Callable[[], bytes]:
    return lambda: json.dumps(document).encode() + b"\n"


def check_text() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write_check(Path(folder) / "check", ARRAYS)
        return (Path(folder) / "check").read_bytes()


def tar() -> bytes:
    import tarfile

    def write(stream: io.BytesIO) -> None:
        with tarfile.open(fileobj=stream, mode="w:gz") as archive:
            member = tarfile.TarInfo("dump/00000-a-in-0-b-dims-3.txt")
            member.size = 6
            archive.addfile(member, io.BytesIO(b"1 2 3\n"))

    return saved(write)


def recorded_note() -> bytes:
    step = RecordedStep("network", "y", "Relu", "float32", "float32", "cpu", 1e-6)
    with tempfile.TemporaryDirectory() as folder:
        return step.to_json(Path(folder)).encode()


ENVELOPE = {"logits": 1.5e-6, "masks": np.inf}


def written(write: Callable[[Path], Any]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "file")
        return (Path(folder) / "file").read_bytes()


def manifest() -> bytes:
    from golden import DATA

    document = json.loads((DATA / "manifest.json").read_bytes())
    return json.dumps({**document, "goldens": document["goldens"][:2]}).encode()


# --- readers --------------------------------------------------------------------------------------


def resumed(path: Path, other: str, content: bytes) -> Any:
    beside = path.parent / other
    beside.unlink(missing_ok=True)
    beside.write_bytes(content)
    log = TrackLog(path.parent)
    state = log.resume()
    return state and video_results(log, state, 1)


def unpacked(path: Path) -> list[str]:
    with dump_folder(path) as folder:
        return [file.read_text(errors="replace") for file in folder.iterdir()]


def truth_and_results(path: Path) -> Any:
    from conformance.json_files import read_json

    truth = ytvis.parse_ground_truth(read_json(path), path)
    found = [{"video_id": 1, "category_id": 1, "score": 0.5, "segmentations": [None]}]
    return ytvis.parse_results(found, truth)


def golden_set(path: Path) -> Any:
    return [integrity_problems(entry) for entry in read_manifest(path.parent)]


def arrays_of(arrays: dict[str, np.ndarray]) -> dict[str, list[Any]]:
    return {name: array.tolist() for name, array in arrays.items()}


def mnn(path: Path) -> OnnxGraph:
    """Read a model of MNN as the graph that it means."""
    return OnnxGraph.load(mnn_graph(read_mnn(path), {"x": (1, 4, 8, 12)}, ["y", "z", "mean"]))


def executorch(path: Path) -> OnnxGraph:
    """Read a program of ExecuTorch as the graph that it means."""
    return OnnxGraph.load(executorch_graph(read_executorch(path), {"x": (1, 4, 8, 12)}, ["y", "mean"]))


def ncnn(path: Path) -> OnnxGraph:
    """Read one of ncnn's two files, and the other, sound, as the graph that they mean."""
    other = ".bin" if path.suffix == ".param" else ".param"
    if not path.with_suffix(other).exists():
        sound = (DATA / "ncnn" / path.parent.name).with_suffix(other)
        path.with_suffix(other).write_bytes(sound.read_bytes())
    layers, shape = read_ncnn(path.with_suffix(".param")), (1, 3, 16, 16)
    return OnnxGraph.load(ncnn_graph(layers, {"x": shape}, ["m", "k", "s", "p"], as_it_runs=True))


def tnn(suffix: str) -> Callable[[], bytes]:
    return lambda: tnn_data.file(tnn_data.graph_names()[0], suffix).read_bytes()


READERS = (
    Reader("a.npy", lambda: saved(lambda s: np.save(s, ARRAYS["a"])), read_array),
    Reader("input.npy", lambda: saved(lambda s: np.save(s, IMAGES)), read_network_input),
    Reader("a.npz", lambda: saved(lambda s: np.savez(s, **ARRAYS)), read_arrays),
    Reader("b.npz", lambda: saved(lambda s: np.savez_compressed(s, **ARRAYS)), read_arrays),
    Reader("a.safetensors", lambda: save(ARRAYS), read_arrays),
    Reader("dumps/a.txt", lambda: b"# 2 3\n1 2 3\n4 5.5 nan\n", lambda path: read_dumps(path.parent)),
    Reader("a.onnx", model, OnnxGraph.load),
    *(
        Reader(f"{name}/a.mnn", (DATA / "mnn" / f"{name}.mnn").read_bytes, mnn)
        for name in ("small", "small8", "small8-static")
    ),
    *(
        Reader(f"{name}/a{suffix}", (DATA / "ncnn" / f"{name}{suffix}").read_bytes, ncnn)
        for name in ("small", "small8")
        for suffix in (".param", ".bin")
    ),
    *(
        Reader(f"{name}/a.pte", (DATA / "executorch" / f"{name}.pte").read_bytes, executorch)
        for name in (
            *("small", "small-xnnpack", "small-xnnpack-whole", "small8", "small8-xnnpack"),
            *("small8-dynamic", "small8-dynamic-xnnpack"),
        )
    ),
    Reader("a.png", lambda: picture("PNG"), read_picture),
    Reader("a.jpg", lambda: picture("JPEG"), read_picture),
    Reader("a.webp", lambda: picture("WEBP"), read_picture),
    Reader("a.bmp", lambda: picture("BMP"), read_picture),
    Reader("a.ppm", lambda: picture("PPM"), read_picture),
    Reader("a.tiff", lambda: picture("TIFF"), read_picture),
    Reader("a.gif", animation, lambda path: list(open_video(path).frames())),
    Reader("truth.json", text(TRUTH), truth_and_results),
    Reader("s/state.json", text(STATE), lambda path: resumed(path, "frames.jsonl", lines(FRAME)())),
    Reader("f/frames.jsonl", lines(FRAME), lambda path: resumed(path, "state.json", text(STATE)())),
    Reader("m/manifest.json", manifest, golden_set),
    Reader("a.tnnproto", tnn(".tnnproto"), read_proto),
    Reader("a.tnnmodel", tnn(".tnnmodel"), read_model),
    Reader("in.txt", lambda: b"1 2 3 4 5 6\n", lambda path: read_input(path, {"x": (2, 3)})),
    Reader("a.out", tnn(".NAIVE.out"), read_output),
    Reader("check.txt", check_text, read_check),
    Reader("00000-a-in-0-b-dims-2-3.txt", lambda: b"1\n2\n3\n4\n5\n6\n", read_dump),
    Reader("a.tar.gz", tar, unpacked),
    Reader(f"r/{NOTE}", recorded_note, lambda path: RecordedStep.read(path.parent), exact=True),
    Reader("envelope.json", lambda: written(lambda p: envelope_cache._write(p, "key", ENVELOPE)),
           lambda path: envelope_cache._read(path, "key", ENVELOPE), exact=True),
    Reader("a.weights", lambda: written(lambda p: weights_cache._write(p, ARRAYS)),
           lambda path: arrays_of(weights_cache._read(path)), exact=True),
)  # fmt: skip
ANY_ERROR = ("a.weights",)
"""Read only by what makes them anew, whatever the error."""

# --- damage ---------------------------------------------------------------------------------------

TELLING = [
    b"\0", b"\xff", b"\xff\xff\xff\x7f", b"\xff" * 8, b"\0" * 64, b"-1", b"1e999", b"NaN", b"[" * 3000,
    b"null", b"9" * 30, b"../", b'"', b"{}", b"\n", b" ", b"\x1b[2J", b"{'a': ", b"True", b"\xe2\x80\xae",
]  # fmt: skip
KINDS = ("flip", "put", "insert", "cut", "end", "twice")
Damage = tuple[str, float, Any]


def drawn(source: random.Random) -> list[Damage]:
    """Return one to four damages: what is done, where, and by what; often one, and often at either end."""
    return [_damage(source, source.choice(KINDS)) for _ in range(source.choice((1, 1, 2, 3, 4)))]


def _damage(source: random.Random, kind: str) -> Damage:
    where = source.choice((0.0, 1.0, *(source.random() for _ in range(8))))
    if kind in ("put", "insert"):
        few = source.randbytes(source.randint(1, 8))
        return kind, where, source.choice([few, source.choice(TELLING)])
    least, most = {"flip": (0, 7), "cut": (1, 64), "end": (0, 0), "twice": (1, 256)}[kind]
    return kind, where, source.randint(least, most)


def fewest(damages: list[Damage], fails: Callable[[list[Damage]], bool]) -> list[Damage]:
    """Return as few of the damages as still fail."""
    for place in range(len(damages)):
        fewer = [*damages[:place], *damages[place + 1 :]]
        if fewer and fails(fewer):
            return fewest(fewer, fails)
    return damages


def damaged(content: bytes, damages: list[Damage]) -> bytes:
    """Return the bytes with each damage done to them."""
    for kind, where, what in damages:
        at = int(where * len(content))
        head, tail = content[:at], content[at:]
        if kind == "flip" and tail:
            content = head + bytes([tail[0] ^ 1 << what]) + tail[1:]
        elif kind == "put":
            content = head + what + tail[len(what) :]
        elif kind == "insert":
            content = head + what + tail
        elif kind == "cut":
            content = head + tail[what:]
        elif kind == "end":
            content = head
        elif kind == "twice":
            content = head + tail[:what] * 2 + tail[what:]
    return content


def outcome(reader: Reader, path: Path, content: bytes, sound: Any) -> str:
    """Return how reading ended; raise unless it may end so."""
    path.unlink()  # Linux waits for the disk where a file is cut to nothing and written anew.
    path.write_bytes(content)
    start = time.process_time()
    try:
        found = reader.read(path)
    except MobileInstError as error:
        ended = type(error).__name__
    except Exception as error:
        if reader.name not in ANY_ERROR:
            raise
        ended = type(error).__name__
    else:
        assert not reader.exact or found == sound
        ended = "read"
    assert time.process_time() - start < LONGEST
    return ended


def fuzz(reader: Reader, folder: Path, cases: int) -> None:
    """Read so many damaged files, and print how that ended."""
    path, content = folder / reader.name, reader.content()
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    sound = reader.read(path)
    source, ended = random.Random(12), Counter[str]()

    def fails(damages: list[Damage]) -> bool:
        try:
            ended[outcome(reader, path, damaged(content, damages), sound)] += 1
        except Exception:
            return True
        return False

    for _ in range(max(cases, 1)):
        damages = drawn(source)
        if fails(damages):
            damages = fewest(damages, fails)
            print(f"damaged by {damages}")
            outcome(reader, path, damaged(content, damages), sound)
    print(f"| {reader.name} | {ended.total()} | {', '.join(f'{n} {k}' for k, n in ended.most_common())} |")
    assert ended.total() >= cases * 0.9
    assert len(ended) > 1


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
@pytest.mark.filterwarnings("ignore")
def test_damaged_files(reader: Reader, tmp_path: Path) -> None:
    fuzz(reader, tmp_path, CASES // len(READERS))


def checkpoint() -> bytes:
    import torch

    return saved(lambda stream: torch.save({"a": torch.ones(2, 3)}, stream))


def film() -> bytes:
    import av

    def write(path: Path) -> None:
        with av.open(str(path), "w", format="mp4") as container:
            stream = container.add_stream("mpeg4", rate=5)
            stream.width = stream.height = 32
            for shade in (0, 99, 200):
                frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), shade, np.uint8), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())

    return written(write)


@pytest.mark.runtimes
@pytest.mark.parametrize(
    "reader",
    [
        Reader("a.pth", checkpoint, read_arrays),
        Reader("a.mp4", film, lambda path: [frame.tolist() for frame in open_video(path).frames()]),
    ],
    ids=lambda reader: reader.name,
)
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_of_optional_libraries(reader: Reader, tmp_path: Path) -> None:
    fuzz(reader, tmp_path, CASES // len(READERS))
