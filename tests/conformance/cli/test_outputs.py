"""Nothing lost: no command lets an output take the place of an input, of another output, or of a file that is
somebody else's."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_examples import COMMANDS, EXAMPLES, MODES, chunks, write_inputs
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from narrow_network import OPTIONS
from PIL import Image
from typer.testing import CliRunner

import conformance.cli
from conformance.cli.job import Job, options_of
from conformance.cli.output_files import (
    GIF,
    HTML,
    JSON,
    MARKDOWN,
    ONNX,
    PNG,
    WEIGHTS,
    XML,
    Input,
    Kind,
    Output,
    Reads,
    Writes,
    check_outputs,
)
from refimpl.errors import FileError, MobileInstError

pytestmark = pytest.mark.usefixtures("small_backbones")

DERIVED = {"output", "results", "path"}
"""Options that name outputs in a way of their own, without a mark."""


def words_with(line: str, changed: dict[str, str]) -> list[str]:
    """Return a command line in which some options have another value."""
    found = dict(chunks(line))
    name = next(name for name in COMMANDS if found[""][: len(name.split())] == name.split())
    places = [each.name for each in COMMANDS[name].params if each.param_type_name == "argument"]
    words = list(found[""])
    for option, value in changed.items():
        if option in found:
            found[option] = [found[option][0], value]
        else:
            words[len(name.split()) + places.index(option)] = value
    return words + [word for option in found if option for word in found[option]]


def values(mode: type[Job], line: str, names: set[str]) -> dict[str, str]:
    """Return the value that a line gives each of some options, if it gives it."""
    found = chunks(line)
    places = [each.name for each in COMMANDS[MODES[mode]].params if each.param_type_name == "argument"]
    positional = dict(zip(places, found[""][len(MODES[mode].split()) :], strict=False))
    return {
        name: found[name][-1] if name in found else positional[name] for name in names & {*found, *positional}
    }


def outputs(mode: type[Job], line: str) -> dict[str, str]:
    """Return the outputs a line names, by option."""
    options = options_of(mode)
    written = {name for name, option in options.items() if option.marked(Writes)}
    derived = {name for name in DERIVED & set(options) if not options[name].marked(Reads)}
    return values(mode, line, written | derived)


def inputs(mode: type[Job], line: str) -> dict[str, str]:
    """Return the inputs a line names, by option."""
    marked = {name for name, option in options_of(mode).items() if option.marked(Reads)}
    return {
        name: value
        for name, value in values(mode, line, marked).items()
        if name not in ("runner", "candidate", "command")
    }


def hard_link(path: Path) -> Path:
    (path.parent / "linked").mkdir(exist_ok=True)
    os.link(path, path.parent / "linked" / "another")
    return path.parent / "linked" / "another"


def symlink(path: Path) -> Path:
    (path.parent / "pointing").symlink_to(path.absolute())
    return path.parent / "pointing"


def through_a_folder(path: Path) -> Path:
    (path.parent / "here").symlink_to(path.parent.absolute())
    return path.parent / "here" / path.name


WAYS: dict[str, Callable[[Path], Path]] = {
    "the same": lambda path: path,
    "absolute": lambda path: path.absolute(),
    "roundabout": lambda path: path.parent / ".." / path.absolute().parent.name / path.name,
    "symbolic link": symlink,
    "hard link": hard_link,
    "linked folder": through_a_folder,
}


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder with its bytes."""
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def refused(words: list[str]) -> str:
    """Return what a command says that refuses its outputs before any work."""
    with pytest.MonkeyPatch.context() as patch:
        for mode in MODES:
            patch.setattr(mode, "run", lambda self: pytest.fail(f"it has begun: {words}"))
        result = CliRunner().invoke(conformance.cli.app, words)
    if isinstance(result.exception, MobileInstError):
        return str(result.exception)
    assert result.exit_code == 2, (words, result.exception)
    return result.output


def clashes() -> Iterator[tuple[type[Job], str, str, str]]:
    """Yield each output of each mode with each of its inputs and other outputs."""
    for mode, lines in EXAMPLES.items():
        line = lines[0].replace(
            " --video --fold", " --fold"
        )  # of a video, files beside MODEL.onnx are written
        for output in outputs(mode, line):
            for other in {**inputs(mode, line), **outputs(mode, line)}:
                if other != output:
                    yield mode, line, output, other


CLASHES = list(clashes())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every input."""
    folder = tmp_path_factory.mktemp("made")
    write_inputs(folder)
    return folder


BEGINNING = 1 << 16
"""Bytes of an input: what it is told by, while nothing is computed of it."""


def copied(made: Path, place: Path) -> None:
    """Give a folder its own beginning of each input: more is not read, and a hard link were the same file."""
    for source in made.rglob("*"):
        target = place / source.relative_to(made)
        if source.is_file():
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(source.read_bytes()[:BEGINNING])
        else:
            target.mkdir(exist_ok=True)


def test_there_are_clashes_of_every_command_that_writes() -> None:
    assert {MODES[mode] for mode, *_ in CLASHES} >= {"verify", "export", "run", "track", "evaluate", "faults"}
    assert len(CLASHES) > 100


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(clash=st.sampled_from(CLASHES), way=st.sampled_from(list(WAYS)))
def test_an_output_is_no_input_and_no_other_output(
    made: Path, tmp_path_factory: pytest.TempPathFactory, clash: tuple[type[Job], str, str, str], way: str
) -> None:
    mode, line, output, other = clash
    place = tmp_path_factory.mktemp("clash")
    copied(made, place)
    named = {**inputs(mode, line), **outputs(mode, line)}[other]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        target = victim(Path(named), is_folder(mode, output), "link" in way)
        aliased = WAYS[way](target)
        before = contents(place)
        refused(words_with(line, {output: str(aliased)}))
        assert contents(place) == before


def is_folder(mode: type[Job], output: str) -> bool:
    """Tell whether an option names a folder that is written."""
    marks = options_of(mode)[output].marked(Writes)
    return marks[0].kind is None if marks else output == "output" and MODES[mode] in ("sweep", "track")


def victim(path: Path, wanted_folder: bool, links: bool) -> Path:
    """Return what would be lost: the path, or a file in it; made, if a link is to lead there."""
    if path.is_dir() and not wanted_folder:
        assume(any(path.iterdir()))
        return next(path.iterdir())
    assume(not (path.is_dir() and links))
    if links and not path.exists():
        assume(not wanted_folder)
        path.touch()
    return path


# Kinds.


def written(kind: str, path: Path) -> None:
    """Write a file of a kind by the library whose kind it is."""
    if kind == "JSON":
        path.write_text(json.dumps([1]))
    elif kind == "PNG":
        Image.new("RGB", (2, 2)).save(path, "png")
    elif kind == "GIF":
        Image.new("P", (2, 2)).save(path, "gif")
    elif kind == "ONNX":
        graph = onnx.helper.make_graph([], "g", [], [])
        onnx.save(onnx.helper.make_model(graph), path)
    elif kind == "weights":
        with path.open("wb") as file:
            np.savez(file, a=np.zeros(3))
    else:
        path.write_text(
            {"HTML": "<!doctype html><p>", "JUnit XML": "<?xml version='1.0'?><testsuites/>"}[kind]
        )


KINDS = [JSON, HTML, XML, PNG, GIF, ONNX, WEIGHTS]


@pytest.mark.parametrize("wanted", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("there", KINDS, ids=lambda kind: kind.name)
def test_a_file_of_another_kind_is_replaced_by_force_only(wanted: Kind, there: Kind, tmp_path: Path) -> None:
    written(there.name, tmp_path / "it")
    output = Output("--out", tmp_path / "it", wanted)
    check_outputs([output], [], force=True)
    if wanted is there:
        check_outputs([output], [])
    else:
        with pytest.raises(FileError, match=f"--out .*is no {wanted.name} file; .*--force"):
            check_outputs([output], [])


@pytest.mark.parametrize("kind", [*KINDS, MARKDOWN], ids=lambda kind: kind.name)
def test_an_empty_file_may_be_filled_and_text_may_not(kind: Kind, tmp_path: Path) -> None:
    (tmp_path / "it").touch()
    check_outputs([Output("--out", tmp_path / "it", kind)], [])
    (tmp_path / "it").write_text("my notes of ten years\n")
    with pytest.raises(FileError, match="is there and is no"):
        check_outputs([Output("--out", tmp_path / "it", kind)], [])


def test_only_json_goes_to_standard_output() -> None:
    """A file named ``-`` is what nobody wants."""
    assert Writes(JSON).files("--json", "-") == []
    for kind in (MARKDOWN, HTML, ONNX, None):
        with pytest.raises(FileError, match="--it -: only JSON is written to standard output"):
            Writes(kind).files("--it", "-")


def test_safetensors_are_weights(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3)}, tmp_path / "it")
    check_outputs([Output("--out", tmp_path / "it", WEIGHTS)], [])


# Single ones.


def test_the_weights_beside_a_model_are_an_input(tmp_path: Path) -> None:
    tensor = onnx.numpy_helper.from_array(np.zeros(2000, np.float32), "w")
    graph = onnx.helper.make_graph([], "g", [], [], [tensor])
    model = onnx.helper.make_model(graph)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    with pytest.raises(FileError, match=r"would overwrite .*m\.data, which MODEL reads"):
        check_outputs(
            [Output("--json", tmp_path / "m.data", JSON)], [Input("MODEL", tmp_path / "m.onnx")], force=True
        )


def test_force_does_not_reach_an_input(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(FileError, match="would overwrite"):
        check_outputs(
            [Output("--json", tmp_path / "x", JSON)], [Input("--input", tmp_path / "x")], force=True
        )


def test_a_new_file_in_a_folder_that_is_read_is_no_loss(tmp_path: Path) -> None:
    check_outputs([Output("--json", tmp_path / "r.json", JSON)], [Input("FOLDER", tmp_path)])
    (tmp_path / "r.json").touch()
    with pytest.raises(FileError, match="would overwrite"):
        check_outputs([Output("--json", tmp_path / "r.json", JSON)], [Input("FOLDER", tmp_path)])


def test_tracking_replaces_its_own_results_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    line = shlex.split("track --demo --oracle --count 1 --output out")
    (tmp_path / "out").mkdir()
    for name in ("results.json", "run.json", "tracks.gif"):
        (tmp_path / "out" / name).write_text("[]")
        assert "no earlier result of this command" in refused(line)
        assert contents(tmp_path) == {str(tmp_path / "out" / name): b"[]"}
        (tmp_path / "out" / name).unlink()
    (tmp_path / "out" / "my notes.txt").write_text("kept")
    for _ in range(2):
        assert CliRunner().invoke(conformance.cli.app, line).exit_code == 0
    assert (tmp_path / "out" / "my notes.txt").read_text() == "kept"
    (tmp_path / "out" / "run.json").unlink()
    assert "--force" in refused(line)
    assert CliRunner().invoke(conformance.cli.app, [*line, "--force"]).exit_code == 0


REPEATED = [
    f"export a.onnx {shlex.join(OPTIONS)} --size 64x96 --save-weights w.npz",
    f"export a.onnx {shlex.join(OPTIONS)} --size 64x96 --save-weights w.safetensors",
    f"export t.onnx {shlex.join(OPTIONS)} --size 64x96 --target tnn",
    f"export v.onnx {shlex.join(OPTIONS)} --size 64x96 --video",
    "golden curve c.svg",
    "verify g.onnx --graph-only --json j --html h --junit x --markdown m",
    f"run p.png {shlex.join(OPTIONS)} --size 64x96",
    "track --demo --oracle --count 1 --animate",
]


@pytest.mark.parametrize("line", REPEATED)
def test_what_a_command_has_written_it_replaces(
    line: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("g.onnx", "p.png"):
        (tmp_path / name).write_bytes((made / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        result = CliRunner().invoke(conformance.cli.app, shlex.split(line))
        assert result.exit_code == 0, result.exception
