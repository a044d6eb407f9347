"""The bounds of blocks and networks: no correct candidate exceeds one, and a small local fault does."""

from __future__ import annotations

import math
from pathlib import Path

import golden_candidate
import numpy as np
import pytest
from golden_candidate import CANDIDATES, ENTRIES, outputs, utilisations

from conformance.bounds import FLOAT32, Declaration
from conformance.bounds.envelope import envelope
from golden.computation import chain_bounds, noise_bounds, of_recording
from golden.declared import networks
from golden.judge import judge

PARTS = [entry for entry in ENTRIES.values() if entry.kind in ("block", "model")]


@pytest.mark.parametrize("title", CANDIDATES)
def test_no_correct_candidate_exceeds_a_bound(title: str) -> None:
    largest = {
        f"{entry.name} {name}": figure
        for entry in PARTS
        for name, figure in utilisations(entry, CANDIDATES[title](entry)).items()
    }
    assert {name: figure for name, figure in largest.items() if figure > 1} == {}


def test_every_bound_of_a_network_is_per_element() -> None:
    for entry in ENTRIES.values():
        if entry.kind == "model":
            shapes = entry.record["tensors"]
            for name in entry.outputs:
                exact = f"bound.float32.{name}" not in shapes
                for form in ("float32", "float16") if not exact else ():
                    bound, truth = (shapes[f"{role}.{name}"]["shape"] for role in (f"bound.{form}", "truth"))
                    # One number is for all where there is one element, or float16 is too narrow for a norm.
                    endless = bound == [] and np.isinf(entry.tensors(f"bound.{form}.")[name])
                    assert bound == truth or math.prod(truth) == 1 or (endless and form == "float16")


@pytest.mark.parametrize("name", ["models/seaformer_64x128", "models/sparseinst_resnet_96x160"])
def test_the_bound_of_an_element_is_sharper_than_one_for_the_tensor(name: str, tmp_path: Path) -> None:
    """Against the envelope: four times the largest deviation of eight runs, over all elements."""
    entry = ENTRIES[name]
    part = next(part for part in networks.PARTS if part.name == name)
    scalars = envelope(part.recording(np.float64), Declaration())
    bounds = entry.tensors("bound.float32.")
    ratios = np.concatenate([(bounds[name] / scalars[name]).ravel() for name in bounds])
    assert np.median(ratios) < 1 / 7
    # Equal, but for its rounding up to float32, where a tensor has made a single rounding.
    assert ratios.max() <= 1 + 2.0**-23

    given = outputs(entry)
    output = min(bounds, key=lambda tensor: bounds[tensor].min() / scalars[tensor])
    place = np.unravel_index(np.argmin(bounds[output]), bounds[output].shape)
    fault = 0.25 * scalars[output]
    given[output] = given[output].copy()
    given[output][place] += np.float32(fault)
    error = np.abs(given[output] - entry.tensors("truth.")[output])
    assert error.max() < scalars[output]  # one number for the tensor would let it pass
    golden_candidate.write(tmp_path, entry, given)
    wrong = [row for row in judge(tmp_path, only=[name]).rows if row.verdict == "fail"]
    assert [(row.output, row.index) for row in wrong] == [(output, tuple(map(int, place)))]


def test_a_bound_is_never_above_the_rigorous_one_and_has_a_floor() -> None:
    part = next(part for part in networks.PARTS if part.name == "models/sparseinst_resnet_96x160")
    recording = part.recording(np.float64)
    chain = chain_bounds(of_recording(recording, recording.outputs), recording.constants, FLOAT32)
    noise = noise_bounds(recording, recording.outputs, FLOAT32)
    for name, bound in ENTRIES[part.name].tensors("bound.float32.").items():
        wide = bound * (1 - 2**-20)  # rounded up to float32
        assert (wide <= chain[name]).all()
        assert (wide <= noise[name]).all()
        size = np.sqrt(np.mean(noise[name] ** 2))
        assert noise[name].min() >= 0.2 * size
