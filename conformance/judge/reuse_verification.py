"""The graph of the frames between keyframes under verification: it takes a keyframe's kernels as an input."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from conformance.graph.onnx_graph import OnnxGraph
from refimpl import MobileInst, MobileInstConfig, Network
from refimpl.model import KernelReuse
from refimpl.ops.operation import Array

KERNELS = "kernels"
"""Name of the input by which such a graph is recognised."""


def takes_kernels(graph: OnnxGraph) -> bool:
    """Return whether a model is a reuse graph: its inputs are the images and ``kernels``."""
    return len(graph.inputs) == 2 and KERNELS in graph.inputs


class KeyframeKernels:
    """The kernels both sides are given: those of the float32 forward on the same picture.

    Parameters
    ----------
    config, weights
        The network.
    """

    def __init__(self, config: MobileInstConfig, weights: Mapping[str, Array]) -> None:
        narrow = {name: array.astype(np.float32) for name, array in weights.items()}
        self._network = MobileInst(config, narrow)
        self._last: tuple[bytes, Array] | None = None

    def __call__(self, images: Array) -> dict[str, Array]:
        """Return what to feed besides the images: ``kernels`` (B, N, dim) float32."""
        key = images.astype(np.float32).tobytes()
        if self._last is None or self._last[0] != key:
            self._last = key, self._network(images).kernels
        return {KERNELS: self._last[1]}

    def reuse(self, network: Network, images: Array) -> KernelReuse:
        """Return the reference of the reuse graph with these kernels."""
        return KernelReuse(network, self(images)[KERNELS])
