"""Qualcomm's NPU, emulated by Qualcomm's own library (extra ``qnn``): a candidate like any other.

Float models are computed in float16 with wide sums, whatever they are stored in; quantised ones in integers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conformance.bounds import FLOAT16, FLOAT32, HEXAGON, Declaration
from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate, only_input
from conformance.candidates.onnx_runtime import RuntimeOptions, exposed, plugin
from conformance.candidates.onnx_runtime_process import IsolatedOnnxRuntimeGraph
from conformance.candidates.qnn_process import FALLBACKS
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.quantized import quantized_results
from conformance.named_values import values_in
from refimpl.errors import ConfigurationError
from refimpl.ops.operation import Array

PROVIDER = "QNNExecutionProvider"
CHIPS = {
    "snapdragon-778g": ("68", "35"),
    "snapdragon-888": ("68", "30"),
    "snapdragon-8-gen-1": ("69", "36"),
    "snapdragon-8-plus-gen-1": ("69", "42"),
    "snapdragon-8-gen-2": ("73", "43"),
    "snapdragon-8s-gen-3": ("73", "68"),
    "snapdragon-8-gen-3": ("75", "57"),
    "snapdragon-8s-gen-4": ("79", "85"),
    "snapdragon-8-elite": ("79", "69"),
    "snapdragon-8-elite-gen-5": ("81", "87"),
}
"""Chip → version of its Hexagon processor, Qualcomm's number of the chip.

Source: github.com/pytorch/executorch, ``backends/qualcomm/serialization/qc_schema.py``."""

ON_NPU = Declaration(FLOAT16, FLOAT32, HEXAGON)
"""Operands rounded to float16, sums wide, results handed on as they are."""

OPTIONS = (
    "vtcm_mb",
    "htp_graph_finalization_optimization_mode",
    "enable_htp_fp16_precision",
    "enable_htp_fp16_clamp_overflow",
    "htp_bf16_enable",
    "offload_graph_io_quantization",
)
"""The provider's own options that bear on what is computed; it takes no notice of those it does not know."""

PATIENCE = 1800.0
"""Seconds that a run may take unless told otherwise: a large network, every tensor shown, a busy laptop."""

MEASURED = (2, 51)
"""The version of QNN that what is allowed was measured with."""

_STRICT = {"session.disable_cpu_ep_fallback": "1"}
_ASSIGNED = {"session.record_ep_graph_assignment_info": "1"}
_SHOWN = 6


def installed_qnn() -> tuple[int, ...]:
    """Return the installed QNN's version, major and minor."""
    version = plugin(PROVIDER).build_and_package_info.qnn_version
    return tuple(int(number) for number in version.split(".")[:2])


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))


@dataclass(frozen=True)
class Npu:
    """Which NPU, and whether it has to compute every node.

    Attributes
    ----------
    htp_arch, soc_model
        Version of the Hexagon processor; Qualcomm's number of the chip.
    strict
        A node that falls back to the CPU is refused.
    others
        The provider's own options, as its documentation names them.
    """

    htp_arch: str
    soc_model: str
    strict: bool = False
    others: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Npu:
        """Return what follows ``qnn:`` — ``CHIP`` or ``htp_arch=73,soc_model=43``, and ``strict``.

        Raises
        ------
        ConfigurationError
            There is no such chip, or a number is missing.
        """
        parts = [part for part in text.split(",") if part]
        pairs = values_in([part for part in parts if "=" in part], "--candidate qnn")
        words = [part for part in parts if "=" not in part and part != "strict"]
        if len(words) == 1 and words[0] in CHIPS and not pairs.keys() & {"htp_arch", "soc_model"}:
            pairs["htp_arch"], pairs["soc_model"] = CHIPS[words.pop()]
        if words or not {"htp_arch", "soc_model"} <= pairs.keys():
            given = f"qnn:{text}" if text else "qnn"
            raise ConfigurationError(
                f"--candidate {given} names no chip; expected one of {', '.join(CHIPS)}, "
                "or htp_arch=73,soc_model=43"
            )
        arch, soc = pairs.pop("htp_arch"), pairs.pop("soc_model")
        if not (arch.isdecimal() and soc.isdecimal()):
            raise ConfigurationError(
                f"htp_arch={arch}, soc_model={soc}: expected two numbers, such as 73 and 43"
            )
        known = dict.fromkeys(version for version, _ in CHIPS.values())
        if arch not in known:
            # The provider would take another in its place, and say so in its log alone.
            raise ConfigurationError(f"there is no htp_arch={arch}; expected one of {', '.join(known)}")
        unknown = [name for name in pairs if name not in OPTIONS]
        if unknown:
            raise ConfigurationError(
                f"--candidate qnn has no option {unknown[0]!r}; expected one of {', '.join(OPTIONS)}"
            )
        return cls(arch, soc, "strict" in parts, tuple(pairs.items()))

    @property
    def options(self) -> RuntimeOptions:
        """How ONNX Runtime is to run a model on it; `ConfigurationError` if its QNN is too old."""
        if installed_qnn() < MEASURED:
            raise ConfigurationError(
                f"QNN {_dotted(installed_qnn())} is older than {_dotted(MEASURED)}: "
                "pip install --upgrade 'mobileinst-reference[qnn]'"
            )
        chip = {"htp_arch": self.htp_arch, "soc_model": self.soc_model}
        backend = {"backend_path": str(plugin(PROVIDER).get_qnn_htp_path())}
        return RuntimeOptions(
            provider=PROVIDER,
            provider_options=backend | chip | dict(self.others),
            entries=_ASSIGNED | (_STRICT if self.strict else {}),
        )


class NpuGraph(IsolatedOnnxRuntimeGraph):
    """Any ONNX graph on the NPU; parameters as of `IsolatedOnnxRuntimeGraph`."""

    module = "conformance.candidates.qnn_process"
    fallbacks: Sequence[tuple[str, str]] = ()

    def take_note(self, folder: Path) -> None:
        """Keep which nodes the CPU computed, by name and operator."""
        self.fallbacks = json.loads((folder / FALLBACKS).read_text(encoding="utf-8"))

    def capture(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return every tensor of a float model, every integer result of a quantised one; and the outputs.

        To show more of a quantised model would break what the NPU computes as one.
        """
        shown = quantized_results(self.graph)
        if not shown:
            return super().capture(feeds)
        return self._run(exposed(self.graph.model, shown), feeds, self.options)

    @property
    def integer(self) -> bool:
        """Whether it makes integers from integers."""
        return bool(quantized_results(self.graph))

    @property
    def tolerance(self) -> str:
        """What a verdict allows, in words."""
        if not self.integer:
            return str(self.declaration)
        return (
            "each integer may be off by half a step of its scale and by what the NPU was measured to lose; "
            "errors are in steps"
        )

    @property
    def remarks(self) -> list[str]:
        """What the NPU did not compute itself, and whether its version is newer than what was measured."""
        newer = (
            f"what is allowed was measured with QNN {_dotted(MEASURED)}; this is {_dotted(installed_qnn())}"
        )
        return ([newer] if installed_qnn() > MEASURED else []) + self._fallen_back

    @property
    def _fallen_back(self) -> list[str]:
        if not self.fallbacks:
            return []
        named = [f"{name or 'unnamed'} ({op_type})" for name, op_type in self.fallbacks]
        more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
        return [
            f"{len(named)} node{'s' * (len(named) > 1)} fell back to the CPU, judged as the NPU's: "
            f"{', '.join(named[:_SHOWN])}{more}"
        ]


def npu_graph(
    graph: OnnxGraph, npu: Npu, declaration: Declaration | None = None, timeout: float | None = None
) -> NpuGraph:
    """Return any graph on an NPU; parameters as of `NpuCandidate`."""
    return NpuGraph(graph, npu.options, declaration or ON_NPU, timeout or PATIENCE)


class NpuCandidate(OnnxRuntimeCandidate):
    """An ONNX model of the network on the NPU.

    Parameters
    ----------
    graph
        The model, read and checked.
    npu
        Which one.
    declaration
        The arithmetic it is judged by; float16 with wide sums by default.
    timeout
        Seconds that a run may take, in a process of its own.

    Raises
    ------
    ConfigurationError
        The model is quantised: another computation than the network's.
    """

    def __init__(
        self,
        graph: OnnxGraph,
        npu: Npu,
        declaration: Declaration | None = None,
        timeout: float | None = None,
    ) -> None:
        if quantized_results(graph):
            raise ConfigurationError(
                "a quantised model is another than the network; judge it with --graph-only"
            )
        self.graph = graph
        self.input = only_input(graph)
        self.others = None
        self.model: NpuGraph = npu_graph(graph, npu, declaration, timeout)

    @property
    def remarks(self) -> Sequence[str]:
        """What the NPU did not compute itself."""
        return self.model.remarks
