"""`mobileinst run`: the float32 network on a photograph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from conformance.cli import options
from conformance.cli.job import Job, Unless
from conformance.cli.output_files import JSON, PNG, Output, Reads
from conformance.pictures.picture import (
    COCO_CATEGORY_IDS,
    UNTRAINED,
    annotate,
    coco_results,
    read_picture,
    write_picture,
    write_results,
)
from refimpl import Network, Outputs, held_out
from refimpl.assembly import Assembled
from refimpl.errors import FileError
from refimpl.held_out import held_out_picture
from refimpl.inference import KEEP, Instances, Placement, Size, Sizing, postprocess, preprocess
from refimpl.model import build_network
from refimpl.ops.operation import Array
from refimpl.rival_pictures import instances_of, preparation_of
from refimpl.scenes import LABELS


@dataclass(frozen=True, kw_only=True)
class Run(Job):
    """Segment a photograph: an annotated PNG and COCO-style results.

    With no network given, the trained set scenes-tiny is used, which knows rendered shapes and nothing of
    photographs. Seeded weights only show that everything runs; their pictures say so. A rival's input and
    instances are made as its own code makes them (docs/rivals.md).

    [bold]Examples[/bold]

      mobileinst run

      mobileinst run street.jpg --weights mine.safetensors

      mobileinst run street.jpg --weights mine.safetensors --sizing phone --draw 0.3 --output street.png

      mobileinst run street.jpg --model condinst-r50 --weights condinst.pth
    """

    doing = "a picture"

    picture: Annotated[
        Path | None,
        typer.Argument(help="Any picture Pillow reads. Default: a held-out scene, segmented as scene.png."),
        Reads(),
    ] = None
    output: Annotated[
        Path | None, typer.Option("--output", help="The annotated PNG. Default: PICTURE.mobileinst.png.")
    ] = None
    results: Annotated[
        Path | None, typer.Option("--results", help="COCO results. Default: PICTURE.mobileinst.json.")
    ] = None
    force: options.Force = False
    network: options.NetworkOptions
    size: options.Size = None
    sizing: Annotated[
        str | None,
        typer.Option(
            "--sizing",
            help="image (shorter side 640), video (360), lite (448), detector (800), torchvision (800, cut "
            "to whole pixels), phone (320×640) or native. Default: image, or a rival's own; a trained set's: "
            "shorter side 192.",
        ),
        Unless("size"),
    ] = None
    keep: Annotated[
        float | None,
        typer.Option(
            "--keep",
            min=0,
            max=1,
            help="Keep instances whose score is above this. Default: 0.005; of a rival, what its own code "
            "keeps.",
        ),
    ] = None
    draw: Annotated[
        float, typer.Option("--draw", min=0, max=1, help="Draw instances whose score is above this.")
    ] = 0.4
    image_id: Annotated[int, typer.Option("--image-id", help="image_id in the results.")] = 0

    @property
    def places(self) -> tuple[Path, Path]:
        """Where the picture and the results go."""
        name = self.picture or Path("scene.png")
        picture = self.output or _beside(name, ".mobileinst.png")
        return picture, self.results or _beside(name, ".mobileinst.json")

    def outputs(self) -> list[Output]:
        """Return the picture and the results."""
        picture, results = self.places
        return [Output("--output", picture, PNG), Output("--results", results, JSON)]

    def run(self) -> int:
        """Segment the picture, write both files, and print the ten best instances."""
        network = self.network.or_trained()
        pixels = read_picture(self.picture) if self.picture else held_out_picture(0).picture
        usual = scaled(pixels.shape[:2], min(held_out.SIZE)) if network.is_trained else None
        sizing: Sizing | None = options.parse_size(self.size) or self.sizing or usual
        with options.working("running"):
            config, weights = network.load()
            images, placement = preprocess(pixels, sizing, np.float32, preparation_of(config))
            instances = self.instances(build_network(config, weights.astype(np.float32)), images, placement)
        remark = "" if network.weights else UNTRAINED
        names = LABELS if network.is_trained else None
        drawn = annotate(pixels, instances, above=self.draw, names=names, remark=remark)
        picture, results = self.places
        write_results(results, coco_results(instances, self.image_id, _category_ids(config.num_classes)))
        write_picture(picture, drawn)
        options.console.print(_table(instances))
        count = int((instances.scores > self.draw).sum())
        said = f"{len(instances)} instances in {results}, {count} drawn in {picture}"
        options.console.print(said, highlight=False)
        return 0

    def instances(self, network: Network, images: Array, placement: Placement) -> Instances | Assembled:
        """Run the network, and turn its outputs into instances."""
        computed = network(images)
        if isinstance(computed, Outputs):
            keep = KEEP if self.keep is None else self.keep
            return postprocess(computed, placement, keep_threshold=keep)
        found = instances_of(network, computed, placement)
        return found if self.keep is None else found.chosen(found.scores > self.keep)


def _beside(picture: Path, suffix: str) -> Path:
    try:
        return picture.with_suffix(suffix)
    except ValueError:
        raise FileError(f"{picture} is a folder; name a picture") from None


def _category_ids(classes: int) -> Sequence[int]:
    return COCO_CATEGORY_IDS if classes == len(COCO_CATEGORY_IDS) else range(1, classes + 1)


def _table(instances: Instances | Assembled) -> Table:
    """Return the ten best; of a rival's, the place is the cell, location, prior or proposal that found it."""
    columns = {"label": instances.labels, "score": instances.scores}
    if isinstance(instances, Instances):
        columns = {"query": instances.queries, **columns}
        columns |= {"class": instances.class_scores, "maskness": instances.maskness}
    else:
        columns = {"place": instances.places, **columns}
    table = Table(*columns, "pixels", box=None)
    for i in np.argsort(-instances.scores, kind="stable")[:10]:
        values = [column[i] for column in columns.values()]
        cells = [f"{value:.3f}" if isinstance(value, np.floating) else str(value) for value in values]
        table.add_row(*cells, str(int(instances.masks[i].sum())))
    return table


def scaled(size: tuple[int, ...], shorter: int) -> Size:
    """Return (height, width) with that shorter side, the aspect kept."""
    height, width = (max(round(side * shorter / min(size)), 1) for side in size)
    return height, width
