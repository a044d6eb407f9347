"""What a sweep costs, measured on its rows, and what becomes of that on up to a thousand workers.

    python -m conformance.evidence.sweep_scale costs FOLDER...
    python -m conformance.evidence.sweep_scale forwards [MODEL...]
    python -m conformance.evidence.sweep_scale cluster FOLDER

``costs``: seconds, bytes and kept references by picture of finished sweeps, how busy their workers were,
how their memory grew. ``forwards``: a screened picture in float64 forwards, in processor time, the
candidate's process included. ``cluster``: Dask schedules the recorded chunks on simulated workers, which
sleep as long as a chunk took and return its rows; the client writes them. Needs the extra ``sweep``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from conformance.candidates.kinds import Request
from conformance.evidence.program import end_with
from conformance.graph import onnx_export
from conformance.pictures.picture import write_picture
from conformance.reports.report import Report
from conformance.sweep.merged import merge
from conformance.sweep.pictures import CHUNK, Chunk, Picture
from conformance.sweep.pools import EXTRA, DaskPool, import_distributed
from conformance.sweep.rows import TABLES, Row, Rows, read_rows, write_part
from conformance.sweep.screening import Limits
from conformance.sweep.station import Setup, Station, model_hash, project_hash
from refimpl import MobileInst, MobileInstConfig, Weights
from refimpl.errors import FileError, MissingDependencyError
from refimpl.scenes import render_picture
from refimpl.trained import is_trained, trained_config

PICTURES = 1_000_000
WORKERS = (1, 10, 100, 300, 1000)
THREADS = 50
"""Simulated workers that are threads of one of Dask's."""
FORWARDS = 8
"""Forwards of which the mean is taken."""
SIMULATED = 20.0
"""Seconds that a simulation takes if the cost model is right."""


# --- what a sweep has cost -------------------------------------------------------------------------


@dataclass(frozen=True)
class Costs:
    """What a finished sweep has cost.

    Attributes
    ----------
    pictures, workers
    screened, full
        Seconds of a picture; NaN without any.
    processor
        Seconds of a screened picture in the worker's own process.
    share
        Of the pictures that were judged in full.
    kept
        Share of the pictures whose reference was kept from an earlier sweep.
    read, written
        Bytes of a picture, and of its rows.
    busy
        Share of the workers' time, from the first picture's begin to the last one's end, spent on pictures.
    early, late
        Megabytes of a worker, in the median, in the second and the last eighth of its pictures.
    """

    pictures: int
    workers: int
    screened: float
    full: float
    processor: float
    share: float
    kept: float
    read: float
    written: float
    busy: float
    early: float
    late: float


def _parts(folder: Path) -> Path:
    """Return where a finished sweep's rows are; `FileError` if there is none."""
    parts = folder / "parts"
    if not parts.is_dir() or not any(parts.iterdir()):
        raise FileError(f"{folder} holds no sweep; give the folder that `mobileinst sweep` wrote")
    return parts


def costs(folder: Path) -> Costs:
    """Return what the sweep in a folder has cost."""
    parts = _parts(folder)
    rows = [row for part in read_rows(parts, "pictures") for row in part if row["sha256"]]
    written = sum(path.stat().st_size for path in parts.iterdir())
    screened = [row for row in rows if row["judged"] == "screened"]
    full = [row["seconds"] for row in rows if row["judged"] == "full"]
    workers = sorted({row["worker"] for row in rows})
    begun = min(row["ended"] - row["seconds"] for row in rows)
    spent = sum(row["seconds"] for row in rows)
    early, late = np.mean(
        [_grown([row for row in rows if row["worker"] == each]) for each in workers], axis=0
    )
    return Costs(
        len(rows),
        len(workers),
        _mean([row["seconds"] for row in screened]),
        _mean(full),
        _mean([row["processor"] for row in screened]),
        len(full) / len(rows),
        _mean([float(row["reference_cached"]) for row in rows]),
        _mean([row["bytes"] for row in rows]),
        written / len(rows),
        spent / len(workers) / (max(row["ended"] for row in rows) - begun),
        early,
        late,
    )


def _grown(rows: list[Row]) -> tuple[float, float]:
    """Return a worker's megabytes in the second and the last eighth of its pictures."""
    memory = [row["resident"] / 1e6 for row in sorted(rows, key=lambda row: row["ended"])]
    eighth = max(len(memory) // 8, 1)
    return float(np.median(memory[eighth : 2 * eighth] or memory)), float(np.median(memory[-eighth:]))


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


# --- a screened picture in forwards ----------------------------------------------------------------


def forwards(name: str, count: int = 2 * CHUNK) -> tuple[float, float]:
    """Return the processor seconds of a float64 forward, and of a picture that is screened.

    The pictures are new ones: nothing of them is kept. The candidate is our own export in ONNX Runtime.
    """
    trained = is_trained(name)
    config = trained_config(name) if trained else MobileInstConfig.preset(name)
    weights = Weights.trained(name) if trained else Weights.seeded(config, 0)
    size = (192, 320) if trained else (320, 640)
    images = np.zeros((1, 3, *size), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "own.onnx")
        onnx_export.save(onnx_export.export(MobileInst(config, weights), images), model)
        request = Request("", config, dict(weights), model, threads=1)
        hashes = model_hash("onnxruntime", model), project_hash()
        station = Station(
            Setup("onnxruntime", request, size, 300.0, 0.0, model_sha256=hashes[0], project_sha256=hashes[1])
        )
        pictures = tuple(_rendered(Path(folder), size, seed) for seed in range(CHUNK + count))
        item = station.calibrate(pictures[0])
        assert item is not None
        limits = Limits.of([Report([item], name, {}, "")])
        station.judge(Chunk(0, pictures[:CHUNK]), limits)  # the candidate's processes are started
        spent = _processor(lambda: station.judge(Chunk(1, pictures[CHUNK:]), limits))
        fed = images.astype(np.float64)
        forward = float(np.mean([_processor(lambda: station.network(fed)) for _ in range(FORWARDS)]))
    return forward, spent / count


def _rendered(folder: Path, size: tuple[int, int], seed: int) -> Picture:
    path = folder / f"{seed}.png"
    write_picture(path, render_picture(*size, seed))
    return Picture(path.name, path)


def _processor(work: Callable[[], object]) -> float:
    """Return the processor seconds of some work, here and in the processes that this one has started."""
    before = _used()
    work()
    return _used() - before


def _used() -> float:
    try:
        import psutil
    except ImportError as error:
        raise MissingDependencyError(f"processor time needs psutil; install {EXTRA}") from error
    here = psutil.Process()
    times = [each.cpu_times() for each in [here, *here.children(recursive=True)]]
    return float(sum(each.user + each.system for each in times))


# --- simulated workers -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Recorded:
    """The chunks of a finished sweep: how long each took, and its rows."""

    seconds: list[float]
    rows: list[Rows]

    @classmethod
    def of(cls, folder: Path) -> Recorded:
        """Read a finished sweep."""
        tables = {table: list(read_rows(_parts(folder), table)) for table in TABLES}
        rows = [dict(zip(TABLES, part, strict=True)) for part in zip(*tables.values(), strict=True)]
        return cls([sum(row["seconds"] or 0.0 for row in part["pictures"]) for part in rows], rows)


class SimulatedPool(DaskPool):
    """Dask's workers, which sleep as long as a chunk took and return its rows."""

    def __init__(self, client: Any, recorded: Recorded, factor: float) -> None:
        self.client, self.recorded, self.factor = client, recorded, factor

    def _submit(self, chunk: Chunk, limits: Limits) -> Any:
        place = chunk.place % len(self.recorded.rows)
        given = self.recorded.seconds[place] * self.factor, self.recorded.rows[place]
        return self.client.submit(_slept, *given, pure=False)


def _slept(seconds: float, rows: Rows) -> Rows:
    time.sleep(seconds)
    return rows


def simulated(recorded: Recorded, workers: int, chunks: int, factor: float = 1.0) -> float:
    """Return how many chunks a second are judged and written."""
    distributed = import_distributed()
    hosts = max(workers // THREADS, 1)
    cluster = distributed.LocalCluster(
        n_workers=hosts, threads_per_worker=workers // hosts, processes=False, dashboard_address=None
    )
    empty = (Chunk(place, ()) for place in range(chunks))
    with tempfile.TemporaryDirectory() as folder, cluster, distributed.Client(cluster) as client:
        pool = SimulatedPool(client, recorded, factor)
        began = time.perf_counter()
        for chunk, rows in pool.judge(empty, Limits({}, {})):
            write_part(Path(folder), chunk.place, rows)
        return chunks / (time.perf_counter() - began)


# --- printed ---------------------------------------------------------------------------------------


def print_costs(folders: Sequence[str]) -> None:
    """Print what sweeps have cost, one column each, and the efficiency beside the first."""
    found = [costs(Path(folder)) for folder in folders]
    for each in fields(Costs):
        print(f"{each.name:10s}", *(f"{getattr(one, each.name):12.4g}" for one in found))
    shares = [one.busy * found[0].screened / one.screened / found[0].busy for one in found]
    print(f"{'efficiency':10s}", *(f"{share:12.4g}" for share in shares))


def print_forwards(names: Sequence[str]) -> None:
    """Print what a screened picture costs."""
    for name in names or ("scenes-tiny", "topformer-base"):
        forward, screened = forwards(name)
        print(
            f"{name}: a float64 forward {forward:.3f} s, a screened picture {screened:.3f} s of processor "
            f"time, {screened / forward:.2f} forwards"
        )


def print_cluster(folder: str) -> None:
    """Print simulated sweeps, each beside what the cost model says, and 10⁶ pictures by the model."""
    recorded = Recorded.of(Path(folder))
    seconds = float(np.mean(recorded.seconds))
    most = simulated(recorded, 10, 500, 0.0)
    print(f"a chunk of {CHUNK} pictures: {seconds:.2f} s; the client takes {most:.0f} chunks a second")
    for workers in WORKERS:
        wanted = min(workers / seconds, most)
        chunks = max(round(wanted * SIMULATED), 3 * workers)
        rate = simulated(recorded, workers, chunks)
        print(
            f"{workers:5d} workers: {rate * CHUNK:7.1f} pictures/s, model {wanted * CHUNK:7.1f}, "
            f"{rate * seconds / workers:5.1%} of linear; 10⁶: {PICTURES / CHUNK / rate / 3600:.1f} h",
            flush=True,
        )
    print(f"the client is the limit from {most * seconds:.0f} workers on")
    _print_million(Path(folder), len(recorded.rows))


def _print_million(folder: Path, parts: int) -> None:
    """Print what 10⁶ pictures read, keep and take to merge."""
    began = time.perf_counter()
    merge(folder / "parts", candidate="", pictures="", total=0, command=str)
    merged = (time.perf_counter() - began) / parts * PICTURES / CHUNK
    cost = costs(folder)
    read, written = cost.read * PICTURES / 1e9, cost.written * PICTURES / 1e9
    files = len(TABLES) * PICTURES // CHUNK
    print(
        f"10⁶ pictures: {read:.0f} GB read, {written:.1f} GB of rows in {files} files, "
        f"merged in {merged / 60:.0f} min"
    )


def main() -> None:
    """Print what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parts = parser.add_subparsers(required=True, metavar="costs|forwards|cluster")
    for name, kind, several, printed, words in (
        ("costs", "FOLDER", "+", print_costs, "what finished sweeps have cost"),
        ("forwards", "NAME", "*", print_forwards, "what a screened picture costs, of models"),
        (
            "cluster",
            "FOLDER",
            None,
            print_cluster,
            "simulated workers, by a finished sweep's recorded chunks",
        ),
    ):
        part = parts.add_parser(name, help=words)
        part.add_argument("given", metavar=kind, nargs=several)
        part.set_defaults(printed=printed)
    given = parser.parse_args()
    given.printed(given.given)


if __name__ == "__main__":
    end_with(main)
