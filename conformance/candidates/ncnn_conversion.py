"""ncnn's own converter and its two programs that make integers, called in a process of their own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from conformance.candidates.child_process import end_with_starter
from conformance.candidates.module_to_convert import calibrating
from conformance.conversion.ncnn_model import has_integers, read_ncnn
from refimpl.errors import ConfigurationError, FileError

TO_TABLE, TO_INTEGERS = "ncnn2table", "ncnn2int8"
"""They take ranges of what a model computes, and make integers by them."""


def pnnx(source: Path, said: Sequence[str]) -> list[str]:
    """Return the command of ncnn's converter, which writes ``model.ncnn.param`` where it runs."""
    # The command beside it starts a Python that imports PyTorch first, which pnnx itself does not need.
    found = importlib.util.find_spec("pnnx")
    assert found is not None
    assert found.origin is not None
    return [str(Path(found.origin).with_name("pnnx")), str(source), *said]


def write_ncnn_integers(source: Path, target: Path) -> None:
    """Convert an ONNX file to a model that computes most products in integers.

    Parameters
    ----------
    source
    target
        The ``.param``; its ``.bin`` is written beside it.

    Raises
    ------
    ConfigurationError
        The model has no product of which integers are made, or takes no pictures.
    FileError
        A program fails.
    ShapeError
        As of `calibrating`.
    """
    _run(pnnx(source, ["fp16=0"]))
    made = source.with_name("model.ncnn.param")
    turn_matrices(made)
    table, listed = source.with_name("model.table"), source.with_name("inputs.txt")
    inputs = [np.asarray(each[0], np.float32) for each in calibrating(source)]
    if inputs[0].ndim != 3:
        raise ConfigurationError(f"{TO_TABLE} takes ranges of pictures, the model takes {inputs[0].shape}")
    files = [source.with_name(f"input{place}.npy") for place in range(len(inputs))]
    for path, array in zip(files, inputs, strict=True):
        np.save(path, array)
    listed.write_text("".join(f"{path}\n" for path in files), encoding="utf-8")
    sides = ",".join(str(side) for side in inputs[0].shape[::-1])
    pair = [str(made), str(made.with_suffix(".bin"))]
    _run([TO_TABLE, *pair, str(listed), str(table), f"shape=[{sides}]", "method=kl", "type=1", "thread=1"])
    _run([TO_INTEGERS, *pair, str(target), str(target.with_suffix(".bin")), str(table)])
    if not target.is_file():
        raise FileError(f"{TO_INTEGERS} writes nothing")
    if not has_integers(target):
        raise ConfigurationError(f"{TO_INTEGERS} makes integers of nothing of it")


def turn_matrices(param: Path) -> None:
    """Store constant matrices the other way round, which means the same.

    Of one that is stored by rows ncnn2int8 takes the largest of the first row for that of all, and cuts off
    the others.
    """
    weights, lines = param.with_suffix(".bin"), param.read_text(encoding="utf-8").splitlines()
    content = bytearray(weights.read_bytes())
    for number, layer in enumerate(read_ncnn(param, content)):
        if layer.kind == "Gemm" and layer.param(5) and layer.param(3):
            held = layer.weights[1 if layer.param(4) else 0]
            held[:] = held.reshape(layer.param(8), layer.param(9)).T.ravel().copy()
            words = ["3=0" if word.startswith("3=") else word for word in lines[2 + number].split(" ")]
            lines[2 + number] = " ".join(words)
    weights.write_bytes(content)
    param.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        words = done.stderr.decode("utf-8", "replace").split("\n")
        said = next((line for line in reversed(words) if line.strip()), "it says nothing")
        raise FileError(f"{Path(command[0]).name} fails with status {done.returncode}: {said.strip()[:200]}")


if __name__ == "__main__":
    end_with_starter()
    write_ncnn_integers(Path(sys.argv[1]), Path(sys.argv[2]))
