"""Products of matrices."""

from __future__ import annotations

import numpy as np

from refimpl.errors import ShapeError
from refimpl.ops.elementwise import add
from refimpl.ops.operation import Array, operation
from refimpl.ops.shape import transpose


@operation("MatMul")
def mat_mul(a: Array, b: Array) -> Array:
    """Product of the last two axes, the others broadcast; a 1-D operand is a row (left) or column (right).

    float16 is accumulated in float32. ONNX operator MatMul.

    Raises
    ------
    ShapeError
        If an operand is a scalar, or the shapes do not fit.
    """
    return _product(a, b).astype(np.result_type(a, b), copy=False)


def _product(a: Array, b: Array) -> Array:
    """Multiply, float16 in float32."""
    if a.dtype == np.float16:
        a, b = a.astype(np.float32), b.astype(np.float32)
    try:
        return np.asarray(np.matmul(a, b))
    except ValueError as error:
        raise ShapeError(f"shapes {a.shape} and {b.shape} cannot be multiplied: {error}") from error


@operation("Gemm")
def gemm(
    a: Array,
    b: Array,
    c: Array | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Array:
    """``alpha · A' B' + beta · C`` of two matrices, transposed on demand; ``c`` broadcasts to the product.

    float16 is accumulated in float32. ONNX operator Gemm.

    Raises
    ------
    ShapeError
        If ``a`` or ``b`` is not a matrix, or the shapes do not fit.
    """
    if a.ndim != 2 or b.ndim != 2:
        raise ShapeError(f"Gemm was given shapes {a.shape} and {b.shape}; expected two matrices")
    result = _product(a.T if transA else a, b.T if transB else b)
    if alpha != 1.0:
        result = (result * alpha).astype(result.dtype, copy=False)
    if c is not None and beta != 0.0:
        _add_broadcast(result, np.asarray(c if beta == 1.0 else c * beta, dtype=result.dtype))
    return result.astype(a.dtype, copy=False)


def _add_broadcast(total: Array, c: Array) -> None:
    """Add ``c`` to ``total`` in place."""
    try:
        total += c
    except ValueError as error:
        raise ShapeError(f"C of shape {c.shape} does not broadcast to the product's {total.shape}") from error


@operation("Einsum")
def einsum(*operands: Array, equation: str) -> Array:
    """Sum of products of the operands in Einstein notation, ``"bnd,bdhw->bnhw"`` (ONNX operator Einsum).

    float16 is accumulated in float32.

    Raises
    ------
    ShapeError
        If the equation does not fit the operands.
    """
    wide = [x.astype(np.float32) if x.dtype == np.float16 else x for x in operands]
    try:
        result = np.asarray(np.einsum(equation.replace(" ", ""), *wide, optimize=True))
    except ValueError as error:
        shapes = ", ".join(str(x.shape) for x in operands)
        raise ShapeError(
            f"the equation {equation!r} does not fit operands of shape {shapes}: {error}"
        ) from error
    return result.astype(operands[0].dtype, copy=False)


def linear(x: Array, w: Array, b: Array | None = None) -> Array:
    """``x wᵀ + b`` with ``w`` (out, in), as PyTorch stores it; ``x`` (..., in).

    Composed of operations: Gemm if ``x`` is a matrix, else Transpose, MatMul and Add.

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    """
    if x.ndim == 2:
        return gemm(x, w, b, transB=1)
    product = mat_mul(x, transpose(w, perm=(1, 0)))
    return product if b is None else add(product, b)
