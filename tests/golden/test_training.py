"""Training: the loss falls, interruptions change nothing, gradients are differences, mistakes are named."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

pytestmark = pytest.mark.runtimes
torch = pytest.importorskip("torch")

from conformance.cli import app  # noqa: E402
from golden.learning.association import (  # noqa: E402
    TEMPERATURE,
    Followed,
    association_loss,
    followed_objects,
)
from golden.learning.network import LESSONS, Student, cell_classes, tall_targets  # noqa: E402
from golden.learning.samples import (  # noqa: E402
    Batch,
    pair_batch,
    picture_batch,
    scene_seed,
    size_of_step,
    training_scene,
)
from golden.learning.settings import KINDS, Settings  # noqa: E402
from golden.learning.shipped import rounded, ship, thinned  # noqa: E402
from golden.learning.start import digest, shipped_stages, starting_weights  # noqa: E402
from golden.learning.trainer import COLUMNS, Trainer, TrainingError  # noqa: E402
from refimpl import MobileInst, MobileInstConfig, Weights, held_out  # noqa: E402
from refimpl.errors import ConfigurationError, FileError, NonFiniteError, WeightsError  # noqa: E402
from refimpl.matching import Matching  # noqa: E402

CONFIG = MobileInstConfig.preset("topformer-tiny", dim=32, num_queries=8, num_classes=4)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def settings(**given) -> Settings:
    return Settings(CONFIG, **{"steps": 6, "batch": 2, "warmup": 2, **given})


def nothing(row) -> None:
    pass


def test_the_loss_falls_within_20_steps(tmp_path) -> None:
    rows: list[dict[str, float]] = []
    Trainer(settings(steps=20, batch=8, warmup=5), tmp_path).run(rows.append)
    first, last = (np.mean([row["total"] for row in part]) for part in (rows[:4], rows[-4:]))
    assert len(rows) == 20
    assert last < 0.85 * first


def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path) -> None:
    whole = Trainer(settings(), tmp_path / "whole")
    whole.run(nothing)
    begun = Trainer(settings(), tmp_path / "parts")
    begun.run(nothing, until=3)
    resumed = Trainer(settings(), tmp_path / "parts")
    assert resumed.step == 3
    resumed.run(nothing)
    for name, array in whole.weights().items():
        np.testing.assert_array_equal(array, resumed.weights()[name], name)


def test_the_log_has_a_row_for_the_first_step_and_every_column(tmp_path) -> None:
    Trainer(settings(kind="passing", association=0.5), tmp_path).run(nothing, until=1)
    with (tmp_path / "log.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert tuple(row) == COLUMNS
    assert all(float(row[name]) >= 0 for name in COLUMNS)


def test_other_options_are_refused_and_nothing_is_lost(tmp_path) -> None:
    Trainer(settings(), tmp_path).run(nothing, until=2)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(TrainingError, match=r"learning_rate 0\.001 became 0\.002"):
        Trainer(settings(learning_rate=2e-3), tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_a_damaged_checkpoint_is_named(tmp_path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"PK not a checkpoint")
    with pytest.raises(FileError, match=r"checkpoint\.pt is damaged"):
        Trainer(settings(), tmp_path)


def test_nan_is_named_and_the_checkpoint_stays_whole(tmp_path) -> None:
    Trainer(settings(), tmp_path).run(nothing, until=2)
    trainer = Trainer(settings(), tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with torch.no_grad():
        trainer.student.network.instance_decoder.class_head.bias[0] = float("nan")
    with pytest.raises(TrainingError, match=r"step 2.*NaN.*lower --learning-rate"):
        trainer.run(nothing)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_a_checkpoint_that_cannot_be_written_is_named_and_the_last_one_stays(tmp_path, monkeypatch) -> None:
    trainer = Trainer(settings(), tmp_path)
    trainer.run(nothing, until=1)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def full(state, path) -> None:
        path.write_bytes(b"half of it")
        raise RuntimeError("PytorchStreamWriter failed writing file: no space left")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(FileError, match=r"cannot write .*checkpoint\.pt: .*no space left.*whole"):
        trainer.run(nothing)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "log.csv"]


def test_weights_too_large_for_float16_are_named() -> None:
    with pytest.raises(NonFiniteError, match="a has numbers too large for float16"):
        rounded({"b": np.zeros(2, np.float32), "a": np.array([7e4], np.float32)})


def test_too_little_memory_is_named_and_the_checkpoint_stays(tmp_path, monkeypatch) -> None:
    """PyTorch calls it a RuntimeError; the command says what to make smaller and exits as on bad input."""
    arguments = ["golden", "train", str(tmp_path), "--steps", "3", "--batch-size", "2", "--set", "dim=32"]
    arguments += ["--set", "num_queries=5", "--set", "num_classes=4"]
    assert CliRunner().invoke(app, [*arguments, "--until", "1"]).exit_code == 0
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def exhausted(*given) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(torch.autograd, "backward", exhausted)
    refused = CliRunner().invoke(app, arguments)
    assert isinstance(refused.exception, MemoryError)
    assert "smaller --batch-size" in str(refused.exception)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [(1, 1), (0, 2)])
def test_gradients_are_differences_of_the_loss(kind: str, layers: tuple[int, int]) -> None:
    """Along the steepest direction of the heads and queries, for the matching found."""
    torch.manual_seed(3)
    config = MobileInstConfig.preset(
        "topformer-tiny",
        dim=32,
        num_queries=8,
        num_classes=4,
        global_layers=layers[0],
        local_layers=layers[1],
    )
    student = Student(config).eval()
    batch = picture_batch(1, 4, 0) if kind == "pictures" else pair_batch(1, 4, 0)
    moved = [
        student.network.instance_decoder.class_head.weight,
        student.network.instance_decoder.kernel_head[2].weight,
    ]
    lesson = LESSONS[kind](student, batch, 0.5)
    tensors, gradients = zip(*lesson.gradients, strict=True)
    torch.autograd.backward(tensors, [torch.from_numpy(np.asarray(g, np.float32)) for g in gradients])
    slopes = [tensor.grad.clone() for tensor in moved]
    slope = sum(float((s * s).sum()) for s in slopes)
    step = 1e-3 / slope**0.5
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for tensor, direction in zip(moved, slopes, strict=True):
                tensor += sign * step * direction
            terms = LESSONS[kind](student, batch, 0.5).terms
            values.append(terms["total"] + terms["cells"] + 0.5 * terms.get("association", 0.0))
            for tensor, direction in zip(moved, slopes, strict=True):
                tensor -= sign * step * direction
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, rel=0.03)


def test_the_loss_of_association_is_torch_cross_entropy_both_ways() -> None:
    generator = torch.Generator().manual_seed(0)
    cosines = (torch.rand((3, 6, 6), generator=generator, dtype=torch.float64) * 2 - 1).requires_grad_()
    pairs, first, second = torch.tensor([0, 0, 2]), torch.tensor([1, 4, 4]), torch.tensor([5, 0, 4])
    logits = cosines / TEMPERATURE
    ways = ((logits[pairs, first], second), (logits[pairs, :, second], first))
    expected = sum(torch.nn.functional.cross_entropy(*way) for way in ways) / 2
    expected.backward()
    objects = Followed(pairs.numpy(), first.numpy(), second.numpy())
    term = association_loss(cosines.detach().numpy(), objects)
    assert term.value == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(term.gradient, cosines.grad.numpy(), rtol=1e-10, atol=1e-14)


def test_objects_that_one_frame_lacks_are_not_followed() -> None:
    matchings = [Matching(np.array(q), np.array(i)) for q, i in (([7, 2], [1, 0]), ([3, 5], [0, 1]))]
    identities = [np.array([10, 11]), np.array([11, 12])]
    found = followed_objects(matchings, identities)
    assert [part.tolist() for part in found] == [[0], [7], [3]]
    nobody = followed_objects(matchings, [np.array([10, 11]), np.array([20, 21])])
    term = association_loss(np.zeros((1, 8, 8), np.float32), nobody)
    assert term.value == 0
    assert not term.gradient.any()


def test_a_clip_is_one_tall_picture() -> None:
    batch = pair_batch(5, 8, 0)
    for index, tall in enumerate(tall_targets(batch)):
        first, second = batch.targets[index], batch.targets[index + 4]
        height = first.masks.shape[1]
        before, after = (set(batch.identities[i].tolist()) for i in (index, index + 4))
        assert len(tall.labels) == len(before | after)
        assert tall.masks[:, :height].sum() == first.masks.sum()
        assert tall.masks[:, height:].sum() == second.masks.sum()
        both = tall.masks[:, :height].any(axis=(1, 2)) & tall.masks[:, height:].any(axis=(1, 2))
        assert both.sum() == len(before & after)


def test_cells_have_the_class_that_covers_half_of_them() -> None:
    batch = picture_batch(0, 4, 0)
    truth = cell_classes(batch.targets, 4, (16, 24))
    for found, target in zip(truth, batch.targets, strict=True):
        covered = np.zeros((4, 16, 24))
        for label, mask in zip(target.labels, target.masks, strict=True):
            covered[label] = np.maximum(covered[label], mask.reshape(16, 8, 24, 8).mean(axis=(1, 3)))
        certain = (covered < 0.2) | (covered > 0.8)
        np.testing.assert_array_equal(found[certain], covered[certain] > 0.5)
        assert certain.mean() > 0.9


def test_no_training_scene_is_held_out() -> None:
    """The least and the greatest of the seeds of a hundred runs, and each of what batches draw."""
    indices = [*range(0, 20_000_000, 99_991), 4_999_999, 5_000_000]
    seeds = {scene_seed(run, index) for run in range(100) for index in indices}
    assert min(seeds) >= 0
    assert max(seeds) < min(held_out.picture_seed(0), held_out.video_seed(0))
    assert all(training_scene((64, 96), 7, index).seed == scene_seed(7, index) for index in range(20))


def test_sizes_of_steps_are_multiples_of_32_and_fill_the_batch() -> None:
    sizes = {size_of_step(step, larger=True) for step in range(200)}
    assert sizes == {((128, 192), 1), ((192, 320), 2), ((256, 384), 4)}
    assert {size_of_step(step, larger=False) for step in range(50)} == {((128, 192), 1)}
    batch = pair_batch(next(s for s in range(99) if size_of_step(s, True)[1] == 2), 16, 0, larger=True)
    assert isinstance(batch, Batch)
    assert batch.images.shape == (8, 3, 192, 320)


@pytest.mark.parametrize(
    "given",
    [
        {"kind": "films"},
        {"steps": 0},
        {"batch": 3},
        {"learning_rate": 2.0},
        {"warmup": -1},
        {"association": -0.1},
    ],
)
def test_impossible_settings_are_refused(given) -> None:
    with pytest.raises(ConfigurationError, match=r"give|choose"):
        settings(**given)


def test_a_start_of_another_decoder_keeps_the_rest() -> None:
    given = Weights.seeded(CONFIG, 1)
    same = starting_weights(given, CONFIG, 0)
    assert digest(same) == digest(given)
    other = MobileInstConfig.preset("topformer-tiny", dim=32, num_queries=5, num_classes=4)
    part = starting_weights(given, other, 0)
    for name, array in part.items():
        if not name.startswith("instance_decoder."):
            np.testing.assert_array_equal(array, given[name])
    assert part["instance_decoder.queries"].shape == (5, 32)
    with pytest.raises(WeightsError, match="another network"):
        starting_weights(given, MobileInstConfig.preset("topformer-tiny", dim=64), 0)


def test_what_is_shipped_is_what_was_trained_rounded(tmp_path) -> None:
    trainer = Trainer(settings(), tmp_path / "run")
    trainer.run(nothing, until=2)
    log = (tmp_path / "run" / "log.csv").read_text()
    ship(tmp_path / "set", "small", trainer.weights(), CONFIG, log, {"machine": "none"}, pictures=2)
    assert {p.suffix for p in (tmp_path / "set").iterdir()} == {".json", ".csv", ".safetensors"}
    from refimpl.weights import read_arrays

    arrays = {}
    for path in (tmp_path / "set").glob("*.safetensors"):
        assert path.stat().st_size < 3_000_000
        arrays |= read_arrays(path)
    for name, array in trainer.weights().items():
        assert arrays[name].dtype == np.float16
        np.testing.assert_array_equal(arrays[name], array.astype(np.float16))
    MobileInst(CONFIG, Weights(arrays).astype(np.float32))


def test_a_thinned_log_keeps_its_means_and_its_end() -> None:
    rows = "\n".join(f"{step},{step / 10},,{step % 7}" for step in range(1, 1001))
    thin = list(csv.DictReader(thinned(f"step,seconds,passed,total\n{rows}\n").splitlines()))
    assert len(thin) == 200
    assert thin[-1]["step"] == "1000"
    assert np.mean([float(row["seconds"]) for row in thin]) == pytest.approx(50.05)
    assert {row["passed"] for row in thin} == {""}


def test_the_command_trains_resumes_and_refuses(tmp_path) -> None:
    arguments = ["golden", "train", str(tmp_path / "run"), "--steps", "3", "--batch-size", "2"]
    small = ["--set", "dim=32", "--set", "num_queries=5", "--set", "num_classes=4"]
    runner = CliRunner()
    assert runner.invoke(app, [*arguments, *small, "--until", "1"]).exit_code == 0
    finished = runner.invoke(app, [*arguments, *small])
    assert finished.exit_code == 0, finished.output
    assert "3 steps" in finished.output
    config = MobileInstConfig.preset("topformer-tiny", dim=32, num_queries=5, num_classes=4)
    Weights.load(tmp_path / "run" / "weights.safetensors", config)
    refused = runner.invoke(app, [*arguments, *small, "--seed", "1"])
    assert isinstance(refused.exception, TrainingError)
    assert "seed 0 became 1" in str(refused.exception)


def test_what_is_shipped_says_from_which_runs_it_came(tmp_path) -> None:
    """By a run's folder, then by a shipped set's name; an unfinished run is no start."""
    small = ["--batch-size", "2", "--set", "dim=32", "--set", "num_queries=5", "--set", "num_classes=4"]

    def train(name: str, *options: str):
        return CliRunner().invoke(app, ["golden", "train", str(tmp_path / name), *small, *options])

    unfinished = train("first", "--steps", "2", "--until", "1")
    assert unfinished.exit_code == 0, unfinished.output
    refused = train("second", "--start", str(tmp_path / "first"))
    assert "holds no finished run" in str(refused.exception)
    assert train("first", "--steps", "2").exit_code == 0
    more = ["--kind", "pairs", "--steps", "1", "--seed", "4", "--start", str(tmp_path / "first")]
    shipped = train("second", *more, "--ship", "small", "--ship-to", str(tmp_path / "set"))
    assert shipped.exit_code == 0, shipped.output
    training = json.loads((tmp_path / "set" / "manifest.json").read_text())["sets"]["small"]["training"]
    assert [(s["kind"], s["steps"], s["seed"]) for s in training["stages"]] == [("pictures", 2, 0)]
    assert (training["kind"], training["steps"], training["seed"]) == ("pairs", 1, 4)
    assert training["machine"].endswith("1 of them used")
    kinds = [stage["kind"] for stage in shipped_stages(training)]
    assert kinds == ["pictures", "pairs"]
    assert "versions" not in shipped_stages(training)[1]
