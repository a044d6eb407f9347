"""Export of the modules by both of PyTorch's exporters, and faults to put into them."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from golden.sources.independent.instance_decoder import DecoderLayer
from golden.sources.independent.layers import Resize
from golden.sources.independent.topformer import Attention


@contextlib.contextmanager
def _exporting() -> Iterator[None]:
    """Silence the exporters; disable the fused attention, which TorchScript's exporter cannot write."""
    level, fused = logging.root.manager.disable, torch.backends.mha.get_fastpath_enabled()
    logging.disable(logging.CRITICAL)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        logging.disable(level)


def export(
    model: nn.Module, images: Tensor, path: str | Path, dynamo: bool, opset: int | None = None
) -> Path:
    """Write `model` as ONNX in float32, evaluation mode, one file; outputs are named as the model's fields.

    `dynamo` chooses `torch.export`'s exporter, otherwise TorchScript's; `opset=None` is the exporter's own.
    """
    model = copy.deepcopy(model).float().eval()
    for module in model.modules():
        if isinstance(module, DecoderLayer):
            module.plain = not dynamo and opset is not None and opset < 14
    with _exporting(), torch.no_grad():
        fields = model(images.float())._fields
        torch.onnx.export(
            model,
            (images.float(),),
            str(path),
            input_names=["images"],
            output_names=list(fields),
            opset_version=opset,
            dynamo=dynamo,
            external_data=False,
        )
    return Path(path)


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
