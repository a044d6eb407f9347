"""Judging implementations of MobileInst: candidates beside the reference, within derived bounds."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

    from conformance.candidates.candidate import Candidate
    from conformance.reports.report import Report
    from refimpl import MobileInstConfig
    from refimpl.ops.operation import Array

    StrPath = str | os.PathLike[str]


def verify(
    candidate: StrPath | onnx.ModelProto | Candidate,
    config: MobileInstConfig | str,
    weights: Mapping[str, Array] | StrPath,
    inputs: Mapping[str, Array] | Array | StrPath | Sequence[StrPath],
    *,
    name: str | None = None,
    frames: bool = False,
) -> Report:
    """Judge a candidate, as `mobileinst verify` does.

    Parameters
    ----------
    candidate
        An ONNX file or model, run in ONNX Runtime, or any object of a class derived from
        `conformance.candidates.candidate.Candidate`.
    config
        The network it should be, or a preset's name.
    weights
        Name → array, or a file of them: ``.safetensors``, ``.npz`` or ``.pth``.
    inputs
        Normalised images (B, 3, H, W), one array or several by name; or files: a ``.npy`` of such an array,
        or a picture, which is resized to the candidate's size if that is fixed, else to 320×640.
    name
        What to call the candidate in the report.
    frames
        Whether the inputs are consecutive keyframes of one video: then track identity is judged too.

    Returns
    -------
    Report
        Its ``verdict`` is ``pass`` or ``fail``; `Report.raise_on_failure` is for tests.

    Raises
    ------
    FileError, WeightsError, ConfigurationError, ShapeError, CandidateError
        Something given cannot be read or run, or does not fit.

    Examples
    --------
    >>> import conformance, tempfile
    >>> from refimpl import MobileInst, MobileInstConfig, Weights
    >>> from conformance.graph import onnx_export
    >>> from conformance.pictures import inputs
    >>> config = MobileInstConfig.preset("topformer-tiny", dim=32, num_queries=5)
    >>> weights = Weights.seeded(config, seed=0)
    >>> scenes = inputs.rendered_input((64, 64))
    >>> model = onnx_export.export(MobileInst(config, weights), *scenes.values())
    >>> report = conformance.verify(model, config, weights, scenes)
    >>> report.raise_on_failure()
    >>> report.verdict
    'pass'
    """
    # Imported here: a pytest run that does not use the plugin's fixture should not load a runtime.
    from conformance.judge.arguments import (
        as_candidate,
        as_config,
        as_inputs,
        as_resized,
        as_weights,
        command_of,
    )
    from conformance.judge.network import verify as judge

    network = as_config(config)
    judged, called = as_candidate(candidate)
    given = as_inputs(inputs, judged)
    chosen: dict[str, Any] = {"name": name or called, "frames": frames, "resized": as_resized(inputs, given)}
    report = judge(judged, network, as_weights(weights, network), given, **chosen)
    return command_of(report, candidate, config, weights, inputs, frames)


def assert_within(
    actual: Array,
    expected: Array | str | Callable[..., Any],
    *operands: Any,
    bound: Array | float | None = None,
    arithmetic: str = "float32",
    storage: str | None = None,
    **attributes: Any,
) -> None:
    """Fail a test unless an array is what one operation makes of its operands, but for rounding.

    Parameters
    ----------
    actual
        What the code under test gave.
    expected
        The operation: an ONNX operator's name (``"Conv"``) or a function of `refimpl.ops`; it is computed in
        float64, and each element may be off by the bound derived for it. Or an array, with ``bound``.
    operands
        What the code under test was given, None where absent.
    bound
        How far each element may be from the array expected.
    arithmetic, storage
        Formats in which the operation was computed and its result stored; stored as computed by default.
    attributes
        The operator's, as ONNX names them.

    Raises
    ------
    VerificationError
        It is not; an `AssertionError` that says where, by how much, and which known mistake explains it.
    ConfigurationError
        There is no such operation or format, or an array without a bound.
    UnsupportedOperationError
        Nothing bounds the operation's rounding.

    Examples
    --------
    >>> import numpy as np
    >>> from conformance import assert_within
    >>> x = np.float32([[1.0, 2.0, 3.0]])
    >>> assert_within(np.exp(x) / np.exp(x).sum(), "Softmax", x, axis=-1)
    >>> assert_within(np.exp(x), "Softmax", x, axis=-1)
    Traceback (most recent call last):
    ...
    refimpl.errors.VerificationError: Softmax in float32: 3 of 3 elements …
    """
    from conformance.judge.one_call import check_array, check_call
    from refimpl.errors import ConfigurationError

    __tracebackhide__ = True
    if isinstance(expected, str) or callable(expected):
        if bound is not None:
            raise ConfigurationError("bound has no effect beside an operation, whose bound is derived")
        check_call(actual, expected, operands, attributes, (arithmetic, storage or arithmetic))
        return
    if bound is None or operands or attributes:
        raise ConfigurationError("an array is compared within a bound: give it, and no operands")
    check_array(actual, expected, bound)
