"""Faults of precision: formats narrower than declared, saturation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from onnx import TensorProto

from conformance.bounds import BFLOAT16, FLOAT16, FLOAT32, Format
from conformance.faults.catalogue import Rewriting, Site, Variant, fault

_PRODUCTS = ("Conv", "MatMul")


def _is_data(site: Site) -> bool:
    return site.output not in site.graph.constants and len(site.output_shape) > 2


@fault(
    "quantization/float16 arithmetic",
    *_PRODUCTS,
    source="TNN, precision AUTO and NORMAL: float16 on ARM, "
    "https://github.com/Tencent/TNN/blob/master/include/tnn/core/common.h",
)
def half_arithmetic(site: Site) -> Iterator[Variant]:
    """Operands and result in float16, undeclared."""
    if not _is_data(site):
        return
    rewriting = Rewriting(site)
    operands = [
        rewriting.apply("Cast", name, to=TensorProto.FLOAT16) if name else "" for name in site.call.inputs
    ]
    made = rewriting.apply(site.call.op_type, *operands, **site.call.attributes)
    variant = rewriting.result("undeclared", "Cast", made, to=TensorProto.FLOAT)
    yield replace(variant, formats=(FLOAT16, FLOAT16))


def _stored(site: Site, code: int, narrow: Format) -> Variant:
    rewriting = Rewriting(site)
    made = rewriting.apply(site.call.op_type, *site.call.inputs, **site.call.attributes)
    variant = rewriting.result(
        "undeclared", "Cast", rewriting.apply("Cast", made, to=code), to=TensorProto.FLOAT
    )
    return replace(variant, formats=(FLOAT32, narrow))


@fault(
    "quantization/float16 storage",
    "Conv",
    "MatMul",
    "Add",
    "Relu",
    "Resize",
    source="TNN: OpenCL images of halves, https://github.com/Tencent/TNN/issues/1044",
)
def half_storage(site: Site) -> Iterator[Variant]:
    """A tensor passes through float16, undeclared."""
    if _is_data(site):
        yield _stored(site, TensorProto.FLOAT16, FLOAT16)


@fault(
    "quantization/bfloat16 storage",
    "Conv",
    "MatMul",
    "Add",
    "Relu",
    "Resize",
    source="TNN, precision LOW: bfloat16 on ARM, "
    "https://github.com/Tencent/TNN/blob/master/include/tnn/core/common.h",
)
def brain_half_storage(site: Site) -> Iterator[Variant]:
    """A tensor passes through bfloat16, undeclared."""
    if _is_data(site):
        yield _stored(site, TensorProto.BFLOAT16, BFLOAT16)


@fault(
    "quantization/saturated",
    "Relu",
    "Add",
    source="TensorRT: values beyond the calibrated range are clipped, "
    "https://github.com/NVIDIA/TensorRT/issues/1951",
)
def saturated(site: Site) -> Iterator[Variant]:
    """Values beyond a calibrated range are cut."""
    if not _is_data(site):
        return
    limits = [2.0] if site.observed is None else _plateau(site.observed)
    for limit in limits:
        low, high = np.asarray(-limit, np.float32), np.asarray(limit, np.float32)
        yield site.after(f"at ±{limit:.4g}", "Clip", low, high)


def _plateau(values: np.ndarray) -> list[float]:
    """Return the largest size if several elements share it: there they were cut."""
    sizes = np.abs(values)
    largest = float(sizes.max(initial=0.0))
    return [largest] if largest > 0 and np.count_nonzero(sizes == largest) > 1 else []
