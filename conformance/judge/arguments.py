"""What `conformance.verify` accepts, turned into what verification needs."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from conformance.candidates.candidate import Candidate
from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate, checked_candidate
from conformance.graph.onnx_graph import OnnxGraph
from conformance.pictures.inputs import Resized, load_inputs, resized_otherwise
from conformance.reports.report import Report
from refimpl import MobileInstConfig, Weights
from refimpl.errors import ConfigurationError, ShapeError
from refimpl.ops.operation import Array

DEFAULT_SIZE = (320, 640)


def as_candidate(given: Any) -> tuple[Candidate, str]:
    """Return the candidate and what to call it."""
    if isinstance(given, str | os.PathLike):
        return OnnxRuntimeCandidate(OnnxGraph.load(Path(given), partly=True)), Path(given).name
    if isinstance(given, onnx.ModelProto):
        return OnnxRuntimeCandidate(OnnxGraph.load(given, partly=True)), given.graph.name or "model"
    return checked_candidate(given), type(given).__name__


def as_config(given: MobileInstConfig | str) -> MobileInstConfig:
    """Return the configuration, or the preset of that name."""
    if isinstance(given, str):
        return MobileInstConfig.preset(given)
    if not isinstance(given, MobileInstConfig):
        raise ConfigurationError(
            f"config is {type(given).__name__}; expected a MobileInstConfig or a preset's name"
        )
    return given


def as_weights(
    given: Mapping[str, Array] | str | os.PathLike[str], config: MobileInstConfig
) -> Mapping[str, Array]:
    """Return the weights, read if a file is given."""
    return Weights.load(given, config) if isinstance(given, str | os.PathLike) else given


def as_inputs(given: Any, candidate: Candidate) -> dict[str, Array]:
    """Return label → images, read if files are given."""
    if isinstance(given, Mapping):
        inputs = {str(label): np.asarray(images) for label, images in given.items()}
    elif isinstance(given, np.ndarray):
        inputs = {"input": given}
    else:
        inputs = load_inputs(_paths(given), _picture_size(candidate))
    if not inputs:
        raise ShapeError("no inputs were given; give at least one array (batch, 3, height, width) or file")
    return inputs


def as_resized(given: Any, inputs: Mapping[str, Array]) -> dict[str, Resized]:
    """Return label → the picture, resized in other ways, of the inputs that were read of picture files."""
    return {} if isinstance(given, Mapping | np.ndarray) else resized_otherwise(_paths(given), inputs)


def _paths(given: Any) -> list[Path]:
    return [Path(path) for path in ([given] if isinstance(given, str | os.PathLike) else given)]


def _picture_size(candidate: Candidate) -> tuple[int, int]:
    shape = candidate.input.shape if isinstance(candidate, OnnxRuntimeCandidate) else (None,) * 4
    return shape[2] or DEFAULT_SIZE[0], shape[3] or DEFAULT_SIZE[1]


def command_of(
    report: Report, candidate: Any, config: Any, weights: Any, inputs: Any, frames: bool = False
) -> Report:
    """Return the report with the command that shows it again, if all that was judged are files."""
    files = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    given = [candidate, weights, *(files if isinstance(files, Sequence) else [None])]
    if not all(isinstance(each, str | os.PathLike) for each in given):
        return report
    words = ["mobileinst", "verify", candidate, *_config_words(as_config(config)), "--weights", weights]
    words += [word for path in files for word in ("--input", path)] + ["--frames"] * frames
    return dataclasses.replace(report, command=shlex.join(map(str, words)))


def _config_words(config: MobileInstConfig) -> list[str]:
    preset = MobileInstConfig.preset("topformer-base")
    changed = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if getattr(config, field.name) != getattr(preset, field.name)
    }
    return [word for name, value in changed.items() for word in ("--set", f"{name}={value}")]
