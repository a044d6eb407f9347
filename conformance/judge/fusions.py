"""Fusions: where a runtime is right node by node, but not as users run it.

Capturing every tensor disables most optimisations. So the model is judged as the runtime optimises it, too:
part by part, between the tensors that both have. Where it is wrong, or crashes, the optimiser is found whose
absence puts it right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import onnx

from conformance.bounds import propagated_bound
from conformance.bounds.worst_element import worst_of
from conformance.candidates.arrays import attempted
from conformance.candidates.candidate import Optimising
from conformance.candidates.onnx_runtime_optimizers import is_set_of_rules, names_in_library
from conformance.graph.evaluation import widened
from conformance.graph.onnx_graph import OnnxGraph
from conformance.graph.submodel import submodel
from conformance.judge.optimised_parts import Part, parts_made
from refimpl.errors import CandidateError, MobileInstError
from refimpl.graph import Node
from refimpl.ops.operation import Array

LARGEST_PART = 8
"""Nodes of the largest part of a graph that is tried on its own: an approximate GELU has eight."""


@dataclass(frozen=True)
class Fusion:
    """What optimisation makes wrong.

    Attributes
    ----------
    optimizers
        Without these the run is right; empty if it is wrong without any that change the model, too.
    part
        Where.
    """

    optimizers: tuple[str, ...]
    part: Part

    def __str__(self) -> str:
        """Say it in one sentence."""
        by = f"by {', '.join(self.optimizers)}" if self.optimizers else "whichever optimiser is disabled"
        return f"its optimised run alone is wrong, {by}{self.part}; every node on its own is right"


def find_fusion(
    candidate: Optimising,
    feeds: Mapping[str, Array],
    captured: Mapping[str, Array],
    is_right: Callable[[Mapping[str, Array]], bool],
    wrong_outputs: bool,
    wide_float16: bool = False,
    suspected: bool = True,
) -> Fusion | None:
    """Find what optimisation makes wrong, if it does.

    Parameters
    ----------
    candidate
        Whose optimised run is in question, and gives outputs.
    feeds
        What it was fed.
    captured
        Its tensors without optimisation, right node by node.
    is_right
        Whether outputs are what they should be.
    wrong_outputs
        Whether those of its optimised run are not.
    wide_float16
        As of `conformance.candidates.candidate.OwnGraph`.
    suspected
        Whether a part of its optimised graph is wrong, or that is not known.

    Returns
    -------
    Fusion or None
        None if nothing is wrong, or if the run without optimisation is wrong as well: then optimisation is
        not what makes it so.
    """

    def wrong_part(of: Optimising) -> Part | None:
        return part_made_wrong(of, feeds, captured, wide_float16)

    part = wrong_part(candidate) if suspected else None
    if part is None:
        shown = {name: captured[name] for name in candidate.graph.outputs if name in captured}
        if not wrong_outputs or not is_right(shown):
            return None
        part = _smallest_part(candidate, {**feeds, **captured})

    def is_right_without(disabled: Sequence[str]) -> bool:
        other = candidate.without(disabled)
        outputs = _outputs_if_any(other, feeds)
        return outputs is not None and is_right(outputs) and wrong_part(other) is None

    return Fusion(tuple(_optimizers(candidate, is_right_without)), part)


def find_crash(
    candidate: Optimising, feeds: Mapping[str, Array], error: CandidateError
) -> tuple[str, dict[str, Array]]:
    """Tell what of optimisation makes a run fail, and return what runs without it.

    Parameters
    ----------
    candidate
        Whose optimised run fails.
    feeds
        What it was fed.
    error
        How it fails.

    Returns
    -------
    str, dict
        What happens, and the outputs without optimisation.

    Raises
    ------
    CandidateError
        It fails without optimisation, too.
    """
    outputs = _outputs(candidate.unoptimized(), feeds)

    def runs_without(disabled: Sequence[str]) -> bool:
        return _outputs_if_any(candidate.without(disabled), feeds) is not None

    names = _optimizers(candidate, runs_without)
    cure = f"without {', '.join(names)} it runs" if names else "whichever optimiser is disabled"
    return f"{error}; its optimised run alone does, {cure}; the outputs are its unoptimised run's", outputs


def _outputs(candidate: Optimising, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Return what a run gives; raise `CandidateError` if it fails in whatever way."""
    return attempted(candidate.run, feeds, passed=MobileInstError)


def _outputs_if_any(candidate: Optimising, feeds: Mapping[str, Array]) -> dict[str, Array] | None:
    try:
        return _outputs(candidate, feeds)
    except CandidateError:
        return None


def part_made_wrong(
    candidate: Optimising, feeds: Mapping[str, Array], captured: Mapping[str, Array], wide_float16: bool
) -> Part | None:
    """Return the first part that a runtime makes wrong of a graph; parameters as of `parts_made`."""
    made = parts_made(candidate, feeds, captured, wide_float16)
    judged = (each.judged(candidate.declaration) for each in made)
    return next((part for part in judged if part is not None and part.utilisation > 1), None)


def _optimizers(candidate: Optimising, fixes: Callable[[Sequence[str]], bool]) -> list[str]:
    """Return the optimisers without which all is well; of sets of rules, the rules."""
    acting: list[str] = []
    # What does not run leaves its work to others.
    while new := [name for name in candidate.without(acting).optimizers() if name not in acting]:
        acting += new
        if fixes(acting):
            break
    found = smallest_fixing(acting, fixes)
    others = [name for name in found if not is_set_of_rules(name)]
    if others == found:
        return found
    rules = smallest_fixing(names_in_library(), partial(_with, fixes, others))
    return [*others, *rules] if rules else found


def _with(fixes: Callable[[Sequence[str]], bool], others: Sequence[str], names: Sequence[str]) -> bool:
    return fixes([*others, *names])


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


def _smallest_part(candidate: Optimising, known: Mapping[str, Array]) -> Part:
    """Return the first of the smallest parts of the graph that are wrong when optimised on their own."""
    for size in range(1, LARGEST_PART + 1):
        for part in parts(candidate.graph, size):
            reached = _on_its_own(candidate, part, known)
            if reached > 1:
                return Part(tuple(node.name for node in part), reached)
    return Part()


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


def _on_its_own(candidate: Optimising, part: Sequence[Node], known: Mapping[str, Array]) -> float:
    """Return how much of the whole chain's bound the part's last tensor uses, by the optimising runtime."""
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
        return 0.0  # what cannot be run on its own cannot be blamed
    bound = bounds[target]
    return 0.0 if bound is None else worst_of(made[target], values[target], bound).utilisation
