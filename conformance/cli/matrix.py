"""`mobileinst matrix`: every runtime that is installed, each in every precision, on one model."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from conformance.candidates.onnx_candidate import only_input
from conformance.cli import options, verify_options
from conformance.cli.candidate import Interpreter, words_of
from conformance.cli.job import Job
from conformance.cli.options import JsonFile
from conformance.cli.report_files import Html, Markdown
from conformance.evidence.runtime_matrix import HEADS, Cell, row_of, runtime_matrix
from conformance.files import write_text
from conformance.graph import onnx_export
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.weights_cache import cache_folder
from conformance.pictures.inputs import rendered_input
from conformance.reports.matrix_report import markdown_table, page_of_table
from refimpl import MobileInst, MobileInstConfig, Weights
from refimpl.errors import ConfigurationError

SHOWN = 90


@dataclass(frozen=True, kw_only=True)
class Matrix(Job):
    """Judge one model in every runtime that is installed, in every precision, converted by its own converter.

    Exits 0 if all that could be run conform, else 1; 2 if none could.

    [bold]Examples[/bold]

      mobileinst matrix --model topformer-tiny --set num_queries=20 --size 128x192

      mobileinst matrix mine.onnx --weights mine.safetensors --markdown matrix.md --html matrix.html

      mobileinst matrix --model topformer-tiny --size 128x192 --interpreter 'ssh -p 8022 phone python'
    """

    doing = "a matrix of runtimes"

    model_file: verify_options.ModelFile = None
    network: options.NetworkOptions
    size: options.Size = None
    interpreter: Interpreter = None
    no_cache: verify_options.NoCache = False
    html_file: Html = None
    markdown_file: Markdown = None
    files: JsonFile

    def check(self) -> None:
        """Refuse a size beside a model, which has its own."""
        if self.model_file and self.size:
            raise ConfigurationError("--size has no effect beside MODEL, which has its own; leave it out")

    def run(self) -> int:
        """Judge, write and print; 1 if one fails."""
        network = self.network.or_trained() if self.model_file is None else self.network
        config, weights = network.load()
        with tempfile.TemporaryDirectory(prefix="matrix-") as folder, options.working("matrix") as progress:
            model, size = self._model(Path(folder), config, weights)
            cache = None if self.no_cache else cache_folder()
            given = (model, config, weights, rendered_input(size))
            words = words_of(self.interpreter)
            cells = list(runtime_matrix(*given, progress=progress, cache=cache, interpreter=words))
        if all(cell.verdict in ("refused", "not installed") for cell in cells):
            raise ConfigurationError(f"no runtime can be run: {cells[0].runtime}: {cells[0].says}")
        rows = [row_of(cell) for cell in cells]
        title = f"{network.described} at {size[0]}×{size[1]}"
        self._write(title, rows)
        if self.files.write({"model": title, "cells": [asdict(cell) for cell in cells]}):
            _print(title, rows, cells)
        return int(any(cell.verdict == "fail" for cell in cells))

    def _model(
        self, folder: Path, config: MobileInstConfig, weights: Weights
    ) -> tuple[Path, tuple[int, int]]:
        """Return the model, or our own export, and the size of picture that it takes."""
        wanted = options.parse_size(self.size, step=1)
        if self.model_file is None:
            size = wanted or options.DEFAULT_SIZE
            images = np.zeros((1, 3, *size), weights.dtype)
            model = folder / "own.onnx"
            onnx_export.save(onnx_export.export(MobileInst(config, weights), images), model)
            return model, size
        *_, height, width = only_input(OnnxGraph.load(self.model_file)).shape
        return self.model_file, (height or options.DEFAULT_SIZE[0], width or options.DEFAULT_SIZE[1])

    def _write(self, title: str, rows: Sequence[Sequence[str]]) -> None:
        page = page_of_table(title, HEADS, rows, self.command_line)
        for path, text in (
            (self.html_file, page),
            (self.markdown_file, f"# {title}\n\n{markdown_table(HEADS, rows)}"),
        ):
            if path is not None:
                write_text(path, text)


def _print(title: str, rows: Sequence[Sequence[str]], cells: Sequence[Cell]) -> None:
    table = Table(*HEADS, title=title, title_justify="left", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    options.console.print(table)
    for cell in cells:
        if cell.says:
            said = cell.says if len(cell.says) <= 3 * SHOWN else f"{cell.says[: 3 * SHOWN]}…"
            options.console.print(f"{cell.runtime}:{cell.way}: {said}", highlight=False, markup=False)
