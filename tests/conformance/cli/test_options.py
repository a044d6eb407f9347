"""No option is left out in silence: in every mode of every command it is used, or refused with exit code 2.

The commands are walked as they are: a new option fails here until every mode that takes it reads it, and
until each two options of a mode are used together in an example, or refuse each other.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import shlex
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args, get_type_hints

import numpy as np
import onnx
import pytest
from command_examples import COMMANDS, EXAMPLES, MODES, chunks, modes_of, write_inputs
from narrow_network import CONFIG, picture, weights
from tnn_data import naive_outputs
from typer.testing import CliRunner

import conformance.cli
from conformance.candidates.plain import NumpyCandidate
from conformance.cli import (
    bench,
    candidate,
    check_tracker,
    convert,
    cost,
    course,
    explain_model,
    faults,
    held_out_evaluation,
    matrix,
    planted,
    sweep,
    verify_against,
    verify_graph,
    verify_recorded,
    verify_tnn,
)
from conformance.cli.job import Beside, Job, Unless, options_of
from conformance.evidence.planted import Result
from conformance.evidence.runtime_matrix import Cell
from conformance.judge.network import verify
from conformance.reports.report import InputReport, Report
from conformance.reports.sweep_report import SweepReport
from refimpl.errors import ConfigurationError

pytestmark = pytest.mark.usefixtures("small_backbones")

CHOOSING = {"force", "benchmark", "demo"}
"""Options that choose the mode, or are read for all commands in one place."""


def given_in(mode: type[Job], line: str) -> set[str]:
    """Return the options that a line gives, the arguments among them."""
    named = set(chunks(line)) - {""}
    arguments = {each.name for each in COMMANDS[MODES[mode]].params if each.param_type_name == "argument"}
    return named | (arguments & set(options_of(mode)))


def base(mode: type[Job]) -> list[str]:
    """Return the shortest line that chooses a mode."""
    found = chunks(EXAMPLES[mode][0])
    kept = {name for name in mode.chosen_by if name in found}
    return found[""] + [
        word for name in found if name in (set(list(kept)[:1]) | CHOOSING - {"force"}) for word in found[name]
    ]


def words_of(name: str, command: str) -> list[str]:
    """Return words that give an option, as some example has them."""
    for mode, lines in EXAMPLES.items():
        for line in lines if MODES[mode] == command else ():
            if name in chunks(line):
                return chunks(line)[name]
    pytest.fail(f"no example of {command} gives {name}; add one to command_examples.py")


# The walk.

TEXTS = [
    (name, each.opts[0])
    for name, command in COMMANDS.items()
    for each in command.params
    if each.param_type_name == "option" and each.type_descriptor.annotation is str and not each.multiple
]


@pytest.mark.parametrize(("command", "option"), TEXTS)
@pytest.mark.parametrize("text", ["", " "])
def test_an_option_without_text_is_refused(command: str, option: str, text: str) -> None:
    run = CliRunner().invoke(conformance.cli.app, [*command.split(), option, text])
    assert isinstance(run.exception, SystemExit | ConfigurationError)
    assert run.exit_code != 0


def test_options_of_text_are_walked() -> None:
    assert {"--model", "--candidate", "--command", "--method"} <= {option for _, option in TEXTS}


@pytest.mark.parametrize("text", ["", " "])
def test_a_configuration_without_a_name_is_not_the_default(text: str) -> None:
    run = CliRunner().invoke(conformance.cli.app, ["cost", "--model", text])
    assert "--model is empty" in str(run.exception)


def test_every_mode_has_examples() -> None:
    assert set(COMMANDS) == set(MODES.values())
    assert set(EXAMPLES) == set(MODES)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_belongs_to_a_mode(name: str) -> None:
    taken = {option for mode in modes_of(name) for option in options_of(mode)}
    assert {each.name for each in COMMANDS[name].params if each.name != "help"} == taken


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with every input, in which the commands are typed."""
    folder = tmp_path_factory.mktemp("place")
    for source in inputs(tmp_path_factory).iterdir():
        (folder / source.name).symlink_to(source)
    monkeypatch.chdir(folder)
    return folder


KEPT: list[Path] = []


def inputs(factory: pytest.TempPathFactory) -> Path:
    """Write the inputs once."""
    if not KEPT:
        KEPT.append(factory.mktemp("inputs"))
        write_inputs(KEPT[0])
    return KEPT[0]


@pytest.fixture
def among_inputs(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Type where every input is: for commands that do not begin."""
    monkeypatch.chdir(inputs(tmp_path_factory))


def refused(words: list[str]) -> str:
    """Return what a command says that refuses its options, and fail if it begins any work."""
    with pytest.MonkeyPatch.context() as patch:
        for mode in MODES:
            patch.setattr(mode, "run", lambda self: pytest.fail(f"{type(self).__name__} has begun: {words}"))
        result = CliRunner().invoke(conformance.cli.app, words)
    if isinstance(result.exception, ConfigurationError):
        return str(result.exception)
    if result.exit_code == 2:
        return result.output
    raise result.exception or AssertionError(words)


def foreign() -> Iterator[tuple[type[Job], str]]:
    """Yield every mode, with every option of its command that it lacks and that chooses no mode before it."""
    for mode, command in MODES.items():
        modes = modes_of(command)
        earlier = {name for each in modes[: modes.index(mode)] for name in each.chosen_by}
        for option in COMMANDS[command].params:
            name = str(option.name)
            if name not in {*options_of(mode), *earlier, "help"} and option.param_type_name == "option":
                yield mode, name


@pytest.mark.parametrize(("mode", "name"), list(foreign()), ids=lambda each: getattr(each, "__name__", each))
@pytest.mark.usefixtures("among_inputs")
def test_a_mode_refuses_what_it_does_not_have_and_names_who_has(mode: type[Job], name: str) -> None:
    said = refused([*base(mode), *words_of(name, MODES[mode])])
    assert "has no effect" in said
    takers = [each.doing for each in modes_of(MODES[mode]) if name in options_of(each)]
    assert "without" in said or "beside" in said or all(doing in said for doing in takers)


def pairs(mode: type[Job]) -> Iterator[tuple[str, str]]:
    """Yield each two options of a mode that no example gives together."""
    together = [given_in(mode, line) for line in EXAMPLES[mode]]
    names = [name for name in options_of(mode) if name not in {*CHOOSING, *mode.chosen_by}]
    for first, second in itertools.combinations(names, 2):
        if not any({first, second} <= given for given in together):
            yield first, second


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.__name__)
@pytest.mark.usefixtures("among_inputs")
def test_two_options_are_used_together_or_refuse_each_other(mode: type[Job]) -> None:
    for pair in pairs(mode):
        words = [word for name in pair for word in words_of(name, MODES[mode])]
        assert "no effect" in (said := refused([*base(mode), *words])) or "give one" in said, (pair, said)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.__name__)
@pytest.mark.usefixtures("among_inputs")
def test_what_needs_another_option_is_refused_without_it(mode: type[Job]) -> None:
    for name, option in options_of(mode).items():
        for mark in option.marked(Beside):
            if not set(mark.names) & given_in(mode, shlex.join(base(mode))):
                assert "no effect without" in refused([*base(mode), *words_of(name, MODES[mode])])


# What is used.


@functools.cache
def report() -> Report:
    """Return the verdict on a right network."""
    return verify(NumpyCandidate(CONFIG, weights()), CONFIG, weights(), {"x": picture()})


def named(inputs: dict[str, Any]) -> InputReport:
    """Return the verdict as one on the first of some inputs."""
    return replace(report().leading, name=next(iter(inputs)))


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """In place of the long work, what it returns: here options are followed, not judged."""
    for module, name in ((course, "verify"), (verify_tnn, "judge")):
        monkeypatch.setattr(module, name, lambda *given, **_: replace(report(), inputs=[named(given[3])]))
    for module, name in ((verify_graph, "verify_beside"), (verify_against, "verify_export")):
        monkeypatch.setattr(module, name, lambda *_, **__: report())
    monkeypatch.setattr(candidate, "IsolatedCandidate", lambda *_: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(course, "reproduce", lambda *_: None)
    monkeypatch.setattr(verify_recorded, "judge_folder", lambda _: replace(report(), model={"nodes": 1}))
    for module, name, value in (
        (bench, "measure", []),
        (bench, "measure_judging", ([], 0.0)),
        (bench, "measure_intervals", []),
        (bench, "measure_tracking", []),
        (bench, "profile", []),
        (bench, "peak_memory", 0.0),
        (cost, "paper_rows", []),
        (cost, "_paper_table", ""),
        (cost, "printed_rows", []),
        (convert, "convert", []),
        (convert, "export_module", None),
        (explain_model, "graph_page", ""),
        (matrix, "runtime_matrix", [Cell("ncnn", "1", "winograd=on", "pnnx", "pass")]),
        (faults, "write_faulty_models", []),
        (faults, "_judged", ([], [])),
        (planted, "judge_planted", Result([], 0, {})),
        (sweep, "dask_pool", nullcontext()),
        (sweep.Sweep, "check", None),
        (sweep, "_follow", None),
        (sweep, "merge", SweepReport("", "", "", 1, {}, {"pass": 1}, [], [0.0], [0], [], [])),
        (check_tracker, "caught_by", ["optimal"]),
        (held_out_evaluation, "evaluate", None),
        (held_out_evaluation, "evaluate_rivals", None),
        (held_out_evaluation, "evaluate_deployment", None),
        (held_out_evaluation, "draw_worst", None),
    ):
        monkeypatch.setattr(module, name, lambda *_, value=value, **__: value)
    for path, value in (
        ("conformance.graph.onnx_export.export_regions", onnx.ModelProto()),
        ("golden.learning.cli._run", None),
        ("golden.learning.cli._finish", None),
        ("golden.build.build", 0),
        ("golden.check.check", []),
        ("golden.judge.judge", SimpleNamespace(rows=(), problems=(), exit_code=0, to_json=dict)),
        ("golden.export.export", 0),
        ("golden.coverage.coverage", []),
    ):
        monkeypatch.setattr(path, lambda *_, value=value, **__: value)
    monkeypatch.setattr(verify_tnn, "AdbRunner", Phone)
    monkeypatch.setattr("golden.learning.cli._trainer", trainer)


def trainer(settings: Callable[[str], Any], *_: Any) -> SimpleNamespace:
    """Return a run that is finished, of settings that are valid."""
    settings("")
    return SimpleNamespace(progress=1)


class Phone:
    """A phone that gives what the runtime gave."""

    def __init__(self, program: Path, libraries: Any, serial: str | None) -> None:
        assert libraries == [Path("lib.so")]
        assert serial == "s"

    def __enter__(self) -> Phone:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def run(self, path: Path, inputs: Any, settings: Any) -> Any:
        assert settings.timeout == 60
        return SimpleNamespace(outputs=naive_outputs("gemm"), log="")


@functools.cache
def groups(form: type) -> frozenset[type]:
    """Return a mode and its groups of options."""
    hints = get_type_hints(form)
    inner = [hints[field.name] for field in dataclasses.fields(form)]
    return frozenset({form}).union(*(groups(each) for each in inner if dataclasses.is_dataclass(each)))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of all fields that a job has read while it ran."""
    names: set[str] = set()
    running: list[bool] = []

    def noting(self: Any, name: str) -> Any:
        if running:
            names.add(name)
        return object.__getattribute__(self, name)

    for mode in MODES:
        for form in groups(mode):
            monkeypatch.setattr(form, "__getattribute__", noting, raising=False)
        inner = mode.run

        def run(self: Any, inner: Any = inner) -> Any:
            running.append(True)
            return inner(self)

        monkeypatch.setattr(mode, "run", run)
    return names


@pytest.mark.parametrize(
    ("mode", "line"),
    [(mode, line) for mode, lines in EXAMPLES.items() for line in lines],
    ids=lambda each: getattr(each, "__name__", ""),
)
@pytest.mark.usefixtures("light")
def test_every_option_given_is_read(mode: type[Job], line: str, read: set[str]) -> None:
    result = CliRunner().invoke(conformance.cli.app, shlex.split(line))
    assert result.exception is None or isinstance(result.exception, SystemExit), (line, result.exception)
    assert result.exit_code in (0, 1), result.output
    assert given_in(mode, line) - {*CHOOSING, *mode.chosen_by} <= read


# Names.


def leaves(annotation: Any) -> set[type]:
    """Return the plain types an annotation is made of."""
    inner = get_args(annotation)
    return set().union(*map(leaves, inner)) - {type(None)} if inner else {annotation}


def test_an_option_name_means_one_thing() -> None:
    """The same name is of the same type everywhere."""
    kinds: dict[str, set[Any]] = {}
    for mode, command in MODES.items():
        flags = {each.name: each.opts[0] for each in COMMANDS[command].params if each.opts[0][0] == "-"}
        for name, option in options_of(mode).items():
            kind = leaves(option.annotation.__origin__)
            kinds.setdefault(flags.get(name, name), set()).add(tuple(sorted(map(str, kind))))
    assert {flag: found for flag, found in kinds.items() if len(found) > 1} == {}


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.__name__)
def test_the_marks_name_options_of_the_command(mode: type[Job]) -> None:
    names = {str(each.name) for each in COMMANDS[MODES[mode]].params}
    for option in options_of(mode).values():
        for mark in option.marked(Beside):
            assert set(mark.names) & names
        assert all(mark.names for mark in option.marked(Unless))
    assert np.all([name in names for name in mode.chosen_by])
