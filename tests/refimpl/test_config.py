"""Configurations: wrong names and values are refused in words that help."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from refimpl import MobileInstConfig
from refimpl.config import PRESETS
from refimpl.errors import ConfigurationError, MobileInstError


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_configuration(name: str) -> None:
    config = MobileInstConfig.preset(name)
    fields = {field.name: field.default for field in dataclasses.fields(MobileInstConfig)}
    assert dataclasses.asdict(config) == {**fields, **PRESETS[name]}
    assert hash(config) == hash(MobileInstConfig.preset(name))


def test_every_field_is_an_override() -> None:
    config = MobileInstConfig.preset("topformer-small", num_classes=40, num_queries=20, dim=64, num_heads=4)
    assert (config.num_classes, config.num_queries, config.dim, config.num_heads) == (40, 20, 64, 4)
    assert config.backbone == "topformer-small"


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("topformer-bse", "'topformer-base'"),
        ("topformer_tiny", "'topformer-tiny'"),
        ("TopFormer-small", "'topformer-small'"),
        ("table6/2000", "'table6/200'"),
    ],
)
def test_an_unknown_preset_suggests_the_nearest(name: str, suggestion: str) -> None:
    with pytest.raises(ConfigurationError, match=f"unknown preset {name!r}; did you mean {suggestion}"):
        MobileInstConfig.preset(name)


def test_a_preset_like_no_other_lists_them_all() -> None:
    with pytest.raises(ConfigurationError) as caught:
        MobileInstConfig.preset("zzz")
    assert "did you mean" not in str(caught.value)
    assert all(name in str(caught.value) for name in PRESETS)


@pytest.mark.parametrize(
    ("field", "suggestion"), [("num_query", "num_queries"), ("dims", "dim"), ("heads", "num_heads")]
)
def test_an_unknown_field_suggests_the_nearest(field: str, suggestion: str) -> None:
    with pytest.raises(
        ConfigurationError, match=f"unknown configuration field '{field}'; did you mean '{suggestion}'"
    ):
        MobileInstConfig.preset("topformer-tiny", **{field: 5})


IMPOSSIBLE: list[dict[str, Any]] = [
    *(
        {name: value}
        for name in ("num_queries", "num_classes", "dim", "num_heads")
        for value in (0, -4, 1.5, "8", None, True, 2**16 + 4, 10**26)
    ),
    {"dim": 30, "num_heads": 5},
    {"mask_convs": 10**9},
    {"kernel_dim": 10**26},
    {"dim": 64, "num_heads": 7},
    {"backbone": "topformer-huge"},
    {"backbone": ["topformer-base"]},
    {"backbone": "resnet50"},
    {"architecture": "blendmask"},
    {"architecture": "sparseinst", "backbone": "seaformer-base"},
    {"local_pooling": "max3"},
    {"mask_decoder": "none"},
    {"mask_decoder": None},
    {"instance_activation": ""},
    {"global_layers": 0, "local_layers": 0},
    {"global_layers": 3},
    {"local_layers": -1},
    {"local_layers": True},
    {"global_layers": 1.0},
    {"num_queries": float("nan")},
]


@pytest.mark.parametrize("fields", IMPOSSIBLE, ids=str)
def test_impossible_values_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        MobileInstConfig.preset("topformer-base", **fields)
    message = str(caught.value)
    assert isinstance(caught.value, MobileInstError)
    assert "\n" not in message
    assert any(name in message.lower() for name in fields)
    # It says what would be possible.
    assert any(word in message for word in ("expected", "multiple", "needed"))


def test_a_configuration_cannot_be_changed() -> None:
    config = MobileInstConfig.preset("topformer-base")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.dim = 128  # type: ignore[misc]
