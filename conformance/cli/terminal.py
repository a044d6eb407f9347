"""What is shown on the terminal: names from files are shown, never obeyed."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.text import Text

from conformance.reports.printable import printable

Progress = Callable[[str], None]


class PlainConsole(Console):
    """A console to which text is text: no markup, no emoji, no control characters; styles are given apart."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return text to be shown, what would steer a terminal replaced."""
        return super().render_str(printable(text), **options)

    def on_broken_pipe(self) -> None:
        """Let the error pass: by itself, rich would exit with 1, which is a verdict."""
        raise BrokenPipeError


# Started with its streams closed, Python has none; what is said then goes nowhere.
for stream in ("stdout", "stderr"):
    if getattr(sys, stream) is None:
        setattr(sys, stream, io.StringIO())

# A pipe has no width: tables are for reading, also in a log.
console = PlainConsole(width=None if sys.stdout.isatty() else 150)
progress_console = PlainConsole(stderr=True)


@contextmanager
def working(said: str) -> Iterator[Progress]:
    """Show what is being done; the function it gives changes the words."""
    with progress_console.status(Text(printable(said))) as status:
        yield lambda text: status.update(Text(printable(text)))


def coloured(said: str, style: str) -> Text:
    """Return words in a style, to be printed or put in a table."""
    return Text(printable(said), style)
