"""Judging candidates: ONNX Runtime passes, injected mistakes fail and are named, bad folders are refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import golden_candidate
import numpy as np
import pytest
from golden_candidate import ENTRIES, attribute, constant, outputs
from typer.testing import CliRunner

from conformance.cli import app
from golden import DATA
from golden.judge import judge
from refimpl.errors import FileError

WITH_MODEL = [entry for entry in ENTRIES.values() if ".onnx" in entry.suffixes]
KINDS = ("operations/*", "probes/*", "blocks/*", "models/*")


@pytest.fixture(scope="module")
def candidate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that has a model, by ONNX Runtime, with the program the documents show."""
    folder, root = tmp_path_factory.mktemp("onnxruntime"), Path(__file__).parents[2]
    program = root / "docs" / "golden" / "onnx_runtime.py"
    subprocess.run([sys.executable, program, DATA, folder], check=True)
    return folder


def test_onnx_runtime_passes(candidate: Path) -> None:
    judgement = judge(candidate, only=KINDS)
    assert not judgement.problems
    wrong = [row for row in judgement.rows if row.verdict != "pass"]
    assert not wrong
    assert len({row.golden for row in judgement.rows}) == len(WITH_MODEL)


PEAK = """
import resource, sys
from pathlib import Path
from golden import DATA
from golden.judge import judge

judge(Path(sys.argv[1]), only=sys.argv[2:])
status = Path("/proc/self/status")
if status.exists():
    # Of this program alone; getrusage counts what the process was before it.
    print(next(int(line.split()[1]) * 1024 for line in status.open() if line.startswith("VmHWM")))
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_judging_needs_less_than_300_megabytes(candidate: Path) -> None:
    command = [sys.executable, "-c", PEAK, str(candidate), *KINDS]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 300e6


Outputs = dict[str, np.ndarray]


def edited(*edits: golden_candidate.Edit) -> Callable[[str], Outputs]:
    """The golden's own model, with a mistake in it."""

    def compute(name: str) -> Outputs:
        def edit(model: object) -> None:
            for one in edits:
                one(model)  # type: ignore[arg-type]

        return outputs(ENTRIES[name], edit)

    return compute


def changed(change: Callable[..., np.ndarray]) -> Callable[[str], Outputs]:
    """A result computed from the golden's inputs, in the order of the operation's operands."""

    def compute(name: str) -> Outputs:
        entry = ENTRIES[name]
        (output,) = entry.outputs
        return {output: change(**entry.tensors("input."))}

    return compute


def overflowing(x: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        y = np.exp(x)
        return y / y.sum(-1, keepdims=True)


def zero_padded(x: np.ndarray) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return windows[:, :, ::2, ::2].max((-1, -2))


def ties_from_the_end(name: str) -> Outputs:
    x, right = ENTRIES[name].tensors("input.")["x"], outputs(ENTRIES[name])
    order = np.argsort(-x[:, ::-1], axis=1, kind="stable")[:, :3]
    return {**right, "output1": x.shape[1] - 1 - order}


MISTAKES = [
    ("probes/resize.ramp", edited(attribute("coordinate_transformation_mode", "align_corners")), "corners"),
    ("operations/resize.up", edited(attribute("coordinate_transformation_mode", "asymmetric")), "asymmetric"),
    ("operations/conv.same", edited(constant("w", lambda w: w[:, :, ::-1, ::-1])), "kernel flipped"),
    ("operations/conv.same", edited(constant("b", np.zeros_like)), "bias missing"),
    ("probes/max_pool.negative", changed(zero_padded), "padded with zeros"),
    ("probes/average_pool.ones", edited(attribute("count_include_pad", 1)), "padding counted"),
    ("operations/hard_sigmoid.pytorch", edited(attribute("alpha", 0.2)), "slope"),
    ("operations/batch_normalization.tiny_variance", edited(attribute("epsilon", 1e-3)), "epsilon"),
    ("operations/layer_normalization.ordinary", edited(attribute("epsilon", 1e-3)), "epsilon"),
    ("probes/softmax.hundred", changed(overflowing), "NaN"),
    ("probes/top_k.ties", ties_from_the_end, "ties"),
    ("operations/gelu.line", edited(attribute("approximate", "tanh")), "tanh"),
    ("operations/mat_mul.batched", changed(lambda a, b: 2 * (a @ b)), "times what it should be"),
    ("probes/transpose.tokens", edited(attribute("perm", [0, 1, 2, 3])), "layout"),
    ("operations/softmax.channels", edited(attribute("axis", -1)), "axis"),
]


@pytest.mark.parametrize(("name", "mistake", "word"), MISTAKES, ids=[f"{n}-{w}" for n, _, w in MISTAKES])
def test_a_mistake_fails_and_is_named(
    name: str, mistake: Callable[[str], Outputs], word: str, tmp_path: Path
) -> None:
    given, shape = mistake(name), ENTRIES[name].record["tensors"]
    fitting = {k: x.reshape(shape[f"truth.{k}"]["shape"]) for k, x in given.items()}
    golden_candidate.write(tmp_path, ENTRIES[name], fitting)
    judgement = judge(tmp_path, only=[name])
    assert judgement.exit_code == 1
    readings = [row.reading for row in judgement.rows if row.verdict == "fail"]
    assert word in readings[0]


def test_channels_last_is_named(tmp_path: Path) -> None:
    entry = ENTRIES["operations/conv.same"]
    right = outputs(entry)["output"]
    turned = right.transpose(0, 2, 3, 1).reshape(right.shape)
    golden_candidate.write(tmp_path, entry, {"output": turned})
    (row,) = judge(tmp_path, only=[entry.name]).rows
    assert row.verdict == "fail"
    assert "axes in the order [0, 2, 3, 1]" in row.reading


def test_reversed_bytes_are_named_in_raw_files(tmp_path: Path) -> None:
    entry = ENTRIES["operations/conv.same"]
    path = tmp_path / f"{entry.name}.output.f32"
    path.parent.mkdir(parents=True)
    outputs(entry)["output"].astype(">f4").tofile(path)
    judgement = judge(tmp_path, only=[entry.name])
    assert judgement.exit_code == 1
    assert "byte order" in judgement.rows[0].reading
    outputs(entry)["output"].astype("<f4").tofile(path)
    assert judge(tmp_path, only=[entry.name]).exit_code == 0


def test_a_single_nan_fails(tmp_path: Path) -> None:
    entry = ENTRIES["operations/conv.same"]
    given = outputs(entry)["output"].copy()
    given[0, 1, 2, 3] = np.nan
    golden_candidate.write(tmp_path, entry, {"output": given})
    judgement = judge(tmp_path, only=[entry.name])
    assert judgement.exit_code == 1
    assert "NaN in 1 elements, first at [0, 1, 2, 3]" in judgement.rows[0].reading


def test_a_wrong_tensor_of_a_network_is_the_first_named(tmp_path: Path) -> None:
    entry = ENTRIES["models/seaformer_64x128"]

    def edit(model: object) -> None:
        constant("backbone.trans1.transformer_blocks.0.mlp.fc1.bn.bias", lambda b: b + 0.5)(model)  # type: ignore[arg-type]

    golden_candidate.write(tmp_path, entry, outputs(entry, edit))
    failing = [row for row in judge(tmp_path, only=[entry.name]).rows if row.verdict == "fail"]
    assert failing[0].output == "backbone.trans1.transformer_blocks.0.mlp.fc1"
    assert all(row.reading == "follows from the first" for row in failing[1:])


def test_everything_wrong_with_a_folder_is_listed_together(tmp_path: Path) -> None:
    names = [f"operations/conv.{which}" for which in ("same", "strided", "grouped", "dilated", "line")]
    right = {name: outputs(ENTRIES[name])["output"] for name in names}
    golden_candidate.write(tmp_path, ENTRIES[names[0]], {"output": right[names[0]], "surplus": np.zeros(3)})
    golden_candidate.write(tmp_path, ENTRIES[names[1]], {"output": right[names[1]][..., :-1]})
    golden_candidate.write(tmp_path, ENTRIES[names[2]], {"output": right[names[2]].astype(np.int32)})
    path = golden_candidate.write(tmp_path, ENTRIES[names[3]], {"output": right[names[3]]})
    path.write_bytes(path.read_bytes()[:-5])
    (tmp_path / "notes.txt").write_text("mine")
    judgement = judge(tmp_path, only=names)
    assert judgement.exit_code == 2
    text = "\n".join(judgement.problems)
    for part in (
        "surplus",
        "has shape",
        "is int32, expected floats",
        "conv.dilated.safetensors",
        "notes.txt",
    ):
        assert part in text
    assert "conv.line: output 'output' is missing" in text
    assert [row.verdict for row in judgement.rows] == ["pass"]


def test_hidden_files_are_no_strangers(tmp_path: Path) -> None:
    entry = ENTRIES["probes/average_pool.ones"]
    golden_candidate.write(tmp_path, entry, outputs(entry))
    (tmp_path / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    assert not judge(tmp_path, only=[entry.name]).problems


def test_goldens_that_were_not_asked_for_are_no_strangers(candidate: Path) -> None:
    judgement = judge(candidate, only=["probes/softmax.*"])
    assert not judgement.problems
    assert {row.golden.partition("/")[0] for row in judgement.rows} == {"probes"}


def test_the_command_prints_a_table_writes_json_and_exits(tmp_path: Path) -> None:
    entry, folder, report = ENTRIES["probes/average_pool.ones"], tmp_path / "mine", tmp_path / "report.json"
    golden_candidate.write(folder, entry, outputs(entry, attribute("count_include_pad", 1)))
    command = ["golden", "judge", str(folder), "--only", entry.name, "--json", str(report)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert "padding counted" in done.stdout
    document = json.loads(report.read_text())
    assert document["exit_code"] == 1
    assert document["rows"][0]["verdict"] == "fail"


def test_discrete_results_are_judged(tmp_path: Path) -> None:
    entry = ENTRIES["tracker/ordinary"]
    golden_candidate.write(tmp_path, entry, entry.tensors("truth."))
    document = entry.decisions()
    (tmp_path / f"{entry.name}.json").write_text(json.dumps(document))
    assert judge(tmp_path, only=[entry.name]).exit_code == 0
    document["results"]["permutations"][0] = document["results"]["permutations"][0][::-1]
    (tmp_path / f"{entry.name}.json").write_text(json.dumps(document))
    judgement = judge(tmp_path, only=[entry.name])
    assert judgement.exit_code == 1
    assert [row.output for row in judgement.rows if row.verdict == "fail"] == ["permutations"]
    (tmp_path / f"{entry.name}.json").unlink()
    assert judge(tmp_path, only=[entry.name]).exit_code == 2


def test_float16_is_judged_by_its_own_bound(tmp_path: Path) -> None:
    entry = ENTRIES["operations/conv.same"]
    golden_candidate.write(tmp_path, entry, {"output": outputs(entry)["output"].astype(np.float16)})
    (row,) = judge(tmp_path, only=[entry.name]).rows
    assert (row.format, row.verdict) == ("float16", "pass")
    wide = outputs(entry)["output"].astype(np.float16).astype(np.float32)
    golden_candidate.write(tmp_path, entry, {"output": wide})
    assert judge(tmp_path, only=[entry.name]).exit_code == 1


def test_no_folder_no_pattern(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such folder"):
        judge(tmp_path / "absent")
    with pytest.raises(FileError, match="empty"):
        judge(tmp_path)
    (tmp_path / "a").write_text("b")
    with pytest.raises(FileError, match="no golden is named 'conv'"):
        judge(tmp_path, only=["conv"])


def test_a_damaged_set_is_refused(tmp_path: Path) -> None:
    data, mine = tmp_path / "data", tmp_path / "mine"
    shutil.copytree(ENTRIES["operations/conv.same"].folder, data)
    entry = ENTRIES["operations/conv.same"]
    golden_candidate.write(mine, entry, outputs(entry))
    path = data / f"{entry.name}.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(FileError, match="SHA-256"):
        judge(mine, data, [entry.name])
