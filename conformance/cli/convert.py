"""`mobileinst convert`: an ONNX file to a phone's runtime, by that runtime's own converter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from conformance.candidates.converters import CONVERTERS, Converter, check_package, convert
from conformance.cli import options
from conformance.cli.job import Job
from conformance.cli.output_files import JSON, Kind, Output, Reads
from conformance.graph.onnx_graph import OnnxGraph
from refimpl.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Convert(Job):
    """Convert an ONNX file to a phone's runtime, by the runtime's own converter with its traps avoided.

    What it writes is read back before it is kept; beside it a record says by what versions and how, as
    MODEL.conversion.json. Judge it with [bold]verify --candidate[/bold].

    [bold]Examples[/bold]

      mobileinst convert mine.onnx --to ncnn

      mobileinst convert mine.onnx half.param --to ncnn --precision float16

      mobileinst convert mine.onnx --to litert --precision int8-dynamic

      mobileinst convert mine.onnx --to executorch --delegate xnnpack

      mobileinst convert mine.onnx --to qnn --delegate snapdragon-8-gen-3
    """

    doing = "a conversion"

    model_file: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The file to convert."), Reads()]
    converted: Annotated[
        Path | None,
        typer.Argument(
            metavar="CONVERTED", help="The file to write; MODEL with the runtime's suffix by default."
        ),
    ] = None
    to: Annotated[str, typer.Option("--to", metavar="RUNTIME", help=f"{', '.join(CONVERTERS)}.")]
    precision: Annotated[
        str, typer.Option("--precision", help="Of the weights: float32, or what else the converter writes.")
    ] = "float32"
    delegate: Annotated[
        str | None,
        typer.Option(
            "--delegate",
            help="Who computes: of ExecuTorch portable (default), xnnpack, xnnpack-whole; of qnn a chip.",
        ),
    ] = None
    force: options.Force = False

    @property
    def converter(self) -> Converter:
        """The runtime's own.

        Raises
        ------
        ConfigurationError
            There is no such runtime.
        """
        if self.to not in CONVERTERS:
            raise ConfigurationError(f"--to {self.to}: no such runtime; known: {', '.join(CONVERTERS)}")
        return CONVERTERS[self.to]

    @property
    def place(self) -> Path:
        """Where the converted model goes.

        Raises
        ------
        ConfigurationError
            It has another suffix than the runtime's.
        """
        suffix = self.converter.suffixes[0]
        place = self.converted or self.model_file.with_suffix(suffix)
        if not place.name.endswith(suffix):
            raise ConfigurationError(f"{place}: {self.to} names its models *{suffix}")
        return place

    def check(self) -> None:
        """Refuse a runtime that is not known, and to replace a folder that is no package."""
        if self.place.suffix in PACKAGES and self.place.exists():
            check_package(self.place)

    def outputs(self) -> list[Output]:
        """Return the runtime's files and the record."""
        *files, record = self.converter.places(self.place)
        earlier = record.is_file() or None
        kind = None if files[0].suffix in PACKAGES else _ANY
        return [
            *(Output("CONVERTED", place, kind, ours=earlier or not place.exists()) for place in files),
            Output("CONVERTED", record, JSON),
        ]

    def run(self) -> int:
        """Convert, and say what was written."""
        with options.working("reading"):
            OnnxGraph.load(self.model_file, partly=True)
        with options.working(f"{self.converter.package}"):
            written = convert(self.converter, self.model_file, self.place, self.precision, self.delegate)
        for place in written:
            size = sum(each.stat().st_size for each in [place, *place.rglob("*")] if each.is_file())
            options.console.print(f"{place}: {size:,} bytes", highlight=False)
        return 0


PACKAGES = (".mlpackage",)
"""Suffixes of converted models that are folders."""
_ANY = Kind("converted", lambda head: False)
