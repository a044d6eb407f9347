"""SparseInst (Cheng et al., CVPR 2022), the paper's main rival: instances are sums over activation maps."""

from __future__ import annotations

from typing import NamedTuple

from refimpl import ops
from refimpl.attention import merge_heads
from refimpl.backbone import BackboneSpec, local_maps
from refimpl.config import MobileInstConfig
from refimpl.fpn import conv_stack, feature_pyramid, mask_branch
from refimpl.layers import conv, coordinates, linear, to_tokens
from refimpl.ops.operation import Array
from refimpl.scope import Scope, block

GROUPS = 4
BRANCH_CONVS = 4
EPSILON = 1e-6


class SparseInstances(NamedTuple):
    """What SparseInst predicts, as logits, before kernels and features are multiplied."""

    class_logits: Array  # (B, N, classes)
    objectness: Array  # (B, N, 1)
    kernels: Array  # (B, N, kernel_dim)
    mask_features: Array  # (B, kernel_dim, H/8, W/8)


def sparseinst(images: Array, w: Scope, config: MobileInstConfig, spec: BackboneSpec) -> SparseInstances:
    """Images (B, 3, H, W) → predictions for each of N activation maps, on a backbone."""
    levels = local_maps(images, w / "backbone", spec)  # 1/8, 1/16, 1/32
    x = feature_pyramid(levels, w / "encoder", config.dim, pooled=True)  # (B, dim, H/8, W/8)
    x = add_coordinates(x, w / "decoder" / "coordinates")  # (B, 2 + dim, H/8, W/8)
    instances = instance_branch(x, w / "decoder" / "inst_branch", config)
    mask_features = mask_branch(
        x, w / "decoder" / "mask_branch", config.mask_convs, config.dim, config.kernel_dim
    )
    return SparseInstances(*instances, mask_features)


@block
def add_coordinates(x: Array, w: Scope) -> Array:
    """Put two channels first, x and y from −1 to 1: (B, C, h, w) → (B, 2 + C, h, w)."""
    return ops.concat(coordinates(x), x, axis=1)  # (B, 2 + C, h, w)


@block
def instance_branch(x: Array, w: Scope, config: MobileInstConfig) -> tuple[Array, Array, Array]:
    """Features (B, 2 + dim, h, w) → class logits, objectness and kernels."""
    features = conv_stack(x, w / "inst_convs", BRANCH_CONVS, config.dim)  # (B, dim, h, w)
    instances = gather_instances(features, w, config)  # (B, N, dim) or (B, N, 4·dim)
    class_logits = linear(instances, w / "cls_score", config.num_classes)  # (B, N, classes)
    objectness = linear(instances, w / "objectness", 1)  # (B, N, 1)
    kernels = linear(instances, w / "mask_kernel", config.kernel_dim)  # (B, N, kernel_dim)
    return class_logits, objectness, kernels


def gather_instances(features: Array, w: Scope, config: MobileInstConfig) -> Array:
    """Sum the features (B, dim, h, w) under each activation map: (B, N, dim), or (B, N, 4·dim) of groups."""
    batch, _, height, width = features.shape
    groups = 1 if config.instance_activation == "plain" else GROUPS
    count = groups * config.num_queries
    maps = conv(features, w / "iam_conv", count, kernel=3, groups=groups)  # (B, groups·N, h, w)
    maps = ops.reshape(maps, (batch, count, height * width))  # (B, groups·N, hw)
    maps = normalise_maps(maps, w, config)
    instances = ops.mat_mul(maps, to_tokens(features))  # (B, groups·N, dim)
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
    apart = ops.reshape(instances, (batch, groups, count // groups, dim))  # (B, groups, N, dim)
    joined = merge_heads(apart)  # (B, N, groups·dim)
    return ops.relu(linear(joined, w, groups * dim))
