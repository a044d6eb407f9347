"""An error of the operand may take a result across the middle of two numbers that the format holds."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special

from conformance.bounds import FLOAT16, FLOAT32, Declaration, carried_bounds
from refimpl.graph import Node


@pytest.mark.parametrize("seed", range(20))
def test_a_softmax_of_unrounded_logits_stored_as_float16(seed: int) -> None:
    """The runtime computes on logits that it has not rounded, and rounds what it makes of them."""
    random = np.random.default_rng(seed)
    own = random.uniform(-24, -12, (64, 50))
    own[:, 0] = 0
    # Numbers about half of the least that float16 holds, and a sum of any size.
    own[:, 1] = random.uniform(-17.35, -17.3, 64)
    own[:, 2] = np.log(random.uniform(0.001, 0.03, 64))
    logits = own.astype(np.float16).astype(np.float64)
    errors = FLOAT16.rounding_of(logits)
    assert np.all(np.abs(own - logits) <= errors)
    truth = scipy.special.softmax(logits, axis=-1)
    node = Node("s", "Softmax", ("x",), ("y",), {"axis": -1})
    (bound,) = carried_bounds(node, [logits], [errors], (truth,), Declaration(FLOAT32, FLOAT16))
    made = scipy.special.softmax(own, axis=-1).astype(np.float16).astype(np.float64)
    assert bound is not None
    assert np.all(np.abs(made - truth) <= bound)
