"""OpenVINO (extra ``openvino``): an IR's ``.xml`` with its ``.bin``, every result captured on the CPU."""

from __future__ import annotations

from typing import Any

from conformance.bounds import FLOAT16, FLOAT32, FORMATS, OPENVINO, Declaration
from conformance.candidates.phone_runtime import THREADS, PhoneCandidate, PhoneRuntime, RuntimeOption

HINTS = {"float32": "f32", "bfloat16": "bf16"}
OPTIONS = (
    THREADS,
    RuntimeOption(
        "storage",
        "float32",
        "what it computes and stores in; left to itself it takes bfloat16 where the CPU has it",
        tuple(HINTS),
    ),
    RuntimeOption(
        "weights", "float32", "of the .bin: float16 unless the converter is told", ("float32", "float16")
    ),
)


class OpenVinoCandidate(PhoneCandidate):
    """An IR on OpenVINO's CPU plugin; parameters and errors as of `PhoneCandidate`."""

    suffixes = (".bin",)

    @property
    def declaration(self) -> Declaration:
        """Float32 arithmetic; tensors and weights as declared."""
        values = self.settings.values
        halved = values["weights"] == "float16"
        return Declaration(FLOAT32, FORMATS[values["storage"]], OPENVINO, weights=FLOAT16 if halved else None)

    @property
    def said(self) -> dict[str, Any]:
        """Threads, and what it computes in."""
        return {
            "threads": self.settings.threads,
            "precision": HINTS[self.settings.values["storage"]],
        }


WAYS = ("storage=float32", "weights=float16", "storage=bfloat16")
OPENVINO_RUNTIME = PhoneRuntime("openvino", "openvino", ".xml", OPTIONS, OpenVinoCandidate, WAYS)
