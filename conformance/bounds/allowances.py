"""What an implementation of a function may err by, per class of runtime: the one table that is not derived.

Everything else in this package follows from the unit roundoff. Functions that are approximated by polynomials
have no such law; a runtime's documents state their error, in units in the last place of the result or
absolutely.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Allowance:
    """Error that a function may have: ``ulps`` and ``relative`` of y + ``roundoffs`` · u + ``absolute``.

    Attributes
    ----------
    ulps
        Units in the last place of the result, each at most 2·u·|y|.
    roundoffs
        Absolute error in unit roundoffs of the arithmetic, for functions of values around one.
    absolute
        Absolute error whatever the format.
    source
        Where the figures come from.
    relative
        Of the result, whatever the format: what an approximation leaves out, which does not average out.
    """

    ulps: float
    roundoffs: float
    absolute: float
    source: str
    relative: float = 0.0


_IEEE = "IEEE 754-2019: correctly rounded"
_MLAS_EXP = "ONNX Runtime MLAS compute.cpp and Eigen pexp: 1 ulp; SLEEF u10: 1 ulp; glibc expf: 1 ulp"
_OPENCL = "OpenCL C 3.0 table 65 (full profile, single precision)"
_NEON = "TNN NEON sigmoid, measured against float64: 6e-6"

_CPU = {
    "Div": Allowance(0.5, 0, 0, _IEEE),
    "Reciprocal": Allowance(0.5, 0, 0, _IEEE),
    "Sqrt": Allowance(0.5, 0, 0, _IEEE),
    "Exp": Allowance(2, 0, 0, _MLAS_EXP),
    "Log": Allowance(3, 0, 0, f"{_OPENCL}: log 3 ulp; Eigen plog: 2 ulp; glibc logf: 1 ulp"),
    "Pow": Allowance(
        2, 0, 0, "glibc powf: 1 ulp; ONNX Runtime computes squares and cubes by products: 1 ulp"
    ),
    "Sin": Allowance(
        4, 1, 0, f"{_OPENCL}: sin 4 ulp; SLEEF u35: 3.5 ulp; Cody–Waite reduction at multiples of π"
    ),
    "Cos": Allowance(
        4, 1, 0, f"{_OPENCL}: cos 4 ulp; SLEEF u35: 3.5 ulp; Cody–Waite reduction at multiples of π"
    ),
    "Tanh": Allowance(
        5, 0, 0, f"{_OPENCL}: tanh 5 ulp; MLAS tanh.cpp, Eigen's rational approximation: 3 ulp"
    ),
    "Erf": Allowance(2, 0, 0, "MLAS erf.cpp: 1 ulp; glibc erff: 1 ulp"),
    "Sigmoid": Allowance(
        2,
        4,
        0,
        "MLAS logistic.cpp: rational approximation, clamped at ±18, where it is 1.5e-8: absolute 2e-7",
    ),
    "Softplus": Allowance(
        4, 2, 0, "log(1 + exp(x)) as ONNX Runtime computes it: 1 + exp(x) rounds absolutely"
    ),
    "Tan": Allowance(5, 1, 0, f"{_OPENCL}: tan 5 ulp; Cody–Waite reduction at multiples of π"),
    "Asin": Allowance(4, 0, 0, f"{_OPENCL}: asin 4 ulp"),
    "Acos": Allowance(4, 0, 0, f"{_OPENCL}: acos 4 ulp"),
    "Atan": Allowance(5, 0, 0, f"{_OPENCL}: atan 5 ulp"),
    "Sinh": Allowance(4, 0, 0, f"{_OPENCL}: sinh 4 ulp"),
    "Cosh": Allowance(4, 0, 0, f"{_OPENCL}: cosh 4 ulp"),
    "Asinh": Allowance(4, 0, 0, f"{_OPENCL}: asinh 4 ulp"),
    "Acosh": Allowance(4, 0, 0, f"{_OPENCL}: acosh 4 ulp"),
    "Atanh": Allowance(5, 0, 0, f"{_OPENCL}: atanh 5 ulp"),
    "Elu": Allowance(4, 2, 0, "exp(x) − 1 as ONNX Runtime computes it: the difference rounds absolutely"),
}
_MOBILE = _CPU | {
    "Div": Allowance(2.5, 0, 0, f"{_OPENCL}: x / y 2.5 ulp"),
    "Reciprocal": Allowance(2.5, 0, 0, f"{_OPENCL}: 1 / x 2.5 ulp"),
    "Sqrt": Allowance(3, 0, 0, f"{_OPENCL}: sqrt 3 ulp"),
    "Exp": Allowance(3, 0, 0, f"{_OPENCL}: exp 3 ulp"),
    "Pow": Allowance(16, 0, 0, f"{_OPENCL}: pow 16 ulp"),
    "Erf": Allowance(16, 0, 0, f"{_OPENCL}: erf 16 ulp"),
    "Tanh": Allowance(5, 0, 1.2e-5, f"2·sigmoid(2x) − 1 of: {_NEON}"),
    "Sigmoid": Allowance(2, 4, 6e-6, _NEON),
}


@dataclass(frozen=True)
class Runtime:
    """What is declared of the implementation under test, beyond its formats.

    Attributes
    ----------
    name
    allowances
        Function → what it may err by.
    one_pass_variance
        Variances are computed as E[x²] − E[x]², which cancels when the mean is large.
    winograd_tile
        Convolutions of 3×3 and stride 1 may use Winograd's F(t×t, 3×3), t = 2, 4 or 6; 0: they do not.
    winograd_points
        At which its polynomials are evaluated, infinity aside: the first t + 1.
    rounds_operands
        Operands are rounded to the arithmetic's format first; products and sums of them are of float32.
    stores_when_used
        A result may be handed on wider than it is stored; then what uses it may round it first. And softmax
        stores its exponentials before it divides them by their sum.
    narrows_vectors
        Where weights are declared narrower, biases, tables, what norms scale by and HardSigmoid's slope are,
        too.
    makes_integers
        Of a product with weights of int8 the other operand is made integers as it runs.
    shares_scales
        All of such an operand shares a scale; else at most a row does, of a convolution a picture.
    adds_constants_first
        (x + b) + c may be computed as x + (b + c) where b and c are constants.
    """

    name: str
    allowances: Mapping[str, Allowance] = field(repr=False)
    one_pass_variance: bool = False
    winograd_tile: int = 0
    winograd_points: tuple[float, ...] = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)
    rounds_operands: bool = False
    stores_when_used: bool = False
    narrows_vectors: bool = False
    makes_integers: bool = False
    shares_scales: bool = False
    adds_constants_first: bool = False


CPU = Runtime("cpu", _CPU)
"""IEEE arithmetic and the vector mathematics of the desktop runtimes; the default."""

ONNX_RUNTIME = replace(CPU, name="onnxruntime")
"""The CPU provider. Its LayerNormalization computed E[x²] − E[x]² until two passes replaced it
(github.com/microsoft/onnxruntime/pull/28743): where that cancels, older versions are wrong, not excused."""

OLD_ONNX_RUNTIME = replace(
    ONNX_RUNTIME,
    name="onnxruntime before 1.21",
    allowances=_CPU
    | {
        "Sqrt": Allowance(
            3.5, 0, 0, "measured with 1.19.2 and 1.20.1 on 65,536 numbers: 3.1 ulp; 1.21.1: 0.5"
        )
    },
)
"""The CPU provider when its square root was an approximation."""

MOBILE = Runtime("mobile", _MOBILE)
"""Phones: OpenCL's full profile, NEON approximations."""

HEXAGON = Runtime("hexagon", _MOBILE, rounds_operands=True)
"""Qualcomm's NPU with float graphs; to be declared with float16 arithmetic."""

_BY_RECIPROCAL = {"Div": Allowance(1, 0, 0, "x · (1 / y), either rounded: 2·u; measured: 0.92 ulp")}

_NCNN = {
    "Div": Allowance(1.5, 0, 0, "ncnn on x86, an approximate reciprocal made better once; measured: 1.4 ulp"),
    "Reciprocal": Allowance(1, 0, 0, "the same; measured: 0.99 ulp"),
    "Tanh": Allowance(5, 6, 0, "2·sigmoid(2x) − 1; ncnn on x86, measured: 4.8·u"),
    "Pow": Allowance(30, 0, 0, "exp(p·log x) rounds p·log x; ncnn on x86, measured: 27 ulp of x^p ≥ 8e-24"),
}
NCNN = replace(CPU, name="ncnn", allowances=_CPU | _NCNN, stores_when_used=True)
"""ncnn on a CPU. With bfloat16 storage, its MatMul hands on float32, which Softmax rounds; exponentials that
are stored, over the sum of those before, give its results to the last bit (960 of 960 numbers of a layer)."""

NCNN_INTEGERS = replace(
    NCNN,
    allowances={
        **NCNN.allowances,
        "Reciprocal": Allowance(
            1, 0, 0, "x86's RCPPS, as it is; Intel's manual: 1.5 · 2⁻¹²", relative=1.5 * 2.0**-12
        ),
    },
)
"""ncnn on x86 with packed channels, where grouped convolutions of integers are scaled by an estimate."""

_NEON_STEP = "ncnn on Arm, NEON's estimate made better once"
NCNN_ARM = replace(
    NCNN,
    name="ncnn on arm",
    allowances={
        **NCNN.allowances,
        "Reciprocal": Allowance(80, 0, 0, f"{_NEON_STEP}; measured: 68 ulp"),
        "Div": Allowance(160, 0, 0, f"1 / √x by {_NEON_STEP}, measured: 134 ulp; other divisions are exact"),
    },
)
"""ncnn on an Arm CPU."""
NCNN_ARM_INTEGERS = replace(NCNN_ARM, allowances={**NCNN_ARM.allowances, "Div": _CPU["Div"]})
"""The same beside its own layers, of which none divides by a root."""

_OPENVINO = {
    "Erf": Allowance(2, 8, 1.5e-7, "Abramowitz & Stegun 7.1.26, as oneDNN has it; measured: 5.3e-7"),
    "Softplus": Allowance(4, 7, 0, "OpenVINO's CPU plugin, measured: 6.2·u where y is small"),
}
OPENVINO = replace(
    CPU,
    name="openvino",
    allowances=_CPU | _BY_RECIPROCAL | _OPENVINO,
    stores_when_used=True,
    narrows_vectors=True,
    adds_constants_first=True,
)
"""OpenVINO's CPU plugin; (x + b) + c is x + (b + c) by its ``AddAddFusion``, and x / y is x · y⁻¹ by
``ConvertDivide``."""

OPENVINO_DYNAMIC = replace(OPENVINO, name="openvino, dynamic", makes_integers=True)
"""As OpenVINO's CPU plugin takes int8 weights unless it is told not to: 32 operands share a scale."""

_MNN = {
    "Exp": Allowance(4, 0, 0, "MNN's polynomial; measured: 3.5 ulp"),
    "Tanh": Allowance(5, 4, 0, "MNN on x86, measured: 3.3·u"),
    "Elu": Allowance(4, 4, 0, "exp(x) − 1; MNN on x86, measured: 3.9·u"),
}
MNN = replace(
    CPU,
    name="mnn",
    allowances=_CPU | _BY_RECIPROCAL | _MNN,
    narrows_vectors=True,
    winograd_points=(0.0, 0.5, -0.5, 1.0, -1.0, 1.5, -1.5),
)
"""MNN on a CPU; its converter stores a constant divisor's reciprocal, the points of its ``WinogradGenerater``
are multiples of a half."""

_TAYLOR = "MNN's exponential on Arm, Taylor's polynomial of degree 4 on ±ln 2 / 2"
MNN_ARM = replace(
    MNN,
    name="mnn on arm",
    allowances={
        **MNN.allowances,
        "Exp": Allowance(2, 0, 0, f"{_TAYLOR}: 5.57e-5; measured with 3.6.1: 5.57e-5", relative=5.57e-5),
        "Sigmoid": Allowance(2, 4, 1.4e-5, f"{_TAYLOR}: y (1 − y) · 5.57e-5; measured: 1.34e-5"),
        "Tanh": Allowance(5, 0, 2.8e-5, f"2·sigmoid(2x) − 1 by {_TAYLOR}; measured: 2.7e-5"),
        "Elu": Allowance(4, 4, 5.6e-5, f"exp(x) − 1 by {_TAYLOR}; measured: 3.9e-5"),
        "Softplus": Allowance(4, 4, 5.6e-5, f"log(1 + exp(x)) by {_TAYLOR}; measured: 5.5e-5"),
    },
)
"""MNN on an Arm CPU: of exp(−ln 2 / 2) = 0.707 the terms left out make 3.94e-5."""

MNN_DYNAMIC, MNN_ARM_DYNAMIC = (
    replace(each, name=f"{each.name}, dynamic", makes_integers=True) for each in (MNN, MNN_ARM)
)
"""MNN told to save memory, with int8 weights: a place of a map, or all of it, shares a scale."""

_LITERT = {"Erf": Allowance(3, 0, 0, "LiteRT's converter makes it of products and sums; measured: 2.1 ulp")}
LITERT = replace(CPU, name="litert", allowances=_CPU | _BY_RECIPROCAL | _LITERT, adds_constants_first=True)
"""LiteRT on a CPU, XNNPACK included; its converter makes x + (b + c) of (x + b) + c, and stores a constant
divisor's reciprocal."""

LITERT_DYNAMIC = replace(LITERT, name="litert, dynamic", makes_integers=True)
"""LiteRT's hybrid kernels and XNNPACK's: a row, or a picture, shares a scale."""

EXECUTORCH = replace(CPU, name="executorch")
"""ExecuTorch on a CPU, with its portable kernels or XNNPACK's."""

EXECUTORCH_DYNAMIC = replace(EXECUTORCH, name="executorch, dynamic", makes_integers=True)
"""With XNNPACK's kernels for int8 weights: a row, or a picture, shares a scale."""
EXECUTORCH_PORTABLE_DYNAMIC = replace(
    EXECUTORCH_DYNAMIC, name="executorch's own, dynamic", shares_scales=True
)
"""With its portable ones: all of a tensor does."""


def with_winograd(runtime: Runtime, tile: int) -> Runtime:
    """Return a runtime of whose 3×3 convolutions Winograd's F(tile×tile, 3×3) is declared; 0: none."""
    return replace(runtime, name=f"{runtime.name} F({tile},3)", winograd_tile=tile) if tile else runtime


TILES = (2, 4, 6)
"""Of Winograd's convolutions."""
_ALL = (
    CPU,
    ONNX_RUNTIME,
    OLD_ONNX_RUNTIME,
    MOBILE,
    HEXAGON,
    NCNN,
    OPENVINO,
    OPENVINO_DYNAMIC,
    MNN,
    MNN_ARM,
    MNN_DYNAMIC,
    MNN_ARM_DYNAMIC,
    LITERT,
    LITERT_DYNAMIC,
    EXECUTORCH,
    EXECUTORCH_DYNAMIC,
    EXECUTORCH_PORTABLE_DYNAMIC,
)
RUNTIMES = {
    each.name: each for plain in _ALL for each in (plain, *(with_winograd(plain, tile) for tile in TILES))
}
"""Runtimes by name."""


def onnx_runtime(version: str) -> Runtime:
    """Return what a version of ONNX Runtime is judged by."""
    major, minor = (int(part) for part in version.split(".")[:2])
    return OLD_ONNX_RUNTIME if (major, minor) < (1, 21) else ONNX_RUNTIME
