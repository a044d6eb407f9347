"""The windows that ncnn's convolutions and poolings read through, along one, two or three axes.

ncnn names them from the innermost axis on; an axis that the file leaves out has what the first has.
Source: github.com/Tencent/ncnn, ``src/layer/convolution.cpp`` and those beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conformance.conversion.ncnn_model import NcnnLayer
from conformance.conversion.ncnn_writer import NcnnWriter, unwritten

SAME_UPPER, SAME_LOWER = -233, -234
"""Instead of a padding: as much as gives an element for every stride; more of it behind, or in front."""
_KERNELS, _DILATIONS, _STRIDES = (1, 11, 21), (2, 12, 22), (3, 13, 23)
_BEFORE, _AFTER = (4, 14, 24), (15, 16, 17)


@dataclass(frozen=True)
class Window:
    """A window, each list from the outermost axis on.

    Attributes
    ----------
    kernel, dilations, strides
    pads
        Before each axis, then behind each.
    """

    kernel: list[int]
    dilations: list[int]
    strides: list[int]
    pads: list[int]

    @property
    def attributes(self) -> dict[str, Any]:
        """ONNX's, of a convolution."""
        return {"strides": self.strides, "dilations": self.dilations, "pads": self.pads}

    @property
    def extents(self) -> list[int]:
        """How far the window reaches along each axis."""
        return [step * (size - 1) + 1 for size, step in zip(self.kernel, self.dilations, strict=True)]


def axes_of(layer: NcnnLayer) -> int:
    """Return along how many axes a layer's windows lie, as its kind says."""
    return {"1D": 1, "3D": 3}.get(layer.kind[-2:], 2)


def taps_of_blobs(writer: NcnnWriter, layer: NcnnLayer) -> tuple[str, list[str], list[int]]:
    """Return weights and biases that are blobs, as they are added, and the lengths of the kernels."""
    taps, *given = layer.bottoms[1:]
    along = [-1, *[1] * axes_of(layer)]
    biases = [writer.reshaped(bias, *along) for bias in given[: bool(layer.param(5))]]
    return taps, biases, writer.known(layer, taps)[-axes_of(layer) :]


def sides(layer: NcnnLayer, numbers: Sequence[int], default: int) -> list[int]:
    """Return a parameter of every axis, from the outermost on."""
    first = layer.param(numbers[0], default)
    return [int(layer.param(number, first)) for number in numbers[: axes_of(layer)]][::-1]


def paddings(layer: NcnnLayer, before: Sequence[int], after: Sequence[int]) -> list[int]:
    """Return the padding before each axis and behind each, from the outermost on."""
    starts = sides(layer, before, 0)
    return starts + [
        int(layer.param(number, start)) for number, start in zip(_outwards(layer, after), starts, strict=True)
    ]


def _outwards(layer: NcnnLayer, numbers: Sequence[int]) -> Sequence[int]:
    return numbers[: axes_of(layer)][::-1]


def window(layer: NcnnLayer, kernel: Sequence[int] = ()) -> Window:
    """Return the window of a convolution, as its parameters describe it.

    Parameters
    ----------
    layer
    kernel
        Its lengths, where they are those of a blob.
    """
    return Window(
        list(kernel) or sides(layer, _KERNELS, 0),
        sides(layer, _DILATIONS, 1),
        sides(layer, _STRIDES, 1),
        paddings(layer, _BEFORE, _AFTER),
    )


def resolved(writer: NcnnWriter, layer: NcnnLayer, found: Window) -> Window:
    """Return a window with its padding in numbers; it may hang on how long the operand's axes are."""
    if min(found.pads) >= 0:
        return found
    if len({*found.pads}) > 1 or found.pads[0] not in (SAME_UPPER, SAME_LOWER):
        raise unwritten(layer, f"padding {found.pads}")
    lengths = writer.known(layer, layer.bottoms[0])[1:]
    missing = same_padding(found.extents, found.strides, lengths)
    if min(missing) < 0 < max(missing):
        raise unwritten(layer, f"padding by {missing}")
    pads = split(missing, upper=found.pads[0] == SAME_UPPER, flat_only=True)
    return Window(found.kernel, found.dilations, found.strides, pads)


def same_padding(extents: Sequence[int], strides: Sequence[int], lengths: Sequence[int]) -> list[int]:
    """Return how much each axis lacks for a window at every stride."""
    return [
        extent + (length - 1) // stride * stride - length
        for extent, stride, length in zip(extents, strides, lengths, strict=True)
    ]


def split(missing: Sequence[int], *, upper: bool, flat_only: bool = False) -> list[int]:
    """Return a padding in two halves, before each axis and behind.

    Parameters
    ----------
    missing
    upper
        Whether the larger half is behind; else before.
    flat_only
        Whether that of a depth is always behind: so ncnn pads.
    """
    missing = [max(0, each) for each in missing]
    uppers = [upper or (flat_only and len(missing) - at > 2) for at in range(len(missing))]
    before = [each // 2 if behind else each - each // 2 for each, behind in zip(missing, uppers, strict=True)]
    return before + [each - first for each, first in zip(missing, before, strict=True)]


def filled(writer: NcnnWriter, name: str, pads: Sequence[int], value: float, axes: int) -> str:
    """Return a tensor with something around its last axes."""
    half = len(pads) // 2
    around = [*[0] * (axes - half), *pads[:half], *[0] * (axes - half), *pads[half:]]
    return writer.node("Pad", [name, writer.shape(*around), writer.scalar(value)])


def padded(writer: NcnnWriter, layer: NcnnLayer, x: str, found: Window) -> tuple[str, Mapping[str, Any]]:
    """Return an operand with its own axis for the batch, and a window's attributes.

    A padding of other numbers than zero is done beforehand.
    """
    x, value = writer.in_batch(x), float(layer.param(18, 0.0))
    if not value or not any(found.pads):
        return x, found.attributes
    x = filled(writer, x, found.pads, value, len(found.kernel) + 2)
    return x, found.attributes | {"pads": [0] * len(found.pads)}
