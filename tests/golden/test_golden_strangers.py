"""Sets of goldens that strangers made: nothing outside the folder is touched, no code is injected."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from conformance.cli import app
from golden import DATA
from golden.build import build, check_replaceable
from golden.export import WRITERS, export
from golden.store import integrity_problems, read_manifest, sha256, write_tensors
from refimpl.errors import FileError

NAME = "operations/abs.ordinary"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A set of one golden."""
    folder = tmp_path / "small"
    (folder / "operations").mkdir(parents=True)
    for suffix in ("safetensors", "onnx"):
        shutil.copy(DATA / f"{NAME}.{suffix}", folder / "operations")
    document = json.loads((DATA / "manifest.json").read_text())
    document["goldens"] = [record for record in document["goldens"] if record["name"] == NAME]
    (folder / "manifest.json").write_text(json.dumps(document))
    return folder


def changed(folder: Path, change: Any) -> Path:
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    change(document["goldens"][0])
    path.write_text(json.dumps(document))
    return folder


def command(*words: object) -> Any:
    return CliRunner().invoke(app, ["golden", *map(str, words)], catch_exceptions=True)


def everything_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize(
    "name", ["../escaped/owned", "/tmp/owned", "operations/../../owned", "a\n", "a\0b", "", "x/y" * 200, 3]
)
@pytest.mark.parametrize("form", WRITERS)
def test_a_name_does_not_leave_the_folder(name, form, small, tmp_path):
    def rename(record):
        record.update(name=name, tensors={}, outputs=[], files=[])

    before = everything_below(tmp_path)
    with pytest.raises(FileError):
        export(tmp_path / "out", form, changed(small, rename))
    assert everything_below(tmp_path) == before


@pytest.mark.parametrize(
    "path", ["../../etc/passwd", "/etc/passwd", "operations/other.onnx", "manifest.json"]
)
def test_a_file_of_another_name_is_refused(path, small):
    with pytest.raises(FileError, match=r"manifest\.json"):
        read_manifest(changed(small, lambda record: record["files"][0].update(path=path)))


@pytest.mark.parametrize("output", ["../../owned", "a/b", "x; system()", 'y"', "\u202e"])
def test_a_tensors_name_becomes_no_path_and_no_code(output, small, tmp_path):
    path = small / f"{NAME}.safetensors"
    tensors = {"input.x": np.zeros(3, np.float32), f"truth.{output}": np.zeros(3)}
    write_tensors(path, tensors, NAME)

    def rename(record):
        record["outputs"] = [output]
        record["tensors"] = {
            "input.x": {"dtype": "F32", "shape": [3]},
            f"truth.{output}": {"dtype": "F64", "shape": [3]},
        }
        record["files"][0].update(bytes=path.stat().st_size, sha256=sha256(path))

    assert integrity_problems(read_manifest(small)[0])
    for form in WRITERS:
        with pytest.raises(FileError):
            export(tmp_path / "out", form, changed(small, rename))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "shows",
    ['*/\nint main(void){return system("id");}\n/*', "\\\n*/ int x; /*", "??/\n*/ int y; /*", "**/ int z;"],
)
def test_what_a_golden_shows_is_no_code(shows, small, tmp_path):
    export(tmp_path / "out", "c-header", changed(small, lambda record: record.update(shows=shows)))
    text = (tmp_path / "out" / f"{NAME}.h").read_text()
    assert text.count("*/") == 1
    assert text.splitlines()[1] == "#pragma once"


def test_two_tensors_of_one_c_name_are_refused(small, tmp_path):
    path = small / f"{NAME}.safetensors"
    write_tensors(path, {"truth.a.b": np.zeros(3), "truth.a_b": np.zeros(3)}, NAME)

    def rename(record):
        record["outputs"] = ["a.b", "a_b"]
        record["tensors"] = {f"truth.{n}": {"dtype": "F64", "shape": [3]} for n in record["outputs"]}
        record["files"][0].update(bytes=path.stat().st_size, sha256=sha256(path))

    with pytest.raises(FileError, match="would both be called"):
        export(tmp_path / "out", "c-header", changed(small, rename))


# Every record of the manifest, damaged in every place.


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


@pytest.mark.parametrize("replacement", [None, 1.5, -1, "x", [], {}, True, [[]], float("nan"), 10**400])
def test_a_manifest_damaged_anywhere_is_a_named_error_or_reads_the_same(replacement, small, tmp_path):
    original = json.loads((small / "manifest.json").read_text())
    for place in places(original["goldens"][0]):
        document = copy.deepcopy(original)
        parent = document["goldens"]
        for key in (0, *place)[:-1]:
            parent = parent[key]
        parent[(0, *place)[-1]] = replacement
        (small / "manifest.json").write_text(json.dumps(document))
        for words in (["check", "--data", small], ["export", tmp_path / "out", "--data", small]):
            done = command(*words)
            named = done.exception is None or isinstance(done.exception, FileError | SystemExit)
            assert named, (place, done.exception)
            shutil.rmtree(tmp_path / "out", ignore_errors=True)


# --- building -------------------------------------------------------------------------------------


def test_build_refuses_a_folder_that_is_no_set(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(FileError, match="is no set of goldens"):
        build([], tmp_path / "mine", lambda name: pytest.fail("no work before the check"))
    assert os.listdir(tmp_path / "mine") == ["thesis.tex"]
    assert os.listdir(tmp_path) == ["mine"]


@pytest.mark.parametrize("content", ["{", "[]", '{"format": "other"}', "null", "[" * 100_000])
def test_build_refuses_a_folder_with_another_manifest(content, tmp_path):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(FileError):
        check_replaceable(tmp_path)


@pytest.mark.parametrize("make", ["file", "link", "link to nothing"])
def test_build_refuses_a_set_with_a_file_of_somebody_else(make, small, tmp_path):
    check_replaceable(small)
    mine = small / "operations" / "notes.md"
    if make == "file":
        mine.write_text("mine")
    else:
        mine.symlink_to(tmp_path if make == "link" else tmp_path / "nothing")
    with pytest.raises(FileError, match=r"1 files are not of the set .*notes\.md"):
        check_replaceable(small)


@pytest.mark.runtimes
def test_build_takes_the_place_of_an_empty_folder_or_a_set(small, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", small):
        build([], folder)
        assert os.listdir(folder) == ["manifest.json"]


def test_build_names_a_file_in_the_place(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileError):
        build([], tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


# --- a disk that is full --------------------------------------------------------------------------

LIMITED = """
import resource, sys
# Bytecode that the limit cuts off would be taken for whole by whoever comes next.
sys.dont_write_bytecode = True
resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))
from conformance.cli import main
sys.argv = ["mobileinst", "golden", "export", sys.argv[1], "--format", "npy", "--only", "operations/conv*"]
main()
"""


def test_an_export_that_does_not_fit_leaves_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "out")], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "cannot write" in done.stderr
    assert os.listdir(tmp_path) == []
