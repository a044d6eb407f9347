"""Batch-norm folding: the convolution and the batch norm after it as one convolution with a bias."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from refimpl.ops.operation import Array

NORM_PARTS = ("weight", "bias", "running_mean", "running_var")


def batch_norms(names: Iterable[str]) -> dict[str, str]:
    """Return the path of every batch norm among the weights → the path of the convolution it follows.

    ``x.bn`` follows ``x.c`` or ``x.conv``; ``x.norm`` follows ``x`` (detectron2's ResNet); ``x.2`` follows
    ``x.1`` (a sequence of layers).
    """
    names = set(names)
    pairs = {}
    for name in sorted(names):
        if not name.endswith(".running_var"):
            continue
        norm = name.removesuffix(".running_var")
        parent, _, last = norm.rpartition(".")
        before = [f"{parent}.{int(last) - 1}"] if last.isdigit() else []
        candidates = [*before, f"{parent}.c", f"{parent}.conv", parent]
        pairs[norm] = next(path for path in candidates if f"{path}.weight" in names)
    return pairs


def fold_batch_norm(weights: Mapping[str, Array], epsilon: float = 1e-5) -> dict[str, Array]:
    """Fold every batch norm into its convolution.

    Computed in float64 and rounded once to the weights' dtype: ``W' = W · γ/√(σ² + ε)`` and ``b' = β − μ ·
    γ/√(σ² + ε)``.

    Parameters
    ----------
    weights
        Name → array.

    Returns
    -------
    dict
        The same names without the batch norms' and with a ``bias`` for each convolution that had one.
        `MobileInst` accepts it.
    """
    folded = dict(weights)
    for norm, convolution in batch_norms(weights).items():
        gamma, beta, mean, variance = (folded.pop(f"{norm}.{part}").astype(np.float64) for part in NORM_PARTS)
        kernel = weights[f"{convolution}.weight"]
        scale = gamma / np.sqrt(variance + epsilon)
        scaled = kernel * scale[:, None, None, None]
        folded[f"{convolution}.weight"] = scaled.astype(kernel.dtype, copy=False)
        folded[f"{convolution}.bias"] = (beta - mean * scale).astype(kernel.dtype)
    return folded
