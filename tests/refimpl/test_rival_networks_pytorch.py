"""The rivals against the same networks written independently with PyTorch's modules, in float64."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rival_networks import RIVALS, drawn_weights, narrow

from refimpl import MobileInstConfig, Network, Weights
from refimpl.backbone import BACKBONE_SPECS, all_maps
from refimpl.model import parameter_shapes
from refimpl.scope import Scope
from refimpl.weights.names import backbone_name

torch = pytest.importorskip("torch")

from conformance.evidence.architectures import import_torchvision  # noqa: E402
from golden.sources.independent import module_for  # noqa: E402
from golden.sources.independent.weights import load  # noqa: E402

pytestmark = pytest.mark.runtimes

SIZES = ((64, 96), (96, 160))
BOUND = 1e-10


def noise(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape)


@pytest.mark.parametrize("preset", RIVALS)
def test_outputs(preset: str) -> None:
    config = narrow(preset)
    weights = drawn_weights(config)
    module = load(module_for(config), weights)
    odd = ((97, 131),) if config.architecture in ("yolact", "maskrcnn") else ()
    for size in (*SIZES, *odd):
        images = noise(1, 3, *size)
        expected = module(torch.from_numpy(images))
        for name, array in Network(config, weights)(images).items():
            theirs = getattr(expected, name).numpy()
            assert array.shape == theirs.shape
            assert np.abs(array - theirs).max() <= BOUND * np.abs(theirs).max(), name


@pytest.mark.parametrize("preset", RIVALS)
def test_published_widths_have_the_same_weights(preset: str) -> None:
    config = MobileInstConfig.preset(preset)
    with torch.device("meta"):
        state = module_for(config).state_dict()
    shapes = {name: tuple(x.shape) for name, x in state.items() if not name.endswith("num_batches_tracked")}
    assert dict(parameter_shapes(config)) == shapes


# The backbones beside torchvision's own, whose names its checkpoints have.


def filled(model: Any) -> Any:
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if tensor.dtype.is_floating_point:
            drawn = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
            positive = name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight"))
            tensor.copy_(drawn + 0.5 if positive else (drawn - 0.5) * 2 / max(1, tensor[0].numel()) ** 0.5)
    return model.double().eval()


TAPS = {
    "resnet18": ("layer1", "layer2", "layer3", "layer4"),
    "resnet50": ("layer1", "layer2", "layer3", "layer4"),
    "mobilenetv2": ("features.3", "features.6", "features.13", "features.17"),
}


@pytest.mark.parametrize("name", TAPS)
def test_backbones_are_torchvisions(name: str, tmp_path: Path) -> None:
    torch.set_grad_enabled(False)
    theirs = filled(getattr(import_torchvision().models, name.replace("mobilenetv2", "mobilenet_v2"))())
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    config = replace(narrow("solov2-r50"), backbone=name)
    rest = drawn_weights(config)
    weights = Weights.load_backbone(tmp_path / "theirs.pth", config, rest)
    maps: dict[str, Any] = {}
    for tap in TAPS[name]:
        theirs.get_submodule(tap).register_forward_hook(
            lambda module, given, made, tap=tap: maps.setdefault(tap, made)
        )
    images = noise(1, 3, 64, 96)
    theirs(torch.from_numpy(images))
    ours = all_maps(images, Scope(weights, "backbone"), BACKBONE_SPECS[name])
    for actual, expected in zip(ours, maps.values(), strict=True):
        assert actual.shape == expected.shape
        assert np.abs(actual - expected.numpy()).max() <= BOUND * expected.abs().max().item()


def test_names_of_a_whole_public_checkpoint() -> None:
    """SOLO's ResNet-18 has torchvision's names below ``backbone.``."""
    config = MobileInstConfig.preset("solov2-lite-r18")
    state = import_torchvision().models.resnet18().state_dict()
    names = {
        f"backbone.{backbone_name(name, config)}"
        for name in state
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked")
    }
    assert names == {name for name in parameter_shapes(config) if name.startswith("backbone.")}
