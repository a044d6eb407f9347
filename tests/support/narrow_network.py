"""The smallest network of the published kind, with an input: what tests of the whole path run on."""

from __future__ import annotations

import functools

import numpy as np
import onnx

from conformance.graph.onnx_export import export
from refimpl import MobileInst, MobileInstConfig, Weights
from refimpl.backbone import BACKBONE_SPECS, BackboneSpec
from refimpl.inference import preprocess
from refimpl.ops.operation import Array
from refimpl.scenes import render_picture

FIELDS = {"dim": 32, "num_queries": 5, "num_classes": 7}
OPTIONS = ["--model", "topformer-tiny", *(f"--set={name}={value}" for name, value in FIELDS.items())]
SIZE = (64, 96)
CONFIG = MobileInstConfig.preset("topformer-tiny", **FIELDS)


def weights(dtype: type = np.float32) -> Weights:
    """Return the network's seeded weights."""
    return _weights(dtype, BACKBONE_SPECS[CONFIG.backbone])


@functools.cache
def _weights(dtype: type, spec: BackboneSpec) -> Weights:
    return Weights.seeded(CONFIG, seed=0).astype(dtype)


def network(dtype: type = np.float32) -> MobileInst:
    """Return the network."""
    return MobileInst(CONFIG, weights(dtype))


@functools.cache
def picture(batch: int = 1) -> Array:
    """Return rendered pictures as the network's input, float32 (batch, 3, 64, 96)."""
    scenes = [preprocess(render_picture(*SIZE, seed), sizing="native")[0] for seed in range(batch)]
    images = np.concatenate(scenes).astype(np.float32)
    images.flags.writeable = False
    return images


@functools.cache
def _export(spec: BackboneSpec) -> onnx.ModelProto:
    return export(network(), picture())


def exported() -> onnx.ModelProto:
    """Return the network's export for that input, to be altered as one likes."""
    model = onnx.ModelProto()
    model.CopyFrom(_export(BACKBONE_SPECS[CONFIG.backbone]))
    return model
