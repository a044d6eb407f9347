"""A candidate in a process of its own: it may crash or hang, and the judge goes on.

The two talk in lines of JSON; arrays pass through files in a folder that only they use. Run as a module, this
is the candidate's side.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from conformance.bounds import FORMATS, RUNTIMES, WEIGHT_FORMATS, Declaration
from conformance.candidates.arrays import Given, attempted, failure_of, operands_of
from conformance.candidates.candidate import FUSION_REACH, Candidate, OwnGraph
from conformance.candidates.child_process import STARTING, crashed, end, hung, next_line, start
from conformance.candidates.kinds import GRAPH_RUNNERS, PHONE_RUNTIMES, Request, make
from conformance.files import temporary_files
from refimpl import MobileInstConfig, errors
from refimpl.errors import CandidateError, MobileInstError
from refimpl.graph import Graph, Node
from refimpl.ops.operation import Array

WEIGHTS = "weights.safetensors"
ENDING = 5.0
"""Seconds that a process which has closed its output may take to end."""


class IsolatedCandidate(Candidate):
    """A candidate that `candidate_kinds.make` makes in another process.

    Parameters
    ----------
    text
        ``NAME`` or ``NAME:OPTIONS``.
    request
        What it is made from.
    timeout
        Seconds that each run may take, and making it if more than `STARTING`; None: as long as it likes.

    Raises
    ------
    CandidateError
        It cannot be made.
    SpaceError
        No space is left for the weights.
    """

    def __init__(self, text: str, request: Request, timeout: float | None = None) -> None:
        self.text, self.request, self.timeout = text, request, timeout
        self.nodes: list[Node] = []
        self.said: list[str] = []
        self.complete = True
        self.process: subprocess.Popen[str] | None = None
        plain = {name: np.asarray(array, order="C") for name, array in request.weights.items()}
        with temporary_files():
            self.folder = tempfile.TemporaryDirectory(prefix="candidate-")
            save_file(plain, Path(self.folder.name) / WEIGHTS)
        self.hello = self._start()

    @property
    def declaration(self) -> Declaration:
        """The arithmetic it is judged by."""
        said = self.hello
        weights = WEIGHT_FORMATS.get(said["weights"] or "")
        return Declaration(
            FORMATS[said["arithmetic"]], FORMATS[said["storage"]], RUNTIMES[said["runtime"]], weights
        )

    @property
    def captures_all(self) -> bool:
        """Whether a tensor that it does not capture is one that it does not compute."""
        return self.complete

    @property
    def remarks(self) -> Sequence[str]:
        """What it says is worth knowing of it, after a run."""
        return self.said

    @property
    def fusion_reach(self) -> int:
        """How many steps in a row it may have fused."""
        return int(self.hello["fusion_reach"])

    @property
    def without_winograd(self) -> str:
        """How it is told to do without Winograd's convolutions."""
        return str(self.hello["without_winograd"])

    @property
    def reruns(self) -> bool:
        """Whether it computes anew what it is given."""
        return bool(self.hello["reruns"])

    @property
    def constants(self) -> list[Array] | None:
        """What it holds, if it is to compute in float64."""
        count, folder = self.hello["constants"], Path(self.folder.name)
        files = [folder / f"constant_{place}.npy" for place in range(count or 0)]
        return None if count is None else [np.load(file, allow_pickle=False) for file in files]

    def run(self, images: Given) -> dict[str, Array]:
        """Return its outputs; ``images`` are changed if the candidate changes them."""
        return self._call("run", images)

    def capture(self, images: Given) -> dict[str, Array]:
        """Return its tensors."""
        return self._call("capture", images)

    def own_graph(self, images: Given) -> OwnGraph:
        """Return the names of its nodes, as far as it tells."""
        return OwnGraph(Graph(self.nodes))

    def close(self) -> None:
        """End the process and remove its files."""
        self._stop()
        self.folder.cleanup()

    def _call(self, method: str, images: Given) -> dict[str, Array]:
        if self.process is None:
            self._start()
        folder = Path(self.folder.name)
        _save_inputs(folder, images)
        names = list(images) if isinstance(images, Mapping) else None
        answer = self._ask({"call": method, "inputs": names}, self.timeout)
        self.nodes = [
            Node(name, kind, tuple(inputs), tuple(outputs)) for name, kind, inputs, outputs in answer["nodes"]
        ]
        self.complete, self.said = bool(answer["captures_all"]), list(answer["remarks"])
        for place, array in enumerate(operands_of(images)):
            if array.flags.writeable:
                array[...] = np.load(_input_file(folder, place), allow_pickle=False)
        return {
            name: np.load(folder / f"tensor_{place}.npy", allow_pickle=False)
            for place, name in enumerate(answer["tensors"])
        }

    def _start(self) -> dict[str, Any]:
        self.process = start("conformance.candidates.process", self.folder.name)
        request = self.request
        return self._ask(
            {
                "candidate": self.text,
                "config": None if request.config is None else dataclasses.asdict(request.config),
                "model": None if request.model is None else str(request.model),
                "arithmetic": request.arithmetic.name if request.arithmetic else None,
                "storage": request.storage.name if request.storage else None,
                "threads": request.threads,
                "trusted": request.trusted,
                "wide": request.wide,
            },
            max(self.timeout or 0.0, STARTING),
        )

    def _ask(self, question: dict[str, Any], timeout: float | None) -> dict[str, Any]:
        """Send a line and return the answer.

        Raises
        ------
        CandidateError
            The process ended or did not answer in time, or the candidate failed.
        MobileInstError
            What was asked for cannot be: the candidate's own.
        """
        assert self.process is not None
        assert self.process.stdin is not None
        with suppress(OSError):  # it ended; the missing answer tells
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
        try:
            line = next_line(self.process, timeout)
        except KeyboardInterrupt:
            self._stop()
            raise
        if line is None:
            self._stop()
            raise hung(timeout)
        if not line:
            raise crashed(self._stop(ENDING))
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            kind: type[MobileInstError] = getattr(errors, answer.get("kind", ""), CandidateError)
            raise kind(answer["error"])
        return answer

    def _stop(self, patience: float = 0.0) -> int:
        if self.process is None:
            return 0
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
        status = end(self.process)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        self.process = None
        return status


def _input_file(folder: Path, place: int) -> Path:
    return folder / f"input_{place}.npy"


def _save_inputs(folder: Path, given: Given) -> None:
    with temporary_files():
        for place, array in enumerate(operands_of(given)):
            np.save(_input_file(folder, place), array)


OWN_PROCESS = (*GRAPH_RUNNERS, *PHONE_RUNTIMES)
"""Kinds that see to their processes themselves."""


def apart(text: str, request: Request, timeout: float) -> Candidate:
    """Return a candidate whose runs are in another process than this, and take so many seconds at most.

    Raises
    ------
    MobileInstError
        It cannot be made.
    """
    if text.partition(":")[0] in OWN_PROCESS:
        return make(text, dataclasses.replace(request, timeout=timeout))
    return IsolatedCandidate(text, request, timeout)


# --- the candidate's side -------------------------------------------------------------------------


def main(folder: Path) -> None:
    """Make the candidate that the first line asks for, then run it as often as asked."""
    # What the candidate prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # Nor may it read the questions.
    questions = os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # Ctrl-C reaches both processes; the other one ends this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    candidate: Candidate | None = None
    for line in questions:
        question = json.loads(line)
        try:
            if candidate is None:
                candidate = _make(question, folder)
                answer = _introduction(candidate, folder)
            else:
                answer = _answer(candidate, question["call"], question["inputs"], folder)
        except MobileInstError as error:
            answer = {"error": str(error), "kind": type(error).__name__}
        except (Exception, KeyboardInterrupt) as error:  # the candidate's own
            failure = failure_of(error)
            answer = {"error": str(failure), "kind": type(failure).__name__}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _make(question: dict[str, Any], folder: Path) -> Candidate:
    request = Request(
        "",
        MobileInstConfig(**question["config"]) if question["config"] else None,
        load_file(folder / WEIGHTS),
        Path(question["model"]) if question["model"] else None,
        FORMATS.get(question["arithmetic"] or ""),
        FORMATS.get(question["storage"] or ""),
        question["threads"],
        trusted=question["trusted"],
        wide=question["wide"],
    )
    return make(question["candidate"], request)


def _introduction(candidate: Candidate, folder: Path) -> dict[str, Any]:
    declared = candidate.declaration
    if declared.runtime.name not in RUNTIMES:
        known = ", ".join(RUNTIMES)
        raise CandidateError(f"it declares the runtime {declared.runtime.name!r}; known are {known}")
    return {
        "arithmetic": declared.arithmetic.name,
        "storage": declared.storage.name,
        "runtime": declared.runtime.name,
        "weights": declared.weights.name if declared.weights else None,
        "without_winograd": getattr(candidate, "without_winograd", ""),
        "fusion_reach": getattr(candidate, "fusion_reach", FUSION_REACH),
        "reruns": getattr(candidate, "reruns", True),
        "constants": _save_constants(candidate, folder),
    }


def _save_constants(candidate: Candidate, folder: Path) -> int | None:
    constants = getattr(candidate, "constants", None)
    with temporary_files():
        for place, array in enumerate(constants or ()):
            np.save(folder / f"constant_{place}.npy", array)
    return None if constants is None else len(constants)


def _answer(candidate: Candidate, method: str, names: list[str] | None, folder: Path) -> dict[str, Any]:
    count = 1 if names is None else len(names)
    arrays = [np.load(_input_file(folder, place), allow_pickle=False) for place in range(count)]
    given: Any = arrays[0] if names is None else dict(zip(names, arrays, strict=True))
    tensors = attempted(getattr(candidate, method), given, passed=MobileInstError)
    with temporary_files():
        for place, array in enumerate(tensors.values()):
            np.save(folder / f"tensor_{place}.npy", array, allow_pickle=False)
    _save_inputs(folder, given)
    own = candidate.own_graph(given)
    return {
        "tensors": list(tensors),
        "captures_all": candidate.captures_all,
        "remarks": list(getattr(candidate, "remarks", ())),
        "nodes": [(node.name, node.op_type, node.inputs, node.outputs) for node in own.nodes.nodes]
        if own
        else [],
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
