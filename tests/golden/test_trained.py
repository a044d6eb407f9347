"""The shipped weights: refused when altered, and of the figures that the manifest states."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest

from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate
from conformance.evidence import held_out as measured
from conformance.graph.onnx_export import export
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.network import verify
from refimpl import MobileInst, Weights, held_out, trained
from refimpl.errors import ConfigurationError, FileError
from refimpl.inference import preprocess
from refimpl.trained import trained_config, trained_files, trained_folder, trained_sets

FIRST = 40


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """The folder of the weights, copied, to be spoilt."""
    folder = tmp_path / "trained"
    shutil.copytree(trained_folder(), folder)
    monkeypatch.setattr(trained, "trained_folder", lambda: folder)
    return folder


def test_every_set_is_there_small_and_as_rounded(copy) -> None:
    assert {"scenes-tiny", "scenes-tiny-video", "scenes-tiny-pairs"} <= set(trained_sets())
    for name in trained_sets():
        weights = Weights.trained(name)
        assert weights.dtype == np.float32
        for array in weights.values():
            np.testing.assert_array_equal(array, array.astype(np.float16).astype(np.float32))
        assert all(path.stat().st_size < 3_000_000 for path in trained_files(name))


def test_one_altered_byte_is_refused(copy) -> None:
    path = copy / "scenes-tiny.decoders.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(FileError, match="was altered: its SHA-256"):
        Weights.trained("scenes-tiny")


def test_a_file_of_another_set_is_refused(copy) -> None:
    shutil.copy(copy / "scenes-tiny-video.backbone.safetensors", copy / "scenes-tiny.backbone.safetensors")
    with pytest.raises(FileError, match="was altered"):
        Weights.trained("scenes-tiny")


def test_a_missing_file_and_an_unknown_name_are_named(copy) -> None:
    (copy / "scenes-tiny.backbone.safetensors").unlink()
    with pytest.raises(FileError, match="is missing; install"):
        Weights.trained("scenes-tiny")
    with pytest.raises(ConfigurationError, match="no trained weights are called 'photographs'"):
        Weights.trained("photographs")


def test_without_the_package_that_holds_them_it_says_so(monkeypatch) -> None:
    monkeypatch.setattr(trained.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileError, match="come with the package"):
        trained_folder()


@pytest.fixture(scope="module")
def network():
    return MobileInst(trained_config("scenes-tiny"), Weights.trained("scenes-tiny"))


def test_precision_on_40_held_out_scenes_is_what_the_manifest_states(network) -> None:
    stated = trained_sets()["scenes-tiny"]["held_out"]
    truth, results = measured.picture_truth(FIRST), measured.picture_results(network, FIRST)
    for key, change in (("first_40", lambda x: x), ("first_40_without_labels", measured.without_labels)):
        found = measured.picture_figures(change(truth), change(results))["named"]["AP"]
        low, high = stated[key]["interval"]
        assert low < found < high
        assert found == pytest.approx(stated[key]["AP"], abs=0.01)


def test_onnx_runtime_conforms_to_the_judges_satisfaction(network) -> None:
    images, _ = preprocess(held_out.held_out_picture(0).picture, "native", np.float32)
    candidate = OnnxRuntimeCandidate(OnnxGraph.load(export(network, images)), threads=1)
    report = verify(candidate, network.config, network.weights, {"picture": images})
    assert report.verdict == "pass", report.headline()


@pytest.mark.runtimes
@pytest.mark.parametrize("name", trained_sets())
def test_pytorch_computes_the_same(name: str) -> None:
    torch = pytest.importorskip("torch")
    from golden.learning.network import Student
    from golden.learning.trainer import load_network

    config = trained_config(name)
    weights = Weights.trained(name)
    student = Student(config).eval()
    load_network(student, dict(weights))
    images, _ = preprocess(held_out.held_out_picture(3).picture, "native", np.float64)
    with torch.no_grad():
        theirs = student.double().network(torch.from_numpy(images))
    for field, ours in MobileInst(config, weights.astype(np.float64))(images).items():
        np.testing.assert_allclose(getattr(theirs, field).numpy(), ours, rtol=1e-9, atol=1e-9)


def test_the_manifest_says_how_the_weights_came_about(copy) -> None:
    for name, entry in json.loads((copy / "manifest.json").read_text())["sets"].items():
        assert {"seed", "steps", "minutes", "versions", "machine", "kind"} <= set(entry["training"]), name
        assert (copy / f"{name}.csv").is_file()


def test_a_trained_set_brings_its_own_configuration(tmp_path) -> None:
    """By name, where a command takes weights; options of another network are refused."""
    from pathlib import Path

    from conformance.cli import options

    name = Path("scenes-tiny")
    assert options.configuration(None, None, name) == trained_config("scenes-tiny")
    assert trained.is_trained("scenes-tiny")
    assert not trained.is_trained("photographs")
    weights = options.load_weights(trained_config("scenes-tiny"), name, None, 0)
    np.testing.assert_array_equal(
        weights["instance_decoder.queries"], Weights.trained("scenes-tiny")["instance_decoder.queries"]
    )
    with pytest.raises(ConfigurationError, match="leave out --model and --set dim"):
        options.configuration(None, ["dim=128"], name)


def test_pictures_say_whether_the_network_has_learned_anything(tmp_path, monkeypatch) -> None:
    """`run` without a word on the network uses the trained one; seeded weights are called untrained."""
    from typer.testing import CliRunner

    from conformance.cli import app

    # The package's attribute of that name is the command, not its module.
    command = sys.modules["conformance.cli.run"]
    drawn = []
    annotate = command.annotate
    monkeypatch.setattr(command, "annotate", lambda *a, **k: drawn.append(k) or annotate(*a, **k))
    monkeypatch.chdir(tmp_path)
    finished = CliRunner().invoke(app, ["run"])
    assert finished.exit_code == 0, finished.output
    assert (tmp_path / "scene.mobileinst.png").is_file()
    small = ["--model", "topformer-tiny", "--set", "dim=32", "--set", "num_queries=5"]
    assert CliRunner().invoke(app, ["run", *small, "--size", "64x96"]).exit_code == 0
    assert [(k["remark"], bool(k["names"])) for k in drawn] == [("", True), ("untrained", False)]


def test_reports_say_whose_weights_they_are_about(tmp_path) -> None:
    """With nothing given, the trained network is judged; seeded weights are called untrained."""
    from typer.testing import CliRunner

    from conformance.cli import app

    said = {}
    small = ["--model", "topformer-tiny", "--set", "dim=32", "--set", "num_queries=5", "--size", "64x96"]
    for name, arguments in {"default": [], "seeded": small}.items():
        files = ["--json", str(tmp_path / "r.json"), "--html", str(tmp_path / f"{name}.html")]
        finished = CliRunner().invoke(app, ["verify", *arguments, *files])
        assert finished.exit_code == 0, finished.output
        report = json.loads((tmp_path / "r.json").read_text())
        said[name] = report["model"]["weights"], report["model"]["config"]["num_classes"]
    assert said == {"default": ("scenes-tiny", 4), "seeded": ("untrained, seed 0", 80)}
    assert ", untrained</figcaption>" in (tmp_path / "seeded.html").read_text()
    assert ", untrained</figcaption>" not in (tmp_path / "default.html").read_text()
