"""MobileInst (Figure 3): backbone, mask decoder, instance decoder, and masks as the product of kernels and mask features."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

import numpy as np

from refimpl import ops
from refimpl.config import MobileInstConfig
from refimpl.errors import NonFiniteError, ShapeError
from refimpl.fpn import feature_pyramid, mask_branch
from refimpl.instance_decoder import instance_decoder
from refimpl.mask_decoder import mask_decoder
from refimpl.ops.operation import Array, intercepted
from refimpl.scope import DeclaringScope, Scope, block
from refimpl.seaformer import SEAFORMERS, seaformer
from refimpl.topformer import TOPFORMERS, Features, topformer
from refimpl.weights_check import check_weights

SIZE_MULTIPLE = 32


@dataclass(frozen=True)
class Outputs:
    """What the network predicts, as logits; N queries, masks at 1/8 of the input."""

    class_logits: Array  # (B, N, classes)
    objectness: Array  # (B, N, 1)
    kernels: Array  # (B, N, dim)
    mask_features: Array  # (B, dim, H/8, W/8)
    masks: Array  # (B, N, H/8, W/8)
    global_queries: Array  # (B, N, dim), what temporal query passing passes on

    def items(self) -> Iterator[tuple[str, Array]]:
        """Yield each field's name and tensor."""
        return ((field.name, getattr(self, field.name)) for field in fields(self))


class MobileInst:
    """The network in NumPy.

    Parameters
    ----------
    config
        Which network.
    weights
        Name → array, all of one float dtype, which the computation follows.

    Raises
    ------
    WeightsError
        Weights are missing, extra, misshapen or not finite; the message lists them all.

    Examples
    --------
    >>> import numpy as np
    >>> from refimpl import MobileInst, MobileInstConfig, Weights
    >>> config = MobileInstConfig.preset("topformer-tiny", dim=32, num_queries=5)
    >>> model = MobileInst(config, Weights.seeded(config, seed=0))
    >>> model(np.zeros((1, 3, 64, 64), np.float32)).masks.shape
    (1, 5, 8, 8)
    """

    def __init__(self, config: MobileInstConfig, weights: Mapping[str, Array]) -> None:
        check_weights(weights, parameter_shapes(config))
        self.config = config
        self.weights = weights

    def __call__(self, images: Array) -> Outputs:
        """Run the network.

        Parameters
        ----------
        images
            Normalised pictures (B, 3, H, W), H and W multiples of 32; cast to the weights' dtype.

        Raises
        ------
        ShapeError, NonFiniteError
            The input is not such an array.
        """
        dtype = next(iter(self.weights.values())).dtype
        if images.dtype != dtype:
            images = images.astype(dtype)
        check_images(images)
        return forward(images, Scope(self.weights), self.config)


def check_images(images: Array) -> None:
    """Raise a named error unless ``images`` is a finite (B, 3, H, W) with H and W multiples of 32."""
    shape = images.shape
    if len(shape) != 4 or shape[1] != 3 or 0 in shape:
        raise ShapeError(f"images have shape {shape}, expected (batch, 3, height, width)")
    if shape[2] % SIZE_MULTIPLE or shape[3] % SIZE_MULTIPLE:
        raise ShapeError(
            f"images are {shape[2]}×{shape[3]}, expected multiples of {SIZE_MULTIPLE}; "
            "pad them right and bottom with zeros, as refimpl.inference.preprocess does"
        )
    if not np.isfinite(images.view(np.ndarray)).all():
        raise NonFiniteError("images contain NaN or infinity; expected finite numbers")


def forward(images: Array, w: Scope, config: MobileInstConfig) -> Outputs:
    """Figure 3: images (B, 3, H, W) → predictions."""
    features = backbone(images, w / "backbone", config.backbone)
    mask_features = decode_masks(features, w / "mask_decoder", config)  # X_mask
    instances = instance_decoder(features.x6, mask_features, w / "instance_decoder", config)
    masks = dot_product(instances.kernels, mask_features, w / "masks")
    return Outputs(
        instances.class_logits,
        instances.objectness,
        instances.kernels,
        mask_features,
        masks,
        instances.global_queries,
    )


def backbone(images: Array, w: Scope, name: str) -> Features:
    """Images → X3, X4, X5 and X6."""
    if name in SEAFORMERS:
        return seaformer(images, w, SEAFORMERS[name])
    return topformer(images, w, TOPFORMERS[name])


def decode_masks(features: Features, w: Scope, config: MobileInstConfig) -> Array:
    """Features → mask features (B, dim, H/8, W/8), by the mask decoder the configuration names."""
    if config.mask_decoder in ("fpn", "sparseinst"):
        return baseline_mask_decoder(features, w, config)
    return mask_decoder(features, w, config.dim, enhanced=config.mask_decoder == "semantic_enhanced")


def baseline_mask_decoder(features: Features, w: Scope, config: MobileInstConfig) -> Array:
    """What the paper compares with (Table 5): a feature pyramid, with SparseInst's pooling or without."""
    pooled = config.mask_decoder == "sparseinst"
    fused = feature_pyramid((features.x3, features.x4, features.x5), w, config.dim, pooled)
    return mask_branch(fused, w, config.mask_convs, config.dim, config.dim)


@block
def dot_product(kernels: Array, mask_features: Array, w: Scope) -> Array:
    """M = K · X_mask (paper 3.3): (B, N, dim) and (B, dim, h, w) → (B, N, h, w)."""
    batch, dim, height, width = mask_features.shape
    masks = ops.mat_mul(kernels, ops.reshape(mask_features, (batch, dim, height * width)))
    return ops.reshape(masks, (batch, kernels.shape[1], height, width))


@functools.lru_cache(maxsize=64)
def parameter_shapes(config: MobileInstConfig) -> Mapping[str, tuple[int, ...]]:
    """Return the name and shape of every weight, in order of use, as the network itself asks for them."""
    shapes: dict[str, tuple[int, ...]] = {}
    with intercepted(None):
        forward(np.zeros((1, 3, 64, 64), np.float32), DeclaringScope(shapes), config)
    return MappingProxyType(shapes)
