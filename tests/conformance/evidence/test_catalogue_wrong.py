"""Every wrong candidate of the catalogue fails: mostly on small backbones, which show as much of it."""

from __future__ import annotations

import pytest

from conformance.evidence.catalogue import WRONG

pytestmark = pytest.mark.usefixtures("small_backbones")

OF_ROUNDING = "black box, objectness three roundings too large"
"""How small a bias is found depends on the network."""


@pytest.mark.parametrize("name", [name for name in WRONG if name != OF_ROUNDING])
def test_a_wrong_candidate_fails(name: str) -> None:
    assert WRONG[name]().verdict == "fail"


@pytest.mark.usefixtures("published_backbones")
def test_a_bias_of_few_roundings_fails() -> None:
    assert WRONG[OF_ROUNDING]().verdict == "fail"
