"""Any recorded number is what its printed operands make, worked out by a reader that shares nothing."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from printed_arithmetic import Formula, read
from typer.testing import CliRunner

import conformance.cli
from conformance.teaching.derivation import MOVES, Cell, derive, derive_deep, find_cell
from conformance.teaching.derivation_text import derivation_text
from conformance.teaching.rules import RULES
from refimpl import MobileInst, MobileInstConfig, Recording, Weights, record
from refimpl.config import PRESETS
from refimpl.costs import record_shapes
from refimpl.errors import ConfigurationError
from refimpl.graph import Node
from refimpl.held_out import held_out_picture
from refimpl.inference import preprocess
from refimpl.trained import trained_config

PER_NETWORK = 100
SEEDED = {"seaformer-tiny": (64, 96), "sparseinst-topformer-tiny": (64, 96), "sparseinst-r50": (64, 64)}


@functools.cache
def recorded(name: str) -> Recording:
    """Record the trained network on a held-out scene, or a seeded one on noise."""
    if name == "scenes-tiny":
        images, _ = preprocess(held_out_picture(0).picture, sizing=(192, 320))
        config, weights = trained_config(name), Weights.trained(name)
    else:
        images = np.random.default_rng(1).standard_normal((1, 3, *SEEDED[name]))
        config = MobileInstConfig.preset(name)
        weights = Weights.seeded(config, 0)
    return record(MobileInst(config, weights.astype(np.float64)), images)


def drawn(recording: Recording, count: int, seed: int) -> list[Cell]:
    """Draw cells of the recording, the operators in turn."""
    random = np.random.default_rng(seed)
    by_operator: dict[str, list[Node]] = {}
    for step in recording.steps:
        by_operator.setdefault(step.op_type, []).append(step)
    cells = []
    for place in range(count):
        steps = by_operator[sorted(by_operator)[place % len(by_operator)]]
        name = random.choice(steps[int(random.integers(len(steps)))].outputs)
        cells.append(Cell(str(name), tuple(int(random.integers(n)) for n in recording.tensors[name].shape)))
    return cells


@pytest.mark.parametrize("name", ["scenes-tiny", *SEEDED])
def test_the_printed_operands_make_the_recorded_number(name: str) -> None:
    recording = recorded(name)
    for place, cell in enumerate(drawn(recording, PER_NETWORK, seed=17)):
        derivation = derive(recording, cell)
        terms = (3, 1 << 30)[place % 2]
        printed = read(derivation_text(recording, derivation, terms=terms, digits=17))
        assert printed.cell == str(cell)
        assert printed.value == recording.tensors[cell.tensor][cell.index]
        for tensor, index, value in printed.places:
            assert recording.tensors[tensor][index] == value, (cell, tensor, index)
        if printed.source:
            source = find_cell(recording, printed.source)
            assert recording.tensors[source.tensor][source.index] == printed.value, cell
        else:
            assert derivation.bound is not None
            size = max(abs(printed.value), 1e-12)
            assert abs(printed.result() - printed.value) <= derivation.bound + 1e-14 * size, cell
            assert printed.places


def test_two_numbers_that_differ_are_not_taken_for_each_other() -> None:
    recording = recorded("scenes-tiny")
    text = derivation_text(recording, derive(recording, Cell("masks/MatMul", (0, 7, 500))), digits=17)
    printed = read(text)
    printed.rows["a"][0] *= 1.001
    bound = derive(recording, Cell("masks/MatMul", (0, 7, 500))).bound
    assert bound is not None
    assert abs(printed.result() - printed.value) > bound


@pytest.mark.parametrize("name", PRESETS)
def test_every_operator_of_every_network_is_derived(name: str) -> None:
    config = MobileInstConfig.preset(name)
    used = {step.op_type for step in record_shapes(config, 64, 64).steps}
    assert used <= RULES.keys() | MOVES


def test_the_reader_reads() -> None:
    assert Formula("2 + 3 * -(4 - 1)^2 / exp(0) + max(1, sqrt(16))", {}).value() == 2 - 27 + 4
    assert Formula("sum(a * b) / n", {"n": 2.0}, {"a": [1.0, 2.0], "b": [3.0, 4.0]}).value() == 5.5


# How deep.


def test_operands_are_derived_as_deep_as_asked() -> None:
    recording = recorded("scenes-tiny")
    cell = find_cell(recording, "masks[0,7,12,20]")
    counts = [len(derive_deep(recording, cell, depth, terms=2)) for depth in range(4)]
    assert counts[0] == 2  # moved, then the product
    assert counts == sorted(set(counts))
    names = [derivation.cell.tensor for derivation in derive_deep(recording, cell, 1, terms=2)]
    assert {"instance_decoder.kernel_head.2", "mask_decoder.output.0"} <= set(names)


def test_the_heaviest_terms_come_first_and_the_others_are_summed() -> None:
    recording = recorded("scenes-tiny")
    text = derivation_text(
        recording, derive(recording, Cell("masks/MatMul", (0, 7, 500))), terms=8, digits=17
    )
    printed = read(text)
    products = [abs(a * b) for a, b in zip(printed.rows["a"], printed.rows["b"], strict=True)]
    assert products == sorted(products, reverse=True)
    assert "the other 56" in text
    kernels, features = (recording.tensors[recording.outputs[name]] for name in ("kernels", "mask_features"))
    every = np.abs(kernels[0, 7] * features[0].reshape(64, -1)[:, 500])
    np.testing.assert_allclose(products, np.sort(every)[::-1][:8], rtol=1e-12)


# The command.


def ran(*words: str) -> str:
    """Return what the command prints."""
    result = CliRunner().invoke(conformance.cli.app, ["derive", *words], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_the_command_prints_and_writes_the_same(tmp_path: Path) -> None:
    text = ran("masks[0,7,12,20]", "--digits", "17", "--terms", "64", "--json", str(tmp_path / "j.json"))
    content = json.loads((tmp_path / "j.json").read_text())["derivations"]
    moved, product = (read(block) for block in text.strip().split("\n\n"))
    assert [moved.cell, product.cell] == [each["cell"] for each in content]
    columns = {each["symbol"]: each["values"] for each in content[1]["operands"]}
    assert sorted(product.rows["a"]) == sorted(columns["a"])
    assert content[1]["formula"] == "sum(a * b)"
    assert np.dot(columns["a"], columns["b"]) == pytest.approx(product.value, abs=content[1]["bound"])


@pytest.mark.parametrize(
    ("number", "said"),
    [
        ("mask[0,7,12,20]", r"called 'mask'; did you mean masks"),
        ("kernel[0,1,2]", r"did you mean kernels"),
        ("MASKS[0,7,12,20]", r"did you mean .*masks"),
        ("qqqq[0]", r"try class_logits"),
        ("", r"NUMBER is empty"),
        ("masks", r"has shape \(1, 20, 24, 40\); give 4 whole numbers, such as 'masks\[0,0,0,0\]'"),
        ("masks[0,7,12]", r"give 4 whole numbers"),
        ("masks[0,7,12,-1]", r"give 4 whole numbers"),
        ("masks[0,7,12,a]", r"give 4 whole numbers"),
        ("masks[0,7,12,40]", r"40 is out of range on axis 3: 0 to 39"),
        ("masks[0,20,0,0]", r"20 is out of range on axis 1: 0 to 19"),
    ],
)
def test_what_is_not_there_is_named(number: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        CliRunner().invoke(conformance.cli.app, ["derive", number], catch_exceptions=False)
    assert re.search(said, str(raised.value))


def test_the_papers_symbols_are_names() -> None:
    recording = recorded("scenes-tiny")
    for symbol, name in (
        ("M", "masks"),
        ("K", "kernels"),
        ("X_mask", "mask_features"),
        ("Q_G", "global_queries"),
    ):
        index = ",".join("0" * recording.tensors[recording.outputs[name]].ndim)
        assert find_cell(recording, f"{symbol}[{index}]") == find_cell(recording, f"{name}[{index}]")


def test_a_weight_an_input_and_a_constant_are_not_computed() -> None:
    assert "a weight, not computed" in ran("backbone.tpm.stem.0.c.weight[0,0,0,0]")
    assert "an input, not computed" in ran("images[0,0,0,0]")
    assert "a constant, not computed" in ran("masks/Reshape/literal_1[0]")
