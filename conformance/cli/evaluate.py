"""`mobileinst evaluate`: average precision of result files, and what differs between two."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from conformance.cli import held_out_evaluation, options
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


def evaluate(
    benchmark: Annotated[
        str | None,
        typer.Argument(
            metavar="[coco|ytvis|scenes-val]",
            help="Images (COCO), videos (YouTube-VIS), or a network on the held-out scenes.",
        ),
    ] = None,
    truth: Annotated[Path | None, typer.Option("--gt", help="Ground truth, JSON.")] = None,
    results: Annotated[Path | None, typer.Option("--dt", help="Results (detections), JSON.")] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--compare",
            metavar="A.json B.json",
            help="Instead: what differs between two result files, of images or of videos.",
        ),
    ] = None,
    weights: held_out_evaluation.WeightsFile = Path("scenes-tiny"),
    model: options.Model = options.DEFAULT_MODEL,
    overrides: options.Set = None,
    videos: held_out_evaluation.Videos = False,
    count: held_out_evaluation.Count = None,
    intervals: held_out_evaluation.Intervals = None,
    method: held_out_evaluation.Method = "optimal",
    dot_product: held_out_evaluation.DotProduct = False,
    true_association: held_out_evaluation.TrueAssociation = False,
    deployment: held_out_evaluation.Deployment = False,
    worst: held_out_evaluation.Worst = None,
    write: held_out_evaluation.Write = None,
    json_file: options.Json = None,
) -> None:
    """Evaluate results as the benchmarks do, or compare two result files decision by decision.

    [bold]scenes-val[/bold]: run a network on the held-out scenes, whose truth is rendered on demand, and
    evaluate it by the benchmarks' code, with labels and without, with a 95 % interval over scenes.
    Writes the twelve figures, in COCO's order, as [bold]stats[/bold]; −1 where a figure is undefined.
    Exits 0, or 2 on bad usage or input, naming file and entry.

    [bold]Examples[/bold]

      mobileinst evaluate ytvis --gt truth.json --dt results.json --json figures.json

      mobileinst evaluate scenes-val --weights scenes-tiny

      mobileinst evaluate scenes-val --videos --weights scenes-tiny-video -T 1 -T 3 -T 6

      mobileinst evaluate --compare pytorch.json phone.json
    """
    if compare:
        if benchmark or truth or results:
            raise ConfigurationError("--compare takes two result files and nothing else to evaluate")
        _compare(compare, json_file)
    elif benchmark == HELD_OUT and not (truth or results):
        config = options.configuration(model, overrides, weights)
        network = MobileInst(config, options.load_weights(config, weights, None, 0).astype(np.float32))
        if deployment:
            held_out_evaluation.evaluate_deployment(network, str(weights), count or 40, json_file)
            return
        if worst:
            held_out_evaluation.draw_worst(network, count or held_out.PICTURES, worst)
            return
        ways = [Way(interval, method, dot_product, true_association) for interval in intervals or (1, 3, 6)]
        held_out_evaluation.evaluate(network, str(weights), ways if videos else [], count, write, json_file)
    elif benchmark in EVALUATIONS and truth and results:
        _evaluate(benchmark, truth, results, json_file)
    else:
        raise ConfigurationError(
            f"give {HELD_OUT}, or {' or '.join(EVALUATIONS)} with --gt TRUTH.json and --dt RESULTS.json, or "
            f"--compare A.json B.json; got {benchmark or 'no benchmark'}, --gt {truth}, --dt {results}"
        )


def _evaluate(benchmark: str, truth: Path, results: Path, json_file: Path | None) -> None:
    with options.progress_console.status(f"evaluating {results}"):
        content = EVALUATIONS[benchmark](truth, results).to_json()
    options.write_json(json_file, content)
    if str(json_file) == "-":
        return
    table = Table("figure", "over", box=None, pad_edge=False)
    table.add_column("%", justify="right")
    for name, value in content["named"].items():
        table.add_row(name, AVERAGED[name], f"{100 * value:.1f}" if value >= 0 else "undefined")
    options.console.print(table)


def _compare(paths: tuple[Path, Path], json_file: Path | None) -> None:
    with options.progress_console.status("comparing"):
        comparison = compare_files(*paths)
    content = {"a": str(paths[0]), "b": str(paths[1]), **comparison.to_json()}
    options.write_json(json_file, content)
    if str(json_file) == "-":
        return
    table = Table("difference", box=None, pad_edge=False)
    table.add_column("", justify="right")
    for name, value in content.items():
        table.add_row(name.replace("_", " "), f"{value:.6g}" if isinstance(value, float) else str(value))
    options.console.print(table)
