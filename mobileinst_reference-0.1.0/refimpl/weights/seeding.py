"""Weights from a seed: random, with batch norms calibrated so that activations stay of order one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from refimpl.backbone import BackboneSpec
from refimpl.config import MobileInstConfig
from refimpl.forward import forward, parameter_shapes
from refimpl.inference import preprocess
from refimpl.ops.operation import OPERATIONS, Array, intercepted
from refimpl.scope import Scope

CALIBRATION_PICTURES = 4
CALIBRATION_SIZE = (192, 192)


def seeded_arrays(config: MobileInstConfig, seed: int, spec: BackboneSpec | None = None) -> dict[str, Array]:
    """Return name → float32 array of every weight of a network.

    The running statistics are those of a forward pass over rendered pictures and white noise, rounded to
    12 bits so that another BLAS gives the same weights.

    Parameters
    ----------
    config
        Which network.
    seed
        Of the random numbers and of the pictures.
    spec
        A backbone in place of the one that ``config`` names.
    """
    rng = np.random.default_rng(seed)
    arrays = {name: _initial(name, shape, rng) for name, shape in parameter_shapes(config, spec).items()}
    wide = {name: array.astype(np.float64) for name, array in arrays.items()}
    with intercepted(_Calibrator()):
        forward(_calibration_images(seed, rng), Scope(wide), config, spec)
    return {name: wide[name].astype(np.float32) if ".running_" in name else arrays[name] for name in arrays}


def _calibration_images(seed: int, rng: np.random.Generator) -> Array:
    """Pictures and noise, float64 (5, 3, 192, 192).

    One picture has too few tokens at 1/64: the statistics would not fit another. Without the noise, channels
    that see only fine detail would explode on a noisy input.
    """
    # Brings scipy.optimize, which `import refimpl` need not wait for.
    from refimpl.scenes import render_picture

    scenes = [render_picture(*CALIBRATION_SIZE, seed + i) for i in range(CALIBRATION_PICTURES)]
    pictures = np.concatenate([preprocess(scene, sizing="native")[0] for scene in scenes])
    return np.concatenate([pictures, rng.standard_normal((1, *pictures.shape[1:]))])


class _Calibrator:
    """An interceptor that sets each batch norm's statistics to those of the tensor it is given."""

    def call(self, name: str, inputs: tuple[Any, ...], attributes: dict[str, Any]) -> Any:
        if name == "BatchNormalization":
            x, _, _, mean, variance = inputs
            mean[...] = _round_to_bits(x.mean(axis=(0, 2, 3)), 12)
            variance[...] = _round_to_bits(x.var(axis=(0, 2, 3)), 12)
        return OPERATIONS[name](*inputs, **attributes)

    def block(self, path: str, compute: Callable[[], Any]) -> Any:
        return compute()


def _round_to_bits(x: Array, bits: int) -> Array:
    fraction, exponent = np.frexp(x)
    return np.ldexp(np.round(np.ldexp(fraction, bits)), exponent - bits)


def _initial(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """He-scaled normal weights; scales around one, biases around zero."""
    if name.endswith("running_mean"):
        values = np.zeros(shape)
    elif name.endswith("running_var"):
        values = np.ones(shape)
    elif len(shape) == 1 and name.endswith("weight"):
        # TopFormer's attention has no 1/√d: half-size queries and keys keep its softmax from saturating.
        values = rng.uniform(0.8, 1.2, shape) * (0.5 if ".to_q." in name or ".to_k." in name else 1.0)
    elif len(shape) == 1:
        values = 0.1 * rng.standard_normal(shape)
    elif name.endswith(("queries", "pos_embed")):
        values = rng.standard_normal(shape)
    else:
        values = rng.standard_normal(shape) * math.sqrt(_gain(name) / math.prod(shape[1:]))
    return values.astype(np.float32)


def _gain(name: str) -> float:
    # Kernels are multiplied with as many mask features as they have channels: small ones keep masks near one.
    if name.endswith(("kernel_head.2.weight", "mask_kernel.weight")):
        return 0.01
    if "in_proj" in name:
        return 0.25
    return 1.0 if any(part in name for part in _WITHOUT_RELU) else 2.0


_WITHOUT_RELU = (
    "out_proj",
    "_head.weight",
    "cls_score",
    "fpn_laterals",
    "fpn_outputs",
    "fusion",
    "projection",
)
