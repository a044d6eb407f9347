"""What docs/architecture.md says of adding a runtime and a fault, done, and seen to work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from narrow_network import CONFIG, network, picture, weights

from conformance.bounds.declaration import Declaration
from conformance.candidates.candidate import Candidate
from conformance.candidates.kinds import KINDS, Request, make
from conformance.evidence.fault_score import Task, trial
from conformance.faults.catalogue import CATALOGUE, Site, Variant, fault
from conformance.judge.network import verify
from refimpl.errors import ConfigurationError
from refimpl.ops.operation import Array

pytestmark = pytest.mark.usefixtures("small_backbones")

# A runtime: a class with what `Candidate` has no body for, and a function of a `Request` among the kinds.


class Toy(Candidate):
    """The NumPy network behind a delegate that spoils what it is asked to spoil."""

    captures_all = False

    def __init__(self, spoilt: str) -> None:
        self.spoilt = spoilt

    @property
    def declaration(self) -> Declaration:
        """float32."""
        return Declaration()

    def run(self, images: Array) -> Mapping[str, Array]:
        """Return the outputs by name."""
        outputs = dict(network()(images).items())
        return {name: 1.01 * x if name == self.spoilt else x for name, x in outputs.items()}

    def capture(self, images: Array) -> Mapping[str, Array]:
        """Return the outputs: nothing else can be had."""
        return self.run(images)


def toy(request: Request) -> Candidate:
    """``toy``, ``toy:NAME``."""
    return Toy(request.options)


@pytest.mark.parametrize(("name", "verdict"), [("toy", "pass"), ("toy:objectness", "fail")])
def test_a_toy_runtime_is_judged_by_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, verdict: str
) -> None:
    request = Request("", CONFIG, weights())
    with pytest.raises(ConfigurationError, match="no candidate 'toy'"):
        make(name, request)
    monkeypatch.setitem(KINDS, "toy", toy)
    report = verify(make(name, request), CONFIG, weights(), {"picture": picture()})
    assert report.verdict == verdict
    failed = [row.name for row in report.inputs[0].outputs if row.verdict == "fail"]
    assert failed == ([] if verdict == "pass" else ["objectness"])


# A fault: a function under `fault` that yields what would be computed instead.


@pytest.fixture
def registered() -> Iterator[str]:
    """Register a toy fault for one test, and return its name."""
    before, name = dict(CATALOGUE), "activation/toy"

    @fault(name, "Relu", source="nobody: a toy")
    def turned(site: Site) -> Iterator[Variant]:
        """ReLU that turns what is negative around, halved."""
        yield site.instead("slope −1/2", "LeakyRelu", site.call.inputs[0], alpha=-0.5)

    yield name
    CATALOGUE.clear()
    CATALOGUE.update(before)


def test_a_toy_fault_is_injected_found_and_named(registered: str) -> None:
    result = trial(Task("sparseinst-topformer-tiny", registered, 0))
    assert CATALOGUE[registered].happens.startswith("ReLU that turns")
    assert result.detected
    assert result.blamed == result.expected
    assert registered in result.diagnoses
    assert not result.harmless
