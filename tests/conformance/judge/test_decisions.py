"""Decisions: what flips within the allowed error is a tie, anything else a fault."""

from __future__ import annotations

import narrow_network
import numpy as np
import pytest

from conformance.candidates.plain import NumpyCandidate, PythonCandidate
from conformance.judge.decisions import boundary, compare_decisions
from conformance.judge.network import verify
from conformance.reports.report import MaskPicture
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


KINDS = ("kept instances", "labels", "mask pixels", "boundary pixels")
NONE = dict.fromkeys(KINDS, (0, 0))


def test_nothing_flips() -> None:
    assert counts(outputs(), outputs()) == NONE
    found = compare_decisions(outputs(), outputs(), ALLOWED)
    kept, labels, pixels, edge = found
    assert labels.smallest_margin == 1.0
    assert pixels.smallest_iou == 1.0
    assert (kept.count, labels.count, pixels.count, edge.count) == (2, 1, 2, 2)
    assert [decision.verdict for decision in found] == ["pass"] * 4
    assert pixels.picture == MaskPicture(0, 0, 1.0, ["#."])


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
    assert counts(reference, given) == {**NONE, "mask pixels": expected, "boundary pixels": expected}
    picture = compare_decisions(reference, given, ALLOWED)[2].picture
    assert picture == MaskPicture(0, 0, 0.0, ["<." if expected == (1, 0) else "-."])


def test_a_boundary_pixel_has_a_neighbour_on_the_other_side() -> None:
    """Against the definition, pixel by pixel."""
    masks = np.random.default_rng(0).random((3, 6, 7)) < 0.3
    masks[1] = True
    expected = np.zeros_like(masks)
    for place, y, x in np.ndindex(masks.shape):
        for down, right in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            if 0 <= y + down < 6 and 0 <= x + right < 7:
                expected[place, y, x] |= masks[place, y, x] != masks[place, y + down, x + right]
    np.testing.assert_array_equal(boundary(masks), expected)
    assert not boundary(masks)[1].any()


def test_flips_away_from_the_boundary_are_told_apart() -> None:
    mask = np.full((1, 1, 7, 9), -1.0)
    mask[..., 1:6, 1:6] = 1.0
    reference = {name: array[:, :1] for name, array in outputs().items()} | {"masks": mask}
    given = {**reference, "masks": mask.copy()}
    given["masks"][..., 3, 3] *= -1
    given["masks"][..., 1, 4] *= -1
    _, _, pixels, edge = compare_decisions(reference, given, ALLOWED)
    assert (pixels.flips, edge.flips) == (2, 1)
    assert pixels.smallest_iou == 23 / 25
    assert pixels.picture is not None
    assert "".join(pixels.picture.rows).count("-") == 2


def test_the_histogram_counts_every_decision_by_its_margin() -> None:
    network = narrow_network.network(np.float64)
    reference = dict(network(narrow_network.picture().astype(np.float64)).items())
    noise = np.random.default_rng(0).normal(0, 0.02, reference["masks"].shape)
    given = {**reference, "masks": reference["masks"] + noise}
    for decision in compare_decisions(reference, given, ALLOWED):
        histogram = decision.histogram
        assert histogram is not None
        below = histogram.edges.index(0.0)
        assert sum(histogram.agreed) + decision.ties + decision.flips == decision.count
        assert (sum(histogram.tied), sum(histogram.flipped)) == (decision.ties, decision.flips)
        counts = np.sum([histogram.agreed, histogram.tied, histogram.flipped], axis=0)
        assert counts[:below].sum() == decision.near
        # A tie of labels may be with another class than the second best.
        assert decision.kind == "labels" or not any(histogram.tied[below:])
        assert not any(histogram.flipped[:below])
    assert decision.flips > 0
    assert decision.ties > 0


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
    kept, labels, *_ = found
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
    pixels = report.inputs[0].decisions[2]
    assert pixels.flips > 0
    assert pixels.smallest_iou is not None
    assert pixels.smallest_iou < 0.5
    assert "flipped" in str(pixels)
    assert report.to_json()["inputs"][0]["decisions"][2]["flips"] == pixels.flips


@pytest.mark.parametrize("order", [(0, 2, 3, 1), (0, 2, 1, 3), (2, 3, 1, 0)])
def test_masks_in_another_order_of_axes_flip_nothing(order: tuple[int, ...]) -> None:
    reference = NumpyCandidate(narrow_network.CONFIG, narrow_network.weights())

    def run(images: Array) -> dict[str, Array]:
        given = reference.run(images)
        return {**given, "masks": np.ascontiguousarray(given["masks"].transpose(order))}

    scene = {"scene": narrow_network.picture()}
    report = verify(PythonCandidate(run), narrow_network.CONFIG, narrow_network.weights(), scene)
    report.raise_on_failure()
    assert {each.kind: each.flips for each in report.leading.decisions}["mask pixels"] == 0


def test_exchanged_names_of_outputs_are_said() -> None:
    right = NumpyCandidate(narrow_network.CONFIG, narrow_network.weights())

    def run(images: Array) -> dict[str, Array]:
        given = right.run(images)
        return {**given, "objectness": given["class_logits"], "class_logits": given["objectness"]}

    scene = {"scene": narrow_network.picture()}
    for function, count in ((run, 1), (right.run, 0)):
        report = verify(PythonCandidate(function), narrow_network.CONFIG, narrow_network.weights(), scene)
        said = [each for each in report.leading.remarks if "one another's names" in each]
        assert len(said) == count
        assert all("its 'objectness' is class_logits, 'class_logits' is objectness" in each for each in said)
