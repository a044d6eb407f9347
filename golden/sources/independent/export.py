"""Exports of the independent modules, by both of PyTorch's exporters."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from refimpl.ops.operation import Array

from .instance_decoder import DecoderLayer
from .mobileinst import MobileInst
from .sparseinst import SparseInst
from .weights import load

SPARSEINST = "sparseinst-"
"""How the names of SparseInst's presets begin; the rest names the backbone."""


def exported(
    network: str,
    fields: Mapping[str, Any],
    weights: Mapping[str, Array],
    images: Array,
    exporter: str,
    opset: int | None = 18,
) -> onnx.ModelProto:
    """Return an independent network as ONNX in float32.

    Parameters
    ----------
    network
        A preset.
    fields
        What is not as in the preset, by the modules' own parameters.
    weights
        By the reference's names.
    images
        Example input, (1, 3, H, W).
    exporter
        ``torchscript`` or ``dynamo``.
    opset
        Of the model; None: the exporter's own.
    """
    with tempfile.TemporaryDirectory() as folder:
        module = load(network_of(network, fields), weights)
        path = Path(folder) / "exported.onnx"
        export(module, torch.from_numpy(images), path, exporter == "dynamo", opset)
        return onnx.load(path)


def network_of(network: str, fields: Mapping[str, Any]) -> nn.Module:
    """Return the module of a preset."""
    if network.startswith(SPARSEINST):
        return SparseInst(network.removeprefix(SPARSEINST), **fields)
    return MobileInst(network, **fields)


def export(
    model: nn.Module, images: Tensor, path: str | Path, dynamo: bool, opset: int | None = None
) -> Path:
    """Write `model` as ONNX in float32, evaluation mode, one file; outputs are named as the model's fields.

    `dynamo` chooses `torch.export`'s exporter, otherwise TorchScript's; `opset=None` is the exporter's own.
    """
    return export_named(model, {"images": images}, path, dynamo, opset)


def export_named(
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    path: str | Path,
    dynamo: bool,
    opset: int | None = None,
) -> Path:
    """Write a model of several inputs, in the order of its parameters; see `export`."""
    model, given = copy.deepcopy(model).float().eval(), tuple(x.float() for x in inputs.values())
    for module in model.modules():
        if isinstance(module, DecoderLayer):
            module.plain = not dynamo and opset is not None and opset < 14
    with _exporting(), torch.no_grad():
        fields = model(*given)._fields
        torch.onnx.export(
            model,
            given,
            str(path),
            input_names=list(inputs),
            output_names=list(fields),
            opset_version=opset,
            dynamo=dynamo,
            external_data=False,
        )
    return Path(path)


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
