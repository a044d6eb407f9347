"""What is taught from: a picture, the network it is shown to, and everything that network computed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from refimpl import MobileInst, MobileInstConfig, Recording, Weights, record
from refimpl.inference import Placement, Sizing, preprocess
from refimpl.ops.operation import Array


@dataclass(frozen=True)
class Taught:
    """A picture as one network saw it.

    Attributes
    ----------
    picture
        (H, W, 3) uint8.
    placement
        Where it lies in the network's input.
    network
        In float64.
    recording
        Everything it computed.
    """

    picture: Array
    placement: Placement
    network: MobileInst
    recording: Recording


def taught(picture: Array, config: MobileInstConfig, weights: Weights, sizing: Sizing) -> Taught:
    """Show a picture to a network, and record it.

    Parameters
    ----------
    picture
        (H, W, 3) uint8.
    config, weights
        The network.
    sizing
        As of `refimpl.inference.preprocess`.
    """
    images, placement = preprocess(picture, sizing=sizing)
    network = MobileInst(config, weights.astype(np.float64))
    return Taught(picture, placement, network, record(network, images))
