"""Whether commands still print what a page shows: ``python tests/support/shown.py docs/trust.md``.

A block of ``bash`` is commands, each followed by comments: what it prints and its exit code unless that is 0.
``…`` in a line stands for any text, alone in a line for any lines; measured errors may differ from machine to
machine. A block that begins with ``# by hand`` is left out. With ``--write``, what was printed is written
into the page where it differs.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
BY_HAND = "# by hand"
MARK = "\x1e"
END = f'code=$?; echo; [ $code = 0 ] || echo "exit $code"; echo "{MARK}"'
WIDEST = 138
FIGURE = re.compile(r"\d\.\de[+-]\d\d")


@dataclass(frozen=True)
class Shown:
    """A command of a page, the lines that follow it, and where these begin and end in the page."""

    command: str
    printed: list[str]
    start: int
    stop: int


def commands(page: str) -> Iterator[Shown]:
    """Yield the commands of the page's blocks that are run."""
    lines, place = page.splitlines(), 0
    while place < len(lines):
        place += 1
        if lines[place - 1] != "```bash":
            continue
        run = not lines[place].startswith(BY_HAND)
        while lines[place] != "```":
            command, after = _command(lines, place)
            stop = after
            while lines[stop].startswith("#"):
                stop += 1
            if run:
                yield Shown(command, [line[2:] for line in lines[after:stop]], after, stop)
            place = stop


def _command(lines: list[str], start: int) -> tuple[str, int]:
    stop = start + 1
    while lines[stop - 1].endswith("\\"):
        stop += 1
    return "\n".join(lines[start:stop]), stop


def printed(shown: list[Shown]) -> list[list[str]]:
    """Run the commands in one shell at the root of the repository; return what each printed."""
    script = "".join(f"{each.command}\n{END}\n" for each in shown)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    finished = subprocess.run(
        ["bash", "-c", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=ROOT,
        env=environment,
        text=True,
        check=False,
    )
    return [
        [line.rstrip() for line in part.split("\n") if line.strip()]
        for part in finished.stdout.split(MARK)[:-1]
    ]


def pattern(lines: list[str]) -> re.Pattern[str]:
    """Return what such lines match."""
    made = ""
    for line in lines:
        if line == "…":
            made += r"(.*\n)*"
            continue
        texts = ("~".join(FIGURE.split(part)) for part in line.split("…"))
        made += ".*".join(re.escape(text) for text in texts).replace(r"\~", FIGURE.pattern) + r"\n"
    return re.compile(made)


def agrees(shown: Shown, lines: list[str]) -> bool:
    """Return whether a command printed what the page shows."""
    return pattern(shown.printed).fullmatch("".join(f"{line}\n" for line in lines)) is not None


def rewritten(page: str, shown: list[Shown], ran: list[list[str]]) -> str:
    """Return the page with what was printed where it differs, long lines cut."""
    lines = page.splitlines()
    for each, made in reversed(list(zip(shown, ran, strict=True))):
        if not agrees(each, made):
            cut = [line if len(line) <= WIDEST else f"{line[:WIDEST]}…" for line in made]
            lines[each.start : each.stop] = [f"# {line}" for line in cut]
    return "\n".join(lines) + "\n"


def main(path: Path, write: bool) -> None:
    """Print what differs; exit 1 if anything does."""
    page = path.read_text(encoding="utf-8")
    shown = list(commands(page))
    ran = printed(shown)
    if write:
        path.write_text(rewritten(page, shown, ran), encoding="utf-8")
    differing = [(each, made) for each, made in zip(shown, ran, strict=True) if not agrees(each, made)]
    for each, made in differing:
        print(
            "",
            each.command,
            *(f"- {line}" for line in each.printed),
            *(f"+ {line}" for line in made),
            sep="\n",
        )
    print(f"{len(shown)} commands, {len(differing)} print something else")
    sys.exit(bool(differing))


if __name__ == "__main__":
    main(Path(sys.argv[1]), "--write" in sys.argv)
