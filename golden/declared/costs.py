"""What networks cost, confirmed by PyTorch's counter on the independent modules, and on the ONNX file."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx

from conformance.graph.onnx_export import to_onnx
from conformance.graph.pytorch_replay import import_torch
from golden.case import Case, Confirmation, Golden
from golden.sources.source import _torch_version
from refimpl.config import MobileInstConfig
from refimpl.costs import VIEWS, peak_activation_memory, record_shapes, stage_costs, step_costs
from refimpl.errors import VerificationError
from refimpl.recording import Recording

OPSET = 18
"""From here on the axes of every reduction are a tensor that is read, as in the recording."""
PRESETS = (
    "topformer-tiny",
    "seaformer-tiny",
    "sparseinst-topformer-tiny",
    "solov2-lite-r18",
    "condinst-topformer-base",
    "yolact-mobilenetv2",
)
SIZE = (192, 384)
"""At 1/32 a multiple of six, so that pyramid pooling averages and multiplies no matrices."""


def _counted(recording: Recording) -> dict[str, Any]:
    stages = {
        stage.stage: {
            "parameters": stage.parameters,
            "multiply_accumulates": stage.macs,
            "bytes_moved": stage.bytes_moved,
        }
        for stage in stage_costs(step_costs(recording))
    }
    return {"stages": stages, "peak_activation_bytes": peak_activation_memory(recording).bytes}


def _case(preset: str) -> Callable[[], Case]:
    def case() -> Case:
        recording = record_shapes(MobileInstConfig.preset(preset), *SIZE)
        results = _counted(recording)

        def confirm() -> list[Confirmation]:
            learned = {
                stage: (cost["parameters"], cost["multiply_accumulates"])
                for stage, cost in results["stages"].items()
                if cost["parameters"] or cost["multiply_accumulates"]
            }
            moved = {stage: cost["bytes_moved"] for stage, cost in results["stages"].items()}
            model = to_onnx(recording, preset, opset=OPSET)
            return [
                _agreed(f"PyTorch {_torch_version()}, FlopCounterMode", _by_pytorch(preset), learned),
                _agreed(
                    f"brute force on the ONNX file, shapes by onnx {onnx.__version__}",
                    _by_onnx(model),
                    {"moved": moved, "peak": results["peak_activation_bytes"]},
                ),
            ]

        return Case({}, {}, lambda form: {}, confirm, decisions={"results": results})

    return case


def _agreed(source: str, found: Any, results: Any) -> Confirmation:
    if found != results:
        raise VerificationError(f"{source} has {found}, not {results}")
    return Confirmation(source, 0.0, "decisions")


def _by_pytorch(preset: str) -> dict[str, tuple[int, int]]:
    """Parameters and multiply–accumulates of each child of the independent module, on shapes alone."""
    torch = import_torch()
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from golden.sources.independent import module_for

    config = MobileInstConfig.preset(preset)
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the fused operators are not counted
    try:
        with torch.device("meta"):
            module = module_for(config).eval().requires_grad_(False)
            images = torch.zeros(1, 3, *SIZE)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            module(images)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    flops = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    found = {
        name: (sum(p.numel() for p in child.parameters()), flops[f"{type(module).__name__}.{name}"] // 2)
        for name, child in module.named_children()
    }
    rest = flops["Global"] // 2 - sum(macs for _, macs in found.values())
    return {**found, "masks": (0, rest)} if rest else found


def _by_onnx(model: onnx.ModelProto) -> dict[str, Any]:
    """Bytes that the nodes read and write, and the most that stays alive, with the shapes ONNX infers."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    sizes = {
        info.name: math.prod(d.dim_value for d in info.type.tensor_type.shape.dim)
        * onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type).itemsize
        for info in (*graph.input, *graph.value_info, *graph.output)
    }
    sizes |= {tensor.name: onnx.numpy_helper.to_array(tensor).nbytes for tensor in graph.initializer}
    moved: Counter[str] = Counter()
    for node in graph.node:
        names = {name for name in (*node.input, *node.output) if name}
        stage = node.name.partition("/")[0].partition(".")[0]
        moved[stage] += 0 if node.op_type in VIEWS else sum(sizes[name] for name in names)
    return {"moved": dict(moved), "peak": _peak(graph, sizes)}


def _peak(graph: onnx.GraphProto, sizes: dict[str, int]) -> int:
    """For every moment, add up what was made by then and is used then or later."""
    memory = {info.name: info.name for info in graph.input}
    made: dict[str, int] = dict.fromkeys(memory, -1)
    used: dict[str, int] = {}
    for moment, node in enumerate(graph.node):
        sources = [memory[name] for name in node.input if name in memory]
        for name in node.output if sources else ():
            memory[name] = sources[0] if node.op_type in VIEWS else name
            made.setdefault(memory[name], moment)
        used |= {memory[name]: moment for name in (*node.input, *node.output) if name in memory}
    used |= {memory[info.name]: len(graph.node) for info in graph.output}
    first, last, size = (np.asarray([values[name] for name in made]) for values in (made, used, sizes))
    return max(int(size[(first <= moment) & (moment <= last)].sum()) for moment in range(len(graph.node)))


def goldens() -> Iterator[Golden]:
    """Yield the goldens of costs."""
    module = "refimpl.costs"
    others = ("record_shapes", "step_costs", "multiply_accumulates", "peak_activation_memory")
    for preset in PRESETS:
        yield Golden(
            f"costs/{preset.replace('-', '_')}",
            "cost",
            f"{module}.stage_costs",
            {"preset": preset, "height": SIZE[0], "width": SIZE[1]},
            None,
            "products of convolutions, linear layers and attention; learned parameters; float32 bytes",
            _case(preset),
            tuple(f"{module}.{name}" for name in others),
        )
