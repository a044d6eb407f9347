"""What a verdict costs, as multiples of one float64 forward of the same network in the same run."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from threadpoolctl import threadpool_limits

from conformance.bounds.envelope import SAMPLES, envelope
from conformance.candidates.child_process import safe_environment
from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate
from conformance.evidence.benchmark import Timing
from conformance.evidence.floor import seconds_of
from conformance.evidence.memory import peak_megabytes
from conformance.graph import onnx_export
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.alignment import CandidateTensors
from conformance.judge.network import verify
from conformance.judge.nodes import judge_nodes
from conformance.judge.steps import compare_steps
from refimpl import MobileInst, MobileInstConfig, Weights, record
from refimpl.ops.operation import Array

FORWARD = "float64 forward"
NODES = "every node replayed, with bounds"
ENVELOPE = f"noise envelope of {SAMPLES} samples"
STEPS = "every step of the reference, aligned, with bounds"
KNOWN_STEPS = "every step, where its node is judged"
COLD, WARM = "processor time of the command, cold", "processor time of the command, again"
DIAGNOSES = {
    "weight": "diagnosis of a weight × 1.37",
    "resize": "diagnosis of corners aligned in a resize",
    "noise": "diagnosis of noise, which nothing explains",
}
"""Mistake → its stage."""
LIMITS = {
    NODES: 5.0,
    ENVELOPE: SAMPLES + 1.0,
    **dict.fromkeys(DIAGNOSES.values(), 3.0),
    COLD: 20.0,
    WARM: 10.0,
}
"""Stage → the forwards it may cost."""
COUNT = 5 + len(DIAGNOSES)
"""Stages of a verdict; with one thread the command is timed besides, by the processor's time."""


def measure_judging(
    config: MobileInstConfig,
    weights: Weights,
    images: Array,
    command: Sequence[str],
    threads: int,
    repeats: int,
    progress: Callable[[], None] = lambda: None,
) -> tuple[list[Timing], float]:
    """Time the stages of the verdict on our own export, in turn, after one warm-up of all but the cold one.

    The diagnoses are those of exports with a mistake in the middle of the network.

    Parameters
    ----------
    config, weights
    images
        (B, 3, H, W), float32.
    command
        What `mobileinst` is told to judge the same: once with nothing kept from before, once again. At one
        thread.
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
    with threadpool_limits(threads), tempfile.TemporaryDirectory() as folder:
        stages = _stages(config, weights, images)
        if threads == 1:
            stages[COLD] = lambda: _command_seconds(command, tempfile.mkdtemp(dir=folder))
            stages[WARM] = lambda: _command_seconds(command, folder)
        seconds: dict[str, list[float]] = {name: [] for name in stages}
        for repeat in range(repeats + 1):
            for name, stage in stages.items():
                if repeat:
                    seconds[name].append(stage())
                elif name != COLD:
                    stage()
                progress()
    return [Timing(name, threads, tuple(each)) for name, each in seconds.items()], peak_megabytes()


def _stages(config: MobileInstConfig, weights: Weights, images: Array) -> dict[str, Callable[[], float]]:
    """Return each stage, which says how many seconds it took."""
    narrow, wide = (MobileInst(config, weights.astype(dtype)) for dtype in (np.float32, np.float64))
    model = onnx_export.export(narrow, images)
    candidate = OnnxRuntimeCandidate(OnnxGraph.load(model))
    captured = candidate.capture(images)
    recording = record(wide, images.astype(np.float64))
    declared = candidate.declaration
    own = candidate.own_graph(images)
    nodes = judge_nodes(candidate.graph, candidate.feeds(images), captured, declared, wide_float16=True)
    given, feeds = {name: name for name in recording.outputs}, candidate.feeds(images)
    stages: dict[str, Callable[[], Any]] = {
        FORWARD: lambda: wide(images.astype(np.float64)),
        NODES: lambda: judge_nodes(candidate.graph, feeds, captured, declared, wide_float16=True),
        ENVELOPE: lambda: envelope(recording, declared),
        STEPS: lambda: compare_steps(recording, given, CandidateTensors(captured), declared),
        KNOWN_STEPS: lambda: compare_steps(
            recording, given, CandidateTensors(captured), declared, own=own, nodes=nodes
        ),
    }
    diagnoses = {
        stage: partial(_diagnosing, _mistaken(model, mistake), config, weights, images)
        for mistake, stage in DIAGNOSES.items()
    }
    return {**{name: partial(seconds_of, stage) for name, stage in stages.items()}, **diagnoses}


def _command_seconds(arguments: Sequence[str], cache: str) -> float:
    """Run the command as users do, BLAS with one thread; return the seconds of all processors."""
    program = [sys.executable, "-P", "-c", "from conformance.cli import main; main()", *arguments]
    limits = {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": cache}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(program, check=True, capture_output=True, env={**safe_environment(), **limits})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _diagnosing(model: onnx.ModelProto, config: MobileInstConfig, weights: Weights, images: Array) -> float:
    """Judge a wrong model; return the seconds from the beginning of the diagnosis, the last stage, on."""
    begun: list[float] = []
    candidate = OnnxRuntimeCandidate(OnnxGraph.load(model))
    report = verify(
        candidate, config, weights, {"scene": images}, progress=lambda said: begun.append(time.perf_counter())
    )
    assert report.verdict == "fail"
    return time.perf_counter() - begun[-1]


def _mistaken(model: onnx.ModelProto, mistake: str) -> onnx.ModelProto:
    """Return a model with a mistake in it."""
    wrong = onnx.ModelProto()
    wrong.CopyFrom(model)
    if mistake == "resize":
        resizes = [node for node in wrong.graph.node if node.op_type == "Resize"]
        modes = (
            x for x in resizes[len(resizes) // 2].attribute if x.name == "coordinate_transformation_mode"
        )
        next(modes).s = b"align_corners"
        return wrong
    kernels = [tensor for tensor in wrong.graph.initializer if len(tensor.dims) == 4]
    kernel = kernels[len(kernels) // 2]
    array = numpy_helper.to_array(kernel).copy()
    if mistake == "weight":
        array[: len(array) // 4] *= 1.37
    else:
        array += (
            np.float32(0.05) * array.std() * np.random.default_rng(0).standard_normal(array.shape, np.float32)
        )
    kernel.CopyFrom(numpy_helper.from_array(array, kernel.name))
    return wrong
