"""Building: the same bytes twice, a golden that others contradict, a failed build that changes nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.runtimes
torch = pytest.importorskip("torch")

from golden import (  # noqa: E402
    DATA,
    networks,
    operations,
    videos,
)
from golden.build import build  # noqa: E402
from golden.case import Case, Confirmation, Golden  # noqa: E402
from golden.independent.mobileinst import MobileInst  # noqa: E402
from golden.independent.seaformer import SeaFormer  # noqa: E402
from golden.independent.topformer import TopFormer  # noqa: E402
from golden.independent.weights import load  # noqa: E402
from golden.store import read_manifest  # noqa: E402
from refimpl.errors import FileError, VerificationError  # noqa: E402


def some() -> list[Golden]:
    chosen = ("operations/conv.same", "operations/exp.ordinary", "probes/resize.ramp")
    named = [golden for golden in operations.goldens() if golden.name in chosen]
    return [*named, next(networks.goldens()), next(videos.goldens())]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_two_builds_give_the_same_bytes(tmp_path: Path) -> None:
    build(some(), tmp_path / "first")
    build(some(), tmp_path / "second")
    first = files(tmp_path / "first")
    assert first == files(tmp_path / "second")
    assert {Path(name).suffix for name in first} == {".safetensors", ".onnx", ".json"}


def contradicted(golden: Golden, source_error: float) -> Golden:
    """The golden with a truth that is off in one element by so many of the largest."""

    def case() -> Case:
        right = golden.case()
        ((name, truth),) = right.truth.items()
        wrong = truth.copy()
        wrong.flat[2] += source_error * np.abs(truth).max()
        wrong_case = dataclasses.replace(right, truth={name: wrong})

        def confirm() -> list[Confirmation]:
            from golden.case import FORMATS
            from golden.comparison import confirmed

            return [confirmed("a source", right.truth, wrong_case.truth, right.bounds(FORMATS["float32"]))]

        return dataclasses.replace(wrong_case, confirm=confirm)

    return dataclasses.replace(golden, case=case)


@pytest.mark.parametrize("error", [1e-11, 1e-3, np.nan])
def test_a_failed_build_leaves_the_old_set_untouched(tmp_path: Path, error: float) -> None:
    folder = tmp_path / "data"
    build(some(), folder)
    before = files(folder)
    spoilt = [contradicted(some()[0], error), *some()[1:]]
    with pytest.raises(VerificationError, match=r"operations/conv\.same: a source disagrees"):
        build(spoilt, folder)
    assert files(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_golden_that_nobody_confirms_is_not_built(tmp_path: Path) -> None:
    golden = some()[0]
    alone = dataclasses.replace(golden, case=lambda: dataclasses.replace(golden.case(), confirm=list))
    with pytest.raises(VerificationError, match="no independent implementation"):
        build([alone], tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_file_that_is_too_large_is_not_built(tmp_path: Path) -> None:
    golden = some()[0]

    def case() -> Case:
        return dataclasses.replace(golden.case(), inputs={"x": np.zeros(800_000, np.float32)})

    with pytest.raises(FileError, match="more than 3000000"):
        build([dataclasses.replace(golden, case=case)], tmp_path / "data")


# The networks' wiring, by modules that share no code with the reference.


def backbone(name: str) -> torch.nn.Module:
    if name == "topformer":
        spec = networks.MICRO_TOPFORMER
        return TopFormer(spec.rows, spec.taps, spec.heads)
    sea = networks.MICRO_SEAFORMER
    embedded = tuple(rows[-1][2] for rows in sea.stages[-len(sea.depths) :])
    return SeaFormer(sea.stages, sea.stem, sea.depths, sea.key_channels, embedded, sea.heads, sea.mlp_ratios)


@pytest.mark.parametrize("size", ["64x128", "96x64"])
@pytest.mark.parametrize("name", ["topformer", "seaformer"])
def test_the_micro_networks_are_those_of_independent_modules(name: str, size: str) -> None:
    entry = next(e for e in read_manifest(DATA) if e.name == f"models/{name}_{size}")
    inputs, truth = entry.tensors("input."), entry.tensors("truth.")
    images = torch.from_numpy(inputs.pop("x").astype(np.float64))
    config = networks.MICRO
    model = MobileInst(
        backbone(name),
        num_classes=config.num_classes,
        num_queries=config.num_queries,
        dim=config.dim,
        num_heads=config.num_heads,
    )
    model = load(model, {key: x.astype(np.float64) for key, x in inputs.items()})
    for key, tensor in model(images)._asdict().items():
        np.testing.assert_allclose(tensor.numpy(), truth[key], rtol=0, atol=1e-8 * np.abs(truth[key]).max())


def test_the_modules_are_the_ones_the_reference_is_tested_with() -> None:
    assert Path(pytorch_models.__file__).parent == Path(__file__).parent / "pytorch_models"
