"""Building blocks shared by backbones and decoders. Activations are (B, C, H, W), tokens (B, tokens, C)."""

from __future__ import annotations

import numpy as np

from refimpl import ops
from refimpl.ops.operation import Array
from refimpl.scope import Scope, block


@block
def conv(
    x: Array, w: Scope, out: int, kernel: int = 1, stride: int = 1, groups: int = 1, bias: bool = True
) -> Array:
    """Convolution with ``kernel // 2`` padding: (B, C, H, W) → (B, out, ⌈H/stride⌉, ⌈W/stride⌉)."""
    weight = w["weight", out, x.shape[1] // groups, kernel, kernel]
    pad = kernel // 2
    return ops.conv(
        x,
        weight,
        w["bias", out] if bias else None,
        kernel_shape=(kernel, kernel),
        strides=(stride, stride),
        pads=(pad, pad, pad, pad),
        dilations=(1, 1),
        group=groups,
    )


def batch_norm(x: Array, w: Scope, epsilon: float = 1e-5) -> Array:
    """Inference batch norm over axis 1 of (B, C, …), from the running statistics."""
    channels = x.shape[1]
    return ops.batch_normalization(
        x,
        w["weight", channels],
        w["bias", channels],
        w["running_mean", channels],
        w["running_var", channels],
        epsilon=epsilon,
    )


def group_norm(x: Array, w: Scope, groups: int, epsilon: float = 1e-5) -> Array:
    """Group norm of (B, C, H, W), as exporters write it: instance norm of the groups, then the scales.

    ONNX has it as one operator from opset 21 only.
    """
    batch, channels, height, width = x.shape
    grouped = ops.reshape(x, (batch, groups, channels // groups * height * width))  # (B, groups, …)
    ones, zeros = (ops.constant(value=np.full(groups, value, x.dtype)) for value in (1, 0))
    y = ops.instance_normalization(grouped, ones, zeros, epsilon=epsilon)
    y = ops.reshape(y, (batch, channels, height, width))
    scale, shift = (ops.reshape(w[name, channels], (channels, 1, 1)) for name in ("weight", "bias"))
    return ops.add(ops.mul(y, scale), shift)


@block
def conv_bn(
    x: Array,
    w: Scope,
    out: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    names: tuple[str, str] = ("c", "bn"),
) -> Array:
    """CBN: a convolution without bias, then batch norm.

    With the batch norm folded into the convolution (`refimpl.weights.folding`) it is one convolution with a
    bias.
    """
    convolution, norm = w / names[0], w / names[1]
    if "bias" in convolution:
        return conv(x, convolution, out, kernel, stride, groups)
    x = conv(x, convolution, out, kernel, stride, groups, bias=False)
    return batch_norm(x, norm)


@block
def linear(x: Array, w: Scope, out: int) -> Array:
    """``x Wᵀ + b`` on the last axis: (…, in) → (…, out)."""
    return ops.linear(x, w["weight", out, x.shape[-1]], w["bias", out])


@block
def layer_norm(x: Array, w: Scope, epsilon: float = 1e-5) -> Array:
    """Layer norm over the last axis."""
    size = x.shape[-1]
    return ops.layer_normalization(x, w["weight", size], w["bias", size], axis=-1, epsilon=epsilon)


def relu6(x: Array) -> Array:
    """``min(max(x, 0), 6)``."""
    return ops.clip(x, 0.0, 6.0)


def hard_sigmoid(x: Array) -> Array:
    """``relu6(x + 3) / 6``: slope 1/6, not ONNX's default of 0.2."""
    return ops.hard_sigmoid(x, alpha=1 / 6, beta=0.5)


def resize(x: Array, height: int, width: int) -> Array:
    """Resize (B, C, H, W) → (B, C, height, width), bilinearly: half-pixel centres, clamped edges.

    Nothing is smoothed on the way down (no antialiasing).
    """
    sizes = (*x.shape[:2], height, width)
    return ops.resize(x, None, None, sizes, mode="linear", coordinate_transformation_mode="half_pixel")


@block
def inverted_residual(x: Array, w: Scope, kernel: int, expansion: int, out: int, stride: int) -> Array:
    """MobileNetV2's block: expand (1×1), depthwise (k×k), project (1×1); a shortcut if the shape is kept."""
    channels = x.shape[1]
    hidden = channels * expansion
    y, place = x, 0
    if expansion != 1:
        y = ops.relu(conv_bn(y, w / "conv" / 0, hidden))  # (B, hidden, H, W)
        place = 2
    y = ops.relu(conv_bn(y, w / "conv" / place, hidden, kernel, stride, groups=hidden))  # ⌈H/stride⌉, …
    y = conv_bn(y, w / "conv" / (place + 2), out)  # (B, out, ⌈H/stride⌉, ⌈W/stride⌉)
    return ops.add(x, y) if stride == 1 and channels == out else y


@block
def conv_mlp(x: Array, w: Scope, ratio: int) -> Array:
    """The feed-forward network of the mobile transformers: 1×1, depthwise 3×3, ReLU6, 1×1."""
    channels = x.shape[1]
    hidden = channels * ratio
    y = conv_bn(x, w / "fc1", hidden)  # (B, hidden, H, W)
    y = conv(y, w / "dwconv", hidden, kernel=3, groups=hidden)
    return conv_bn(relu6(y), w / "fc2", channels)  # (B, C, H, W)


def coordinates(x: Array) -> Array:
    """Return x and y from −1 to 1 at the positions of a map: (B, C, h, w) → (B, 2, h, w)."""
    batch, _, height, width = x.shape
    rows, columns = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    places = ops.constant(value=np.stack([columns, rows])[None].astype(x.dtype))  # (1, 2, h, w)
    return ops.expand(places, (batch, 2, height, width))


def to_tokens(x: Array) -> Array:
    """Map to tokens, row by row: (B, C, H, W) → (B, HW, C)."""
    batch, channels, height, width = x.shape
    x = ops.reshape(x, (batch, channels, height * width))  # (B, C, HW)
    return ops.transpose(x, perm=(0, 2, 1))  # (B, HW, C)
