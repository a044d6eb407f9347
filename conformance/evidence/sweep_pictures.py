"""What `mobileinst sweep` is shown on: rendered pictures, one broken, and a model that is wrong on few.

Wrong on few: what is more than most pictures have is cut off. The last but one picture is broken.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from conformance.evidence.program import end_with
from conformance.graph import onnx_export
from conformance.pictures.inputs import picture_input
from conformance.pictures.picture import write_picture
from conformance.silent_onnxruntime import onnxruntime
from refimpl import MobileInst, Weights
from refimpl.ops.operation import Array
from refimpl.scenes import render_picture
from refimpl.trained import trained_config

TRAINED, SIZE = "scenes-tiny", (192, 320)
WRONG = 5
"""Pictures on which the second model is wrong."""
CLIPPED = "masks"


def write(folder: Path, count: int) -> float:
    """Write ``right.onnx``, ``clipped.onnx`` and the pictures; return where the second cuts masks off.

    The last but one picture is broken: it ends after a third of its bytes.
    """
    pictures = folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        write_picture(pictures / f"{seed:05d}.png", render_picture(*SIZE, seed))
    network = MobileInst(trained_config(TRAINED), Weights.trained(TRAINED))
    model = onnx_export.export(network, np.zeros((1, 3, *SIZE), np.float32))
    onnx_export.save(model, folder / "right.onnx")
    largest = sorted(_largest(folder, pictures), reverse=True)
    limit = (largest[WRONG - 1] + largest[WRONG]) / 2
    onnx.save(clipped(onnx.load(folder / "right.onnx"), limit), folder / "clipped.onnx")
    broken = pictures / f"{count - 2:05d}.png"
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 3])
    return limit


def _largest(folder: Path, pictures: Path) -> list[float]:
    """Return the largest mask logit on each picture."""
    session = onnxruntime.InferenceSession(folder / "right.onnx")
    (given,) = session.get_inputs()

    def run(images: Array) -> float:
        return float(session.run([CLIPPED], {given.name: images.astype(np.float32)})[0].max())

    return [run(picture_input(path, SIZE)) for path in sorted(pictures.iterdir())]


def clipped(model: onnx.ModelProto, limit: float) -> onnx.ModelProto:
    """Return a model whose masks are cut off above a limit, as a quantiser does that saw too few pictures."""
    for node in model.graph.node:
        node.output[:] = [f"{name} whole" if name == CLIPPED else name for name in node.output]
        node.input[:] = [f"{name} whole" if name == CLIPPED else name for name in node.input]
    model.graph.initializer.append(numpy_helper.from_array(np.float32(limit), "limit"))
    model.graph.node.append(helper.make_node("Clip", [f"{CLIPPED} whole", "", "limit"], [CLIPPED]))
    return model


def main() -> None:
    """Write what is asked for and print where masks are cut off."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where models and pictures are written")
    parser.add_argument("count", type=int, nargs="?", default=500, help="pictures")
    given = parser.parse_args()
    if given.count <= WRONG:
        parser.error(f"{given.count} pictures; expected more than {WRONG}, on which one model is wrong")
    cut = write(given.folder, given.count)
    print(f"masks are cut off above {cut:.6g}, which {WRONG} pictures reach")


if __name__ == "__main__":
    end_with(main)
