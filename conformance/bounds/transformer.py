"""Attention and rotated positions: products, a softmax of what is wrong already, and products again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from conformance.bounds.step import Bound, Step, rule
from refimpl.ops.operation import Array

PRODUCTS, CAPPED, LOGITS, WEIGHTS = range(4)
"""What Attention shows as its fourth result, by its attribute."""
EXACT_TYPES = (None, 1, 11)
"""ONNX's types of a softmax no coarser than the arithmetic: the operands' own, float32, float64."""


@rule("Attention")
def attention(step: Step) -> tuple[Bound, ...]:
    """The products' γ moves the logits, whose softmax moves the weights; γ again of weights and values.

    |p̂ − p| ≤ p · expm1(2 · error of the logits) and the softmax's own relative error, as of Softmax. ONNX
    defines it by a function, whose every tensor is of the operands' type: each may be rounded to it.
    """
    if step.attributes.get("softmax_precision") not in EXACT_TYPES:
        return (None,) * len(step.outputs)
    size = step.required(0).shape[-1] // (step.attributes.get("q_num_heads") or 1)
    values, (products, capped, logits, weights) = (
        _shown(step, 2, 0),
        (_shown(step, 3, mode) for mode in range(4)),
    )
    sizes, stored = _sizes(step), _stored(step)
    errors = [step.gamma(size + 4) * sizes + 2 * size * step.floor + stored(2 * sizes) + stored(products)]
    errors.append(errors[0] + _capping(step, capped) + stored(capped))
    finite = np.where(np.isfinite(logits), logits, 0.0)
    errors.append(errors[1] + step.gamma(1) * (np.abs(finite) + np.abs(capped)) + stored(finite))
    errors.append(_softmax(step, finite, errors[LOGITS], weights) + stored(weights))
    errors[LOGITS] = np.where(np.isfinite(logits), errors[LOGITS], 0.0)
    shared = weights.shape[1] // values.shape[1]
    of_means = _means(step, weights, errors[WEIGHTS], np.repeat(np.abs(values), shared, axis=1))
    mode = step.attributes.get("qk_matmul_output_mode", 0)
    return (of_means, 0.0, 0.0, errors[mode])[: len(step.outputs)]


def _stored(step: Step) -> Callable[[Array], Array]:
    """Return what storing a tensor adds: nothing in the arithmetic's own format, which γ counts."""
    coarse = step.storage.unit_roundoff > step.arithmetic.unit_roundoff
    return step.storage.rounding_of if coarse else np.zeros_like


def _shown(step: Step, place: int, mode: int, **changed: Any) -> Array:
    """Return one of the operation's results."""
    return np.asarray(step.run(*step.inputs, qk_matmul_output_mode=mode, **changed)[place])


def _sizes(step: Step) -> Array:
    """Return the products of absolute values, scaled."""
    q, k, v, *_ = step.inputs
    past = [None if x is None else np.abs(x) for x in (step.operand(4), step.operand(5))]
    sizes = step.run(np.abs(q), np.abs(k), v, None, *past, qk_matmul_output_mode=PRODUCTS)
    return np.asarray(sizes[3])


def _capping(step: Step, capped: Array) -> Array | float:
    """Return what the capping introduces: a quotient, the tangent's allowance, a product."""
    cap = step.attributes.get("softcap", 0.0)
    return step.allowance("Tanh", capped / cap, cap) + step.gamma(3) * np.abs(capped) if cap else 0.0


def _softmax(step: Step, logits: Array, error: Array, weights: Array) -> Array:
    """Return the error of the weights: of the logits', as far as they are seen, and as of Softmax."""
    seen = weights > 0
    with np.errstate(all="ignore"):
        peak = np.max(logits, axis=-1, keepdims=True, initial=-np.inf, where=seen)
        distance = np.where(seen, peak - logits, 0.0)
        moved = np.where(seen, error, 0.0)
        shift = np.log(np.sum(weights * np.exp(moved), axis=-1, keepdims=True))
        exponential = step.runtime.allowances["Exp"]
        own = step.gamma(weights.shape[-1] + 4 * exponential.ulps + 2) + 2 * exponential.relative
        own = own + step.gamma(1) * (distance + np.sum(weights * distance, axis=-1, keepdims=True))
        relative = np.expm1(moved + np.maximum(shift, 0)) + own
    return np.where(seen, weights * relative, 0.0) + 2 * step.floor


def _means(step: Step, weights: Array, error: Array, values: Array) -> Array:
    """Return the error of the weighted means, in the layout of the first operand."""
    keys = values.shape[2]
    bound = (error * (1 + step.gamma(keys + 1)) + step.gamma(keys + 1) * weights) @ values
    bound = bound + 2 * keys * step.floor
    if step.required(0).ndim == 4:
        return np.asarray(bound)
    return np.asarray(bound.swapaxes(1, 2).reshape(step.y.shape))


@rule("RotaryEmbedding")
def rotary_embedding(step: Step) -> Bound:
    """γ₂ of the two products' sizes: as much of the real part as of the other."""
    x, cosine, sine, *rest = step.inputs
    sizes = [np.abs(step.run(np.abs(x), np.abs(cosine), sign * np.abs(sine), *rest)) for sign in (-1.0, 1.0)]
    return step.gamma(2) * np.maximum(*sizes) + 4 * step.floor
