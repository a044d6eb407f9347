"""Arm's kernels without a board: `python -m conformance.evidence.arm`, and `make arm`.

Sets up an arm64 Python under qemu (`conformance.evidence.arm_python`), judges MobileInst there in ncnn and
MNN, in float32 and float16, and in ONNX Runtime, and prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from conformance.evidence.arm_python import CHIP, STEPS, arm_python
from conformance.evidence.program import end_with
from conformance.evidence.runtime_matrix import HEADS, Cell, row_of, runtime_matrix
from conformance.graph import onnx_export
from conformance.judge.weights_cache import cache_folder
from conformance.pictures.inputs import rendered_input
from conformance.reports.matrix_report import markdown_table
from refimpl import MobileInst, MobileInstConfig, Weights

WAYS = (
    ("onnxruntime", "level=all"),
    ("ncnn", "winograd=on"),
    ("ncnn", "winograd=off"),
    ("ncnn", "arithmetic=float16"),
    ("mnn", "winograd=off"),
    ("mnn", "winograd=off,precision=low"),
)
"""Runtimes and how they are asked to run it."""
SIZE = (128, 192)


def cells(
    model: str, interpreter: Sequence[str], progress: Callable[[str], None] = lambda stage: None
) -> Iterator[Cell]:
    """Judge a network of seeded weights in each of `WAYS` under an interpreter.

    Parameters
    ----------
    model
        A preset.
    interpreter
        The words that start the Python that has the runtimes.
    progress
        Called with what is judged.
    """
    config = MobileInstConfig.preset(model, num_queries=20)
    weights = Weights.seeded(config, 0).astype(np.float32)
    with tempfile.TemporaryDirectory(prefix="arm-") as folder:
        path = Path(folder) / "model.onnx"
        images = np.zeros((1, 3, *SIZE), np.float32)
        onnx_export.save(onnx_export.export(MobileInst(config, weights), images), path)
        given = (path, config, weights, rendered_input(SIZE))
        yield from runtime_matrix(
            *given, progress=progress, cache=cache_folder(), ways=WAYS, interpreter=interpreter
        )


def main() -> int:
    """Set up, judge and print; return 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=cache_folder().parent / "mobileinst-arm")
    parser.add_argument("--model", default="topformer-base", help="a preset")
    given = parser.parse_args()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("arm", total=len(STEPS) + len(WAYS) + 1)

        def say(stage: str) -> None:
            progress.update(task, description=stage, advance=1)

        interpreter = arm_python(given.folder, say)
        progress.update(task, completed=len(STEPS))
        found = list(cells(given.model, interpreter, say))
    print(f"{given.model}, 20 queries, {SIZE[0]}×{SIZE[1]}, on qemu's {CHIP}:\n")
    print(markdown_table(HEADS, [row_of(cell) for cell in found]))
    print(f"\n--interpreter {shlex.quote(shlex.join(interpreter))}", file=sys.stderr)
    for cell in found:
        if cell.says:
            print(f"\n{cell.runtime}:{cell.way}: {cell.says}")
    return int(any(cell.verdict in ("fail", "refused") for cell in found))


if __name__ == "__main__":
    end_with(main)
