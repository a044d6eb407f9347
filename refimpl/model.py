"""The networks: a configuration, its weights, and a call."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from refimpl.backbone import BACKBONE_SPECS, BackboneSpec, backbone
from refimpl.config import MobileInstConfig
from refimpl.errors import ConfigurationError, NonFiniteError, ShapeError
from refimpl.forward import (
    Outputs,
    baseline_mask_decoder,
    decode_masks,
    dot_product,
    double,
    forward,
    forward_mobileinst,
    forward_sparseinst,
    mask_features,
    output_names,
    parameter_shapes,
)
from refimpl.ops.operation import Array
from refimpl.predictions import NamedOutputs
from refimpl.scope import Scope
from refimpl.weights.check import check_weights
from refimpl.weights.names import is_unused

__all__ = [
    "BackboneSpec",
    "KernelReuse",
    "MobileInst",
    "Network",
    "Outputs",
    "backbone",
    "baseline_mask_decoder",
    "build_network",
    "check_images",
    "decode_masks",
    "dot_product",
    "double",
    "forward",
    "forward_mobileinst",
    "forward_sparseinst",
    "mask_features",
    "output_names",
    "parameter_shapes",
]


WITH_QUERIES = ("mobileinst", "sparseinst")
"""Architectures whose outputs are `Outputs`."""


class Network:
    """Any of the networks in NumPy, the rivals of the paper's tables too.

    Parameters
    ----------
    config
        Which network.
    weights
        Name → array, all of one float dtype, which the computation follows.
    spec
        A backbone in place of the one that ``config`` names.

    Raises
    ------
    WeightsError
        Weights are missing, extra, misshapen or not finite; the message lists them all.

    Examples
    --------
    >>> import numpy as np
    >>> from refimpl import MobileInstConfig, Network, Weights
    >>> config = MobileInstConfig.preset(
    ...     "solov2-lite-r18", dim=32, head_dim=32, mask_dim=32, kernel_dim=32, grids=(5, 4, 3, 2, 1)
    ... )
    >>> network = Network(config, Weights.seeded(config, seed=0))
    >>> network(np.zeros((1, 3, 64, 64), np.float32)).class_logits.shape
    (1, 55, 80)
    """

    def __init__(
        self, config: MobileInstConfig, weights: Mapping[str, Array], spec: BackboneSpec | None = None
    ) -> None:
        if any(is_unused(name, config) for name in weights):
            weights = {name: array for name, array in weights.items() if not is_unused(name, config)}
        check_weights(weights, parameter_shapes(config, spec))
        self.config = config
        self.spec = spec or BACKBONE_SPECS[config.backbone]
        self.weights = weights

    def __call__(self, images: Array) -> NamedOutputs:
        """Run the network.

        Parameters
        ----------
        images
            Normalised pictures (B, 3, H, W), cast to the weights' dtype. Those of the paper are padded to
            multiples of 32 (`refimpl.inference.preprocess`); MobileInst and SparseInst compute any size.

        Raises
        ------
        ShapeError, NonFiniteError
            The input is not such an array.
        """
        return forward(self._checked(images), Scope(self.weights), self.config, self.spec)

    def mask_features(self, images: Array) -> Array:
        """Run the backbone and the mask decoder only, as on the frames between keyframes (paper 3.4).

        Parameters
        ----------
        images
            As of a call.

        Returns
        -------
        Array, (B, dim, H/8, W/8)
            Equal to those of a call.

        Raises
        ------
        ConfigurationError
            The network is not MobileInst.
        ShapeError, NonFiniteError
        """
        if self.config.architecture != "mobileinst":
            raise ConfigurationError(
                f"{self.config.architecture} does not reuse kernels; only MobileInst's are meant to outlive "
                "their frame, so choose keyframe interval 1"
            )
        return mask_features(self._checked(images), Scope(self.weights), self.config, self.spec)[0]

    def _checked(self, images: Array) -> Array:
        """The images in the weights' dtype."""
        dtype = next(iter(self.weights.values())).dtype
        if images.dtype != dtype:
            images = images.astype(dtype)
        check_images(images)
        return images


class MobileInst(Network):
    """A network whose queries' masks are its outputs: MobileInst, or SparseInst.

    Parameters
    ----------
    config, weights, spec
        As of `Network`.

    Raises
    ------
    ConfigurationError
        The configuration is of another rival, whose masks are assembled after it.
    WeightsError
        As of `Network`.

    Examples
    --------
    >>> import numpy as np
    >>> from refimpl import MobileInst, MobileInstConfig, Weights
    >>> config = MobileInstConfig.preset("topformer-tiny", dim=32, num_queries=5)
    >>> model = MobileInst(config, Weights.seeded(config, seed=0))
    >>> model(np.zeros((1, 3, 64, 64), np.float32)).masks.shape
    (1, 5, 8, 8)
    """

    def __init__(
        self, config: MobileInstConfig, weights: Mapping[str, Array], spec: BackboneSpec | None = None
    ) -> None:
        if config.architecture not in WITH_QUERIES:
            raise ConfigurationError(
                f"{config.architecture} has no queries with masks; choose a MobileInst or SparseInst preset "
                "(`mobileinst run` segments single pictures with it)"
            )
        super().__init__(config, weights, spec)

    def __call__(self, images: Array) -> Outputs:
        """Run the network; see `Network`."""
        outputs = super().__call__(images)
        assert isinstance(outputs, Outputs)
        return outputs


def build_network(
    config: MobileInstConfig, weights: Mapping[str, Array], spec: BackboneSpec | None = None
) -> Network:
    """Return any network: a `MobileInst` where the configuration is of one.

    See `Network` for the arguments and errors.
    """
    kind = MobileInst if config.architecture in WITH_QUERIES else Network
    return kind(config, weights, spec)


class KernelReuse:
    """The network on the frames between keyframes: M = K · X_mask with a keyframe's kernels (Eq. 2).

    Parameters
    ----------
    network
        The network whose backbone and mask decoder run.
    kernels
        The keyframe's, (B, N, dim); cast to the weights' dtype. They are among ``weights``, so that a
        recording knows them.

    Raises
    ------
    ShapeError, NonFiniteError
        The kernels are not such an array.
    """

    def __init__(self, network: Network, kernels: Array) -> None:
        if kernels.ndim != 3 or kernels.shape[2] != network.config.dim or 0 in kernels.shape:
            raise ShapeError(
                f"kernels have shape {kernels.shape}, expected (batch, queries, {network.config.dim})"
            )
        if not np.isfinite(kernels).all():
            raise NonFiniteError("kernels contain NaN or infinity; expected finite numbers")
        self.network = network
        dtype = next(iter(network.weights.values())).dtype
        self.weights = {**network.weights, "kernels": kernels.astype(dtype, copy=False)}

    def __call__(self, images: Array) -> dict[str, Array]:
        """Images (B, 3, H, W) → ``mask_features`` (B, dim, H/8, W/8) and ``masks`` (B, N, H/8, W/8)."""
        features = self.network.mask_features(images)
        masks = dot_product(self.weights["kernels"], features, Scope(self.weights) / "masks")
        return {"mask_features": features, "masks": masks}


def check_images(images: Array) -> None:
    """Raise a named error unless ``images`` is a finite (B, 3, H, W)."""
    shape = images.shape
    if len(shape) != 4 or shape[1] != 3 or 0 in shape:
        raise ShapeError(f"images have shape {shape}, expected (batch, 3, height, width)")
    if not np.isfinite(images.view(np.ndarray)).all():
        raise NonFiniteError("images contain NaN or infinity; expected finite numbers")
