"""Sums of products: γ_{K+1} · (abs(W) ∗ abs(x) + abs(b)), by the same operation on absolute values.

It holds for every order of summation, blocked or not, with fused multiply-adds or without (Higham, §3.1 and
§4.2). The product of absolute values need not be exact, so it is computed in float32, twice as fast, where
the values allow it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from conformance.bounds.formats import FLOAT32, FLOAT64, gamma
from conformance.bounds.step import Bound, Step, is_float, rule
from conformance.bounds.winograd import winograd_applies, winograd_magnitude
from refimpl.ops.operation import Array

_SAFE_LARGEST, _SAFE_TERMS = 1e30, 2**20
"""So many products of such a total size float32 adds up without overflow, and to a few per cent."""


def of_magnitudes(step: Step, n: int, *inputs: Any, **changed: Any) -> Array:
    """Return the operation on absolute values, never below the exact result.

    Parameters
    ----------
    step
    n
        Number of roundings of one result.
    inputs
        The operands, None where absent; their absolute values are taken.
    changed
        Attributes that differ.
    """
    if n not in step.shared:
        step.shared[n] = _of_magnitudes(step, n, *inputs, **changed)
    return step.shared[n]


def _of_magnitudes(step: Step, n: int, *inputs: Any, **changed: Any) -> Array:
    narrow = _fits_float32(step, [np.asarray(x) for x in inputs if x is not None], n)
    dtype = np.float32 if narrow else np.float64
    sizes = [None if x is None else step.magnitude(np.asarray(x).astype(dtype), n) for x in inputs]
    total = np.asarray(step.run(*sizes, **changed))
    if narrow:
        total *= 1 + 2 * gamma(n + 2, FLOAT32.unit_roundoff)
    return total


def _fits_float32(step: Step, operands: list[Array], n: int) -> bool:
    """Tell whether nothing can overflow; what underflows is less than the floor of each term."""
    # What may be flushed has its magnitude divided by γ, at least u.
    largest = (max(float(x.max(initial=1)), -float(x.min(initial=0))) for x in operands)
    return step.arithmetic != FLOAT64 and n * math.prod(largest) < _SAFE_LARGEST and n < _SAFE_TERMS


def of_products(step: Step, terms: int, **changed: Any) -> Array:
    """Return γ of the terms times the sum of their sizes, or what rounding their operands probably makes."""
    if step.probable and step.runtime.rounds_operands:
        return _of_rounded_operands(step, **changed)
    return accumulated(step, terms, of_magnitudes(step, terms, *step.inputs, **changed))


def _of_rounded_operands(step: Step, **changed: Any) -> Array:
    """Return u · √(2 Σ (w·x)² + y²): every operand is off by its own rounding, and so is the result.

    The sum is off by far less. Where its terms have one sign, its own rounding is the largest.
    """
    factors, biases = step.inputs[:2], [_as_large_as_its_error(step, x) for x in step.inputs[2:]]
    squares = [None if x is None else np.square(x) for x in (*factors, *biases)]
    squared = {name: value**2 for name, value in changed.items()}
    products = np.abs(step.run(*squares, **squared))
    return np.asarray(step.unit_roundoff * np.sqrt(2 * products + np.square(step.y)))


def _as_large_as_its_error(step: Step, bias: Any) -> Array | None:
    """Return a bias, a subnormal as large as what is off by a rounding as it is.

    Hexagon takes a subnormal m · 2⁻²⁴ for (1 + m · 2⁻¹⁰) · 2⁻¹⁵: off by up to 2⁻¹⁵. Factors it reads rightly.
    """
    if bias is None:
        return None
    array, least = np.asarray(bias), step.arithmetic.smallest_normal
    subnormal = (array != 0) & (np.abs(array) < least)
    return np.where(subnormal, least / (2 * step.unit_roundoff), array) if subnormal.any() else array


def accumulated(step: Step, n: int, size: Array) -> Array:
    """Return γₙ · size and a floor for flushed terms; infinite where a partial sum may overflow."""
    flushes = 2 * (n + step.extra) * step.floor
    with np.errstate(all="ignore"):
        bound = np.multiply(size, step.gamma_of_products(n), dtype=np.float64)
        bound += flushes if step.flushes_are_negligible else np.minimum(flushes, size)
        overflows = not size.max(initial=0) <= step.arithmetic.largest
        return np.where(size > step.arithmetic.largest, np.inf, bound) if overflows else bound


@rule("Conv")
def conv(step: Step) -> Bound:
    """γ_{K+1} · (abs(W) ∗ abs(x) + abs(b)), K the products of one output; more if Winograd's is declared."""
    w = step.required(1)
    direct = of_products(step, math.prod(w.shape[1:]) + 1)
    if not (step.runtime.winograd_tile and winograd_applies(step.attributes, w)):
        return direct
    return np.maximum(direct, accumulated(step, *winograd_magnitude(step, w)))


@rule("ConvTranspose")
def conv_transpose(step: Step) -> Bound:
    """As Conv; K counts the taps that meet in one output."""
    w = step.required(1)
    rank = w.ndim - 2
    strides = step.attributes.get("strides") or (1,) * rank
    dilations = step.attributes.get("dilations") or (1,) * rank
    taps = math.prod(
        -(-k // (s // math.gcd(s, d))) for k, s, d in zip(w.shape[2:], strides, dilations, strict=True)
    )
    terms = w.shape[0] // step.attributes.get("group", 1) * taps + 1
    return of_products(step, terms)


@rule("MatMul")
def mat_mul(step: Step) -> Bound:
    """γ_{K+1} · abs(A) abs(B); 0 of integers."""
    a = step.required(0)
    if not is_float(a):
        return 0.0
    terms = a.shape[-1] + 1
    return of_products(step, terms)


@rule("Gemm")
def gemm(step: Step) -> Bound:
    """γ_{K+3} · (abs(α) abs(A) abs(B) + abs(β) abs(C)): two more roundings for α and β."""
    a = step.required(0)
    if not is_float(a):
        return 0.0
    terms = a.shape[0 if step.attributes.get("transA", 0) else 1] + 3
    factors = {name: abs(step.attributes.get(name, 1.0)) for name in ("alpha", "beta")}
    return of_products(step, terms, **factors)


@rule("Einsum")
def einsum(step: Step) -> Bound:
    """γ of the terms summed and the operands multiplied, times the same sum of absolute values."""
    if not is_float(step.required(0)):
        return 0.0
    terms = _summed_terms(step) + len(step.inputs)
    return of_products(step, terms)


def _summed_terms(step: Step) -> int:
    """Return the terms of one result: products read over products made, so batch axes drop out."""
    lengths: dict[str, int] = {}
    left, _, right = str(step.attributes["equation"]).replace(" ", "").partition("->")
    for labels, x in zip(left.split(","), step.inputs, strict=True):
        shape = np.shape(x)
        before, dots, after = labels.partition("...")
        named = list(zip(before, shape, strict=False))
        named += list(zip(after[::-1], shape[::-1], strict=False)) if dots else []
        lengths.update((label, max(lengths.get(label, 1), n)) for label, n in named)
    kept = (
        set(right)
        if right or "->" in str(step.attributes["equation"])
        else {c for c in left if left.count(c) == 1}
    )
    return math.prod(n for label, n in lengths.items() if label not in kept)
