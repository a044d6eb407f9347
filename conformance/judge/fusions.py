"""Fusions: where a runtime is right node by node, but not as users run it.

Capturing every tensor disables most optimisations. So if only the optimised run leaves its envelope, the
optimiser is found whose absence puts it right, and the smallest part of the graph that it makes wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx

from conformance.bounds import propagated_bound
from conformance.bounds.worst_element import worst_of
from conformance.candidates.candidate import Optimising
from conformance.graph.evaluation import widened
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.submodel import submodel
from refimpl.errors import MobileInstError
from refimpl.graph import Node
from refimpl.ops.operation import Array

LARGEST_PART = 8
"""Nodes of the largest part of a graph that is tried on its own: an approximate GELU has eight."""

OPTIMIZERS = (
    *("EliminateIdentity", "EliminateSlice", "UnsqueezeElimination", "EliminateDropout", "CastElimination"),
    *("FuseReluClip", "ShapeInputMerge", "ConvAddFusion", "ConvMulFusion", "ConvBNFusion", "PadFusion"),
    *("MatmulBNFusion", "ClipQuantRewrite", "LabelEncoderFusion", "ReluQuantRewrite", "NoopElimination"),
    *("DoubleQDQPairsRemover", "ConstantFolding", "ConstantSharing", "CommonSubexpressionElimination"),
    *("MatMulAddFusion", "ReshapeFusion", "FreeDimensionOverrideTransformer", "GemmActivationFusion"),
    *("MatMulIntegerToFloatFusion", "DynamicQuantizeMatMulFusion", "ConvActivationFusion", "GeluFusionL1"),
    *("GeluFusionL2", "GeluFusion", "LayerNormFusion", "LayerNormFusionL1", "LayerNormFusionL2"),
    *("SimplifiedLayerNormFusion", "AttentionFusion", "EmbedLayerNormFusion", "GatherToSplitFusion"),
    *("GatherToSliceFusion", "MatmulTransposeFusion", "BiasGeluFusion", "SkipLayerNormFusion"),
    *("FastGeluFusion", "QuickGeluFusion", "BiasSoftmaxFusion", "BiasDropoutFusion", "NotWhereFusion"),
    *("MatMulScaleFusion", "MatMulActivationFusion", "TransposeOptimizer", "TransposeOptimizer_CPU"),
    *("QDQPropagationTransformer", "QDQSelectorActionTransformer", "QDQFinalCleanupTransformer"),
    *("NchwcTransformer", "NhwcTransformer", "ConvAddActivationFusion", "WeightBiasQuantization"),
    *("EnsureUniqueDQForNodeUnit", "RemoveDuplicateCastTransformer", "MatMulNBitsFusion"),
)
"""Graph transformers of ONNX Runtime, by the names ``disabled_optimizers`` takes
(``graph_transformer_utils.cc``);
a name that a version does not know changes nothing."""


@dataclass(frozen=True)
class Fusion:
    """What optimisation makes wrong.

    Attributes
    ----------
    optimizers
        Without these the run is right; empty if it is wrong without any of those known, too.
    nodes
        The smallest part of the graph that is wrong on its own; empty if none of up to `LARGEST_PART` nodes
        is.
    tensor
        What that part computes.
    """

    optimizers: tuple[str, ...]
    nodes: tuple[str, ...]
    tensor: str | None

    def __str__(self) -> str:
        """Say it in one sentence."""
        by = f"by {', '.join(self.optimizers)}" if self.optimizers else "whichever optimiser is disabled"
        where = f" at {', '.join(self.nodes)}" if self.nodes else ""
        return f"its optimised run alone is wrong, {by}{where}; every node on its own is right"


def find_fusion(
    candidate: Optimising,
    feeds: Mapping[str, Array],
    captured: Mapping[str, Array],
    is_right: Callable[[Mapping[str, Array]], bool],
) -> Fusion | None:
    """Find what optimisation makes wrong, if it does.

    Parameters
    ----------
    candidate
        Whose optimised run is in question.
    feeds
        What it was fed.
    captured
        Its tensors without optimisation.
    is_right
        Whether outputs are what they should be.

    Returns
    -------
    Fusion or None
        None if the run without optimisation is wrong as well: then optimisation is not what makes it so.
    """
    if not is_right({name: captured[name] for name in candidate.graph.outputs if name in captured}):
        return None

    def is_right_without(disabled: Sequence[str]) -> bool:
        return is_right(candidate.without(disabled).run(feeds))

    optimizers = smallest_fixing(OPTIMIZERS, is_right_without)
    part = _smallest_part(candidate, {**feeds, **captured})
    nodes = tuple(node.name for node in part)
    return Fusion(tuple(optimizers), nodes, part[-1].outputs[0] if part else None)


def smallest_fixing(names: Sequence[str], fixes: Callable[[Sequence[str]], bool]) -> list[str]:
    """Return a smallest list of names, each needed for ``fixes`` to hold; empty if all do not suffice.

    Delta debugging: halves first, then what is left when a part is taken out (Zeller & Hildebrandt 2002).
    """
    kept = list(names)
    if not fixes(kept):
        return []
    parts = 2
    while len(kept) > 1:
        size = -(-len(kept) // parts)
        chunks = [kept[start : start + size] for start in range(0, len(kept), size)]
        rests = [[name for name in kept if name not in chunk] for chunk in chunks]
        smaller = next(
            (trial for trial in [*chunks, *rests] if len(trial) < len(kept) and fixes(trial)), None
        )
        if smaller is not None:
            kept, parts = smaller, 2
        elif size == 1:
            break
        else:
            parts = min(2 * parts, len(kept))
    return kept


def _smallest_part(candidate: Optimising, known: Mapping[str, Array]) -> list[Node]:
    """Return the first of the smallest parts of the graph that are wrong when optimised on their own."""
    graph = candidate.graph
    for size in range(1, LARGEST_PART + 1):
        for part in parts(graph, size):
            if _is_wrong(candidate, part, known):
                return part
    return []


def parts(graph: OnnxGraph, size: int) -> Iterator[list[Node]]:
    """Yield, for each node, itself and the nearest nodes it is computed from, ``size`` in all."""
    for last, node in enumerate(graph.nodes):
        found, waiting = {last}, list(node.uses)
        while waiting and len(found) < size:
            place = graph.places.get(waiting.pop(0))
            if place is not None and place not in found:
                found.add(place)
                waiting += graph.nodes[place].uses
        if len(found) == size:
            yield [graph.nodes[place] for place in sorted(found)]


def _is_wrong(candidate: Optimising, part: Sequence[Node], known: Mapping[str, Array]) -> bool:
    """Tell whether the part's last tensor, by the optimising runtime, leaves the whole chain's bound."""
    graph, declared, target = candidate.graph, candidate.declaration, part[-1].outputs[0]
    fixed = {**graph.initializers, **known}
    try:
        model, needed = submodel(graph, part, fixed, [target])
        exact = {name: widened(fixed[name]) for node in part for name in node.inputs if name in fixed}
        values, bounds = propagated_bound(part, exact, declared)
        made = candidate.with_graph(OnnxGraph.load(model, partly=True)).run(
            {name: known[name] for name in needed}
        )
    except (MobileInstError, KeyError, ValueError, onnx.checker.ValidationError):
        return False  # what cannot be run on its own cannot be blamed
    bound = bounds[target]
    return bound is not None and worst_of(made[target], values[target], bound).utilisation > 1
