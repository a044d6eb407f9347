"""`mobileinst verify` of TNN's files: the conversion, a dump, a run, and whether it is MobileInst."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from conformance.cli import formats, options, tnn_tables, verify_options
from conformance.cli.job import Beside, Job, Unless
from conformance.cli.network_tables import print_report
from conformance.cli.options import JsonFile
from conformance.cli.output_files import Reads, Writes
from conformance.cli.report_files import ReportFiles
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.network import verify as judge
from conformance.pictures.inputs import load_inputs, rendered_input
from conformance.reports.report import Report
from conformance.tnn.adb import AdbRunner
from conformance.tnn.archive import dump_folder, is_archive
from conformance.tnn.batch import run_batch
from conformance.tnn.candidate import TnnCandidate
from conformance.tnn.conversion import compare_conversion
from conformance.tnn.dumps import Step, dumped_outputs, replay
from conformance.tnn.evaluation import evaluate
from conformance.tnn.graph import TnnGraph, read_graph
from conformance.tnn.rounding import SIX_DIGITS, declared
from conformance.tnn.runner import LocalRunner, Runner, Settings
from conformance.tnn.survey import (
    UNREADABLE,
    RunVerdict,
    input_beside,
    judge_outputs,
    models_in,
    survey,
)
from conformance.tnn.text import read_check, read_check_folder, read_input, read_output
from refimpl.errors import ConfigurationError, FileError
from refimpl.ops.operation import Array

PANEL = "TNN"


def files_of_command(text: str) -> list[str]:
    """Return the words of a command, some of which may be files that it reads."""
    try:
        return shlex.split(text)
    except ValueError:
        return []  # what is wrong with it is said when it is read


MoreFiles = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[MORE.tnnproto]...", help="More converted models."),
    Reads(),
]
Dump = Annotated[
    Path | None,
    typer.Option(
        "--dump",
        help="What a run of the .tnnproto wrote: a folder of blob dumps, an archive of one, model_check's "
        "folder, or TNNTest's output.",
        rich_help_panel=PANEL,
    ),
    Reads(),
]
Command = Annotated[
    str | None,
    typer.Option(
        "--runner",
        metavar="COMMAND",
        help="TNNTest and its flags, with any prefix: 'qemu-aarch64 TNNTest -dt ARM -pr HIGH'.",
        rich_help_panel=PANEL,
    ),
    Reads(files_of_command),
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
    Reads(),
]
KeepOutputs = Annotated[
    Path | None,
    typer.Option(
        "--keep-outputs",
        metavar="FOLDER",
        help="Keep the outputs of each input there; begun again, go on where it stopped.",
        rich_help_panel=PANEL,
    ),
    Writes(None),
]


@dataclass(frozen=True, kw_only=True)
class RunnerOptions:
    """What runs a .tnnproto."""

    runner: Command = None
    adb: Annotated[Adb, Beside("runner")] = False
    serial: Annotated[Serial, Beside("adb")] = None
    library: Annotated[Library, Beside("adb")] = None
    timeout: Annotated[verify_options.Timeout, Beside("runner")] = None

    @property
    def settings(self) -> Settings:
        """How to run: what the command itself states."""
        base = Settings("ARM" if self.adb else "NAIVE", timeout=self.timeout or verify_options.LONGEST)
        return LocalRunner.parse(self.runner).settings(base) if self.runner else base

    def arithmetic(self, stated: formats.FormatName | None) -> str:
        """The arithmetic declared; by default what the runner's own flags stand for, else float32."""
        if stated is not None:
            return stated.value
        return self.settings.arithmetic if self.runner else "float32"

    @contextmanager
    def open(self) -> Iterator[Runner]:
        """Give what runs a graph, on a phone if asked for."""
        command = LocalRunner.parse(self.runner or "")
        if not self.adb:
            yield command
            return
        with AdbRunner(Path(command.command[0]), self.library or (), serial=self.serial) as phone:
            yield phone


@dataclass(frozen=True, kw_only=True)
class TnnJob(Job):
    """What is asked about converted models."""

    model_file: verify_options.ModelFile = None
    more_files: MoreFiles = None

    @classmethod
    def is_chosen(cls, given: Mapping[str, Any]) -> bool:
        """Tell whether a .tnnproto or a folder of them is named, and the mode's own options with it."""
        paths = [Path(path) for path in (given.get("model_file"), *(given.get("more_files") or ())) if path]
        named = any(
            path.suffix == ".tnnproto" or (path.is_dir() and path.suffix != ".mlpackage") for path in paths
        )
        return named and super().is_chosen(given)

    @property
    def paths(self) -> list[Path]:
        """The files and folders named."""
        return [path for path in (self.model_file, *(self.more_files or ())) if path]

    def one(self) -> tuple[Path, TnnGraph]:
        """Return the one model the options are about.

        Raises
        ------
        ConfigurationError
            There are several, or a folder.
        """
        if len(self.paths) != 1 or self.paths[0].is_dir():
            raise ConfigurationError(f"{len(self.paths)} files or a folder; this needs exactly one .tnnproto")
        return self.paths[0], read_graph(self.paths[0])


@dataclass(frozen=True, kw_only=True)
class TnnConversion(TnnJob):
    """Compare a converted model with what it was converted from."""

    doing = "a conversion (MODEL.tnnproto --against MODEL.onnx)"
    chosen_by = ("against",)

    seed: options.Seed = None
    all_steps: options.AllSteps = False
    files: JsonFile
    against: verify_options.Against = None

    def check(self) -> None:
        """Refuse options about a table that is not printed."""
        self.files.check_printed("--all-steps", self.all_steps)

    def run(self) -> int:
        """Compare layer by layer; 0 if the meaning is kept, else 1."""
        path, graph = self.one()
        source = Path(self.against or "")
        with options.working("layer by layer in float64"):
            conversion = compare_conversion(graph, OnnxGraph.load(source), seed=self.seed or 0)
        if self.files.write(tnn_tables.plain(tnn_tables.conversion_json(path, source, conversion))):
            tnn_tables.print_conversion(path, source, conversion, self.all_steps)
        return 0 if conversion.kept else 1


@dataclass(frozen=True, kw_only=True)
class TnnSurvey(TnnJob):
    """Judge many converted models, each with what lies beside it."""

    doing = "a table of converted models (MODEL.tnnproto or FOLDER)"

    seed: options.Seed = None
    files: JsonFile

    def run(self) -> int:
        """Judge each; 0 if all are correct, 1 if one is not, 2 if one cannot be read."""
        models = models_in(self.paths)
        rows = []
        with options.working("") as progress:
            found = survey(models, seed=self.seed or 0)
            for path in models:
                progress(path.name)
                rows.append(next(found))
        if self.files.write(tnn_tables.plain(tnn_tables.survey_json(rows))):
            tnn_tables.print_survey(rows)
        if any(row.verdict == UNREADABLE for row in rows):
            return 2
        return 0 if all(row.verdict == "correct" for row in rows) else 1


@dataclass(frozen=True, kw_only=True)
class TnnDump(TnnJob):
    """Judge what a run of a converted model has written."""

    doing = "a dump (MODEL.tnnproto --dump)"
    chosen_by = ("dump",)

    inputs: verify_options.Inputs = None
    all_steps: options.AllSteps = False
    arithmetic: formats.Arithmetic = None
    files: JsonFile
    dump: Dump = None

    def check(self) -> None:
        """Refuse options about a table that is not printed."""
        self.files.check_printed("--all-steps", self.all_steps)

    @property
    def rounding(self) -> str:
        """The arithmetic declared."""
        return self.arithmetic.value if self.arithmetic else "float32"

    def run(self) -> int:
        """Judge layers if the dump holds them, else outputs; 0 if they are right, else 1."""
        path, graph = self.one()
        assert self.dump is not None
        fed = fed_inputs(self.inputs or (), path, graph)
        if len(fed) > 1:
            raise ConfigurationError(f"{len(fed)} --input for one dump; give the one it is of")
        inputs = next(iter(fed.values()), None)
        if holds_layers(self.dump):
            return self._judge_layers(path, graph, self.dump, inputs)
        if self.all_steps:
            raise ConfigurationError(f"--all-steps has no effect: {self.dump} holds outputs only")
        if inputs is None:
            raise ConfigurationError(f"{self.dump} holds outputs only; give the --input they are of")
        run = _outputs_verdict(graph, self.dump, inputs, self.rounding)
        if self.files.write(tnn_tables.plain(tnn_tables.runs_json(path, {self.dump.name: run}))):
            tnn_tables.print_runs(path, {self.dump.name: run}, str(declared(self.rounding)))
        return 0 if run.passes else 1

    def _judge_layers(
        self, path: Path, graph: TnnGraph, dump: Path, inputs: Mapping[str, Array] | None
    ) -> int:
        rounding = str(declared(self.rounding))
        with options.working("replaying") as progress, dump_folder(dump) as folder:
            steps: list[Step] = []
            for step in replay(graph, folder, inputs, self.rounding):
                progress(f"layer {step.index}: {step.name}")
                steps.append(step)
        if self.files.write(tnn_tables.plain(tnn_tables.dump_json(path, dump, steps, rounding))):
            tnn_tables.print_dump(path, steps, rounding, self.all_steps)
        return 1 if any(step.verdict == "fail" for step in steps) else 0


@dataclass(frozen=True, kw_only=True)
class TnnRuns(TnnJob):
    """Run a converted model, and judge its outputs."""

    doing = "a run of a converted model (MODEL.tnnproto --runner)"
    chosen_by = ("runner",)

    seed: Annotated[options.Seed, Unless("inputs")] = None
    inputs: verify_options.Inputs = None
    arithmetic: formats.Arithmetic = None
    files: JsonFile
    running: RunnerOptions
    keep_outputs: KeepOutputs = None

    def run(self) -> int:
        """Run each input, and judge; 0 if all outputs are right, else 1."""
        path, graph = self.one()
        fed = fed_inputs(self.inputs or (), path, graph)
        if fed and self.seed is not None:
            raise ConfigurationError(f"--seed has no effect: {', '.join(fed)} is the input; leave it out")
        fed = fed or _random(graph, self.seed or 0)
        arithmetic = self.running.arithmetic(self.arithmetic)
        with options.working("running"):
            outputs = self._outputs(path, list(fed.values()))
            verdicts = {
                label: judge_outputs(graph, inputs, found, label, arithmetic)
                for (label, inputs), found in zip(fed.items(), outputs, strict=True)
            }
        if self.files.write(tnn_tables.plain(tnn_tables.runs_json(path, verdicts))):
            tnn_tables.print_runs(path, verdicts, str(declared(arithmetic)), self.running.settings)
        return 0 if all(run.passes for run in verdicts.values()) else 1

    def _outputs(self, path: Path, batch: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
        """Run each input; what was done before a failure is kept where --keep-outputs says."""
        settings = self.running.settings
        with self.running.open() as runner:
            if self.keep_outputs is not None:
                return run_batch(runner, path, batch, self.keep_outputs, settings)
            return [runner.run(path, inputs, settings).outputs for inputs in batch]


@dataclass(frozen=True, kw_only=True)
class TnnNetwork(TnnJob):
    """Judge whether a converted model is MobileInst, by its file's meaning and what it gave when run."""

    doing = "a verdict on a converted network (MODEL.tnnproto with --weights or --model)"
    chosen_by = ("model", "overrides", "weights", "backbone_weights")

    network: options.NetworkOptions
    inputs: verify_options.Inputs = None
    frames: Annotated[verify_options.Frames, Beside("inputs")] = False
    all_steps: options.AllSteps = False
    arithmetic: formats.Arithmetic = None
    files: ReportFiles
    dump: Dump = None
    running: RunnerOptions

    def check(self) -> None:
        """Refuse two runs at once, and options about a table that is not printed."""
        if self.dump and self.running.runner:
            raise ConfigurationError("--dump and --runner are two runs; give one")
        self.files.check_printed("--all-steps", self.all_steps)

    def run(self) -> int:
        """Judge, write and print; 0 if it conforms, else 1."""
        with options.working("weights") as progress:
            report = self.report(progress)
        if self.files.write_report(report, self.command_line):
            print_report(report, self.all_steps)
        return report.exit_code

    def report(self, progress: options.Progress) -> Report:
        """Judge the network that the file describes."""
        path, graph = self.one()
        config, weights = self.network.load()
        with ExitStack() as stack:
            candidate = self._candidate(path, graph, stack)
            images = self._images(path, graph, candidate.name)
            return judge(
                candidate,
                config,
                weights,
                images,
                name=path.name,
                progress=progress,
                frames=self.frames,
                nodes=candidate.judged_layers,
            )

    def _images(self, path: Path, graph: TnnGraph, name: str) -> dict[str, Array]:
        fed = fed_inputs(self.inputs or (), path, graph)
        dims = graph.proto.inputs[0].dims
        return {label: inputs[name] for label, inputs in fed.items()} or rendered_input(
            _image_size(dims), dims[0]
        )

    def _candidate(self, path: Path, graph: TnnGraph, stack: ExitStack) -> TnnCandidate:
        arithmetic = self.running.arithmetic(self.arithmetic)
        if self.running.runner:
            runner, settings = stack.enter_context(self.running.open()), self.running.settings
            return TnnCandidate(graph, arithmetic, lambda inputs: runner.run(path, inputs, settings).outputs)
        if self.dump is None:
            return TnnCandidate(graph, arithmetic)
        if not holds_layers(self.dump):
            outputs = _read_outputs(self.dump)
            return TnnCandidate(graph, arithmetic, lambda inputs: outputs, reruns=False)
        folder = stack.enter_context(dump_folder(self.dump))

        def steps(inputs: Mapping[str, Array]) -> Iterator[Step]:
            return replay(graph, folder, inputs, arithmetic)

        def outputs_of(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
            return dumped_outputs(graph, folder)

        return TnnCandidate(graph, arithmetic, outputs_of, steps, reruns=False)


TNN_JOBS = (TnnConversion, TnnNetwork, TnnDump, TnnRuns, TnnSurvey)


# Inputs and dumps.


def fed_inputs(given: Sequence[Path], path: Path, graph: TnnGraph) -> dict[str, dict[str, Array]]:
    """Return the inputs, by label: those given, else the text beside the proto."""
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


def holds_layers(dump: Path) -> bool:
    """Tell a dump of blobs from outputs, which model_check and TNNTest write."""
    if dump.is_dir():
        return not any(dump.glob("device_*.txt"))
    if not dump.exists():
        raise FileError(f"{dump}: no such file or folder; give what TNNTest or model_check wrote")
    return is_archive(dump) or dump.suffix not in (".out", ".txt")


def _outputs_verdict(graph: TnnGraph, dump: Path, inputs: Mapping[str, Array], arithmetic: str) -> RunVerdict:
    if not dump.is_dir():
        return judge_outputs(graph, inputs, _read_outputs(dump), dump.name, arithmetic)
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


def _random(graph: TnnGraph, seed: int) -> dict[str, dict[str, Array]]:
    """Return seeded normal numbers; several inputs are prefixes of one another, as TNNTest reads them."""
    sizes = {item.name: math.prod(item.dims) for item in graph.proto.inputs}
    values = np.random.default_rng(seed).standard_normal(max(sizes.values())).astype(np.float32)
    return {
        f"random, seed {seed}": {
            item.name: values[: sizes[item.name]].reshape(item.dims) for item in graph.proto.inputs
        }
    }
