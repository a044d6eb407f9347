"""What kernel reuse saves: the cost per frame at several keyframe intervals in one run, and in operations."""

from __future__ import annotations

import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from conformance.graph import onnx_export
from conformance.video.networks import NumpyNetwork, OnnxPair
from refimpl import MobileInst, MobileInstConfig, Weights, record
from refimpl.costs import step_costs
from refimpl.inference import preprocess
from refimpl.model import KernelReuse, parameter_shapes
from refimpl.ops.operation import Array
from refimpl.scenes import make_scene, render_frame
from refimpl.tracker import Network, Tracker

PAPER_MILLISECONDS = {1: 154, 3: 143, 6: 140}
"""Table 7: latency per frame on the phone at each keyframe interval."""
NUMPY, ONNX_RUNTIME = "NumPy float32", "ONNX Runtime"


@dataclass(frozen=True)
class IntervalTiming:
    """Seconds per frame of one runtime at one keyframe interval, one value for each repeat."""

    runtime: str
    keyframe_interval: int
    seconds_per_frame: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of the repeats."""
        return statistics.median(self.seconds_per_frame)

    def ratio(self, other: IntervalTiming) -> float:
        """The median of the ratios to another interval's time in the same repeat."""
        pairs = zip(self.seconds_per_frame, other.seconds_per_frame, strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs)


def measure_intervals(
    config: MobileInstConfig,
    weights: Weights,
    size: tuple[int, int],
    threads: int,
    repeats: int,
    progress: Callable[[], None] = lambda: None,
    intervals: Sequence[int] = tuple(PAPER_MILLISECONDS),
) -> list[IntervalTiming]:
    """Track a rendered video at each interval in turn, in every repeat, after one warm-up.

    The clip holds whole periods of every interval. Association and masks are part of the cost, reading
    pictures is not.
    """
    frames = _clip(size, int(np.lcm.reduce(intervals)))
    with threadpool_limits(threads), tempfile.TemporaryDirectory() as folder:
        networks = _networks(MobileInst(config, weights.astype(np.float32)), frames[0], Path(folder), threads)
        seconds: dict[tuple[str, int], list[float]] = {(n, t): [] for n in networks for t in intervals}
        for network in networks.values():
            _track(network, frames[:2], 2)
        for _ in range(repeats):
            for (name, interval), values in seconds.items():
                start = time.perf_counter()
                _track(networks[name], frames, interval)
                values.append((time.perf_counter() - start) / len(frames))
                progress()
    return [IntervalTiming(*key, tuple(values)) for key, values in seconds.items()]


def _clip(size: tuple[int, int], frames: int) -> list[Array]:
    scene = make_scene(*size)
    pictures = (render_frame(scene, frame).picture for frame in range(frames))
    return [preprocess(picture, sizing="native", dtype=np.float32)[0] for picture in pictures]


def _networks(model: MobileInst, images: Array, folder: Path, threads: int) -> dict[str, Network[Array]]:
    paths = folder / "keyframe.onnx", folder / "reuse.onnx"
    onnx_export.save(onnx_export.export(model, images), paths[0])
    onnx_export.save(onnx_export.export_reuse(model, images), paths[1])
    return {NUMPY: NumpyNetwork(model), ONNX_RUNTIME: OnnxPair(*paths, threads)}


def _track(network: Network[Array], frames: Sequence[Array], interval: int) -> None:
    tracker = Tracker(interval)
    for frame in frames:
        if tracker.keyframe_due:
            tracker.keyframe(network.keyframe(frame))
        else:
            tracker.reuse(network.mask_features(frame))


@functools.lru_cache(maxsize=8)
def _operations(config: MobileInstConfig, size: tuple[int, int]) -> tuple[int, int]:
    """Multiply–accumulates of a keyframe and of a reused frame; weights of zero suffice."""
    weights = {name: np.zeros(shape, np.float32) for name, shape in parameter_shapes(config).items()}
    model, images = MobileInst(config, weights), np.zeros((1, 3, *size), np.float32)
    reuse = KernelReuse(model, np.zeros((1, config.num_queries, config.dim), np.float32))
    whole, reused = (sum(cost.macs for cost in step_costs(record(one, images))) for one in (model, reuse))
    return whole, reused


def operations_per_frame(config: MobileInstConfig, size: tuple[int, int], interval: int) -> float:
    """Return the multiply–accumulates per frame at a keyframe interval."""
    whole, reused = _operations(config, size)
    return (whole + (interval - 1) * reused) / interval
