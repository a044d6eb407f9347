"""What PyTorch's two exporters make of an interpolation to a size: only some of it survives onnx2tnn."""

from __future__ import annotations

import io
import warnings

import pytest

from conformance.tnn.lint import lint

pytestmark = pytest.mark.runtimes
torch = pytest.importorskip("torch")


class Fusion(torch.nn.Module):
    """A feature added to a resized one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, stride=2, padding=1)

    def forward(self, x):
        y = torch.relu(self.conv(x))
        return x[:, :1] + torch.nn.functional.interpolate(
            y, size=(16, 24), mode="bilinear", align_corners=False
        )


def exported(opset: int, dynamo: bool) -> bytes:
    image, buffer = torch.zeros(1, 3, 16, 24), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            program = torch.onnx.export(
                Fusion().eval(), (image,), dynamo=True, opset_version=opset, verbose=False
            )
            return program.model_proto.SerializeToString()
        torch.onnx.export(Fusion().eval(), (image,), buffer, dynamo=False, opset_version=opset)
    return buffer.getvalue()


@pytest.mark.parametrize("opset", [13, 17])
def test_torchscript_computes_the_size_in_the_graph(opset):
    findings = {finding.rule for finding in lint(exported(opset, dynamo=False))}
    assert findings == {"resize-dynamic-size"}


def test_torchscript_at_opset_11_and_dynamo_survive():
    assert lint(exported(11, dynamo=False)) == []
    assert lint(exported(18, dynamo=True)) == []
