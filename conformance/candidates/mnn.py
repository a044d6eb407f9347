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
    MNN_ARM_DYNAMIC,
    MNN_DYNAMIC,
    TRUNCATED_FLOAT16,
    Declaration,
    Format,
    with_winograd,
)
from conformance.candidates.phone_runtime import (
    STATIC,
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
MEMORY_LOW = 2
"""``BackendConfig::Memory_Low``."""
WEIGHTS: dict[str, Format | None] = {
    "float32": None,
    "float16": TRUNCATED_FLOAT16,
    "int8": INT8,
    STATIC: INT8,
}
MADE = "DT_INT8"
"""What MNN says of an operator that computes in integers."""
OPERAND = "_raster_"
"""What MNN calls an operand that it makes integers, or moves: the operator, this, and a number."""
RUNTIMES = ((MNN, MNN_DYNAMIC), (MNN_ARM, MNN_ARM_DYNAMIC))
"""By whether it runs on Arm, and whether operands of int8 weights become integers."""
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
        "of the file, widened when loaded; float16: by --fp16, which truncates; int8: by output channel; "
        "int8-static: all is of integers, with --graph-only",
        tuple(WEIGHTS),
    ),
    RuntimeOption(
        "dynamic",
        "off",
        "memory low: int8 weights stay, and what dense convolutions multiply them by becomes integers, too",
        SWITCH,
    ),
)


class MnnCandidate(PhoneCandidate):
    """A model in MNN; parameters and errors as of `PhoneCandidate`."""

    without_winograd = "winograd=off"
    model: MnnModel | None = None

    def check_files(self, files: Sequence[Path]) -> None:
        """Refuse integer weights that are not declared, and declared ones that are not there."""
        super().check_files(files)
        if self.settings.is_on("dynamic") and self.settings.values["weights"] != "int8":
            raise ConfigurationError("dynamic=on is of products with integer weights: declare weights=int8")
        # What is not read here may run all the same.
        with suppress(UnsupportedOperationError):
            self.model = read_mnn(files[0])
        bits = bits_of(self.model) if self.model else 0
        if bits not in (0, 8):
            raise ConfigurationError(
                f"{files[0].name} has weights of {bits} bits, which cannot be declared; convert it by "
                "--precision int8"
            )
        self.check_integers((STATIC if self.model and self.model.grids else "int8") if bits else "")

    @property
    def declaration(self) -> Declaration:
        """Float32 arithmetic, on Arm float16 if asked for, and Winograd's if a tile is named."""
        values, on_arm = self.settings.values, self.is_on_arm
        weights, narrow = WEIGHTS[values["weights"]], on_arm and values["precision"] == "low"
        arithmetic = FLOAT16 if narrow else FLOAT32
        tile = int(values["winograd"]) if values["winograd"].isdecimal() and not narrow else 0
        runtime = RUNTIMES[on_arm][self.settings.is_on("dynamic")]
        return Declaration(arithmetic, arithmetic, with_winograd(runtime, tile), weights, self.read)

    @property
    def stored(self) -> Iterable[StoredWeight]:
        """The constants of the model."""
        if self.model is None or self.settings.values["weights"] != "int8":
            return ()
        return stored_in_mnn(self.model)

    @property
    def in_integers(self) -> set[str]:
        """The operators that computed in integers when last captured."""
        return {name for name, kind, *_ in self.nodes if MADE in kind}

    @property
    def given_integers(self) -> set[str]:
        """The operators for which an operand was made integers when last captured."""
        return {
            name.rpartition(OPERAND)[0] for name, kind, *_ in self.nodes if kind.startswith("FloatToInt8")
        }

    @property
    def said(self) -> dict[str, Any]:
        """Threads, precision, memory, and hints."""
        values = self.settings.values
        return {
            "threads": self.settings.threads,
            "precision": values["precision"],
            "memory": MEMORY_LOW if self.settings.is_on("dynamic") else 0,
            "hints": [(HINT, 0)] if values["winograd"] == "off" else [],
        }


WAYS = (
    "winograd=on",
    "winograd=6",
    "winograd=off",
    "winograd=off,weights=float16",
    "winograd=off,weights=int8",
    "winograd=off,weights=int8,dynamic=on",
)
MNN_RUNTIME = PhoneRuntime("mnn", "MNN", ".mnn", OPTIONS, MnnCandidate, WAYS)
