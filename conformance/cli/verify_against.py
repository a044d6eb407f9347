"""`mobileinst verify AFTER.onnx --against BEFORE.onnx`: does the one mean what the other does?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from conformance.cli import options, verify_options
from conformance.cli.job import Job
from conformance.cli.report_files import ReportFiles
from conformance.cli.terminal import console
from conformance.cli.verdict import comparison_table, print_verdict
from conformance.cli.verify_graph import Shapes, feeds_of, notable
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.against import Inputs, verify_against
from conformance.judge.envelope_cache import cache_folder
from conformance.pictures.graph_inputs import described
from conformance.reports.report import Report
from refimpl.errors import ConfigurationError
from refimpl.ops.operation import Array

LOUD = 30
"""Factor of the second random input: it reaches the bounds of clips."""


@dataclass(frozen=True, kw_only=True)
class AgainstVerdict(Job):
    """Judge a graph against the one that it was made from."""

    doing = "a graph beside another (MODEL.onnx --against BEFORE.onnx)"
    chosen_by = ("against",)

    model_file: verify_options.ModelFile = None
    against: verify_options.Against = None
    seed: options.Seed = None
    inputs: verify_options.Inputs = None
    shapes: Shapes = None
    all_steps: options.AllSteps = False
    no_cache: verify_options.NoCache = False
    files: ReportFiles

    def check(self) -> None:
        """Refuse a verdict on nothing, and options about a table that is not printed."""
        if self.model_file is None:
            raise ConfigurationError("--against judges a model of yours: name its .onnx file")
        self.files.check_printed("--all-steps", self.all_steps)

    def run(self) -> int:
        """Judge, write and print; 0 if the meaning is kept, else 1."""
        with options.working("graphs") as progress:
            report = self.report(progress)
        if self.files.write_report(report, self.command_line):
            print_verdict(report)
            steps = report.leading.steps
            title = "Tensors" if self.all_steps else "Tensors, of each operator the worst"
            console.print(comparison_table(title, steps if self.all_steps else notable(steps)))
            console.print(f"Tolerance: {report.tolerance}.", style="dim", highlight=False)
        return report.exit_code

    def report(self, progress: options.Progress) -> Report:
        """Judge both graphs on inputs from files, or on three random ones."""
        assert self.model_file is not None
        assert self.against is not None
        after, before = OnnxGraph.load(self.model_file), OnnxGraph.load(Path(self.against))
        feeds = feeds_of(before, self.inputs or (), self.shapes or (), self.seed)
        names = (self.model_file.name, Path(self.against).name)
        cache = None if self.no_cache else cache_folder()
        inputs = _probes(feeds) if len(self.inputs or ()) < len(before.inputs) else {described(feeds): feeds}
        return verify_against(after, before, inputs, names=names, progress=progress, cache=cache)


def _probes(feeds: Mapping[str, Array]) -> Inputs:
    """Return the inputs as they are, louder, and negative: padding with zeros shows only beside such."""
    floats = {name: array for name, array in feeds.items() if array.dtype.kind == "f"}
    loud = {name: array * array.dtype.type(LOUD) for name, array in floats.items()}
    negative = {name: -np.abs(array) for name, array in floats.items()}
    label = described(feeds)
    others = {f"{label} × {LOUD}": loud, f"{label}, negative": negative} if floats else {}
    return {label: feeds, **{name: {**feeds, **changed} for name, changed in others.items()}}
