"""Who judges: this process, or Dask's workers."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from conformance.reports.report import InputReport
from conformance.sweep.pictures import Chunk, Picture
from conformance.sweep.rows import EXTRA, Rows
from conformance.sweep.screening import Limits
from conformance.sweep.station import Setup, Station
from refimpl.errors import ConfigurationError, MissingDependencyError, MobileInstError

AHEAD = 3
"""Chunks that wait or run, for each worker: none is idle, and few pictures are in memory."""
CONNECT, WORKERS = 10.0, 60.0
"""Seconds that a scheduler may take to answer, and the first worker to be there."""
POLL, ASK = 0.02, 5.0
"""Seconds between looks at whether something is finished, and at whether any worker is there."""
UNPROFILED = {"distributed.worker.profile.enabled": False}
"""Dask's profiler keeps an hour of stacks in each worker: hundreds of megabytes."""


class Pool(Protocol):
    """What judges pictures, here or elsewhere."""

    @property
    def described(self) -> str:
        """Who judges, and where that can be watched."""

    def calibrate(self, picture: Picture) -> InputReport | None:
        """Judge a picture in full; None if it cannot be read."""

    def judge(self, chunks: Iterable[Chunk], limits: Limits) -> Iterator[tuple[Chunk, Rows]]:
        """Yield the rows of every chunk as it is finished."""


class InProcess:
    """This process judges one chunk after another."""

    described = "in this process"

    def __init__(self, setup: Setup) -> None:
        self.station = Station(setup)
        self.calibrate = self.station.calibrate

    def judge(self, chunks: Iterable[Chunk], limits: Limits) -> Iterator[tuple[Chunk, Rows]]:
        """Yield the rows of every chunk, in order."""
        for chunk in chunks:
            yield chunk, self.station.judge(chunk, limits)


@contextmanager
def dask_pool(setup: Setup, workers: int | None, scheduler: str | None) -> Iterator[Pool]:
    """Give the workers of a scheduler, or as many new ones on this machine.

    Raises
    ------
    MissingDependencyError
        Dask is not installed.
    ConfigurationError
        There is no scheduler, or a worker has another version of the project or of the model.
    """
    distributed = import_distributed()
    # What a lost scheduler leads Dask's own tasks to is told as tracebacks; the sweep says it in one line.
    # Dask gives some of these a level of their own, which their parents' does not reach.
    for name in ("distributed", "distributed.client", "asyncio", "tornado", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if scheduler is None:
        import dask

        options = {"n_workers": workers, "threads_per_worker": 1, "silence_logs": logging.CRITICAL}
        with (
            dask.config.set(UNPROFILED),
            distributed.LocalCluster(**options) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield from _stationed(client, setup)
        return
    try:
        asyncio.run(asyncio.wait_for(_greeted(scheduler), CONNECT))
        client = distributed.Client(scheduler, timeout=CONNECT)
    except Exception as error:  # what an address of another kind, or another server's answer, leads Dask to
        raise ConfigurationError(
            f"no scheduler answers at {scheduler}; start one with dask scheduler, or give --workers"
        ) from error
    with client:
        yield from _stationed(client, setup)


async def _greeted(scheduler: str) -> None:
    """Exchange greetings with a scheduler: for these, its client waits without end."""
    from distributed.comm import connect

    (await connect(scheduler, timeout=CONNECT)).abort()


def _stationed(client: Any, setup: Setup) -> Iterator[Pool]:
    """Give the workers' pool, and take its stations away from them in the end."""
    pool = DaskPool(client, setup)
    try:
        pool.place_stations()
        yield pool
    finally:
        if client.status == "running":
            client.unregister_worker_plugin(pool.name)


def import_distributed() -> Any:
    """Return Dask's distributed.

    Raises
    ------
    MissingDependencyError
        It is not installed.
    """
    try:
        import distributed
    except ImportError as error:
        raise MissingDependencyError(
            f"--workers and --scheduler need Dask; install the extra 'sweep': {EXTRA}"
        ) from error
    return distributed


@dataclass
class StationPlugin:
    """Puts a station into every worker, also those that join or are started again later."""

    setup_of_station: Setup
    name: str
    station: Station | None = None
    refusal: MobileInstError | None = None

    def setup(self, worker: Any) -> None:
        """Make the station; another version of the project or of the model is refused."""
        for name in ("profile", "profile-cycle"):
            if callback := worker.periodic_callbacks.get(name):
                callback.stop()
        try:
            self.station = Station(self.setup_of_station)
        except MobileInstError as error:
            self.refusal = error  # a worker that joins later goes on all the same
            raise

    def teardown(self, worker: Any) -> None:
        """Let the candidate go: its process ends with it."""
        self.station = None


class DaskPool:
    """Dask's workers judge, for this sweep and none that others have them judge at the same time."""

    def __init__(self, client: Any, setup: Setup) -> None:
        self.client, self.setup = client, setup
        self.name = f"mobileinst-{secrets.token_hex(8)}"

    def place_stations(self) -> None:
        """Put a station into every worker.

        Raises
        ------
        ConfigurationError
            There is no worker, or one has another version of the project or of the model.
        """
        try:
            self.client.wait_for_workers(1, timeout=WORKERS)
        except OSError as error:  # TimeoutError is one
            raise ConfigurationError(
                "the scheduler has no worker; start some with dask worker ADDRESS --nthreads 1"
            ) from error
        self.client.register_plugin(_plugin(self.setup, self.name))

    @property
    def described(self) -> str:
        """How many workers there are, and the dashboard's address."""
        return f"by {self._count()} workers, dashboard {self.client.dashboard_link}"

    def _count(self) -> int:
        return max(sum(self.client.nthreads().values()), 1)

    def calibrate(self, picture: Picture) -> InputReport | None:
        """Have a picture judged in full.

        Raises
        ------
        ConfigurationError
            Workers die of it, or there is none; the scheduler is gone.
        """
        future = self.client.submit(_calibrated, self.name, picture, pure=False)
        self._wait(future.done)
        try:
            report: InputReport | None = _result(future)
        except import_distributed().scheduler.KilledWorker as error:
            raise ConfigurationError(
                f"workers died of {picture.name}, one after another; give them more memory, or leave it out"
            ) from error
        return report

    def judge(self, chunks: Iterable[Chunk], limits: Limits) -> Iterator[tuple[Chunk, Rows]]:
        """Yield the rows of every chunk as it is finished; few are under way at once."""
        distributed = import_distributed()
        waiting = iter(chunks)
        first = islice(waiting, AHEAD * self._count())
        under_way = {self._submit(chunk, limits): chunk for chunk in first}
        finished = distributed.as_completed(list(under_way))
        while under_way:
            self._wait(finished.has_ready)
            future = next(finished)
            chunk = under_way.pop(future)
            yield chunk, _rows(future, chunk)
            for following in islice(waiting, 1):
                new = self._submit(following, limits)
                under_way[new] = following
                finished.add(new)

    def _wait(self, ready: Callable[[], bool]) -> None:
        """Wait until something is finished, as long as there are workers.

        Raises
        ------
        ConfigurationError
            There has been none for a while.
        """
        there = asked = time.monotonic()
        while not ready():
            time.sleep(POLL)
            now = time.monotonic()
            if now - asked < ASK:
                continue
            asked = now
            with suppress(OSError, CancelledError):  # the scheduler is gone: what is waited for soon says so
                there = now if self.client.nthreads() else there
            if now - there > WORKERS:
                raise ConfigurationError(
                    "no worker is left; finished rows are kept: start some again, and give --resume"
                )

    def _submit(self, chunk: Chunk, limits: Limits) -> Any:
        return self.client.submit(_judged, self.name, chunk, limits, pure=False)


def _plugin(setup: Setup, name: str) -> Any:
    """Return the plugin as a class that Dask knows as one."""
    from distributed import WorkerPlugin

    return type("Plugin", (StationPlugin, WorkerPlugin), {})(setup, name)


def station_of(name: str) -> Station:
    """Return this worker's station.

    Raises
    ------
    ConfigurationError
        The worker joined later, and has another version of the project or of the model.
    """
    from distributed import get_worker

    plugin: StationPlugin = get_worker().plugins[name]
    if plugin.station is None:
        raise plugin.refusal or ConfigurationError("the worker has no station")
    return plugin.station


def _calibrated(name: str, picture: Picture) -> InputReport | None:
    return station_of(name).calibrate(picture)


def _judged(name: str, chunk: Chunk, limits: Limits) -> Rows:
    return station_of(name).judge(chunk, limits)


def _result(future: Any) -> Any:
    """Return what a worker found.

    Raises
    ------
    ConfigurationError
        The scheduler is gone.
    MobileInstError
        What the worker says.
    """
    try:
        return future.result()
    except MobileInstError:
        raise
    except (CancelledError, OSError) as error:
        raise ConfigurationError(
            f"the scheduler is gone ({error or type(error).__name__}); finished rows are kept: start it "
            "again, and give --resume"
        ) from error


def _rows(future: Any, chunk: Chunk) -> Rows:
    """Return the rows of a chunk; of one that workers died of, that they did."""
    try:
        rows: Rows = _result(future)
    except import_distributed().scheduler.KilledWorker as error:
        return _lost(chunk, error)
    return rows


def _lost(chunk: Chunk, error: Exception) -> Rows:
    """Return what is known of pictures whose workers died: nothing."""
    says = f"its workers died, one after another: {error}"
    told = {"judged": "broken", "verdict": "not judged", "says": says}
    return {"pictures": [{"picture": picture.name, **told} for picture in chunk.pictures]}
