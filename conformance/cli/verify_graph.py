"""`mobileinst verify any.onnx --graph-only`: does the runtime compute this graph, whatever it is?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from conformance.bounds import Declaration
from conformance.candidates.integer_graph import INTEGERS, integer_graph
from conformance.candidates.kinds import GRAPH_RUNNERS, Request, graph_candidate
from conformance.candidates.onnx_runtime import OnnxRuntimeGraph, RuntimeOptions, declared_by
from conformance.candidates.onnx_runtime_process import runtime_graph
from conformance.cli import options, verify_options
from conformance.cli.candidate import (
    Interpreter,
    Kind,
    Limit,
    Trust,
    check_candidate,
    made_beside_graph,
    words_of,
)
from conformance.cli.command_help import INPUT
from conformance.cli.formats import DeclaredFormats
from conformance.cli.job import Beside, Job
from conformance.cli.report_files import ReportFiles
from conformance.cli.reproduction import Reproduce, say_reproduced
from conformance.cli.verdict import (
    comparison_table,
    notable,
    print_beside,
    print_headline,
    print_verdict,
)
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.against import verify_beside
from conformance.judge.any_graph import verify_graph
from conformance.judge.branches import with_branches_shown
from conformance.judge.weights_cache import cache_folder
from conformance.pictures.graph_inputs import described, graph_inputs
from conformance.reports.report import InputReport, Report
from conformance.reports.summary import within
from conformance.reproduction.folder import reproduce_node
from refimpl.errors import ConfigurationError
from refimpl.ops.operation import Array

GraphOnly = Annotated[
    bool,
    typer.Option(
        "--graph-only",
        help="Any ONNX model, or a .tflite or .xml of integers: only whether the runtime computes its graph. "
        "--input is NAME=FILE.npy, or FILE.npy in the graph's order; the rest is random, from --seed.",
    ),
]
Shapes = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="NAME=1x3x224x224",
        help="Of a random input with dynamic axes; repeatable.",
        rich_help_panel=INPUT,
    ),
]


@dataclass(frozen=True, kw_only=True)
class GraphVerdict(Job):
    """Judge a runtime on any ONNX graph, node by node, or any other candidate of it, tensor by tensor."""

    doing = "a verdict on any graph (MODEL.onnx --graph-only)"
    chosen_by = ("graph_only",)

    model_file: verify_options.ModelFile = None
    seed: options.Seed = None
    inputs: verify_options.Inputs = None
    threads: verify_options.Threads = None
    all_steps: options.AllSteps = False
    graph_only: GraphOnly = False
    shapes: Shapes = None
    reproduction: Reproduce = None
    no_cache: verify_options.NoCache = False
    declared: DeclaredFormats
    files: ReportFiles
    timeout: verify_options.Timeout = None
    candidate: Kind = None
    interpreter: Annotated[Interpreter, Beside("candidate")] = None
    trust: Annotated[Trust, Beside("candidate")] = False

    def check(self) -> None:
        """Refuse a verdict on nothing, and options about a table that is not printed."""
        if self.model_file is None:
            raise ConfigurationError("--graph-only judges a model of yours: name its .onnx file")
        if self._is_of_integers and self.candidate is None:
            raise ConfigurationError(
                f"--graph-only of a {self.model_file.suffix} names its runtime, too: "
                "--candidate NAME:weights=int8-static"
            )
        self.files.check_printed("--all-steps", self.all_steps)
        given = {
            "--threads": self.threads,
            "--trust": self.trust,
            "--interpreter": self.interpreter,
            "--arithmetic": self.declared.arithmetic,
            "--storage": self.declared.storage,
        }
        check_candidate(self.candidate or "onnxruntime", given)
        if self.reproduction and not self._shows_nodes:
            raise ConfigurationError(
                f"--reproduce has no effect on --candidate {self.candidate}, which has no nodes; leave it out"
            )

    def run(self) -> int:
        """Judge, write and print; 0 if the graph is computed rightly, else 1."""
        with options.working("graph") as progress:
            report = self.report(progress) if self._shows_nodes else self._beside(progress)
        if self.files.write_report(report, self.command_line):
            (print_graph_report if self._shows_nodes else print_beside)(report, self.all_steps)
        return report.exit_code

    @property
    def _shows_nodes(self) -> bool:
        """Whether the candidate runs the graph itself."""
        runs = self.candidate is None or self.candidate.partition(":")[0] in GRAPH_RUNNERS
        return runs or self._is_of_integers

    @property
    def _is_of_integers(self) -> bool:
        """Whether the model is a phone's own file, which can be judged by itself if it is of integers."""
        return self.model_file is not None and self.model_file.suffix in INTEGERS

    def _beside(self, progress: options.Progress) -> Report:
        """Judge another candidate, whose tensors are looked for."""
        assert self.model_file is not None
        assert self.candidate is not None
        graph = OnnxGraph.load(self.model_file)
        feeds = feeds_of(graph, self.inputs or (), self.shapes or (), self.seed)
        formats = self.declared.formats
        request = Request(
            "",
            None,
            {},
            self.model_file,
            *formats,
            self.threads or 0,
            trusted=self.trust,
            interpreter=words_of(self.interpreter),
        )
        limit = Limit(self.timeout or verify_options.LONGEST, self.timeout is not None)
        progress("candidate")
        with made_beside_graph(self.candidate, request, limit) as candidate:
            return verify_beside(
                candidate,
                graph,
                {described(feeds): feeds},
                names=(self.candidate, self.model_file.name),
                progress=progress,
                cache=None if self.no_cache else cache_folder(),
            )

    def report(self, progress: options.Progress) -> Report:
        """Judge the file on inputs from files or seeded random ones."""
        assert self.model_file is not None
        if self._is_of_integers:
            return self._of_integers(self.model_file, progress)
        graph = OnnxGraph.load(self.model_file, partly=True)
        feeds = feeds_of(graph, self.inputs or (), self.shapes or (), self.seed)
        declaration = declared_by(graph, *self.declared.formats)
        candidate = with_branches_shown(self._candidate(graph, declaration), feeds)
        cache = None if self.no_cache else cache_folder()
        report = verify_graph(candidate, feeds, name=self.model_file.name, progress=progress, cache=cache)
        if self.reproduction is not None:
            item, folder = report.leading, self.reproduction
            known = _known(candidate, feeds, item)
            say_reproduced(lambda: reproduce_node(folder, item, candidate.graph, known, declaration))
        return report

    def _of_integers(self, model: Path, progress: options.Progress) -> Report:
        """Judge a phone's own file of integers by what it means."""
        progress("candidate")
        words = words_of(self.interpreter)
        with closing(integer_graph(model, str(self.candidate), words, self.timeout)) as candidate:
            feeds = feeds_of(candidate.graph, self.inputs or (), self.shapes or (), self.seed)
            return verify_graph(candidate, feeds, name=model.name, progress=progress)

    def _candidate(self, graph: OnnxGraph, declaration: Declaration) -> OnnxRuntimeGraph:
        if self.candidate is None:
            options = RuntimeOptions(threads=self.threads or 0)
            return runtime_graph(graph, options, declaration, self.timeout)
        how = (self.threads or 0, self.timeout, words_of(self.interpreter))
        return graph_candidate(self.candidate, graph, declaration, *how)


def feeds_of(
    graph: OnnxGraph, files: Sequence[Path], shapes: Sequence[str], seed: int | None
) -> dict[str, Array]:
    """Return an array for every input of a graph, from files or seeded random.

    Raises
    ------
    ConfigurationError
        A shape or a seed without an input that is random.
    """
    random = len(graph.inputs) - len(files)
    if seed is not None and random <= 0:
        raise ConfigurationError("--seed has no effect: --input gives every input of the graph")
    if len(shapes) > max(random, 0):
        raise ConfigurationError(
            f"{len(shapes)} --shape for {max(random, 0)} random inputs; files have their own shapes"
        )
    return graph_inputs(graph, [str(path) for path in files], shapes, seed or 0)


def _known(candidate: OnnxRuntimeGraph, feeds: Mapping[str, Array], item: InputReport) -> dict[str, Array]:
    return {**feeds, **(candidate.capture(feeds) if item.first_fault else {})}


def print_graph_report(report: Report, all_nodes: bool) -> None:
    """Print the verdict, the nodes that fail or lead their operator, and the outputs."""
    print_verdict(report)
    item = report.leading
    shown = item.nodes if all_nodes else notable(item.nodes)
    title = "Nodes" if all_nodes else "Nodes, of each operator the most utilised"
    options.console.print(comparison_table(title, shown))
    if item.outputs:
        options.console.print(comparison_table("Outputs", item.outputs))
    total = report.model["nodes"]
    judged = sum(row.verdict != "not judged" for row in item.nodes)
    options.console.print(f"{judged} results of {total} nodes judged, inputs {item.name}", highlight=False)
    unjudged = sorted({within(row.operation, 60) for row in item.nodes if row.verdict == "not judged"})
    if unjudged:
        options.console.print(f"No bound, not judged: {', '.join(unjudged)}", highlight=False)
    for remark in item.remarks:
        options.console.print(remark, highlight=False, markup=False)
    options.console.print(f"Tolerance, {report.tolerance}.", style="dim", highlight=False)
    print_headline(report)
