"""What a training run is told; a resumed run must be told the same."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from refimpl import MobileInstConfig
from refimpl.errors import ConfigurationError

KINDS = ("pictures", "pairs", "passing", "clips")
"""Single pictures; pairs of frames without and with temporal query passing (paper 3.5); pairs matched as one
picture, which is not the paper's."""

PAIRED = ("pairs", "passing")
"""Those that can have the loss of association."""


@dataclass(frozen=True)
class Settings:
    """Options of a training run.

    Attributes
    ----------
    config
        The network.
    kind
        One of `KINDS`.
    steps
        Length of the run, and of its learning rate's schedule.
    batch
        Pictures in a step at 128×192; pairs count as two.
    learning_rate
        Its largest value: it rises for ``warmup`` steps, then falls as half a cosine to a hundredth.
    seed
        Decides the first weights and the order of the scenes.
    start
        SHA-256 of the weights the run starts from; empty: from nothing.
    minutes
        If above 0, the schedule follows the clock, not the steps: for a machine whose speed is not known.
    association
        Weight of the loss of association, which the paper has not; 0 leaves it out. Only pairs have it.
    """

    config: MobileInstConfig
    kind: str = "pictures"
    steps: int = 12_000
    batch: int = 16
    learning_rate: float = 1e-3
    warmup: int = 200
    seed: int = 0
    start: str = ""
    minutes: float = 0.0
    association: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what no run can do."""
        if self.kind not in KINDS:
            raise ConfigurationError(f"training on {self.kind!r} is unknown; choose one of {KINDS}")
        if self.steps < 1 or self.batch < 2 or self.batch % 2:
            raise ConfigurationError(
                f"{self.steps} steps of {self.batch} pictures were asked for; give at least 1 step and an "
                "even batch, so that pairs fill it"
            )
        if not 0 <= self.association < float("inf"):
            raise ConfigurationError(f"the loss of association weighs {self.association}; give at least 0")
        if self.association and self.kind not in PAIRED:
            raise ConfigurationError(
                f"training on {self.kind!r} associates nothing; give one of {PAIRED}, or no --association"
            )
        if not 0 < self.learning_rate < 1 or self.warmup < 0 or self.minutes < 0 or self.seed < 0:
            raise ConfigurationError(
                f"learning rate {self.learning_rate}, {self.warmup} steps of warm-up, {self.minutes} minutes "
                f"and seed {self.seed}: give a rate between 0 and 1, and the others at least 0"
            )

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return asdict(self)

    def differences(self, other: dict[str, Any]) -> list[str]:
        """Name each option that differs from another run's `to_json`, with both values."""
        mine = self.to_json()
        names = [field.name for field in fields(self) if mine[field.name] != other.get(field.name)]
        return [f"{name} {other.get(name)!r} became {mine[name]!r}" for name in names]
