"""OpenVINO (extra ``openvino``): an IR's ``.xml`` with its ``.bin``, every result captured on the CPU."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conformance.bounds import FLOAT16, FLOAT32, FORMATS, INT8_OF_RANGE, OPENVINO, Declaration, Format
from conformance.candidates.phone_runtime import THREADS, PhoneCandidate, PhoneRuntime, RuntimeOption

_INTEGERS = re.compile(rb'element_type="[iu]8"')
HINTS = {"float32": "f32", "bfloat16": "bf16"}
WEIGHTS: dict[str, Format | None] = {"float32": None, "float16": FLOAT16, "int8": INT8_OF_RANGE}
OPTIONS = (
    THREADS,
    RuntimeOption(
        "storage",
        "float32",
        "what it computes and stores in; left to itself it takes bfloat16 where the CPU has it",
        tuple(HINTS),
    ),
    RuntimeOption(
        "weights",
        "float32",
        "of the .bin: float16 unless the converter is told; int8: by output channel, widened when used",
        tuple(WEIGHTS),
    ),
)


class OpenVinoCandidate(PhoneCandidate):
    """An IR on OpenVINO's CPU plugin; parameters and errors as of `PhoneCandidate`."""

    suffixes = (".bin",)

    def check_files(self, files: Sequence[Path]) -> None:
        """Refuse integer weights that are not declared, and declared ones that are not there."""
        super().check_files(files)
        self.check_integers(bool(_INTEGERS.search(files[0].read_bytes())))

    @property
    def declaration(self) -> Declaration:
        """Float32 arithmetic; tensors and weights as declared."""
        values = self.settings.values
        return Declaration(FLOAT32, FORMATS[values["storage"]], OPENVINO, WEIGHTS[values["weights"]])

    @property
    def said(self) -> dict[str, Any]:
        """Threads, and what it computes in."""
        return {
            "threads": self.settings.threads,
            "precision": HINTS[self.settings.values["storage"]],
            "group": 0,
        }


WAYS = ("storage=float32", "weights=float16", "weights=int8", "storage=bfloat16")
OPENVINO_RUNTIME = PhoneRuntime("openvino", "openvino", ".xml", OPTIONS, OpenVinoCandidate, WAYS)
