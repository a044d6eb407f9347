"""Candidates that misbehave, each in its own way, for tests of what the judge says of them."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import narrow_network
import numpy as np

from refimpl.ops.operation import Array

REFERENCE = narrow_network.network()


def right(images: Array) -> dict[str, Array]:
    """Compute what it should, and print something meanwhile."""
    print("computing")
    return dict(REFERENCE(images).items())


def raises(images: Array) -> Any:
    """Fail as Python code does."""
    raise ValueError("no such tensor\nwith more lines")


def dies(images: Array) -> Any:
    """End the process as a crash does."""
    os.abort()


def leaves(images: Array) -> Any:
    """End the process in an orderly way."""
    sys.exit(3)


def hangs(images: Array) -> Any:
    """Never answer."""
    time.sleep(3600)


def reads_the_questions(images: Array) -> dict[str, Array]:
    """Wait for someone to type, as a forgotten breakpoint does."""
    if sys.stdin.read():
        raise ValueError("someone typed")
    return right(images)


def interrupts(images: Array) -> Any:
    """End as if the user had pressed Ctrl-C."""
    raise KeyboardInterrupt


def raises_our_error(images: Array) -> Any:
    """Fail within the reference's own code."""
    return REFERENCE(images[:, :2])


def not_finite(images: Array) -> dict[str, Array]:
    """Give NaN among the masks."""
    outputs = right(images)
    outputs["masks"] = outputs["masks"].copy()
    outputs["masks"][0, 1, 2, 3] = np.nan
    return outputs


def wrong_shape(images: Array) -> dict[str, Array]:
    """Give the masks transposed."""
    outputs = right(images)
    return {**outputs, "masks": outputs["masks"][:, :, :-1]}


def too_few(images: Array) -> dict[str, Array]:
    """Leave the masks out."""
    return {name: array for name, array in right(images).items() if name != "masks"}


calls = 0


def not_repeatable(images: Array) -> dict[str, Array]:
    """Give slightly other logits at each call."""
    global calls
    calls += 1
    outputs = right(images)
    return {**outputs, "class_logits": outputs["class_logits"] + np.float32(calls)}


def rewrites_its_input(images: Array) -> dict[str, Array]:
    """Normalise in place."""
    outputs = right(images)
    images *= 2
    return outputs


def no_arrays(images: Array) -> Any:
    """Return what is no array of numbers."""
    return {"masks": "many"}


def wrong_bias(images: Array) -> dict[str, Array]:
    """Be off a little in one output."""
    outputs = right(images)
    return {**outputs, "kernels": outputs["kernels"] + np.float32(0.01)}
