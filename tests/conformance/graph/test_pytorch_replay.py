"""A recorded network on PyTorch's operators, and what PyTorch has no operator for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest

pytestmark = pytest.mark.runtimes
torch = pytest.importorskip("torch")

from conformance.graph.pytorch_replay import PyTorchReplay, operators  # noqa: E402
from golden.micro import MICRO, MICRO_RESNET, MICRO_SEAFORMER, MICRO_SPARSEINST, MICRO_TOPFORMER  # noqa: E402
from refimpl import MobileInst, Weights, ops, record  # noqa: E402
from refimpl.errors import UnsupportedOperationError  # noqa: E402
from refimpl.ops.operation import Array  # noqa: E402


@pytest.mark.parametrize(
    ("config", "spec"),
    [
        (MICRO, MICRO_TOPFORMER),
        (MICRO, MICRO_SEAFORMER),
        (MICRO_SPARSEINST, MICRO_TOPFORMER),
        (MICRO_SPARSEINST, MICRO_RESNET),
    ],
)
def test_pytorch_computes_the_recorded_network(config: Any, spec: Any) -> None:
    network = MobileInst(config, Weights.seeded(config, 1, spec).astype(np.float64), spec)
    recorded, other = np.random.default_rng(0).normal(size=(2, 1, 3, 64, 96))
    replay = PyTorchReplay(record(network, recorded))
    found = replay(torch.from_numpy(other))
    for name, expected in network(other).items():
        np.testing.assert_allclose(found[name].numpy(), expected, atol=1e-10 * np.abs(expected).max())


class _LowerTriangle:
    weights: ClassVar[Mapping[str, Array]] = {"none": np.zeros(1)}

    def __call__(self, images: Array) -> dict[str, Array]:
        return {"y": ops.trilu(images, upper=0)}


def test_an_operator_without_translation_is_named() -> None:
    with pytest.raises(UnsupportedOperationError, match="Trilu is not translated"):
        PyTorchReplay(record(_LowerTriangle(), np.ones((1, 3, 3, 3))))


@pytest.mark.parametrize(
    ("operator", "operands", "attributes"),
    [
        ("Conv", ((1, 1, 4, 4), (1, 1, 3, 3)), {"auto_pad": "SAME_UPPER"}),
        ("ConvTranspose", ((1, 1, 4, 4), (1, 1, 3, 3)), {"pads": (0, 0, 1, 1)}),
        ("AveragePool", ((1, 1, 4, 4),), {"kernel_shape": (2, 2), "pads": (0, 0, 1, 1)}),
        ("MaxPool", ((1, 1, 4),), {"kernel_shape": (2,)}),
        ("Resize", ((1, 1, 4, 4),), {"mode": "linear"}),
        ("DepthToSpace", ((1, 4, 2, 2),), {"blocksize": 2}),
    ],
)
def test_what_pytorch_has_no_word_for_is_refused(operator: str, operands: Any, attributes: Any) -> None:
    with pytest.raises(UnsupportedOperationError):
        operators()[operator](*(torch.zeros(shape) for shape in operands), **attributes)
