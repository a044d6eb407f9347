"""Functions of PyTorch's of one map: what converters make of them is read, and held against them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

MAP = np.random.default_rng(1).normal(size=(2, 4, 6, 9)).astype(np.float32)


def wrapped(function: Callable[[Any], Any]) -> Any:
    """Return a function of one tensor as a module of float32."""
    import torch

    class Module(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return function(x)

    return Module().eval()


def weight(*shape: int) -> Any:
    import torch

    return torch.from_numpy(np.random.default_rng(2).normal(size=shape).astype(np.float32))


def functional(name: str, *shapes: tuple[int, ...], **said: Any) -> Callable[[Any], Any]:
    """Return a call of ``torch.nn.functional`` with weights of these shapes."""

    def call(x: Any) -> Any:
        import torch

        return getattr(torch.nn.functional, name)(x, *(weight(*each).to(x) for each in shapes), **said)

    return call


def _normed(x: Any) -> Any:
    import torch

    mean, variance = weight(4).to(x), weight(4).to(x).abs() + 0.5
    return torch.nn.functional.batch_norm(torch.relu(x), mean, variance, weight(4).to(x), weight(4).to(x))


def _joined(x: Any) -> Any:
    import torch

    return torch.stack([x[:, 1:3], x[:, 0:4:2]], dim=1)


def _attention(x: Any) -> Any:
    import torch

    return torch.nn.functional.scaled_dot_product_attention(x, x * 0.5, torch.tanh(x))


def _masked_attention(x: Any) -> Any:
    import torch

    mask = x[:, :1, :, :6]
    return torch.nn.functional.scaled_dot_product_attention(x, x * 0.5, torch.tanh(x), mask, scale=0.2)


def _chosen(x: Any) -> Any:
    import torch

    middle = torch.logical_and(x > 0.2, torch.logical_not(x >= 1))
    return torch.where(torch.logical_or(middle, x < -1), x, torch.where(x <= -2, x * 0.1, x * 2))


def _divided(x: Any) -> Any:
    import torch

    return torch.div(x, x.abs() + 0.7, rounding_mode="floor") + torch.remainder(x, 0.3)


def _kernels_times_features(x: Any) -> Any:
    import torch

    return torch.einsum("bqc,bchw->bqhw", x[:, :3, :4, 0], x)


CASES: dict[str, Callable[[Any], Any]] = {
    "convolution": functional("conv2d", (6, 4, 3, 3), (6,), stride=2, padding=1),
    "convolution, uneven": functional("conv2d", (6, 4, 3, 2), stride=(1, 2), padding=(2, 1), dilation=2),
    "convolution, grouped": functional("conv2d", (8, 2, 3, 3), (8,), groups=2),
    "convolution, to the same size": functional("conv2d", (4, 4, 4, 3), padding="same"),
    "transposed": functional("conv_transpose2d", (4, 5, 3, 3), (5,), stride=2, padding=1, output_padding=1),
    "transposed, grouped": functional("conv_transpose2d", (4, 3, 2, 2), stride=2, groups=2),
    "linear": functional("linear", (5, 9), (5,)),
    "average": functional("avg_pool2d", kernel_size=3, stride=2, padding=1, count_include_pad=False),
    "average, zeros counted": functional("avg_pool2d", kernel_size=3, stride=2, padding=1),
    "maximum": functional("max_pool2d", kernel_size=3, stride=2, padding=1),
    "maximum, beyond": functional("max_pool2d", kernel_size=2, stride=2, ceil_mode=True),
    "mean": lambda x: x.mean((2, 3), keepdim=True),
    "sum": lambda x: x.sum(1),
    "largest": lambda x: x.amax((1, 3)),
    "least": lambda x: x.amin(2, keepdim=True),
    "relu6": functional("relu6"),
    "hardsigmoid": functional("hardsigmoid"),
    "hardswish": functional("hardswish"),
    "gelu": functional("gelu"),
    "silu": functional("silu"),
    "leaky": functional("leaky_relu", negative_slope=0.2),
    "elu": functional("elu", alpha=0.7),
    "prelu": functional("prelu", (4,)),
    "softplus": functional("softplus"),
    "sigmoid": functional("sigmoid"),
    "clamp": lambda x: x.clamp(-0.3, 0.6),
    "exponential": lambda x: x.exp() + x.abs().sqrt() + x.erf() + x.tanh(),
    "logarithm": lambda x: (x.abs() + 0.5).log(),
    "reciprocal root": lambda x: (x * x + 0.25).rsqrt(),
    "power": lambda x: (x.abs() + 0.1) ** 1.5,
    "arithmetic": lambda x: (x - 0.3) / (x * x + 1) + x.sin() * x.cos(),
    "rounded": lambda x: (3 * x).floor() + (3 * x).ceil(),
    "larger": lambda x: x.maximum(x.roll(1, 3)).minimum(x * 0 + 1),
    "layer norm": lambda x: functional("layer_norm", normalized_shape=[9], weight=weight(9).to(x))(x),
    "layer norm of two axes": functional("layer_norm", normalized_shape=[6, 9], eps=1e-2),
    "instance norm": functional("instance_norm", eps=1e-2),
    "group norm": functional("group_norm", num_groups=2),
    "batch norm": _normed,
    "softmax": functional("softmax", dim=1),
    "bilinear": functional("interpolate", scale_factor=2, mode="bilinear", align_corners=False),
    "bilinear, corners": functional("interpolate", scale_factor=2, mode="bilinear", align_corners=True),
    "bilinear to a size": functional("interpolate", size=(13, 20), mode="bilinear", align_corners=False),
    "nearest": functional("interpolate", scale_factor=2, mode="nearest"),
    "nearest to a size": functional("interpolate", size=(9, 14), mode="nearest"),
    "padded": functional("pad", pad=(1, 2, 0, 3), value=0.5),
    "reflected": functional("pad", pad=(1, 2, 2, 1), mode="reflect"),
    "replicated": functional("pad", pad=(1, 2, 2, 1), mode="replicate"),
    "sliced": lambda x: x[:, 1:, :-1:2, 3],
    "from the end": lambda x: x[..., -4:-1],
    "split": lambda x: x.split([1, 3], 1)[1] * 2,
    "chunks": lambda x: x.chunk(2, 1)[0] - x.chunk(2, 1)[1],
    "stacked": _joined,
    "turned": lambda x: x.permute(0, 2, 3, 1).flatten(1, 2).unsqueeze(0).squeeze(0),
    "repeated": lambda x: x.repeat(1, 2, 1, 3),
    "chosen": _chosen,
    "divided": _divided,
    "nearest whole": lambda x: (3 * x).round() + x.sign(),
    "norms": lambda x: x.norm(dim=1) + x.norm(p=1, dim=1) + x.logsumexp(1),
    "place of the largest": lambda x: x.argmax(1).float() + x.argmin(1).float(),
    "running": lambda x: x.cumsum(1),
    "turned around": lambda x: x.flip(3),
    "shuffled": functional("pixel_shuffle", upscale_factor=2),
    "softplus, steep": functional("softplus", beta=2.0),
    "hardtanh": functional("hardtanh", min_val=-0.4, max_val=0.3),
    "from a threshold": functional("threshold", threshold=0.1, value=-2.0),
    "variance": lambda x: x.var((2, 3), correction=0),
    "adaptive average": functional("adaptive_avg_pool2d", output_size=(3, 3)),
    "average, beyond": functional("avg_pool2d", kernel_size=3, stride=2, padding=1, ceil_mode=True),
    "bilinear, smaller": functional("interpolate", size=(3, 5), mode="bilinear"),
    "attention, masked": _masked_attention,
    "kernels times features": _kernels_times_features,
    "product": lambda x: x @ x.transpose(2, 3),
    "attention": _attention,
}
