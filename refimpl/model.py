"""MobileInst (Figure 3): backbone, mask decoder, instance decoder, and masks as the product of kernels and
mask features."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

import numpy as np

from refimpl import ops
from refimpl.checkpoint_names import is_unused
from refimpl.config import MobileInstConfig
from refimpl.errors import ConfigurationError, NonFiniteError, ShapeError
from refimpl.fpn import feature_pyramid, mask_branch
from refimpl.instance_decoder import instance_decoder
from refimpl.layers import resize
from refimpl.mask_decoder import mask_decoder
from refimpl.ops.operation import Array, intercepted
from refimpl.scope import DeclaringScope, Scope, block
from refimpl.seaformer import SEAFORMERS, seaformer
from refimpl.sparseinst import sparseinst
from refimpl.topformer import TOPFORMERS, Features, topformer
from refimpl.weights_check import check_weights

SIZE_MULTIPLE = 32


@dataclass(frozen=True)
class Outputs:
    """What the network predicts, as logits; N queries.

    MobileInst's masks are at 1/8 of the input. SparseInst's are at 1/4, resized; its dim is the
    configuration's ``kernel_dim``, and it has no global queries.
    """

    class_logits: Array  # (B, N, classes)
    objectness: Array  # (B, N, 1)
    kernels: Array  # (B, N, dim)
    mask_features: Array  # (B, dim, H/8, W/8)
    masks: Array  # (B, N, H/8, W/8) or (B, N, H/4, W/4)
    global_queries: Array | None = None  # (B, N, dim), what temporal query passing passes on

    def items(self) -> Iterator[tuple[str, Array]]:
        """Yield the name and tensor of each field that the network has."""
        named = ((field.name, getattr(self, field.name)) for field in fields(self))
        return ((name, tensor) for name, tensor in named if tensor is not None)


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
        if any(is_unused(name, config) for name in weights):
            weights = {name: array for name, array in weights.items() if not is_unused(name, config)}
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
        return forward(self._checked(images), Scope(self.weights), self.config)

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
        return mask_features(self._checked(images), Scope(self.weights), self.config)[0]

    def _checked(self, images: Array) -> Array:
        """The images in the weights' dtype."""
        dtype = next(iter(self.weights.values())).dtype
        if images.dtype != dtype:
            images = images.astype(dtype)
        check_images(images)
        return images


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

    def __init__(self, network: MobileInst, kernels: Array) -> None:
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
    """Images (B, 3, H, W) → predictions, by the network the configuration names."""
    if config.architecture == "sparseinst":
        return forward_sparseinst(images, w, config)
    return forward_mobileinst(images, w, config)


def forward_mobileinst(images: Array, w: Scope, config: MobileInstConfig) -> Outputs:
    """Figure 3."""
    x_mask, features = mask_features(images, w, config)
    instances = instance_decoder(features.x6, x_mask, w / "instance_decoder", config)
    masks = dot_product(instances.kernels, x_mask, w / "masks")
    return Outputs(
        instances.class_logits,
        instances.objectness,
        instances.kernels,
        x_mask,
        masks,
        instances.global_queries,
    )


def mask_features(images: Array, w: Scope, config: MobileInstConfig) -> tuple[Array, Features]:
    """Images → mask features X_mask (B, dim, H/8, W/8) and the backbone's features; each frame needs both."""
    features = backbone(images, w / "backbone", config.backbone)
    return decode_masks(features, w / "mask_decoder", config), features


def forward_sparseinst(images: Array, w: Scope, config: MobileInstConfig) -> Outputs:
    """SparseInst: masks as the product of kernels and mask features, resized to twice their size."""
    instances = sparseinst(images, w, config)
    masks = dot_product(instances.kernels, instances.mask_features, w / "decoder" / "masks")
    return Outputs(*instances, double(masks, w / "masks"))


@block
def double(masks: Array, w: Scope) -> Array:
    """Resize to twice the size: (B, N, h, w) → (B, N, 2h, 2w)."""
    return resize(masks, 2 * masks.shape[2], 2 * masks.shape[3])


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


@block
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
