"""Right models that look wrong pass, whoever wrote them in whatever way."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from unusual_exports import OF_NORMS, exported_otherwise, judged

pytestmark = pytest.mark.runtimes

WAYS = (
    "softmax_written_out",
    "layer_norm_written_out",
    "activations_channels_last",
    "merged_projections",
    "probabilities_as_well",
    "names_that_lie",
    "picture_in_bfloat16",
    "functions_of_its_own",
    "relu_in_a_branch",
    "saved by ONNX Runtime, EXTENDED",
    "saved by ONNX Runtime, ALL",
    *OF_NORMS,
)


@pytest.mark.parametrize("way", WAYS)
def test_written_in_an_unusual_way(way: str) -> None:
    found = judged("topformer-tiny", way)
    assert found is not None
    assert found.report.verdict == "pass", found.report.headline()


@pytest.mark.parametrize(("exporter", "opset", "batch"), [("torchscript", 11, 1), ("dynamo", 23, 2)])
def test_exported_in_an_unusual_way(exporter: str, opset: int, batch: int) -> None:
    found = exported_otherwise("topformer-tiny", exporter, opset, batch)
    assert found is not None
    assert found.report.verdict == "pass", found.report.headline()
