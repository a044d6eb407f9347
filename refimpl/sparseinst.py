"""SparseInst (Cheng et al., CVPR 2022), the paper's main rival: instances are sums over activation maps."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from refimpl import ops
from refimpl.config import MobileInstConfig
from refimpl.fpn import conv_stack, feature_pyramid, mask_branch
from refimpl.layers import conv, linear
from refimpl.ops.operation import Array
from refimpl.resnet import RESNETS, resnet
from refimpl.scope import Scope, block
from refimpl.topformer import TOPFORMERS, token_pyramid

GROUPS = 4
BRANCH_CONVS = 4
EPSILON = 1e-6


class SparseInstances(NamedTuple):
    """What SparseInst predicts, as logits, before kernels and features are multiplied."""

    class_logits: Array  # (B, N, classes)
    objectness: Array  # (B, N, 1)
    kernels: Array  # (B, N, kernel_dim)
    mask_features: Array  # (B, kernel_dim, H/8, W/8)


def sparseinst(images: Array, w: Scope, config: MobileInstConfig) -> SparseInstances:
    """Images (B, 3, H, W) → predictions for each of N activation maps."""
    levels = local_maps(images, w / "backbone", config.backbone)
    x = feature_pyramid(levels, w / "encoder", config.dim, pooled=True)
    x = add_coordinates(x, w / "decoder" / "coordinates")
    instances = instance_branch(x, w / "decoder" / "inst_branch", config)
    mask_features = mask_branch(
        x, w / "decoder" / "mask_branch", config.mask_convs, config.dim, config.kernel_dim
    )
    return SparseInstances(*instances, mask_features)


def local_maps(images: Array, w: Scope, name: str) -> tuple[Array, Array, Array]:
    """Images → X3, X4 and X5; of TopFormer, the token pyramid's."""
    if name in RESNETS:
        return resnet(images, w, RESNETS[name])
    _, x3, x4, x5 = token_pyramid(images, w / "tpm", TOPFORMERS[name])
    return x3, x4, x5


@block
def add_coordinates(x: Array, w: Scope) -> Array:
    """Put two channels first, x and y from −1 to 1: (B, C, h, w) → (B, 2 + C, h, w)."""
    batch, _, height, width = x.shape
    rows, columns = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    coordinates = ops.constant(value=np.stack([columns, rows])[None].astype(x.dtype))
    return ops.concat(ops.expand(coordinates, (batch, 2, height, width)), x, axis=1)


@block
def instance_branch(x: Array, w: Scope, config: MobileInstConfig) -> tuple[Array, Array, Array]:
    """Features (B, 2 + dim, h, w) → class logits, objectness and kernels."""
    features = conv_stack(x, w / "inst_convs", BRANCH_CONVS, config.dim)
    instances = gather_instances(features, w, config)
    class_logits = linear(instances, w / "cls_score", config.num_classes)
    objectness = linear(instances, w / "objectness", 1)
    return class_logits, objectness, linear(instances, w / "mask_kernel", config.kernel_dim)


def gather_instances(features: Array, w: Scope, config: MobileInstConfig) -> Array:
    """Sum the features (B, dim, h, w) under each activation map: (B, N, dim), or (B, N, 4·dim) of groups."""
    batch, dim, height, width = features.shape
    groups = 1 if config.instance_activation == "plain" else GROUPS
    count = groups * config.num_queries
    maps = conv(features, w / "iam_conv", count, kernel=3, groups=groups)
    maps = normalise_maps(ops.reshape(maps, (batch, count, height * width)), w, config)
    positions = ops.transpose(
        ops.reshape(features, (batch, dim, height * width)), perm=(0, 2, 1)
    )  # (B, hw, dim)
    instances = ops.mat_mul(maps, positions)  # (B, groups·N, dim)
    return instances if groups == 1 else join_groups(instances, w / "fc", groups)


def normalise_maps(logits: Array, w: Scope, config: MobileInstConfig) -> Array:
    """Weights over the positions that sum to one, from logits (B, maps, hw)."""
    if config.instance_activation == "softmax":
        return ops.softmax(ops.add(logits, w["softmax_bias", 1]), axis=-1)
    activations = ops.sigmoid(logits)
    return ops.div(activations, ops.clip(ops.reduce_sum(activations, (-1,)), EPSILON))


@block
def join_groups(instances: Array, w: Scope, groups: int) -> Array:
    """Mix the groups' features of each instance: (B, groups·N, dim) → (B, N, groups·dim)."""
    batch, count, dim = instances.shape
    joined = ops.reshape(instances, (batch, groups, count // groups, dim))
    joined = ops.transpose(joined, perm=(0, 2, 1, 3))  # (B, N, groups, dim)
    joined = ops.reshape(joined, (batch, count // groups, groups * dim))
    return ops.relu(linear(joined, w, groups * dim))
