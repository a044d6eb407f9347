"""`mobileinst export`: the network as an ONNX file, without PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import typer

from conformance.cli import options
from conformance.cli.job import Job, Unless
from conformance.cli.output_files import NUMBERS, ONNX, WEIGHTS, Output, Writes
from conformance.graph import onnx_export
from conformance.pictures.inputs import rendered_input
from conformance.tnn.export import for_tnn, golden_input_path, write_golden_input
from conformance.tnn.lint import TARGETS
from refimpl import MobileInst, MobileInstConfig, Weights
from refimpl.errors import ConfigurationError, FileError
from refimpl.weights import check_save_name


@dataclass(frozen=True, kw_only=True)
class Export(Job):
    """Write the network as an ONNX file of static shapes (opset 17), checked with full shape inference.

    [bold]Examples[/bold]

      mobileinst export mobileinst.onnx --weights mine.safetensors

      mobileinst export --video phone.onnx --weights mine.safetensors

      mobileinst export phone.onnx --target tnn --weights mine.safetensors --size 320x640

      mobileinst export tiny.onnx --model topformer-tiny --set num_queries=50 --size 192x320 --fold --save-
      weights tiny.safetensors
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
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            help="tnn: a file that survives onnx2tnn (float32, batch norms folded, nothing implicit), and "
            "beside it MODEL.in.txt, a rendered scene in TNNTest's text.",
        ),
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
        if self.target not in (None, *TARGETS):
            raise ConfigurationError(f"--target {self.target!r}; known: {', '.join(TARGETS)}")
        if self.save_weights:
            check_save_name(self.save_weights)

    def outputs(self) -> list[Output]:
        """Return the graphs, and the input beside the one that takes pictures alone."""
        graphs = [Output("MODEL.onnx", place, ONNX) for place in self.places]
        text = [Output("--target", golden_input_path(self.places[0]), NUMBERS)] if self.target else []
        return graphs + text

    def run(self) -> int:
        """Export, and say how large the graphs are."""
        config = self.network.config
        with options.working("exporting"):
            weights = self.network.load(config)
            made = self._graphs(config, weights)
            for place, exported in made.items():
                onnx_export.save(exported, place)
                if self.target:
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
        network = MobileInst(config, used.astype(np.float32) if self.target else used)
        height, width = options.parse_size(self.size) or options.DEFAULT_SIZE
        images = np.zeros((self.batch, 3, height, width), weights.dtype)
        exports = (onnx_export.export, onnx_export.export_reuse)
        made = {place: export(network, images) for place, export in zip(self.places, exports, strict=False)}
        return {place: for_tnn(graph) for place, graph in made.items()} if self.target else made


def _write_golden_input(place: Path, exported: onnx.ModelProto, seed: int) -> None:
    """Write a rendered scene as TNNTest reads it; a graph of several inputs has no such text."""
    if len(exported.graph.input) != 1:
        return
    batch, _, height, width = (axis.dim_value for axis in exported.graph.input[0].type.tensor_type.shape.dim)
    (scene,) = rendered_input((height, width), batch, seed).values()
    write_golden_input(place, scene)
    options.console.print(f"{golden_input_path(place)}: the input for it", highlight=False)
