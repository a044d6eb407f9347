"""What a step is found as in float64 by a loose bound, many steps on: only what is it explains others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from conformance.bounds import FLOAT16, FLOAT32, Declaration
from conformance.judge.alignment import RESEMBLANCE, CandidateTensors
from conformance.judge.steps import _tells

RIGHT = np.linspace(-2, 2, 1000)


@pytest.mark.parametrize(
    ("off", "bound", "storage", "tells"),
    [
        (1e-3, 2e-3, FLOAT32, True),  # by a bound of its own
        (
            0.017,
            400.0,
            FLOAT32,
            False,
        ),  # resembles it: SeaFormer with one table resized otherwise, 25 steps on
        (1e-7, 400.0, FLOAT32, True),  # is it
        (3e-4, 400.0, FLOAT32, False),
        (3e-4, 400.0, FLOAT16, True),  # but for constants that are halves
    ],
)
def test_what_is_found_by_a_loose_bound_must_be_exact(
    off: float, bound: float, storage: Any, tells: bool
) -> None:
    found = CandidateTensors({"own": RIGHT * (1 + off)}).find(RIGHT, np.full(RIGHT.shape, bound))
    assert found is not None
    assert found.worst.bound <= max(RESEMBLANCE * 2, bound)
    sides: Any = SimpleNamespace(
        recording=SimpleNamespace(tensors={"step": RIGHT}), declaration=Declaration(storage=storage)
    )
    assert _tells(sides, "step", found) == tells
