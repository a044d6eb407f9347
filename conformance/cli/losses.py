"""`mobileinst losses`: the losses of training, and whether their gradients are right."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from conformance.cli import options
from conformance.evidence.gradient_check import CheckedTerm, check_losses
from refimpl import MobileInst
from refimpl.errors import ConfigurationError


def losses(
    demo: Annotated[
        bool, typer.Option("--demo", help="On two frames of a rendered video, with seeded weights.")
    ] = False,
    model: options.Model = "topformer-tiny",
    overrides: options.Set = None,
    seed: options.Seed = 0,
    size: options.Size = None,
    json_file: options.Json = None,
) -> None:
    """Print each loss of training (Eq. 3 and query passing), its gradient checked by central differences.

    Exits 0 if every derivative in a random direction agrees with the analytic gradient, 1 if not.

    [bold]Examples[/bold]

      mobileinst losses --demo

      mobileinst losses --demo --set num_queries=20 --size 128x192 --seed 3 --json losses.json
    """
    if not demo:
        raise ConfigurationError(
            "losses needs --demo; for predictions of your own call refimpl.losses.losses"
        )
    config = options.configuration(model, overrides)
    height, width = options.parse_size(size) or (192, 320)
    with options.progress_console.status("losses and their gradients"):
        weights = options.load_weights(config, None, None, seed).astype(np.float64)
        terms = check_losses(MobileInst(config, weights), height, width, seed)
    verdict = "pass" if all(term.verdict == "pass" for term in terms) else "fail"
    rows = [{**asdict(term), "verdict": term.verdict} for term in terms]
    options.write_json(json_file, {"verdict": verdict, "total": terms[-1].value, "terms": rows})
    if str(json_file) != "-":
        _print(terms, verdict)
    raise typer.Exit(0 if verdict == "pass" else 1)


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
