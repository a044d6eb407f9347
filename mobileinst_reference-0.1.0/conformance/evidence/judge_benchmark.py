"""What a verdict costs, as multiples of one float64 forward of the same network in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from conformance.bounds.envelope import SAMPLES, envelope
from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate
from conformance.evidence.benchmark import Timing, peak_megabytes
from conformance.graph import onnx_export
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.alignment import CandidateTensors
from conformance.judge.nodes import judge_nodes
from conformance.judge.steps import compare_steps
from refimpl import MobileInst, MobileInstConfig, Weights, record
from refimpl.ops.operation import Array

FORWARD = "float64 forward"
NODES = "every node replayed, with bounds"
ENVELOPE = f"noise envelope of {SAMPLES} samples"
STEPS = "every step of the reference, aligned, with bounds"
LIMITS = {NODES: 5.0, ENVELOPE: SAMPLES + 1.0}
"""Stage → the forwards it may cost."""


def measure_judging(
    config: MobileInstConfig,
    weights: Weights,
    images: Array,
    threads: int,
    repeats: int,
    progress: Callable[[], None] = lambda: None,
) -> tuple[list[Timing], float]:
    """Time the stages of the verdict on our own export, in turn, after one warm-up of each.

    Parameters
    ----------
    config, weights
    images
        (B, 3, H, W), float32.
    threads
        Of BLAS, and so of all that judges in threads.
    repeats
    progress
        Called after each stage.

    Returns
    -------
    timings, megabytes
        Of each stage; peak resident memory of the process.
    """
    with threadpool_limits(threads):
        stages = _stages(config, weights, images)
        seconds: dict[str, list[float]] = {name: [] for name in stages}
        for repeat in range(repeats + 1):
            for name, stage in stages.items():
                start = time.perf_counter()
                stage()
                if repeat:
                    seconds[name].append(time.perf_counter() - start)
                progress()
    return [Timing(name, threads, tuple(each)) for name, each in seconds.items()], peak_megabytes()


def _stages(config: MobileInstConfig, weights: Weights, images: Array) -> dict[str, Callable[[], Any]]:
    narrow, wide = (MobileInst(config, weights.astype(dtype)) for dtype in (np.float32, np.float64))
    candidate = OnnxRuntimeCandidate(OnnxGraph.load(onnx_export.export(narrow, images)))
    captured = candidate.capture(images)
    recording = record(wide, images.astype(np.float64))
    declared = candidate.declaration
    formats = (declared.arithmetic, declared.storage, declared.runtime)
    given, feeds = {name: name for name in recording.outputs}, candidate.feeds(images)
    return {
        FORWARD: lambda: wide(images.astype(np.float64)),
        NODES: lambda: judge_nodes(candidate.graph, feeds, captured, declared, wide_float16=True),
        ENVELOPE: lambda: envelope(recording, *formats),
        STEPS: lambda: compare_steps(recording, given, CandidateTensors(captured), declared),
    }
