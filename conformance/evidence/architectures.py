"""Architectures of torchvision and timm with seeded weights, exported by both of PyTorch's exporters.

Run as a module with a name, an exporter and a file, it writes that export.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conformance.files import atomic_write
from conformance.graph.pytorch_replay import import_torch
from refimpl.errors import MissingDependencyError

EXPORTERS = ("torchscript", "dynamo")
SIZES = {
    "torchvision": {
        "squeezenet1_1": 96,
        "shufflenet_v2_x0_5": 96,
        "mnasnet0_5": 96,
        "mobilenet_v2": 96,
        "mobilenet_v3_small": 96,
        "mobilenet_v3_large": 96,
        "regnet_y_400mf": 96,
        "resnet18": 96,
        "efficientnet_b0": 96,
        "googlenet": 96,
        "densenet121": 64,
        "lraspp_mobilenet_v3_large": 96,
        "deeplabv3_mobilenet_v3_large": 96,
        "resnet50": 96,
        "resnext50_32x4d": 64,
        "convnext_tiny": 64,
        "swin_t": 64,
    },
    "timm": {
        "lcnet_050": 96,
        "tinynet_e": 96,
        "mobilenetv4_conv_small": 96,
        "efficientvit_b0": 96,
        "ghostnet_100": 96,
        "repvgg_a0": 64,
        "mobileone_s0": 64,
        "fastvit_t8": 96,
        "edgenext_xx_small": 96,
        "mobilevit_xxs": 96,
        "mobilevitv2_050": 96,
        "repvit_m0_9": 96,
        "starnet_s1": 96,
        "hgnetv2_b0": 96,
        "tf_efficientnet_lite0": 96,
        "hardcorenas_a": 96,
        "rexnet_100": 96,
        "skresnet18": 64,
        "convnextv2_atto": 96,
        "poolformer_s12": 64,
        "levit_128s": 224,
        "vit_tiny_patch16_224": 224,
        "deit_tiny_patch16_224": 224,
        "pvt_v2_b0": 96,
        "xcit_nano_12_p16_224": 224,
        "mambaout_femto": 96,
        "hrnet_w18_small": 64,
        "res2net50_14w_8s": 64,
        "dla34": 64,
        "gmlp_ti16_224": 224,
        "resmlp_12_224": 224,
        "eva02_tiny_patch14_224": 224,
        "tiny_vit_5m_224": 224,
        "visformer_tiny": 224,
        "efficientformer_l1": 224,
        "swiftformer_xs": 224,
        "coat_tiny": 64,
        "cait_xxs24_224": 224,
        "crossvit_tiny_240": 240,
        "botnet26t_256": 256,
        "nest_tiny": 224,
        "selecsls42": 64,
    },
}
"""Library → architecture → pixels of a side of its input."""
_kept: list[Any] = []


def architectures() -> Iterator[tuple[str, str]]:
    """Yield each library's architectures."""
    for library, sizes in SIZES.items():
        yield from ((library, name) for name in sizes)


def module(library: str, name: str) -> Any:
    """Return an architecture with seeded weights, ready for inference.

    The statistics of its batch norms are those of two random pictures; numbers that are all alike, as those
    of norms begin, are moved apart.

    Raises
    ------
    MissingDependencyError
        The library is not installed.
    """
    torch = import_torch()
    torch.manual_seed(0)
    try:
        made = _torchvision(name) if library == "torchvision" else _timm(name)
    except ImportError as error:
        raise MissingDependencyError(
            f"{library} is not installed: pip install 'mobileinst-reference[models]' ({error})"
        ) from error
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.numel() > 1 and parameter.min() == parameter.max():
                parameter += 0.1 * torch.randn_like(parameter)
        for each in made.modules():
            if isinstance(each, torch.nn.modules.batchnorm._BatchNorm):
                each.momentum = None
        made.train()(picture(library, name, 2))
    return made.eval()


def picture(library: str, name: str, count: int = 1) -> Any:
    """Return random pictures of the size an architecture takes."""
    torch = import_torch()
    size = SIZES[library][name]
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def import_torchvision() -> Any:
    """Return the module torchvision, without its compiled operators where they ask for another PyTorch."""
    try:
        import torchvision
    except RuntimeError:
        _define_operators()
        import torchvision
    return torchvision


def _torchvision(name: str) -> Any:
    torchvision = import_torchvision()
    segments = hasattr(torchvision.models.segmentation, name)
    backbone = {"weights_backbone": None} if segments else {}
    return torchvision.models.get_model(name, weights=None, **backbone)


def _define_operators() -> None:
    """Declare the operators whose library needs CUDA; none of the architectures calls them."""
    torch = import_torch()
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)


def _timm(name: str) -> Any:
    _torchvision("mobilenet_v3_small")  # timm imports torchvision
    import timm

    return timm.create_model(name, pretrained=False)


def export(library: str, name: str, exporter: str, path: Path) -> None:
    """Write an architecture as ONNX.

    Parameters
    ----------
    library, name
        Of `architectures`.
    exporter
        Of `EXPORTERS`.
    path
    """
    torch = import_torch()
    made, given = module(library, name), picture(library, name)
    with atomic_write(path) as temporary:
        torch.onnx.export(
            made, (given,), str(temporary), dynamo=exporter == "dynamo", external_data=False, verbose=False
        )


if __name__ == "__main__":
    export(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4]))
