"""The training loop: AdamW, a cosine schedule, an average of the weights, and a checkpoint every minute."""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from golden.learning.network import LESSONS, Lesson, Student
from golden.learning.samples import Batch, pair_batch, picture_batch
from golden.learning.settings import Settings
from golden.learning.start import CHECKPOINT, Start, read_checkpoint, stages_of
from refimpl.errors import FileError, MobileInstError, NonFiniteError

Array = NDArray[Any]

LOG = "log.csv"
COLUMNS = (
    "step",
    "seconds",
    "learning_rate",
    "total",
    "classification",
    "dice",
    "pixel",
    "objectness",
    "passed",
    "association",
    "cells",
    "gradient_norm",
)
SECONDS_BETWEEN_CHECKPOINTS = 45.0
STEPS_BETWEEN_ROWS = 20
WEIGHT_DECAY = 0.02
LARGEST_GRADIENT = 2.0
AVERAGE_DECAY = 0.998
LARGER_FROM = 0.6
"""Share of the schedule after which some steps have larger pictures."""


class TrainingError(MobileInstError, RuntimeError):
    """Training that cannot go on: resumed with other options, or its loss is no number."""


class Trainer:
    """A run in a folder, which holds its checkpoint and its log.

    Parameters
    ----------
    settings
    folder
        Made if it is missing; a checkpoint in it is resumed.
    start
        If the run does not start from nothing.

    Raises
    ------
    TrainingError
        The folder's run had other options.
    FileError
        Its checkpoint cannot be read.
    """

    def __init__(self, settings: Settings, folder: Path, start: Start | None = None) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.folder = settings, folder
        self.student = Student(settings.config).to(memory_format=torch.channels_last)
        self.before = start.stages if start else []
        if start is not None:
            load_network(self.student, start.weights)
        self.optimizer = torch.optim.AdamW(_groups(self.student), lr=settings.learning_rate, fused=True)
        self.step, self.seconds = 0, 0.0
        self.rows: list[dict[str, Any]] = []
        folder.mkdir(parents=True, exist_ok=True)
        self.average = _state(self.student)
        if (folder / CHECKPOINT).exists():
            self._resume()

    @property
    def progress(self) -> float:
        """The finished share of the schedule, 0…1."""
        if self.settings.minutes:
            return min(self.seconds / (60 * self.settings.minutes), 1.0)
        return self.step / self.settings.steps

    def run(self, advance: Callable[[dict[str, Any]], None], until: int | None = None) -> None:
        """Train to the end, or to step ``until``; ``advance`` is told each step's row of the log."""
        saved = begun = time.monotonic()
        before = self.seconds
        try:
            while self.progress < 1 and (until is None or self.step < until):
                row = self._learn()
                self.seconds = before + time.monotonic() - begun
                if self.step % STEPS_BETWEEN_ROWS == 0 or self.step == 1:
                    self.rows.append(row | {"seconds": round(self.seconds, 1)})
                if time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS:
                    self.save()
                    saved = time.monotonic()
                advance(row)
        except NonFiniteError as error:
            raise TrainingError(
                f"step {self.step}: {error}; the last checkpoint is whole; lower --learning-rate"
            ) from error
        self.save()

    def _learn(self) -> dict[str, Any]:
        """One step; returns its row of the log."""
        rate = self._learning_rate()
        lesson = LESSONS[self.settings.kind](self.student, self._batch(), self.settings.association)
        if not math.isfinite(sum(lesson.terms.values())):
            raise NonFiniteError(f"the loss is not finite: {lesson.terms}")
        norm = self._descend(lesson, rate)
        if not math.isfinite(norm):
            raise NonFiniteError("the gradient is not finite")
        self.step += 1
        self._update_average()
        return {"step": self.step, "learning_rate": rate, "gradient_norm": norm, **lesson.terms}

    def _learning_rate(self) -> float:
        rising = min((self.step + 1) / max(self.settings.warmup, 1), 1.0)
        falling = 0.01 + 0.99 * (1 + math.cos(math.pi * self.progress)) / 2
        return self.settings.learning_rate * rising * falling

    def _batch(self) -> Batch:
        make = picture_batch if self.settings.kind == "pictures" else pair_batch
        larger = self.settings.kind != "pictures" or self.progress > LARGER_FROM
        return make(self.step, self.settings.batch, self.settings.seed, larger)

    def _descend(self, lesson: Lesson, rate: float) -> float:
        """Hand the gradients to autograd and take the step; returns the gradient's norm before clipping."""
        self.optimizer.zero_grad()
        tensors, gradients = zip(*lesson.gradients, strict=True)
        torch.autograd.backward(tensors, [torch.from_numpy(np.asarray(g, np.float32)) for g in gradients])
        norm = torch.nn.utils.clip_grad_norm_(self.student.parameters(), LARGEST_GRADIENT)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return float(norm)

    def _update_average(self) -> None:
        decay = min(AVERAGE_DECAY, (1 + self.step) / (10 + self.step))
        current = [tensor.detach() for tensor in _floats(self.student).values()]
        torch._foreach_lerp_(list(self.average.values()), current, 1 - decay)

    def weights(self) -> dict[str, Array]:
        """The averaged weights of the network, by name, float32."""
        prefix = "network."
        return {
            name.removeprefix(prefix): tensor.contiguous().numpy()
            for name, tensor in self.average.items()
            if name.startswith(prefix)
        }

    def stages(self) -> list[dict[str, Any]]:
        """Return the stages that led here, this run the last."""
        return stages_of(
            {
                "settings": self.settings.to_json(),
                "step": self.step,
                "seconds": self.seconds,
                "stages": self.before,
            }
        )

    # Files.

    def save(self) -> None:
        """Write the checkpoint and the log, each whole or not at all."""
        state = {
            "settings": self.settings.to_json(),
            "student": self.student.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "rows": self.rows,
            "stages": self.before,
        }
        _replace(self.folder / CHECKPOINT, lambda path: torch.save(state, path))
        _replace(self.folder / LOG, self._write_log)

    def _write_log(self, path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
            writer.writeheader()
            for row in self.rows:
                writer.writerow({name: _short(value) for name, value in row.items()})

    def _resume(self) -> None:
        state = read_checkpoint(self.folder / CHECKPOINT)
        different = self.settings.differences(state["settings"])
        if different:
            raise TrainingError(
                f"{self.folder} holds a run with other options: {'; '.join(different)}; give the same, or "
                "another folder"
            )
        self.student.load_state_dict(state["student"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average = state["average"]
        self.step, self.seconds, self.rows = state["step"], state["seconds"], state["rows"]


def load_network(student: Student, weights: dict[str, Array]) -> None:
    """Put weights by name into the network."""
    tensors = {name: torch.from_numpy(np.array(array, np.float32)) for name, array in weights.items()}
    missing, extra = student.network.load_state_dict(tensors, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or extra:
        raise FileError(f"weights to start from lack {missing} and have {extra}, which the network has not")


def _floats(student: Student) -> dict[str, Tensor]:
    return {name: t for name, t in student.state_dict().items() if t.is_floating_point()}


def _state(student: Student) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in _floats(student).items()}


def _groups(student: Student) -> list[dict[str, Any]]:
    """Weights of convolutions and products decay; norms, biases and queries do not."""
    decaying = [p for name, p in student.named_parameters() if p.ndim > 1 and not name.endswith("queries")]
    others = [p for name, p in student.named_parameters() if p.ndim <= 1 or name.endswith("queries")]
    return [{"params": decaying, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]


def _short(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside ``path``, then put it in its place."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        write(temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch.save raises the latter where a file cannot be written
        temporary.unlink(missing_ok=True)
        raise FileError(
            f"cannot write {path}: {error}; what was saved before is whole; check the folder and its disk, "
            "then give the same command again"
        ) from error
