"""Speed as ratios: the NumPy forward beside named peers, interleaved in one process with equal threads."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx.reference import ReferenceEvaluator
from threadpoolctl import threadpool_limits

from conformance.evidence.floor import product_of, seconds_of, total_macs
from conformance.graph.onnx_export import to_onnx
from conformance.graph.pytorch_replay import PyTorchReplay, import_torch
from conformance.silent_onnxruntime import onnxruntime
from refimpl import MobileInstConfig, Network, Weights, record
from refimpl.errors import MissingDependencyError
from refimpl.ops.operation import Array

NUMPY = "NumPy float32"
ONNX_REFERENCE = "onnx.reference"

Forward = Callable[[], Any]


@dataclass(frozen=True)
class Timing:
    """Seconds of one peer's forward, or of a stage of the judge, at a number of threads."""

    peer: str
    threads: int
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of the repeats."""
        return statistics.median(self.seconds)

    def ratio(self, other: Timing) -> float:
        """The median of the ratios to another's time in the same repeat."""
        return statistics.median(mine / its for mine, its in zip(self.seconds, other.seconds, strict=True))


def measure(
    config: MobileInstConfig,
    weights: Weights,
    images: Array,
    threads: int,
    repeats: int,
    progress: Callable[[], None] = lambda: None,
) -> list[Timing]:
    """Time each peer, one after another in every repeat, after a warm-up; the slow `onnx.reference` once."""
    with threadpool_limits(threads):
        peers = forwards(config, weights, images, threads)
        slow = {ONNX_REFERENCE: peers.pop(ONNX_REFERENCE)}
        seconds: dict[str, list[float]] = {name: [] for name in (*peers, *slow)}
        for forward in peers.values():
            forward()
        for repeat in range(repeats):
            for name, forward in {**peers, **(slow if repeat == 0 else {})}.items():
                seconds[name].append(seconds_of(forward))
                progress()
    return [Timing(name, threads, tuple(values)) for name, values in seconds.items()]


def forwards(config: MobileInstConfig, weights: Weights, images: Array, threads: int) -> dict[str, Forward]:
    """Return each peer's forward on the same numbers; PyTorch only where it is installed.

    The floor beside them: as many multiply–accumulates as one product of BLAS.
    """
    narrow, wide = (Network(config, weights.astype(dtype)) for dtype in (np.float32, np.float64))
    recording = record(narrow, images)
    model = to_onnx(recording, "benchmark")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    evaluator = ReferenceEvaluator(model)
    peers: dict[str, Forward] = {
        NUMPY: lambda: narrow(images),
        "NumPy float64": lambda: wide(images.astype(np.float64)),
        "ONNX Runtime": lambda: session.run(None, {"images": images}),
        ONNX_REFERENCE: lambda: evaluator.run(None, {"images": images}),
        "one sgemm": product_of(total_macs(recording), np.float32),
        "one dgemm": product_of(total_macs(recording), np.float64),
    }
    try:
        torch = import_torch()
    except MissingDependencyError:
        return peers
    torch.set_num_threads(threads)
    replay, tensor = PyTorchReplay(recording), torch.from_numpy(images)
    return {**peers, "PyTorch eager": lambda: replay(tensor)}
