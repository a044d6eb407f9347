"""Faults to put into the independent modules before they are exported."""

from __future__ import annotations

import torch
from torch import nn

from golden.sources.independent.layers import Resize
from golden.sources.independent.topformer import Attention


def scale_bias(model: nn.Module, name: str, factor: float = 1.01) -> None:
    """Multiply one parameter, a bias by its name in `state_dict()`, by `factor`."""
    with torch.no_grad():
        model.state_dict()[name].mul_(factor)


def align_corners(model: nn.Module, name: str) -> None:
    """Turn one named resize, as `mask_decoder.resize_top_down.0`, to `align_corners=True`."""
    resize = model.get_submodule(name)
    if not isinstance(resize, Resize):
        raise TypeError(f"{name} is a {type(resize).__name__}, not a Resize")
    resize.align_corners = True


def scale_attention(model: nn.Module) -> None:
    """Add the 1/√d that TopFormer's attention does not have."""
    for module in model.modules():
        if isinstance(module, Attention):
            module.scale = (module.to_q.c.out_channels / module.heads) ** -0.5
