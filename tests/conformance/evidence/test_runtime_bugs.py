"""The graphs that versions of ONNX Runtime compute wrongly: what is right of them, and what a row says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from conformance.evidence import runtime_bugs
from conformance.evidence.bug_graphs import BUGS, Bug, case, one
from conformance.evidence.runtime_bugs import Row, judged, judged_in, page, right
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.recorded import graph_recording

PLACES = range(len(BUGS))


@pytest.mark.parametrize("place", PLACES, ids=[f"{bug.operator}, {bug.says}" for bug in BUGS])
def test_what_the_judge_takes_for_right_is_what_onnx_does(place: int) -> None:
    small = BUGS[place].make()
    recording = graph_recording(OnnxGraph.load(small.model), small.feeds)
    for name, wanted in zip((info.name for info in small.model.graph.output), right(small), strict=True):
        found = recording.tensors[recording.outputs[name]]
        scale = np.abs(wanted[np.isfinite(wanted)]).max(initial=1e-6)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-3 * scale)


def test_a_right_graph_is_right_and_a_wrong_one_off(monkeypatch: pytest.MonkeyPatch) -> None:
    bug = Bug("nothing", "0", "Relu", lambda: one("Relu", (3, 4)))
    assert judged(bug) == Row(0.0, "pass", "")
    monkeypatch.setattr(runtime_bugs, "right", lambda small: [np.full((3, 4), 8.0)])
    assert judged(bug).wrong
    monkeypatch.setattr(runtime_bugs, "right", lambda small: [np.zeros((4, 3))])
    assert judged(bug).off == np.inf


def test_after_a_crash_the_rest_are_judged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A process that dies after its first answer."""
    (tmp_path / "sitecustomize.py").write_text(
        "import json, sys\nplaces = sys.orig_argv[5:]\n"
        "print(json.dumps({'off': 0.5, 'verdict': 'fail'}), flush=True)\n"
        "len(places) > 1 and __import__('os').abort()\n__import__('os')._exit(0)\n"
    )
    rows = list(judged_in(BUGS[:3], tmp_path))
    assert [row.verdict for row in rows] == ["fail", "crash", "fail"]


def test_the_page_counts_what_is_caught() -> None:
    bugs = [Bug(f"b{place}", "1.20.1", "Conv", lambda: one("Relu", (1,))) for place in range(4)]
    found = [Row(np.inf, "fail", "y (Conv)"), Row(0.5, "pass"), Row(0.0, "pass"), Row(None, "crash")]
    today = [Row(0.0, "pass"), Row(0.0, "fail", "y"), Row(0.0, "pass"), Row(None, "refused")]
    text = page(list(zip(bugs, found, today, strict=True)))
    assert "4 graphs; 2 are computed wrongly" in text
    assert "1 of these are caught" in text
    assert "1 are called wrong that are right there" in text
    assert "| b1 | 1.20.1 | Conv | 0.5 | **pass** | right, fail |" in text


def test_each_is_another_graph() -> None:
    models = {bug.make().model.SerializeToString() for bug in BUGS}
    assert len(models) >= 0.95 * len(BUGS) >= 57
    assert json.dumps([bug.says for bug in BUGS])


@pytest.mark.parametrize(
    "name",
    [
        "attention_4d_fp16",
        "attention_4d_causal_fp16",
        "attention_4d_gqa_with_past_and_present_fp16",
        "attention_24_qk_matmul_output_mode3_softmax_precision",
    ],
)
def test_attention_in_float16_as_onnx_expects_it_is_not_called_wrong(name: str) -> None:
    """Each tensor of the function by which ONNX defines it is of float16."""
    bug = Bug("nothing", "0", "Attention", lambda: case(name))
    found = judged(bug)
    assert not found.wrong
    assert found.verdict in ("pass", "refused")  # an ONNX Runtime without this operator set
