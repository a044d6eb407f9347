"""A program that behaves like TNNTest, traps included, and computes by ONNX Runtime.

``STAND_IN_ONNX`` names the source of the model it is given, ``STAND_IN_MODE`` the trap it plays. It
reads the proto and the input text as TNNTest does: missing numbers are zeros, and every input
starts at the file's start.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for flag in ("-mp", "-dt", "-ip", "-op", "-pr", "-ic", "-wc", "-th"):
        parser.add_argument(flag)
    return parser.parse_args()


def input_shapes(proto: Path) -> dict[str, list[int]]:
    """Read the second line of the proto: ``name rank dims… dtype``, several joined by a colon."""
    line = proto.read_text().splitlines()[1].strip('" ,')
    words = [group.split() for group in line.split(" : ")]
    return {name: [int(dim) for dim in numbers[1:-1]] for name, *numbers in words}


def read_inputs(path: Path, shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    try:
        values = np.array(path.read_text().split(), np.float32)
    except OSError:
        values = np.zeros(0, np.float32)
    inputs = {}
    for name, shape in shapes.items():
        flat = np.zeros(int(np.prod(shape)), np.float32)
        given = values[: flat.size]
        flat[: given.size] = given
        inputs[name] = flat.reshape(shape)
    return inputs


def compute(inputs: dict[str, np.ndarray], half: bool) -> dict[str, np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(os.environ["STAND_IN_ONNX"], providers=["CPUExecutionProvider"])
    if half:
        inputs = {name: array.astype(np.float16).astype(np.float32) for name, array in inputs.items()}
    names = [output.name for output in session.get_outputs()]
    results = session.run(names, inputs)
    if half:
        results = [array.astype(np.float16).astype(np.float32) for array in results]
    return dict(zip(names, results, strict=True))


def text(outputs: dict[str, np.ndarray]) -> str:
    lines = [str(len(outputs))]
    for name in sorted(outputs):
        dims = " ".join(map(str, outputs[name].shape))
        lines.append(f"{name} mat_type: 32 dims: {outputs[name].ndim} {dims}")
    for name in sorted(outputs):
        lines += [f"{value:.6f}" for value in outputs[name].ravel()]
    return "\n".join(lines) + "\n"


def main() -> int:
    given, mode = arguments(), os.environ.get("STAND_IN_MODE", "")
    with Path(os.environ.get("STAND_IN_CALLS", os.devnull)).open("a") as calls:
        calls.write(" ".join(sys.argv[1:]) + "\n")
    if not Path(given.mp).exists() or not Path(given.mp.replace("proto", "model")).exists():
        print("E/tnn: InterpretProto invalid model path [File test.cc][Line 1]")
        return 0x3000 & 0xFF
    if mode == "error":
        print("E/tnn: node type ReLU: empty implemented_layouts [File net.cc][Line 2]")
        return 0x9000 & 0xFF
    if mode == "silent":
        return 0x3000 & 0xFF
    if mode == "status":
        return 3
    if mode == "crash":
        os.abort()
    if mode == "hang":
        print("loading", flush=True)
        time.sleep(60)
    outputs = compute(read_inputs(Path(given.ip), input_shapes(Path(given.mp))), mode == "half")
    content = text(outputs)
    if mode == "short":
        content = content[: len(content) // 2]
    if mode == "renamed":
        content = content.replace("y mat_type", "z mat_type")
    if mode == "nan":
        content = content.rsplit("\n", 2)[0] + "\n-nan\n"
    if mode == "integers":
        content = content.replace("mat_type: 32", "mat_type: 33")
    Path(given.op).write_text(content)
    print("model time cost: 1.0 ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
