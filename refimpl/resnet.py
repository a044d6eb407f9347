"""ResNet (He et al., CVPR 2016), laid out and named as in detectron2."""

from __future__ import annotations

from dataclasses import dataclass

from refimpl import ops
from refimpl.layers import batch_norm, conv
from refimpl.ops.operation import Array
from refimpl.scope import Scope, block

EXPANSION = 4


@dataclass(frozen=True)
class ResNetSpec:
    """Channels of the stem, and width and number of the blocks of res2 to res5.

    Attributes
    ----------
    stem, stages
        The channels; (width, blocks) of each stage.
    basic
        Whether the blocks are the small networks' two 3×3 convolutions; else they are bottlenecks.
    stride_first
        Whether a bottleneck's stride is in its first 1×1, as in the Caffe weights (detectron2's
        ``STRIDE_IN_1X1``); else it is in the 3×3, as in torchvision's.
    """

    stem: int
    stages: tuple[tuple[int, int], ...]
    basic: bool = False
    stride_first: bool = False


_R50 = ((64, 3), (128, 4), (256, 6), (512, 3))
RESNETS = {
    "resnet50": ResNetSpec(stem=64, stages=_R50),
    "resnet50-caffe": ResNetSpec(stem=64, stages=_R50, stride_first=True),
    "resnet18": ResNetSpec(stem=64, stages=((64, 2), (128, 2), (256, 2), (512, 2)), basic=True),
}


def resnet(images: Array, w: Scope, spec: ResNetSpec) -> tuple[Array, Array, Array, Array]:
    """Images (B, 3, H, W) → the results of res2 to res5, 1/4 to 1/32."""
    x = stem(images, w / "stem", spec.stem)  # (B, stem, H/4, W/4)
    results = []
    for i, (width, depth) in enumerate(spec.stages):
        for j in range(depth):
            stride = 2 if i > 0 and j == 0 else 1
            place = w / f"res{i + 2}" / j
            if spec.basic:
                x = basic_block(x, place, width, stride)  # (B, width, …) at 1/4 to 1/32
            else:
                x = bottleneck(x, place, width, stride, spec.stride_first)  # (B, 4·width, …)
        results.append(x)
    return results[0], results[1], results[2], results[3]


@block
def stem(images: Array, w: Scope, channels: int) -> Array:
    """A 7×7 convolution and a 3×3 maximum, each with stride 2."""
    x = ops.relu(conv_norm(images, w / "conv1", channels, kernel=7, stride=2))  # (B, channels, H/2, W/2)
    return ops.max_pool(x, kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1))  # …, H/4, W/4)


@block
def bottleneck(x: Array, w: Scope, width: int, stride: int, stride_first: bool = False) -> Array:
    """1×1, 3×3, 1×1, and a shortcut, projected where the shape changes; the stride is first or in the 3×3."""
    out = EXPANSION * width
    first, second = (stride, 1) if stride_first else (1, stride)
    y = ops.relu(conv_norm(x, w / "conv1", width, stride=first))  # (B, width, H/first, W/first)
    y = ops.relu(conv_norm(y, w / "conv2", width, kernel=3, stride=second))  # (B, width, H/stride, W/stride)
    y = conv_norm(y, w / "conv3", out)  # (B, 4·width, H/stride, W/stride)
    shortcut = x if x.shape[1] == out else conv_norm(x, w / "shortcut", out, stride=stride)
    return ops.relu(ops.add(y, shortcut))


@block
def basic_block(x: Array, w: Scope, width: int, stride: int) -> Array:
    """Two 3×3, and a shortcut, projected where the shape changes."""
    y = ops.relu(conv_norm(x, w / "conv1", width, kernel=3, stride=stride))  # (B, width, H/stride, W/stride)
    y = conv_norm(y, w / "conv2", width, kernel=3)
    shortcut = x if x.shape[1] == width else conv_norm(x, w / "shortcut", width, stride=stride)
    return ops.relu(ops.add(y, shortcut))


@block
def conv_norm(x: Array, w: Scope, out: int, kernel: int = 1, stride: int = 1) -> Array:
    """A convolution without bias and the batch norm below it, ``norm``; folded, a convolution with a bias."""
    if "bias" in w:
        return conv(x, w, out, kernel, stride)
    return batch_norm(conv(x, w, out, kernel, stride, bias=False), w / "norm")
