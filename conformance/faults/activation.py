"""Faults of activation functions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from conformance.faults.catalogue import Site, Variant, fault

_V3 = "Howard et al., Searching for MobileNetV3 (2019), §5.2, https://arxiv.org/abs/1905.02244"


@fault(
    "activation/hard sigmoid of slope 0.2",
    "HardSigmoid",
    source="ONNX HardSigmoid: alpha defaults to 0.2, PyTorch has 1/6; met in Paddle2ONNX, "
    "https://github.com/PaddlePaddle/Paddle/issues/47198",
)
def hard_sigmoid_slope(site: Site) -> Iterator[Variant]:
    """HardSigmoid with ONNX's (and Keras') default slope 0.2 instead of 1/6."""
    if abs(site.attribute("alpha", 0.2) - 0.2) > 1e-3:
        yield site.changed("alpha = 0.2", alpha=0.2)


@fault("activation/sigmoid instead of hard sigmoid", "HardSigmoid", source=_V3)
def smooth_sigmoid(site: Site) -> Iterator[Variant]:
    """The smooth sigmoid instead of its piecewise linear form."""
    yield site.instead("Sigmoid", "Sigmoid", site.call.inputs[0])


@fault("activation/hard sigmoid instead of sigmoid", "Sigmoid", source=_V3)
def rough_sigmoid(site: Site) -> Iterator[Variant]:
    """The piecewise linear sigmoid instead of the smooth one."""
    yield site.instead("alpha = 1/6", "HardSigmoid", site.call.inputs[0], alpha=1 / 6, beta=0.5)
    yield site.instead("alpha = 0.2", "HardSigmoid", site.call.inputs[0], alpha=0.2, beta=0.5)


def _is_relu6(site: Site) -> bool:
    low, high = site.constant(1), site.constant(2)
    return low is not None and high is not None and float(low) == 0 and float(high) == 6


@fault(
    "activation/ReLU6 without its bound",
    "Clip",
    source="onnx2keras: a Clip without its min and max, https://github.com/gmalivenko/onnx2keras/issues/167",
)
def unbounded_relu6(site: Site) -> Iterator[Variant]:
    """ReLU6 computed as ReLU."""
    if _is_relu6(site):
        yield site.instead("no upper bound", "Relu", site.call.inputs[0])


@fault(
    "activation/ReLU6 without its floor",
    "Clip",
    source="ONNX Clip: an absent min is no lower bound, https://onnx.ai/onnx/operators/onnx__Clip.html",
)
def floorless_relu6(site: Site) -> Iterator[Variant]:
    """ReLU6 keeps what is negative."""
    if _is_relu6(site):
        yield site.instead("no lower bound", "Clip", site.call.inputs[0], "", site.call.inputs[2])


@fault(
    "activation/ReLU6 instead of ReLU",
    "Relu",
    source="Sandler et al., MobileNetV2 (2018): ReLU6; TopFormer's pyramid uses ReLU, "
    "https://arxiv.org/abs/1801.04381",
)
def relu6(site: Site) -> Iterator[Variant]:
    """ReLU is cut at 6."""
    yield site.instead("cut at 6", "Clip", site.call.inputs[0], _scalar(0), _scalar(6))


@fault(
    "activation/leaky ReLU",
    "Relu",
    source="DW2TF: the slope is Darknet's 0.1 or a framework's default, "
    "https://github.com/jinyu121/DW2TF/issues/2",
)
def leaky(site: Site) -> Iterator[Variant]:
    """ReLU leaks what is negative."""
    for slope in (0.01, 0.1):
        yield site.instead(f"slope {slope}", "LeakyRelu", site.call.inputs[0], alpha=slope)


@fault("activation/hard swish instead of ReLU", "Relu", source=_V3)
def hard_swish(site: Site) -> Iterator[Variant]:
    """x · hard_sigmoid(x) instead of ReLU."""
    yield site.instead("hard swish", "HardSwish", site.call.inputs[0])


@fault(
    "activation/GELU or SiLU instead of ReLU",
    "Relu",
    source="Hendrycks & Gimpel, Gaussian Error Linear Units (2016): GELU, and x · σ(x) beside it, "
    "https://arxiv.org/abs/1606.08415",
)
def smooth_relu(site: Site) -> Iterator[Variant]:
    """x · Φ(x) or x · σ(x) instead of ReLU."""
    yield site.instead("GELU", "Gelu", site.call.inputs[0])
    yield site.instead("SiLU", "Swish", site.call.inputs[0], alpha=1.0)


@fault("activation/SiLU instead of hard swish", "HardSwish", source=_V3)
def silu(site: Site) -> Iterator[Variant]:
    """x · σ(x) instead of its piecewise form, x · ReLU6(x + 3) / 6."""
    yield site.instead("SiLU", "Swish", site.call.inputs[0], alpha=1.0)


@fault(
    "activation/ReLU instead of GELU",
    "Gelu",
    source="Hendrycks & Gimpel, Gaussian Error Linear Units (2016), https://arxiv.org/abs/1606.08415",
)
def rough_gelu(site: Site) -> Iterator[Variant]:
    """ReLU instead of GELU."""
    yield site.instead("ReLU", "Relu", site.call.inputs[0])


@fault(
    "activation/hard sigmoid of slope 1/2",
    "HardSigmoid",
    source="Courbariaux et al., Binarized Neural Networks (2016): clip((x + 1) / 2, 0, 1), "
    "https://arxiv.org/abs/1602.02830",
)
def hard_sigmoid_of_half(site: Site) -> Iterator[Variant]:
    """HardSigmoid of slope 1/2, as binarised networks have it."""
    yield site.changed("alpha = 0.5", alpha=0.5)


@fault(
    "activation/missing",
    "Relu",
    "Clip",
    "HardSigmoid",
    "Sigmoid",
    "Tanh",
    source="ACETONE: an activation fused into a layer that others read too, "
    "https://github.com/onera/acetone/issues/56",
)
def missing(site: Site) -> Iterator[Variant]:
    """The activation is left out."""
    yield site.instead(site.call.op_type, "Identity", site.call.inputs[0])


@fault(
    "activation/GELU by tanh",
    "Gelu",
    source="Pocket TTS: trained with GELU's tanh form, run with the exact one, "
    "https://github.com/kyutai-labs/pocket-tts/pull/278",
)
def gelu_tanh(site: Site) -> Iterator[Variant]:
    """GELU by its tanh approximation instead of erf, or the reverse."""
    other = "none" if site.attribute("approximate", "none") == "tanh" else "tanh"
    yield site.changed(f"approximate={other}", approximate=other)


@fault(
    "activation/GELU by sigmoid",
    "Gelu",
    source="CLIP, QuickGELU: x σ(1.702 x), https://github.com/openai/CLIP/blob/main/clip/model.py",
)
def quick_gelu(site: Site) -> Iterator[Variant]:
    """GELU as x · σ(1.702 x)."""
    yield site.instead("1.702", "Swish", site.call.inputs[0], alpha=1.702)


def _scalar(value: float) -> np.ndarray:
    return np.asarray(value, np.float32)
