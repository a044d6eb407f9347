"""What a forward could take at least, its multiply–accumulates as one product; and where its time goes."""

from __future__ import annotations

import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from conformance.graph.evaluation import evaluate_node
from refimpl import MobileInstConfig, Network, Recording, Weights, record
from refimpl.costs import StepCost, step_costs
from refimpl.ops.operation import Array

SLOWING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Variables that have OpenBLAS run on other kernels than the processor's own."""


@dataclass(frozen=True)
class OperationTime:
    """The time of all steps of one kind.

    Attributes
    ----------
    kind
        The operator; convolutions by their kernel.
    calls
    seconds
    macs
        Multiply–accumulates.
    floor
        Seconds that as many take as one product.
    """

    kind: str
    calls: int
    seconds: float
    macs: int
    floor: float


def blas_kernels() -> str:
    """Name the BLAS that NumPy runs on, its version and its kernels."""
    found = [each for each in threadpool_info() if each.get("user_api") == "blas"]
    # SciPy brings one of its own.
    found.sort(key=lambda each: "numpy" not in each["filepath"])
    return ", ".join(
        f"{each['internal_api']} {each['version']} ({each.get('architecture', 'kernels unknown')})"
        for each in found[:1]
    )


def slowed_by() -> list[str]:
    """Return what in the environment keeps BLAS from the processor's own kernels."""
    return [f"{name}={os.environ[name]}" for name in SLOWING if name in os.environ]


def product_of(macs: int, dtype: type) -> Callable[[], Array]:
    """Return one product of square matrices with as many multiply–accumulates."""
    side = max(1, round(macs ** (1 / 3)))
    random = np.random.default_rng(0)
    square: Array = random.standard_normal((side, side)).astype(dtype)
    return lambda: np.asarray(square @ square)


def total_macs(recording: Recording) -> int:
    """Return the multiply–accumulates of a run."""
    return sum(cost.macs for cost in step_costs(recording))


def profile(
    config: MobileInstConfig,
    weights: Weights,
    images: Array,
    threads: int,
    repeats: int,
    progress: Callable[[], None] = lambda: None,
) -> list[OperationTime]:
    """Time every step of a forward in the dtype of ``images``, and sum by kind, the longest first.

    Parameters
    ----------
    config, weights
    images
        (B, 3, H, W).
    threads
    repeats
        Of which each step's median counts.
    progress
        Called after each repeat.
    """
    with threadpool_limits(threads):
        recording = record(Network(config, weights.astype(images.dtype)), images)
        costs = step_costs(recording)
        macs = sum(cost.macs for cost in costs)
        product = product_of(macs, images.dtype.type)
        taken: list[list[float]] = [[] for _ in costs]
        floors: list[float] = []
        for _ in range(repeats):
            floors.append(seconds_of(product))
            for seconds, cost in zip(taken, costs, strict=True):
                seconds.append(_step_seconds(recording, cost))
            progress()
    rate = statistics.median(floors) / max(1, macs)
    return _by_kind(costs, [statistics.median(each) for each in taken], rate)


def _step_seconds(recording: Recording, cost: StepCost) -> float:
    operands = cost.step.operands(recording.tensors)
    return seconds_of(lambda: evaluate_node(cost.step, operands))


def seconds_of(run: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _by_kind(costs: list[StepCost], seconds: list[float], rate: float) -> list[OperationTime]:
    """Sum by kind; ``rate`` is seconds per multiply–accumulate of the floor."""
    kinds: dict[str, list[tuple[StepCost, float]]] = defaultdict(list)
    for cost, each in zip(costs, seconds, strict=True):
        kinds[_kind(cost)].append((cost, each))
    times = []
    for kind, found in kinds.items():
        macs = sum(cost.macs for cost, _ in found)
        times.append(OperationTime(kind, len(found), sum(each for _, each in found), macs, macs * rate))
    return sorted(times, key=lambda each: -each.seconds)


def _kind(cost: StepCost) -> str:
    step, weight = cost.step, cost.input_shapes[1] if len(cost.input_shapes) > 1 else None
    if step.operation != "Conv" or weight is None:
        return step.operation
    if step.attributes.get("group", 1) == weight[0] > 1:
        return f"Conv {weight[2]}×{weight[3]} depthwise"
    return f"Conv {weight[2]}×{weight[3]}"
