"""A rival on a picture: how its own code makes its input, and what becomes of its outputs.

Sizes, means and deviations are looked up in the public code that each network's module names.
"""

from __future__ import annotations

from dataclasses import replace

from refimpl.assembly import Assembled
from refimpl.condinst import CondInstOutputs
from refimpl.config import MobileInstConfig
from refimpl.dynamic_masks import condinst_instances
from refimpl.errors import ConfigurationError
from refimpl.fast_nms import SIDE, yolact_instances
from refimpl.inference import OURS, PIXEL_DEVIATION, PIXEL_MEAN, Placement, Preparation
from refimpl.maskrcnn import ProposalOutputs
from refimpl.matrix_nms import solo_instances
from refimpl.model import Network
from refimpl.predictions import NamedOutputs
from refimpl.solov2 import SoloOutputs
from refimpl.two_stage import maskrcnn_instances
from refimpl.yolact import YolactOutputs

YOLACT_MEAN, YOLACT_DEVIATION = (123.68, 116.78, 103.94), (58.40, 57.12, 57.38)
PREPARATIONS = {
    "solov2": Preparation("detector"),
    "condinst": Preparation("detector", smoothed=True),
    "yolact": Preparation((SIDE, SIDE), YOLACT_MEAN, YOLACT_DEVIATION, stride=1),
    "maskrcnn": Preparation("torchvision"),
}
"""Architecture → how its own code makes its input, with ResNet as PyTorch has it."""
LITE_CONVS = 2
"""Of SOLOv2-Lite's heads, which are for smaller pictures too."""


def preparation_of(config: MobileInstConfig) -> Preparation:
    """Return how a network's own code makes its input of a picture.

    What belongs to the backbone's weights is the backbone's: the ResNet of Caffe wants blue first and no
    deviation, TopFormer and MobileNetV2 are normalised as the paper's network.
    """
    own = PREPARATIONS.get(config.architecture, OURS)
    if config.architecture == "solov2" and config.head_convs == LITE_CONVS:
        own = replace(own, sizing="lite")
    if config.backbone == "resnet50-caffe":
        return replace(own, mean=PIXEL_MEAN, deviation=(1.0, 1.0, 1.0), blue_first=True)
    if not config.backbone.startswith("resnet"):
        return replace(own, mean=PIXEL_MEAN, deviation=PIXEL_DEVIATION)
    return own


def instances_of(network: Network, outputs: NamedOutputs, placement: Placement, index: int = 0) -> Assembled:
    """Turn a rival's outputs into instances, as its own code does.

    Parameters
    ----------
    network
        Which gave the outputs; Mask R-CNN's heads run on them.
    outputs, placement, index
        As of `refimpl.matrix_nms.solo_instances`.

    Raises
    ------
    ConfigurationError
        The network is no such rival: its masks are among its outputs.
    ShapeError, NonFiniteError
        The outputs are not those of such an input, or have NaN or infinity.
    """
    if isinstance(outputs, SoloOutputs):
        return solo_instances(outputs, placement, network.config.grids, index)
    if isinstance(outputs, CondInstOutputs):
        return condinst_instances(outputs, placement, index)
    if isinstance(outputs, YolactOutputs):
        return yolact_instances(outputs, placement, index)
    if isinstance(outputs, ProposalOutputs):
        return maskrcnn_instances(network, outputs, placement, index)
    raise ConfigurationError(
        f"{network.config.architecture}'s masks are among its outputs; see refimpl.inference.postprocess"
    )
