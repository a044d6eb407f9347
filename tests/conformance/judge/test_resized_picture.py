"""A candidate that was fed the picture resized by another filter: the report says by which."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from narrow_network import CONFIG, exported, weights
from PIL import Image

import conformance
from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.network import verify
from conformance.pictures.inputs import load_inputs, resized_otherwise
from refimpl.inference import preprocess
from refimpl.ops.operation import Array
from refimpl.scenes import render_picture

pytestmark = pytest.mark.usefixtures("small_backbones")

SIZE = (64, 96)


class Fed(OnnxRuntimeCandidate):
    """Runs on other images than those given."""

    images: Array

    def feeds(self, images: Array) -> dict[str, Array]:
        """Return the other images."""
        return super().feeds(self.images)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Image.Resampling.BICUBIC, "resized by Pillow's bicubic"),
        (Image.Resampling.BILINEAR, "resized by Pillow's bilinear"),
        (Image.Resampling.NEAREST, "resized by Pillow's nearest"),
        (Image.Resampling.LANCZOS, "resized by Pillow's Lanczos"),
        (Image.Resampling.BOX, "resized by Pillow's box"),
    ],
)
@pytest.mark.parametrize("exchanged", [False, True], ids=["RGB", "BGR"])
def test_another_filter_is_named(tmp_path: Path, kind: Image.Resampling, said: str, exchanged: bool) -> None:
    path = tmp_path / "street.png"
    Image.fromarray(render_picture(150, 230, seed=3)).save(path)
    small = np.asarray(Image.open(path).resize(SIZE[::-1], kind))
    images, _ = preprocess(small[..., ::-1] if exchanged else small, sizing=SIZE)
    candidate = Fed(OnnxGraph.load(exported()), threads=1)
    candidate.images = images.astype(np.float32)
    inputs = load_inputs([path], SIZE)
    report = verify(candidate, CONFIG, weights(), inputs, resized=resized_otherwise([path], inputs))
    assert report.verdict == "fail"
    told = [text for text in report.leading.evidence if text.startswith("the picture that was fed")]
    assert len(told) == 1
    assert said in told[0]
    assert ("red and blue exchanged" in told[0]) is exchanged


@pytest.mark.runtimes
@pytest.mark.parametrize(("rule", "said"), [("cubic", "bicubic without"), ("linear", "with corners aligned")])
def test_pytorchs_filters_are_named(tmp_path: Path, rule: str, said: str) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "tall.png"
    drawn = render_picture(211, 99, seed=4)
    Image.fromarray(drawn).save(path)
    planes = torch.from_numpy(drawn.astype(np.float64)).permute(2, 0, 1)[None]
    way = {"mode": "bicubic"} if rule == "cubic" else {"mode": "bilinear", "align_corners": True}
    resized = torch.nn.functional.interpolate(planes, size=SIZE, **way)[0].permute(1, 2, 0).numpy()
    images, _ = preprocess(resized, sizing=SIZE)
    candidate = Fed(OnnxGraph.load(exported()), threads=1)
    candidate.images = images.astype(np.float32)
    report = conformance.verify(candidate, CONFIG, weights(), path)
    assert any(said in text for text in report.leading.evidence)
