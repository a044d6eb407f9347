"""`mobileinst derive`: the arithmetic of any number that the network computed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from conformance.cli import options
from conformance.cli.job import Job
from conformance.cli.options import JsonFile
from conformance.cli.output_files import Reads
from conformance.cli.run import scaled
from conformance.pictures.picture import read_picture
from conformance.reports.printable import printable
from conformance.teaching.derivation import MOST, Derivation, derive_deep, find_cell, to_json
from conformance.teaching.derivation_text import derivation_text
from conformance.teaching.taught import Taught, taught
from refimpl import held_out
from refimpl.held_out import held_out_picture


@dataclass(frozen=True, kw_only=True)
class Derive(Job):
    """Derive a number that the network computed: its operator, operands, weights, products and bound.

    A number is a tensor, an output or a block by name, or M, K, X_mask, Q_G, and an index. The heaviest terms
    are listed, the others summed; --json has them all. Numbers are float64; the bound is what float32 may be
    off by.

    [bold]Examples[/bold]

      mobileinst derive 'masks[0,7,12,20]'

      mobileinst derive 'kernels[0,7,3]' --depth 2 --terms 4

      mobileinst derive 'mask_features[0,5,12,20]' street.jpg --weights mine.safetensors --json number.json
    """

    doing = "one number"

    number: Annotated[str, typer.Argument(help="Such as 'masks[0,7,12,20]'.")]
    picture: Annotated[
        Path | None,
        typer.Argument(help="Any picture Pillow reads. Default: a held-out scene."),
        Reads(),
    ] = None
    network: options.NetworkOptions
    size: options.Size = None
    depth: Annotated[
        int, typer.Option("--depth", min=0, max=9, help="How often to go on into the operands.")
    ] = 0
    terms: Annotated[int, typer.Option("--terms", min=1, help="How many terms to list.")] = 8
    digits: Annotated[int, typer.Option("--digits", min=1, max=17, help="Significant digits.")] = 9
    files: JsonFile

    def check(self) -> None:
        """Refuse options about text that is not printed."""
        self.files.check_printed("--digits", self.digits != 9)

    def run(self) -> int:
        """Record the network on the picture, and print where the number comes from."""
        with options.working("recording"):
            shown = show(self.network, self.picture, self.size)
        found = derive_deep(shown.recording, find_cell(shown.recording, self.number), self.depth, self.terms)
        if self.files.write({"derivations": [to_json(shown.recording, each) for each in found]}):
            self._print(shown, found)
        return 0

    def _print(self, shown: Taught, found: list[Derivation]) -> None:
        for each in found:
            text = derivation_text(shown.recording, each, terms=self.terms, digits=self.digits)
            typer.echo(printable_lines(text))
            typer.echo()
        if len(found) >= MOST:
            typer.echo(f"left out: everything after {MOST} numbers; choose a smaller --depth or --terms")


def printable_lines(text: str) -> str:
    """Return lines whose names steer no terminal."""
    return "\n".join(printable(line) for line in text.splitlines())


def show(network: options.NetworkOptions, picture: Path | None, size: str | None) -> Taught:
    """Show a picture, or a held-out scene, to the network that the options name.

    Raises
    ------
    ConfigurationError, FileError, WeightsError, ShapeError
        There is no such network, or it cannot take the picture.
    """
    chosen = network.or_trained()
    pixels = read_picture(picture) if picture else held_out_picture(0).picture
    usual = scaled(pixels.shape[:2], min(held_out.SIZE)) if chosen.is_trained else "phone"
    config, weights = chosen.load()
    return taught(pixels, config, weights, options.parse_size(size) or usual)
