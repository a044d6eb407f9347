"""`mobileinst evaluate`: average precision of result files, and what differs between two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from conformance.cli import held_out_evaluation, options
from conformance.cli.job import Job, Unless
from conformance.cli.options import JsonFile
from conformance.cli.output_files import PNG, Reads, Writes
from conformance.evaluation import coco, ytvis
from conformance.evaluation.result_comparison import compare_files
from conformance.evidence.ways_of_tracking import Way
from refimpl import MobileInst, held_out
from refimpl.errors import ConfigurationError

HELD_OUT = held_out.NAME
EVALUATIONS = {"coco": coco.evaluate_files, "ytvis": ytvis.evaluate_files}
AVERAGED = {
    "AP": "IoU .50:.05:.95",
    "AP50": "IoU .50",
    "AP75": "IoU .75",
    "APs": "small objects",
    "APm": "medium objects",
    "APl": "large objects",
    "AR1": "1 detection",
    "AR10": "10 detections",
    "AR100": "100 detections",
    "ARs": "small objects",
    "ARm": "medium objects",
    "ARl": "large objects",
}


Benchmark = Annotated[
    str | None,
    typer.Argument(
        metavar="[coco|ytvis|scenes-val]",
        help="Images (COCO), videos (YouTube-VIS), or a network on the held-out scenes.",
    ),
]


class Evaluate:
    """Evaluate results as the benchmarks do, or compare two result files decision by decision.

    [bold]scenes-val[/bold]: run a network on the held-out scenes, whose truth is rendered on demand, and
    evaluate it by the benchmarks' code, with labels and without, with a 95 % interval over scenes.
    Writes the twelve figures, in COCO's order, as [bold]stats[/bold]; −1 where a figure is undefined.
    Exits 0, or 2 on bad usage or input, naming file and entry.

    [bold]Examples[/bold]

      mobileinst evaluate ytvis --gt truth.json --dt results.json --json figures.json

      mobileinst evaluate scenes-val --weights scenes-tiny

      mobileinst evaluate scenes-val --videos --weights scenes-tiny -T 1 -T 3 -T 6

      mobileinst evaluate scenes-val --rivals --weights scenes-tiny --count 20

      mobileinst evaluate --compare pytorch.json phone.json
    """


@dataclass(frozen=True, kw_only=True)
class ResultComparison(Job):
    """What differs between two result files."""

    doing = "a comparison (--compare)"
    chosen_by = ("compare",)

    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--compare",
            metavar="A.json B.json",
            help="Instead: what differs between two result files, of images or of videos.",
        ),
        Reads(),
    ] = None
    files: JsonFile

    def run(self) -> int:
        """Compare them, and print."""
        assert self.compare is not None
        first, second = self.compare
        with options.working("comparing"):
            comparison = compare_files(first, second)
        content = {"a": str(first), "b": str(second), **comparison.to_json()}
        if self.files.write(content):
            table = Table("difference", box=None, pad_edge=False)
            table.add_column("", justify="right")
            for name, value in content.items():
                said = f"{value:.6g}" if isinstance(value, float) else str(value)
                table.add_row(name.replace("_", " "), said)
            options.console.print(table)
        return 0


@dataclass(frozen=True, kw_only=True)
class ResultFiles(Job):
    """The figures of a result file."""

    doing = "a result file (coco or ytvis)"

    benchmark: Benchmark = None
    truth: Annotated[Path | None, typer.Option("--gt", help="Ground truth, JSON."), Reads()] = None
    results: Annotated[Path | None, typer.Option("--dt", help="Results (detections), JSON."), Reads()] = None
    files: JsonFile

    def check(self) -> None:
        """Refuse an evaluation of nothing."""
        if self.benchmark not in EVALUATIONS or not (self.truth and self.results):
            raise ConfigurationError(
                f"give {HELD_OUT}, or {' or '.join(EVALUATIONS)} with --gt TRUTH.json and --dt RESULTS.json, "
                f"or --compare A.json B.json; got {self.benchmark or 'no benchmark'}, --gt {self.truth}, "
                f"--dt {self.results}"
            )

    def run(self) -> int:
        """Evaluate, and print the twelve figures."""
        assert self.benchmark is not None
        assert self.truth is not None
        assert self.results is not None
        with options.working(f"evaluating {self.results}"):
            content = EVALUATIONS[self.benchmark](self.truth, self.results).to_json()
        if self.files.write(content):
            table = Table("figure", "over", box=None, pad_edge=False)
            table.add_column("%", justify="right")
            for name, value in content["named"].items():
                table.add_row(name, AVERAGED[name], f"{100 * value:.1f}" if value >= 0 else "undefined")
            options.console.print(table)
        return 0


@dataclass(frozen=True, kw_only=True)
class HeldOut(Job):
    """A network on the held-out scenes."""

    benchmark: Benchmark = None
    weights: Annotated[held_out_evaluation.WeightsFile, Reads()] = Path("scenes-tiny")
    model: options.Model = None
    overrides: options.Set = None
    count: held_out_evaluation.Count = None

    @classmethod
    def is_chosen(cls, given: Mapping[str, Any]) -> bool:
        """Tell whether the held-out scenes are named, and the mode's own options with them."""
        return given.get("benchmark") == HELD_OUT and super().is_chosen(given)

    def network(self) -> MobileInst:
        """Return the network in float32."""
        config, weights = options.load_network(self.model, self.overrides, self.weights)
        return MobileInst(config, weights.astype(np.float32))


@dataclass(frozen=True, kw_only=True)
class HeldOutPictures(HeldOut):
    """Its pictures."""

    doing = "the held-out pictures (scenes-val)"

    write: Annotated[held_out_evaluation.Write, Writes(None)] = None
    files: JsonFile

    def run(self) -> int:
        """Measure, and print the figures."""
        held_out_evaluation.evaluate(
            self.network(), str(self.weights), [], self.count, self.write, self.files.json_file
        )
        return 0


@dataclass(frozen=True, kw_only=True)
class HeldOutVideos(HeldOut):
    """Its videos."""

    doing = "the held-out videos (scenes-val --videos)"
    chosen_by = ("videos",)

    videos: held_out_evaluation.Videos = False
    intervals: held_out_evaluation.Intervals = None
    method: Annotated[held_out_evaluation.Method, Unless("true_association")] = "optimal"
    dot_product: Annotated[held_out_evaluation.DotProduct, Unless("true_association")] = False
    true_association: held_out_evaluation.TrueAssociation = False
    write: Annotated[held_out_evaluation.Write, Writes(None)] = None
    files: JsonFile

    def run(self) -> int:
        """Follow the videos in each way, and print the figures."""
        ways = [
            Way(interval, self.method, self.dot_product, self.true_association)
            for interval in self.intervals or (1, 3, 6)
        ]
        held_out_evaluation.evaluate(
            self.network(), str(self.weights), ways, self.count, self.write, self.files.json_file
        )
        return 0


@dataclass(frozen=True, kw_only=True)
class HeldOutRivals(HeldOut):
    """The trackers of Table 2 on its videos."""

    doing = "the trackers of Table 2 (scenes-val --rivals)"
    chosen_by = ("rivals",)

    rivals: options.Rivals = False
    files: JsonFile

    def run(self) -> int:
        """Follow the videos with every tracker, on the oracle's detections and the network's."""
        held_out_evaluation.evaluate_rivals(
            self.network(), str(self.weights), self.count or held_out.VIDEOS, self.files.json_file
        )
        return 0


@dataclass(frozen=True, kw_only=True)
class HeldOutDeployment(HeldOut):
    """What each way of deploying costs."""

    doing = "ways of deploying (scenes-val --deployment)"
    chosen_by = ("deployment",)

    deployment: held_out_evaluation.Deployment = False
    files: JsonFile

    def run(self) -> int:
        """Deploy, measure, and print the figures."""
        held_out_evaluation.evaluate_deployment(
            self.network(), str(self.weights), self.count or 40, self.files.json_file
        )
        return 0


@dataclass(frozen=True, kw_only=True)
class HeldOutWorst(HeldOut):
    """The pictures it does worst on."""

    doing = "the worst pictures (scenes-val --worst)"
    chosen_by = ("worst",)

    worst: Annotated[held_out_evaluation.Worst, Writes(PNG)] = None
    force: options.Force = False

    def run(self) -> int:
        """Draw them."""
        assert self.worst is not None
        held_out_evaluation.draw_worst(self.network(), self.count or held_out.PICTURES, self.worst)
        return 0


MODES = (
    ResultComparison,
    HeldOutRivals,
    HeldOutDeployment,
    HeldOutWorst,
    HeldOutVideos,
    HeldOutPictures,
    ResultFiles,
)
