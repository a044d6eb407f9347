"""What outputs alone show over several inputs: a bias that the envelope hides, and none of right runtimes."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest
from narrow_network import CONFIG, exported, network, picture, weights

from conformance.bounds import Declaration
from conformance.bounds.envelope import envelope, perturbed
from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate
from conformance.candidates.plain import PythonCandidate
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.network import verify
from conformance.judge.systematic import power
from conformance.reports.report import Report
from refimpl import Recording, record
from refimpl.ops.operation import Array

pytestmark = pytest.mark.usefixtures("small_backbones")


@functools.cache
def recording() -> Recording:
    """Return the reference's run."""
    return record(network(np.float64), picture().astype(np.float64))


@functools.cache
def allowed() -> dict[str, float]:
    """Return the envelope of each output."""
    return envelope(recording(), Declaration())


@functools.cache
def runs() -> list[dict[str, Array]]:
    """Return perturbed runs."""
    return list(perturbed(recording(), Declaration(), samples=4, seed=7))


def truth(name: str) -> Array:
    """Return an output of the reference."""
    return recording().tensors[recording().outputs[name]]


def right(images: Array) -> dict[str, Array]:
    return {name: np.asarray(array) for name, array in network()(images).items()}


def judged(run: Callable[[Array], dict[str, Array]]) -> Report:
    return verify(PythonCandidate(run), CONFIG, weights(), {"scene": picture()})


def rounding(name: str) -> float:
    """Return the size of one rounding of an output: the root mean square of perturbed runs."""
    errors = [run[name] - truth(name) for run in runs()]
    return float(np.sqrt(np.mean(np.square(errors))))


def three_roundings(output: Array, name: str) -> Array:
    return output + np.float32(3 * rounding(name))


def half_the_envelope(output: Array, name: str) -> Array:
    return output + np.float32(0.5 * allowed()[name])


def half_the_envelope_either_way(output: Array, name: str) -> Array:
    signs = np.random.default_rng(0).choice([-1, 1], output.shape)
    return (output + 0.5 * allowed()[name] * signs).astype(np.float32)


def a_factor(output: Array, name: str) -> Array:
    return output * np.float32(1 + 0.5 * allowed()[name] / np.abs(output).max())


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (three_roundings, "class_logits"),
        (three_roundings, "masks"),
        (half_the_envelope, "objectness"),
        (half_the_envelope_either_way, "masks"),
        (a_factor, "class_logits"),
    ],
)
def test_what_the_envelope_hides_fails(change: Callable[[Array, str], Array], name: str) -> None:
    changed = change(right(picture())[name], name)
    assert np.abs(changed - truth(name)).max() < allowed()[name]
    report = judged(lambda images: (out := right(images)) | {name: change(out[name], name)})
    assert report.verdict == "fail"
    assert f"its output '{name}' is off systematically" in report.headline()


def test_what_differs_on_another_input_fails() -> None:
    seen = picture().tobytes()
    report = judged(lambda x: right(x) if x.tobytes() == seen else {"masks": right(x)["masks"]})
    assert report.verdict == "fail"


def onnx_runtime() -> Callable[[Array], dict[str, Array]]:
    return OnnxRuntimeCandidate(OnnxGraph.load(exported()), threads=1).run


@pytest.mark.usefixtures("published_backbones")
@pytest.mark.parametrize("run", [right, onnx_runtime()], ids=["numpy", "onnxruntime"])
def test_a_right_black_box_passes_and_the_power_is_said(run: Callable[[Array], dict[str, Array]]) -> None:
    report = judged(run)
    assert report.verdict == "pass"
    assert "outputs only, nothing inside was judged" in report.headline()
    power_said, unseen = report.leading.remarks
    assert "a bias of 3 would be found with probability 99.8%" in power_said
    assert unseen.startswith("outputs only: a wrong step is not seen that")


def test_the_power_is_that_of_the_model() -> None:
    """Eight averaged errors as large as the envelope's, of a normal distribution, shifted by three."""
    random = np.random.default_rng(0)
    found = np.abs(3 + random.standard_normal((20000, 8)).mean(axis=1)) > 2
    assert abs(found.mean() - power(3)) < 0.002
