"""Strict comparison of a set of weights with the shapes a network needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from refimpl.errors import WeightsError
from refimpl.folding import NORM_PARTS, batch_norms
from refimpl.ops.operation import Array


def check_weights(weights: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise one `WeightsError` that lists every missing, extra, misshapen or non-finite array.

    Parameters
    ----------
    weights
        Name → array.
    shapes
        Name → expected shape. Where a batch norm has been folded into its convolution, the convolution's bias
        stands
        for the batch norm's four arrays.
    """
    shapes = _with_folded(weights, shapes)
    problems = [*_missing_and_extra(weights, shapes), *_misshapen(weights, shapes), *_unfit(weights)]
    if problems:
        raise WeightsError(
            f"the weights do not fit this configuration, "
            f"{len(problems)} problem{'s' * (len(problems) > 1)}:\n  " + "\n  ".join(problems)
        )


def _with_folded(
    weights: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]
) -> Mapping[str, tuple[int, ...]]:
    """Replace the shapes of each folded batch norm by that of the convolution's bias."""
    expected = dict(shapes)
    for norm, convolution in batch_norms(shapes).items():
        bias = f"{convolution}.bias"
        if bias in weights and f"{norm}.running_var" not in weights:
            expected[bias] = expected[f"{norm}.running_var"]
            for part in NORM_PARTS:
                del expected[f"{norm}.{part}"]
    return expected


def _missing_and_extra(weights: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    for name in shapes:
        if name not in weights:
            yield f"missing {name}, expected shape {shapes[name]}"
    for name in weights:
        if name not in shapes:
            yield f"extra {name} of shape {weights[name].shape}; this configuration has no such weight"


def _misshapen(weights: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    for name, array in weights.items():
        if name in shapes and array.shape != shapes[name]:
            yield f"{name} has shape {array.shape}, expected {shapes[name]}"


def _unfit(weights: Mapping[str, Array]) -> Iterator[str]:
    dtypes = {array.dtype for array in weights.values()}
    if len(dtypes) > 1:
        names = ", ".join(sorted(map(str, dtypes)))
        yield f"the arrays have different dtypes: {names}; expected one float dtype"
    for name, array in weights.items():
        if array.dtype.kind != "f":
            yield f"{name} has dtype {array.dtype}, expected a float dtype"
        elif not np.isfinite(array).all():
            yield f"{name} holds {np.count_nonzero(~np.isfinite(array))} values that are NaN or infinite"
        elif name.endswith("running_var") and (array < 0).any():
            yield f"{name} holds {np.count_nonzero(array < 0)} negative variances"
