"""Files whose tests all need an optional runtime are not even imported where such tests are not wanted."""

from __future__ import annotations

import copy
import functools
import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer.testing
from hypothesis import Phase, settings
from hypothesis.errors import UnsatisfiedAssumption

from conformance.allocation import keep_freed_memory

if TYPE_CHECKING:
    from conformance.bounds import Declaration
    from conformance.trackers.property import Property, _Run
    from refimpl import Recording
    from refimpl.ops.operation import Array

# A busy machine is no failure of what is tested.
settings.register_profile("untimed", deadline=None)
# Of a mutant it is asked whether a case finds it, not which is the smallest.
settings.register_profile("unshrunk", deadline=None, phases=(Phase.explicit, Phase.generate))
settings.load_profile("untimed")

# Of a verdict's own time a tenth is pages given back and asked for again; so it is of its tests'.
keep_freed_memory()

# What collecting makes stays to the end: no search for what nothing refers to need look at it.
gc.disable()


def pytest_collection_finish() -> None:
    """Collect garbage again, but of what is made from now on, and seldom: little of it refers to itself."""
    gc.enable()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out whole files of runtime tests under ``-m "not runtimes"``, instead of skipping them."""
    if config.option.markexpr != "not runtimes" or collection_path.suffix != ".py":
        return None
    return (
        True
        if "\npytestmark = pytest.mark.runtimes\n" in collection_path.read_text(encoding="utf-8")
        else None
    )


@pytest.fixture(scope="session", autouse=True)
def own_cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep what the commands keep between verdicts away from the user's own; all workers share it."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "cache"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def command_line_made_once() -> Iterator[None]:
    """Keep the command line between calls: Typer makes it of every command's signature, each time anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.testing, "_get_command", functools.cache(typer.main.get_command), raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def kept_envelopes(own_cache_folder: Path) -> Iterator[None]:
    """Keep envelopes between the verdicts of all tests: most are on one network's run on one picture."""
    from conformance.judge import course

    compute = course.cached_envelope
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            course,
            "cached_envelope",
            lambda recording, declared, folder, progress: compute(
                recording, declared, folder or own_cache_folder, progress
            ),
        )
        yield


@pytest.fixture(scope="session", autouse=True)
def kept_runs() -> Iterator[None]:
    """Keep the perturbed runs behind verdicts on outputs over several inputs: most are of the same."""
    from conformance.judge import envelope_cache, systematic

    compute, kept = systematic.perturbed, {}

    def perturbed(
        recording: Recording, declaration: Declaration, **counts: int
    ) -> Iterator[dict[str, Array]]:
        key = envelope_cache._key(recording, declaration), *sorted(counts.items())
        if key not in kept:
            kept[key] = list(compute(recording, declaration, **counts))
        yield from kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(systematic, "perturbed", perturbed)
        yield


class Noting:
    """A run of a property that keeps the cases it is given, and which of them are none."""

    def __init__(self, run: _Run) -> None:
        self.run, self.cases = run, list[tuple[Any, bool]]()

    @property
    def wanted(self) -> Property:
        return self.run.wanted

    def __call__(self, case: Any) -> None:
        kept = copy.deepcopy(case)
        try:
            self.run(case)
        except UnsatisfiedAssumption:
            self.cases.append((kept, False))
            raise
        self.cases.append((kept, True))

    def again(self, cases: list[tuple[Any, bool]]) -> bool:
        """Ask about cases of another run; tell whether Hypothesis, too, would have drawn these."""
        for case, satisfied in cases:
            try:
                self.run(copy.deepcopy(case))
            except UnsatisfiedAssumption:
                if satisfied:
                    return False
            else:
                if not satisfied:
                    return False
        return True


@pytest.fixture(scope="session", autouse=True)
def kept_cases() -> Iterator[None]:
    """Keep the cases drawn of each property: to draw them takes four times as long as to ask a tracker.

    To make a counterexample smaller, Hypothesis draws them itself.
    """
    from conformance.trackers import property as properties

    draw, kept = properties._drawn, dict[Any, list[tuple[Any, bool]]]()

    def drawn(run: _Run, cases: int, seed: int, shrink: bool) -> Callable[[], None]:
        key = run.wanted.name, repr(run.wanted.cases), cases, seed

        def asked() -> None:
            noting = Noting(run)
            if key in kept and not (shrink and run.wanted.history):
                try:
                    if noting.again(kept[key]):
                        return
                except Exception:
                    if not shrink:
                        raise
                run.tried, run.failure = 0, None
            draw(noting, cases, seed, shrink)()
            kept[key] = noting.cases

        return asked

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(properties, "_drawn", drawn)
        yield


@pytest.fixture(scope="module")
def small_backbones(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let networks stand on small backbones, where what is asked does not depend on a backbone's size."""
    from small_backbones import on_small_backbones

    with on_small_backbones(tmp_path_factory.mktemp("cache")):
        yield


@pytest.fixture
def published_backbones(tmp_path: Path) -> Iterator[None]:
    """Let the networks of a test stand on the published backbones, among others on small ones."""
    from small_backbones import on_the_published

    with on_the_published(tmp_path / "cache"):
        yield
