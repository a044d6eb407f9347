"""A model without its data, for what does not fit one message."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_models
import pytest

from conformance.graph import large_models
from conformance.graph.large_models import saved, without_data

MODELS = {
    "residual": onnx_models.residual_network(),
    "quantised": onnx_models.quantised_network(),
    "transformer": onnx_models.transformer(),
}


@pytest.mark.parametrize("name", MODELS)
def test_everything_is_copied_but_the_data(name: str) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(MODELS[name])
    model.metadata_props.add(key="who", value="us")
    model.graph.doc_string = "a graph"
    before = model.SerializeToString(deterministic=True)
    light, large = without_data(model)
    assert model.SerializeToString(deterministic=True) == before
    assert {tensor.name for tensor in large} == {
        tensor.name for tensor in model.graph.initializer if len(tensor.raw_data) > large_models.SMALL
    }
    named = {tensor.name: tensor for tensor in light.graph.initializer}
    for tensor in large:
        assert not named[tensor.name].raw_data
        named[tensor.name].raw_data = tensor.raw_data
    assert light.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("name", MODELS)
def test_what_is_saved_beside_it_is_read_back_by_onnx(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_models, "LARGEST_MESSAGE", 64)
    path = saved(MODELS[name], tmp_path)
    assert (tmp_path / "model.data").exists()
    read = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}
    for tensor in MODELS[name].graph.initializer:
        assert read[tensor.name].raw_data == tensor.raw_data
