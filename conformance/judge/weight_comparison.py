"""How a candidate's weights differ from the reference's, said from the numbers alone: no catalogue, no run.

A weight is found by its name; where names are lost, by the constant of its size that resembles it most, the
batch norms folded or not.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from conformance.bounds import BFLOAT16, FLOAT16, FLOAT32
from conformance.judge.node_reading import Side
from conformance.judge.relation import relation
from refimpl import Weights
from refimpl.graph import Node
from refimpl.ops.operation import Array

SAME = 2e-6
"""Relative difference that folding and storing in float32 make."""
ALIKE = 0.9
"""Cosine above which a constant without a name is taken for an altered weight."""
FEWEST = 16
"""Elements below which resemblance proves nothing."""
LISTED = 5
_AXES = ("output channels", "input channels", "rows", "columns")


def compare_weights(reference: Mapping[str, Array], constants: Mapping[str, Array]) -> list[str]:
    """Say which weights differ and how, a sentence each; many as one with the largest first.

    Parameters
    ----------
    reference
        Name → weight, as the network has it.
    constants
        Name → constant of the candidate's graph.

    Returns
    -------
    sentences
        None where all that were found agree, or none were found.
    """
    folded = _folded(reference)
    pairs = _paired(reference, folded, constants)
    others = {**reference, **_renamed(folded)}
    found = {
        name: said for name, (ours, theirs) in pairs.items() if (said := _difference(ours, theirs, others))
    }
    sentences = [f"weight {name} {said}" for name, said in found.items()]
    if len(sentences) <= LISTED:
        return sentences
    return [
        f"{len(found)} of {len(pairs)} weights differ: another checkpoint, or an average?",
        *sentences[:LISTED],
    ]


def compare_constants(ours: Side, theirs: Side, weights: Mapping[str, Array]) -> list[str]:
    """Say which constants of a stretch differ, node by node of the same operator.

    Parameters
    ----------
    ours, theirs
        The stretch as the reference and as the candidate has it.
    weights
        Name → weight, as the network has it.
    """
    folded = (
        {} if _norms(theirs) or not _norms(ours) else _folded(weights) if weights else _folded_there(ours)
    )
    said = []
    for our, their in _pairs_of_nodes(ours.nodes, theirs.nodes):
        for ours_named, name in zip(_with_bias(our, folded), their.inputs, strict=False):
            right, given = folded.get(ours_named, ours.constants.get(ours_named)), theirs.constants.get(name)
            if right is not None and given is not None and right.dtype.kind == "f" and right.size > 1:
                others = {**weights, **_of_size(ours.constants, right.size), **_renamed(folded)}
                how = difference_of_constants(right, given, others)
                origin = ours.origins.get(ours_named)
                called = f"weight {origin}" if origin else f"constant {ours_named}"
                said += [f"{called} {how}"] if how else []
    return said


def difference_of_constants(right: Array, given: Array, weights: Mapping[str, Array]) -> str:
    """Say how a constant differs, empty if it does not; ``weights`` are others whose values it may have."""
    if right.size != given.size:
        return f"has shape {list(right.shape)}, theirs {list(given.shape)}"
    return _difference(right.astype(np.float64), _laid_out(given.astype(np.float64), right.shape), weights)


def _with_bias(node: Node, folded: Mapping[str, Array]) -> tuple[str, ...]:
    """Return a node's operands, with the bias that folding its norm gives it."""
    given = node.uses
    bias = given[1].removesuffix("weight") + "bias" if len(given) == 2 else ""
    return (*given, bias) if bias in folded else node.inputs


def _folded_there(side: Side) -> dict[str, Array]:
    """Return the weights and biases of a side's convolutions with the batch norms behind them folded in."""
    makers = {node.outputs[0]: node for node in side.nodes if node.op_type == "Conv"}
    found = {}
    for norm in side.nodes:
        convolution = makers.get(norm.inputs[0]) if norm.op_type == "BatchNormalization" else None
        names = () if convolution is None else (*convolution.uses[1:], *norm.inputs[1:5])
        if convolution is not None and all(name in side.constants for name in names):
            weight, *biases = (side.constants[name].astype(np.float64) for name in convolution.uses[1:])
            scale, shift, mean, variance = (side.constants[name] for name in norm.inputs[1:5])
            factor = scale / np.sqrt(variance + norm.attributes.get("epsilon", 1e-5))
            name = convolution.uses[1]
            found[name] = weight * factor.reshape(-1, *(1,) * (weight.ndim - 1))
            bias = convolution.uses[2] if biases else name.removesuffix("weight") + "bias"
            found[bias] = shift + (sum(biases) - mean) * factor
    return found


def _renamed(folded: Mapping[str, Array]) -> dict[str, Array]:
    return {f"{name}, its norm folded in,": array for name, array in folded.items()}


def _of_size(constants: Mapping[str, Array], size: int) -> dict[str, Array]:
    return {name: x for name, x in constants.items() if x.size == size and x.dtype.kind == "f"}


def _norms(side: Side) -> int:
    return sum(node.op_type == "BatchNormalization" for node in side.nodes)


def _pairs_of_nodes(ours: Sequence[Node], theirs: Sequence[Node]) -> Iterator[tuple[Node, Node]]:
    """Yield the nodes of an operator that both sides have equally often, in order."""
    for op_type in dict.fromkeys(node.op_type for node in ours):
        sides = [[node for node in side if node.op_type == op_type] for side in (ours, theirs)]
        if len(sides[0]) == len(sides[1]) and op_type not in ("Reshape", "Transpose"):
            yield from zip(*sides, strict=True)


def _paired(
    reference: Mapping[str, Array], folded: Mapping[str, Array], constants: Mapping[str, Array]
) -> dict[str, tuple[Array, Array]]:
    """Return each weight that can be found, with the candidate's in the same layout."""
    floats = {name: _wide(x) for name, x in constants.items() if x.dtype.kind == "f"}
    named = [_of_the_same_name(names, floats) for names in (reference, folded)]
    likelier, other = sorted(named, key=_unequal)
    # A weight that is neither is altered; it is what most are.
    equal = {name: pair for name, pair in other.items() if not _differs(*pair)}
    pairs: dict[str, tuple[Array, Array]] = {**other, **likelier, **equal}
    if len(pairs) < len(reference) / 2:
        resembling = [_resembling(names, floats) for names in (reference, folded)]
        nearest: dict[str, tuple[Array, Array]] = min(resembling, key=_unequal)
        pairs |= nearest
    return pairs


def _of_the_same_name(
    names: Mapping[str, Array], floats: Mapping[str, Array]
) -> dict[str, tuple[Array, Array]]:
    found = {
        name: floats[name]
        for name, ours in names.items()
        if name in floats and floats[name].size == ours.size
    }
    return {
        name: (_wide(names[name]), _laid_out(theirs, names[name].shape)) for name, theirs in found.items()
    }


def _folded(reference: Mapping[str, Array]) -> Mapping[str, Array]:
    return Weights({name: _wide(x) for name, x in reference.items()}).folded()


def _wide(x: Array) -> Array:
    return x.astype(np.float64, copy=False)


def _laid_out(theirs: Array, shape: Sequence[int]) -> Array:
    """Return an array in a shape, transposed if it is a matrix the other way round."""
    turned = theirs.ndim == 2 and theirs.shape[::-1] == tuple(shape) and theirs.shape != tuple(shape)
    return (theirs.T if turned else theirs).reshape(shape)


def _unequal(pairs: dict[str, tuple[Array, Array]]) -> float:
    """Return the share of pairs that differ; all, if there is none."""
    return float(np.mean([_differs(*pair) for pair in pairs.values()])) if pairs else 1.0


def _differs(ours: Array, theirs: Array) -> bool:
    return not _same(ours, theirs)


def _same(ours: Array, theirs: Array) -> bool:
    """Tell whether only folding and storing lie between: small elements are differences of large ones."""
    return bool(np.abs(theirs - ours).max(initial=0.0) <= SAME * np.abs(ours).max(initial=0.0))


def _resembling(
    reference: Mapping[str, Array], floats: Mapping[str, Array]
) -> dict[str, tuple[Array, Array]]:
    """Return each weight with the constant that is it; of the rest, those alike."""
    pool: dict[int, dict[str, Array]] = {}
    for name, array in floats.items():
        pool.setdefault(array.size, {})[name] = array
    weights = {name: _wide(x) for name, x in reference.items() if x.size >= FEWEST}
    pairs: dict[str, tuple[Array, Array]] = {}
    for least in (1 - SAME**2, ALIKE):
        for name in weights.keys() - pairs.keys():
            ours, left = weights[name], pool.get(weights[name].size, {})
            laid = {each: _laid_out(array, ours.shape) for each, array in left.items()}
            best = max(laid, key=lambda each: abs(_cosine(ours, laid[each])), default=None)
            if best is not None and abs(_cosine(ours, laid[best])) >= least:
                pairs[name] = ours, laid[best]
                del left[best]
    return {name: pairs[name] for name in weights if name in pairs}


def _cosine(a: Array, b: Array) -> float:
    size = np.linalg.norm(a) * np.linalg.norm(b)
    return float(np.vdot(a, b) / size) if size else 0.0


def _difference(ours: Array, theirs: Array, reference: Mapping[str, Array]) -> str:
    """Return how one differs, empty if it does not."""
    difference = theirs - ours
    scale = float(np.abs(ours).max(initial=0.0)) or 1.0
    wrong = np.abs(difference) > SAME * scale
    if not wrong.any():
        return ""
    for narrow in (FLOAT16, BFLOAT16):
        if np.array_equal(theirs, narrow.rounded(FLOAT32.rounded(ours))):
            return f"is yours rounded to {narrow.name}"
    if not theirs.any():
        return "is all zeros"
    return (
        _values_of_another(theirs, reference)
        or _permutation(ours, theirs)
        or _one_number(ours, theirs, wrong)
        or relation(ours, theirs, SAME * scale, axes=_AXES if ours.ndim > 1 else ("elements",))
    )


def _values_of_another(theirs: Array, reference: Mapping[str, Array]) -> str:
    for name, other in reference.items():
        if other.size == theirs.size >= FEWEST and _same(other.reshape(theirs.shape), theirs):
            return f"holds the values of {name}"
    return ""


def _permutation(ours: Array, theirs: Array) -> str:
    """Say along which axis slices are the reference's in another order."""
    for axis in range(ours.ndim):
        if ours.shape[axis] < 2:
            continue
        first, second = (np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1) for x in (ours, theirs))
        order = [np.lexsort(x.T[::-1]) for x in (first, second)]
        if _same(first[order[0]], second[order[1]]):
            return f"has its {_axis(axis, ours.ndim)} in another order"
    return _read_otherwise(ours, theirs) or _mixed(ours, theirs)


def _read_otherwise(ours: Array, theirs: Array) -> str:
    """Say that the same numbers in memory were read with their axes in another order."""
    for order in list(itertools.permutations(range(ours.ndim)))[1:]:
        named = ", ".join(_axis(axis, ours.ndim) for axis in order)
        back = ours.reshape([ours.shape[axis] for axis in order]).transpose(np.argsort(order))
        if _same(back, theirs):
            return f"was read as if stored by {named}"
        if _same(ours.transpose(order).ravel(), theirs.ravel()):
            return f"was stored by {named}, and not read so"
    return ""


def _mixed(ours: Array, theirs: Array) -> str:
    """Say that the numbers are the same, in an order that no axis tells."""
    same = _same(np.sort(ours, None), np.sort(theirs, None))
    return "has the same numbers in another order" if same and ours.size >= FEWEST else ""


def _one_number(ours: Array, theirs: Array, wrong: Array) -> str:
    """Say that what differs does so by one factor, or by one shift; one element is told as it is."""
    if wrong.sum() == 1:
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        return f"is {theirs[place]:.6g} at {list(place)}, where yours is {ours[place]:.6g}"
    before, after = ours[wrong], theirs[wrong]
    with np.errstate(divide="ignore", invalid="ignore"):
        factors = after / before
    factor, shift = float(np.median(factors)), float(np.median(after - before))
    if np.allclose(after, factor * before, rtol=1e-4, atol=0):
        return f"is {factor:.6g} × yours, {_where(wrong)}"
    if np.allclose(after - before, shift, rtol=1e-3, atol=0):
        return f"is {shift:+.6g} beside yours, {_where(wrong)}"
    return ""


def _where(wrong: Array) -> str:
    """Say which elements: all, whole slices of an axis, or how many."""
    if wrong.all():
        return "everywhere"
    for axis in range(wrong.ndim):
        others = tuple(i for i in range(wrong.ndim) if i != axis)
        touched = wrong.any(axis=others)
        if touched.sum() < touched.size and wrong.sum() > 0.9 * touched.sum() * wrong.size / touched.size:
            chosen = np.flatnonzero(touched)
            named = f", the first {chosen[0]}" if chosen.size > 1 else f": {chosen[0]}"
            return f"in {chosen.size} of {touched.size} {_axis(axis, wrong.ndim)}{named}"
    return f"in {int(wrong.sum())} of {wrong.size} elements"


def _axis(axis: int, ndim: int) -> str:
    return "elements" if ndim == 1 else _AXES[axis] if axis < len(_AXES) else f"slices of axis {axis}"
