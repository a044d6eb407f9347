"""`mobileinst export`: the network as an ONNX file, without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import typer

from conformance.cli import options
from conformance.graph import onnx_export
from conformance.pictures.inputs import rendered_input
from conformance.tnn.export import for_tnn, golden_input_path, write_golden_input
from conformance.tnn.lint import TARGETS
from refimpl import MobileInst
from refimpl.errors import ConfigurationError
from refimpl.ops.operation import Array


def export(
    path: Annotated[
        Path, typer.Argument(metavar="MODEL.onnx", callback=options.writable, help="The file to write.")
    ],
    model: options.Model = options.DEFAULT_MODEL,
    overrides: options.Set = None,
    weights: options.WeightsFile = None,
    backbone_weights: options.BackboneFile = None,
    seed: options.Seed = 0,
    size: options.Size = None,
    batch: Annotated[int, typer.Option("--batch-size", min=1, help="Pictures in a batch.")] = 1,
    fold: Annotated[bool, typer.Option("--fold", help="Fold every batch norm into its convolution.")] = False,
    video: Annotated[
        bool,
        typer.Option(
            "--video",
            help="Write the two graphs of a video: MODEL.keyframe.onnx, and MODEL.reuse.onnx for the frames "
            "between, which takes the keyframe's kernels as a second input.",
        ),
    ] = False,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            help="tnn: a file that survives onnx2tnn (float32, batch norms folded, nothing implicit), and "
            "beside it MODEL.in.txt, a rendered scene in TNNTest's text.",
        ),
    ] = None,
    save_weights: Annotated[
        Path | None,
        typer.Option(
            "--save-weights",
            callback=options.writable_weights,
            help="Also write the weights, .safetensors or .npz.",
        ),
    ] = None,
) -> None:
    """Write the network as an ONNX file of static shapes (opset 17), checked with full shape inference.

    [bold]Examples[/bold]

      mobileinst export mobileinst.onnx --weights mine.safetensors

      mobileinst export --video phone.onnx --weights mine.safetensors

      mobileinst export phone.onnx --target tnn --weights mine.safetensors --size 320x640

      mobileinst export tiny.onnx --model topformer-tiny --set num_queries=50 --size 192x320 --fold --save-
      weights tiny.safetensors
    """
    if target not in (None, *TARGETS):
        raise ConfigurationError(f"--target {target!r}; known: {', '.join(TARGETS)}")
    config = options.configuration(model, overrides, weights)
    height, width = options.parse_size(size) or options.DEFAULT_SIZE
    with options.progress_console.status("exporting"):
        arrays = options.load_weights(config, weights, backbone_weights, seed)
        used = arrays.folded() if fold or target else arrays
        network = MobileInst(config, used.astype(np.float32) if target else used)
        images = np.zeros((batch, 3, height, width), arrays.dtype)
        made = _video_graphs(path, network, images) if video else {path: onnx_export.export(network, images)}
        if target:
            made = {place: for_tnn(exported) for place, exported in made.items()}
        for place, exported in made.items():
            onnx_export.save(exported, place)
            if target:
                _write_golden_input(place, exported, seed)
        if save_weights:
            arrays.save(save_weights)
    for place, exported in made.items():
        nodes, megabytes = len(exported.graph.node), place.stat().st_size / 1e6
        options.console.print(
            f"{place}: {nodes} nodes, opset {onnx_export.OPSET}, {megabytes:.1f} MB", highlight=False
        )


def _write_golden_input(place: Path, exported: onnx.ModelProto, seed: int) -> None:
    """Write a rendered scene as TNNTest reads it; a graph of several inputs has no such text."""
    if len(exported.graph.input) != 1:
        return
    batch, _, height, width = (axis.dim_value for axis in exported.graph.input[0].type.tensor_type.shape.dim)
    (scene,) = rendered_input((height, width), batch, seed).values()
    write_golden_input(place, scene)
    options.console.print(f"{golden_input_path(place)}: the input for it", highlight=False)


def _video_graphs(path: Path, network: MobileInst, images: Array) -> dict[Path, onnx.ModelProto]:
    """The two graphs a phone needs, each with the path it goes to."""
    return {
        path.with_suffix(".keyframe.onnx"): onnx_export.export(network, images),
        path.with_suffix(".reuse.onnx"): onnx_export.export_reuse(network, images),
    }
