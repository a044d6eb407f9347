"""The help of a command: options in groups, and examples that are never broken."""

from __future__ import annotations

from inspect import cleandoc
from typing import Any

import typer
from typer.core import TyperCommand

NETWORK, INPUT, CANDIDATE, RESULTS = "Network", "Input", "Candidate", "Results"
"""Groups of options."""
HEADING = "[bold]Examples[/bold]"


def described(text: str | None) -> dict[str, Any]:
    """Return what `typer.Typer.command` is told of a command.

    Parameters
    ----------
    text
        A docstring: what the command does and, under the heading *Examples*, command lines, a paragraph each.

    Examples
    --------
    >>> described("Do it.\\n\\n[bold]Examples[/bold]\\n\\n  mobileinst do --it\\n  --now")["cls"].examples
    ['mobileinst do --it --now']
    """
    help_text, _, examples = cleandoc(text or "").partition(HEADING)
    lines = [" ".join(each.split()) for each in examples.split("\n\n") if each.strip()]
    # A terminal breaks the lines where it ends, not where the docstring does.
    paragraphs = [" ".join(each.split()) for each in help_text.split("\n\n") if each.strip()]
    return {"help": "\n\n".join(paragraphs), "cls": type("Described", (_Described,), {"examples": lines})}


class _Described(TyperCommand):
    """A command whose examples are printed as they are: a terminal that folds them copies them whole."""

    examples: list[str]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help, then the examples."""
        super().format_help(ctx, formatter)
        if self.examples:
            typer.echo("Examples:\n")
            for example in self.examples:
                typer.echo(f"  {example}")
            typer.echo()
