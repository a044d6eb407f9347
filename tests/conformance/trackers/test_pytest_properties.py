"""`tracker_properties` passes, fails and skips as the properties hold, fail and are not offered."""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import hypothesis
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from conformance.trackers import (
    clips,
    kernel_sets,
    online_clips,
    pairs,
    tracker_properties,
    turning_clips,
    unambiguous_pairs,
)
from conformance.trackers.reference_candidate import ReferenceCandidate
from refimpl.errors import ConfigurationError

REFERENCE = ReferenceCandidate()

SOUND = """
from refimpl.association import associate
def mine(previous, current):
    return associate(previous, current).permutation
"""
LAZY = """
def mine(previous, current):
    return [0] * len(previous)
"""
TEST = """
from conformance.trackers import tracker_properties

@tracker_properties({arguments}, cases=10, only={only})
def test_mine(tracker_property):
    tracker_property()
"""


def verdicts(folder: Path, program: str) -> dict[str, tuple[str, str]]:
    """Run a file of tests; by property what became of it and what was said."""
    (folder / "test_it.py").write_text(program, encoding="utf-8")
    alone = ["--rootdir=.", "--import-mode=importlib", "-p", "no:cacheprovider"]
    with contextlib.chdir(folder):
        pytest.main([*alone, "-q", "--junitxml=report.xml", "test_it.py"])
    sys.modules.pop("test_it")
    found = {}
    for case in ElementTree.parse(folder / "report.xml").iter("testcase"):
        what = case[0] if len(case) else None
        name = case.attrib["name"].partition("[")[2].rstrip("]")
        told = "" if what is None else f"{what.get('message')}\n{what.text}"
        found[name] = ("passed" if what is None else what.tag, told)
    return found


def test_a_callable_is_judged(tmp_path):
    names = ["optimal_brute_force", "tie_rule", "streaming"]
    sound = verdicts(tmp_path, SOUND + TEST.format(arguments="mine", only=names))
    assert {name: verdict for name, (verdict, _) in sound.items()} == {
        "optimal_brute_force": "passed",
        "tie_rule": "passed",
        "streaming": "skipped",
    }
    wrong = verdicts(tmp_path, LAZY + TEST.format(arguments="mine", only=names))
    verdict, told = wrong["optimal_brute_force"]
    assert verdict == "failure"
    assert "def test_optimal_brute_force" in told
    assert "Traceback" not in told


def test_a_tracker_of_detections_is_judged(tmp_path):
    """One that gives everybody one identity: whoever stays has it, and so has everybody else."""
    program = "def mine(frames):\n    return [[0] * len(frame) for frame in frames]\n"
    names = ["tracks_given_once", "nobody_dropped", "one_to_one"]
    found = verdicts(tmp_path, program + TEST.format(arguments="identify=mine", only=names))
    assert {name: verdict for name, (verdict, _) in found.items()} == {
        "tracks_given_once": "failure",
        "nobody_dropped": "passed",
        "one_to_one": "skipped",
    }
    assert '{"op": "identify", "frames": [{"embeddings": [[' in found["tracks_given_once"][1]


def test_a_command_is_judged(tmp_path):
    (tmp_path / "tracker.py").write_text(
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    asked = json.loads(line)\n"
        "    known = asked['op'] == 'associate'\n"
        "    answer = {'permutation': [0] * len(asked['previous'])} if known else {'unsupported': 'video'}\n"
        "    print(json.dumps(answer), flush=True)\n",
        encoding="utf-8",
    )
    arguments = f"command={sys.executable + ' tracker.py'!r}"
    found = verdicts(tmp_path, TEST.format(arguments=arguments, only=["single_kernels", "tie_rule", "drift"]))
    assert {name: verdict for name, (verdict, _) in found.items()} == {
        "single_kernels": "passed",
        "tie_rule": "failure",
        "drift": "skipped",
    }


def test_a_dead_command_fails_once(tmp_path):
    arguments = f"command={sys.executable + ' -c exit()'!r}"
    found = verdicts(tmp_path, TEST.format(arguments=arguments, only=["identity", "one_to_one", "drift"]))
    assert sorted(verdict for verdict, _ in found.values()) == ["failure", "skipped", "skipped"]


@tracker_properties(REFERENCE.associate, REFERENCE.video, REFERENCE.online, cases=5, skip=["restart"])
def test_the_reference_by_its_callables(tracker_property):
    tracker_property()


def test_callables_or_a_command():
    with pytest.raises(ConfigurationError, match="callables or a command"):
        tracker_properties()
    with pytest.raises(ConfigurationError, match="callables or a command"):
        tracker_properties(REFERENCE.associate, command="node tracker.js")
    with pytest.raises(ConfigurationError, match="callables or a command"):
        tracker_properties(identify=print, command="node tracker.js")
    with pytest.raises(ConfigurationError, match="cobol"):
        tracker_properties(REFERENCE.associate, language="cobol")


@hypothesis.given(unambiguous_pairs(margin=0.5))
def test_the_margin_of_pairs_is_kept(pair):
    """By SciPy: no total without one of the best pairs comes within 0.5 of the best total."""
    unit = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in (pair.previous, pair.current)]
    cosines = unit[0] @ unit[1].T
    rows, columns = linear_sum_assignment(cosines, maximize=True)
    best = cosines[rows, columns].sum()
    for row, column in zip(rows, columns, strict=True):
        without = cosines.copy()
        without[row, column] = -1e3
        others = linear_sum_assignment(without, maximize=True)
        assert best - without[others].sum() > 0.5 - 1e-9


@pytest.mark.parametrize("margin", [0.2, 0.9])
def test_the_margin_of_clips_is_kept(margin):
    @hypothesis.given(clips(margin=margin, longest=40))
    @hypothesis.settings(max_examples=20)
    def kept(clip):
        units = [one.kernels / np.linalg.norm(one.kernels, axis=1, keepdims=True) for one in clip.frames]
        for frame, truth in zip(units, clip.truth, strict=True):
            cosines = units[0] @ frame[truth].T
            # Query s of frame 0 is slot s: its own track is on the diagonal.
            assert cosines[~np.eye(len(truth), dtype=bool)].max(initial=-1) <= 1 - margin + 1e-9

    kept()


@hypothesis.given(kernel_sets(3, 2), pairs(square=True), turning_clips(), online_clips(margin=0.01))
@hypothesis.settings(max_examples=20, suppress_health_check=list(hypothesis.HealthCheck))
def test_strategies_give_what_they_say(kernels, pair, turning, online):
    assert kernels.shape == (3, 2)
    assert np.any(kernels, axis=1).all()
    assert pair.previous.shape == pair.current.shape
    assert all(frame.kernels.shape[1] == 2 for frame in turning.frames)
    assert len(online.frames) == len(online.truth) <= 8


@pytest.mark.runtimes
def test_the_documented_tests_pass(tmp_path):
    """Both blocks of docs/check-tracker.md; one of them checks the example in JavaScript."""
    root = Path(__file__).parents[3]
    text = (
        (root / "docs/check-tracker.md").read_text(encoding="utf-8").partition("## Five counterexamples")[0]
    )
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    program = "\n".join(blocks).replace("docs/examples", f"{root}/docs/examples")
    found = verdicts(tmp_path, program)
    assert len(found) > 40
    assert {verdict for verdict, _ in found.values()} == {"passed"}
