"""`mobileinst run`: the float32 network on a photograph."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from conformance.cli import options
from conformance.files import check_writable
from conformance.pictures.picture import (
    COCO_CATEGORY_IDS,
    UNTRAINED,
    annotate,
    coco_results,
    read_picture,
    write_picture,
    write_results,
)
from refimpl import MobileInst, held_out
from refimpl.held_out import held_out_picture
from refimpl.inference import Size, Sizing, postprocess, preprocess
from refimpl.scenes import LABELS


def run(
    context: typer.Context,
    picture: Annotated[
        Path | None,
        typer.Argument(help="Any picture Pillow reads. Default: a held-out scene, segmented as scene.png."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="The annotated PNG. Default: PICTURE.mobileinst.png.")
    ] = None,
    results: Annotated[
        Path | None, typer.Option("--results", help="COCO results. Default: PICTURE.mobileinst.json.")
    ] = None,
    model: options.Model = options.DEFAULT_MODEL,
    overrides: options.Set = None,
    weights: options.WeightsFile = None,
    backbone_weights: options.BackboneFile = None,
    seed: options.Seed = 0,
    size: options.Size = None,
    sizing: Annotated[
        str | None,
        typer.Option(
            "--sizing",
            help="image (shorter side 640), video (360), phone (320×640) or native. Default: image; for a "
            "trained set, shorter side 192.",
        ),
    ] = None,
    keep: Annotated[
        float, typer.Option("--keep", min=0, max=1, help="Keep instances whose score is above this.")
    ] = 0.005,
    draw: Annotated[
        float, typer.Option("--draw", min=0, max=1, help="Draw instances whose score is above this.")
    ] = 0.4,
    image_id: Annotated[int, typer.Option("--image-id", help="image_id in the results.")] = 0,
) -> None:
    """Segment a photograph: an annotated PNG and COCO-style results.

    With no network given, the trained set scenes-tiny is used, which knows rendered shapes and nothing of
    photographs. Seeded weights only show that everything runs; their pictures say so.

    [bold]Examples[/bold]

      mobileinst run

      mobileinst run street.jpg --weights mine.safetensors

      mobileinst run street.jpg --weights mine.safetensors --sizing phone --draw 0.3 --output street.png
    """
    weights = weights or options.trained_by_default(context)
    config = options.configuration(model, overrides, weights)
    pixels = read_picture(picture) if picture else held_out_picture(0).picture
    picture = picture or Path("scene.png")
    output = output or picture.with_suffix(".mobileinst.png")
    results = results or picture.with_suffix(".mobileinst.json")
    for path in (output, results):
        check_writable(path)
    trained = options.names_trained(weights)
    usual = scaled(pixels.shape[:2], min(held_out.SIZE)) if trained else "image"
    how: Sizing = options.parse_size(size) or sizing or usual
    images, placement = preprocess(pixels, sizing=how, dtype=np.float32)
    with options.progress_console.status("running"):
        network = MobileInst(
            config, options.load_weights(config, weights, backbone_weights, seed).astype(np.float32)
        )
        instances = postprocess(network(images), placement, keep_threshold=keep)
    ids = (
        COCO_CATEGORY_IDS
        if config.num_classes == len(COCO_CATEGORY_IDS)
        else range(1, config.num_classes + 1)
    )
    write_results(results, coco_results(instances, image_id, ids))
    names = LABELS if trained else None
    remark = "" if weights else UNTRAINED
    write_picture(output, annotate(pixels, instances, above=draw, names=names, remark=remark))
    table = Table("query", "label", "score", "class", "maskness", "pixels", box=None)
    order = np.argsort(-instances.scores, kind="stable")[:10]
    for i in order:
        numbers = (instances.scores[i], instances.class_scores[i], instances.maskness[i])
        cells = [f"{number:.3f}" for number in numbers]
        table.add_row(
            str(instances.queries[i]), str(instances.labels[i]), *cells, str(int(instances.masks[i].sum()))
        )
    options.console.print(table)
    kept, drawn = len(instances), int((instances.scores > draw).sum())
    options.console.print(f"{kept} instances in {results}, {drawn} drawn in {output}", highlight=False)


def scaled(size: tuple[int, ...], shorter: int) -> Size:
    """Return (height, width) with that shorter side, the aspect kept."""
    height, width = (max(round(side * shorter / min(size)), 1) for side in size)
    return height, width
