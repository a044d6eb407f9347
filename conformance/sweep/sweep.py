"""A sweep: limits from a few pictures judged in full, then all of them, part by part, kept as they come."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from conformance.files import atomic_write
from conformance.json_files import read_json
from conformance.judge.network import weights_hash
from conformance.pictures.picture import write_picture
from conformance.reports.report import InputReport, Report
from conformance.sweep.pictures import Chunk, Pictures
from conformance.sweep.pools import Pool
from conformance.sweep.rows import Rows, finished, write_part
from conformance.sweep.screening import Limits, drawn
from conformance.sweep.station import Setup
from refimpl.errors import ConfigurationError, FileError

CALIBRATED = 3
"""Pictures that are judged in full before all, for the limits that screening goes by."""
RUN, PARTS, FRAMES = "run.json", "parts", "frames"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "made_of": {"type": "object"},
        "limits": {
            "type": "object",
            "properties": {
                "outputs": {"type": "object", "additionalProperties": {"type": "number"}},
                "steps": {"type": "object", "additionalProperties": {"type": "string"}},
            },
            "required": ["outputs", "steps"],
        },
    },
    "required": ["made_of", "limits"],
}


@dataclass(frozen=True)
class Sweep:
    """What is judged, and where its rows are kept.

    Attributes
    ----------
    setup
    pictures
    folder
    """

    setup: Setup
    pictures: Pictures
    folder: Path

    @property
    def parts(self) -> Path:
        """Where the rows are."""
        return self.folder / PARTS

    @property
    def made_of(self) -> dict[str, Any]:
        """What a sweep that goes on must have in common with the one that stopped."""
        setup = self.setup
        return {
            "pictures": self.pictures.sha256,
            "project": setup.project_sha256,
            "model": setup.model_sha256,
            "candidate": setup.candidate,
            "network": repr(setup.config),
            "weights": weights_hash(setup.request.weights),
            "formats": str(setup.request.declaration),
            "size": list(setup.size),
            "share": setup.share,
            "seed": setup.seed,
        }

    def check(self, resume: bool) -> None:
        """Refuse a folder of another sweep, or of one that is not to go on.

        Raises
        ------
        ConfigurationError, FileError
        """
        path = self.folder / RUN
        if not path.exists():
            if resume and not self._is_begun():
                raise ConfigurationError(f"--resume: {self.folder} holds no sweep; leave it out")
            return
        if not resume:
            raise FileError(f"{self.folder} holds a sweep; give --resume to go on, or another --output")
        before = read_json(path, SCHEMA)["made_of"]
        other = [name for name, value in self.made_of.items() if before.get(name) != value]
        if other:
            raise ConfigurationError(
                f"--resume: {self.folder} is a sweep of another {', '.join(other)}; name another --output"
            )

    def _is_begun(self) -> bool:
        """Tell whether a sweep was interrupted here before it had limits, and so before any row."""
        return self.parts.is_dir() and not any(self.parts.iterdir())

    def run(self, pool: Pool, say: Callable[[str], None]) -> Iterator[int]:
        """Judge what is not judged yet; yield how many pictures are, part after part.

        Raises
        ------
        FileError
            No space is left; the rows that are finished are kept.
        """
        self.parts.mkdir(parents=True, exist_ok=True)
        limits = self._limits(pool, say)
        done = finished(self.parts)
        judged = sum(len(self.pictures.names_of(place)) for place in done)
        yield judged
        for chunk, rows in pool.judge(self.pictures.in_chunks(done), limits):
            self._save_frames(chunk, rows)
            write_part(self.parts, chunk.place, rows)
            judged += len(chunk.pictures)
            yield judged

    def file_of(self, name: str) -> Path:
        """Return the file of a picture; of a frame, where it is saved if it does not pass."""
        if self.pictures.video is None:
            return self.pictures.file_of(name)
        return self.folder / FRAMES / f"{name.replace(' ', '_')}.png"

    def _save_frames(self, chunk: Chunk, rows: Rows) -> None:
        """Save the frames that do not pass, so that each can be judged alone."""
        failing = {row["picture"] for row in rows["pictures"] if row["verdict"] != "pass"}
        for picture in chunk.pictures:
            if picture.pixels is not None and picture.name in failing:
                (self.folder / FRAMES).mkdir(exist_ok=True)
                write_picture(self.file_of(picture.name), picture.pixels)

    def _limits(self, pool: Pool, say: Callable[[str], None]) -> Limits:
        """Return the limits that were kept, or those of a few pictures judged in full."""
        path = self.folder / RUN
        if path.exists():
            kept = read_json(path, SCHEMA)["limits"]
            return Limits(kept["outputs"], kept["steps"])
        items: list[InputReport] = []
        for place in self._drawn():
            say(f"judging in full, for the limits: {self.pictures.names[place]}")
            items += filter(None, map(pool.calibrate, self.pictures.at([place])))
            if len(items) == CALIBRATED:
                break
        if not items:
            raise FileError(f"none of the {len(self.pictures)} pictures can be read")
        limits = Limits.of([Report(items, self.setup.candidate, {}, "")])
        with atomic_write(path) as temporary:
            content = {"made_of": self.made_of, "limits": asdict(limits)}
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        return limits

    def _drawn(self) -> list[int]:
        """Return the places of all pictures in an order that depends on the seed."""
        names, seed = self.pictures.names, self.setup.seed
        return sorted(range(len(names)), key=lambda place: drawn(seed, names[place], "limits"))
