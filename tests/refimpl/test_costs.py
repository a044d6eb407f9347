"""Multiply–accumulates and parameters against the paper and against counting one by one."""

from __future__ import annotations

import itertools
import math

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from narrow_network import CONFIG, network, picture, weights

from conformance.graph.onnx_export import export
from refimpl import MobileInstConfig, Step, record
from refimpl.costs import multiply_accumulates, record_shapes, step_costs

# Paper's tables at 320×640, less the 0.07 G of normalisation and resizing that its counter adds.
TOTALS = {"semantic_enhanced": 8.720e9, "top_down_bottom_up": 8.674e9}
BACKBONE = 0.939e9


@pytest.mark.parametrize("mask_decoder", TOTALS)
def test_totals_at_the_papers_size(mask_decoder: str) -> None:
    config = MobileInstConfig.preset("topformer-base", mask_decoder=mask_decoder)
    costs = step_costs(record_shapes(config, 320, 640))
    assert sum(cost.macs for cost in costs) == pytest.approx(TOTALS[mask_decoder], abs=0.5e6)
    backbone = [cost.macs for cost in costs if cost.step.block.startswith("backbone")]
    assert sum(backbone) == pytest.approx(BACKBONE, abs=0.5e6)


SMALL = st.integers(1, 4)


@given(SMALL, SMALL, SMALL, SMALL, st.sampled_from([1, 2]), SMALL)
def test_convolutions_by_counting(
    batch: int, channels: int, outputs: int, kernel: int, groups: int, size: int
) -> None:
    """Every output sums ``channels / groups`` kernels."""
    weight = (outputs * groups, channels, kernel, kernel)
    output = (batch, outputs * groups, size, size)
    step = Step("s", "Conv", ("x", "w"), ("y",), {"group": groups})
    places = itertools.product(*map(range, output))
    expected = sum(1 for _ in places for _ in range(channels) for _ in range(kernel * kernel))
    assert multiply_accumulates(step, ((batch, channels * groups, 9, 9), weight), output) == expected


@given(SMALL, SMALL, SMALL, SMALL)
def test_products_of_matrices_by_counting(batch: int, rows: int, inner: int, columns: int) -> None:
    output = (batch, rows, columns)
    step = Step("s", "MatMul", ("a", "b"), ("y",), {})
    count = sum(inner for _ in itertools.product(range(batch), range(rows), range(columns)))
    assert multiply_accumulates(step, ((batch, rows, inner), (batch, inner, columns)), output) == count
    assert multiply_accumulates(step, ((batch, rows, inner), (inner, columns)), output) == count
    einsum = Step("s", "Einsum", ("a", "b"), ("y",), {"equation": "bij,bjk->bik"})
    assert multiply_accumulates(einsum, ((batch, rows, inner), (batch, inner, columns)), output) == count
    gemm = Step("s", "Gemm", ("a", "b"), ("y",), {"transA": 1})
    assert multiply_accumulates(gemm, ((inner, rows), (inner, columns)), (rows, columns)) * batch == count


def test_the_whole_network_from_its_onnx_file() -> None:
    """Shapes that ONNX infers, and the definition of convolution and product, give the same total."""
    model = export(network(), picture())
    infos = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    shapes = {i.name: tuple(d.dim_value for d in i.type.tensor_type.shape.dim) for i in infos}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    total = 0
    for node in model.graph.node:
        operands, output = [shapes.get(name, ()) for name in node.input], shapes[node.output[0]]
        if node.op_type == "Conv":
            group = next(onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == "group")
            kernel = operands[1]
            total += math.prod(output) * operands[0][1] // group * kernel[2] * kernel[3]
        elif node.op_type == "MatMul":
            total += math.prod(output) * operands[1][-2]
    costs = step_costs(record(network(), picture()))
    assert sum(cost.macs for cost in costs) == total > 0


def test_every_parameter_is_counted_once() -> None:
    """What training adjusts: running statistics of batch norms are no parameters."""
    learned = [array.size for name, array in weights().items() if ".running_" not in name]
    costs = step_costs(record(network(), picture()))
    assert sum(cost.parameters for cost in costs) == sum(learned)


def test_a_batch_costs_as_much_as_its_pictures() -> None:
    one, two = (step_costs(record(network(), picture(batch))) for batch in (1, 2))
    assert sum(cost.macs for cost in two) == 2 * sum(cost.macs for cost in one)


def test_shapes_alone_give_the_same_table() -> None:
    blank, real = step_costs(record_shapes(CONFIG, 64, 96)), step_costs(record(network(), picture()))
    assert [(c.step.name, c.macs, c.parameters) for c in blank] == [
        (c.step.name, c.macs, c.parameters) for c in real
    ]


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("...ij,...jk->...ik", [(2, 3, 4), (2, 4, 5)]),
        ("...ij,jk", [(6, 2, 3, 4), (4, 5)]),
        ("a...,...b->ab...", [(2, 3, 1), (3, 4, 5)]),
        ("ii->i", [(3, 3)]),
    ],
)
def test_products_of_a_sum_in_einsteins_notation(equation: str, shapes: list[tuple[int, ...]]) -> None:
    """As many as the sum of products of ones."""
    count = int(np.einsum(equation, *(np.ones(shape) for shape in shapes)).sum())
    einsum = Step("s", "Einsum", tuple("abc"[: len(shapes)]), ("y",), {"equation": equation})
    assert multiply_accumulates(einsum, tuple(shapes), ()) == count
