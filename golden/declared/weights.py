"""Names and shapes of weights, and batch norms folded, confirmed by modules whose names are their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from conformance.bounds import FLOAT32, Format
from conformance.bounds.formats import gamma
from conformance.graph.pytorch_replay import import_torch
from golden.case import Bounds, Case, Confirmation, Golden, halves
from golden.sources.comparison import confirmed
from golden.sources.source import _torch_version
from refimpl.config import MobileInstConfig
from refimpl.errors import VerificationError
from refimpl.model import parameter_shapes
from refimpl.ops.operation import Array
from refimpl.weights.folding import NORM_PARTS, batch_norms, fold_batch_norm
from refimpl.weights.names import backbone_name, canonical, is_unused

SEED = 51
EPSILON = 1e-5
SHAPES = {"first.c": (6, 4, 3, 3), "second.conv": (5, 6, 1, 1), "third": (4, 1, 3, 3), "last": (3, 4, 1, 1)}
NORMS = {"first.bn": "first.c", "second.bn": "second.conv", "third.norm": "third"}
"""Batch norm → its convolution, in the three ways that checkpoints name them; ``last`` has none."""
ROUNDINGS = 8


# --- folding --------------------------------------------------------------------------------------


def _drawn() -> dict[str, Array]:
    rng = np.random.default_rng(SEED)
    weights = {f"{path}.weight": rng.normal(size=shape) for path, shape in SHAPES.items()}
    for norm, convolution in NORMS.items():
        channels = SHAPES[convolution][0]
        for part in NORM_PARTS:
            positive = part == "running_var"
            weights[f"{norm}.{part}"] = (
                rng.uniform(1e-3, 2, channels) if positive else rng.normal(size=channels)
            )
    weights["last.bias"] = rng.normal(size=3)
    return {name: halves(array) for name, array in weights.items()}


def _folded() -> Case:
    weights = _drawn()
    wide = {name: array.astype(np.float64) for name, array in weights.items()}
    truth = fold_batch_norm(wide, EPSILON)

    def bounds(form: Format) -> Bounds:
        return {
            name: gamma(ROUNDINGS, form.unit_roundoff) * size + form.smallest_normal
            for name, size in _sizes(wide, truth).items()
        }

    def confirm() -> list[Confirmation]:
        return [
            _same_pairs(),
            confirmed(f"PyTorch {_torch_version()}, float64", _fused(wide), truth, bounds(FLOAT32)),
        ]

    return Case(weights, truth, bounds, confirm)


def _sizes(wide: Mapping[str, Array], truth: Mapping[str, Array]) -> dict[str, Array]:
    """Sums of absolute values of what is folded; nothing else changes."""
    sizes = {}
    for norm, convolution in NORMS.items():
        scale, shift, mean, variance = (wide[f"{norm}.{part}"] for part in NORM_PARTS)
        sizes[f"{convolution}.weight"] = np.abs(truth[f"{convolution}.weight"])
        sizes[f"{convolution}.bias"] = np.abs(shift) + np.abs(mean * scale) / np.sqrt(variance + EPSILON)
    return sizes


def _same_pairs() -> Confirmation:
    found = batch_norms(_drawn())
    if found != NORMS:
        raise VerificationError(f"the pairs are {NORMS} by construction, not {found}")
    return Confirmation("brute force: the pairs as constructed", 0.0, "decisions")


def _fused(wide: Mapping[str, Array]) -> dict[str, Array]:
    torch = import_torch()
    tensors = {name: torch.from_numpy(array) for name, array in wide.items()}
    fused = {name: array for name, array in wide.items() if name.startswith("last.")}
    for norm, convolution in NORMS.items():
        scale, shift, mean, variance = (tensors[f"{norm}.{part}"] for part in NORM_PARTS)
        weight, bias = torch.nn.utils.fusion.fuse_conv_bn_weights(
            tensors[f"{convolution}.weight"], None, mean, variance, EPSILON, scale, shift
        )
        fused[f"{convolution}.weight"] = weight.detach().numpy()
        fused[f"{convolution}.bias"] = bias.detach().numpy()
    return fused


# --- names ----------------------------------------------------------------------------------------


def _state(preset: str) -> dict[str, list[int]]:
    """Name → shape of the weights of a preset's independent module."""
    torch = import_torch()
    from golden.sources.independent import module_for

    config = MobileInstConfig.preset(preset)
    with torch.device("meta"):
        module = module_for(config)
    counters = "num_batches_tracked"
    return {name: list(x.shape) for name, x in module.state_dict().items() if not name.endswith(counters)}


def _agreed(found: Any, results: Any) -> Confirmation:
    if found != results:
        raise VerificationError(f"the names and shapes of the independent modules are others: {found}")
    return Confirmation(
        f"independent nn.Module, PyTorch {_torch_version()}: its state_dict", 0.0, "decisions"
    )


def _parameters(preset: str) -> Callable[[], Case]:
    def case() -> Case:
        shapes = parameter_shapes(MobileInstConfig.preset(preset))
        results = {name: list(shape) for name, shape in shapes.items()}
        return Case(
            {},
            {},
            lambda form: {},
            lambda: [_agreed(_state(preset), results)],
            decisions={"results": results},
        )

    return case


def _torchvision_names() -> Iterator[tuple[str, str]]:
    """Yield torchvision's name of each convolution and batch norm of ResNet-50, and detectron2's."""
    yield "conv1", "stem.conv1"
    yield "bn1", "stem.conv1.norm"
    for stage, depth in enumerate((3, 4, 6, 3), start=1):
        for i in range(depth):
            for j in (1, 2, 3):
                yield f"layer{stage}.{i}.conv{j}", f"res{stage + 1}.{i}.conv{j}"
                yield f"layer{stage}.{i}.bn{j}", f"res{stage + 1}.{i}.conv{j}.norm"
        yield f"layer{stage}.0.downsample.0", f"res{stage + 1}.0.shortcut"
        yield f"layer{stage}.0.downsample.1", f"res{stage + 1}.0.shortcut.norm"


def _weights_of_torchvision() -> dict[str, str]:
    return {
        f"{theirs}.{part}": f"{ours}.{part}"
        for theirs, ours in _torchvision_names()
        for part in (NORM_PARTS if "bn" in theirs or theirs.endswith("downsample.1") else ("weight",))
    }


def _renamed() -> Case:
    config = MobileInstConfig.preset("sparseinst-r50")
    pairs = _weights_of_torchvision()
    results = {"names": {theirs: backbone_name(theirs, config) for theirs in pairs}}

    def confirm() -> list[Confirmation]:
        given = {f"backbone.{theirs}": np.zeros(0) for theirs in (*pairs, "fc.weight", "fc.bias")}
        module = [name for name in _state("sparseinst-r50") if name.startswith("backbone.")]
        return [
            _agreed({"names": pairs}, results),
            _agreed(sorted(module), sorted(canonical(given, config))),
        ]

    return Case({}, {}, lambda form: {}, confirm, decisions={"results": results})


HEADS = ("backbone.head.fc.weight", "backbone.SIM.0.conv.weight", "backbone.linear.bias")
"""Of public classifiers and semantic injection."""


def _unused() -> Case:
    preset = MobileInstConfig.preset("sparseinst-topformer-tiny")
    names = [*parameter_shapes(MobileInstConfig.preset("topformer-tiny")), *HEADS]
    public = [name for name in names if name.startswith("backbone.")]
    results = {"unused": [name for name in public if is_unused(name, preset)]}

    def confirm() -> list[Confirmation]:
        read = _state("sparseinst-topformer-tiny")
        offered = [name for name in _state("topformer-tiny") if name.startswith("backbone.")]
        found = {"unused": sorted(name for name in (*offered, *HEADS) if name not in read)}
        return [_agreed(found, {"unused": sorted(results["unused"])})]

    return Case({}, {}, lambda form: {}, confirm, decisions={"results": results})


PRESETS = (
    "topformer-tiny",
    "seaformer-tiny",
    "sparseinst-r50",
    "solov2-lite-r18",
    "solov2-mobilenetv2",
    "condinst-r50",
    "yolact-r50",
)


_NAMES = "refimpl.checkpoint_names"

GOLDENS = (
    Golden(
        "weights/folded",
        "weights",
        "refimpl.folding.fold_batch_norm",
        {"epsilon": EPSILON},
        SEED,
        "W' = W · γ/√(σ² + ε), b' = β − μ · γ/√(σ² + ε); the convolution is x.c, x.conv or x itself",
        _folded,
        ("refimpl.folding.batch_norms",),
    ),
    Golden(
        "weights/torchvision",
        "weights",
        f"{_NAMES}.backbone_name",
        {"preset": "sparseinst-r50"},
        None,
        "torchvision's names of ResNet-50 and detectron2's, which the reference has",
        _renamed,
        (f"{_NAMES}.canonical",),
    ),
    Golden(
        "weights/unused",
        "weights",
        f"{_NAMES}.is_unused",
        {"preset": "sparseinst-topformer-tiny"},
        None,
        "what SparseInst does not read of a TopFormer",
        _unused,
    ),
    *(
        Golden(
            f"weights/{preset.replace('-', '_')}",
            "weights",
            "refimpl.model.parameter_shapes",
            {"preset": preset},
            None,
            "name and shape of every weight",
            _parameters(preset),
        )
        for preset in PRESETS
    ),
)


def goldens() -> Iterator[Golden]:
    """Yield the goldens of weights."""
    yield from GOLDENS
