"""A candidate's folder by ONNX Runtime: python onnx_runtime.py golden/data mine

Reads the set as golden/README.md describes it, with nothing of this project.
"""

import json
import sys
from pathlib import Path

import onnxruntime
from safetensors.numpy import load_file, save_file

data, mine = Path(sys.argv[1]), Path(sys.argv[2])
for golden in json.loads((data / "manifest.json").read_text("utf-8"))["goldens"]:
    model = data / f"{golden['name']}.onnx"
    if not model.exists():
        continue
    tensors = load_file(data / f"{golden['name']}.safetensors")
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    fed = {node.name: tensors[f"input.{node.name}"] for node in session.get_inputs()}
    results = session.run(golden["outputs"], fed)
    path = mine / f"{golden['name']}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: x.copy() for name, x in zip(golden["outputs"], results, strict=True)}, path)
