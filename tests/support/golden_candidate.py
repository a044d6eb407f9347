"""A candidate for the goldens: ONNX Runtime, which reads the models that stand beside them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from safetensors.numpy import save_file

from conformance.bounds import utilisation
from conformance.graph.onnx_graph import OnnxGraph
from golden import DATA
from golden.store import Entry, read_manifest
from refimpl.ops import OPERATIONS

Edit = Callable[[onnx.ModelProto], None]
ENTRIES = {entry.name: entry for entry in read_manifest(DATA)}


def outputs(entry: Entry, edit: Edit = lambda model: None) -> dict[str, np.ndarray]:
    """Run a golden's model, perhaps edited, on the golden's inputs."""
    model = onnx.load(entry.path(".onnx"))
    edit(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    inputs = entry.tensors("input.")
    arrays = session.run(list(entry.outputs), {node.name: inputs[node.name] for node in session.get_inputs()})
    return dict(zip(entry.outputs, (np.asarray(x) for x in arrays), strict=True))


def write(folder: Path, entry: Entry, tensors: dict[str, np.ndarray]) -> Path:
    """Write a golden's results as the README of the goldens says."""
    path = folder / f"{entry.name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: np.array(x, order="C") for name, x in tensors.items()}, path)
    return path


def attribute(name: str, value: object) -> Edit:
    """Return an edit that sets an attribute of the only node."""

    def edit(model: onnx.ModelProto) -> None:
        node = model.graph.node[0]
        kept = [a for a in node.attribute if a.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])

    return edit


def constant(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Edit:
    """Return an edit that changes an initializer."""

    def edit(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            if tensor.name == name:
                changed = np.ascontiguousarray(change(onnx.numpy_helper.to_array(tensor)))
                tensor.CopyFrom(onnx.numpy_helper.from_array(changed, name))

    return edit


# Correct candidates that round in other ways than the reference.


def by_onnx_runtime(entry: Entry, level: str, only: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Run a golden's model at one level of optimisation; with few outputs asked for, more is fused."""
    model = onnx.load(entry.path(".onnx"))
    kept = [node for node in model.graph.output if not only or node.name in only]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    names, inputs = [node.name for node in kept], entry.tensors("input.")
    arrays = session.run(names, {node.name: inputs[node.name] for node in session.get_inputs()})
    return dict(zip(names, arrays, strict=True))


class Summing:
    """Products whose terms are added in a shuffled order, a few at a time."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def mat_mul(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Multiply matrices."""
        parts = np.array_split(self.rng.permutation(a.shape[-1]), -(-a.shape[-1] // 3))
        return sum(np.matmul(a[..., part], b[..., part, :]) for part in parts)

    def conv(self, x, w, b=None, *, strides, pads, group=1, dilations=(1, 1), **rest):
        """Convolve by windows of the padded input."""
        padded = np.pad(x, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
        windows = np.lib.stride_tricks.sliding_window_view(padded, w.shape[2:], axis=(2, 3))
        windows = windows[:, :, :: strides[0], :: strides[1]]
        batch, _, height, width = windows.shape[:4]
        columns = windows.transpose(0, 1, 4, 5, 2, 3).reshape(batch, group, -1, height * width)
        y = self.mat_mul(w.reshape(1, group, w.shape[0] // group, -1), columns)
        y = y.reshape(batch, w.shape[0], height, width)
        return y if b is None else y + b.reshape(-1, 1, 1)


def by_numpy(entry: Entry, arithmetic: type, storage: type, seed: int | None = None) -> dict[str, np.ndarray]:
    """Compute a golden's model node by node in a dtype, each result stored in another.

    With a seed, convolutions and matrix products are summed in a shuffled order.
    """
    graph = OnnxGraph.load(entry.path(".onnx"))
    summing = Summing(seed or 0)
    calls = dict(OPERATIONS)
    if seed is not None:
        calls |= {"Conv": summing.conv, "MatMul": summing.mat_mul}
    given = {**graph.initializers, **{name: entry.tensors("input.")[name] for name in graph.inputs}}
    values = {name: x.astype(arithmetic) if x.dtype.kind == "f" else x for name, x in given.items()}
    for node in graph.nodes:
        result = calls[node.op_type](
            *(values[name] if name else None for name in node.inputs), **node.attributes
        )
        for name, array in zip(
            node.outputs, result if isinstance(result, tuple) else (result,), strict=False
        ):
            stored = array.astype(storage).astype(arithmetic) if array.dtype.kind == "f" else array
            values[name] = stored
    return {name: values[name].astype(storage) for name in entry.outputs}


LEVELS = ("DISABLE_ALL", "ENABLE_BASIC", "ENABLE_EXTENDED", "ENABLE_ALL")
CANDIDATES: dict[str, Callable[[Entry], dict[str, np.ndarray]]] = {
    **{f"ONNX Runtime, {level}": partial(by_onnx_runtime, level=f"ORT_{level}") for level in LEVELS},
    "ONNX Runtime, fused": lambda entry: by_onnx_runtime(
        entry, "ORT_ENABLE_ALL", tuple(n for n in entry.outputs if "." not in n)
    ),
    "NumPy float32": partial(by_numpy, arithmetic=np.float32, storage=np.float32),
    "NumPy float32, sums shuffled": partial(by_numpy, arithmetic=np.float32, storage=np.float32, seed=1),
    "float16 storage": partial(by_numpy, arithmetic=np.float32, storage=np.float16, seed=2),
    "float16 arithmetic": partial(by_numpy, arithmetic=np.float16, storage=np.float16),
}
"""Correct float32 and float16 computations → how they are run on a golden with a model."""


def utilisations(entry: Entry, given: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the largest error over bound of each output."""
    truth, largest = entry.tensors("truth."), {}
    bounds = {form: entry.tensors(f"bound.{form}.") for form in ("float32", "float16")}
    for name, array in given.items():
        form = "float16" if array.dtype == np.float16 else "float32"
        bound = bounds[form].get(name, np.zeros(())).astype(np.float64)
        wide = np.broadcast_to(bound, truth[name].shape)
        largest[name] = float(utilisation(array, truth[name], wide).max())
    return largest


def by_pytorch(entry: Entry, dtype: str) -> dict[str, np.ndarray]:
    """Run the independent module of a block or a network, with all tensors it has by the golden's names."""
    import torch

    from golden.sources.independent.parts import computed

    further = entry.tensors("input.")
    found = computed(entry.name, further.pop("x"), further, getattr(torch, dtype))
    return {name: found[name] for name in entry.outputs if name in found}


if __name__ == "__main__":
    parts = [entry for entry in ENTRIES.values() if entry.kind in ("block", "model")]
    eager = {
        f"PyTorch modules, {dtype}": partial(by_pytorch, dtype=dtype) for dtype in ("float32", "float16")
    }
    print("| candidate | blocks | networks |\n|---|---|---|")
    for title, compute in {**CANDIDATES, **eager}.items():
        largest = {"block": 0.0, "model": 0.0}
        for entry in parts:
            figure = max(utilisations(entry, compute(entry)).values())
            largest[entry.kind] = max(largest[entry.kind], figure)
        print(f"| {title} | {largest['block']:.2f} | {largest['model']:.2f} |")
