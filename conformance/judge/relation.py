"""How a wrong tensor relates to the right one, solved from the numbers: a factor, an order, a shift, a clamp.

Every relation is tested: with it, only rounding is left, and it has far fewer parameters than there are
elements that it explains, so that not anything can be said of anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # scipy.optimize is loaded at its first use, as few verdicts need it

from conformance.bounds import BFLOAT16, FLOAT16
from conformance.reports.report import UNRELATED
from refimpl.ops.operation import Array

SLACK = 8.0
"""Bounds of the right tensor within which what is left must lie: the relation itself is rounded too."""
LEAST = 1e-6
"""Of the largest element: what is left may always be this large."""
LEFT = 1 / 16
"""Of the error's sum of squares: what a relation may leave."""
ELEMENTS_PER_PARAMETER = 8
"""A relation needs at least so many wrong elements for each number it is given."""
GRID = 256
"""Levels of a grid of 8 bits."""
FURTHEST = 8
"""Pixels by which a tensor may be shifted."""
MOST_SLICES = 1024
"""Slices of an axis of which an order is looked for."""
_AXES = {4: ("pictures", "channels", "rows", "columns")}


@dataclass(frozen=True)
class _Pair:
    """The right tensor and the candidate's, and how far rounding may carry one from the other."""

    right: Array
    wrong: Array
    allowed: Array
    axes: Sequence[str] = ()

    def axis(self, axis: int) -> str:
        """Return what the slices along an axis are called."""
        return self.axes[axis] if axis < len(self.axes) else f"slices of axis {axis}"

    def explained_by(self, value: Array, parameters: int, where: Array | None = None) -> bool:
        """Tell whether a value is the wrong tensor but for rounding, and that is no wonder of its freedom."""
        chosen = np.ones(self.right.shape, bool) if where is None else where
        wrong = self.differs & chosen
        if wrong.sum() < ELEMENTS_PER_PARAMETER * parameters or not np.isfinite(value).all():
            return False
        left, error = (np.abs(self.wrong - x)[chosen] for x in (value, self.right))
        allowed = np.maximum(self.allowed, LEAST * np.abs(value).max())[chosen]
        return bool((left <= SLACK * allowed).all() and left @ left <= LEFT * (error @ error))

    @property
    def differs(self) -> Array:
        """Where the candidate is wrong."""
        return np.asarray(np.abs(self.wrong - self.right) > self.allowed)


def relation(
    right: Array,
    wrong: Array,
    bound: Array | float | None,
    known: Mapping[str, Array] | None = None,
    axes: Sequence[str] | None = None,
) -> str:
    """Say how a wrong tensor relates to the right one, and where it is wrong.

    Parameters
    ----------
    right, wrong
        Of one shape, float64.
    bound
        How far rounding may carry the candidate from ``right``; None: unknown.
    known
        Other tensors by name, which may have been added or taken instead.
    axes
        What the slices along each axis are called; by default as in the network's tensors of that rank.

    Returns
    -------
    str
        A clause to follow "the tensor"; the place and the size of the error where no relation holds.
    """
    lost, made = np.isfinite(right) & ~np.isfinite(wrong), np.isfinite(wrong) & ~np.isfinite(right)
    if lost.any():
        return f"holds {int(lost.sum())} numbers that are not finite"
    if made.any():
        return f"holds {int(made.sum())} finite numbers where the right one has none"
    right, wrong = (np.where(np.isfinite(x), x, 0.0) for x in (right, wrong))
    scale = float(np.abs(right).max(initial=0.0)) or 1.0
    usable = np.zeros(()) if bound is None else np.where(np.isfinite(bound), bound, 0.0)
    allowed = np.broadcast_to(np.maximum(usable, LEAST * scale), right.shape)
    pair = _Pair(right, wrong, allowed, _AXES.get(right.ndim, ()) if axes is None else axes)
    said = next(_relations(pair, known or {}), None)
    return said or f"{UNRELATED} {_size(pair)} {_where(pair)}"


def _relations(pair: _Pair, known: Mapping[str, Array]) -> Iterator[str]:
    for solve in (_narrowed, _factor, _affine, _clamped, _reversed, _shifted, _ordered):
        yield from solve(pair)
    yield from _of_another(pair, known)
    yield from _in_slices(pair)
    yield from _along_axes(pair)
    yield from _on_a_grid(pair)


def _narrowed(pair: _Pair) -> Iterator[str]:
    """Tell whether every number lies on a narrower format's grid, and is that of the right one."""
    for narrow in (FLOAT16, BFLOAT16):
        on_grid = np.array_equal(narrow.rounded(pair.wrong), pair.wrong)
        near = np.abs(pair.wrong - pair.right) <= pair.allowed + 2 * narrow.rounding_of(pair.right)
        if on_grid and near.all() and pair.wrong.size >= ELEMENTS_PER_PARAMETER:
            every = f"all {pair.wrong.size} of its numbers are {narrow.name}'s"
            yield f"was rounded to {narrow.name}: {every}"


def _factor(pair: _Pair) -> Iterator[str]:
    square = float(np.vdot(pair.right, pair.right))
    factor = float(np.vdot(pair.right, pair.wrong)) / square if square else 0.0
    if not pair.wrong.any() and pair.right.any():
        yield "is all zeros"
    elif pair.explained_by(factor * pair.right, 1):
        yield "is the right one negated" if abs(factor + 1) < 1e-6 else f"is {factor:.6g} × the right one"


def _affine(pair: _Pair) -> Iterator[str]:
    shift = float((pair.wrong - pair.right).mean())
    if pair.explained_by(pair.right + shift, 1):
        yield f"is the right one {shift:+.6g}"
        return
    factor, shift = _line(pair.right.ravel(), pair.wrong.ravel())
    if pair.explained_by(factor * pair.right + shift, 2):
        yield f"is {factor:.6g} × the right one {shift:+.6g}"


def _line(x: Array, y: Array) -> tuple[float, float]:
    centred = x - x.mean()
    square = float(centred @ centred)
    factor = float(centred @ (y - y.mean())) / square if square else 0.0
    return factor, float(y.mean() - factor * x.mean())


def _clamped(pair: _Pair) -> Iterator[str]:
    low, high = float(pair.wrong.min()), float(pair.wrong.max())
    for ends, said in (((None, high), f"at {high:.6g}"), ((low, None), f"at {low:.6g}")):
        if pair.explained_by(np.clip(pair.right, *ends), 1):
            yield f"is the right one cut off {said}"
    low_right, high_right = float(pair.right.min()), float(pair.right.max())
    for ends, said in (((None, high_right), f"{high_right:.6g}"), ((low_right, None), f"{low_right:.6g}")):
        outside = pair.wrong > high_right if ends[0] is None else pair.wrong < low_right
        cut = np.abs(np.clip(pair.wrong, *ends) - pair.right) <= SLACK * pair.allowed
        if cut.all() and outside.sum() >= ELEMENTS_PER_PARAMETER:
            yield f"goes beyond {said}, where the right one is cut off"


def _reversed(pair: _Pair) -> Iterator[str]:
    for axis, length in enumerate(pair.right.shape):
        if length > 1 and pair.explained_by(np.flip(pair.right, axis), 1):
            yield f"is the right one with its {pair.axis(axis)} reversed"


def _shifted(pair: _Pair) -> Iterator[str]:
    for axis, length in enumerate(pair.right.shape[2:], 2):
        for by in (shift for k in range(1, min(FURTHEST, length // 4) + 1) for shift in (k, -k)):
            place = np.arange(length)
            kept = _along((place >= abs(by)) & (place < length - abs(by)), axis, pair.right.ndim)
            where = np.broadcast_to(kept, pair.right.shape)
            if pair.explained_by(np.roll(pair.right, by, axis), 1, where):
                yield f"is the right one shifted by {by:+d} {pair.axis(axis)}"
                return


def _ordered(pair: _Pair) -> Iterator[str]:
    """Look for an order of slices: the assignment of the smallest distance, then checked."""
    for axis, length in enumerate(pair.right.shape):
        if not 1 < length <= MOST_SLICES or pair.right.size // length < ELEMENTS_PER_PARAMETER:
            continue
        right, wrong = (np.moveaxis(x, axis, 0).reshape(length, -1) for x in (pair.right, pair.wrong))
        square = (right**2).sum(1)[None] + (wrong**2).sum(1)[:, None] - 2 * wrong @ right.T
        _, order = scipy.optimize.linear_sum_assignment(square)
        if not np.array_equal(order, np.arange(length)) and pair.explained_by(
            np.take(pair.right, order, axis), 1
        ):
            moved = int((order != np.arange(length)).sum())
            listed = f": {order.tolist()}" if length <= 8 else f", {moved} of {length} moved"
            yield f"has its {pair.axis(axis)} in another order{listed}"


def _of_another(pair: _Pair, known: Mapping[str, Array]) -> Iterator[str]:
    error = pair.wrong - pair.right
    for name, other in known.items():
        if other.dtype.kind != "f" or other.size < ELEMENTS_PER_PARAMETER or not other.any():
            continue
        if other.shape == pair.right.shape and pair.explained_by(other, 1):
            yield f"is {name}"
        if not _fits(other.shape, error.shape):
            continue
        for sign, said in ((1, "with {} added"), (-1, "without {}, or with it subtracted")):
            if pair.explained_by(pair.right + sign * other, 1):
                yield f"is the right one {said.format(name)}"
        if other.shape == error.shape and other.any():
            factor = float(np.vdot(other, error) / np.vdot(other, other))
            if pair.explained_by(pair.right + factor * other, 2):
                yield f"is the right one {factor:+.6g} × {name}"


def _fits(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, whole) == whole
    except ValueError:
        return False


def _along_axes(pair: _Pair) -> Iterator[str]:
    """Fit a factor, or a factor and a shift, to each slice of an axis."""
    for axis, length in enumerate(pair.right.shape):
        if length < 2:
            continue
        right, wrong = (np.moveaxis(x, axis, 0).reshape(length, -1) for x in (pair.right, pair.wrong))
        named = pair.axis(axis)
        square = (right**2).sum(1)
        factors = np.divide((right * wrong).sum(1), square, out=np.zeros(length), where=square > 0)
        if pair.explained_by(_along(factors, axis, pair.right.ndim) * pair.right, length):
            yield f"has a factor of its own for each of its {named}, {_range(factors)}"
            return
        shifts = (wrong - right).mean(1)
        if pair.explained_by(_along(shifts, axis, pair.right.ndim) + pair.right, length):
            yield f"has a shift of its own for each of its {named}, {_range(shifts)}"
            return
        lines = np.array([_line(*rows) for rows in zip(right, wrong, strict=True)])
        fitted = _along(lines[:, 0], axis, pair.right.ndim) * pair.right
        if pair.explained_by(fitted + _along(lines[:, 1], axis, pair.right.ndim), 2 * length):
            yield (
                f"has a factor and a shift of its own for each of its {named}, "
                f"{_range(lines[:, 0])} and {_range(lines[:, 1])}"
            )
            return


def _along(values: Array, axis: int, rank: int) -> Array:
    return values.reshape([-1 if i == axis else 1 for i in range(rank)])


def _on_a_grid(pair: _Pair) -> Iterator[str]:
    """Tell whether the numbers are multiples of a step, or each slice's of the first axis of its own.

    They may be some steps off, by a wrong zero point, or each slice times a factor, by a wrong scale.
    """
    step = _step(pair.wrong)
    if step:
        off = int(np.rint(np.median(pair.wrong - pair.right) / step))
        if np.abs(pair.wrong - off * step - pair.right).max() <= step:
            moved = f", {off:+d} steps" if off else ""
            yield f"is the right one rounded to multiples of {step:.6g}{moved}"
        return
    if pair.right.ndim > 1 and pair.right[0].size >= 2 * ELEMENTS_PER_PARAMETER:
        steps = np.array([_step(row) for row in pair.wrong])
        if (steps > 0).all():
            yield from _scaled_rows(pair, steps)


def _scaled_rows(pair: _Pair, steps: Array) -> Iterator[str]:
    """Tell of rows on grids of their own whether they are the right ones, or those times a factor."""
    rows = [x.reshape(len(steps), -1) for x in (pair.right, pair.wrong)]
    each = f"a step for each of its {pair.axis(0)}, {_range(steps)}"
    factors = np.array([_line_through_zero(*row) for row in zip(*rows, strict=True)])
    for factor, said in (
        (np.ones(len(steps)), ""),
        (factors, f", and has a factor of its own for each, {_range(factors)}"),
    ):
        left = np.abs(rows[1] - factor[:, None] * rows[0]).max(1)
        if (left <= steps).all():
            yield f"is the right one rounded to multiples of {each}{said}"
            return


def _line_through_zero(x: Array, y: Array) -> float:
    square = float(x @ x)
    return float(x @ y) / square if square else 0.0


def _step(numbers: Array) -> float:
    """Return the step of which all numbers are multiples; 0 where there is none."""
    levels = np.unique(numbers)
    gaps = np.diff(levels)
    gaps = gaps[gaps > 1e-5 * np.abs(levels).max(initial=0.0)]
    if gaps.size < 2:
        return 0.0
    counts = np.rint((levels[-1] - levels[0]) / gaps.min())
    step = float((levels[-1] - levels[0]) / counts)
    places = (numbers - levels[0]) / step
    on_grid = bool(np.abs(places - np.rint(places)).max() < 0.01)
    return step if on_grid and counts * 2 < numbers.size + 2 * GRID else 0.0


def _in_slices(pair: _Pair) -> Iterator[str]:
    """Solve for the slices that are wrong, where only some of an axis are."""
    differs = pair.differs
    for axis in range(differs.ndim):
        others = tuple(i for i in range(differs.ndim) if i != axis)
        touched = np.flatnonzero(differs.any(axis=others))
        if 0 < touched.size <= differs.shape[axis] // 2:
            right, wrong, allowed = (
                np.take(x, touched, axis) for x in (pair.right, pair.wrong, pair.allowed)
            )
            part = _Pair(right, wrong, allowed, pair.axes)
            solvers: tuple[Callable[[_Pair], Iterator[str]], ...] = (_factor, _affine, _clamped, _reversed)
            found = next((said for solve in solvers for said in solve(part)), None)
            if found:
                yield f"{found}, {_where(pair)}"
                return


def _where(pair: _Pair) -> str:
    """Say which elements are wrong: all, slices of an axis, or how many."""
    differs = pair.differs
    if differs.all():
        return "everywhere"
    for axis in range(differs.ndim):
        others = tuple(i for i in range(differs.ndim) if i != axis)
        touched = np.flatnonzero(differs.any(axis=others))
        if 0 < touched.size <= differs.shape[axis] // 2:
            named = pair.axis(axis)
            listed = ", ".join(map(str, touched[:4])) + ", …" * (touched.size > 4)
            return f"in {touched.size} of {differs.shape[axis]} {named} only: {listed}"
    return f"in {int(differs.sum())} of {differs.size} elements"


def _size(pair: _Pair) -> str:
    share = float(np.abs(pair.wrong - pair.right).max() / (np.abs(pair.right).max() or 1.0))
    return f"{100 * share:.2g} % of its largest"


def _range(values: Array) -> str:
    return f"{values.min():.4g} … {values.max():.4g}"
