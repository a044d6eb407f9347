"""The analytic gradients of the losses beside central differences, on a rendered two-frame scene."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from refimpl import MobileInst
from refimpl.errors import ConfigurationError
from refimpl.inference import preprocess
from refimpl.losses import Losses, TemporalLosses, temporal_losses
from refimpl.matching import Target
from refimpl.ops.operation import Array
from refimpl.query_passing import passed_masks
from refimpl.scenes import Frame, render_video

STEP = 1e-5
"""Half the distance of the two points of a difference: its error is of the order of the step squared."""
TOLERANCE = 1e-6
"""Allowed error of a directional derivative, relative to the norm of the gradient."""

Point = Mapping[str, Array]


@dataclass(frozen=True)
class CheckedTerm:
    """One loss, and its derivative in a random direction computed in two ways.

    Attributes
    ----------
    name
        Such as ``first.dice``.
    value
        The loss.
    analytic, numeric
        Product of the gradient with the direction, and the central difference.
    allowed
        Largest error that the difference's own truncation and rounding may cause.
    """

    name: str
    value: float
    analytic: float
    numeric: float
    allowed: float

    @property
    def verdict(self) -> str:
        """``pass`` or ``fail``."""
        return "pass" if abs(self.analytic - self.numeric) <= self.allowed else "fail"


def check_losses(network: MobileInst, height: int, width: int, seed: int) -> list[CheckedTerm]:
    """Compute every loss of a float64 network on frames 0 and 1 of a rendered video, and check its gradient.

    Parameters
    ----------
    network
        With float64 weights.
    height, width
        Size of the video, multiples of 32.
    seed
        Of the video, and of the direction.

    Raises
    ------
    ConfigurationError
        The network is SparseInst, which has no queries to pass.
    """
    point, targets = predictions(network, list(render_video(2, height, width, seed)))
    rng = np.random.default_rng(seed)
    direction = {name: _unit(rng.standard_normal(array.shape)) for name, array in point.items()}
    here = _losses(point, targets)
    before, after = (
        term_values(
            _losses({name: array + sign * STEP * direction[name] for name, array in point.items()}, targets)
        )
        for sign in (-1, 1)
    )
    gradients = term_gradients(here)
    return [
        _checked(name, value, gradients[name], direction, (after[name] - before[name]) / (2 * STEP))
        for name, value in term_values(here).items()
    ]


def predictions(network: MobileInst, frames: list[Frame]) -> tuple[dict[str, Array], list[Target]]:
    """Return what the losses are a function of, by name, and the ground truth of both frames."""
    first, second = (network(preprocess(frame.picture, sizing="native")[0]) for frame in frames)
    if first.global_queries is None:
        raise ConfigurationError(
            "SparseInst has no queries to pass to the other frame; choose a MobileInst preset"
        )
    point = {
        f"{name}.{field}": getattr(outputs, field)
        for name, outputs in (("first", first), ("second", second))
        for field in ("class_logits", "objectness", "masks")
    }
    point["passed.masks"] = passed_masks(network, first.global_queries, second.mask_features)
    return point, [_target(frame, network.config.num_classes) for frame in frames]


def term_values(losses: TemporalLosses) -> dict[str, float]:
    """Return every term by name, the total of each frame (Eq. 3), and that of the pair."""
    values = {}
    for frame, of_frame in (("first", losses.first), ("second", losses.second)):
        for name in ("classification", "dice", "pixel", "objectness"):
            values[f"{frame}.{name}"] = getattr(of_frame, name).value
        values[f"{frame}.total"] = of_frame.total
    values |= {"passed.dice": losses.passed_dice.value, "passed.pixel": losses.passed_pixel.value}
    return {name: float(value) for name, value in {**values, "total": losses.total}.items()}


def term_gradients(losses: TemporalLosses) -> dict[str, Point]:
    """Return each term's gradient with respect to the predictions it is a function of."""
    gradients: dict[str, Point] = {}
    for frame, of_frame in (("first", losses.first), ("second", losses.second)):
        gradients |= {
            f"{frame}.{name}": gradient for name, gradient in _frame_gradients(frame, of_frame).items()
        }
    gradients["passed.dice"] = {"passed.masks": losses.passed_dice.gradient}
    gradients["passed.pixel"] = {"passed.masks": losses.passed_pixel.gradient}
    passed = {"passed.masks": losses.passed_gradient()}
    gradients["total"] = {**gradients["first.total"], **gradients["second.total"], **passed}
    return gradients


def _frame_gradients(frame: str, losses: Losses) -> dict[str, Point]:
    total = losses.gradients()._asdict()
    return {
        "classification": {f"{frame}.class_logits": losses.classification.gradient},
        "dice": {f"{frame}.masks": losses.dice.gradient},
        "pixel": {f"{frame}.masks": losses.pixel.gradient},
        "objectness": {f"{frame}.objectness": losses.objectness.gradient},
        "total": {f"{frame}.{name}": gradient for name, gradient in total.items()},
    }


def _losses(point: Point, targets: list[Target]) -> TemporalLosses:
    first, second = (
        SimpleNamespace(
            **{field: point[f"{frame}.{field}"] for field in ("class_logits", "objectness", "masks")}
        )
        for frame in ("first", "second")
    )
    return temporal_losses(first, second, point["passed.masks"], targets[:1], targets[1:])


def _checked(name: str, value: float, gradient: Point, direction: Point, numeric: float) -> CheckedTerm:
    analytic = sum(float(np.vdot(array, direction[of])) for of, array in gradient.items())
    norm = np.sqrt(sum(float(np.vdot(array, array)) for array in gradient.values()))
    # Each of the two losses is a sum rounded to a few units of its last place.
    rounding = 16 * float(np.finfo(np.float64).eps) * abs(value) / STEP
    return CheckedTerm(name, value, analytic, numeric, TOLERANCE * float(norm) + rounding)


def _target(frame: Frame, classes: int) -> Target:
    """Return the visible instances; labels beyond the network's classes are folded into them."""
    visible = frame.masks.any(axis=(1, 2))
    return Target(frame.labels[visible] % classes, frame.masks[visible])


def _unit(array: Array) -> Array:
    return np.asarray(array / np.linalg.norm(array))
