"""The cost model of sweeps, read off rows that are known; Dask schedules tasks that only sleep."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from conformance.evidence.sweep_pictures import clipped
from conformance.evidence.sweep_scale import Recorded, costs, simulated
from conformance.sweep.rows import Row, write_part


def row(worker: str, began: float, seconds: float, **told: object) -> Row:
    """Return the row of a picture."""
    return {
        "picture": f"{worker} {began}",
        "sha256": "0",
        "judged": "screened",
        "seconds": seconds,
        "processor": seconds / 2,
        "ended": began + seconds,
        "worker": worker,
        "bytes": 100,
        "resident": 2_000_000,
        "reference_cached": False,
        **told,
    }


def swept(folder: Path, *parts: list[Row]) -> Path:
    """Write parts as a sweep does."""
    (folder / "parts").mkdir()
    for place, rows in enumerate(parts):
        write_part(folder / "parts", place, {"pictures": rows})
    return folder


def test_costs_are_those_of_the_rows(tmp_path: Path) -> None:
    first = [row("a", 100, 2), row("a", 102, 2, reference_cached=True, bytes=300)]
    second = [row("b", 100, 8, judged="full"), row("b", 108, 2), row("b", 0, 0, sha256=None, judged="broken")]
    found = costs(swept(tmp_path, first, second))
    assert (found.pictures, found.workers) == (4, 2)
    assert (found.screened, found.full, found.processor) == (2, 8, 1)
    assert (found.share, found.kept, found.read) == (0.25, 0.25, 150)
    assert found.busy == pytest.approx((4 + 10) / (2 * 10))
    assert (found.early, found.late) == (2, 2)
    assert found.written > 0


@pytest.mark.runtimes
def test_simulated_workers_sleep_beside_each_other(tmp_path: Path) -> None:
    recorded = Recorded.of(swept(tmp_path, [row("a", 0, 0.5)], [row("a", 0, 1.5)]))
    assert recorded.seconds == [0.5, 1.5]
    one, four = (simulated(recorded, workers, 2 * workers) for workers in (1, 4))
    assert one <= 1.01
    assert 2 < four / one <= 4.5


def test_the_clipped_model_differs_above_the_limit_only() -> None:
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "masks")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["masks"])], "g", infos[:1], infos[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(
        clipped(onnx.ModelProto.FromString(model.SerializeToString()), 2).SerializeToString()
    )
    (masks,) = session.run(["masks"], {"x": np.array([-3, -2, 0, 9], np.float32)})
    assert masks.tolist() == [2, 2, 0, -9]
    assert math.isfinite(masks.sum())
