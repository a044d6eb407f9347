"""What a wrong result means, in one line: known faults, layouts, byte order, or the probe's own words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from conformance.bounds import utilisation
from golden.case import FORMATS
from golden.store import INPUT, Entry
from refimpl.errors import MobileInstError
from refimpl.ops.operation import Array


@dataclass(frozen=True)
class Failure:
    """An output that is not within its bound."""

    entry: Entry
    output: str
    given: Array
    truth: Array
    bound: Array
    format: str
    utilisation: float
    index: tuple[int, ...]

    def fits(self, values: Array) -> bool:
        """Tell whether other values would have passed."""
        return (
            values.shape == self.truth.shape and float(utilisation(values, self.truth, self.bound).max()) <= 1
        )


def reading(failure: Failure) -> str:
    """Return the most telling explanation there is."""
    for explain in (_byte_order, _layout, _constant, _not_finite, _fault, _scaled):
        text = explain(failure)
        if text:
            return text
    return _where(failure)


def _where(failure: Failure) -> str:
    given, truth = failure.given[failure.index], failure.truth[failure.index]
    wrong = int(np.count_nonzero(utilisation(failure.given, failure.truth, failure.bound) > 1))
    place = list(failure.index)
    return (
        f"{wrong} of {failure.truth.size} elements are wrong, most at {place}: {given:.9g}, expected "
        f"{truth:.9g}; "
        f"the golden shows: {failure.entry.record['shows']}"
    )


def _byte_order(failure: Failure) -> str | None:
    with np.errstate(all="ignore"):
        swapped = failure.given.byteswap().astype(np.float64)  # may be signalling NaN
    if failure.given.dtype.itemsize > 1 and failure.fits(swapped):
        return "byte order: the numbers are right with their bytes reversed; write them little-endian"
    return None


def _not_finite(failure: Failure) -> str | None:
    wrong = ~np.isfinite(failure.given) & np.isfinite(failure.truth)
    if not wrong.any():
        return None
    place = [int(i) for i in np.argwhere(wrong)[0]]
    kind = "NaN" if np.isnan(failure.given[tuple(place)]) else "infinity"
    shows = failure.entry.record["shows"]
    return f"{kind} in {int(wrong.sum())} elements, first at {place}; the golden shows: {shows}"


def _layout(failure: Failure) -> str | None:
    """Look for the right numbers in another order of axes."""
    truth, given = failure.truth, failure.given
    if truth.ndim < 2 or truth.ndim > 5 or np.ptp(truth) == 0:
        return None
    for order in permutations(range(truth.ndim)):
        turned = np.transpose(truth, order)
        bound = np.transpose(failure.bound, order).reshape(truth.shape)
        same = np.array_equal(turned.reshape(truth.shape), truth)
        if not same and float(utilisation(given, turned.reshape(truth.shape), bound).max()) <= 1:
            return f"layout: the numbers are right but stored with the axes in the order {list(order)}"
    return None


def _constant(failure: Failure) -> str | None:
    given = failure.given
    if given.size > 1 and np.isfinite(given).all() and np.ptp(given) == 0 and np.ptp(failure.truth) > 0:
        return f"every element is {given.flat[0]:.9g}: the output was never written"
    return None


def _scaled(failure: Failure) -> str | None:
    """Look for one factor, or one summand, that puts everything right."""
    if failure.truth.dtype.kind != "f":
        return None
    given, truth = failure.given.astype(np.float64), failure.truth
    usable = np.isfinite(given) & np.isfinite(truth) & (truth != 0)
    if np.count_nonzero(usable) < 2:
        return None
    largest = np.unravel_index(int(np.argmax(np.where(usable, np.abs(truth), 0))), truth.shape)
    factor, summand = given[largest] / truth[largest], given[largest] - truth[largest]
    if factor and failure.fits(given / factor):
        return f"every element is {factor:.6g} times what it should be"
    if failure.fits(given - summand):
        return f"every element is off by {summand:.6g}"
    return None


# --- faults ---------------------------------------------------------------------------------------


def _fault(failure: Failure) -> str | None:
    """Try the catalogue's mistakes on the operation."""
    if failure.entry.kind not in ("operation", "probe"):
        return None
    for explain in (_own_mistakes, _catalogue):
        text = explain(failure)
        if text:
            return text
    return None


def _catalogue(failure: Failure) -> str | None:
    from conformance.bounds.declaration import Declaration
    from conformance.graph.onnx_graph import OnnxGraph
    from conformance.judge.diagnosis import diagnose_node
    from conformance.reports.report import Comparison

    graph = OnnxGraph.load(failure.entry.path(".onnx"))
    form = FORMATS[failure.format]
    known = {**failure.entry.tensors(INPUT), failure.output: failure.given}
    known = {name: known[name] for name in (*graph.inputs, failure.output)}
    called = (failure.output, graph.nodes[0].op_type, failure.output)
    node = Comparison.judged(*called, failure.truth, 0.0, failure.index, utilisation=failure.utilisation)
    try:
        found = diagnose_node(graph, known, node, Declaration(form, form)).diagnoses
    except MobileInstError:
        return None
    return f"{found[0].fault}: {found[0].happens} ({found[0].detail})" if found else None


Mistake = tuple[str, Callable[..., Array]]


def _own_mistakes(failure: Failure) -> str | None:
    """Try the mistakes of this package, which need the operands only."""
    from conformance.graph.evaluation import widened_all
    from conformance.graph.onnx_graph import OnnxGraph

    node = OnnxGraph.load(failure.entry.path(".onnx")).nodes[0]
    inputs = list(node.operands(widened_all(failure.entry.tensors(INPUT))))
    for text, values in _mistaken(node.op_type, inputs, node.attributes):
        if np.shape(values) == failure.truth.shape and not failure.fits(values):
            allowed = failure.bound + np.abs(values) * 2 * FORMATS[failure.format].unit_roundoff
            if float(utilisation(failure.given, values, allowed).max()) <= 1:
                return text
    return None


def _mistaken(
    op_type: str, inputs: list[Array | None], attributes: dict[str, object]
) -> Iterator[tuple[str, Array]]:
    """Yield mistakes that the catalogue has not."""
    x = inputs[0] if inputs else None
    if x is None:
        return
    if op_type == "TopK" and x.dtype.kind == "f":
        k = int(np.ravel(inputs[1])[0])  # type: ignore[arg-type]
        order = np.argsort(-x[..., ::-1], axis=-1, kind="stable")[..., :k]
        yield (
            "ties: of equal values the higher index was taken; ONNX takes the lower",
            x.shape[-1] - 1 - order,
        )
    if op_type in ("ArgMax", "ArgMin") and x.ndim == 2:
        turned = (x if op_type == "ArgMax" else -x)[:, ::-1]
        yield (
            "ties: the last of equal values was taken; ONNX takes the first",
            x.shape[1] - 1 - turned.argmax(1),
        )
    if op_type == "Round":
        yield (
            "rounding: halves were rounded away from zero; ONNX rounds them to the even neighbour",
            (np.copysign(np.floor(np.abs(x) + 0.5), x)),
        )
    if op_type == "HardSigmoid":
        yield "slope: 0.2, ONNX's default, for 1/6", np.clip(0.2 * x + 0.5, 0, 1)
        yield "slope: 1/6 for 0.2, ONNX's default", np.clip(x / 6 + 0.5, 0, 1)
