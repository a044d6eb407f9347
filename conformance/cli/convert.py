"""`mobileinst convert`: an ONNX file to a phone's runtime, by that runtime's own converter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from conformance.candidates.converters import (
    CONVERTERS,
    Converter,
    check_package,
    convert,
    export_module,
)
from conformance.cli import options
from conformance.cli.candidate import Trust
from conformance.cli.job import Job
from conformance.cli.output_files import JSON, Kind, Output, Reads
from conformance.graph.onnx_graph import OnnxGraph
from refimpl.errors import ConfigurationError


def _files_in(text: str) -> Iterator[str]:
    """The files that ``MODEL.onnx``, ``pytorch:FILE.py:NAME``, ``pytorch:FILE.pt2`` name."""
    named = text.removeprefix(MODULE)
    yield named.rpartition(":")[0] if ".py:" in named else named


@dataclass(frozen=True, kw_only=True)
class Convert(Job):
    """Convert an ONNX file, or a PyTorch module, to a phone's runtime, by the runtime's own converter.

    Its traps are avoided. A module is written as ONNX first, by PyTorch's exporter, and that file is kept.

    What it writes is read back before it is kept; beside it a record says by what versions and how, as
    MODEL.conversion.json. Judge it with [bold]verify --candidate[/bold].

    [bold]Examples[/bold]

      mobileinst convert mine.onnx --to ncnn

      mobileinst convert mine.onnx half.param --to ncnn --precision float16

      mobileinst convert mine.onnx --to litert --precision int8-dynamic

      mobileinst convert mine.onnx --to executorch --delegate xnnpack

      mobileinst convert mine.onnx --to qnn --delegate snapdragon-8-gen-3

      mobileinst convert pytorch:mine.py:build --shape images=1x3x320x640 --to mnn
    """

    doing = "a conversion"

    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL.onnx",
            help="The file to convert; pytorch:FILE.py:NAME, pytorch:FILE.pt2: a module, as of verify.",
        ),
        Reads(_files_in),
    ]
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
    shapes: Annotated[
        list[str] | None,
        typer.Option(
            "--shape", metavar="NAME=1x3x224x224", help="Of a module's input; one for each, in order."
        ),
    ] = None
    trust: Trust = False
    force: options.Force = False

    @property
    def module(self) -> str:
        """What names a PyTorch module, if it is one."""
        return self.model.removeprefix(MODULE) if self.model.startswith(MODULE) else ""

    @property
    def source(self) -> Path:
        """The ONNX file; of a module, the one that is written."""
        if not self.module:
            return Path(self.model)
        stem = self.place.name.removesuffix(self.converter.suffixes[0])
        return self.place.with_name(f"{stem}.onnx")

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
        named = Path(self.module.partition(".py:")[0]) if self.module else Path(self.model)
        place = self.converted or named.with_name(f"{named.stem}{suffix}")
        if not place.name.endswith(suffix):
            raise ConfigurationError(f"{place}: {self.to} names its models *{suffix}")
        return place

    def check(self) -> None:
        """Refuse a runtime that is not known, to replace a folder that is no package, and idle options."""
        if not self.module and (self.shapes or self.trust):
            flag = "--shape" if self.shapes else "--trust"
            raise ConfigurationError(f"{flag} has no effect on an ONNX file; leave it out")
        if self.place.suffix in PACKAGES and self.place.exists():
            check_package(self.place)

    def outputs(self) -> list[Output]:
        """Return the runtime's files and the record."""
        *files, record = self.converter.places(self.place)
        earlier = record.is_file() or None
        kind = None if files[0].suffix in PACKAGES else _ANY
        exported = [Output("CONVERTED", self.source, _ANY, ours=earlier or not self.source.exists())]
        return [
            *(exported if self.module else ()),
            *(Output("CONVERTED", place, kind, ours=earlier or not place.exists()) for place in files),
            Output("CONVERTED", record, JSON),
        ]

    def run(self) -> int:
        """Convert, and say what was written."""
        if self.module:
            with options.working("torch"):
                export_module(self.module, self.source, self.shapes or (), trusted=self.trust)
        with options.working("reading"):
            OnnxGraph.load(self.source, partly=True)
        with options.working(f"{self.converter.package}"):
            written = convert(self.converter, self.source, self.place, self.precision, self.delegate)
        for place in [*([self.source] if self.module else []), *written]:
            size = sum(each.stat().st_size for each in [place, *place.rglob("*")] if each.is_file())
            options.console.print(f"{place}: {size:,} bytes", highlight=False)
        return 0


MODULE = "pytorch:"
"""What stands before a module's name."""
PACKAGES = (".mlpackage",)
"""Suffixes of converted models that are folders."""
_ANY = Kind("converted", lambda head: False)
