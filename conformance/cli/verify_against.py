"""`mobileinst verify AFTER.onnx --against BEFORE.onnx`: does the one mean what the other does?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from conformance.candidates.kinds import Request
from conformance.cli import options, verify_options
from conformance.cli.candidate import Limit, Trust, check_candidate, made_beside_graph
from conformance.cli.job import Job
from conformance.cli.report_files import ReportFiles
from conformance.cli.verdict import print_beside
from conformance.cli.verify_graph import Shapes, feeds_of
from conformance.conversion.meanings import MEANINGS, with_integers
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.against import Inputs, verify_against, verify_export
from conformance.judge.quantised_against import is_quantised, verify_quantised
from conformance.judge.unrounded import rounds_only, verify_unrounded
from conformance.judge.weights_cache import cache_folder
from conformance.pictures.graph_inputs import described
from conformance.reports.report import Report
from refimpl.errors import ConfigurationError, UnsupportedOperationError
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
    timeout: verify_options.Timeout = None
    trust: Trust = False

    def check(self) -> None:
        """Refuse a verdict on nothing, and options about a table that is not printed."""
        if self.model_file is None:
            raise ConfigurationError("--against judges a model of yours: name its .onnx file")
        self.files.check_printed("--all-steps", self.all_steps)
        if self.is_module:
            check_candidate(str(self.against), {"--trust": self.trust})
        elif self.trust or self.timeout is not None:
            flag = "--trust" if self.trust else "--timeout"
            raise ConfigurationError(f"{flag} has no effect beside a graph; leave it out")

    def run(self) -> int:
        """Judge, write and print; 0 if the meaning is kept, else 1."""
        with options.working("graphs") as progress:
            report = self.report(progress)
        if self.files.write_report(report, self.command_line):
            print_beside(report, self.all_steps)
        return report.exit_code

    def report(self, progress: options.Progress) -> Report:
        """Judge on inputs from files, or on three random ones."""
        assert self.model_file is not None
        assert self.against is not None
        after = self._after(self.model_file)
        cache = None if self.no_cache else cache_folder()
        if self.is_module:
            inputs = self._inputs(after)
            request = Request("", None, {}, self.model_file, trusted=self.trust, wide=True)
            limit = Limit(self.timeout or verify_options.LONGEST, self.timeout is not None)
            names = (self.model_file.name, self.against)
            with made_beside_graph(self.against, request, limit) as module:
                return verify_export(after, module, inputs, names=names, progress=progress, cache=cache)
        before = OnnxGraph.load(Path(self.against))
        names = (self.model_file.name, Path(self.against).name)
        if self._is_of_integers(after) and not is_quantised(before):
            inputs, (stored, _) = self._inputs(before), with_integers(self.model_file)
            own: dict[str, Any] = {"stored": stored, "ranged": bool(self.inputs)}
            return verify_unrounded(after, before, inputs, names=names, progress=progress, cache=cache, **own)
        if is_quantised(after) and not is_quantised(before):
            feeds = feeds_of(before, self.inputs or (), self.shapes or (), self.seed)
            label = described(feeds)
            return verify_quantised(after, before, feeds, label=label, names=names, progress=progress)
        inputs = self._inputs(before)
        # What a converter has made may not fit together; of an ONNX file that is an error.
        partly = self.model_file.suffix in MEANINGS
        how: dict[str, Any] = {"names": names, "progress": progress, "cache": cache, "partly": partly}
        stored, weights = with_integers(self.model_file)
        return verify_against(after, before, inputs, **how, stored=stored, weights=weights)

    def _after(self, path: Path) -> OnnxGraph:
        """Read the model; a runtime's files as the graph that they mean."""
        meaning = MEANINGS.get(path.suffix)
        if meaning is None:
            return OnnxGraph.load(path)
        if self.is_module:
            raise ConfigurationError(
                f"--against pytorch: is for an .onnx file; name the one that {path.name} was made from"
            )
        before = OnnxGraph.load(Path(str(self.against)))
        shapes = {
            name: [side if isinstance(side, int) else 1 for side in info.shape or ()]
            for name, info in before.declared.items()
        }
        return OnnxGraph.load(meaning(path, shapes, list(before.outputs)))

    def _is_of_integers(self, after: OnnxGraph) -> bool:
        """Whether it is a runtime's file, in which tensors are integers; those of ONNX keep their names."""
        assert self.model_file is not None
        found = self.model_file.suffix in MEANINGS and rounds_only(after)
        if found and self.model_file.suffix == ".xml":
            raise UnsupportedOperationError(
                f"{self.model_file.name}: NNCF moves biases by what its samples tell, which no bound "
                "contains; judge the file by itself: --graph-only --candidate openvino:weights=int8-static"
            )
        return found

    @property
    def is_module(self) -> bool:
        """Whether it is beside a PyTorch module."""
        return str(self.against).startswith("pytorch:")

    def _inputs(self, graph: OnnxGraph) -> Inputs:
        feeds = feeds_of(graph, self.inputs or (), self.shapes or (), self.seed)
        random = len(self.inputs or ()) < len(graph.inputs)
        return _probes(feeds) if random else {described(feeds): feeds}


def _probes(feeds: Mapping[str, Array]) -> Inputs:
    """Return the inputs as they are, louder, and negative: padding with zeros shows only beside such."""
    floats = {name: array for name, array in feeds.items() if array.dtype.kind == "f"}
    loud = {name: array * array.dtype.type(LOUD) for name, array in floats.items()}
    negative = {name: -np.abs(array) for name, array in floats.items()}
    label = described(feeds)
    others = {f"{label} × {LOUD}": loud, f"{label}, negative": negative} if floats else {}
    return {label: feeds, **{name: {**feeds, **changed} for name, changed in others.items()}}
