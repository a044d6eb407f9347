"""`mobileinst verify` of TNN's files: the conversion, a dump, a run, and whether it is MobileInst."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from conformance.cli import options, report_files, tnn_tables
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.network import verify as judge
from conformance.pictures.inputs import load_inputs, rendered_input
from conformance.tnn.adb import AdbRunner
from conformance.tnn.archive import dump_folder, is_archive
from conformance.tnn.batch import run_batch
from conformance.tnn.candidate import TnnCandidate
from conformance.tnn.conversion import compare_conversion
from conformance.tnn.dumps import Step, dumped_outputs, replay
from conformance.tnn.graph import TnnGraph, read_graph
from conformance.tnn.rounding import SIX_DIGITS, declared
from conformance.tnn.runner import LocalRunner, Runner, Settings
from conformance.tnn.survey import (
    UNREADABLE,
    RunVerdict,
    input_beside,
    judge_outputs,
    protos_in,
    survey,
)
from conformance.tnn.text import read_check, read_check_folder, read_input, read_output
from refimpl.errors import ConfigurationError, FileError
from refimpl.ops.operation import Array

PANEL = "TNN"

MoreFiles = Annotated[
    list[Path] | None, typer.Argument(metavar="[MORE.tnnproto]...", help="More converted models.")
]
Against = Annotated[
    Path | None,
    typer.Option("--against", help="The .onnx a .tnnproto was converted from.", rich_help_panel=PANEL),
]
Dump = Annotated[
    Path | None,
    typer.Option(
        "--dump",
        help="What a run of the .tnnproto wrote: a folder of blob dumps, an archive of one, model_check's "
        "folder, or TNNTest's output.",
        rich_help_panel=PANEL,
    ),
]
Command = Annotated[
    str | None,
    typer.Option(
        "--runner",
        metavar="COMMAND",
        help="TNNTest and its flags, with any prefix: 'qemu-aarch64 TNNTest -dt ARM -pr HIGH'.",
        rich_help_panel=PANEL,
    ),
]
Adb = Annotated[
    bool,
    typer.Option("--adb", help="Push the --runner to a phone and run it there.", rich_help_panel=PANEL),
]
Serial = Annotated[
    str | None,
    typer.Option("--serial", help="Which phone, as `adb devices` lists it.", rich_help_panel=PANEL),
]
Library = Annotated[
    list[Path] | None,
    typer.Option("--library", help="What to push beside it, such as libTNN.so.", rich_help_panel=PANEL),
]
Keep = Annotated[
    Path | None,
    typer.Option(
        "--keep",
        metavar="FOLDER",
        help="Keep the outputs of each input there; begun again, go on where it stopped.",
        rich_help_panel=PANEL,
    ),
]
Timeout = Annotated[
    float, typer.Option("--timeout", min=0.1, help="Seconds a run may take.", rich_help_panel=PANEL)
]


@dataclass(frozen=True)
class Request:
    """What the command line asks of TNN's files; see the options."""

    paths: Sequence[Path]
    context: typer.Context
    options: Mapping[str, Any]

    def path(self, name: str) -> Path | None:
        """Return an option that names a file."""
        value = self.options.get(name)
        return None if value is None else Path(value)

    def paths_of(self, name: str) -> list[Path]:
        """Return an option that names files."""
        return [Path(value) for value in self.options.get(name) or ()]

    def given(self, *names: str) -> bool:
        """Tell whether any of some options stands on the command line."""
        sources = [self.context.get_parameter_source(name) for name in names]
        return any(source is not None and source.name == "COMMANDLINE" for source in sources)

    @property
    def arithmetic(self) -> str:
        """The arithmetic declared; by default what the runner's own flags stand for, else float32."""
        stated = self.options.get("arithmetic")
        if stated is not None:
            return str(getattr(stated, "value", stated))
        return self.settings.arithmetic if self.options.get("runner") else "float32"

    @property
    def settings(self) -> Settings:
        """How to run: what the command itself states."""
        base = Settings("ARM" if self.options.get("adb") else "NAIVE", timeout=float(self.options["timeout"]))
        command = self.options.get("runner")
        return LocalRunner.parse(command).settings(base) if command else base


ONLY_TNN = ("more_files", "against", "dump", "runner", "adb", "serial", "library", "keep")


def dispatch(context: typer.Context) -> None:
    """Take over if the files are TNN's; return if they are not.

    Raises
    ------
    ConfigurationError
        TNN's options with other files, or options that do not go together.
    """
    given = context.params
    first = given.get("model_file")
    paths = [Path(path) for path in ([first] if first else []) + list(given.get("more_files") or ())]
    request = Request(paths, context, given)
    if not any(path.suffix == ".tnnproto" or path.is_dir() for path in paths):
        used = [name for name in ONLY_TNN if given.get(name)]
        if used:
            raise ConfigurationError(
                f"--{used[0].replace('_files', '')} goes with a .tnnproto; name it first"
            )
        return
    raise typer.Exit(_verify(request))


def _verify(request: Request) -> int:
    """Judge what was asked for, print and write it, and return the exit code."""
    network = request.given("model", "overrides", "weights", "backbone_weights")
    if request.options.get("runner") is None and (request.options.get("adb") or request.options.get("keep")):
        raise ConfigurationError("--adb and --keep go with --runner, which names TNNTest")
    _check_together(request)
    reports = [name for name in ("html_file", "junit_file", "markdown_file") if request.options.get(name)]
    if reports and not network:
        raise ConfigurationError(
            f"--{reports[0][:-5]} is a report on the network; give --weights or --model too"
        )
    if request.options.get("frames") and not network:
        raise ConfigurationError("--frames is about the network's tracks; give --weights or --model too")
    if request.options.get("against"):
        return _conversion(request)
    if network:
        return _network(request)
    if request.options.get("dump"):
        return _dump(request)
    return _runs(request) if request.options.get("runner") else _survey(request)


def _check_together(request: Request) -> None:
    """Refuse options that would be silently left out."""
    runs = [name for name in ("dump", "runner") if request.options.get(name)]
    if len(runs) > 1:
        raise ConfigurationError("--dump and --runner are two runs; give one")
    if runs and request.options.get("against"):
        raise ConfigurationError(
            f"--against judges the files alone, without --{runs[0]}; ask one after the other"
        )
    network = request.given("weights", "model", "overrides", "backbone_weights")
    if request.given("inputs", "arithmetic") and not (runs or network):
        raise ConfigurationError(
            "--input and --arithmetic are those of a run: give --dump, --runner or --weights"
        )


def _only(request: Request) -> tuple[Path, TnnGraph]:
    """Return the one model the options are about."""
    if len(request.paths) != 1 or request.paths[0].is_dir():
        raise ConfigurationError(f"{len(request.paths)} files or a folder; this needs exactly one .tnnproto")
    return request.paths[0], read_graph(request.paths[0])


def _write(request: Request, content: Any) -> bool:
    """Write the JSON; tell whether the tables are to be printed as well."""
    path = request.path("json_file")
    options.write_json(path, tnn_tables.plain(content))
    return str(path) != "-"


def _conversion(request: Request) -> int:
    path, graph = _only(request)
    against = request.path("against")
    assert against is not None
    with options.progress_console.status("layer by layer in float64"):
        conversion = compare_conversion(graph, OnnxGraph.load(against), seed=int(request.options["seed"]))
    if _write(request, tnn_tables.conversion_json(path, against, conversion)):
        tnn_tables.print_conversion(path, against, conversion, bool(request.options.get("all_steps")))
    return 0 if conversion.kept else 1


def _survey(request: Request) -> int:
    protos = protos_in(request.paths)
    rows = []
    with options.progress_console.status("") as status:
        found = survey(protos, seed=int(request.options["seed"]))
        for path in protos:
            status.update(path.name)
            rows.append(next(found))
    if _write(request, tnn_tables.survey_json(rows)):
        tnn_tables.print_survey(rows)
    if any(row.verdict == UNREADABLE for row in rows):
        return 2
    return 0 if all(row.verdict == "correct" for row in rows) else 1


def _fed(request: Request, path: Path, graph: TnnGraph) -> dict[str, dict[str, Array]]:
    """Return the inputs, by label: those given, else the text beside the proto."""
    given = request.paths_of("inputs")
    if given:
        return {file.name: _read(file, graph) for file in given}
    beside = path.with_suffix(".in.txt")
    return {beside.name: input_beside(path, graph)} if beside.exists() else {}


def _read(path: Path, graph: TnnGraph) -> dict[str, Array]:
    shapes = {item.name: item.dims for item in graph.proto.inputs}
    if path.suffix == ".txt":
        return read_input(path, shapes)
    if len(shapes) != 1:
        raise ConfigurationError(
            f"{path}: the graph has {len(shapes)} inputs; give them as TNN's text (.txt)"
        )
    ((name, dims),) = shapes.items()
    (images,) = load_inputs([path], _image_size(dims)).values()
    return {name: images}


def _image_size(dims: tuple[int, ...]) -> tuple[int, int]:
    return (dims[2], dims[3]) if len(dims) == 4 else options.DEFAULT_SIZE


def _dump(request: Request) -> int:
    path, graph = _only(request)
    dump = request.path("dump")
    assert dump is not None
    fed = _fed(request, path, graph)
    inputs = next(iter(fed.values()), None)
    if _holds_layers(dump):
        return _layers(request, path, graph, dump, inputs)
    if inputs is None:
        raise ConfigurationError(f"{dump} holds outputs only; give the --input they are of")
    run = _outputs_verdict(graph, dump, inputs, request.arithmetic)
    if _write(request, tnn_tables.runs_json(path, {dump.name: run})):
        tnn_tables.print_runs(path, {dump.name: run}, str(declared(request.arithmetic)))
    return 0 if run.passes else 1


def _holds_layers(dump: Path) -> bool:
    """Tell a dump of blobs from outputs, which model_check and TNNTest write."""
    if dump.is_dir():
        return not any(dump.glob("device_*.txt"))
    if not dump.exists():
        raise FileError(f"{dump}: no such file or folder; give what TNNTest or model_check wrote")
    return is_archive(dump) or dump.suffix not in (".out", ".txt")


def _outputs_verdict(graph: TnnGraph, dump: Path, inputs: Mapping[str, Array], arithmetic: str) -> RunVerdict:
    if not dump.is_dir():
        return judge_outputs(graph, inputs, _read_outputs(dump), dump.name, arithmetic)
    from conformance.tnn.evaluation import evaluate

    blobs = evaluate(graph, inputs)
    shapes = {name: blobs[name].shape for name in graph.proto.outputs}
    pairs = read_check_folder(dump, shapes)
    largest = max(float(abs(blobs[name]).max(initial=0)) for name in shapes)
    found = {name: device for name, (_, device) in pairs.items()}
    return judge_outputs(graph, inputs, found, dump.name, arithmetic, text=SIX_DIGITS * largest)


def _read_outputs(path: Path) -> dict[str, Array]:
    try:
        return read_output(path)
    except FileError as error:
        try:
            return read_check(path)
        except FileError:
            raise error from None


def _layers(
    request: Request, path: Path, graph: TnnGraph, dump: Path, inputs: Mapping[str, Array] | None
) -> int:
    with options.progress_console.status("replaying") as status, dump_folder(dump) as folder:
        steps: list[Step] = []
        for step in replay(graph, folder, inputs, request.arithmetic):
            status.update(f"layer {step.index}: {step.name}")
            steps.append(step)
        rounding = str(declared(request.arithmetic))
        if _write(request, tnn_tables.dump_json(path, dump, steps, rounding)):
            tnn_tables.print_dump(path, steps, rounding, bool(request.options.get("all_steps")))
    return 1 if any(step.verdict == "fail" for step in steps) else 0


@contextmanager
def _runner(request: Request) -> Iterator[Runner]:
    command = LocalRunner.parse(request.options["runner"])
    if not request.options.get("adb"):
        yield command
        return
    libraries = request.paths_of("library")
    with AdbRunner(Path(command.command[0]), libraries, serial=request.options.get("serial")) as phone:
        yield phone


def _ran(request: Request, path: Path, batch: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
    """Run each input; what was done before a failure is kept where --keep says."""
    keep = request.path("keep")
    with _runner(request) as runner:
        if keep is not None:
            return run_batch(runner, path, batch, keep, request.settings)
        return [runner.run(path, inputs, request.settings).outputs for inputs in batch]


def _runs(request: Request) -> int:
    path, graph = _only(request)
    fed = _fed(request, path, graph) or _random(graph, int(request.options["seed"]))
    with options.progress_console.status("running"):
        outputs = _ran(request, path, list(fed.values()))
        verdicts = {
            label: judge_outputs(graph, inputs, found, label, request.arithmetic)
            for (label, inputs), found in zip(fed.items(), outputs, strict=True)
        }
    if _write(request, tnn_tables.runs_json(path, verdicts)):
        tnn_tables.print_runs(path, verdicts, str(declared(request.arithmetic)), request.settings)
    return 0 if all(run.passes for run in verdicts.values()) else 1


def _random(graph: TnnGraph, seed: int) -> dict[str, dict[str, Array]]:
    """Return seeded normal numbers; several inputs are prefixes of one another, as TNNTest reads them."""
    import numpy as np

    sizes = {item.name: math.prod(item.dims) for item in graph.proto.inputs}
    values = np.random.default_rng(seed).standard_normal(max(sizes.values())).astype(np.float32)
    return {
        f"random, seed {seed}": {
            item.name: values[: sizes[item.name]].reshape(item.dims) for item in graph.proto.inputs
        }
    }


def _network(request: Request) -> int:
    """Judge whether it is MobileInst, by its file's meaning and, where there is one, by a run's outputs."""
    from conformance.cli.verify import print_report

    path, graph = _only(request)
    given = request.options
    config = options.configuration(given["model"], given.get("overrides"), request.path("weights"))
    with ExitStack() as stack:
        status = stack.enter_context(options.progress_console.status("weights"))
        weights = options.load_weights(
            config, request.path("weights"), request.path("backbone_weights"), int(given["seed"])
        )
        candidate = _candidate(request, path, graph, stack)
        fed = {label: inputs[candidate.name] for label, inputs in _fed(request, path, graph).items()}
        images = fed or rendered_input(_image_size(graph.proto.inputs[0].dims), graph.proto.inputs[0].dims[0])
        frames = bool(given.get("frames"))
        report = judge(
            candidate,
            config,
            weights,
            images,
            name=path.name,
            progress=status.update,
            frames=frames,
            nodes=candidate.judged_layers,
        )
    report = replace(report, command=report_files.command_line(request.context))
    report_files.write_reports(
        report, **{kind: request.path(f"{kind}_file") for kind in ("html", "junit", "markdown")}
    )
    options.write_json(request.path("json_file"), report.to_json())
    if str(request.path("json_file")) != "-":
        print_report(report, bool(given.get("all_steps")))
    return 0 if report.verdict == "pass" else 1


def _candidate(request: Request, path: Path, graph: TnnGraph, stack: ExitStack) -> TnnCandidate:
    if request.options.get("runner"):
        runner = stack.enter_context(_runner(request))

        def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
            return runner.run(path, inputs, request.settings).outputs

        return TnnCandidate(graph, request.arithmetic, run)
    dump = request.path("dump")
    if dump is None:
        return TnnCandidate(graph, request.arithmetic)
    if not _holds_layers(dump):
        outputs = _read_outputs(dump)
        return TnnCandidate(graph, request.arithmetic, lambda inputs: outputs)
    folder = stack.enter_context(dump_folder(dump))

    def steps(inputs: Mapping[str, Array]) -> Iterator[Step]:
        return replay(graph, folder, inputs, request.arithmetic)

    return TnnCandidate(graph, request.arithmetic, lambda inputs: dumped_outputs(graph, folder), steps)
