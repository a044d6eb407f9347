"""Limits that an input does not reach: another in their place, or none, computes the same numbers there.

A ReLU6 whose input is never above 6 is as right as a ReLU, and any slope of a leaky ReLU below zero if its
input never is. Where the candidate shows its nodes they are read instead; where it does not, it is said what
was not seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from conformance.faults import ShapedGraph
from conformance.judge.node_reading import with_defaults
from conformance.reports.report import InputReport
from refimpl import Recording
from refimpl.graph import Graph, Node
from refimpl.ops.operation import Array

Limits = tuple[float, float]
"""The least number that a tensor may hold, and the largest; infinite where there is none."""

NONE: Limits = (-math.inf, math.inf)

Idle = tuple[bool, bool]
"""For the lower and the upper limit, whether there is one that no number reaches."""

MOVING = ("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten")
"""What limits may stand before or behind: converters exchange them."""

BELOW_ZERO = ("LeakyRelu", "PRelu", "Elu", "Celu", "Selu")
"""What hands on all but what is below zero: of that its attributes say, or its second operand."""

RANGES: dict[str, Limits] = {
    **dict.fromkeys(("Abs", "Exp", "Relu", "Softplus", "Sqrt"), (0.0, math.inf)),
    **dict.fromkeys(("HardSigmoid", "Sigmoid", "Softmax"), (0.0, 1.0)),
    **dict.fromkeys(("Cos", "Erf", "Sin", "Softsign", "Tanh"), (-1.0, 1.0)),
}
"""Operator → between what its results are, whatever it is given: no input reaches a limit beyond."""

LARGEST = 1e30
"""A limit beyond which there is none."""

SHOWN = 2
"""Steps that are named."""

NAMES = ("min", "max")


def unreached(recording: Recording) -> dict[str, Idle]:
    """Return the steps that hold a tensor between limits of which one, or both, no number reaches.

    Returns
    -------
    dict
        The tensor → for the lower and the upper limit, whether there is one that nothing reaches.
    """
    moving = recording.graph.dependent(recording.inputs.values())
    found = {}
    for step in recording.steps:
        if step.op_type not in ("Relu", "Clip", *BELOW_ZERO) or step.inputs[0] not in moving:
            continue
        low, high = (0.0, math.inf) if step.op_type in BELOW_ZERO else _held(step, recording.tensors) or NONE
        operand, maker = recording.tensors[step.inputs[0]], recording.graph.producer(step.inputs[0])
        least, most = RANGES.get(maker.op_type, NONE) if maker else NONE
        if operand.size:
            idle = least < low <= float(operand.min()), float(operand.max()) <= high < most
            found.update({step.outputs[0]: idle} if any(idle) else {})
    return found


class Held(NamedTuple):
    """A tensor that nodes hold between limits, one after another.

    Attributes
    ----------
    limits
        Of all of them.
    users
        The operators of what uses the last of them, "" if that is an output.
    """

    limits: Limits
    users: list[str]


def held_between(graph: Graph, constants: Mapping[str, Array], name: str) -> Held | None:
    """Return how nodes hold a tensor between limits; None if what makes it is no such node.

    Parameters
    ----------
    graph
    constants
        Name → what does not depend on the graph's inputs.
    name
        The tensor.
    """
    node = graph.producer(name)
    if node is None or (found := _held(node, constants)) is None:
        return None
    last, chain = node, [node]
    for follow in (_before, _behind):
        other = follow(graph, node, constants)
        while other is not None and (more := _held(other, constants)) is not None:
            found = max(found[0], more[0]), min(found[1], more[1])
            last = other if follow is _behind else last
            chain.append(other)
            other = follow(graph, other, constants)
    if all(each.op_type in MOVING for each in chain):
        return None
    users = sorted(user.op_type for user in graph.consumers.get(last.outputs[0], []))
    return Held(found, users + [""] * (last.outputs[0] in graph.outputs.values()))


def _before(graph: Graph, node: Node, constants: Mapping[str, Array]) -> Node | None:
    given = [name for name in node.uses if name not in constants]
    return graph.producer(given[0]) if len(given) == 1 else None


def _behind(graph: Graph, node: Node, constants: Mapping[str, Array]) -> Node | None:
    users = graph.consumers.get(node.outputs[0], [])
    return users[0] if len(users) == 1 and node.outputs[0] not in graph.outputs.values() else None


def _held(node: Node, constants: Mapping[str, Array]) -> Limits | None:
    """Return a node's limits; None if it is another kind of node, or they are not known."""
    named = [*node.inputs[1:], "", ""]
    match node.op_type:
        case "Relu":
            return 0.0, math.inf
        case "Clip":
            low, high = (_number(name, constants) for name in named[:2])
        case "Min" | "Max":
            fixed = [name for name in node.uses if name in constants]
            number = _number(fixed[0], constants) if len(fixed) == 1 and len(node.uses) == 2 else None
            low, high = (None, number) if node.op_type == "Min" else (number, None)
            return None if number is None else (_least(low), _most(high))
        case _:
            return NONE if node.op_type in MOVING else None
    if any(name and name not in constants for name in named[:2]):
        return None
    return _least(low), _most(high)


def _least(number: float | None) -> float:
    return -math.inf if number is None or number < -LARGEST else number


def _most(number: float | None) -> float:
    return math.inf if number is None or number > LARGEST else number


def _number(name: str, constants: Mapping[str, Array]) -> float | None:
    array = constants.get(name) if name else None
    return float(np.asarray(array).ravel()[0]) if array is not None and np.size(array) == 1 else None


def read_limits(
    reference: ShapedGraph,
    candidate: ShapedGraph,
    idle: Mapping[str, Idle],
    found: Mapping[str, str],
    unit_roundoff: float,
) -> tuple[dict[str, str], set[str]]:
    """Read the limits that no number reaches in the candidate's nodes.

    Parameters
    ----------
    reference, candidate
    idle
        As `unreached` returns it.
    found
        The reference's tensor → the candidate's that is it.
    unit_roundoff
        To which the candidate stores its constants.

    Returns
    -------
    wrong, unread
        Tensor → how the candidate has a limit otherwise; those of which no node of its says the limits.
    """
    wrong, unread = dict[str, str](), set[str]()
    for name, which in idle.items():
        maker = reference.producer(name)
        if maker is not None and maker.op_type in BELOW_ZERO:
            said = _read_slope(reference, candidate, name, found.get(name, ""), unit_roundoff)
            wrong |= {name: said} if said else {}
            unread |= {name} if said is None else set()
            continue
        ours = held_between(reference, reference.constants, name)
        theirs = held_between(candidate, candidate.constants, found[name]) if name in found else None
        if ours is None or theirs is None:
            unread.add(name)
            continue
        other = [place for place in (0, 1) if which[place] and not _alike(ours, theirs, place, unit_roundoff)]
        # What else it computes of a tensor may be the limit, otherwise written.
        if other and theirs.users == ours.users:
            here, there = (_said(side.limits[other[0]]) for side in (theirs, ours))
            wrong[name] = (
                f"{NAMES[other[0]]} is {here} at its {found[name]}; the reference has {there} at {name}, "
                "which no number of this input reaches"
            )
        elif other:
            unread.add(name)
    return wrong, unread


def _read_slope(
    reference: ShapedGraph, candidate: ShapedGraph, name: str, own: str, unit_roundoff: float
) -> str | None:
    """Return what a node says otherwise of numbers below zero, empty if nothing; None if that is not read."""
    ours, theirs = reference.producer(name), candidate.producer(own)
    if ours is None or theirs is None or ours.op_type != theirs.op_type or ours.op_type == "PRelu":
        return None
    sides = with_defaults(ours), with_defaults(theirs)
    for key, mine in sides[0].items():
        if not _near(mine, sides[1][key], unit_roundoff):
            return (
                f"{key} is {_said(sides[1][key])} at its {own}; the reference has {_said(mine)} at {name}, "
                "which no number of this input reaches"
            )
    return ""


def _alike(ours: Held, theirs: Held, place: int, unit_roundoff: float) -> bool:
    return _near(ours.limits[place], theirs.limits[place], unit_roundoff)


def _near(one: Any, other: Any, unit_roundoff: float) -> bool:
    """Tell whether constants are the same but for how they are stored."""
    return bool(np.allclose(one, other, rtol=max(1e-5, 2 * unit_roundoff), atol=1e-30))


def _said(limit: float) -> str:
    return f"{limit:.6g}" if math.isfinite(limit) else "absent"


def remark_on(seen: Sequence[Mapping[str, Idle] | None]) -> list[str]:
    """Say which limits none of several inputs reach, and no node was read for.

    Parameters
    ----------
    seen
        Of each input, which it does not reach; None where something is wrong already.
    """
    known = [idle for idle in seen if idle is not None]
    if not known or len(known) < len(seen):
        return []
    common = [
        (name, place)
        for name in known[0]
        for place in (0, 1)
        if all(idle.get(name, (False, False))[place] for idle in known)
    ]
    listed = [f"{NAMES[place]} of {name}" for name, place in common]
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    inputs = "this input does" if len(seen) == 1 else "these inputs do"
    return [
        f"what {inputs} not reach was not seen, so that a wrong one passes: {', '.join(listed[:SHOWN])}{more}"
    ] * bool(listed)


def with_remarks(reports: Sequence[InputReport], remarks: Sequence[str]) -> list[InputReport]:
    """Return the reports, the first with more remarks."""
    first, *others = reports
    return [replace(first, remarks=[*first.remarks, *remarks]), *others]
