"""The command line: what it writes, and one line on standard error for whatever is wrong with its input."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import typer
from narrow_network import CONFIG, OPTIONS, network, picture, weights
from onnx import TensorProto, helper
from PIL import Image
from rival_networks import NARROW, RIVALS
from typer.testing import CliRunner

import conformance.cli
from conformance.cli import main
from conformance.evidence import judge_benchmark, tracking_benchmark
from conformance.evidence.judge_benchmark import COLD, COUNT, WARM
from conformance.graph.onnx_export import export
from conformance.teaching.layers import stages
from refimpl import MobileInstConfig, Weights, __version__
from refimpl.config import PRESETS
from refimpl.costs import record_shapes, step_costs

pytestmark = pytest.mark.usefixtures("small_backbones")

SMALL = [*OPTIONS, "--size", "64x96"]


class Finished(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Finished]:
    """Run `mobileinst` as from a shell, in this process."""

    def run(*arguments: Any) -> Finished:
        monkeypatch.setattr(sys, "argv", ["mobileinst", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        return Finished(int(caught.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture(scope="module")
def exported() -> onnx.ModelProto:
    return export(network(), picture())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, exported: onnx.ModelProto) -> Path:
    """A folder with a model, its weights, and inputs."""
    folder = tmp_path_factory.mktemp("files")
    onnx.save(exported, folder / "it.onnx")
    weights().save(folder / "w.safetensors")
    np.save(folder / "x.npy", picture())
    np.save(folder / "two.npy", picture(2))
    pixels = np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "photograph.png")
    return folder


def verifying(folder: Path, model: str | Path = "it.onnx", given: str | Path = "x.npy") -> list[Any]:
    """Return the arguments that verify a file of the folder."""
    return [
        "verify",
        folder / model,
        *OPTIONS,
        "--weights",
        folder / "w.safetensors",
        "--input",
        folder / given,
    ]


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder with its bytes."""
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def refused(finished: Finished, *words: str) -> None:
    """Assert that bad input was answered as the contract says."""
    assert finished.code == 2, finished
    lines = [line for line in finished.err.splitlines() if line.strip()]
    assert len(lines) == 1, finished.err
    assert lines[0].startswith("error: ")
    assert "Traceback" not in finished.out + finished.err
    for word in words:
        assert word in lines[0]


# What works.


def test_verify_writes_the_report(command: Callable[..., Finished], files: Path, tmp_path: Path) -> None:
    finished = command(*verifying(files), "--json", tmp_path / "r.json")
    assert finished.code == 0
    assert "PASS" in finished.out
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["verdict"] == "pass"
    assert report["first_fault"] is None
    for row in (*report["outputs"], *report["steps"]):
        assert {"name", "shape", "max_abs_error", "verdict"} <= row.keys()
    assert [row["name"] for row in report["outputs"]] == [name for name, _ in network()(picture()).items()]


def test_json_on_standard_output_is_only_json(command: Callable[..., Finished], files: Path) -> None:
    finished = command(*verifying(files), "--json", "-")
    assert finished.code == 0
    assert json.loads(finished.out)["verdict"] == "pass"


def test_a_wrong_model_exits_1(
    command: Callable[..., Finished], files: Path, tmp_path: Path, exported: onnx.ModelProto
) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(exported)
    (bias,) = [
        tensor for tensor in model.graph.initializer if tensor.name == "instance_decoder.class_head.bias"
    ]
    bias.CopyFrom(onnx.numpy_helper.from_array(1.01 * onnx.numpy_helper.to_array(bias), bias.name))
    onnx.save(model, tmp_path / "wrong.onnx")
    finished = command(*verifying(files, tmp_path / "wrong.onnx"), "--json", tmp_path / "r.json")
    assert finished.code == 1
    assert "FAIL" in finished.out
    assert json.loads((tmp_path / "r.json").read_text())["first_fault"]["step"].startswith(
        "instance_decoder.class_head"
    )


def test_verify_without_a_model_exports_its_own(command: Callable[..., Finished]) -> None:
    finished = command("verify", *SMALL)
    assert finished.code == 0
    assert "PASS" in finished.out


def test_verify_of_the_frames_of_a_video(
    command: Callable[..., Finished], files: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "next.npy", picture(2)[1:])
    finished = command(
        *verifying(files), "--input", tmp_path / "next.npy", "--frames", "--json", tmp_path / "r.json"
    )
    assert finished.code == 0
    assert re.search(r"track identity +5 +0 +0 ", finished.out)
    report = json.loads((tmp_path / "r.json").read_text())
    assert [item["decisions"][-1]["kind"] for item in report["inputs"]] == [
        "boundary pixels",
        "track identity",
    ]
    assert "--frames" in report["command"]
    refused(command(*verifying(files), "--frames"), "two inputs or more")
    refused(
        command("verify", files / "it.onnx", "--graph-only", "--frames"),
        "--frames has no effect on a verdict on any graph",
    )


def test_our_own_export_follows_tracks(command: Callable[..., Finished], files: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "next.npy", picture(2)[1:])
    frames = ["--input", files / "x.npy", "--input", tmp_path / "next.npy", "--frames"]
    finished = command("verify", *OPTIONS, "--weights", files / "w.safetensors", *frames)
    assert finished.code == 0
    assert "track identity" in finished.out


def test_verify_of_a_batch_of_pictures(command: Callable[..., Finished], files: Path) -> None:
    photograph = files / "photograph.png"
    finished = command(
        "verify", *SMALL, "--input", photograph, "--input", photograph, "--batch", "--json", "-"
    )
    assert finished.code == 0
    report = json.loads(finished.out)
    assert report["inputs"][0]["shape"] == [2, 3, 64, 96]


def test_explain(command: Callable[..., Finished], tmp_path: Path) -> None:
    finished = command("explain", *SMALL, "--json", tmp_path / "layers.json")
    assert finished.code == 0
    table = json.loads((tmp_path / "layers.json").read_text())
    assert table["totals"]["parameters"] > 0
    assert table["totals"]["macs"] == sum(step["macs"] for step in table["steps"]) > 0
    assert f"{table['totals']['macs'] / 1e9:.3f} G" in finished.out
    assert (
        json.loads(command("explain", *SMALL, "--deviations", "--json", "-").out)["steps"][0][
            "standard_deviation"
        ]
        > 0
    )


@pytest.mark.usefixtures("published_backbones")
def test_explain_says_how_windows_slide_and_what_stages_are_for(
    command: Callable[..., Finished], tmp_path: Path
) -> None:
    words = ["explain", "--model", "topformer-tiny", "--size", "64x96"]
    finished = command(*words, "--html", tmp_path / "layers.html", "--json", tmp_path / "layers.json")
    assert finished.code == 0
    row = next(line.split() for line in finished.out.splitlines() if "layer2.conv.2.c " in line)
    assert row[4:7] == ["3×3", "2", "64"]
    assert "M = K · X_mask" in finished.out
    table = json.loads((tmp_path / "layers.json").read_text())
    assert sum(stage["macs"] for stage in table["stages"]) == table["totals"]["macs"]
    assert sum(stage["parameters"] for stage in table["stages"]) == table["totals"]["parameters"]
    page = (tmp_path / "layers.html").read_text(encoding="utf-8")
    assert page.count('<tr><th scope="row">') == len(table["steps"])
    assert all(stage["purpose"] in html.unescape(page) for stage in table["stages"])


@pytest.mark.parametrize("preset", PRESETS)
def test_every_stage_has_a_purpose(preset: str) -> None:
    costs = step_costs(record_shapes(MobileInstConfig.preset(preset), 64, 64))
    assert [stage.name for stage in stages(costs) if not stage.purpose] == []


def test_bench_of_the_judge(
    command: Callable[..., Finished], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In this process; that it is one of its own is tested below.
    def seconds(arguments: list[str], cache: str) -> float:
        result = CliRunner().invoke(conformance.cli.app, arguments, env={"XDG_CACHE_HOME": cache})
        assert result.exit_code == 0
        return 1.0

    monkeypatch.setattr(judge_benchmark, "_command_seconds", seconds)
    arguments = ["--judge", *SMALL, "--repeats", 1, "--threads", 1]
    finished = command("bench", *arguments, "--json", tmp_path / "j.json")
    assert finished.code == 0
    stages = {row["stage"]: row for row in json.loads((tmp_path / "j.json").read_text())["stages"]}
    assert len(stages) == COUNT + 2
    assert stages["float64 forward"]["ratio"] == 1
    assert {COLD, WARM} <= stages.keys()
    limits = [None, 5.0, 9.0, None, None, 3.0, 3.0, 3.0, 20.0, 10.0]
    assert [row["limit"] for row in stages.values()] == limits
    assert all(row["median"] > 0 for row in stages.values())
    assert "every node replayed" in finished.out


def test_the_judges_command_is_timed_in_a_process_of_its_own(tmp_path: Path) -> None:
    assert judge_benchmark._command_seconds(["--version"], str(tmp_path)) > 0.01
    with pytest.raises(subprocess.CalledProcessError):
        judge_benchmark._command_seconds(["verify", "nothing.onnx"], str(tmp_path))


def test_the_time_by_operation(
    command: Callable[..., Finished], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    finished = command("bench", "--profile", *SMALL, "--repeats", 1, "--json", tmp_path / "j.json")
    assert finished.code == 0
    found = json.loads((tmp_path / "j.json").read_text())
    rows = {row["kind"]: row for row in found["operations"]}
    recording = record_shapes(CONFIG, 64, 96)
    assert sum(row["calls"] for row in rows.values()) == len(recording.steps)
    assert sum(row["macs"] for row in rows.values()) == sum(cost.macs for cost in step_costs(recording))
    assert {"Conv 1×1", "Conv 3×3", "Conv 3×3 depthwise", "BatchNormalization"} <= set(rows)
    assert rows["BatchNormalization"]["macs"] == 0
    assert found["slowed_by"] == ["OPENBLAS_CORETYPE=Haswell"]
    assert "OPENBLAS_CORETYPE=Haswell" in finished.out


def test_bench_of_what_surrounds_the_network(
    command: Callable[..., Finished], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking_benchmark, "VIDEOS", 2)
    arguments = ["--tracking", *SMALL, "--repeats", 1]
    finished = command("bench", *arguments, "--json", tmp_path / "j.json")
    assert finished.code == 0
    rows = json.loads((tmp_path / "j.json").read_text())["pieces"]
    assert [row["limit"] for row in rows] == [0.5, 2, None, 8000]
    assert all(row["ratio"] == pytest.approx(row["median"] / row["peer_median"]) for row in rows)
    assert "losses with gradients" in finished.out


def test_explain_lists_the_presets(command: Callable[..., Finished]) -> None:
    assert "topformer-base" in command("explain", "--list").out
    assert "topformer-base" in json.loads(command("explain", "--list", "--json", "-").out)


@pytest.mark.parametrize(
    ("method", "backbone", "preset"),
    [
        ("Mask R-CNN", "R-50", "maskrcnn-r50"),
        ("CondInst", "R-50", "condinst-r50"),
        ("SOLOv2-Lite", "R-50", "solov2-lite-r50"),
        ("SOLOv2-Lite", "R-18", "solov2-lite-r18"),
        ("YOLACT", "R-50", "yolact-r50"),
        ("SparseInst", "R-50", "sparseinst-r50"),
        ("YOLACT", "MobileNetV2", "yolact-mobilenetv2"),
        ("YOLACT", "TopFormer", "yolact-topformer-base"),
        ("SOLOv2", "MobileNetV2", "solov2-mobilenetv2"),
        ("CondInst", "TopFormer", "condinst-topformer-base"),
        ("SparseInst", "TopFormer", "sparseinst-topformer-base"),
        ("MobileInst", "TopFormer", "topformer-base"),
        ("MobileInst", "SeaFormer", "seaformer-base"),
    ],
)
def test_every_row_of_table_1_is_listed(
    command: Callable[..., Finished], method: str, backbone: str, preset: str
) -> None:
    """The rows as the paper prints them."""
    lines = command("explain", "--list").out.splitlines()
    assert [line.split()[0] for line in lines if f" {method}, {backbone} " in line] == [preset]


def test_export_and_its_weights_verify(command: Callable[..., Finished], tmp_path: Path) -> None:
    arguments = ["--fold", "--batch-size", 2, "--save-weights", tmp_path / "w.npz", "--seed", 4]
    assert command("export", tmp_path / "it.onnx", *SMALL, *arguments).code == 0
    onnx.checker.check_model(str(tmp_path / "it.onnx"), full_check=True)
    assert set(Weights.load(tmp_path / "w.npz", CONFIG)) == set(weights())
    assert command("verify", tmp_path / "it.onnx", *OPTIONS, "--weights", tmp_path / "w.npz").code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["it.onnx", "w.npz"]


def test_run(command: Callable[..., Finished], files: Path, tmp_path: Path) -> None:
    outputs = ["--output", tmp_path / "a.png", "--results", tmp_path / "r.json"]
    finished = command("run", files / "photograph.png", *SMALL, *outputs, "--image-id", 7, "--keep", 0)
    assert finished.code == 0
    assert Image.open(tmp_path / "a.png").size == (80, 48)
    results = json.loads((tmp_path / "r.json").read_text())
    assert all(entry["image_id"] == 7 and entry["segmentation"]["size"] == [48, 80] for entry in results)


def test_run_writes_beside_the_picture(command: Callable[..., Finished], tmp_path: Path) -> None:
    Image.new("RGB", (50, 40), (200, 10, 10)).save(tmp_path / "red.png")
    assert command("run", tmp_path / "red.png", *SMALL).code == 0
    names = {"red.png", "red.mobileinst.png", "red.mobileinst.json"}
    assert {path.name for path in tmp_path.iterdir()} == names


@pytest.mark.parametrize("preset", RIVALS)
def test_run_takes_the_rivals(command: Callable[..., Finished], tmp_path: Path, preset: str) -> None:
    Image.new("RGB", (50, 40), (200, 10, 10)).save(tmp_path / "red.png")
    fields = NARROW[preset.partition("-")[0]]
    config = [
        word for name, value in fields.items() for word in ("--set", f"{name}={value}".replace(" ", ""))
    ]
    given = ["--model", preset, *config, "--size", "64x96", "--force"]
    finished = command("run", tmp_path / "red.png", *given)
    assert (finished.code, "place" in finished.out) == (0, True)
    results = json.loads((tmp_path / "red.mobileinst.json").read_text())
    assert all(entry["category_id"] in (1, 2, 3) for entry in results)
    assert all(entry["segmentation"]["size"] == [40, 50] for entry in results)
    some = [entry for entry in results if entry["score"] > 0.5]
    assert command("run", tmp_path / "red.png", *given, "--keep", 0.5).code == 0
    assert json.loads((tmp_path / "red.mobileinst.json").read_text()) == some


def test_no_rival_is_tracked(command: Callable[..., Finished], tmp_path: Path) -> None:
    (tmp_path / "film").mkdir()
    Image.new("RGB", (50, 40), (200, 10, 10)).save(tmp_path / "film" / "0.png")
    given = ["--model", "yolact-topformer-base", "--output", tmp_path / "out"]
    finished = command("track", tmp_path / "film", *given)
    assert finished.code == 2
    assert "`mobileinst run` segments single pictures with it" in finished.err


@pytest.mark.usefixtures("published_backbones")
def test_bench(command: Callable[..., Finished], tmp_path: Path) -> None:
    finished = command("bench", *SMALL, "--repeats", 1, "--threads", 1, "--json", tmp_path / "b.json")
    assert finished.code == 0
    table = json.loads((tmp_path / "b.json").read_text())
    peers = [timing["peer"] for timing in table["timings"]]
    assert peers[:5] == ["NumPy float32", "NumPy float64", "ONNX Runtime", "one sgemm", "one dgemm"]
    assert "onnx.reference" in peers
    assert table["blas"] in finished.out
    assert all(second > 0 for timing in table["timings"] for second in timing["seconds"])
    assert 20 < table["peak_memory_mb"] < 600
    assert "onnx.reference" in finished.out


COMMANDS = [
    command.name or command.callback.__name__.replace("_", "-")
    for command in conformance.cli.app.registered_commands
    if command.callback
]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_examples(command: Callable[..., Finished], name: str) -> None:
    finished = command(name, "--help")
    assert finished.code == 0
    assert "Examples" in finished.out
    assert f"mobileinst {name}" in finished.out


def test_the_overview_says_of_each_command_what_its_help_says_first(command: Callable[..., Finished]) -> None:
    """The overview imports no command; the line that it has of each is the command's own."""
    whole = typer.main.get_command(conformance.cli.app)
    for name, listed in conformance.cli.COMMANDS.items():
        told = whole.commands[name].help.partition("\n\n")[0]  # type: ignore[attr-defined]
        assert listed.help == " ".join(told.split())


@pytest.mark.parametrize("words", [["--", "explain", "--list"], ["explain", "--list"]])
def test_a_command_is_run_wherever_it_stands(words: list[str]) -> None:
    program = "from conformance.cli import main; main()"
    run = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    assert "topformer-base" in run.stdout


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["lint", "--help"]])
def test_what_is_not_asked_for_is_not_imported(words: list[str]) -> None:
    """NumPy for the version or the overview, ONNX Runtime for what runs nothing: each is most of a second."""
    program = (
        "import sys; from conformance.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    loaded = set(run.stderr.split())
    assert not loaded & {"hypothesis", "torch"}
    assert words[0] == "lint" or not loaded & {"numpy", "onnx", "onnxruntime", "refimpl"}


def test_the_commands_are_all_there(command: Callable[..., Finished]) -> None:
    assert {"verify", "export", "run", "explain", "bench"} <= set(COMMANDS)
    assert all(name in command("--help").out for name in COMMANDS)
    assert command("--version").out.strip() == __version__


# Bad models.


def truncated(model: onnx.ModelProto, path: Path) -> None:
    path.write_bytes(model.SerializeToString()[:-1000])


def empty(model: onnx.ModelProto, path: Path) -> None:
    path.write_bytes(b"")


def nonsense(model: onnx.ModelProto, path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))


def unknown_operator(model: onnx.ModelProto, path: Path) -> None:
    model.graph.node[3].op_type = "FancyRelu"
    path.write_bytes(model.SerializeToString())


def other_domain(model: onnx.ModelProto, path: Path) -> None:
    model.graph.node[3].domain = "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    path.write_bytes(model.SerializeToString())


def unheld_input(model: onnx.ModelProto, path: Path) -> None:
    model.graph.node[3].input[0] = "nowhere"
    path.write_bytes(model.SerializeToString())


def external_data(model: onnx.ModelProto, path: Path) -> None:
    onnx.save(model, path, save_as_external_data=True, location="it.data", size_threshold=0)
    (path.parent / "it.data").unlink()


def external_data_outside(model: onnx.ModelProto, path: Path) -> None:
    onnx.save(model, path, save_as_external_data=True, location="it.data", size_threshold=0)
    (path.parent / "it.data").unlink()
    damaged = onnx.load(path, load_external_data=False)
    for tensor in damaged.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../../../../etc/passwd"
    path.write_bytes(damaged.SerializeToString())


def two_inputs(model: onnx.ModelProto, path: Path) -> None:
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1]))
    path.write_bytes(model.SerializeToString())


def no_input(model: onnx.ModelProto, path: Path) -> None:
    model.graph.initializer.append(onnx.numpy_helper.from_array(picture(), "images"))
    del model.graph.input[:]
    path.write_bytes(model.SerializeToString())


def scalar_input(model: onnx.ModelProto, path: Path) -> None:
    del model.graph.input[0].type.tensor_type.shape.dim[:]
    path.write_bytes(model.SerializeToString())


def four_channels(model: onnx.ModelProto, path: Path) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4
    path.write_bytes(model.SerializeToString())


def old_opset(model: onnx.ModelProto, path: Path) -> None:
    model.opset_import[0].version = 3
    path.write_bytes(model.SerializeToString())


def loop(model: onnx.ModelProto, path: Path) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("If", ["masks"], ["other"], then_branch=body, else_branch=body))
    path.write_bytes(model.SerializeToString())


BAD_MODELS = [truncated, empty, nonsense, unknown_operator, other_domain, unheld_input, external_data]
BAD_MODELS += [
    external_data_outside,
    two_inputs,
    no_input,
    scalar_input,
    four_channels,
    old_opset,
    loop,
]


@pytest.mark.parametrize("damage", BAD_MODELS, ids=lambda damage: damage.__name__)
def test_a_bad_model_is_refused(
    command: Callable[..., Finished],
    files: Path,
    tmp_path: Path,
    exported: onnx.ModelProto,
    damage: Callable[[onnx.ModelProto, Path], None],
) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(exported)
    damage(model, tmp_path / "it.onnx")
    before = contents(tmp_path)
    refused(command(*verifying(files, tmp_path / "it.onnx"), "--json", tmp_path / "r.json"))
    assert contents(tmp_path) == before


def test_a_missing_model_is_named(command: Callable[..., Finished], files: Path, tmp_path: Path) -> None:
    refused(command(*verifying(files, tmp_path / "nowhere.onnx")), "nowhere.onnx")
    refused(command(*verifying(files, tmp_path)))


def dynamic(model: onnx.ModelProto, **lengths: Any) -> onnx.ModelProto:
    """Return the model with symbols for axes of its input, but its own constant shapes inside."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for axis, name in enumerate(("batch", "channels", "height", "width")):
        if name in lengths:
            changed.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    del changed.graph.value_info[:]
    return changed


def test_dynamic_axes_are_bound_by_the_input(
    command: Callable[..., Finished], files: Path, tmp_path: Path, exported: onnx.ModelProto
) -> None:
    onnx.save(dynamic(exported, batch=None, height=None, width=None), tmp_path / "it.onnx")
    assert command(*verifying(files, tmp_path / "it.onnx")).code == 0


def test_a_model_that_cannot_be_run_does_not_pass(
    command: Callable[..., Finished], files: Path, tmp_path: Path, exported: onnx.ModelProto
) -> None:
    """The batch is a symbol, but inside stand reshapes to a batch of one; or the input is of a wrong type."""
    onnx.save(dynamic(exported, batch=None), tmp_path / "it.onnx")
    finished = command(*verifying(files, tmp_path / "it.onnx", "two.npy"))
    assert finished.code in (1, 2)
    assert "(2, 3, 64, 96)" in finished.out + finished.err
    assert "Traceback" not in finished.out + finished.err
    model = dynamic(exported)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    onnx.save(model, tmp_path / "it.onnx")
    finished = command(*verifying(files, tmp_path / "it.onnx"))
    assert finished.code in (1, 2)
    assert "Traceback" not in finished.out + finished.err


def test_an_input_of_another_shape_is_refused(command: Callable[..., Finished], files: Path) -> None:
    refused(command(*verifying(files, given="two.npy")), "(1, 3, 64, 96)", "(2, 3, 64, 96)")


# Bad arrays and pictures.


def array_file(array: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        np.save(folder / "x.npy", array)
        return folder / "x.npy"

    return write


def raw_file(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def with_value(value: float) -> Any:
    images = picture().copy()
    images[0, 1, 2, 3] = value
    return images


BAD_INPUTS: dict[str, Callable[[Path], Path]] = {
    "NaN": array_file(with_value(np.nan)),
    "infinity": array_file(with_value(np.inf)),
    "channels": array_file(np.zeros((1, 4, 64, 96), np.float32)),
    "rank": array_file(np.zeros((64, 96), np.float32)),
    "no pictures": array_file(np.zeros((0, 3, 64, 96), np.float32)),
    "text": array_file(np.full((1, 3, 64, 96), "a")),
    "objects": array_file(np.array([{}], dtype=object)),
    "complex": array_file(np.zeros((1, 3, 64, 96), np.complex64)),
    "truncated array": raw_file("x.npy", b"\x93NUMPY\x01\x00"),
    "empty array file": raw_file("x.npy", b""),
    "no picture": raw_file("x.png", b"this is text"),
    "empty picture": raw_file("x.jpg", b""),
    "truncated picture": raw_file("x.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"),
    "missing": lambda folder: folder / "nowhere.png",
    "missing array": lambda folder: folder / "nowhere.npy",
    "folder": lambda folder: folder,
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_a_bad_input_is_refused(
    command: Callable[..., Finished], files: Path, tmp_path: Path, name: str
) -> None:
    path = BAD_INPUTS[name](tmp_path)
    before = contents(tmp_path)
    size = [] if path.suffix == ".npy" else ["--size", "64x96"]
    refused(command("verify", *OPTIONS, *size, "--input", path, "--json", tmp_path / "r.json"), path.name)
    if path.suffix != ".npy":
        refused(command("run", path, *SMALL))
    assert contents(tmp_path) == before


GOOD_PICTURES: dict[str, Callable[[Path], None]] = {
    "one pixel": lambda path: Image.new("RGB", (1, 1), (9, 8, 7)).save(path),
    "grey": lambda path: Image.new("L", (40, 30), 99).save(path),
    "RGBA": lambda path: Image.new("RGBA", (40, 30), (9, 8, 7, 100)).save(path),
    "palette": lambda path: Image.new("P", (40, 30), 3).save(path),
    "one bit": lambda path: Image.new("1", (40, 30), 1).save(path),
    "16 bits": lambda path: Image.fromarray(np.full((30, 40), 40000, np.uint16)).save(path),
}


@pytest.mark.parametrize("name", GOOD_PICTURES)
def test_an_unusual_picture_is_a_picture_or_a_named_error(
    command: Callable[..., Finished], tmp_path: Path, name: str
) -> None:
    path = tmp_path / "picture.png"
    GOOD_PICTURES[name](path)
    finished = command("run", path, *SMALL)
    if finished.code:
        refused(finished)
        assert [entry.name for entry in tmp_path.iterdir()] == ["picture.png"]
    else:
        assert Image.open(tmp_path / "picture.mobileinst.png").size == Image.open(path).size


def test_a_rotated_picture_is_seen_upright(command: Callable[..., Finished], tmp_path: Path) -> None:
    """EXIF orientation 6: the camera was turned, width and height change places."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40), (200, 0, 0)).save(tmp_path / "turned.jpg", exif=exif)
    assert command("run", tmp_path / "turned.jpg", *SMALL).code == 0
    assert Image.open(tmp_path / "turned.mobileinst.png").size == (40, 60)


# Bad weights and options.


def test_bad_weights_are_refused(command: Callable[..., Finished], tmp_path: Path) -> None:
    arrays = dict(weights())
    arrays["instance_decoder.queries"] = np.full((5, 32), np.nan, np.float32)
    del arrays["instance_decoder.class_head.bias"]
    np.savez(tmp_path / "w.npz", **arrays, extra=np.zeros(3, np.float32))
    before = contents(tmp_path)
    given = ["--weights", tmp_path / "w.npz"]
    problems = (
        "instance_decoder.queries holds 160",
        "missing instance_decoder.class_head.bias",
        "extra extra",
        "3 problems",
    )
    refused(command("export", tmp_path / "it.onnx", *SMALL, *given), *problems)
    refused(command("verify", *SMALL, *given), *problems)
    assert contents(tmp_path) == before


def test_weights_of_another_preset_are_refused(command: Callable[..., Finished], files: Path) -> None:
    others = ["--model", "topformer-small", *OPTIONS[2:], "--size", "64x96"]
    refused(command("verify", *others, "--weights", files / "w.safetensors"), "do not fit this configuration")
    refused(command("verify", *SMALL, "--weights", files / "nowhere.npz"), "nowhere.npz does not exist")
    refused(command("verify", *SMALL, "--weights", files / "it.onnx"), "name must end in")
    refused(command("verify", *SMALL, "--backbone-weights", files / "photograph.png"), "name must end in")


BAD_OPTIONS = [
    ["--model", "topformer-huge"],
    ["--set", "dims=32"],
    ["--set", "dim"],
    ["--set", "dim="],
    ["--set", "dim=30"],
    ["--set", "dim=abc"],
    ["--set", "dim=[1,"],
    ["--set", "dim=" + 30 * "(" + "1"],
    ["--set", "num_queries=0"],
    ["--set", "num_queries=10**9"],
    ["--set", "num_queries=1e3"],
    ["--set", "global_layers=True"],
    ["--size", "64"],
    ["--size", "64x"],
    ["--size", "16x96"],
    ["--size", "0x0"],
    ["--size", "-32x32"],
    ["--size", "axb"],
    ["--size", "64x96x3"],
]


@pytest.mark.parametrize("given", BAD_OPTIONS, ids=" ".join)
@pytest.mark.parametrize("name", ["explain", "export"])
def test_bad_options_are_refused(
    command: Callable[..., Finished], tmp_path: Path, name: str, given: list[str]
) -> None:
    path = [tmp_path / "it.onnx"] if name == "export" else []
    refused(command(name, *path, *given))
    assert not list(tmp_path.iterdir())


def test_a_network_too_large_for_memory_is_refused(command: Callable[..., Finished], tmp_path: Path) -> None:
    refused(command("export", tmp_path / "it.onnx", *OPTIONS, "--size", "6400000x6400000"), "memory")


# Unwritable places.


@pytest.fixture
def quick_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """The long work must not begin."""

    def begun(*_: Any, **__: Any) -> None:
        pytest.fail("the long work began before the output path was checked")

    monkeypatch.setattr("conformance.cli.options.seeded_weights", begun)
    monkeypatch.setattr("refimpl.weights.Weights.load", begun)
    monkeypatch.setattr("conformance.graph.onnx_graph.OnnxGraph.load", begun)


@pytest.mark.usefixtures("quick_to_refuse")
@pytest.mark.parametrize("place", ["missing/r.json", "folder", "file/r.json"])
def test_an_unwritable_place_is_refused_before_the_work(
    command: Callable[..., Finished], files: Path, tmp_path: Path, place: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "file").write_text("a file")
    before = contents(tmp_path)
    path = tmp_path / place
    refused(command("verify", *SMALL, "--json", path), "cannot write")
    refused(command(*verifying(files), "--json", path), "cannot write")
    refused(command("explain", *SMALL, "--json", path), "cannot write")
    refused(command("explain", "--list", "--json", path), "cannot write")
    refused(command("bench", *SMALL, "--json", path), "cannot write")
    refused(command("export", path, *SMALL), "cannot write")
    refused(
        command("export", tmp_path / "it.onnx", *SMALL, "--save-weights", path.with_suffix(".npz")),
        "cannot write",
    )
    photograph = files / "photograph.png"
    refused(
        command("run", photograph, *SMALL, "--output", path, "--results", tmp_path / "r.json"), "cannot write"
    )
    refused(
        command("run", photograph, *SMALL, "--results", path, "--output", tmp_path / "a.png"), "cannot write"
    )
    assert contents(tmp_path) == before


@pytest.mark.usefixtures("quick_to_refuse")
def test_weights_of_an_unknown_format_are_refused_before_the_work(
    command: Callable[..., Finished], tmp_path: Path
) -> None:
    refused(
        command("export", tmp_path / "it.onnx", *SMALL, "--save-weights", tmp_path / "w.pth"),
        "name must end in",
    )
    assert not list(tmp_path.iterdir())


# Endings of other kinds.


def test_an_interrupt_is_no_traceback(
    command: Callable[..., Finished], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("conformance.cli.options.seeded_weights", interrupted)
    finished = command("export", tmp_path / "it.onnx", *SMALL)
    assert finished.code == 130
    assert "Traceback" not in finished.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [MemoryError(), OSError(28, "No space left on device"), RecursionError()])
def test_what_the_machine_refuses_is_one_line(
    command: Callable[..., Finished], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("conformance.cli.options.seeded_weights", failing)
    refused(command("verify", *SMALL))


def test_wrong_usage_exits_2(command: Callable[..., Finished]) -> None:
    for arguments in (["verify", "--unknown"], ["nothing"], ["export"], ["bench", "--repeats", "0"]):
        finished = command(*arguments)
        assert finished.code == 2
        assert "Traceback" not in finished.err


def test_from_a_shell(tmp_path: Path) -> None:
    """One case in a process of its own: exit code and streams are the real ones."""
    program = "from conformance.cli import main; main()"
    arguments = [sys.executable, "-c", program, "verify", str(tmp_path / "nowhere.onnx")]
    finished = subprocess.run(arguments, capture_output=True, text=True, check=False)
    refused(Finished(finished.returncode, finished.stdout, finished.stderr), "nowhere.onnx")
    assert finished.stdout == ""
