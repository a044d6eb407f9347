"""Building: the same bytes twice, a golden that others contradict, a failed build that changes nothing."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

pytestmark = pytest.mark.runtimes
torch = pytest.importorskip("torch")

import golden_candidate  # noqa: E402

from conformance.bounds import FLOAT32  # noqa: E402
from golden import DATA  # noqa: E402
from golden.build import build  # noqa: E402
from golden.case import Case, Confirmation, Golden  # noqa: E402
from golden.computation import noise_bounds, of_recording  # noqa: E402
from golden.declared import blocks, operations, tracking  # noqa: E402
from golden.declared.part import Compute  # noqa: E402
from golden.sources import independent  # noqa: E402
from golden.sources import source as sources  # noqa: E402
from golden.sources.comparison import disagreement  # noqa: E402
from golden.sources.source import confirm_with_pytorch  # noqa: E402
from golden.store import Entry, read_manifest  # noqa: E402
from refimpl import ops  # noqa: E402
from refimpl.errors import FileError, VerificationError  # noqa: E402
from refimpl.instance_decoder import decoder_layer  # noqa: E402
from refimpl.mask_decoder import fuse, mask_decoder  # noqa: E402
from refimpl.ops.operation import Array  # noqa: E402
from refimpl.scope import Scope  # noqa: E402
from refimpl.topformer import Features, attention  # noqa: E402

MODELS = [entry for entry in read_manifest(DATA) if entry.kind == "model"]


def some() -> list[Golden]:
    chosen = ("operations/conv.same", "operations/exp.ordinary", "probes/resize.ramp")
    named = [golden for golden in operations.goldens() if golden.name in chosen]
    return [*named, next(blocks.goldens()), next(tracking.goldens())]


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
            from golden.sources.comparison import confirmed

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


# The wiring, by modules that share no code with the reference.


def swapped_keys(x: Array, w: Scope) -> Array:
    return decoder_layer(x, w["values", 1, 15, 32], w["keys", 1, 15, 32], w / "layer", 4)


def scaled_attention(x: Array, w: Scope) -> Array:
    return attention(ops.mul(x, 1.001), w / "attn", 2)


def passed_by(x: Array, w: Scope) -> Array:
    """The mask decoder, whose levels take themselves for their neighbours."""
    features = Features(x, w["x4", 1, 10, 3, 5], w["x5", 1, 12, 2, 3], w["x6", 1, 14, 1, 2])
    with mock.patch("refimpl.mask_decoder.fuse", lambda a, b, place: fuse(a, a, place)):
        return mask_decoder(features, w / "mask_decoder", 8, True)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("blocks/decoder_layer", swapped_keys),
        ("blocks/topformer_attention", scaled_attention),
        ("blocks/mask_decoder", passed_by),
    ],
)
def test_a_wiring_mistake_is_refused(name: str, wrong: Compute, tmp_path: Path) -> None:
    part = next(part for part in blocks.PARTS if part.name == name)
    mistaken = dataclasses.replace(part, compute=wrong)
    with pytest.raises(VerificationError, match=r"independent nn\.Module.*disagrees"):
        build([mistaken.golden()], tmp_path / "data")
    # To the operators, one by one, it is all the same: they replay the mistake.
    recording = mistaken.recording(np.float64)
    truth = {name: recording.tensors[tensor] for name, tensor in recording.outputs.items()}
    bounds = noise_bounds(recording, recording.outputs, FLOAT32)
    confirm_with_pytorch(of_recording(recording, recording.outputs), truth, bounds)


def test_a_part_without_a_tensor_in_its_module_is_refused(tmp_path: Path) -> None:
    part = next(part for part in blocks.PARTS if part.name == "blocks/sea_attention")
    everything = dataclasses.replace(part, every_tensor=True)
    renamed = {"attn.to_q": "attn.query"}
    results = sources.module_results(part.name, *everything.fed)
    fewer = {renamed.get(path, path): array for path, array in results.items()}
    with (
        mock.patch("golden.declared.part.module_results", return_value=fewer),
        pytest.raises(VerificationError, match=r"no tensor for \['attn\.to_q'\]"),
    ):
        build([everything.golden()], tmp_path / "data")


def test_the_modules_confirm_the_files() -> None:
    """What the set says of blocks and networks holds with today's PyTorch, every output of every golden."""
    for entry in read_manifest(DATA):
        if entry.kind in ("block", "model"):
            given = golden_candidate.by_pytorch(entry, "float64")
            truth, bounds = entry.tensors("truth."), entry.tensors("bound.float32.")
            known = {name: x for name, x in truth.items() if name in given}
            assert known.keys() >= {name for name in truth if "." not in name}
            assert disagreement(given, known, bounds)[1] is None, entry.name


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("entry", MODELS, ids=lambda entry: entry.name)
def test_the_modules_in_narrow_floats_stay_within_the_bounds(entry: Entry, dtype: str) -> None:
    given = golden_candidate.by_pytorch(entry, dtype)
    assert len(given) > 50
    assert max(golden_candidate.utilisations(entry, given).values()) <= 1


def test_the_independent_modules_share_nothing_with_the_reference() -> None:
    for path in Path(independent.__file__).parent.glob("*.py"):
        used = [line for line in path.read_text().splitlines() if "refimpl" in line and "import" in line]
        assert used in ([], ["from refimpl.ops.operation import Array"])


def test_without_pytorch_the_error_names_the_extra() -> None:
    code = (
        "import sys\n"
        "from golden.declared.blocks import PARTS\n"
        "from golden.sources.source import module_results\n"
        "fed = PARTS[0].fed\n"
        "assert 'torch' not in sys.modules\n"
        "sys.modules['torch'] = None\n"
        "module_results(PARTS[0].name, *fed)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "MissingDependencyError" in done.stderr
    assert "[torch]" in done.stderr
