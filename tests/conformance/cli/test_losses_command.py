"""`mobileinst losses --demo`: differences confirm every gradient, and find one that is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from narrow_network import OPTIONS, network
from typer.testing import CliRunner

from conformance.cli import app
from conformance.evidence import gradient_check
from conformance.evidence.gradient_check import check_losses
from refimpl.errors import ConfigurationError
from refimpl.losses import CLASS_WEIGHT, MASK_WEIGHT, OBJECTNESS_WEIGHT, TemporalLosses, Term

ARGUMENTS = ["losses", "--demo", *OPTIONS, "--size", "64x96"]


def test_every_gradient_is_confirmed(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [*ARGUMENTS, "--json", str(tmp_path / "l.json")])
    assert result.exit_code == 0
    assert "PASS" in result.output
    report = json.loads((tmp_path / "l.json").read_text())
    assert report["verdict"] == "pass"
    values = {term["name"]: term["value"] for term in report["terms"]}
    assert len(values) == 13
    assert all(value > 0 for value in values.values())
    assert all(abs(term["analytic"]) > 10 * term["allowed"] for term in report["terms"])
    # Equation 3, and both frames with the passed masks.
    for frame in ("first", "second"):
        masks = values[f"{frame}.dice"] + values[f"{frame}.pixel"]
        total = CLASS_WEIGHT * values[f"{frame}.classification"] + MASK_WEIGHT * masks
        assert values[f"{frame}.total"] == pytest.approx(
            total + OBJECTNESS_WEIGHT * values[f"{frame}.objectness"], rel=1e-12
        )
    passed = 2 * (values["passed.dice"] + values["passed.pixel"])
    expected = values["first.total"] + values["second.total"] + passed
    assert report["total"] == values["total"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", [1, 2])
def test_other_scenes(seed: int) -> None:
    assert {term.verdict for term in check_losses(network(np.float64), 96, 128, seed)} == {"pass"}


def scaled(field: str) -> Callable[[TemporalLosses], TemporalLosses]:
    """Make one gradient of the first frame, or of the passed masks, 1 % too large."""

    def change(losses: TemporalLosses) -> TemporalLosses:
        if field.startswith("passed"):
            term = getattr(losses, field)
            return replace(losses, **{field: Term(term.value, 1.01 * term.gradient)})
        term = getattr(losses.first, field)
        return replace(losses, first=replace(losses.first, **{field: Term(term.value, 1.01 * term.gradient)}))

    return change


@pytest.mark.parametrize(
    "field", ["classification", "dice", "pixel", "objectness", "passed_dice", "passed_pixel"]
)
def test_a_gradient_one_percent_too_large_is_found(monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    right: Callable[..., TemporalLosses] = gradient_check.temporal_losses

    def wrong(*arguments: Any) -> TemporalLosses:
        return scaled(field)(right(*arguments))

    monkeypatch.setattr(gradient_check, "temporal_losses", wrong)
    failed = {term.name for term in check_losses(network(np.float64), 64, 96, 0) if term.verdict == "fail"}
    name = field.replace("_", ".") if field.startswith("passed") else f"first.{field}"
    totals = {"total"} if field.startswith("passed") else {"total", "first.total"}
    assert name in failed
    assert failed <= {name, *totals}


def test_a_wrong_gradient_exits_1(monkeypatch: pytest.MonkeyPatch) -> None:
    right: Callable[..., TemporalLosses] = gradient_check.temporal_losses
    monkeypatch.setattr(gradient_check, "temporal_losses", lambda *given: scaled("dice")(right(*given)))
    result = CliRunner().invoke(app, [*ARGUMENTS, "--json", "-"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["verdict"] == "fail"


def test_without_demo_it_says_what_to_do() -> None:
    result = CliRunner().invoke(app, ["losses"])
    assert isinstance(result.exception, ConfigurationError)
    assert "--demo" in str(result.exception)


def test_a_network_without_queries_is_refused() -> None:
    result = CliRunner().invoke(
        app,
        ["losses", "--demo", "--model", "sparseinst-topformer-tiny", "--set", "dim=32", "--size", "64x96"],
    )
    assert isinstance(result.exception, ConfigurationError)
