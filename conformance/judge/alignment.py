"""Finding the reference's tensors in a candidate that names them differently: by value, in any layout.

Exporters rename, fold and reshape. A tensor of the candidate is the reference's if some permutation of its
axes (NCHW, NHWC, merged heads) agrees within the tolerance. Its smallest and largest elements must then
agree within the same tolerance, whatever the layout, which rules out nearly all other tensors at once.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from conformance.bounds.worst_element import Worst, absolute_error, largest_error, worst_of
from conformance.reports.report import Comparison
from refimpl.ops.operation import Array

RESEMBLANCE = 0.02
"""What an element may be off at most, relative to the largest, however loose its bound: else another tensor
is found."""
LIKENESS = 0.05
"""A tensor this near to a missing one, relative to its largest element, is a wrong version of it, not another
tensor."""


@dataclass(frozen=True)
class Match:
    """A tensor of the candidate, laid out as the reference's."""

    name: str
    values: Array
    worst: Worst

    def beside(self, reference: Array, bound: Array | float) -> Match:
        """Return it as a version of another tensor."""
        return Match(self.name, self.values, worst_of(self.values, reference, bound))

    def compared(self, name: str, operation: str, reference: Array, introduced: bool = True) -> Comparison:
        """Return the row of the reference's tensor beside it, whose error the step introduces or not."""
        bounded = self.worst.judged
        return Comparison.judged(
            name,
            operation,
            self.name,
            reference,
            *largest_error(self.values, reference),
            introduced=self.worst.error if introduced else None,
            allowed=self.worst.bound if bounded else None,
            utilisation=self.worst.utilisation if bounded else None,
        )

    def resembles(self, reference: Array) -> bool:
        """Tell whether it is a version of the reference's tensor, right or wrong, not another tensor."""
        error, _ = largest_error(self.values, reference)
        return error <= LIKENESS * float(np.abs(reference).max(initial=0.0))


class CandidateTensors:
    """A candidate's tensors, indexed for search by size and range.

    Parameters
    ----------
    tensors
        Name → floating-point array, in the candidate's order.
    """

    def __init__(self, tensors: Mapping[str, Array]) -> None:
        self.tensors = tensors
        self.by_size: dict[int, list[str]] = defaultdict(list)
        self.ranges: dict[str, tuple[float, float]] = {}
        for name, array in tensors.items():
            if array.dtype.kind == "f" and array.size:
                self.by_size[array.size].append(name)
                self.ranges[name] = _range(array)

    def find(
        self, reference: Array, bound: Array | float, spatial: bool = False, called: str = ""
    ) -> Match | None:
        """Return the tensor nearest to ``reference`` in any layout, if every element is within its bound.

        Of several as near, the one that is ``called`` so. ``spatial``: its last two axes are rows and
        columns, which no layout exchanges.
        """
        low, high = _range(reference)
        bound = np.minimum(bound, RESEMBLANCE * max(abs(low), abs(high)))
        reach = float(np.max(bound, initial=0.0))
        best = None
        for name in self.by_size[reference.size]:
            other_low, other_high = self.ranges[name]
            if not (abs(low - other_low) <= reach and abs(high - other_high) <= reach):
                continue
            for values in layouts(self.tensors[name], reference.shape, spatial):
                worst = worst_of(values, reference, bound)
                if worst.utilisation > 1:
                    continue
                at_most = math.inf if best is None else best.worst.utilisation
                if worst.utilisation < at_most or (worst.utilisation == at_most and name == called):
                    best = Match(name, values, worst)
                break
        return best

    def named(self, name: str, reference: Array, bound: Array | float) -> Match | None:
        """Return the tensor of this name, if it has as many elements."""
        array = self.tensors.get(name)
        if array is None or array.size != reference.size or array.dtype.kind != "f":
            return None
        values = array.reshape(reference.shape)
        return Match(name, values, worst_of(values, reference, bound))

    def from_first(self, names: Iterable[str]) -> set[str]:
        """Return the first of some tensors in the candidate's order, and all after it."""
        order = list(self.tensors)
        return set(order[min(map(order.index, names), default=len(order)) :])

    def nearest(self, reference: Array, bound: Array | float, excluded: set[str]) -> Match | None:
        """Return the tensor of that shape, ones aside, with the smallest largest error; its bound use too."""
        return next(self.by_distance(reference, bound, excluded), None)

    def by_distance(self, reference: Array, bound: Array | float, excluded: set[str]) -> Iterator[Match]:
        """Yield the tensors of that shape, the one with the smallest largest error first.

        Those count, too, that have its axes in another order, rows before columns.
        Tensors in ``excluded``, and copies of them (the same elements in any order), do not count.
        """
        alike = self.by_size[reference.size]
        taken = [name for name in alike if name in excluded]
        names = [name for name in alike if not any(self._is_copy(name, other) for other in taken)]
        found = [(name, x) for name in names for x in _transposed(self.tensors[name], reference.shape)]
        for name, values in sorted(found, key=lambda pair: float(absolute_error(pair[1], reference).max())):
            yield Match(name, values, worst_of(values, reference, bound))

    def _is_copy(self, name: str, other: str) -> bool:
        """Tell whether two tensors have the same elements, in any order."""
        if name == other or self.ranges[name] != self.ranges[other]:
            return name == other
        # Clamped tensors share their ends.
        one, another = (np.sort(self.tensors[each], axis=None) for each in (name, other))
        return np.array_equal(one, another)

    def likeliest(
        self, name: str, reference: Array, bound: Array | float, excluded: set[str]
    ) -> Match | None:
        """Return what most likely should have been ``reference``.

        The tensor of its name and shape, if the candidate kept names, else the `nearest`.
        """
        kept = name in self.tensors and name not in excluded
        if kept and _squeezed(self.tensors[name].shape) == _squeezed(reference.shape):
            return self.named(name, reference, bound)
        return self.nearest(reference, bound, excluded)


def layouts(array: Array, shape: tuple[int, ...], spatial: bool = False) -> Iterator[Array]:
    """Yield ``array`` laid out as ``shape`` in every way a permutation of that shape's axes allows.

    The array may have merged or split axes, as long as the permuted shape's elements stand in its order.
    ``spatial``: of the last two axes, rows stay before columns, as in NCHW and NHWC.
    """
    axes = [axis for axis, size in enumerate(shape) if size != 1]
    for permutation in itertools.permutations(axes):
        plane = [axis for axis in permutation if axis >= len(shape) - 2]
        if spatial and plane != sorted(plane):
            continue
        permuted = array.reshape([shape[axis] for axis in permutation])
        yield permuted.transpose(np.argsort(permutation)).reshape(shape)


def _transposed(array: Array, shape: tuple[int, ...]) -> Iterator[Array]:
    """Yield ``array`` as ``shape``: as it is, else its axes in each other order, rows before columns."""
    axes = [axis for axis, size in enumerate(shape) if size != 1]
    held = _squeezed(array.shape)
    if held == _squeezed(shape):
        yield array.reshape(shape)
        return
    for permutation in itertools.permutations(axes) if sorted(held) == sorted(_squeezed(shape)) else ():
        plane = [axis for axis in permutation if axis >= len(shape) - 2]
        if held == tuple(shape[axis] for axis in permutation) and plane == sorted(plane):
            yield array.reshape(held).transpose(np.argsort(permutation)).reshape(shape)


def aligned(array: Array, reference: Array) -> Array:
    """Return an array in that layout of ``reference``'s shape in which it is nearest to it."""
    return min(
        layouts(array, reference.shape), key=lambda x: float(absolute_error(x, reference).max(initial=0.0))
    )


def in_layout_of(array: Array, reference: Array) -> Array:
    """Return an array in ``reference``'s shape: as it is where its axes are in that order, else `aligned`."""
    in_order = _squeezed(array.shape) == _squeezed(reference.shape)
    return array.reshape(reference.shape) if in_order else aligned(array, reference)


def _range(array: Array) -> tuple[float, float]:
    """Return the smallest and the largest finite number; zeros where there is none."""
    low, high = float(array.min()), float(array.max())
    if np.isfinite(high - low):
        return low, high
    finite = array[np.isfinite(array)]
    return float(finite.min(initial=0.0)), float(finite.max(initial=0.0))


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)
