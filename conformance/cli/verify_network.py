"""`mobileinst verify MODEL.onnx`, and --candidate: is it MobileInst?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated

from conformance.candidates.candidate import Candidate
from conformance.candidates.kinds import Request
from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate, images_input, only_input
from conformance.candidates.onnx_runtime import RuntimeOptions, declared_by
from conformance.cli import options, verify_options
from conformance.cli.candidate import (
    Interpreter,
    Kind,
    Limit,
    Trust,
    check_candidate,
    judge_candidate,
    words_of,
)
from conformance.cli.course import Course
from conformance.cli.formats import DeclaredFormats
from conformance.cli.job import Beside, Job, Unless
from conformance.cli.network_tables import print_report
from conformance.cli.report_files import ReportFiles
from conformance.cli.reproduction import Reproduce
from conformance.graph import onnx_export
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.reuse_verification import KeyframeKernels, takes_kernels
from conformance.judge.weights_cache import cache_folder
from conformance.pictures.inputs import load_inputs, rendered_input, resized_otherwise
from conformance.reports.report import Report
from refimpl.errors import ConfigurationError
from refimpl.model import build_network
from refimpl.ops.operation import Array


@dataclass(frozen=True, kw_only=True)
class NetworkVerdict(Job):
    """Judge whether a candidate of any kind is MobileInst."""

    doing = "a verdict on the network ([MODEL.onnx], --candidate)"

    model_file: verify_options.ModelFile = None
    network: options.NetworkOptions
    inputs: verify_options.Inputs = None
    batch: Annotated[verify_options.Batch, Beside("inputs"), Unless("frames")] = False
    frames: Annotated[verify_options.Frames, Beside("inputs")] = False
    size: options.Size = None
    threads: verify_options.Threads = None
    all_steps: options.AllSteps = False
    candidate: Kind = None
    interpreter: Annotated[Interpreter, Beside("candidate")] = None
    trust: Annotated[Trust, Beside("candidate")] = False
    reproduction: Reproduce = None
    no_cache: verify_options.NoCache = False
    declared: DeclaredFormats
    files: ReportFiles
    timeout: Annotated[verify_options.Timeout, Beside("model_file", "candidate")] = None

    def check(self) -> None:
        """Refuse what has no effect on this kind of candidate, or on these inputs."""
        self.files.check_printed("--all-steps", self.all_steps)
        if self.size and self.inputs and all(path.suffix == ".npy" for path in self.inputs):
            raise ConfigurationError("--size has no effect on a .npy, which is taken as it is; leave it out")
        check_candidate(
            self.candidate or "onnxruntime",
            {
                "MODEL": self.model_file,
                "--threads": self.threads,
                "--trust": self.trust,
                "--interpreter": self.interpreter,
                "--arithmetic": self.declared.arithmetic,
                "--storage": self.declared.storage,
            },
        )

    def run(self) -> int:
        """Judge, write and print; 0 if it conforms, else 1."""
        with options.working("weights") as progress:
            report = self.report(progress)
        if self.files.write_report(report, self.command_line):
            print_report(report, self.all_steps)
        return report.exit_code

    def report(self, progress: options.Progress) -> Report:
        """Judge the candidate, or our own export if none is named."""
        own = self.model_file is None
        network = self.network.or_trained() if own else self.network
        size = options.parse_size(self.size, step=1)
        if own and network.is_trained and not self.network.is_given:
            size = size or options.TRAINED_SIZE
        graph = OnnxGraph.load(self.model_file, partly=True) if self.model_file else None
        config, weights = network.load()
        progress("inputs")
        fed = self._fed(graph, size)
        cache = None if self.no_cache else cache_folder()
        resized = resized_otherwise(self.inputs, fed) if self.inputs and not self.batch else {}
        course = Course(config, weights, fed, progress, cache, self.reproduction, self.frames, resized)
        report = self._judge(course, graph)
        return replace(report, model={"weights": network.described, **report.model})

    def _fed(self, graph: OnnxGraph | None, size: tuple[int, int] | None) -> dict[str, Array]:
        wanted: tuple[int | None, ...] = (None, 3, None, None)
        if graph is not None:
            wanted = (images_input if takes_kernels(graph) else only_input)(graph).shape
        height, width = size or options.DEFAULT_SIZE
        fitted = (wanted[2] or height, wanted[3] or width)
        if size and size != fitted:
            raise ConfigurationError(
                f"--size {self.size} has no effect: the model takes {fitted[0]}x{fitted[1]}; leave it out"
            )
        if self.inputs:
            return load_inputs(self.inputs, fitted, self.batch)
        return rendered_input(fitted, wanted[0] or 1)

    def _judge(self, course: Course, graph: OnnxGraph | None) -> Report:
        if self.candidate or (self.timeout and self.model_file):
            threads = self.threads or 0
            request = Request(
                "",
                course.config,
                course.weights,
                self.model_file,
                *self.declared.formats,
                threads,
                trusted=self.trust,
                interpreter=words_of(self.interpreter),
            )
            limit = Limit(self.timeout or verify_options.LONGEST, self.timeout is not None)
            return judge_candidate(self.candidate or "onnxruntime", request, course, limit)
        if graph is None or self.model_file is None:
            return _judge_own_export(course, self._in_onnx_runtime)
        if takes_kernels(graph):
            kernels = KeyframeKernels(course.config, course.weights)
            candidate = self._in_onnx_runtime(graph, kernels)
            return course.judge(candidate, self.model_file.name, kernels.reuse)
        return course.judge(self._in_onnx_runtime(graph), self.model_file.name)

    def _in_onnx_runtime(
        self, graph: OnnxGraph, others: Callable[[Array], Mapping[str, Array]] | None = None
    ) -> OnnxRuntimeCandidate:
        declaration = declared_by(graph, *self.declared.formats)
        runtime = RuntimeOptions(threads=self.threads or 0)
        return OnnxRuntimeCandidate(graph, options=runtime, declaration=declaration, others=others)


def _judge_own_export(course: Course, run: Callable[[OnnxGraph], Candidate]) -> Report:
    """Export for each shape of input, since our own files have static shapes."""
    network = build_network(course.config, course.weights)
    # Frames of a video are judged together, so they are of one shape.
    groups = [course.inputs] if course.frames else [{label: x} for label, x in course.inputs.items()]
    reports: list[Report] = []
    for group in groups:
        course.progress(f"{', '.join(group)}: export")
        graph = OnnxGraph.load(onnx_export.export(network, next(iter(group.values()))))
        first_to_fail = all(report.verdict == "pass" for report in reports)
        written = course.reproduction if first_to_fail else None
        each = replace(course, inputs=group, reproduction=written)
        reports.append(each.judge(run(graph), "our own export"))
    return replace(reports[0], inputs=[item for report in reports for item in report.inputs])
