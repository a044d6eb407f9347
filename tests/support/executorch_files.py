"""A small program of ExecuTorch's, its source, and what the program means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from conformance.conversion.executorch_graph import executorch_graph
from conformance.conversion.executorch_model import ExecutorchProgram

SMALL = Path(__file__).parents[1] / "data" / "executorch" / "small.pte"
"""Of `small`, by ExecuTorch 1.5.1: `mobileinst convert small.onnx --to executorch`."""
TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
small (float[1, 4, 8, 12] x) => (float[1, 6, 18] y, float[1, 8, 4, 6] mean)
{
  conv = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w1, b1)
  relu = Relu (conv)
  deep = Conv <pads = [2, 1, 2, 1], group = 8> (relu, w2, b2)
  six = Clip (deep, zero, top)
  pool = MaxPool <kernel_shape = [2, 3], strides = [2, 3]> (six)
  mean = AveragePool <kernel_shape = [3, 3], strides = [1, 1], pads = [1, 1, 1, 1], count_include_pad = 1>
         (six)
  wide = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel"> (pool, , , sides)
  sum = Add (six, wide)
  first, second = Split <axis = 1> (sum, parts)
  root = Sigmoid (first)
  both = Concat <axis = 1> (second, root, six)
  cut = Slice (both, begins, ends, axes)
  rows = Reshape (cut, shape)
  turned = Transpose <perm = [0, 2, 1]> (rows)
  normal = LayerNormalization <axis = -1> (turned, scale, shift)
  logits = MatMul (normal, rows)
  weighed = Softmax <axis = -1> (logits)
  product = MatMul (weighed, w3)
  back = Transpose <perm = [0, 2, 1]> (product)
  gate = HardSigmoid <alpha = 0.2> (back)
  y = Mul (back, gate)
}
"""


def drawn() -> dict[str, Any]:
    """Return the weights of the small graph."""
    rng = np.random.default_rng(5)
    shapes = {"w1": (8, 4, 3, 3), "b1": (8,), "w2": (8, 1, 5, 3), "b2": (8,), "scale": (7,), "shift": (7,)}
    shapes |= {"w3": (18, 6)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def small() -> onnx.ModelProto:
    """Return a graph of what networks are made of, a few numbers wide."""
    whole = {"sides": [1, 8, 4, 6], "parts": [3, 5], "begins": [1, 2], "ends": [4, 9], "axes": [2, 1]}
    held = {"zero": np.float32(0), "top": np.float32(6), **drawn()}
    held |= {name: np.array(numbers, np.int64) for name, numbers in {**whole, "shape": [1, -1, 18]}.items()}
    model = onnx.parser.parse_model(TEXT)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(held[name]), name) for name in held)
    return model


def meaning(program: ExecutorchProgram, *shape: int) -> onnx.ModelProto:
    """Return what the small program, or one made of it, means."""
    return executorch_graph(program, {"x": shape or (1, 4, 8, 12)}, ["y", "mean"])


W = drawn()
SHOWN = {"w1": "conv", "b1": "conv", "w2": "deep", "b2": "deep", "scale": "normal", "shift": "normal"}
"""Weight → the step that it shows at."""
