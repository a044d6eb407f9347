"""The commands of videos: tracking, its interruption and bad input, evaluation, and the ONNX pair."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from narrow_network import CONFIG, OPTIONS, network, picture, weights
from PIL import Image
from typer.testing import CliRunner

from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate
from conformance.cli import app
from conformance.evaluation.ytvis import evaluate_files
from conformance.evidence.video_benchmark import operations_per_frame
from conformance.graph import onnx_export
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.network import verify
from conformance.judge.reuse_verification import KeyframeKernels, takes_kernels
from conformance.trackers.known_bad_trackers import KNOWN_BAD
from conformance.trackers.properties import properties
from conformance.video import tracking as video_tracking
from conformance.video.frames import open_video
from conformance.video.networks import NumpyNetwork, OnnxPair
from refimpl import MobileInst
from refimpl.errors import CandidateError, FileError, MobileInstError, ShapeError
from refimpl.model import KernelReuse
from refimpl.scenes import make_scene, render_frame

pytestmark = pytest.mark.usefixtures("small_backbones")

# The package's attributes of these names are the commands.
TRACK, CHECK = (importlib.import_module(f"conformance.cli.{name}") for name in ("track", "check_tracker"))
SIZE, FRAMES = (64, 96), 5
SCENE = make_scene(*SIZE, 1)
PICTURES = [render_frame(SCENE, frame).picture for frame in range(FRAMES)]
SMALL = [*OPTIONS, "--sizing", "native", "--birth", "0", "--death", "0"]


def mobileinst(*arguments):
    """Run a command; return its exit code and what it printed, errors raised by bad input included."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        assert isinstance(result.exception, MobileInstError), repr(result.exception)
        return 2, str(result.exception)
    return result.exit_code, result.output


@pytest.fixture
def folder(tmp_path):
    """A folder of frames whose names sort differently as text and as numbers."""
    place = tmp_path / "street"
    place.mkdir()
    for index, one in enumerate(PICTURES):
        Image.fromarray(one).save(place / f"frame{index + 8}.png")
    (place / "notes.txt").write_text("no picture")
    return place


def write_gif(path, pictures=PICTURES):
    first, *rest = [Image.fromarray(one) for one in pictures]
    first.save(path, save_all=True, append_images=rest)
    return path


def track(video, output, *arguments):
    return mobileinst("track", video, "--output", output, *SMALL, *arguments)


def results(folder):
    return json.loads((folder / "results.json").read_text())


# Frames.


def test_frames_of_a_folder_come_in_the_order_of_their_numbers(folder):
    video = open_video(folder)
    assert video.count == FRAMES
    assert all(np.array_equal(*pair) for pair in zip(video.frames(), PICTURES, strict=True))
    assert np.array_equal(next(video.frames(3)), PICTURES[3])


def test_frames_of_a_gif_are_pillows(tmp_path):
    path = write_gif(tmp_path / "a.gif")
    with Image.open(path) as gif:
        expected = []
        for index in range(gif.n_frames):
            gif.seek(index)
            expected.append(np.array(gif.convert("RGB")))
    assert np.array_equal(list(open_video(path).frames()), expected)
    assert np.array_equal(list(open_video(path).frames(2, 4)), expected[2:4])


@pytest.mark.runtimes
def test_frames_of_a_film_are_those_that_were_encoded(tmp_path):
    """FFV1 loses nothing but by the conversion of colours, which grey frames do not feel."""
    av = pytest.importorskip("av")
    grey = [np.repeat(one[:, :, :1], 3, axis=2) for one in PICTURES]
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "gray"
        for one in grey:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(one[:, :, 0].copy(), format="gray")))
        container.mux(stream.encode())
    video = open_video(tmp_path / "a.mkv")
    assert np.abs(np.subtract(list(video.frames()), grey, dtype=np.int64)).max() <= 1
    assert np.array_equal(next(video.frames(3)), list(video.frames())[3])
    (tmp_path / "b.mkv").write_bytes((tmp_path / "a.mkv").read_bytes()[:200])
    with pytest.raises(FileError, match=r"b\.mkv"):
        list(open_video(tmp_path / "b.mkv").frames())


@pytest.mark.parametrize("name", ["none.gif", "empty.gif", "text.gif", "folder"])
def test_no_video_is_named(tmp_path, name):
    (tmp_path / "empty.gif").touch()
    (tmp_path / "text.gif").write_text("GIF89a and no more")
    (tmp_path / "folder").mkdir()
    code, output = track(tmp_path / name, tmp_path / "out")
    assert code == 2
    assert name in output


def test_a_missing_pyav_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "a.mp4").write_bytes(b"film")
    code, output = track(tmp_path / "a.mp4", tmp_path / "out")
    assert (code, "video" in output, "pip install" in output) == (2, True, True)


# Tracking.


def test_the_files_of_a_tracked_video(folder, tmp_path):
    out = tmp_path / "out"
    code, output = track(folder, out, "--keyframe-interval", 2, "--animate", "--json", tmp_path / "r.json")
    assert code == 0, output
    told = json.loads((tmp_path / "r.json").read_text())
    assert [one["keyframe"] for one in told["frames"]] == [True, False, True, False, True]
    assert all(len(one["segmentations"]) == FRAMES for one in results(out))
    with Image.open(out / "contact_sheet.png") as sheet:
        columns, rows = sheet.width // SIZE[1], sheet.height // SIZE[0]
    assert columns * rows >= FRAMES > (rows - 1) * columns
    with Image.open(out / "tracks.gif") as gif:
        assert gif.n_frames == FRAMES
    for name in ("keyframe", "reused", "margin"):
        assert name in output


def test_equal_identities_have_equal_colours(tmp_path):
    """Drawn on black, every track of the demo has a colour of its own, the same in every frame."""
    assert mobileinst("track", "--demo", "--oracle", "--count", 4, "--output", tmp_path)[0] == 0
    log = video_tracking.TrackLog(tmp_path)
    colours: dict[int, set[tuple[int, ...]]] = {}
    for record in log.records():
        blank = np.zeros((192, 320, 3), np.uint8)
        drawn = video_tracking._drawn(record, blank)
        for identity, slot in zip(record["tracks"], record["slots"], strict=True):
            mask = video_tracking.coco_mask.decode(record["segmentations"][slot]).astype(bool)
            found, counts = np.unique(drawn[mask], axis=0, return_counts=True)
            colours.setdefault(identity, set()).add(tuple(found[counts.argmax()].tolist()))
    assert all(len(found) == 1 for found in colours.values())
    assert len(set.union(*colours.values())) == len(colours)


def test_the_demo_reaches_ap_100(tmp_path):
    code, output = mobileinst("track", "--demo", "--oracle", "--count", 8, "--output", tmp_path)
    assert (code, "AP 100.0" in output) == (0, True), output
    assert evaluate_files(tmp_path / "truth.json", tmp_path / "results.json").stats[0] == pytest.approx(1)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--keyframe-interval", "0"],
        ["--method", "sinkhorn"],
        ["--death", "0.9"],
        ["--size", "7x7"],
        ["--count", "0"],
        ["--demo"],
        ["--oracle"],
    ],
)
def test_bad_options_are_refused(folder, tmp_path, arguments):
    assert track(folder, tmp_path / "out", *arguments)[0] == 2


class Interrupting:
    """A network that is interrupted at one of its frames."""

    def __init__(self, at):
        self.network, self.left = NumpyNetwork(network()), at

    def keyframe(self, frame):
        return self._counted().keyframe(frame)

    def mask_features(self, frame):
        return self._counted().mask_features(frame)

    def _counted(self):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return self.network


@pytest.mark.parametrize("at", [0, 2, 4])
def test_an_interrupted_video_is_resumed_without_loss(folder, tmp_path, monkeypatch, at):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert track(folder, whole)[0] == 0
    with monkeypatch.context() as patched:
        patched.setattr(TRACK, "NumpyNetwork", lambda model: Interrupting(at))
        code, output = track(folder, parts)
    assert code == 130
    assert f"{at} finished frames" in output
    assert "--resume" in output
    assert track(folder, parts, "--resume")[0] == 0
    assert results(parts) == results(whole)


def test_only_the_same_run_is_resumed(folder, tmp_path):
    assert track(folder, tmp_path / "out", "--count", 4)[0] == 0
    code, output = track(folder, tmp_path / "out", "--resume", "--keyframe-interval", 2)
    assert (code, "keyframe_interval: 3 then, 2 now" in output) == (2, True)
    code, output = track(folder, tmp_path / "out", "--resume", "--seed", 1)
    assert (code, "network" in output) == (2, True)
    Image.fromarray(PICTURES[1]).save(folder / "frame8.png")
    assert "first_frame" in track(folder, tmp_path / "out", "--resume")[1]
    assert track(write_gif(tmp_path / "a.gif"), tmp_path / "new", "--resume")[0] == 0


def test_more_frames_can_be_asked_for_later_but_not_fewer(folder, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert track(folder, whole)[0] == 0
    assert track(folder, out, "--count", 4)[0] == 0
    assert track(folder, out, "--resume", "--count", 2)[0] == 2
    assert track(folder, out, "--resume")[0] == 0
    assert results(out) == results(whole)


# Bad frames.


def test_a_corrupt_frame_is_named_and_the_frames_before_it_are_kept(folder, tmp_path):
    whole = (folder / "frame10.png").read_bytes()
    (folder / "frame10.png").write_bytes(whole[: len(whole) // 2])
    code, output = track(folder, tmp_path / "out")
    assert code == 2
    for part in ("frame 2", "frame10.png", "2 frames before it are kept"):
        assert part in output
    assert {len(one["segmentations"]) for one in results(tmp_path / "out")} == {2}
    (folder / "frame10.png").write_bytes(whole)
    assert track(folder, tmp_path / "whole")[0] == 0
    assert track(folder, tmp_path / "out", "--resume")[0] == 0
    assert results(tmp_path / "out") == results(tmp_path / "whole")


def test_a_gif_cut_off_in_the_middle_is_named(tmp_path):
    path = write_gif(tmp_path / "a.gif")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    code, output = track(path, tmp_path / "out")
    assert code == 2
    assert "a.gif: frame " in output
    assert results(tmp_path / "out")


def test_frames_of_differing_size_are_named(folder, tmp_path):
    Image.fromarray(PICTURES[0][:, :-1]).save(folder / "frame11.png")
    code, output = track(folder, tmp_path / "out")
    assert code == 2
    for part in ("frame 3", "frame11.png", "64×95", "64×96", "3 frames before it are kept"):
        assert part in output


# Kernel reuse, in NumPy and in ONNX.


def test_mask_features_alone_are_those_of_the_whole_network():
    outputs = network(np.float64)(picture())
    assert np.array_equal(network(np.float64).mask_features(picture()), outputs.mask_features)
    reused = KernelReuse(network(np.float64), outputs.kernels)(picture())
    assert np.array_equal(reused["masks"], outputs.masks)


@pytest.mark.parametrize(
    "kernels", [np.zeros((5, 32)), np.zeros((1, 5, 31)), np.full((1, 5, 32), np.nan), np.zeros((1, 0, 32))]
)
def test_kernels_that_cannot_be_reused_are_refused(kernels):
    with pytest.raises(MobileInstError, match="kernels"):
        KernelReuse(network(), kernels)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The two graphs as the command writes them."""
    path = tmp_path_factory.mktemp("pair") / "phone.onnx"
    assert mobileinst("export", "--video", path, *OPTIONS, "--size", "64x96")[0] == 0
    return path.with_suffix(".keyframe.onnx"), path.with_suffix(".reuse.onnx")


def test_the_onnx_pair_tracks_as_numpy_does(folder, tmp_path, pair):
    assert track(folder, tmp_path / "numpy")[0] == 0
    code, output = mobileinst(
        "track", folder, "--output", tmp_path / "onnx", "--onnx", *pair, "--birth", 0, "--death", 0
    )
    assert code == 0, output
    code, output = mobileinst(
        "evaluate",
        "--compare",
        tmp_path / "numpy/results.json",
        tmp_path / "onnx/results.json",
        "--json",
        tmp_path / "c.json",
    )
    compared = json.loads((tmp_path / "c.json").read_text())
    assert compared["decisions_differ"] == 0, output
    assert compared["largest_score_difference"] < 1e-4
    assert compared["smallest_iou"] > 0.99


def test_the_onnx_pair_computes_what_numpy_does(pair):
    onnx, numpy = OnnxPair(*pair), NumpyNetwork(network())
    for name, tensor in vars(numpy.keyframe(picture())).items():
        np.testing.assert_allclose(getattr(onnx.keyframe(picture()), name), tensor, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(
        onnx.mask_features(picture()), numpy.mask_features(picture()), rtol=1e-3, atol=1e-3
    )


def test_other_models_are_no_pair(pair, tmp_path):
    with pytest.raises(CandidateError, match="mask_features"):
        OnnxPair(pair[1], pair[1])
    with pytest.raises(FileError, match=r"no\.onnx"):
        OnnxPair(pair[0], tmp_path / "no.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(FileError, match=r"text\.onnx"):
        OnnxPair(tmp_path / "text.onnx", pair[1])
    with pytest.raises(ShapeError, match="--size 64x96"):
        OnnxPair(*pair).keyframe(np.zeros((1, 3, 64, 64), np.float32))


def judged(path):
    graph = OnnxGraph.load(path)
    assert takes_kernels(graph)
    kernels = KeyframeKernels(CONFIG, weights())
    candidate = OnnxRuntimeCandidate(graph, others=kernels)
    return verify(candidate, CONFIG, weights(), {"scene": picture()}, part=kernels.reuse)


def test_the_reuse_graph_is_verified(pair):
    report = judged(pair[1])
    assert report.verdict == "pass"
    assert [row.name for row in report.leading.outputs] == ["mask_features", "masks"]


def test_a_reuse_graph_with_other_weights_fails():
    name = "mask_decoder.output.0.conv.weight"
    other = {**weights(), name: -weights()[name]}
    model = onnx_export.export_reuse(MobileInst(CONFIG, other), picture())
    report = judged(model)
    assert report.verdict == "fail"
    assert "mask_decoder.output.0" in report.leading.first_fault.step


def test_reuse_costs_what_the_stages_left_out_do_not():
    """T = 1 costs a whole forward; T → ∞ approaches the network without its instance decoder."""
    costs = [operations_per_frame(CONFIG, SIZE, interval) for interval in (1, 2, 4)]
    assert costs[0] > costs[1] > costs[2]
    # Linear in the share of keyframes.
    assert costs[0] - costs[1] == pytest.approx(2 * (costs[1] - costs[2]))


# Evaluation and properties.


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    place = tmp_path_factory.mktemp("demo")
    assert mobileinst("track", "--demo", "--oracle", "--count", 4, "--output", place)[0] == 0
    return place


def test_evaluation_writes_the_twelve_figures(demo, tmp_path):
    code, output = mobileinst(
        "evaluate",
        "ytvis",
        "--gt",
        demo / "truth.json",
        "--dt",
        demo / "results.json",
        "--json",
        tmp_path / "figures.json",
    )
    assert code == 0, output
    stats = json.loads((tmp_path / "figures.json").read_text())["stats"]
    assert len(stats) == 12
    assert stats[:3] == pytest.approx([1, 1, 1])


def changed(demo, tmp_path, change):
    """The exit code and message for results after a change."""
    document = results(demo)
    text = change(document)
    (tmp_path / "changed.json").write_text(text if isinstance(text, str) else json.dumps(document))
    return mobileinst("evaluate", "ytvis", "--gt", demo / "truth.json", "--dt", tmp_path / "changed.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document[1].update(video_id=9), "[1]: video_id 9"),
        (lambda document: document[2].update(category_id=9), "[2]: category_id 9"),
        (lambda document: document[0]["segmentations"].pop(), "[0]: segmentations"),
        (lambda document: document[0]["segmentations"][0].update(size=[1, 2]), "segmentations[0]"),
        (lambda document: json.dumps(document)[:-50], "cut off"),
    ],
)
def test_bad_results_are_named(demo, tmp_path, change, message):
    code, output = changed(demo, tmp_path, change)
    assert code == 2
    assert message in output
    assert "changed.json" in output


def test_ids_used_twice_are_named(demo, tmp_path):
    truth = json.loads((demo / "truth.json").read_text())
    truth["annotations"][1]["id"] = truth["annotations"][0]["id"]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    code, output = mobileinst(
        "evaluate", "ytvis", "--gt", tmp_path / "truth.json", "--dt", demo / "results.json"
    )
    assert (code, "annotations[1]" in output, "twice" in output) == (2, True, True)


def test_evaluation_needs_its_files(demo):
    assert mobileinst("evaluate")[0] == 2
    assert mobileinst("evaluate", "ytvis", "--gt", demo / "truth.json")[0] == 2
    assert mobileinst("evaluate", "voc", "--gt", demo / "truth.json", "--dt", demo / "results.json")[0] == 2


def test_the_reference_has_all_properties(tmp_path):
    code, output = mobileinst(
        "check-tracker", "--self", "--examples", 5, "--json", tmp_path / "properties.json"
    )
    told = json.loads((tmp_path / "properties.json").read_text())["properties"]
    assert code == 0, output
    assert all(one["holds"] and one["name"] in output for one in told)


def test_a_failing_command_gets_a_line_to_paste(tmp_path, monkeypatch):
    """A tracker that always answers the identity, and follows no videos."""
    few = [one for one in properties() if one.name in ("one_to_one", "identity", "streaming")]
    monkeypatch.setattr(CHECK, "properties", lambda *_: few)
    script = tmp_path / "tracker.py"
    script.write_text(
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    request = json.loads(line)\n"
        "    answer = {'permutation': list(range(len(request.get('previous', []))))}\n"
        "    print(json.dumps(answer if 'previous' in request else {'unsupported': 'video'}), flush=True)\n"
    )
    code, output = mobileinst("check-tracker", "--command", f"{sys.executable} {script}", "--examples", 20)
    assert code == 1
    pasted = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert {"op": "associate", "previous": [[1.0], [1.0]], "current": [[1.0]]} in pasted
    assert "1 properties hold, 1 fail, 1 could not be run" in output


def test_a_command_that_cannot_be_checked_is_refused():
    assert mobileinst("check-tracker")[0] == 2
    assert mobileinst("check-tracker", "--self", "--known-bad")[0] == 2
    assert "no-such-program" in mobileinst("check-tracker", "--command", "no-such-program")[1]
    assert mobileinst("check-tracker", "--self", "--method", "sinkhorn")[0] == 2


def test_the_known_bad_table_names_what_catches(monkeypatch):
    few = {name: KNOWN_BAD[name] for name in ("association not composed",)}
    monkeypatch.setattr(CHECK, "KNOWN_BAD", few)
    code, output = mobileinst("check-tracker", "--known-bad", "--examples", 10)
    row = next(line for line in output.splitlines() if line.startswith("| association not composed |"))
    assert (code, "tracks_followed" in row) == (0, True)


def test_default_folder_is_named_after_the_video(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert mobileinst("track", folder, "--count", 1, *SMALL)[0] == 0
    assert (Path("street.tracks") / "contact_sheet.png").exists()


def test_a_rival_is_checked_by_name(tmp_path):
    assert mobileinst("check-tracker", "--rival", "minvis", "--only", "objects_followed")[0] == 0
    code, output = mobileinst("check-tracker", "--rival", "crossvis", "--only", "labels_switched")
    pasted = next(json.loads(line) for line in output.splitlines() if line.startswith("{"))
    assert (code, pasted["op"], pasted["frames"][1]["labels"]) == (1, "identify", [1])
    code, output = mobileinst("check-tracker", "--rival", "deepsort")
    assert code == 2
    assert "masktrack-rcnn" in output


def test_the_rivals_stand_beside_one_another(tmp_path):
    """MinVIS must give a newcomer the identity of who left; CrossVIS need not."""
    path = tmp_path / "rivals.json"
    code, output = mobileinst("check-tracker", "--rivals", "--only", "newcomers", "--examples", 30)
    assert code == 0
    assert "| `newcomers` | yes | yes | yes | **no** | **no** | **no** |" in output
    mobileinst("check-tracker", "--rivals", "--only", "newcomers", "--examples", 30, "--json", path)
    told = json.loads(path.read_text())["trackers"]
    assert {name: each[0]["holds"] for name, each in told.items()} == {
        **dict.fromkeys(("masktrack-rcnn", "sipmask-vis", "sg-net", "stmask", "crossvis"), True),
        **dict.fromkeys(("sparseinst-vis", "minvis", "idol"), False),
    }
