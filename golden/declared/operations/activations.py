"""Activations: lines through their bends, kinks and tails."""

from __future__ import annotations

from golden.case import halves
from golden.declared.operations.call import Call, call, line, randn, uniform

_WHOLE = line(-8, 8, 65, 1e-3, -1e-3, 0.0, 20.0, -20.0)
_SHAPES = ("sigmoid", "tanh", "erf", "gelu", "mish", "softplus", "swish", "elu", "sin", "cos")
_KINKS = halves([-3, 3, 0, 6, -2.998, -3.002, 2.998, 3.002, 5.996, 6.004, 1e-4, -1e-4, 100, -100])
_AROUND = "values around −3, 0, 3 and 6: the slope and both ends"

# One line per call.
# fmt: off
CALLS: tuple[Call, ...] = (
    *(call(f"{name}.line", "−8 … 8, near 0, and ±20", _WHOLE) for name in _SHAPES),
    call("gelu.tanh", "the tanh approximation", _WHOLE, approximate="tanh"),
    call("elu.alpha", "α = 0.5", line(-5, 5, 41), alpha=0.5),
    call("swish.alpha", "α = 1.5", line(-6, 6, 41), alpha=1.5),
    call("leaky_relu.ordinary", "slope 1/8 below zero", line(-4, 4, 33), alpha=0.125),
    call("prelu.channels", "a slope for each channel", randn(2, 3, 4), uniform(0, 1, 3, 1)),
    call("relu.ordinary", "zero below zero", line(-4, 4, 33)),
    call("clip.relu6", "ReLU6", line(-3, 9, 49), 0.0, 6.0),
    call("clip.one_side", "no lower end", line(-3, 9, 49), None, 2.5),
    call("hard_sigmoid.pytorch", "slope 1/6", line(-5, 5, 41), alpha=1 / 6, beta=0.5),
    call("hard_sigmoid.onnx", "ONNX's default slope 0.2", line(-5, 5, 41)),
    call("hard_swish.ordinary", "x · relu6(x + 3) / 6", line(-5, 5, 41)),
    call("softmax.last", "the last axis", randn(2, 4, 10, scale=2)),
    call("softmax.channels", "axis 1", randn(2, 5, 3, 2, scale=2), axis=1),
    call("log_softmax.last", "the last axis", randn(3, 10, scale=2)),
    *(call(f"{name}.line", "−8 … 8, near 0, and ±20", _WHOLE) for name in ("selu", "softsign", "asinh", "atan")),
    *(call(f"{name}.line", "−4 … 4, and near 0", line(-4, 4, 65, 1e-3, -1e-3, 0.0)) for name in ("tan", "sinh", "cosh")),
    *(call(f"{name}.line", "−1 … 1: steep at the ends", line(-1, 1, 65, 1e-3, -1e-3, 0.999, -0.999)) for name in ("asin", "acos")),
    call("atanh.line", "−0.98 … 0.98", line(-0.984375, 0.984375, 64, 1e-3, -1e-3, 0.0)),
    call("acosh.line", "1 … 9", line(1, 9, 65, 1.001, 100.0)),
    call("celu.alpha", "α = 2", line(-5, 5, 41), alpha=2.0),
    call("shrink.soft", "moved by 0.5 beyond ±1", line(-4, 4, 33), lambd=1.0, bias=0.5),
    call("thresholded_relu.ordinary", "zero up to 1.5", line(-4, 4, 33), alpha=1.5),
    call("hardmax.ties", "the first of equal maxima", halves([[0, 3, 1, 3], [2, 2, 2, 2], [-1, -5, -0.5, -2]]), axis=1),
    call("probes/hard_sigmoid.kinks", _AROUND, _KINKS, alpha=1 / 6, beta=0.5),
    call("probes/hard_swish.kinks", _AROUND, _KINKS),
    call("probes/relu.kinks", _AROUND, _KINKS),
    call("probes/clip.kinks", "values around 0 and 6: both ends of ReLU6", _KINKS, 0.0, 6.0),
    call("probes/softmax.hundred", "logits of ±100: without subtracting the maximum it overflows", halves([[100, -100, 99, 0], [100, 100, 100, 100], [-100, -101, -100, -104], [0, 0.5, 0, 88]])),
    call("probes/sigmoid.far", "far tails: 1 − σ, overflow of exp", halves([-100, -88, -40, -17, -10, 0, 10, 17, 40, 88, 100])),
    call("probes/gelu.tails", "the left tail, where the tanh form is off", line(-6, -2, 33)),
)
