"""The noise envelope: how far rounding alone can carry each output, by Monte-Carlo arithmetic.

Worst-case bounds explode over a hundred layers. So the reference is run again with every step's result
perturbed by a random sign times the size that its rounding is expected to have (√n roundings instead of n;
Higham & Mary 2019), and the spread is the envelope.

A convolution whose only use is a batch norm, which is linear, is run with the batch norm folded into it.
Their two perturbations are then one of the same variance. And a convolution is itself linear: what it makes
of a perturbed operand is the reference's result and what it makes of the perturbation, which is computed in
float32, twice as fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any

import numpy as np

from conformance.bounds.copies import copied_weights
from conformance.bounds.declaration import MULTIPLE, SAMPLES, Declaration
from conformance.bounds.introduced import introduced_bounds
from conformance.bounds.worst_element import absolute_error
from conformance.graph.evaluation import evaluate_node, run
from conformance.threads import in_threads
from refimpl import Recording
from refimpl.graph import Graph, Node
from refimpl.ops import dequantize_linear
from refimpl.ops.operation import Array

SIGNS = 1 << 22
"""Random signs that are drawn for an envelope; each result takes a run of them that begins anywhere."""

AT_ONCE = 1 << 15
"""Elements that are perturbed at once: what stays in the cache."""

_SMALLEST, _LARGEST = 1e-25, 1e25
"""Between these the largest perturbation of an operand is far from what float32 flushes and from overflow."""
_SMALLEST_WEIGHT, _LARGEST_WEIGHT = 1e-10, 1e10
"""Between these weights are that are not 0, with which nothing of note is lost either."""


_IN_FLOAT64 = partial(evaluate_node, dtype=np.float64)


def envelope(
    recording: Recording,
    declaration: Declaration,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, float]:
    """Return, for each output, the largest deviation from the reference that rounding explains.

    Parameters
    ----------
    recording
        The reference's run in float64.
    declaration
        What the candidate is declared to compute with.
    samples, seed
        How many perturbed runs, and the seed of their signs.

    Returns
    -------
    dict
        Output → `MULTIPLE` times the largest absolute deviation of the samples; infinite where it depends on
        a result that nothing bounds.
    """
    largest = dict.fromkeys(recording.outputs, 0.0)
    stored = copied_weights(recording, declaration)
    runs = deviations(recording, declaration, samples=samples, seed=seed, stored=stored)
    for done, sample in enumerate(runs, start=1):
        for name, deviation in sample.items():
            largest[name] = max(largest[name], float(deviation.max(initial=0.0)))
        progress(done, samples)
    return {name: MULTIPLE * deviation for name, deviation in largest.items()}


def deviations(
    recording: Recording,
    declaration: Declaration,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    stored: Mapping[str, Array | float] = MappingProxyType({}),
) -> Iterator[dict[str, Array]]:
    """Yield, for each perturbed run, how far every element of each output is from the reference.

    Parameters
    ----------
    recording, declaration, samples, seed
        As of `envelope`.
    stored
        Weight or constant → by how much a candidate's copy of it may be off.
    """
    for outputs in perturbed(recording, declaration, samples=samples, seed=seed, stored=stored):
        yield {
            name: absolute_error(output, recording.tensors[recording.outputs[name]])
            for name, output in outputs.items()
        }


def perturbed(
    recording: Recording,
    declaration: Declaration,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    stored: Mapping[str, Array | float] = MappingProxyType({}),
) -> Iterator[dict[str, Array]]:
    """Yield the outputs of each perturbed run; parameters as of `deviations`."""
    sizes = _expected_roundings(recording, declaration)
    sizes |= {
        name: np.broadcast_to(error, recording.tensors[name].shape).astype(np.float32)
        for name, error in stored.items()
    }
    graph = _folded(recording, sizes)
    linear = _Convolutions.of(graph, recording.tensors, sizes)
    seeds = np.random.SeedSequence(seed).spawn(samples + 1)[1:]
    signs = _signs(seed)

    def outputs(each: np.random.SeedSequence) -> dict[str, Array]:
        made = _perturbed_run(graph, sizes, signs, np.random.default_rng(each), linear.of_moved)
        return {name: made[tensor] for name, tensor in recording.outputs.items()}

    yield from in_threads(outputs, seeds)


@lru_cache(maxsize=1)
def _signs(seed: int) -> Array:
    """Return random signs, float32; of small networks to draw them takes as long as the runs do."""
    rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(1)[0])
    signs = np.where(rng.integers(0, 2, SIGNS, np.uint8), np.float32(1), np.float32(-1))
    signs.flags.writeable = False
    return signs


def _expected_roundings(recording: Recording, declaration: Declaration) -> dict[str, Array]:
    sizes = {}
    for step in recording.steps:
        operands = step.operands(recording.tensors)
        outputs = [recording.tensors[name] for name in step.outputs]
        call = (step.op_type, operands, step.attributes, outputs)
        bounds = introduced_bounds(*call, declaration, probable=True)
        for name, bound in zip(step.outputs, bounds, strict=False):
            if bound is not None and recording.tensors[name].dtype.kind == "f" and bound.any():
                sizes[name] = _known(bound).astype(np.float32)
    return sizes


def _folded(recording: Recording, sizes: dict[str, Array]) -> Graph:
    """Return what is run: every batch norm folded into the convolution of which it is the only use.

    Not so where copies of their weights may be off. Their sizes become that of the one result.
    """
    graph = recording.graph
    given = {**graph.initializers, **{name: recording.tensors[name] for name in graph.inputs.values()}}
    nodes: list[Node] = []
    exact = given.keys() - sizes.keys()
    places: dict[str, int] = {}
    for node in graph.nodes:
        place = places.get(node.inputs[0]) if node.op_type == "BatchNormalization" else None
        if place is not None and _is_only_use(graph, node) and exact >= set(node.inputs[1:]):
            nodes[place] = _with_norm(nodes[place], node, given, sizes)
            continue
        if node.op_type == "Conv" and exact >= set(node.uses[1:]):
            places[node.outputs[0]] = len(nodes)
        nodes.append(node)
    return replace(graph, nodes=nodes, initializers=given)


def _is_only_use(graph: Graph, node: Node) -> bool:
    """Tell whether nothing but the node uses its first operand."""
    name = node.inputs[0]
    return len(graph.consumers[name]) == node.inputs.count(name) == 1 and name not in graph.outputs.values()


def _with_norm(convolution: Node, norm: Node, given: dict[str, Array], sizes: dict[str, Array]) -> Node:
    """Return the convolution that makes the batch norm's result; its weights and its size join the others."""
    scale, shift, mean, variance = (given[name] for name in norm.inputs[1:5])
    factor = scale / np.sqrt(variance + norm.attributes.get("epsilon", 1e-5))
    weight, *biases = (given[name] for name in convolution.uses[1:])
    names = (f"{norm.name}/weight", f"{norm.name}/bias")
    given[names[0]] = weight * factor.reshape(-1, *(1,) * (weight.ndim - 1))
    given[names[1]] = shift + (sum(biases) - mean) * factor
    of_product, of_norm = sizes.pop(convolution.outputs[0], None), sizes.get(norm.outputs[0])
    if of_product is not None:
        of_product *= np.abs(factor).astype(np.float32).reshape(-1, *(1,) * (weight.ndim - 2))
        sizes[norm.outputs[0]] = of_product if of_norm is None else _joined(of_product, of_norm)
    return replace(convolution, inputs=(convolution.inputs[0], *names), outputs=norm.outputs)


def _joined(first: Array, second: Array) -> Array:
    """Return the size of the sum of two independent perturbations; where squares underflow, the larger."""
    larger = np.maximum(first, second)
    np.square(first, out=first)
    first += np.square(second)
    return np.maximum(np.sqrt(first, out=first), larger, out=larger)


@dataclass(frozen=True)
class _Convolutions:
    """Convolutions of operands that are a little off.

    Attributes
    ----------
    tensors
        What the reference has of their operands and results.
    weights
        Weight that no copy is off by → in float32.
    """

    tensors: Mapping[str, Array]
    weights: Mapping[str, Array]

    @classmethod
    def of(cls, graph: Graph, tensors: Mapping[str, Array], sizes: Mapping[str, Array]) -> _Convolutions:
        """Return those of a graph whose weights are constants that are not perturbed."""
        fixed = graph.initializers.keys() - sizes.keys()
        found = [node for node in graph.nodes if node.op_type == "Conv" and fixed >= set(node.uses[1:])]
        weights = {node.inputs[1]: graph.initializers[node.inputs[1]] for node in found}
        return cls(tensors, {name: w.astype(np.float32) for name, w in weights.items() if _is_moderate(w)})

    def of_moved(self, node: Node, operands: Sequence[Any]) -> tuple[Array, ...]:
        """Return what a node makes: a convolution of what its operand is off by, besides the reference's."""
        weight = self.weights.get(node.inputs[1]) if node.op_type == "Conv" else None
        if weight is None:
            return _IN_FLOAT64(node, operands)
        with np.errstate(over="ignore"):
            given, reference = operands[0], self.tensors[node.inputs[0]]
            narrow = np.empty(given.shape, np.float32)
            moved = np.subtract(given, reference, out=narrow, dtype=np.float64, casting="same_kind")
        largest = max(moved.max(initial=0.0), -moved.min(initial=0.0))
        if largest == 0:
            return (self.tensors[node.outputs[0]].copy(),)
        if not _SMALLEST < largest < _LARGEST:
            return _IN_FLOAT64(node, operands)
        (made,) = evaluate_node(node, (moved, weight), np.float32)
        return (made + self.tensors[node.outputs[0]],)


def _is_moderate(weight: Array) -> bool:
    """Tell whether float32 holds a weight's every element, and what it makes of moderate numbers."""
    sizes = np.abs(weight[weight != 0])
    return bool((sizes > _SMALLEST_WEIGHT).all() and (sizes < _LARGEST_WEIGHT).all())


def _known(bound: Array) -> Array:
    """Return NaN where nothing bounds the rounding: what is computed of it is NaN, and has no envelope."""
    return bound if np.isfinite(bound.max(initial=0.0)) else np.where(np.isfinite(bound), bound, np.nan)


def _perturbed_run(
    graph: Graph,
    sizes: Mapping[str, Array],
    signs: Array,
    rng: np.random.Generator,
    compute: Callable[[Node, Sequence[Any]], tuple[Array, ...]] = _IN_FLOAT64,
) -> dict[str, Array]:
    """Run the graph, each result off by its expected rounding in a random direction."""

    def moved(name: str, value: Array, operands: Sequence[Any]) -> Array:
        if name not in sizes:
            return value
        value = _own(value, operands)
        _perturb(value, sizes[name], signs, int(rng.integers(SIGNS)))
        return value

    def rounded(node: Node, operands: Sequence[Any]) -> list[Array]:
        made = zip(node.outputs, compute(node, operands), strict=False)
        values = [moved(name, value, operands) for name, value in made]
        if node.op_type == "QuantizeLinear":
            values[0] = _with_a_flip(values[0], operands, node, rng)
        return values

    given = dict(graph.initializers)
    given |= {name: moved(name, given[name], [given[name]]) for name in sorted(sizes.keys() & given.keys())}
    return run(graph.nodes, given, rounded, keep=set(graph.outputs.values()))


def _with_a_flip(quantised: Array, operands: Sequence[Any], step: Node, rng: np.random.Generator) -> Array:
    """Move one of the values nearest to a tie to its neighbour: it happens too seldom to be met by chance."""
    x, scale, *zero_points = operands[:3]
    point = zero_points[0].astype(np.int32) if zero_points and zero_points[0] is not None else None
    places = {key: step.attributes[key] for key in ("axis", "block_size") if key in step.attributes}
    restored, above = (
        dequantize_linear(quantised.astype(np.int32) + move, scale, point, **places) for move in (0, 1)
    )
    residual = ((x - restored) / (above - restored)).ravel()
    distance = np.where(np.abs(residual) <= 0.5, 0.5 - np.abs(residual), np.inf)
    few = min(SAMPLES, distance.size)
    nearest = np.argpartition(distance, few - 1)[:few] if few else np.zeros(0, np.intp)
    nearest = nearest[np.argsort(distance[nearest])]
    place = nearest[rng.integers(len(nearest))] if len(nearest) else 0
    flipped = quantised.copy()
    if len(nearest) and np.isfinite(distance[place]):
        limits = np.iinfo(quantised.dtype)
        moved = int(flipped.flat[place]) + (1 if residual[place] > 0 else -1)
        flipped.flat[place] = min(max(moved, limits.min), limits.max)
    return flipped


def _own(value: Array, operands: Sequence[Any]) -> Array:
    """Return the value in contiguous memory that no operand shares."""
    shared = any(x is not None and np.may_share_memory(value, x) for x in operands)
    ready = value.flags.c_contiguous and value.flags.writeable and not shared
    return value if ready else value.copy(order="C")


def _perturb(value: Array, size: Array, signs: Array, first: int) -> None:
    """Add ±size to every element, with the signs from the ``first`` on, and from the beginning again."""
    flat, sizes = value.reshape(-1), size.reshape(-1)
    begin = 0
    while begin < flat.size:
        count = min(AT_ONCE, flat.size - begin, signs.size - first)
        flat[begin : begin + count] += sizes[begin : begin + count] * signs[first : first + count]
        begin, first = begin + count, (first + count) % signs.size
