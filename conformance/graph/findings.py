"""What `lint` finds of a model on its way to a target."""

from __future__ import annotations

from dataclasses import dataclass

FAILS = "fails"
CHANGES = "changes the meaning"
REMARK = "fails on some devices"
ELSEWHERE = "runs on the CPU instead"
UNJUDGED = "not judged"
FAULTS = (FAILS, CHANGES)
"""What makes a model unfit for a target."""


@dataclass(frozen=True)
class Finding:
    """One thing that will not survive.

    Attributes
    ----------
    rule
        Name of the rule.
    node
        The node, input or "model" it is about.
    severity
        `FAILS`, `CHANGES`, `REMARK`, `ELSEWHERE` or `UNJUDGED`.
    happens, instead
        What happens, and what to do.
    """

    rule: str
    node: str
    severity: str
    happens: str
    instead: str

    def __str__(self) -> str:
        """Return the finding as one line."""
        return f"{self.rule}: {self.node}: {self.severity}: {self.happens}; {self.instead}"
