"""Convolution whose taps are moved: what their places' rounding makes them read, and the products."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from conformance.bounds.formats import FLOAT32
from conformance.bounds.sampling import directions, furthest
from conformance.bounds.step import Bound, Step, rule
from refimpl.ops.deformable_convolution import deformed_columns
from refimpl.ops.operation import Array

ROUNDINGS_OF_A_PLACE = 4
"""The window's first element, the tap's, the offset, and the distance to the element below."""


@rule("DeformConv")
def deform_conv(step: Step) -> Bound:
    """γ of the products' number, and what every tap may read otherwise, through the weights' sizes."""
    x, w, offset, mask = step.required(0), step.required(1), step.required(2), step.operand(4)
    rank, sizes = x.ndim - 2, None if mask is None else np.abs(mask)
    shift = ROUNDINGS_OF_A_PLACE * FLOAT32.unit_roundoff * (np.abs(offset) + max(x.shape[2:]) + 2)
    moved = furthest(
        _columns(step, x, offset, mask),
        (_columns(step, x, offset + _along(signs, offset) * shift, mask) for signs in directions(rank)),
    )
    read = _columns(step, np.abs(x), offset, sizes)
    terms, corners = math.prod(w.shape[1:]) + 1, 2**rank
    bias = step.operand(3)
    shown = _product(step, read)
    shown += 0 if bias is None else np.abs(bias).reshape(-1, *(1,) * rank)
    of_places = _product(step, 2 * moved + step.gamma(corners + 3 * rank + 1) * read)
    return np.asarray(step.gamma(terms) * shown + of_places + 4 * corners * terms * step.floor)


def _along(signs: Array, offset: Array) -> Array:
    """Return −1, 0 or 1 for each coordinate of the offsets, which take turns."""
    turns = np.tile(signs, offset.shape[1] // len(signs))
    return turns.reshape(1, -1, *(1,) * (offset.ndim - 2))


def _columns(step: Step, x: Array, offset: Array, mask: Array | None) -> Array:
    names = ("dilations", "offset_group", "pads", "strides")
    given: dict[str, Any] = {name: step.attributes[name] for name in names if name in step.attributes}
    return deformed_columns(x, offset, mask, step.required(1).shape[2:], **given)


def _product(step: Step, columns: Array) -> Array:
    """Return the products of the weights' sizes with what the taps read."""
    w, group = np.abs(step.required(1)), step.attributes.get("group", 1)
    grouped = columns.reshape(len(columns), group, -1, columns.shape[-1])
    return np.asarray(w.reshape(group, w.shape[0] // group, -1) @ grouped).reshape(step.y.shape)
