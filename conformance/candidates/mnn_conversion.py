"""MNN's own converter and quantiser, called on an ONNX file in a process of its own."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from conformance.candidates.child_process import end_with_starter
from conformance.candidates.module_to_convert import calibrating
from conformance.candidates.phone_runtime import STATIC
from conformance.conversion.mnn_model import read_mnn
from conformance.graph.onnx_graph import OnnxGraph
from refimpl.errors import ConfigurationError, FileError
from refimpl.ops.operation import Array


def write_mnn(source: Path, target: Path, said: Sequence[str]) -> None:
    """Convert an ONNX file.

    Parameters
    ----------
    source, target
    said
        To the converter; or ``int8-static``: all that MNN's quantiser knows is of integers, by ranges of what
        `calibrating` gives.

    Raises
    ------
    FileError
        The quantiser writes nothing.
    ConfigurationError
        It makes integers of nothing.
    ShapeError
        As of `calibrating`.
    """
    # The commands of these names install a package by pip, and send a log of each conversion.
    importlib.import_module("MNN")  # with which what the tools need is loaded
    tools = importlib.import_module("_tools")
    static = STATIC in said
    made = target.with_suffix(".float.mnn") if static else target
    if static:
        given = target.with_suffix(".given.onnx")
        onnx.save(_with_outputs_of_their_own(onnx.load(source)), given)
    files = ["--modelFile", str(given if static else source), "--MNNModel", str(made), "--bizCode", "none"]
    tools.mnnconvert(["mnnconvert", "-f", "ONNX", *files, *([] if static else said)])
    if static:
        inputs = calibrating(source)
        (name,) = OnnxGraph.load(source).inputs
        _quantise(tools, made, target, name, inputs)


def _with_outputs_of_their_own(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy the outputs that nodes take, by a Reshape to what they are.

    The quantiser's file names no outputs: what is used further on is none when it runs.
    """
    used = {name for node in model.graph.node for name in node.input}
    for output in model.graph.output:
        shape = [side.dim_value for side in output.type.tensor_type.shape.dim]
        if output.name not in used or not all(shape):
            continue
        name, inner = output.name, f"{output.name}/used"
        for node in model.graph.node:
            for ends in (node.input, node.output):
                ends[:] = [inner if each == name else each for each in ends]
        model.graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), f"{name}/shape"))
        model.graph.node.append(helper.make_node("Reshape", [inner, f"{name}/shape"], [name], f"{name}/copy"))
    return model


def _quantise(tools: Any, made: Path, target: Path, name: str, inputs: Sequence[Array]) -> None:
    """Make integers of a model's activations, too, by the moving averages of their ranges."""
    samples = target.with_suffix(".samples")
    told = {"inputs": [{"name": name, "shape": [*map(int, inputs[0].shape)]}]}
    for place, array in enumerate(inputs):
        values = samples / str(place) / f"{name}.txt"
        values.parent.mkdir(parents=True)
        text = " ".join(f"{number:.9g}" for number in array.ravel().tolist())
        values.write_text(text + "\n", encoding="ascii")
        (samples / str(place) / "input.json").write_text(json.dumps(told), encoding="utf-8")
    how = {
        **told,
        "path": f"{samples}/",
        "input_type": "sequence",
        "used_sample_num": len(inputs),
        "feature_quantize_method": "EMA",
        "weight_quantize_method": "MAX_ABS",
        # Else it loses bits in 3×3 convolutions.
        "winogradOpt": False,
    }
    said = target.with_suffix(".json")
    said.write_text(json.dumps(how), encoding="utf-8")
    tools.mnnquant(["mnnquant", str(made), str(target), str(said)])
    if not target.is_file():
        raise FileError("MNN's quantiser writes nothing")
    if not read_mnn(target).grids:
        raise ConfigurationError("MNN's quantiser makes integers of nothing of it")


if __name__ == "__main__":
    end_with_starter()
    write_mnn(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
