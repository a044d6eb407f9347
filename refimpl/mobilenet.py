"""MobileNetV2 (Sandler et al., CVPR 2018), laid out and named as in torchvision."""

from __future__ import annotations

from dataclasses import dataclass

from refimpl import ops
from refimpl.layers import conv_bn, relu6
from refimpl.ops.operation import Array
from refimpl.scope import Scope, block


@dataclass(frozen=True)
class MobileNetSpec:
    """Channels of the stem, and expansion, channels, number and first stride of each row of blocks.

    The results at 1/4, 1/8, 1/16 and 1/32 are those of the last block before each further stride. The last
    1×1 convolution, to 1280 channels, is the classifier's and left out.
    """

    stem: int
    rows: tuple[tuple[int, int, int, int], ...]


MOBILENETS = {
    "mobilenetv2": MobileNetSpec(
        stem=32,
        rows=(
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        ),
    )
}


def mobilenet(images: Array, w: Scope, spec: MobileNetSpec) -> tuple[Array, Array, Array, Array]:
    """Images (B, 3, H, W) → the maps at 1/4, 1/8, 1/16 and 1/32."""
    w = w / "features"
    x = unit(images, w / 0, spec.stem, kernel=3, stride=2)  # (B, stem, H/2, W/2)
    place, results = 1, []
    for expansion, channels, depth, stride in spec.rows:
        if stride == 2:
            results.append(x)
        for j in range(depth):
            x = mobile_block(x, w / place, expansion, channels, stride if j == 0 else 1)
            place += 1
    _, quarter, eighth, sixteenth = results
    return quarter, eighth, sixteenth, x


@block
def mobile_block(x: Array, w: Scope, expansion: int, out: int, stride: int) -> Array:
    """Expand (1×1), depthwise (3×3), each with ReLU6; project (1×1); a shortcut if the shape is kept."""
    channels = x.shape[1]
    hidden = channels * expansion
    w, y, place = w / "conv", x, 0
    if expansion != 1:
        y, place = unit(y, w / 0, hidden), 1  # (B, hidden, H, W)
    y = unit(y, w / place, hidden, kernel=3, stride=stride, groups=hidden)  # (…, ⌈H/stride⌉, ⌈W/stride⌉)
    y = conv_bn(y, w, out, names=(str(place + 1), str(place + 2)))  # (B, out, ⌈H/stride⌉, ⌈W/stride⌉)
    return ops.add(x, y) if stride == 1 and channels == out else y


@block
def unit(x: Array, w: Scope, out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> Array:
    """A convolution, batch norm and ReLU6."""
    return relu6(conv_bn(x, w, out, kernel, stride, groups, names=("0", "1")))
