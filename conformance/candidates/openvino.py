"""OpenVINO (extra ``openvino``): an IR's ``.xml`` with its ``.bin``, every result captured on the CPU."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from conformance.bounds import (
    FLOAT16,
    FLOAT32,
    FORMATS,
    INT8_OF_RANGE,
    OPENVINO,
    OPENVINO_DYNAMIC,
    Declaration,
    Format,
)
from conformance.candidates.phone_runtime import (
    STATIC,
    SWITCH,
    THREADS,
    PhoneCandidate,
    PhoneRuntime,
    RuntimeOption,
)
from conformance.conversion.openvino_model import read_openvino, stored_in_openvino
from conformance.conversion.stored_weight import StoredWeight
from refimpl.errors import ConfigurationError, FileError

_INTEGERS = re.compile(rb'element_type="[iu]8"')
GROUP = 32
"""Operands that share a scale, as it chooses itself."""
HINTS = {"float32": "f32", "bfloat16": "bf16"}
WEIGHTS: dict[str, Format | None] = {
    "float32": None,
    "float16": FLOAT16,
    "int8": INT8_OF_RANGE,
    STATIC: INT8_OF_RANGE,
}
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
        "of the .bin: float16 unless the converter is told; int8: by output channel, widened when used; "
        "int8-static: all is of integers, with --graph-only",
        tuple(WEIGHTS),
    ),
    RuntimeOption(
        "dynamic",
        "off",
        "of products with int8 weights the other operand made integers, too; left to itself it does so where "
        "the CPU has instructions for it",
        SWITCH,
    ),
)


class OpenVinoCandidate(PhoneCandidate):
    """An IR on OpenVINO's CPU plugin; parameters and errors as of `PhoneCandidate`."""

    suffixes = (".bin",)

    def check_files(self, files: Sequence[Path]) -> None:
        """Refuse integer weights that are not declared, and declared ones that are not there."""
        super().check_files(files)
        if self.settings.is_on("dynamic") and self.settings.values["weights"] != "int8":
            raise ConfigurationError("dynamic=on is of products with integer weights: declare weights=int8")
        self.check_integers(_integers(files[0].read_bytes()))

    @property
    def declaration(self) -> Declaration:
        """Float32 arithmetic; tensors and weights as declared."""
        values = self.settings.values
        runtime = OPENVINO_DYNAMIC if self.settings.is_on("dynamic") else OPENVINO
        formats = FLOAT32, FORMATS[values["storage"]]
        return Declaration(*formats, runtime, WEIGHTS[values["weights"]], self.read)

    @property
    def stored(self) -> Iterable[StoredWeight]:
        """The constants of the IR."""
        if self.settings.values["weights"] != "int8":
            return ()
        with suppress(FileError):
            return stored_in_openvino(read_openvino(self.settings.model))
        return ()

    @property
    def said(self) -> dict[str, Any]:
        """Threads, and what it computes in."""
        return {
            "threads": self.settings.threads,
            "precision": HINTS[self.settings.values["storage"]],
            "shown": "FakeQuantize" if self.settings.values["weights"] == STATIC else "",
            "group": GROUP if self.settings.is_on("dynamic") else 0,
        }


def _integers(text: bytes) -> str:
    """Return the weights that an IR should be declared to have, if of integers."""
    if b'type="FakeQuantize"' in text:
        return STATIC
    return "int8" if _INTEGERS.search(text) else ""


WAYS = ("storage=float32", "weights=float16", "weights=int8", "weights=int8,dynamic=on", "storage=bfloat16")
OPENVINO_RUNTIME = PhoneRuntime("openvino", "openvino", ".xml", OPTIONS, OpenVinoCandidate, WAYS)
