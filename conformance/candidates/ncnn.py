"""ncnn (extra ``ncnn``): a ``.param`` with its ``.bin``, every blob captured, layers named as in the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conformance.bounds import BFLOAT16, FLOAT16, FLOAT32, FORMATS, NCNN, Declaration
from conformance.candidates.arrays import Given
from conformance.candidates.phone_runtime import (
    SWITCH,
    THREADS,
    PhoneCandidate,
    PhoneRuntime,
    RuntimeOption,
    one_picture,
)
from refimpl.errors import FileError
from refimpl.ops.operation import Array

MAGIC = "7767517"
"""The first line of a ``.param`` in text."""
OPTIONS = (
    THREADS,
    RuntimeOption("winograd", "on", "Winograd's convolutions, F(2,3) to F(6,3) as it chooses", SWITCH),
    RuntimeOption("sgemm", "on", "convolutions as products of matrices", SWITCH),
    RuntimeOption("packing", "on", "channels packed for SIMD", SWITCH),
    RuntimeOption("storage", "float32", "of blobs and weights while it runs", ("float32", "bfloat16")),
    RuntimeOption(
        "weights", "float32", "of the .bin: pnnx writes float16 unless told fp16=0", ("float32", "float16")
    ),
)


class NcnnCandidate(PhoneCandidate):
    """A model in ncnn; parameters and errors as of `PhoneCandidate`."""

    without_winograd = "winograd=off"
    suffixes = (".bin",)

    @property
    def declaration(self) -> Declaration:
        """Float32 arithmetic; blobs and weights as declared."""
        values = self.settings.values
        halved = values["weights"] == "float16"
        return Declaration(FLOAT32, FORMATS[values["storage"]], NCNN, weights=FLOAT16 if halved else None)

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
            "use_fp16_packed": False,
            "use_fp16_storage": False,
            "use_fp16_arithmetic": False,
            "use_bf16_storage": narrow,
            "use_bf16_packed": narrow,
        }

    def check_files(self, files: Sequence[Path]) -> None:
        """Raise `FileError` unless they are a ``.param`` in text and its ``.bin``."""
        super().check_files(files)
        first = files[0].read_bytes()[: len(MAGIC)].decode("ascii", "replace")
        if first != MAGIC:
            raise FileError(
                f"{files[0]} begins with {first!r}, not with {MAGIC}: it is no .param of ncnn in text"
            )

    def fed(self, images: Given) -> Array:
        """Return one picture: ncnn has no batch axis."""
        return one_picture(super().fed(images), "ncnn")


WAYS = ("winograd=on", "winograd=off", "weights=float16", "storage=bfloat16")
NCNN_RUNTIME = PhoneRuntime("ncnn", "ncnn", ".param", OPTIONS, NcnnCandidate, WAYS)
