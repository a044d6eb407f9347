"""Error over bound, the figure every verdict is made of: up to 1 it is rounding, above it is not."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from conformance.bounds import bias_test
from refimpl.ops.operation import Array

BLOCK = 1 << 14
"""Elements that are compared at a time: what is made of them stays in the cache."""
LARGEST_SAMPLE = 1 << 15
"""Elements that are enough for statistics of a tensor."""
VARIETY_SAMPLE = 1 << 12
"""Elements that are enough to see whether they vary."""
LINES, LONGEST_LINE = 64, 256
"""Lines along each axis that are looked at, and of each how many elements."""


@dataclass(frozen=True)
class Worst:
    """The element that uses most of its bound.

    Attributes
    ----------
    error
        Its absolute error; infinite where one side is NaN or infinite and the other is not the same.
    bound
        What it may be.
    utilisation
        Error over bound; 0 if both are 0.
    index
        Its place.
    open
        Whether an element without a finite bound has an error, of which nothing can be said.
    largest, largest_index
        The largest error, whatever its bound, and its place.
    """

    error: float
    bound: float
    utilisation: float
    index: tuple[int, ...]
    open: bool = False
    largest: float = 0.0
    largest_index: tuple[int, ...] = ()

    @property
    def judged(self) -> bool:
        """Whether a verdict is possible: an element leaves its bound, or all that err have one."""
        return self.utilisation > 1 or not self.open


def worst_of(values: Array, truth: Array, bound: Array | float) -> Worst:
    """Compare two arrays of one shape element by element with a bound that broadcasts to them.

    Where the truth is infinite or NaN, nothing else will do.
    """
    return _by_blocks(values, truth, bound, infinities_bound=True)


def worst_output(values: Array, truth: Array, allowed: float) -> Worst:
    """Compare an output with its envelope; an infinite one says that rounding may make infinities, or not."""
    return _by_blocks(values, truth, allowed, infinities_bound=bool(np.isfinite(allowed)))


def _by_blocks(values: Array, truth: Array, bound: Array | float, infinities_bound: bool) -> Worst:
    """Compare in one pass, by blocks that stay in the cache."""
    shape, one = np.shape(truth), np.size(bound) == 1
    if math.prod(shape) == 0:
        return Worst(0.0, 0.0, 0.0, ())
    given, exact = (np.broadcast_to(x, shape).reshape(-1) for x in (values, truth))
    bounds = np.asarray(bound, np.float64).reshape(-1) if one else np.broadcast_to(bound, shape).reshape(-1)
    blocks = [
        _of_block(
            given[start : start + BLOCK],
            exact[start : start + BLOCK],
            bounds if one else bounds[start : start + BLOCK],
            infinities_bound,
        )
        for start in range(0, exact.size, BLOCK)
    ]
    most = max(range(len(blocks)), key=lambda number: blocks[number].utilisation)
    furthest = max(range(len(blocks)), key=lambda number: blocks[number].largest)
    worst, largest = blocks[most], blocks[furthest]
    return replace(
        worst,
        index=_place(most * BLOCK + worst.index[0], shape),
        open=any(each.open for each in blocks),
        largest=largest.largest,
        largest_index=_place(furthest * BLOCK + largest.largest_index[0], shape),
    )


def _of_block(given: Array, exact: Array, bound: Array, infinities_bound: bool) -> Worst:
    """Compare a few elements; the bound is one of each, or one for all."""
    error = absolute_error(given, exact)
    most = int(error.argmax())
    if infinities_bound and error[most] == math.inf and exact.dtype.kind == "f":
        bound = np.where(np.isfinite(exact), bound, 0.0)
    ratio = utilisation(error, bound)
    place = int(ratio.argmax())
    is_open = not np.isfinite(bound.max()) and bool((~np.isfinite(bound) & (error > 0)).any())
    used = float(error[place]), float(bound[place if bound.size > 1 else 0]), float(ratio[place])
    return Worst(*used, (place,), is_open, float(error[most]), (most,))


def largest_error(values: Array, truth: Array) -> tuple[float, tuple[int, ...]]:
    """Return the largest absolute error of two arrays of one shape, and its place; 0 of an empty one."""
    given, exact = values.reshape(-1), truth.reshape(-1)
    starts = range(0, exact.size, BLOCK)
    blocks = [largest_in(absolute_error(given[at : at + BLOCK], exact[at : at + BLOCK])) for at in starts]
    if not blocks:
        return 0.0, ()
    most = max(range(len(blocks)), key=lambda number: blocks[number][0])
    return blocks[most][0], _place(most * BLOCK + blocks[most][1][0], truth.shape)


def largest_in(error: Array) -> tuple[float, tuple[int, ...]]:
    """Return the largest element of an absolute error, and its place; 0 of an empty one."""
    if error.size == 0:
        return 0.0, ()
    place = _place(int(np.argmax(error)), error.shape)
    return float(error[place]), place


def _place(index: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(index, shape))


def is_varied(operand: Array) -> bool:
    """Tell whether most elements, zeros aside, differ from one another: anywhere, and along each axis.

    Equal operands round equally (a flat picture, equal channels, a table): the statistics of independent
    roundings say nothing of them.
    """
    random = np.random.default_rng(0)
    anywhere = operand.ravel()[random.integers(operand.size, size=(1, min(operand.size, VARIETY_SAMPLE)))]
    along = (_lines(operand, axis, random) for axis, size in enumerate(operand.shape) if size > 1)
    return operand.size > 1 and all(map(_mostly_distinct, (anywhere, *along)))


def _lines(x: Array, axis: int, random: np.random.Generator) -> Array:
    """Return some lines along an axis, drawn at random."""
    last = np.moveaxis(x, axis, -1)
    places = tuple(random.integers(size, size=LINES) for size in last.shape[:-1])
    return last[places][..., :LONGEST_LINE].reshape(-1, min(x.shape[axis], LONGEST_LINE))


def _mostly_distinct(lines: Array) -> bool:
    lines = np.sort(lines, axis=-1)
    numbers = lines != 0
    repeated = numbers[:, 1:] & (lines[:, 1:] == lines[:, :-1])
    return 2 * int(repeated.sum()) <= int(numbers.sum())


def unlike_rounding(
    values: Array, truth: Array, bound: Array, scale: Array, unit_roundoff: float = 0.0
) -> str | None:
    """Say how errors within the bound differ from rounding's; None if they do not.

    They may be biased, or larger than √n roundings make.

    Parameters
    ----------
    values, truth
        The candidate's tensor and the exact one.
    bound, scale
        What rounding may do to each element, and what it is likely to do.
    unit_roundoff
        Of the results, where bound and scale are of several steps.
    """
    step = -(-values.size // LARGEST_SAMPLE) | 1  # odd, so that it visits every column of an even width
    given, exact = values.ravel()[::step].astype(np.float64), truth.ravel()[::step]
    most, likely = (np.broadcast_to(x, truth.shape).ravel()[::step] for x in (bound, scale))
    with np.errstate(all="ignore"):
        test = bias_test(given - exact, most, likely, unit_roundoff * np.abs(exact))
    return str(test) if values.size and test.suspicious else None


def absolute_error(values: Array, truth: Array) -> Array:
    """Return |values − truth| in float64.

    It is 0 where both are the same infinity or both NaN, infinite where only one is.
    """
    with np.errstate(invalid="ignore"):
        error = np.asarray(np.subtract(values, truth, dtype=np.float64))
    np.abs(error, out=error)  # in place: of a scalar, too, an array that can be assigned to
    if error.size and np.isnan(error.max()):
        unclear = np.isnan(error)
        same = (values == truth) | (np.isnan(values) & np.isnan(truth))
        error[unclear] = np.where(same[unclear], 0.0, math.inf)
    return np.asarray(error)


def utilisation(error: Array, bound: Array | float) -> Array:
    """Return error / bound per element, with 0 / 0 = 0 and everything within an infinite bound."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = np.asarray(error / bound)
    if ratio.size and np.isnan(ratio.max()):
        ratio[np.isnan(ratio)] = 0.0  # 0 / 0, or both infinite
    return ratio
