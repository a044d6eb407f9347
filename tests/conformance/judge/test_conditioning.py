"""A correct candidate of a network that magnifies rounding passes, and the report says what magnifies."""

from __future__ import annotations

import narrow_network
import pytest

from conformance.candidates.plain import NumpyCandidate
from conformance.evidence.false_alarms import ill_conditioned
from conformance.judge.network import verify

pytestmark = pytest.mark.usefixtures("small_backbones")


def test_an_ill_conditioned_network_is_explained() -> None:
    weights = ill_conditioned(narrow_network.weights())
    candidate = NumpyCandidate(narrow_network.CONFIG, weights)
    report = verify(candidate, narrow_network.CONFIG, weights, {"scene": narrow_network.picture()})
    report.raise_on_failure()
    (item,) = report.inputs
    assert max(row.relative_error or 0 for row in item.outputs) > 1e-3
    (remark,) = (remark for remark in item.remarks if "ill-conditioned network, not a fault" in remark)
    assert "magnifies most" in remark


def test_a_well_conditioned_network_needs_no_explanation() -> None:
    weights = narrow_network.weights()
    candidate = NumpyCandidate(narrow_network.CONFIG, weights)
    report = verify(candidate, narrow_network.CONFIG, weights, {"scene": narrow_network.picture()})
    report.raise_on_failure()
    assert not any("ill-conditioned" in remark for remark in report.inputs[0].remarks)
