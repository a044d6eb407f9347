"""A candidate for the goldens: ONNX Runtime, which reads the models that stand beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from safetensors.numpy import save_file

from golden import DATA
from golden.store import Entry, read_manifest

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
