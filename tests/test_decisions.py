"""Decisions: what flips within the allowed error is a tie, anything else a fault."""

from __future__ import annotations

import narrow_network
import numpy as np
import pytest

from conformance.decisions import compare_decisions
from conformance.plain_candidates import NumpyCandidate, PythonCandidate
from conformance.verification import verify
from refimpl.inference import Placement, postprocess
from refimpl.ops.operation import Array

ALLOWED = {"class_logits": 0.01, "objectness": 0.01, "masks": 0.01}


def outputs() -> dict[str, Array]:
    """Two queries, of which the first is kept, with two classes and a mask of 1×2 pixels."""
    return {
        "class_logits": np.array([[[2.0, 1.0], [-20.0, -20.5]]]),
        "objectness": np.array([[[1.0], [1.0]]]),
        "masks": np.array([[[[1.0, -1.0]], [[0.0, 0.0]]]]),
    }


def changed(name: str, index: tuple[int, ...], value: float) -> dict[str, Array]:
    """Return the outputs with one number changed."""
    result = {key: array.copy() for key, array in outputs().items()}
    result[name][index] = value
    return result


def counts(reference: dict[str, Array], given: dict[str, Array]) -> dict[str, tuple[int, int]]:
    """Return kind → (ties, flips)."""
    return {item.kind: (item.ties, item.flips) for item in compare_decisions(reference, given, ALLOWED)}


NONE = {"kept instances": (0, 0), "labels": (0, 0), "mask pixels": (0, 0)}


def test_nothing_flips() -> None:
    assert counts(outputs(), outputs()) == NONE
    kept, labels, pixels = compare_decisions(outputs(), outputs(), ALLOWED)
    assert labels.smallest_margin == 1.0
    assert pixels.smallest_iou == 1.0
    assert (kept.count, labels.count, pixels.count) == (2, 1, 2)


@pytest.mark.parametrize(("behind", "expected"), [(0.015, (1, 0)), (0.025, (0, 1))])
def test_labels(behind: float, expected: tuple[int, int]) -> None:
    reference = changed("class_logits", (0, 0, 1), 2.0 - behind)
    given = changed("class_logits", (0, 0, 1), 2.0 + 1e-6)
    assert counts(reference, given) == {**NONE, "labels": expected}


@pytest.mark.parametrize(("distance", "expected"), [(0.009, (1, 0)), (0.011, (0, 1))])
def test_mask_pixels(distance: float, expected: tuple[int, int]) -> None:
    threshold = float(np.log(0.45 / 0.55))
    reference = changed("masks", (0, 0, 0, 0), threshold + distance)
    given = changed("masks", (0, 0, 0, 0), threshold - 1e-6)
    assert counts(reference, given) == {**NONE, "mask pixels": expected}


@pytest.mark.parametrize(("distance", "expected"), [(0.019, (1, 0)), (0.021, (0, 1))])
def test_kept_instances(distance: float, expected: tuple[int, int]) -> None:
    # With equal logits the score is the probability itself, so both have their part in the distance.
    threshold = float(np.log(0.005 / 0.995))
    reference, given = (
        changed("objectness", (0, 1, 0), threshold),
        changed("objectness", (0, 1, 0), threshold),
    )
    reference["class_logits"][0, 1] = [threshold + distance, -30]
    given["class_logits"][0, 1] = [threshold - 1e-6, -30]
    assert counts(reference, given)["kept instances"] == expected


def test_margins_are_those_of_inference() -> None:
    network = narrow_network.network(np.float64)
    raw = network(narrow_network.picture().astype(np.float64))
    instances = postprocess(raw, Placement.unscaled(*narrow_network.SIZE))
    found = compare_decisions(dict(raw.items()), dict(raw.items()), dict.fromkeys(ALLOWED, 0.0))
    kept, labels, _ = found
    assert labels.count == len(instances)
    assert kept.smallest_margin == pytest.approx(np.abs(instances.keep_margins).min(), rel=1e-12)


def test_a_flip_fails_and_is_said() -> None:
    right = NumpyCandidate(narrow_network.CONFIG, narrow_network.weights())

    def turned(images: Array) -> dict[str, Array]:
        given = right.run(images)
        return {**given, "masks": -given["masks"]}

    scenes = {"scene": narrow_network.picture()}
    report = verify(PythonCandidate(turned), narrow_network.CONFIG, narrow_network.weights(), scenes)
    assert report.verdict == "fail"
    pixels = report.inputs[0].decisions[-1]
    assert pixels.flips > 0
    assert pixels.smallest_iou is not None
    assert pixels.smallest_iou < 0.5
    assert "flipped" in str(pixels)
    assert report.to_json()["inputs"][0]["decisions"][-1]["flips"] == pixels.flips
