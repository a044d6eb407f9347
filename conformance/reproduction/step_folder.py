"""A folder that shows a failing step: its models and tensors, and the command that judges it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from conformance.files import write_text
from conformance.folders import new_folder
from conformance.reports.report import Diagnosis
from conformance.reproduction.recorded_step import MODEL, NOTE, RecordedStep
from refimpl.ops.operation import Array

OWN_MODEL = "candidate.onnx"


@dataclass
class StepFolder:
    """A folder to be.

    Attributes
    ----------
    note
        What is failing.
    models, arrays
        By file.
    contents
        What the README says of them, a line each.
    """

    note: RecordedStep
    models: dict[str, onnx.ModelProto]
    arrays: dict[str, Array] = field(default_factory=dict)
    contents: list[str] = field(default_factory=list)

    def add(self, name: str, array: Array, what: str) -> None:
        """Add an array and what is said of it."""
        self.arrays[name] = array
        self.contents.append(what)

    def add_operands(
        self, model: str, names: Sequence[str], values: Mapping[str, Array], prefix: str = "input"
    ) -> None:
        """Add what a model is fed, ``PREFIX_N.npy`` its input N."""
        for place, name in enumerate(names):
            file = f"{prefix}_{place}.npy"
            self.add(file, values[name], f"`{file}`: input `{name}` of `{model}`")

    def write(self, folder: Path, diagnoses: Sequence[Diagnosis] = ()) -> str:
        """Write everything, whole or not at all, and return the command that shows the step again.

        Raises
        ------
        FileError
            The folder cannot be written, or is not empty.
        """
        command = shlex.join(["mobileinst", "verify", "--recorded", str(folder)])
        readme = "\n".join(self._readme(folder, command, diagnoses)) + "\n"
        with new_folder(folder) as temporary:
            self._fill(temporary)
            write_text(temporary / "README.md", readme)
        return command

    def _fill(self, folder: Path) -> None:
        for name, model in self.models.items():
            (folder / name).write_bytes(model.SerializeToString())
        for name, array in self.arrays.items():
            np.save(folder / name, array, allow_pickle=False)
        (folder / NOTE).write_text(self.note.to_json(folder), encoding="utf-8")

    def _readme(self, folder: Path, command: str, diagnoses: Sequence[Diagnosis]) -> Iterator[str]:
        yield f"# {self.note.step} ({self.note.operation})\n"
        yield "One step that introduced more error than rounding may. It is judged again by\n"
        yield f"    {command}\n"
        for each in diagnoses[:1]:
            yield f"Likely: **{each.fault}**, {each.detail}: {each.happens} ({each.source})\n"
        yield from (f"- {line}" for line in self.contents)
        yield f"- `{NOTE}`: what the candidate was declared to compute with\n"
        yield "|candidate − truth| must not be larger than the bound, in any element; nor may the errors"
        yield "lean to one side, or be larger on the whole, otherwise than rounding makes them.\n"
        yield f"The installed ONNX Runtime computes `{MODEL}` anew, and is judged, by\n"
        yield f"    {self._anew(folder)}"

    def _anew(self, folder: Path) -> str:
        words = ["mobileinst", "verify", str(folder / MODEL), "--graph-only"]
        for place, info in enumerate(self.models[MODEL].graph.input):
            words += ["--input", f"{info.name}={folder / f'input_{place}.npy'}"]
        return shlex.join(words)
