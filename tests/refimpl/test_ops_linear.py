"""Products against PyTorch, whole numbers and np.einsum's own unoptimised loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import mutually_broadcastable_shapes

from refimpl.errors import ShapeError
from refimpl.ops.linear import einsum, gemm, linear, mat_mul
from refimpl.ops.operation import OPERATIONS, intercepted

FLOATS = [np.float16, np.float32, np.float64]


def whole(shape, seed=0, dtype=np.float64):
    """Return small whole numbers, whose products and sums are exact."""
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.mark.runtimes
@settings(max_examples=80)
@given(shapes=mutually_broadcastable_shapes(signature="(m?,k),(k,n?)->(m?,n?)", max_dims=3, max_side=4))
def test_mat_mul_equals_pytorch(torch, shapes):
    a, b = (whole(shape, seed) for seed, shape in enumerate(shapes.input_shapes))
    expected = torch.matmul(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    actual = mat_mul(a, b)
    assert isinstance(actual, np.ndarray)
    assert actual.shape == shapes.result_shape
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("dtype", [*FLOATS, np.int32])
def test_dtype_is_kept(dtype):
    a, b = whole((3, 4), 0, dtype), whole((4, 5), 1, dtype)
    for result in (
        mat_mul(a, b),
        gemm(a, b, whole(5, 2, dtype)),
        einsum(a, b, equation="ij,jk->ik"),
        linear(a, b.T),
        linear(a[None], b.T, whole(5, 2, dtype)),
    ):
        assert result.dtype == dtype


def test_float16_is_accumulated_in_float32():
    small = np.full((4096, 1), 2.0**-11, np.float16)
    start = np.concatenate([np.ones((1, 1), np.float16), small])  # in float16, 1 + 2⁻¹¹ is 1
    row = np.ones((1, 4097), np.float16)
    for result in (mat_mul(row, start), gemm(row, start), einsum(row, start, equation="ij,jk->ik")):
        assert result.item() == 3.0
    # the product 1 + 2⁻¹¹ is rounded only after C is added
    assert gemm(row[:, :2], start[:2], small[:1]).item() == 1 + 2.0**-10


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("c_shape", [None, (), (1,), (5,), (3, 1), (3, 5)])
def test_gemm_is_its_formula(trans_a, trans_b, c_shape):
    a, b = whole((3, 4), 0), whole((4, 5), 1)
    c = None if c_shape is None else whole(c_shape, 2)
    expected = [[sum(2 * int(a[i, k]) * int(b[k, j]) for k in range(4)) for j in range(5)] for i in range(3)]
    if c is not None:
        expected = expected - 3 * c
    actual = gemm(
        a.T if trans_a else a, b.T if trans_b else b, c, alpha=2.0, beta=-3.0, transA=trans_a, transB=trans_b
    )
    np.testing.assert_array_equal(actual, expected)


def test_gemm_with_beta_zero_ignores_what_c_holds():
    a = whole((2, 2))
    np.testing.assert_array_equal(gemm(a, a, np.full(2, np.nan), beta=0.0), gemm(a, a))


def test_operands_are_left_alone():
    a, c = whole((3, 3)), whole((3, 3), 1)
    kept_a, kept_c = a.copy(), c.copy()
    gemm(a, a, c, alpha=0.5, beta=2.0)[...] = 9
    np.testing.assert_array_equal(a, kept_a)
    np.testing.assert_array_equal(c, kept_c)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("bnd,bdhw->bnhw", [(2, 3, 4), (2, 4, 5, 6)]),
        ("bhid,bhjd->bhij", [(2, 3, 4, 5), (2, 3, 6, 5)]),
        ("bhij,bhjd->bihd", [(2, 3, 4, 6), (2, 3, 6, 5)]),
        ("ij,jk", [(3, 4), (4, 5)]),
        ("ij , jk -> ki", [(3, 4), (4, 5)]),
        ("i,j->ij", [(3,), (4,)]),
        ("i,i->", [(3,), (3,)]),
        ("ij,ij->i", [(3, 4), (3, 4)]),
        ("ijk,j->i", [(3, 4, 5), (4,)]),
        ("...ij,...jk->...ik", [(2, 3, 4), (4, 5)]),
        ("bij,bjk->ik", [(2, 3, 4), (2, 4, 5)]),
        ("ii->i", [(3, 3)]),
        ("ii,ij->j", [(3, 3), (3, 4)]),
        ("ij->ji", [(3, 4)]),
        ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)]),
        ("bi,bi->b", [(2, 1), (1, 3)]),
    ],
)
def test_einsum_equals_the_plain_loop(equation, shapes):
    operands = [whole(shape, seed) for seed, shape in enumerate(shapes)]
    actual = einsum(*operands, equation=equation)
    assert isinstance(actual, np.ndarray)
    np.testing.assert_array_equal(actual, np.einsum(equation, *operands, optimize=False))


class Names:
    """Notes the name of every operation called."""

    def __init__(self):
        self.seen = []

    def call(self, name, inputs, attributes):
        self.seen.append(name)
        return OPERATIONS[name](*inputs, **attributes)

    def block(self, path, compute):
        return compute()


@pytest.mark.runtimes
@pytest.mark.parametrize(
    ("shape", "with_bias", "expected_names"),
    [
        ((7, 4), True, ["Gemm"]),
        ((7, 4), False, ["Gemm"]),
        ((2, 7, 4), True, ["Transpose", "MatMul", "Add"]),
        ((2, 3, 7, 4), False, ["Transpose", "MatMul"]),
    ],
)
def test_linear_equals_pytorch_and_is_composed_of_operations(torch, shape, with_bias, expected_names):
    x, w, b = whole(shape, 0), whole((5, 4), 1), whole(5, 2) if with_bias else None
    expected = torch.nn.functional.linear(
        torch.from_numpy(x), torch.from_numpy(w), None if b is None else torch.from_numpy(b)
    )
    names = Names()
    with intercepted(names):
        actual = linear(x, w, b)
    np.testing.assert_array_equal(actual, expected.numpy())
    assert names.seen == expected_names


@pytest.mark.parametrize(
    "call",
    [
        lambda: mat_mul(np.zeros((2, 3)), np.zeros((2, 3))),
        lambda: mat_mul(np.zeros(()), np.zeros((2, 3))),
        lambda: gemm(np.zeros((2, 3)), np.zeros((2, 3))),
        lambda: gemm(np.zeros((2, 3)), np.zeros((3, 2)), np.zeros(3)),
        lambda: gemm(np.zeros((2, 3)), np.zeros((3, 2)), np.zeros((4, 2, 2))),
        lambda: einsum(np.zeros((2, 3)), np.zeros((2, 3)), equation="ij,jk->ik"),
        lambda: einsum(np.zeros((2, 3)), equation="ijk->i"),
    ],
)
def test_operands_that_do_not_fit_are_named(call):
    with pytest.raises(ShapeError, match=r"\(2, 3\)|\(2, 2\)"):
        call()


def test_gemm_of_what_is_no_matrix_is_named():
    with pytest.raises(ShapeError, match="matrices"):
        gemm(np.zeros((1, 2, 3)), np.zeros((3, 2)))
