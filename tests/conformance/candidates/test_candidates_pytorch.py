"""PyTorch modules and exported programs as candidates, right and wrong."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from narrow_network import CONFIG, FIELDS, network, picture, weights

from conformance.candidates.kinds import Request, make
from conformance.candidates.plain import PythonCandidate
from conformance.candidates.process import IsolatedCandidate
from conformance.candidates.pytorch import PyTorchCandidate
from conformance.judge.network import verify
from conformance.reproduction.folder import reproduce
from conformance.reproduction.recorded_step import judge_folder
from refimpl.errors import CandidateError, FileError

torch = pytest.importorskip("torch")

from pytorch_faults import scale_attention, scale_bias  # noqa: E402

from golden.sources import independent  # noqa: E402
from golden.sources.independent.weights import load  # noqa: E402

pytestmark = pytest.mark.runtimes
REQUEST = Request("", CONFIG, weights())


def module() -> Any:
    """Return the independent implementation with the narrow network's weights."""
    return load(independent.MobileInst("topformer-tiny", **FIELDS), weights())


class AsMapping(torch.nn.Module):
    """The implementation with its outputs in a dict, which a saved program can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = module()

    def forward(self, images: Any) -> Any:
        return self.inner(images)._asdict()


def judged(candidate: Any) -> Any:
    """Judge on one small picture and return the report."""
    return verify(candidate, CONFIG, weights(), {"scene": picture()})


def test_a_module_run_eagerly() -> None:
    report = judged(PyTorchCandidate(module()))
    report.raise_on_failure()
    steps = report.inputs[0].steps
    assert sum(row.candidate is not None for row in steps) > 0.8 * len(steps)


PARTS = [(torch.nn.Dropout(0.1), True), (torch.nn.BatchNorm2d(3), True), (torch.nn.ReLU(), False)]


@pytest.mark.parametrize(("part", "otherwise"), PARTS, ids=lambda each: type(each).__name__)
def test_what_is_left_in_training_mode_is_said(part: Any, otherwise: bool) -> None:
    candidate = PyTorchCandidate(torch.nn.Sequential(part).train())
    assert [f"0 ({type(part).__name__})" in said for said in candidate.remarks] == [True] * otherwise
    candidate.given.eval()
    assert candidate.remarks == []


def test_it_is_said_from_another_process(tmp_path: Path) -> None:
    (tmp_path / "trained.py").write_text("import torch\nnet = torch.nn.Sequential(torch.nn.Dropout(0.5))\n")
    text = f"pytorch:{tmp_path / 'trained.py'}:net"
    with contextlib.closing(IsolatedCandidate(text, Request("", None, {}))) as candidate:
        candidate.run(picture())
        assert ["call .eval() before" in said for said in candidate.remarks] == [True]


def test_an_exported_program(tmp_path: Path) -> None:
    images = torch.from_numpy(picture().copy())
    torch.export.save(torch.export.export(AsMapping(), (images,)), tmp_path / "it.pt2")
    with pytest.raises(FileError, match="give --trust"):
        make(f"pytorch:{tmp_path / 'it.pt2'}", REQUEST)
    judged(make(f"pytorch:{tmp_path / 'it.pt2'}", replace(REQUEST, trusted=True))).raise_on_failure()


@pytest.mark.parametrize(
    ("fault", "place"),
    [
        (scale_attention, "backbone.trans.transformer_blocks.0.attn"),
        (lambda model: scale_bias(model, "mask_decoder.output.1.bn.bias"), "mask_decoder.output.1"),
    ],
)
def test_a_wrong_module_fails_at_the_fault(fault: Any, place: str, tmp_path: Path) -> None:
    wrong = module()
    fault(wrong)
    report = judged(PyTorchCandidate(wrong))
    assert report.verdict == "fail"
    first = report.inputs[0].first_fault
    assert first.step.startswith(place)
    assert first.candidate_nodes
    reference = network(np.float64)
    assert reproduce(tmp_path / "step", report, PyTorchCandidate(wrong), reference, picture())
    again = judge_folder(tmp_path / "step")
    assert (again.verdict, again.leading.first_fault.step) == ("fail", first.step)


def test_a_tensor_returned_by_a_callable_is_an_array() -> None:
    def run(images: Any) -> Any:
        with torch.no_grad():
            return module()(torch.from_numpy(images.copy()))

    judged(PythonCandidate(run)).raise_on_failure()


class Outside(torch.nn.Module):
    """Computes where PyTorch does not see it, as compiled code does, and returns some kind of tensor."""

    def __init__(self, kind: Any = lambda tensor: tensor) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, images: Any) -> Any:
        made = network()(images.numpy())
        return {name: self.kind(torch.from_numpy(array.copy())) for name, array in made.items()}


def test_what_is_computed_outside_is_not_missing() -> None:
    candidate = PyTorchCandidate(Outside())
    assert set(candidate.capture(picture())) == set(candidate.run(picture()))
    assert not candidate.captures_all
    judged(candidate).raise_on_failure()


@pytest.mark.parametrize("kind", [lambda tensor: tensor.to_sparse(), lambda tensor: tensor.to("meta")])
def test_tensors_without_numbers(kind: Any) -> None:
    with pytest.raises(CandidateError, match="its outputs are not arrays of numbers"):
        PyTorchCandidate(Outside(kind)).run(picture())


def test_what_cannot_be_loaded_or_run(tmp_path: Path) -> None:
    (tmp_path / "it.pt2").write_bytes(b"no program")
    with pytest.raises(FileError, match=r"it.pt2: is no exported program"):
        PyTorchCandidate.load(tmp_path / "it.pt2")
    with pytest.raises(CandidateError, match="it crashes: RuntimeError"):
        PyTorchCandidate(torch.nn.Linear(2, 3)).run(picture())
