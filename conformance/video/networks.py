"""Networks a tracker can be driven by: the NumPy forward, or a pair of ONNX models in ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from conformance.silent_onnxruntime import onnxruntime
from refimpl import MobileInst
from refimpl.errors import CandidateError, FileError, ShapeError
from refimpl.ops.operation import Array
from refimpl.tracker import KeyframeTensors

PathLike = str | os.PathLike[str]
TENSORS = ("class_logits", "objectness", "kernels", "mask_features")
"""Outputs a keyframe graph must have."""


@dataclass(frozen=True)
class NumpyNetwork:
    """MobileInst in NumPy; a frame is its normalised input (1, 3, H, W)."""

    model: MobileInst

    def keyframe(self, frame: Array) -> KeyframeTensors:
        """Run the whole network."""
        outputs = self.model(frame)
        return KeyframeTensors(*(getattr(outputs, name)[0] for name in TENSORS))

    def mask_features(self, frame: Array) -> Array:
        """Run the backbone and the mask decoder only."""
        features: Array = self.model.mask_features(frame)[0]
        return features


class OnnxPair:
    """The two graphs of `mobileinst export --video`, or anybody's of the same inputs and outputs.

    Parameters
    ----------
    keyframe : path
        From one input, the images, to the tensors `TENSORS`.
    reuse : path
        From the images, and perhaps kernels, to ``mask_features``.
    threads : int
        Within an operator; 0 lets the runtime choose.

    Raises
    ------
    FileError
        A file is missing or no model.
    CandidateError
        A graph has other inputs, or lacks an output.
    """

    def __init__(self, keyframe: PathLike, reuse: PathLike, threads: int = 0) -> None:
        self._keyframe = _Session(keyframe, TENSORS, threads)
        self._reuse = _Session(reuse, ("mask_features",), threads)
        sizes = {self._keyframe.size, self._reuse.size} - {None}
        if len(sizes) > 1:
            raise CandidateError(
                f"{keyframe} takes images of {self._keyframe.size}, {reuse} of {self._reuse.size}; "
                "export both at one size"
            )
        self.size: tuple[int, int] | None = next(iter(sizes), None)

    def keyframe(self, frame: Array) -> KeyframeTensors:
        """Run the keyframe graph."""
        return KeyframeTensors(*(array[0] for array in self._keyframe(frame)))

    def mask_features(self, frame: Array) -> Array:
        """Run the reuse graph; the tracker multiplies by its kernels itself, in the order of its tracks."""
        features: Array = self._reuse(frame)[0][0]
        return features


class _Session:
    """A graph in ONNX Runtime that takes images of one picture."""

    def __init__(self, path: PathLike, outputs: Sequence[str], threads: int) -> None:
        self.path, self.outputs = path, list(outputs)
        self._session = _session(path, threads)
        inputs = self._session.get_inputs()
        pictures = [one for one in inputs if len(one.shape) == 4]
        self.others = [one for one in inputs if len(one.shape) != 4]
        missing = set(outputs) - {one.name for one in self._session.get_outputs()}
        if len(pictures) != 1 or any(one.name != "kernels" for one in self.others) or missing:
            raise CandidateError(
                f"{path} takes {', '.join(one.name for one in inputs)} "
                f"and lacks {sorted(missing) or 'nothing'}; "
                f"expected images (1, 3, H, W), for reuse also kernels, and outputs {', '.join(outputs)}, "
                "as mobileinst export --video writes them"
            )
        self.images = pictures[0]
        sides = self.images.shape[2:]
        self.size = (sides[0], sides[1]) if all(isinstance(side, int) for side in sides) else None

    def __call__(self, frame: Array) -> list[Array]:
        """Run it on one frame (1, 3, H, W) and return the wanted outputs.

        Raises
        ------
        ShapeError, CandidateError
        """
        if self.size is not None and frame.shape[2:] != self.size:
            raise ShapeError(
                f"{self.path} takes pictures of {self.size[0]}×{self.size[1]}, the frame is "
                f"{frame.shape[2]}×{frame.shape[3]}; give --size {self.size[0]}x{self.size[1]}"
            )
        feeds = {self.images.name: frame.astype(np.float32, copy=False)}
        blank = {one.name: np.zeros([_side(side) for side in one.shape], np.float32) for one in self.others}
        try:
            arrays: list[Array] = self._session.run(self.outputs, {**feeds, **blank})
        except Exception as error:  # ONNX Runtime raises its own unrelated types
            raise CandidateError(f"{self.path}: ONNX Runtime fails: {_first_line(error)}") from error
        return arrays


def _side(side: Any) -> int:
    """A length of the kernels' shape; one for a dynamic axis."""
    return side if isinstance(side, int) else 1


def _session(path: PathLike, threads: int) -> Any:
    if not os.path.isfile(path):
        raise FileError(f"there is no file {path}; write one with mobileinst export --video")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises its own unrelated types
        raise FileError(f"{path} is not a model ONNX Runtime can load: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
