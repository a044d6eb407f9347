"""`mobileinst cache`: what is kept between verdicts, and clearing it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from conformance.cli.job import Job
from conformance.cli.options import JsonFile
from conformance.judge.weights_cache import cache_folder
from refimpl.errors import FileError

OURS = re.compile(r"[0-9a-f]{64}\.(json|weights|recording)|\.mobileinst-.*")
"""What this program writes there: envelopes, seeded weights, what was left unfinished; runs, once."""


class Cache:
    """Show where envelopes and seeded weights are kept between verdicts, and how much space they take.

    The place is $XDG_CACHE_HOME/mobileinst, or ~/.cache/mobileinst; weights take at most 512 MiB, the
    oldest go first. Nothing else than this program's own files is ever removed.

    [bold]Examples[/bold]

      mobileinst cache

      mobileinst cache --clear
    """


@dataclass(frozen=True, kw_only=True)
class CacheContents(Job):
    """Show or clear the cache."""

    doing = "showing the cache"

    clear: Annotated[bool, typer.Option("--clear", help="Remove all of it.")] = False
    json: JsonFile

    def run(self) -> int:
        """List, remove if asked to, and say so."""
        folder, files = cache_folder(), list(_files(cache_folder()))
        size = sum(path.stat().st_size for path in files)
        if self.clear:
            _remove(files)
        content = {"folder": str(folder), "files": len(files), "bytes": size, "cleared": self.clear}
        if self.json.write(content):
            said = ", removed" if self.clear else ""
            typer.echo(f"{folder}: {len(files)} files, {size / 1e6:.1f} MB{said}")
        return 0


def _files(folder: Path) -> Iterator[Path]:
    """Yield this program's own files in a folder, which may be missing."""
    if folder.is_dir():
        yield from (path for path in sorted(folder.iterdir()) if OURS.fullmatch(path.name) and path.is_file())


def _remove(files: list[Path]) -> None:
    for path in files:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise FileError(f"{path}: cannot be removed: {error.strerror or error}") from error


MODES = (CacheContents,)
