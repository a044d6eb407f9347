"""A sweep from the command line, in this process: what it finds, keeps, and goes on with."""

from __future__ import annotations

import errno
import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from narrow_network import FIELDS, OPTIONS
from PIL import Image
from sweep_folder import fill
from typer.testing import CliRunner

import conformance.cli
from conformance.cli.sweep import SweepJob
from conformance.files import atomic_write
from conformance.sweep import sweep as sweeps
from conformance.sweep.pictures import find_pictures
from conformance.sweep.rows import read_rows
from refimpl.errors import ConfigurationError, FileError, SpaceError

pytestmark = pytest.mark.usefixtures("small_backbones")

COUNT, BROKEN, SHARE = 9, "4.png", "0.2"
"""More than one part holds."""

CANDIDATE = """
import os
import onnxruntime

session = onnxruntime.InferenceSession("n.onnx")
names = [output.name for output in session.get_outputs()]


def right(images):
    return dict(zip(names, session.run(names, {"images": images})))


def wrong_on_few(images):
    outputs = right(images)
    if abs(float(images[0, 0, 0, 0]) - BRIGHT) < 1e-3:
        outputs["masks"] = outputs["masks"] + 1
    if abs(float(images[0, 0, 0, 0]) - DEADLY) < 1e-3:
        os.kill(os.getpid(), 9)
    return outputs
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, small_backbones: None) -> Path:
    """The narrow network, and pictures of which one is broken."""
    place = tmp_path_factory.mktemp("sweep")
    fill(place, COUNT)
    broken = place / "pictures" / BROKEN
    broken.write_bytes(broken.read_bytes()[:200])
    return place


@pytest.fixture(scope="module", autouse=True)
def _quickly_calibrated() -> Iterator[None]:
    """Two pictures have all that three have: a smallest bound, and steps that both hold."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweeps, "CALIBRATED", 2)
        yield


@pytest.fixture(autouse=True)
def _typed_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))


def swept(*words: str) -> tuple[int, dict[str, Any]]:
    """Return the exit code and the report of a sweep."""
    line = ["sweep", *OPTIONS, "--weights", "w.npz", "--json", "j.json", "--inputs", "pictures", *words]
    result = CliRunner().invoke(conformance.cli.app, line)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, json.loads(Path("j.json").read_text())


def first_red(name: str) -> float:
    """Return the first number of what the network is fed of a picture."""
    red = np.asarray(Image.open(f"pictures/{name}"))[0, 0, 0]
    return (float(red) - 123.675) / 58.395


def rows_of(folder: str, table: str) -> list[dict[str, Any]]:
    return [row for part in read_rows(Path(folder, "parts"), table) for row in part]


def without_costs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    varying = {"seconds", "processor", "ended", "resident", "reference_cached", "worker"}
    return [{key: value for key, value in row.items() if key not in varying} for row in rows]


@pytest.fixture(scope="module")
def whole(folder: Path) -> tuple[int, dict[str, Any]]:
    """The exit code and the report of a sweep of a right model, whose rows are in the folder ``whole``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        return swept("n.onnx", "--share", SHARE, "--output", "whole")


def test_a_right_model_passes_and_a_broken_picture_is_named(whole: tuple[int, dict[str, Any]]) -> None:
    code, report = whole
    assert (code, report["verdict"]) == (2, "not judged")
    assert report["verdicts"] == {"pass": COUNT - 1, "not judged": 1}
    (failure,) = report["failures"]
    assert failure["picture"] == BROKEN
    assert "not a readable picture" in failure["says"]


def test_every_picture_has_rows(whole: tuple[int, dict[str, Any]]) -> None:
    _, report = whole
    rows = rows_of("whole", "steps")
    judged = {row["picture"]: row["judged"] for row in rows}
    assert judged.keys() == {f"{seed}.png" for seed in range(COUNT)} - {BROKEN}
    outputs = [row for row in rows if row["part"] == "output" and row["step"] == "masks"]
    assert len(outputs) == COUNT - 1
    assert all(row["error"] <= row["bound"] for row in outputs)
    assert all(row["utilisation"] <= 0.5 for row in outputs if row["judged"] == "screened")
    (kept,) = (item for item in report["decisions"] if item["kind"] == "kept instances")
    assert kept["count"] == (COUNT - 1) * FIELDS["num_queries"]


def test_a_share_is_judged_in_full(whole: tuple[int, dict[str, Any]]) -> None:
    assert 0 < whole[1]["judged"]["full"] < COUNT - 1
    full = [row for row in rows_of("whole", "steps") if row["judged"] == "full" and row["part"] == "step"]
    assert len({row["step"] for row in full}) > 150


def test_a_fault_and_a_crash_on_one_picture_each_are_results() -> None:
    code = CANDIDATE.replace("BRIGHT", str(first_red("2.png"))).replace("DEADLY", str(first_red("7.png")))
    Path("c.py").write_text(code)
    alike = {first_red(f"{seed}.png") for seed in range(COUNT) if seed not in (2, 4, 7)}
    assert not alike & {first_red("2.png"), first_red("7.png")}
    words = ("--candidate", "python:c.py:wrong_on_few", "--size", "64x96", "--share", "0", "--output", "few")
    exit_code, report = swept(*words)
    assert (exit_code, report["verdict"]) == (1, "fail")
    failures = {each["picture"]: each for each in report["failures"]}
    assert failures.keys() == {"2.png", "7.png", BROKEN}
    assert "masks" in failures["2.png"]["says"]
    assert "SIGKILL" in failures["7.png"]["says"]
    worst = next(each for each in report["worst"] if each["step"] == "masks" and each["part"] == "output")
    assert (worst["picture"], worst["failed"]) == ("2.png", 1)
    again = CliRunner().invoke(conformance.cli.app, shlex.split(failures["2.png"]["command"])[1:])
    assert again.exit_code == 1


@pytest.mark.usefixtures("whole")
def test_no_space_left_keeps_what_is_finished_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    write, words = sweeps.write_part, ("n.onnx", "--share", SHARE, "--output", "parted")

    def full(folder: Path, place: int, rows: Any) -> int:
        if place:
            with atomic_write(folder / "x"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(folder, place, rows)

    monkeypatch.setattr(sweeps, "write_part", full)
    with pytest.raises(FileError, match="No space left"):
        swept(*words)
    assert len(rows_of("parted", "pictures")) == COUNT - 1
    monkeypatch.setattr(sweeps, "write_part", write)
    with pytest.raises(FileError, match="--resume"):
        swept(*words)
    swept(*words, "--resume")
    for table in ("pictures", "steps", "decisions"):
        assert without_costs(rows_of("parted", table)) == without_costs(rows_of("whole", table))
    cached = [row["reference_cached"] for row in rows_of("parted", "pictures")]
    assert sum(filter(None, cached)) >= COUNT - 4  # but where steps are looked at


@pytest.mark.usefixtures("whole")
def test_no_space_for_the_candidate_ends_it_and_it_goes_on() -> None:
    """Whether before any picture is judged, or later: no picture is said to be the candidate's fault."""
    full = "import errno, os\nif os.path.exists('full'):\n    raise OSError(errno.ENOSPC, 'No space left')\n"
    indented = "    " + full.replace("\n", "\n    ").rstrip()
    Path("d.py").write_text(CANDIDATE.replace("def right(images):\n", f"def right(images):\n{indented}\n"))
    words = ("--candidate", "python:d.py:right", "--size", "64x96", "--share", "0", "--output", "short")
    Path("full").touch()
    for more in ((), ("--resume",)):
        with pytest.raises(SpaceError, match="cannot write temporary files"):
            swept(*words, *more)
    assert rows_of("short", "pictures") == []
    Path("full").unlink()
    assert swept(*words, "--resume")[1]["verdict"] == "not judged"  # of a picture that cannot be read
    for place in Path("short/parts").iterdir():
        place.unlink()
    Path("full").touch()
    with pytest.raises(SpaceError, match="cannot write temporary files"):
        swept(*words, "--resume")
    assert rows_of("short", "pictures") == []


@pytest.mark.usefixtures("whole")
def test_a_sweep_of_something_else_does_not_go_on() -> None:
    with pytest.raises(ConfigurationError, match="another share"):
        swept("n.onnx", "--share", "0.5", "--resume", "--output", "whole")
    Path("pictures/extra.png").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="another pictures"):
        swept("n.onnx", "--share", SHARE, "--resume", "--output", "whole")
    Path("pictures/extra.png").unlink()
    with pytest.raises(ConfigurationError, match="holds no sweep"):
        swept("n.onnx", "--resume", "--output", "new")


@pytest.mark.usefixtures("whole")
def test_other_weights_formats_or_files_of_the_candidate_do_not_go_on() -> None:
    on = ("n.onnx", "--share", SHARE, "--resume", "--output", "whole")
    with np.load("w.npz") as held:
        np.savez("others.npz", **{name: 1.5 * array for name, array in held.items()})
    with pytest.raises(ConfigurationError, match="another weights"):
        swept(*on, "--weights", "others.npz")
    with pytest.raises(ConfigurationError, match="another formats"):
        swept(*on, "--arithmetic", "float16")
    Path("e.py").write_text(CANDIDATE)
    words = ("--candidate", "python:e.py:right", "--size", "64x96", "--share", "0", "--output", "of a file")
    swept(*words)
    Path("e.py").write_text(f"{CANDIDATE}\n")
    with pytest.raises(ConfigurationError, match="another model"):
        swept(*words, "--resume")


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize("kept", [0, 100])
def test_a_damaged_part_is_named_and_judged_again(kept: int) -> None:
    words = ("n.onnx", "--share", SHARE, "--output", "whole", "--resume")
    for table in ("steps", "pictures"):
        (path,) = Path("whole/parts").glob(f"000001.{table}.*")
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(FileError, match=f"{path.name} is damaged .* delete the files 000001"):
            swept(*words)
        for file in Path("whole/parts").glob("000001.*"):
            file.unlink()
        Path("whole/parts/notes.pictures.txt").touch()
        assert swept(*words)[1]["verdicts"] == {"pass": COUNT - 1, "not judged": 1}


def test_a_command_says_which_weights_where_nobody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verify takes trained ones then, and would judge by another network."""
    Path("f.py").write_text(CANDIDATE)
    line = ["sweep", "--candidate", "python:f.py:right", "--inputs", "pictures", "--json", "j.json"]
    said: list[str] = []
    monkeypatch.setattr(SweepJob, "_setup", lambda job, pictures: said.extend(job._network_words()) or 1 / 0)
    assert isinstance(CliRunner().invoke(conformance.cli.app, line).exception, ZeroDivisionError)
    assert said[said.index("--seed") + 1] == "0"


def test_a_picture_whose_name_is_no_text_is_judged_as_any_other() -> None:
    place = Path("named")
    place.mkdir()
    for number, name in enumerate((b"0.png", b"\xff.png")):
        (place / os.fsdecode(name)).write_bytes(Path(f"pictures/{number}.png").read_bytes())
    words = ("n.onnx", "--inputs", "named", "--output", "of names", "--html", "names.html")
    exit_code, report = swept(*words, "--share", "0")
    assert (exit_code, report["verdict"]) == (0, "pass")
    assert [row["picture"] for row in rows_of("of names", "pictures")] == ["0.png", r"\udcff.png"]
    pictures = find_pictures(place)
    assert pictures.file_of(r"\udcff.png").is_file()


def test_no_two_pictures_have_one_name(tmp_path: Path) -> None:
    files = [b"\xff.png", rb"\udcff.png", b"\n.png", rb"\n.png"]
    for file in files:
        (tmp_path / os.fsdecode(file)).touch()
    pictures = find_pictures(tmp_path)
    assert {os.fsencode(pictures.file_of(name).name) for name in pictures.names} == set(files)


def test_hidden_files_are_none_of_the_pictures_and_links_to_nothing_are(tmp_path: Path) -> None:
    """Beside each picture, macOS keeps what its own file systems know of it under ._NAME on others."""
    for name in ("1.png", "._1.png", ".thumbs/1.png", "in/2.png", "in/._2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "3.png").symlink_to("nowhere.png")
    assert list(find_pictures(tmp_path).names) == ["1.png", "3.png", "in/2.png"]


def test_nothing_to_judge_is_refused() -> None:
    for name in ("unreadable", "empty"):
        Path(name).mkdir()
    Path("unreadable/1.png").write_bytes(b"GIF89a")
    with pytest.raises(FileError, match="none of the 1 pictures can be read"):
        swept("n.onnx", "--inputs", "unreadable")
    with pytest.raises(FileError, match="holds no picture"):
        swept("n.onnx", "--inputs", "empty")
