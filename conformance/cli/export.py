"""`mobileinst export`: the network as an ONNX file, without PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import typer

from conformance.cli import options
from conformance.cli.job import Beside, Job, Unless
from conformance.cli.output_files import NUMBERS, ONNX, WEIGHTS, Output, Reads, Writes
from conformance.graph import onnx_export
from conformance.graph.quantizing import quantized_for_npu
from conformance.pictures.inputs import load_inputs, rendered_input
from conformance.tnn.export import for_tnn, golden_input_path, write_golden_input
from conformance.tnn.lint import TARGETS
from refimpl import MobileInstConfig, Network, Weights
from refimpl.errors import ConfigurationError, FileError
from refimpl.weights import check_save_name

RENDERED = 8
"""Scenes on which ranges are taken where no pictures are given."""


@dataclass(frozen=True, kw_only=True)
class Export(Job):
    """Write the network as an ONNX file of static shapes (opset 17), checked with full shape inference.

    [bold]Examples[/bold]

      mobileinst export mobileinst.onnx --weights mine.safetensors

      mobileinst export --video phone.onnx --weights mine.safetensors

      mobileinst export phone.onnx --target tnn --weights mine.safetensors --size 320x640

      mobileinst export phone.onnx --target qnn --quantize a8w8 --calibrate photographs --size 320x640

      mobileinst export heads.onnx --model maskrcnn-r50 --regions 100

      mobileinst export tiny.onnx --model topformer-tiny --set num_queries=50 --size 192x320 --fold
      --save-weights tiny.safetensors
    """

    doing = "an export"

    path: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The file to write.")]
    network: options.NetworkOptions
    size: options.Size = None
    batch: Annotated[int, typer.Option("--batch-size", min=1, help="Pictures in a batch.")] = 1
    fold: Annotated[
        bool,
        typer.Option("--fold", help="Fold every batch norm into its convolution."),
        Unless("target"),
    ] = False
    video: Annotated[
        bool,
        typer.Option(
            "--video",
            help="Write the two graphs of a video: MODEL.keyframe.onnx, and MODEL.reuse.onnx for the frames "
            "between, which takes the keyframe's kernels as a second input.",
        ),
    ] = False
    regions: Annotated[
        int | None,
        typer.Option(
            "--regions",
            min=1,
            help="Of Mask R-CNN, the second stage in place of the first: its heads on so many regions, which "
            "are an input beside the levels.",
        ),
        Unless("video", "batch", "target"),
    ] = None
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            help="tnn: a file that survives onnx2tnn (float32, batch norms folded, nothing implicit), and "
            "beside it MODEL.in.txt, a rendered scene in TNNTest's text. qnn: float32, batch norms folded, "
            "for Snapdragon's NPU.",
        ),
    ] = None
    quantization: Annotated[
        str | None,
        typer.Option(
            "--quantize",
            help="With --target qnn, by ONNX Runtime's own quantiser: a8w8 or a16w8 (activations, weights).",
        ),
        Beside("target"),
        Unless("video"),
    ] = None
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibrate",
            metavar="FOLDER",
            help="Pictures, or one, on which the ranges are taken. Default: 8 rendered scenes.",
        ),
        Beside("quantization"),
        Reads(),
    ] = None
    save_weights: Annotated[
        Path | None,
        typer.Option("--save-weights", help="Also write the weights, .safetensors or .npz."),
        Writes(WEIGHTS),
    ] = None
    force: options.Force = False

    @property
    def places(self) -> list[Path]:
        """Where the graphs go: one, or the keyframe's and that of the frames between."""
        if not self.video:
            return [self.path]
        try:
            return [self.path.with_suffix(suffix) for suffix in (".keyframe.onnx", ".reuse.onnx")]
        except ValueError:
            raise FileError(f"{self.path} is a folder; name a file") from None

    def check(self) -> None:
        """Refuse a target that is not known, and weights of a format that is not written."""
        if self.target not in (None, *TARGETS, "qnn"):
            raise ConfigurationError(f"--target {self.target!r}; known: {', '.join(TARGETS)}, qnn")
        if self.quantization and self.target != "qnn":
            raise ConfigurationError("--quantize has no effect but with --target qnn; leave it out")
        if self.save_weights:
            check_save_name(self.save_weights)

    def outputs(self) -> list[Output]:
        """Return the graphs, and the input beside the one that takes pictures alone."""
        graphs = [Output("MODEL.onnx", place, ONNX) for place in self.places]
        text = (
            [Output("--target", golden_input_path(self.places[0]), NUMBERS)] if self.target == "tnn" else []
        )
        return graphs + text

    def run(self) -> int:
        """Export, and say how large the graphs are."""
        with options.working("exporting"):
            config, weights = self.network.load()
            made = self._graphs(config, weights)
            for place, exported in made.items():
                onnx_export.save(exported, place)
                if self.target == "tnn":
                    _write_golden_input(place, exported, self.network.seed or 0)
            if self.save_weights:
                weights.save(self.save_weights)
        for place, exported in made.items():
            nodes, megabytes = len(exported.graph.node), place.stat().st_size / 1e6
            said = f"{place}: {nodes} nodes, opset {onnx_export.OPSET}, {megabytes:.1f} MB"
            options.console.print(said, highlight=False)
        return 0

    def _graphs(self, config: MobileInstConfig, weights: Weights) -> dict[Path, onnx.ModelProto]:
        """Return each graph, with the path it goes to."""
        used = weights.folded() if self.fold or self.target else weights
        network = Network(config, used.astype(np.float32) if self.target else used)
        height, width = options.parse_size(self.size, step=1) or options.DEFAULT_SIZE
        images = np.zeros((self.batch, 3, height, width), weights.dtype)
        if self.regions:
            return {self.path: onnx_export.export_regions(network, images, self.regions)}
        exports = (onnx_export.export, onnx_export.export_reuse)
        made = {place: export(network, images) for place, export in zip(self.places, exports, strict=False)}
        if self.target == "tnn":
            return {place: for_tnn(graph) for place, graph in made.items()}
        return {place: self._quantized(graph, (height, width)) for place, graph in made.items()}

    def _quantized(self, graph: onnx.ModelProto, size: tuple[int, int]) -> onnx.ModelProto:
        if not self.quantization:
            return graph
        if self.calibration is None:
            images = [rendered_input(size, self.batch, seed) for seed in range(RENDERED)]
            return quantized_for_npu(
                graph, [each for one in images for each in one.values()], self.quantization
            )
        read = [array for path in _pictures(self.calibration) for array in load_inputs([path], size).values()]
        return quantized_for_npu(graph, [np.repeat(x, self.batch, 0) for x in read], self.quantization)


def _pictures(place: Path) -> list[Path]:
    """Return the files in a folder, or the file itself."""
    if not place.is_dir():
        return [place]
    files = sorted(path for path in place.iterdir() if path.is_file() and not path.name.startswith("."))
    if not files:
        raise FileError(f"{place} holds no picture to take ranges from; name another folder")
    return files


def _write_golden_input(place: Path, exported: onnx.ModelProto, seed: int) -> None:
    """Write a rendered scene as TNNTest reads it; a graph of several inputs has no such text."""
    if len(exported.graph.input) != 1:
        return
    batch, _, height, width = (axis.dim_value for axis in exported.graph.input[0].type.tensor_type.shape.dim)
    (scene,) = rendered_input((height, width), batch, seed).values()
    write_golden_input(place, scene)
    options.console.print(f"{golden_input_path(place)}: the input for it", highlight=False)
