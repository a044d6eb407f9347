"""MNN (extra ``mnn``): a ``.mnn``, every operation's results captured, named as in the ONNX file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from conformance.bounds import (
    FLOAT16,
    FLOAT32,
    INT8,
    MNN,
    MNN_ARM,
    TRUNCATED_FLOAT16,
    Declaration,
    Format,
    with_winograd,
)
from conformance.candidates.phone_runtime import (
    SWITCH,
    THREADS,
    PhoneCandidate,
    PhoneRuntime,
    RuntimeOption,
)
from conformance.conversion.mnn_model import MnnModel, bits_of, read_mnn, stored_in_mnn
from conformance.conversion.stored_weight import StoredWeight
from refimpl.errors import ConfigurationError, UnsupportedOperationError

HINT = 3
"""``Interpreter::HintMode::WINOGRAD_MEMORY_LEVEL``: 0 allows the smallest tile alone, 3 all of them."""
ARM = ("aarch64", "arm64")
"""How an Arm chip of 64 bits names itself."""
WEIGHTS: dict[str, Format | None] = {"float32": None, "float16": TRUNCATED_FLOAT16, "int8": INT8}
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
        "weights",
        "float32",
        "of the file, widened when loaded; float16: by --fp16, which truncates; int8: by output channel",
        tuple(WEIGHTS),
    ),
)


class MnnCandidate(PhoneCandidate):
    """A model in MNN; parameters and errors as of `PhoneCandidate`."""

    without_winograd = "winograd=off"
    model: MnnModel | None = None

    def check_files(self, files: Sequence[Path]) -> None:
        """Refuse integer weights that are not declared, and declared ones that are not there."""
        super().check_files(files)
        # What is not read here may run all the same.
        with suppress(UnsupportedOperationError):
            self.model = read_mnn(files[0])
        bits = bits_of(self.model) if self.model else 0
        if bits not in (0, 8):
            raise ConfigurationError(
                f"{files[0].name} has weights of {bits} bits, which cannot be declared; convert it by "
                "--precision int8"
            )
        self.check_integers("int8" if bits else "")

    @property
    def declaration(self) -> Declaration:
        """Float32 arithmetic, on Arm float16 if asked for, and Winograd's if a tile is named."""
        values = self.settings.values
        weights, on_arm = WEIGHTS[values["weights"]], self.known["machine"] in ARM
        if on_arm and values["precision"] == "low":
            return Declaration(FLOAT16, FLOAT16, MNN_ARM, weights, self.read)
        tile = int(values["winograd"]) if values["winograd"].isdecimal() else 0
        runtime = with_winograd(MNN_ARM if on_arm else MNN, tile)
        return Declaration(FLOAT32, FLOAT32, runtime, weights, self.read)

    @property
    def stored(self) -> Iterable[StoredWeight]:
        """The constants of the model."""
        if self.model is None or self.settings.values["weights"] != "int8":
            return ()
        return stored_in_mnn(self.model)

    @property
    def said(self) -> dict[str, Any]:
        """Threads, precision, and hints."""
        values = self.settings.values
        hints = [(HINT, 0)] if values["winograd"] == "off" else []
        return {"threads": self.settings.threads, "precision": values["precision"], "hints": hints}


WAYS = (
    "winograd=on",
    "winograd=6",
    "winograd=off",
    "winograd=off,weights=float16",
    "winograd=off,weights=int8",
)
MNN_RUNTIME = PhoneRuntime("mnn", "MNN", ".mnn", OPTIONS, MnnCandidate, WAYS)
