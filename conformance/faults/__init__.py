"""The catalogue of faults: mistakes people really make, injected and recognised."""

from conformance.faults import (
    activation,  # noqa: F401
    attention,  # noqa: F401
    convolution,  # noqa: F401
    decoder,  # noqa: F401
    detector,  # noqa: F401
    layout,  # noqa: F401
    normalization,  # noqa: F401
    pooling,  # noqa: F401
    postprocessing,  # noqa: F401
    preprocessing,  # noqa: F401
    quantization,  # noqa: F401
    resize,  # noqa: F401
    weights,  # noqa: F401
)
from conformance.faults.alterations import ALTERATIONS
from conformance.faults.catalogue import CATALOGUE, Fault, Site, Variant
from conformance.faults.graph import ShapedGraph
from conformance.faults.injection import Injection, injected, injections

__all__ = [
    "ALTERATIONS",
    "CATALOGUE",
    "Fault",
    "Injection",
    "ShapedGraph",
    "Site",
    "Variant",
    "injected",
    "injections",
]
