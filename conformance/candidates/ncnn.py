"""ncnn (extra ``ncnn``): a ``.param`` with its ``.bin``, every blob captured, layers named as in the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conformance.bounds import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    FORMATS,
    NCNN,
    NCNN_ARM,
    NCNN_ARM_INTEGERS,
    NCNN_INTEGERS,
    Declaration,
)
from conformance.candidates.arrays import Given
from conformance.candidates.phone_runtime import (
    STATIC,
    SWITCH,
    THREADS,
    PhoneCandidate,
    PhoneRuntime,
    RuntimeOption,
    one_picture,
)
from conformance.conversion.ncnn_model import has_integers
from refimpl.errors import ConfigurationError, FileError
from refimpl.ops.operation import Array

MAGIC = "7767517"
"""The first line of a ``.param`` in text."""
OPTIONS = (
    THREADS,
    RuntimeOption("winograd", "on", "Winograd's convolutions, F(2,3) to F(6,3) as it chooses", SWITCH),
    RuntimeOption("sgemm", "on", "convolutions as products of matrices", SWITCH),
    RuntimeOption("packing", "on", "channels packed for SIMD", SWITCH),
    RuntimeOption(
        "arithmetic",
        "float32",
        "of sums, products and blobs; float16 where an Arm chip has it",
        ("float32", "float16"),
    ),
    RuntimeOption("storage", "float32", "of blobs and weights while it runs", ("float32", "bfloat16")),
    RuntimeOption(
        "weights",
        "float32",
        "of the .bin: pnnx writes float16 unless told fp16=0; int8-static: by ncnn2int8, with --graph-only",
        ("float32", "float16", STATIC),
    ),
)


class NcnnCandidate(PhoneCandidate):
    """A model in ncnn; parameters and errors as of `PhoneCandidate`."""

    without_winograd = "winograd=off"
    suffixes = (".bin",)

    @property
    def declaration(self) -> Declaration:
        """Float32 arithmetic, or float16; blobs and weights as declared."""
        values, runtime = self.settings.values, NCNN_ARM if self.is_on_arm else NCNN
        if values["weights"] == STATIC:
            estimates = not self.is_on_arm and self.settings.is_on("packing")
            runtime = NCNN_INTEGERS if estimates else NCNN_ARM_INTEGERS if self.is_on_arm else NCNN
        if self._halved:
            return Declaration(FLOAT16, FLOAT16, runtime)
        halved = values["weights"] == "float16"
        return Declaration(FLOAT32, FORMATS[values["storage"]], runtime, weights=FLOAT16 if halved else None)

    @property
    def _halved(self) -> bool:
        return self.settings.values["arithmetic"] == FLOAT16.name

    @property
    def said(self) -> dict[str, Any]:
        """The options of its ``Net``."""
        settings = self.settings
        narrow = settings.values["storage"] == BFLOAT16.name
        return {
            "num_threads": settings.threads,
            "use_vulkan_compute": False,
            "use_winograd_convolution": settings.is_on("winograd"),
            "use_sgemm_convolution": settings.is_on("sgemm"),
            "use_packing_layout": settings.is_on("packing"),
            # On Arm the defaults compute in float16; here nothing is computed in what is not declared.
            "use_fp16_packed": self._halved,
            "use_fp16_storage": self._halved,
            "use_fp16_arithmetic": self._halved,
            "use_bf16_storage": narrow,
            "use_bf16_packed": narrow,
        }

    def check_chip(self) -> None:
        """Raise `ConfigurationError` if the chip would compute in float32 without a word."""
        if self._halved and not self.known["float16"]:
            raise ConfigurationError(
                f"arithmetic=float16: this chip ({self.known['machine']}) computes in float32 whatever ncnn "
                "is told; name one that has it by --interpreter"
            )
        if self._halved and self.settings.values["storage"] != FLOAT32.name:
            raise ConfigurationError("arithmetic=float16 stores in float16; leave storage out")

    def check_files(self, files: Sequence[Path]) -> None:
        """Raise `FileError` unless they are a ``.param`` in text and its ``.bin``."""
        super().check_files(files)
        first = files[0].read_bytes()[: len(MAGIC)].decode("ascii", "replace")
        if first != MAGIC:
            raise FileError(
                f"{files[0]} begins with {first!r}, not with {MAGIC}: it is no .param of ncnn in text"
            )
        self.check_integers(STATIC if has_integers(files[0]) else "")

    def fed(self, images: Given) -> Array:
        """Return one picture: ncnn has no batch axis."""
        return one_picture(super().fed(images), "ncnn")


WAYS = ("winograd=on", "winograd=off", "weights=float16", "storage=bfloat16")
NCNN_RUNTIME = PhoneRuntime("ncnn", "ncnn", ".param", OPTIONS, NcnnCandidate, WAYS)
