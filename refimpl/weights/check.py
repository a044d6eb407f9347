"""Strict comparison of a set of weights with the shapes a network needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import groupby

import numpy as np

from refimpl.errors import WeightsError, first_of
from refimpl.ops.operation import Array
from refimpl.weights.folding import NORM_PARTS, batch_norms

Shapes = Mapping[str, tuple[int, ...]]
LONGEST_LINE = 160
BLOCK_DEPTH = {"backbone": 4}
"""How many parts of a name make its block, where not three."""


def check_weights(weights: Mapping[str, Array], shapes: Shapes, hint: Callable[[], str] = lambda: "") -> None:
    """Raise one `WeightsError` that counts every missing, extra, misshapen or non-finite array.

    Its message lists the first, its ``items`` all.

    Parameters
    ----------
    weights
        Name → array.
    shapes
        Name → expected shape. Where a batch norm has been folded into its convolution, the convolution's bias
        stands for the batch norm's four arrays.
    hint
        Asked, if anything is wrong, for words that say what the weights may be; they follow the counts.
    """
    shapes = with_folded(weights, shapes)
    missing, extra, misshapen = (
        _missing(weights, shapes),
        _extra(weights, shapes),
        _misshapen(weights, shapes),
    )
    unfit = list(_unfit(weights))
    kinds = {"missing": missing, "extra": extra, "misshapen": misshapen, "unfit": unfit}
    total = sum(map(len, kinds.values()))
    if total:
        counts = ", ".join(f"{len(found)} {kind}" for kind, found in kinds.items() if found)
        said = f"{total} problem{'s' * (total > 1)} ({counts})"
        lines = [*_listed(missing, "missing ", ", "), *_listed(extra, "extra "), *_listed(misshapen), *unfit]
        raise WeightsError(
            f"the weights do not fit this configuration, {'; '.join(filter(None, (said, hint())))}:\n  "
            + "\n  ".join(first_of([_cut(line) for line in lines]))
        ).with_items(lines)


def _missing(weights: Mapping[str, Array], shapes: Shapes) -> dict[str, str]:
    return {name: f"expected shape {shape}" for name, shape in shapes.items() if name not in weights}


def _extra(weights: Mapping[str, Array], shapes: Shapes) -> dict[str, str]:
    return {
        name: f"of shape {array.shape}; this configuration has no such weight"
        for name, array in weights.items()
        if name not in shapes
    }


def _misshapen(weights: Mapping[str, Array], shapes: Shapes) -> dict[str, str]:
    return {
        name: f"has shape {array.shape}, expected {shapes[name]}"
        for name, array in weights.items()
        if name in shapes and array.shape != shapes[name]
    }


def with_folded(weights: Mapping[str, Array], shapes: Shapes) -> Shapes:
    """Return the shapes with those of each folded batch norm replaced by that of the convolution's bias."""
    expected = dict(shapes)
    for norm, convolution in batch_norms(shapes).items():
        bias = f"{convolution}.bias"
        if bias in weights and f"{norm}.running_var" not in weights:
            expected[bias] = expected[f"{norm}.running_var"]
            for part in NORM_PARTS:
                del expected[f"{norm}.{part}"]
    return expected


def _listed(problems: Mapping[str, str], kind: str = "", link: str = " ") -> Iterator[str]:
    """Yield a line for each block of the network: a long list of single names hides what they share."""
    for block, names in groupby(problems, key=_block):
        members = list(names)
        if len(members) == 1:
            yield f"{kind}{members[0]}{link}{problems[members[0]]}"
        else:
            parts = [f"{name.removeprefix(block + '.')} {_brief(problems[name])}" for name in members]
            yield f"{kind}{block}, {len(members)} weights: {', '.join(parts)}"


def _cut(line: str) -> str:
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}…"


def _block(name: str) -> str:
    parts = name.split(".")
    return ".".join(parts[: min(BLOCK_DEPTH.get(parts[0], 3), max(len(parts) - 1, 1))])


def _brief(problem: str) -> str:
    """Return the shapes alone."""
    for words in ("expected shape ", "of shape ", "has shape "):
        problem = problem.removeprefix(words)
    return problem.partition(";")[0].replace(", expected", " instead of")


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
