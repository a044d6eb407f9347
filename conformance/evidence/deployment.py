"""What deployment costs in AP: the trained network quantised, halved, or with a known mistake.

Every model runs in ONNX Runtime on the same held-out pictures; its decisions are compared with the float32
model's, and beside them stands the judge's verdict.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate
from conformance.candidates.onnx_runtime import RuntimeOptions
from conformance.evidence.held_out import (
    CATEGORIES,
    Figure,
    picture_precision,
    picture_truth,
    without_labels,
)
from conformance.faults import CATALOGUE, ShapedGraph, injected, injections
from conformance.faults.injection import OPSET
from conformance.graph.onnx_export import to_onnx
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.network import verify
from conformance.pictures.picture import coco_results
from refimpl import MobileInst, Recording, Weights, held_out, record
from refimpl.hard_scenes import make_hard_scene
from refimpl.inference import Instances, Placement, postprocess, preprocess
from refimpl.scenes import render_frame

Array = NDArray[Any]

CALIBRATION = 16
"""Scenes of the training seeds that quantisation is calibrated on."""

PARTS = (
    "backbone.tpm.stem",
    *(f"backbone.tpm.layer{number}" for number in range(1, 10)),
    "backbone.trans",
    "mask_decoder",
    "instance_decoder",
)
"""Parts that are quantised one at a time, to see which costs what."""

FIRST = ("backbone.tpm.stem", "backbone.tpm.layer1", "backbone.tpm.layer2")
"""Blocks that int8 costs most in, kept in float32 in one of the models."""

MISTAKES = (
    "preprocessing/BGR",
    "attention/scale missing",
    "resize/corners aligned",
    "pooling/average instead of maximum",
    "normalization/batch norm epsilon",
)

CONFIDENT = 0.4


@dataclass(frozen=True)
class Predicted:
    """What an ONNX model predicts, as logits."""

    class_logits: Array
    objectness: Array
    masks: Array


@dataclass(frozen=True)
class Deployed:
    """A model beside the float32 one.

    Attributes
    ----------
    name
    labelled, unlabelled
        AP with and without labels.
    instances, flipped
        Confident instances of the float32 model, and how many were lost, found anew or named otherwise.
    pixels
        Share of mask pixels that differ, of the instances both are confident of.
    verdict, blamed, diagnosis
        The judge's: ``pass`` or ``fail``, the first faulty step, what it looks like.
    """

    name: str
    labelled: Figure
    unlabelled: Figure
    instances: int
    flipped: int
    pixels: float
    verdict: str
    blamed: str
    diagnosis: str


class Deployment:
    """The network exported at the split's size, and what may become of it.

    Parameters
    ----------
    network
    count
        How many of the split's pictures to measure on.
    """

    def __init__(self, network: MobileInst, count: int) -> None:
        self.network, self.count = network, count
        self.inputs = [_input(held_out.held_out_picture(index).picture) for index in range(count)]
        self.truth = picture_truth(count)
        self.recording: Recording = record(network, self.inputs[0])
        self.model = to_onnx(self.recording, "mobileinst", OPSET)
        folded = MobileInst(network.config, Weights(network.weights).folded())
        self.folded = to_onnx(record(folded, self.inputs[0]), "mobileinst", OPSET)
        self.reference = self._instances(self.model)

    def models(self) -> Iterator[tuple[str, Callable[[], onnx.ModelProto]]]:
        """Yield the name of each model, and what makes it."""
        yield "float32", lambda: self.model
        yield "float16", lambda: halved(self.model)
        yield "int8", lambda: quantized(self.folded)
        yield "int8 but for the first blocks", partial(quantized, self.folded, skipped=FIRST)
        yield "int8, batch norms not folded", lambda: quantized(self.model)
        for part in PARTS:
            yield f"int8: {part} only", partial(quantized, self.folded, part)
        for mistake in MISTAKES:
            yield mistake, partial(self.mistaken, mistake)

    def mistaken(self, name: str) -> onnx.ModelProto:
        """Return the model with a mistake of the catalogue, at the first place where it can be made."""
        graph = ShapedGraph.of_recording(self.recording)
        return injected(self.model, injections(CATALOGUE[name], graph)[0])

    def measure(self, name: str, model: onnx.ModelProto) -> Deployed:
        """Run a model on the pictures, and have it judged on the first."""
        found = self._instances(model)
        results = [r for i, one in enumerate(found, 1) for r in coco_results(one, i, CATEGORIES)]
        unlabelled = picture_precision(without_labels(self.truth), without_labels(results))
        return Deployed(
            name,
            picture_precision(self.truth, results),
            unlabelled,
            sum(int((one.scores > CONFIDENT).sum()) for one in self.reference),
            *compared(self.reference, found),
            *self._judged(model),
        )

    def _instances(self, model: onnx.ModelProto) -> list[Instances]:
        session = RuntimeOptions(threads=1).session(model)
        found = []
        placement = Placement.unscaled(*held_out.SIZE)
        for images in self.inputs:
            outputs = session.run(["class_logits", "objectness", "masks"], {"images": images})
            found.append(postprocess(Predicted(*outputs), placement))
        return found

    def _judged(self, model: onnx.ModelProto) -> tuple[str, str, str]:
        candidate = OnnxRuntimeCandidate(OnnxGraph.load(model), options=RuntimeOptions(threads=1))
        weights: Mapping[str, Array] = self.network.weights
        report = verify(candidate, self.network.config, weights, {"picture": self.inputs[0]}).leading
        blamed = report.first_fault.step if report.first_fault else ""
        return report.verdict, blamed, report.diagnoses[0].fault if report.diagnoses else ""


def _input(picture: Array) -> Array:
    return preprocess(picture, "native", np.float32)[0]


def compared(reference: Sequence[Instances], found: Sequence[Instances]) -> tuple[int, float]:
    """Return how many confident instances flipped, and the share of mask pixels that differ."""
    flipped, pixels, wrong = 0, 0, 0
    for before, after in zip(reference, found, strict=True):
        first, second = confident(before), confident(after)
        both = first.keys() & second.keys()
        flipped += len(first.keys() ^ second.keys())
        flipped += sum(int(before.labels[first[q]] != after.labels[second[q]]) for q in both)
        for query in both:
            pixels += before.masks[0].size
            wrong += int(np.count_nonzero(before.masks[first[query]] ^ after.masks[second[query]]))
    return flipped, wrong / max(pixels, 1)


def confident(instances: Instances) -> dict[int, int]:
    """Return query → index of the instances that the paper's pictures would show."""
    shown = np.flatnonzero(instances.scores > CONFIDENT)
    return {int(instances.queries[index]): int(index) for index in shown}


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model in float16, its inputs and outputs float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    half = OnnxModel(convert_float_to_float16(copy, keep_io_types=True))
    # The casts of the inputs are put last.
    half.topological_sort()
    sorted_model: onnx.ModelProto = half.model
    return sorted_model


def quantized(model: onnx.ModelProto, part: str = "", skipped: tuple[str, ...] = ()) -> onnx.ModelProto:
    """Return the model with int8 weights and activations (QDQ): all of it, one part, or all but some parts.

    Weights per channel; activations by the extremes over `CALIBRATION` scenes.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    names = [node.name for node in model.graph.node]
    nodes = [name for name in names if name.startswith(part) and not name.startswith(skipped)]
    with tempfile.TemporaryDirectory() as folder, quiet():
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        quantize_static(
            source,
            target,
            _Scenes(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=nodes,
        )
        return onnx.load(target)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the quantiser's advice about every norm off the terminal."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


class _Scenes:
    """Calibration inputs, as ONNX Runtime's quantiser asks for them."""

    def __init__(self) -> None:
        self.seeds = iter(range(CALIBRATION))

    def get_next(self) -> dict[str, Array] | None:
        seed = next(self.seeds, None)
        if seed is None:
            return None
        return {"images": _input(render_frame(make_hard_scene(*held_out.SIZE, seed), seed).picture)}

    def set_range(self, start_index: int, end_index: int) -> None:
        self.seeds = iter(range(start_index, end_index))

    def __len__(self) -> int:
        return CALIBRATION
