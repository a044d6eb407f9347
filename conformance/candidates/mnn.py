"""MNN (extra ``mnn``): a ``.mnn``, every operation's results captured, named as in the ONNX file."""

from __future__ import annotations

from typing import Any

from conformance.bounds import FLOAT16, FLOAT32, MNN, MNN_ARM, TRUNCATED_FLOAT16, Declaration, with_winograd
from conformance.candidates.phone_runtime import (
    SWITCH,
    THREADS,
    PhoneCandidate,
    PhoneRuntime,
    RuntimeOption,
)

HINT = 3
"""``Interpreter::HintMode::WINOGRAD_MEMORY_LEVEL``: 0 allows the smallest tile alone, 3 all of them."""
ARM = ("aarch64", "arm64")
"""How an Arm chip of 64 bits names itself."""
OPTIONS = (
    THREADS,
    RuntimeOption(
        "winograd",
        "on",
        "Winograd's convolutions in the tiles that it chooses; 2, 4, 6: so, and their error allowed for",
        (*SWITCH, "2", "4", "6"),
    ),
    RuntimeOption(
        "precision",
        "high",
        "high: float32; low: float16 on Arm or bfloat16 where the chip has it; normal: as high on x86",
        ("high", "normal", "low"),
    ),
    RuntimeOption(
        "weights", "float32", "of the file: float16 by --fp16, which truncates", ("float32", "float16")
    ),
)


class MnnCandidate(PhoneCandidate):
    """A model in MNN; parameters and errors as of `PhoneCandidate`."""

    without_winograd = "winograd=off"

    @property
    def declaration(self) -> Declaration:
        """Float32 arithmetic, on Arm float16 if asked for, and Winograd's if a tile is named."""
        values = self.settings.values
        on_arm = self.known["machine"] in ARM
        if on_arm and values["precision"] == "low":
            return Declaration(FLOAT16, FLOAT16, MNN_ARM)
        tile = int(values["winograd"]) if values["winograd"].isdecimal() else 0
        weights = TRUNCATED_FLOAT16 if values["weights"] == "float16" else None
        return Declaration(FLOAT32, FLOAT32, with_winograd(MNN_ARM if on_arm else MNN, tile), weights)

    @property
    def said(self) -> dict[str, Any]:
        """Threads, precision, and hints."""
        values = self.settings.values
        hints = [(HINT, 0)] if values["winograd"] == "off" else []
        return {"threads": self.settings.threads, "precision": values["precision"], "hints": hints}


WAYS = ("winograd=on", "winograd=6", "winograd=off", "winograd=off,weights=float16")
MNN_RUNTIME = PhoneRuntime("mnn", "MNN", ".mnn", OPTIONS, MnnCandidate, WAYS)
