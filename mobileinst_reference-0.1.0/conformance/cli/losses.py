"""`mobileinst losses`: the losses of training, and whether their gradients are right."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from conformance.cli import options
from conformance.cli.job import Job
from conformance.cli.options import JsonFile
from conformance.evidence.gradient_check import CheckedTerm, check_losses
from refimpl import MobileInst, Weights
from refimpl.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Losses(Job):
    """Print each loss of training (Eq. 3 and query passing), its gradient checked by central differences.

    Exits 0 if every derivative in a random direction agrees with the analytic gradient, 1 if not.

    [bold]Examples[/bold]

      mobileinst losses --demo

      mobileinst losses --demo --set num_queries=20 --size 128x192 --seed 3 --json losses.json
    """

    doing = "the losses"

    demo: Annotated[
        bool, typer.Option("--demo", help="On two frames of a rendered video, with seeded weights.")
    ] = False
    model: Annotated[str, typer.Option("--model", metavar="PRESET", help="Named configuration.")] = (
        "topformer-tiny"
    )
    overrides: options.Set = None
    seed: options.Seed = None
    size: options.Size = None
    files: JsonFile

    def check(self) -> None:
        """Refuse what there is nothing to compute on."""
        if not self.demo:
            raise ConfigurationError(
                "losses needs --demo; for predictions of your own call refimpl.losses.losses"
            )

    def run(self) -> int:
        """Check every gradient, and print; 1 if one is wrong."""
        config, seed = options.configuration(self.model, self.overrides), self.seed or 0
        height, width = options.parse_size(self.size) or (192, 320)
        with options.working("losses and their gradients"):
            weights = Weights.seeded(config, seed).astype(np.float64)
            terms = check_losses(MobileInst(config, weights), height, width, seed)
        verdict = "pass" if all(term.verdict == "pass" for term in terms) else "fail"
        rows = [{**asdict(term), "verdict": term.verdict} for term in terms]
        if self.files.write({"verdict": verdict, "total": terms[-1].value, "terms": rows}):
            _print(terms, verdict)
        return 0 if verdict == "pass" else 1


def _print(terms: list[CheckedTerm], verdict: str) -> None:
    table = Table("loss", box=None)
    for name in ("value", "gradient · direction", "central difference", "error", "allowed"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for term in terms:
        error = abs(term.analytic - term.numeric)
        numbers = [f"{value:.9g}" for value in (term.value, term.analytic, term.numeric)]
        table.add_row(term.name, *numbers, f"{error:.1e}", f"{term.allowed:.1e}", term.verdict)
    options.console.print(table)
    options.console.print(
        f"{verdict.upper()}  total of both frames and the passed masks {terms[-1].value:.6f}; "
        "total = 2·classification + 2·(dice + pixel) + objectness (Eq. 3)",
        highlight=False,
    )
