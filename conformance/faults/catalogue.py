"""What a fault is: a named mistake that puts other calls in the place of a right one.

One definition serves twice. Injected, the other calls are written into a model; for a diagnosis they are
computed in float64 on the operands that the candidate fed the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from conformance.bounds import Format
from conformance.faults.graph import Shape, ShapedGraph
from refimpl.graph import Node
from refimpl.ops.operation import Array


@dataclass(frozen=True)
class Variant:
    """A fault at one call, with its parameters chosen.

    Attributes
    ----------
    detail
        The parameters, in words.
    calls
        What takes the call's place; it makes the call's outputs.
    constants
        Name → array that these calls use and the graph has not.
    formats
        Arithmetic and storage, for faults of precision: those are recognised by the right call's bound in
        these formats.
    """

    detail: str
    calls: tuple[Node, ...]
    constants: dict[str, Array] = field(default_factory=dict)
    formats: tuple[Format, Format] | None = None

    def follows(self, call: Node) -> bool:
        """Tell whether the right result is computed on the way: the mistake is made after the call."""
        same = (call.op_type, call.inputs, call.attributes)
        return any((other.op_type, other.inputs, other.attributes) == same for other in self.calls)


@dataclass(frozen=True)
class Site:
    """A call in its graph, where a fault may be.

    Attributes
    ----------
    graph
    call
    observed
        What a candidate made of the call's first output, if it is known: faults whose parameters only data
        tell read them from it.
    """

    graph: ShapedGraph
    call: Node
    observed: Array | None = None

    @property
    def output(self) -> str:
        """Name of the first output."""
        return self.call.outputs[0]

    @property
    def output_shape(self) -> Shape:
        """Shape of the first output."""
        return self.graph.shapes[self.output]

    def shape(self, index: int) -> Shape:
        """Shape of an operand."""
        return self.graph.shapes[self.call.inputs[index]]

    def has(self, index: int) -> bool:
        """Tell whether an operand is given."""
        return index < len(self.call.inputs) and bool(self.call.inputs[index])

    def constant(self, index: int) -> Array | None:
        """Return the value of an operand, None if it depends on the inputs or is absent."""
        return self.graph.constants.get(self.call.inputs[index]) if self.has(index) else None

    def producer(self, index: int) -> Node | None:
        """Return the call that makes an operand, None for inputs and weights."""
        return self.graph.producer(self.call.inputs[index])

    def consumers(self) -> list[Node]:
        """Return the calls that use the first output."""
        return self.graph.consumers.get(self.output, [])

    def feeds(self, op_type: str) -> bool:
        """Tell whether such a call uses the first output."""
        return any(user.op_type == op_type for user in self.consumers())

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute of the call."""
        value = self.call.attributes.get(name)
        return default if value is None else value

    # --- variants ---

    def changed(self, detail: str, **attributes: Any) -> Variant:
        """Return the call with other attributes."""
        return Variant(detail, (replace(self.call, attributes={**self.call.attributes, **attributes}),))

    def fed(self, detail: str, operands: dict[int, str | Array], **attributes: Any) -> Variant:
        """Return the call with other operands, tensors by name or new constants, and other attributes."""
        rewriting = Rewriting(self)
        inputs: list[str | Array | None] = list(self.call.inputs)
        for index, operand in operands.items():
            inputs[index] = operand
        return rewriting.result(detail, self.call.op_type, *inputs, **{**self.call.attributes, **attributes})

    def instead(self, detail: str, op_type: str, *operands: str | Array, **attributes: Any) -> Variant:
        """Return another call in place of this one."""
        return Rewriting(self).result(detail, op_type, *operands, **attributes)

    def before(
        self, detail: str, op_type: str, *operands: str | Array, index: int = 0, **attributes: Any
    ) -> Variant:
        """Return the call with a call before one of its operands."""
        rewriting = Rewriting(self)
        fed = rewriting.apply(op_type, self.call.inputs[index], *operands, **attributes)
        return rewriting.same(detail, {index: fed})

    def after(self, detail: str, op_type: str, *operands: str | Array, **attributes: Any) -> Variant:
        """Return the call with a call after it."""
        rewriting = Rewriting(self)
        made = rewriting.apply(self.call.op_type, *self.call.inputs, **self.call.attributes)
        return rewriting.result(detail, op_type, made, *operands, **attributes)


class Rewriting:
    """Collects the calls that take a call's place."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.calls: list[Node] = []
        self.constants: dict[str, Array] = {}

    def apply(self, op_type: str, *operands: str | Array | None, **attributes: Any) -> str:
        """Add a call and return the name of what it makes."""
        name = f"{self.site.output}~{len(self.calls)}"
        self.calls.append(Node(name, op_type, self._named(operands), (name,), attributes))
        return name

    def result(self, detail: str, op_type: str, *operands: str | Array | None, **attributes: Any) -> Variant:
        """Add the last call, which makes the outputs of the call replaced, and return the whole."""
        call = self.site.call
        last = Node(call.name, op_type, self._named(operands), call.outputs, attributes)
        return Variant(detail, (*self.calls, last), self.constants)

    def same(self, detail: str, operands: dict[int, str], **attributes: Any) -> Variant:
        """Add the call itself with other operands and return the whole."""
        inputs = [operands.get(index, name) for index, name in enumerate(self.site.call.inputs)]
        return self.result(
            detail, self.site.call.op_type, *inputs, **{**self.site.call.attributes, **attributes}
        )

    def _named(self, operands: Iterable[str | Array | None]) -> tuple[str, ...]:
        return tuple(self._name(operand) for operand in operands)

    def _name(self, operand: str | Array | None) -> str:
        if operand is None or isinstance(operand, str):
            return operand or ""
        name = f"{self.site.output}~constant{len(self.constants)}"
        self.constants[name] = np.asarray(operand)
        return name


Variants = Callable[[Site], Iterator[Variant]]


@dataclass(frozen=True)
class Fault:
    """A mistake people make.

    Attributes
    ----------
    name
        ``category/what went wrong``.
    operators
        The ONNX operators at which it can be.
    happens
        What is computed instead, in one line.
    source
        A paper, or a page, file or thread whose link ends it, that shows the mistake.
    variants
        Yields the fault's variants at a site: none if it cannot be there.
    """

    name: str
    operators: tuple[str, ...]
    happens: str
    source: str
    variants: Variants = field(repr=False)

    @property
    def category(self) -> str:
        """The first part of the name."""
        return self.name.partition("/")[0]

    def at(self, graph: ShapedGraph, call: Node, observed: Array | None = None) -> list[Variant]:
        """Return the fault's variants at one call."""
        return list(self.variants(Site(graph, call, observed))) if call.op_type in self.operators else []


CATALOGUE: dict[str, Fault] = {}
"""Name → fault."""


def fault(name: str, *operators: str, source: str) -> Callable[[Variants], Variants]:
    """Register a fault; the first line of the function's docstring says what happens."""

    def register(variants: Variants) -> Variants:
        happens = (variants.__doc__ or "").strip().splitlines()[0]
        CATALOGUE[name] = Fault(name, operators, happens, source, variants)
        return variants

    return register
