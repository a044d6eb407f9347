"""ncnn (extra ``ncnn``): a ``.param`` with its ``.bin``, every blob captured, layers named as in the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from conformance.bounds import BFLOAT16, FLOAT16, FLOAT32, FORMATS, NCNN, Declaration
from conformance.candidates.arrays import Given
from conformance.candidates.candidate import Candidate, OwnGraph
from conformance.candidates.phone_runtime import (
    SWITCH,
    THREADS,
    PhoneRuntime,
    RuntimeOption,
    Settings,
    one_picture,
    only_array,
)
from refimpl.errors import CandidateError, ConfigurationError, FileError
from refimpl.graph import Graph, Node
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


class NcnnCandidate(Candidate):
    """A model in ncnn.

    Parameters
    ----------
    package
        The Python module ``ncnn``.
    settings
        The ``.param``, beside which its ``.bin`` lies, and the options.

    Raises
    ------
    FileError
        A file is missing, or of another runtime.
    ConfigurationError
        ncnn lacks an operator of it.
    """

    captures_all = True
    without_winograd = "winograd=off"
    fusion_reach = 8
    """MultiHeadAttention is one layer: eight steps of ours."""

    def __init__(self, package: Any, settings: Settings) -> None:
        self.ncnn, self.settings = package, settings
        self.net = package.Net()
        self._set(self.net.opt)
        _read(package, self.net, settings.model)
        self.input = self.net.input_names()[0]

    @property
    def declaration(self) -> Declaration:
        """Float32 arithmetic; blobs and weights as declared."""
        values = self.settings.values
        halved = values["weights"] == "float16"
        return Declaration(FLOAT32, FORMATS[values["storage"]], NCNN, weights=FLOAT16 if halved else None)

    def run(self, images: Given) -> dict[str, Array]:
        """Return the outputs, as users run it: blobs are freed when they are used up."""
        return self._extracted(images, self.net.output_names(), light=True)

    def capture(self, images: Given) -> dict[str, Array]:
        """Return every blob, in the order of the layers; none is overwritten in place."""
        names = [blob.name for blob in self.net.blobs() if blob.name != self.input]
        return self._extracted(images, names, light=False)

    def own_graph(self, images: Given) -> OwnGraph:
        """Return its layers."""
        names = [blob.name for blob in self.net.blobs()]
        return OwnGraph(
            Graph(
                [
                    Node(
                        layer.name,
                        layer.type,
                        tuple(names[place] for place in layer.bottoms),
                        tuple(names[place] for place in layer.tops),
                    )
                    for layer in self.net.layers()
                ]
            )
        )

    def _set(self, option: Any) -> None:
        settings = self.settings
        option.num_threads = settings.threads
        option.use_vulkan_compute = False
        option.use_winograd_convolution = settings.is_on("winograd")
        option.use_sgemm_convolution = settings.is_on("sgemm")
        option.use_packing_layout = settings.is_on("packing")
        # On Arm the defaults compute in float16; here nothing is computed in what is not declared.
        option.use_fp16_packed = option.use_fp16_storage = option.use_fp16_arithmetic = False
        option.use_bf16_storage = option.use_bf16_packed = settings.values["storage"] == BFLOAT16.name

    def _extracted(self, images: Given, names: list[str], light: bool) -> dict[str, Array]:
        array = only_array(images)
        self.settings.check_shape(array)
        picture = np.ascontiguousarray(one_picture(array, "ncnn"))
        extractor = self.net.create_extractor()
        extractor.set_light_mode(light)
        extractor.input(self.input, self.ncnn.Mat(picture))
        return {name: self._blob(extractor, name) for name in names}

    def _blob(self, extractor: Any, name: str) -> Array:
        status, blob = extractor.extract(name)
        if status != 0:
            raise CandidateError(
                f"ncnn cannot compute blob {name!r}: it returns {status}; was the model converted for "
                "another size of picture?"
            )
        # The array is a view of memory that ncnn frees.
        return np.array(blob, copy=True)


def _read(package: Any, net: Any, param: Path) -> None:
    weights = param.with_suffix(".bin")
    if not weights.is_file():
        raise FileError(f"{weights}: there is no such file; ncnn keeps the weights of {param.name} there")
    first = param.read_bytes()[: len(MAGIC)].decode("ascii", "replace")
    if first != MAGIC:
        raise FileError(f"{param} begins with {first!r}, not with {MAGIC}: it is no .param of ncnn in text")
    if net.load_param(str(param)) != 0:
        raise ConfigurationError(
            f"ncnn {package.__version__} cannot read {param}: {_unknown(package, param)}"
        )
    if net.load_model(str(weights)) != 0:
        raise FileError(
            f"{weights} does not hold the weights of {param.name}: it ends too early or is another's"
        )


def _unknown(package: Any, param: Path) -> str:
    """Say which operators ncnn lacks."""
    words = [line.split() for line in param.read_text(encoding="utf-8").splitlines()[2:]]
    types: Mapping[str, None] = dict.fromkeys(line[0] for line in words if line)
    lacking = [kind for kind in types if package.layer_to_index(kind) < 0]
    return f"it lacks the operators {', '.join(lacking)}" if lacking else "it is malformed"


WAYS = ("winograd=on", "winograd=off", "weights=float16", "storage=bfloat16")
NCNN_RUNTIME = PhoneRuntime("ncnn", "ncnn", ".param", OPTIONS, NcnnCandidate, WAYS)
