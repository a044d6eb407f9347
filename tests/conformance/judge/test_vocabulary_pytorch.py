"""What PyTorch's exporters write of its own layers: every node judged and right, in ONNX Runtime."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conformance.candidates.onnx_runtime import OnnxRuntimeGraph, RuntimeOptions
from conformance.graph.onnx_graph import OnnxGraph
from conformance.judge.any_graph import verify_graph

pytestmark = pytest.mark.runtimes
torch = pytest.importorskip("torch")
nn, functional = torch.nn, torch.nn.functional


class Computed(nn.Module):  # type: ignore[misc, name-defined]
    """A function of tensors and of layers."""

    def __init__(self, function: Callable[..., Any], *layers: Any) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, *tensors: Any) -> Any:
        """Compute it."""
        return self.function(*self.layers, *tensors)


def states(layer: Any, x: Any) -> Any:
    """Every hidden state of a recurrent layer."""
    return layer(x)[0]


def unfolded(x: Any) -> Any:
    """Windows, and the sums of them at their places."""
    return functional.fold(functional.unfold(x, 3), (8, 8), 3)


def activations(x: Any) -> Any:
    """Sum of activations that have operators of their own."""
    bent = functional.selu(x) + functional.celu(x, 0.7) + functional.softsign(x) + functional.mish(x)
    shrunk = functional.softshrink(x) + functional.hardshrink(x) + functional.logsigmoid(x)
    return bent + shrunk + torch.atan(x)


def indexed(x: Any, places: Any) -> Any:
    """Scattered, gathered, cumulated."""
    scattered = torch.zeros(5, 6).scatter_add(0, places, x)
    return torch.cumsum(scattered, 1) + torch.triu(torch.gather(x, 0, places))


def chosen(x: Any) -> Any:
    """A result whose length depends on the numbers."""
    return torch.nonzero(x > 1).float().sum() + x[x > 0].sum() + functional.one_hot(x.argmax(1), 9).sum()


@torch.jit.script
def looped(x: torch.Tensor, count: int) -> torch.Tensor:  # type: ignore[name-defined]
    """A loop with a condition inside."""
    y = x
    for _ in range(count):
        y = torch.tanh(y) + x if bool(y.sum() > 0) else y * 0.5 - x
    return y


def layers() -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """Name → what is exported, and its inputs."""
    torch.manual_seed(0)
    causal = functional.scaled_dot_product_attention
    return {
        "lstm": (Computed(states, nn.LSTM(8, 16, 2, bidirectional=True)), (torch.randn(11, 3, 8),)),
        "long lstm": (Computed(states, nn.LSTM(32, 96)), (torch.randn(50, 2, 32),)),
        "last state": (Computed(lambda layer, x: layer(x)[1][0], nn.LSTM(8, 16)), (torch.randn(9, 2, 8),)),
        "gru": (Computed(states, nn.GRU(8, 16, 2)), (torch.randn(11, 3, 8),)),
        "rnn": (Computed(states, nn.RNN(8, 16)), (torch.randn(5, 3, 8),)),
        "grid": (Computed(functional.grid_sample), (torch.randn(1, 3, 9, 9), torch.rand(1, 7, 8, 2) * 2 - 1)),
        "attention": (Computed(lambda x: causal(x, x, x, is_causal=True)), (torch.randn(2, 4, 9, 8),)),
        "activations": (Computed(activations), (torch.randn(40, 30),)),
        "indexed": (Computed(indexed), (torch.randn(5, 6), torch.randint(0, 5, (5, 6)))),
        "chosen": (Computed(chosen), (torch.randn(9, 9),)),
        "unfolded": (Computed(unfolded), (torch.randn(1, 3, 8, 8),)),
        "looped": (Computed(lambda x: looped(x, 4)), (torch.randn(3, 4),)),
    }


BOTH = [(name, dynamo) for name in layers() for dynamo in (False, True) if (name, dynamo) != ("looped", True)]
"""The newer exporter takes no scripted loop."""


@pytest.mark.parametrize(("name", "dynamo"), BOTH)
def test_every_node_is_judged_and_right(name: str, dynamo: bool, tmp_path: Path) -> None:
    module, tensors = layers()[name]
    path = tmp_path / "layer.onnx"
    names = [f"x{place}" for place in range(len(tensors))]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        how = {"opset_version": 20, "dynamo": dynamo, "verbose": False, "input_names": names}
        torch.onnx.export(module.eval(), tensors, str(path), **how)
    graph = OnnxGraph.load(path)
    feeds = {key: tensor.numpy() for key, tensor in zip(graph.inputs, tensors, strict=True)}
    report = verify_graph(OnnxRuntimeGraph(graph, RuntimeOptions(threads=1)), feeds)
    report.raise_on_failure()
    assert {row.verdict for row in report.inputs[0].nodes} == {"pass"}
