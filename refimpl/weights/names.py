"""Public checkpoints: names that differ from the reference's, and weights that its networks do not use."""

from __future__ import annotations

import re
from collections.abc import Mapping

from refimpl.config import MobileInstConfig
from refimpl.ops.operation import Array

BACKBONE_PREFIX = "backbone."
CLASSIFIER_PREFIXES = (
    "SIM.",
    "head.",
    "linear.",
    "fc.",
    "stem.fc.",
    "cls_head.",
    "decode_head.",
    "auxiliary_head.",
    "classifier.",
    "features.18.",
)
"""Parts of the public backbone checkpoints that no network here has."""

TORCHVISION_RESNET = (
    (r"^conv1\.", "stem.conv1."),
    (r"^bn1\.", "stem.conv1.norm."),
    (r"^layer1\.", "res2."),
    (r"^layer2\.", "res3."),
    (r"^layer3\.", "res4."),
    (r"^layer4\.", "res5."),
    (r"^layers\.0\.", "res2."),
    (r"^layers\.1\.", "res3."),
    (r"^layers\.2\.", "res4."),
    (r"^layers\.3\.", "res5."),
    (r"\.bn([123])\.", r".conv\1.norm."),
    (r"\.downsample\.0\.", ".shortcut."),
    (r"\.downsample\.1\.", ".shortcut.norm."),
)
"""Patterns of torchvision's ResNets and the detectron2 names they stand for, in order of application.

``layer1.0.bn2.running_mean`` becomes ``res2.0.conv2.norm.running_mean``; with batch norms folded,
``layer1.0.conv2.bias`` becomes ``res2.0.conv2.bias``. YOLACT has ``layers.0.`` for ``layer1.``.
"""


BACKBONE_PREFIXES = {"condinst": "backbone.bottom_up.", "maskrcnn": "backbone.body."}
"""Architecture → what stands before its backbone's names, where that is not `BACKBONE_PREFIX`."""
BUFFERS = ("mask_head.", "semantic_seg_conv.")
"""What public checkpoints hold besides: CondInst's constants, and YOLACT's head for training alone."""


def backbone_prefix(config: MobileInstConfig) -> str:
    """Return what stands before the names of a network's backbone."""
    return BACKBONE_PREFIXES.get(config.architecture, BACKBONE_PREFIX)


def backbone_name(name: str, config: MobileInstConfig) -> str:
    """Return the reference's name of a backbone weight, both without the prefix ``backbone.``."""
    if config.backbone.startswith("resnet"):
        for pattern, replacement in TORCHVISION_RESNET:
            name = re.sub(pattern, replacement, name)
    return name


def canonical(arrays: Mapping[str, Array], config: MobileInstConfig) -> dict[str, Array]:
    """Return a whole network's weights under the reference's names, without those it does not use."""
    prefix, renamed = backbone_prefix(config), {}
    for name, array in arrays.items():
        if name.startswith(prefix):
            name = prefix + backbone_name(name.removeprefix(prefix), config)
        if not is_unused(name, config):
            renamed[name] = array
    return renamed


def is_unused(name: str, config: MobileInstConfig) -> bool:
    """Tell whether a name belongs to a part of the backbone that the rivals leave out.

    A classifier, or TopFormer's transformer and semantic injection. MobileInst uses all of its backbone, so
    there nothing may be extra.
    """
    if config.architecture == "mobileinst":
        return False
    unused = (backbone_prefix(config) + prefix for prefix in (*CLASSIFIER_PREFIXES, "trans."))
    return name.startswith((*unused, *BUFFERS))
