"""SparseInst (Cheng et al., CVPR 2022)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .mask_decoder import FPN, conv_stack
from .resnet import ResNet50
from .topformer import TOPFORMERS, Rows, TokenPyramid


class SparseInstOutputs(NamedTuple):
    """Raw outputs; all of them logits."""

    class_logits: Tensor  # (B, N, classes)
    objectness: Tensor  # (B, N, 1)
    kernels: Tensor  # (B, N, 128)
    mask_features: Tensor  # (B, 128, H/8, W/8)
    masks: Tensor  # (B, N, H/4, W/4)


class Coordinates(nn.Module):
    """Two channels before the others: x and y, each from −1 to 1."""

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        ys = torch.linspace(-1, 1, height, dtype=x.dtype, device=x.device)
        xs = torch.linspace(-1, 1, width, dtype=x.dtype, device=x.device)
        y, x_ = torch.meshgrid(ys, xs, indexing="ij")
        return torch.cat([torch.stack([x_, y]).expand(batch, -1, -1, -1), x], dim=1)


class Masks(nn.Module):
    """Kernels times mask features."""

    def forward(self, kernels: Tensor, features: Tensor) -> Tensor:
        batch, _, height, width = features.shape
        return (kernels @ features.flatten(2)).view(batch, -1, height, width)


class JoinedGroups(nn.Linear):
    """The groups' features of an instance one after another, mixed, ReLU."""

    def __init__(self, dim: int, groups: int):
        super().__init__(groups * dim, groups * dim)
        self.groups = groups

    def forward(self, instances: Tensor) -> Tensor:
        batch, _, dim = instances.shape
        instances = instances.view(batch, self.groups, -1, dim).transpose(1, 2).flatten(2)
        return F.relu(super().forward(instances))


class TopFormerPyramid(nn.Module):
    """TopFormer's X3, X4, X5: the token pyramid alone, since nothing reads its transformer."""

    def __init__(self, rows: Rows, taps: tuple[int, ...], stem: int = 16):
        super().__init__()
        self.tpm = TokenPyramid(rows, taps, stem)
        self.channels = tuple(rows[i][2] for i in taps[1:])

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.tpm(images)[1:]


class InstanceBranch(nn.Module):
    """Instance activation maps ("plain", "grouped", "softmax"), the features they gather, heads."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        num_queries: int,
        dim: int,
        kernel_dim: int,
        instance_activation: str,
    ):
        super().__init__()
        self.groups = 1 if instance_activation == "plain" else 4
        self.softmax = instance_activation == "softmax"
        self.inst_convs = conv_stack(in_channels, dim, 4)
        self.iam_conv = nn.Conv2d(dim, num_queries * self.groups, 3, padding=1, groups=self.groups)
        width = dim * self.groups
        if self.groups > 1:
            self.fc = JoinedGroups(dim, self.groups)
        if self.softmax:
            self.softmax_bias = nn.Parameter(torch.ones(1))
        self.cls_score = nn.Linear(width, num_classes)
        self.mask_kernel = nn.Linear(width, kernel_dim)
        self.objectness = nn.Linear(width, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.inst_convs(features)
        maps = self._maps(self.iam_conv(features).flatten(2))  # (B, groups·N, HW)
        instances = maps @ features.flatten(2).transpose(1, 2)  # (B, groups·N, dim)
        if self.groups > 1:
            instances = self.fc(instances)
        return self.cls_score(instances), self.objectness(instances), self.mask_kernel(instances)

    def _maps(self, logits: Tensor) -> Tensor:
        if self.softmax:
            return (logits + self.softmax_bias).softmax(dim=-1)
        maps = logits.sigmoid()
        return maps / maps.sum(-1, keepdim=True).clamp(min=1e-6)


class MaskBranch(nn.Module):
    """3×3 convolutions and a 1×1 projection."""

    def __init__(self, in_channels: int, dim: int, kernel_dim: int, mask_convs: int):
        super().__init__()
        self.mask_convs = conv_stack(in_channels, dim, mask_convs)
        self.projection = nn.Conv2d(dim, kernel_dim, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.projection(self.mask_convs(features))


class Decoder(nn.Module):
    """Coordinates, the two branches, and masks resized ×2."""

    def __init__(
        self,
        num_classes: int,
        num_queries: int,
        dim: int,
        kernel_dim: int,
        instance_activation: str,
        mask_convs: int,
    ):
        super().__init__()
        self.coordinates, self.masks = Coordinates(), Masks()
        self.inst_branch = InstanceBranch(
            dim + 2, num_classes, num_queries, dim, kernel_dim, instance_activation
        )
        self.mask_branch = MaskBranch(dim + 2, dim, kernel_dim, mask_convs)

    def forward(self, features: Tensor) -> SparseInstOutputs:
        features = self.coordinates(features)
        class_logits, objectness, kernels = self.inst_branch(features)
        mask_features = self.mask_branch(features)
        height, width = mask_features.shape[-2:]
        masks = self.masks(kernels, mask_features)
        masks = F.interpolate(masks, size=(2 * height, 2 * width), mode="bilinear", align_corners=False)
        return SparseInstOutputs(class_logits, objectness, kernels, mask_features, masks)


def build_backbone(preset: str) -> ResNet50 | TopFormerPyramid:
    """ "resnet50", or a TopFormer's name."""
    return ResNet50() if preset == "resnet50" else TopFormerPyramid(*TOPFORMERS[preset][:2])


class SparseInst(nn.Module):
    """Backbone (a preset's name, or a module), encoder, decoder."""

    def __init__(
        self,
        backbone: str | nn.Module = "resnet50",
        num_classes: int = 80,
        num_queries: int = 100,
        dim: int = 256,
        kernel_dim: int = 128,
        instance_activation: str = "grouped",
        mask_convs: int = 4,
    ):
        super().__init__()
        self.backbone = build_backbone(backbone) if isinstance(backbone, str) else backbone
        self.encoder = FPN(self.backbone.channels, dim, pooling=True)
        self.decoder = Decoder(num_classes, num_queries, dim, kernel_dim, instance_activation, mask_convs)

    def forward(self, images: Tensor) -> SparseInstOutputs:
        return self.decoder(self.encoder(*self.backbone(images)))
