"""What a reader of a passing verdict should know of a graph: where other runtimes may compute otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from conformance.bounds import BFLOAT16, FLOAT16, FLOAT32, Declaration, Format, introduced_bounds
from refimpl import Recording, Step
from refimpl.ops import ONNX_DTYPES
from refimpl.ops.operation import Array

NARROW = {"float16": FLOAT16, "bfloat16": BFLOAT16}
FORMATS: dict[str, Format] = {**NARROW, "float32": FLOAT32}
SHOWN = 3
"""Tensors that are named."""


def worth_knowing(recording: Recording, captured: Mapping[str, Array]) -> list[str]:
    """Return remarks on a graph's run, which are no faults.

    Parameters
    ----------
    recording
        In float64.
    captured
        The candidate's tensors, which show in what formats the graph stores them.
    """
    of_formats = [*_overflows(recording, captured), *_flushed(captured)]
    return [*_ties(recording), *of_formats, *_casts(recording), *_undefined(recording)]


def _ties(recording: Recording) -> Iterator[str]:
    """Nearest neighbours that are equally near, which runtimes choose between as their rounding has it."""
    for step in recording.steps:
        if step.op_type == "Resize" and step.attributes.get("mode", "nearest") == "nearest":
            operands, truths = step.operands(recording.tensors), [recording.tensors[step.outputs[0]]]
            call = (step.op_type, operands, step.attributes, truths, Declaration())
            (bound,) = introduced_bounds(*call)
            count = 0 if bound is None else int(np.count_nonzero(bound))
            if count:
                yield (
                    f"{step.name}: {count} of {truths[0].size} elements lie so near to a tie of the nearest "
                    "neighbour that runtimes choose differently"
                )


def _overflows(recording: Recording, captured: Mapping[str, Array]) -> Iterator[str]:
    """Numbers that the declared format does not hold, though this runtime computes in a wider one."""
    over = [
        name
        for name, array in captured.items()
        if array.dtype.name in NARROW and name in recording.tensors and array.size
        if _largest(recording.tensors[name]) > NARROW[array.dtype.name].largest
    ]
    if over:
        format_name = captured[over[0]].dtype.name
        yield f"{_named(over)}: more than {format_name} holds; a runtime that computes in it gives infinity"


def _flushed(captured: Mapping[str, Array]) -> Iterator[str]:
    """Numbers below the smallest normal one, which phones flush to zero."""
    small = [
        name for name, array in captured.items() if array.dtype.name in FORMATS and _has_subnormals(array)
    ]
    if small:
        yield f"{_named(small)}: holds subnormal numbers, which a phone flushes to zero"


def _has_subnormals(array: Array) -> bool:
    size = np.abs(array)
    return bool(((size > 0) & (size < FORMATS[array.dtype.name].smallest_normal)).any())


def _casts(recording: Recording) -> Iterator[str]:
    """Casts of numbers that the integer type does not hold, of which ONNX says nothing."""
    casts = [step for step in recording.steps if step.op_type == "Cast"]
    wrong = [step.name for step in casts if _leaves_range(step, recording)]
    if wrong:
        yield f"{_named(wrong)}: casts numbers that the integers do not hold, which each runtime does its way"


def _leaves_range(step: Step, recording: Recording) -> bool:
    x, dtype = recording.tensors[step.inputs[0]], ONNX_DTYPES.get(step.attributes.get("to", 0))
    if dtype is None or np.dtype(dtype).kind not in "iu" or x.dtype.kind != "f" or not x.size:
        return False
    limits = np.iinfo(dtype)
    inside = (np.trunc(x) >= limits.min) & (np.trunc(x) <= limits.max)
    return not bool(inside.all())


def _undefined(recording: Recording) -> Iterator[str]:
    """Outputs that are NaN because the graph says so."""
    tensors = {name: recording.tensors[tensor] for name, tensor in recording.outputs.items()}
    nan = [name for name, x in tensors.items() if x.dtype.kind == "f" and np.isnan(x).any()]
    if nan:
        yield f"output {_named(nan)}: has NaN in float64 too, as the graph computes it on this input"


def _largest(x: Array) -> float:
    finite = x[np.isfinite(x)]
    return float(np.abs(finite).max(initial=0.0))


def _named(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
