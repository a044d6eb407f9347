"""What files hold as integers, widened: by hand, and beside what the runtimes' own readers make of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from conformance.conversion.litert_model import LitertModel, stored_in_litert
from conformance.conversion.openvino_graph import openvino_graph
from conformance.conversion.openvino_model import OpenVinoLayer, stored_in_openvino
from refimpl.errors import MobileInstError
from refimpl.ops.operation import Array

WHOLE = np.array([[0, 128, 255], [7, 8, 9]], np.uint8)
POINT = np.array([[128], [8]], np.uint8)
SCALE = np.array([[0.5], [0.25]], np.float16)
NUMBERS = [[-64.0, 0.0, 63.5], [-0.25, 0.0, 0.25]]


def layer(kind: str, *inputs: int, constant: Array | None = None) -> OpenVinoLayer:
    """Return a layer that takes the first results of others."""
    return OpenVinoLayer("", kind, {}, [(each, 0) for each in inputs], [()], [""], constant)


def widening(*, scale: Array = SCALE, last: str = "Multiply") -> list[OpenVinoLayer]:
    """Return layers as NNCF writes them: (u8 − zero point) · scale, converted on the way."""
    return [
        layer("Const", constant=WHOLE),
        layer("Convert", 0),
        layer("Const", constant=POINT),
        layer("Convert", 2),
        layer("Subtract", 1, 3),
        layer("Const", constant=scale),
        layer(last, 4, 5),
    ]


def of_integers(layers: list[OpenVinoLayer]) -> list[Array]:
    """Return the numbers of what is stored as integers."""
    return [each.numbers for each in stored_in_openvino(layers) if each.scale is not None and each.fits]


def test_openvinos_integers_are_widened() -> None:
    (found,) = of_integers(widening())
    np.testing.assert_array_equal(found, NUMBERS)
    (held,) = (each for each in stored_in_openvino(widening()) if each.scale is not None)
    np.testing.assert_array_equal(held.steps, [[0.5] * 3, [0.25] * 3])


def test_without_a_zero_point_it_is_zero() -> None:
    layers = [*widening()[:2], layer("Const", constant=SCALE), layer("Multiply", 1, 2)]
    (found,) = of_integers(layers)
    np.testing.assert_array_equal(found, WHOLE * SCALE.astype(np.float64))


@pytest.mark.parametrize(
    "layers",
    [
        widening(last="Add"),
        widening(scale=np.ones((3, 1), np.float16)),
        widening(scale=np.ones((4, 2, 3), np.float16)),
        [*widening()[:4], layer("Subtract", 1), *widening()[5:]],
        [layer("Parameter"), layer("Convert"), layer("Subtract", 1, 0), layer("Multiply", 2, 0)],
        [layer("Parameter"), layer("Multiply", 0, 0)],
    ],
)
def test_what_is_no_widening_is_passed_over(layers: list[OpenVinoLayer]) -> None:
    assert of_integers(layers) == []


@pytest.mark.parametrize("last", ["Multiply", "Add"])
def test_integers_of_a_scale_that_is_computed_are_refused(last: str) -> None:
    layers = [
        OpenVinoLayer("x", "Parameter", {}, [], [(2, 3)], ["x"]),
        *(replace(each, inputs=[(place + 1, 0) for place, _ in each.inputs]) for each in widening()[:5]),
        OpenVinoLayer("y", last, {"auto_broadcast": "numpy"}, [(5, 0), (0, 0)], [(2, 3)], ["y"]),
        OpenVinoLayer("r", "Result", {}, [(6, 0)], [(2, 3)], [""]),
    ]
    with pytest.raises(MobileInstError, match="not written down"):
        openvino_graph(layers, {"x": (2, 3)}, ["y"])


def model(scales: Array, points: Array, axis: int) -> LitertModel:
    """Return a model of one constant and its scales."""
    held = np.array([[-127, 0, 127], [1, 2, 3]], np.int8)
    return LitertModel((), [""], [held.shape], {0: held}, {0: (scales, points, axis)}, {}, {})


def test_litert_integers_are_widened_along_their_axis() -> None:
    (rows,) = stored_in_litert(model(np.array([0.5, 2.0]), np.zeros(2, int), 0))
    np.testing.assert_array_equal(rows.numbers, [[-63.5, 0.0, 63.5], [2.0, 4.0, 6.0]])
    (columns,) = stored_in_litert(model(np.array([1.0, 0.5, 0.25]), np.zeros(3, int), 1))
    np.testing.assert_array_equal(columns.steps, [[1.0, 0.5, 0.25]] * 2)
    (whole,) = stored_in_litert(model(np.array([0.5]), np.zeros(1, int), 0))
    np.testing.assert_array_equal(whole.numbers, np.array([[-127, 0, 127], [1, 2, 3]]) / 2)


@pytest.mark.parametrize(("scales", "axis"), [([1.0, 1.0], 1), ([1.0, 1.0], 7), ([1.0], -1), ([1.0] * 4, 0)])
def test_scales_that_do_not_fit_are_passed_over(scales: list[float], axis: int) -> None:
    assert [*stored_in_litert(model(np.array(scales), np.zeros(len(scales), int), axis))] == []
