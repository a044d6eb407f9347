"""Recording a forward pass: every operation with its name, inputs, attributes and output.

The layer table, the multiply–accumulates and the ONNX export are all read from a `Recording`, so the
network is described once.
"""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeVar, cast

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from refimpl.errors import UnrecordedComputationError
from refimpl.graph import Graph, Node
from refimpl.ops.operation import OPERATIONS, TRAITS, Array, Trait, intercepted

R = TypeVar("R")


def _refuse(self: Any, *_: Any, **__: Any) -> Any:
    raise UnrecordedComputationError(
        f"a tensor of shape {self.shape} was computed with outside refimpl.ops while recording; "
        "use an operation of the vocabulary instead"
    )


class RecordedArray(NDArrayOperatorsMixin):
    """A recorded tensor: its shape and dtype may be read, all else is for the vocabulary.

    Deliberately no subclass of ``np.ndarray``: from one, indexing, methods and ``np.asarray`` get at plain
    numbers, which would enter the recording as literals.

    Attributes
    ----------
    tensor
        Its number in the recording.
    shape, dtype, ndim, size
        As of an array.
    """

    def __init__(self, values: Array, tensor: int) -> None:
        self._values = values
        self.tensor = tensor
        self.shape, self.dtype, self.ndim, self.size = values.shape, values.dtype, values.ndim, values.size

    def view(self, kind: type[np.ndarray[Any, Any]]) -> Array:
        """Return the values, for checks that nothing is computed from; the next operation refuses them."""
        return self._values.view(kind)

    def __len__(self) -> int:
        """Return the length of the first axis."""
        return int(self.shape[0])

    def __getattr__(self, name: str) -> Any:
        """Refuse every method of an array; Python's and NumPy's own probing finds nothing."""
        if name.startswith("__"):
            raise AttributeError(name)
        return _refuse(self)

    __array__ = __array_ufunc__ = __array_function__ = _refuse
    __getitem__ = __setitem__ = __delitem__ = __iter__ = __contains__ = _refuse
    __bool__ = __int__ = __float__ = __complex__ = __index__ = __round__ = _refuse


@dataclass(frozen=True)
class Step(Node):
    """One recorded operation, named by the path of its block and the operator: ``….stem.0/Conv``.

    Attributes
    ----------
    block
        Path of the innermost block it runs in.
    """

    block: str = ""

    @property
    def operation(self) -> str:
        """The ONNX operator's name."""
        return self.op_type


@dataclass(frozen=True)
class Recording:
    """A forward pass written down: a graph, and every tensor of one run of it.

    Attributes
    ----------
    steps
        The operations in the order they ran.
    tensors
        Every tensor by name: inputs, weights, constants and results.
    inputs, outputs
        Name given by the caller, or field of the result → name of the tensor.
    weights
        Names of the weights used, in order of use.
    constants
        Names of the tensors that are literals of the code (shapes, bounds, position embeddings).
    blocks
        Path of a block → name of the tensor it returned. A tensor that several nested blocks return bears
        the innermost path.
    """

    steps: Sequence[Step] = ()
    tensors: dict[str, Array] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    weights: list[str] = field(default_factory=list)
    constants: list[str] = field(default_factory=list)
    blocks: dict[str, str] = field(default_factory=dict)

    @cached_property
    def graph(self) -> Graph:
        """What was computed, without the results."""
        given = {name: self.tensors[name] for name in (*self.weights, *self.constants)}
        return Graph(self.steps, given, self.inputs, self.outputs)

    def results(self) -> Iterator[tuple[Step, str]]:
        """Yield each step with the name of each tensor it produced."""
        for step in self.steps:
            for name in step.outputs:
                yield step, name


@dataclass
class _Call:
    operation: str
    block: str
    inputs: tuple[int | None, ...]
    outputs: tuple[int, ...]
    attributes: dict[str, Any]


class _Recorder:
    """The interceptor that writes a forward pass down.

    Tensors are numbers until the end, when blocks have named them.
    """

    def __init__(
        self, weights: Mapping[str, Array] | None, operations: Mapping[str, Callable[..., Any]]
    ) -> None:
        self.operations = operations
        self.takes_literals = weights is None
        weights = weights or {}
        self.values: list[Array] = []
        self.names: dict[int, str] = {}
        self.calls: list[_Call] = []
        self.blocks: dict[str, int] = {}
        self.constants: list[int] = []
        self.weights = {id(array): name for name, array in weights.items()}
        self.alive = list(weights.values())  # an id is only good while its array lives
        self.weight_tensors: dict[int, int] = {}
        self.path = ""

    def wrap(self, value: Array) -> RecordedArray:
        """Give an array its number."""
        values = np.asarray(value).view()
        values.flags.writeable = False
        return RecordedArray(values, self._add(values))

    def _add(self, value: Array) -> int:
        self.values.append(value)
        return len(self.values) - 1

    def call(self, name: str, inputs: tuple[Any, ...], attributes: dict[str, Any]) -> Any:
        """Compute an operation and note it."""
        _check_keywords(name, attributes)
        operands, numbers = self._operands(name, inputs)
        result = self.operations[name](*operands, **attributes)
        several = isinstance(result, tuple)
        wrapped = tuple(self.wrap(item) for item in (result if several else (result,)))
        if name == "Constant":
            self.constants.append(self._number(wrapped[0], name))
        else:
            outputs = tuple(self._number(item, name) for item in wrapped)
            self.calls.append(_Call(name, self.path, numbers, outputs, attributes))
        return wrapped if several else wrapped[0]

    def _operands(self, name: str, inputs: tuple[Any, ...]) -> tuple[list[Any], tuple[int | None, ...]]:
        # ONNX's Concat takes its tensors as separate inputs, as every operation here does.
        plain = [item.view(np.ndarray) if isinstance(item, RecordedArray) else item for item in inputs]
        dtype = _tensor_dtype(name, plain)
        numbers = tuple(None if item is None else self._number(item, name, dtype) for item in inputs)
        return plain, numbers

    def _number(self, item: Any, operation: str, dtype: np.dtype[Any] | None = None) -> int:
        if isinstance(item, RecordedArray):
            return item.tensor
        if isinstance(item, np.ndarray | np.generic):
            return self._weight_number(item, operation)
        self.constants.append(self._add(_literal(item, operation, dtype)))
        return self.constants[-1]

    def _weight_number(self, array: Any, operation: str) -> int:
        if id(array) not in self.weights and not self.takes_literals:
            raise UnrecordedComputationError(
                f"{operation} in block {self.path or '(top)'} was given an array of shape {array.shape} that "
                "no recorded operation produced; compute it with refimpl.ops, or declare it with "
                "ops.constant(value=...)"
            )
        if id(array) not in self.weight_tensors:
            number = self._add(array)
            self.weight_tensors[id(array)] = number
            if self.takes_literals:
                self.constants.append(number)
            else:
                self.names[number] = self.weights[id(array)]
        return self.weight_tensors[id(array)]

    def block(self, path: str, compute: Callable[[], R]) -> R:
        """Run a block under its path, and name its result after it."""
        outer, self.path = self.path, path
        try:
            result = compute()
        finally:
            self.path = outer
        # A unit that calls another at its own path (convolution, then ReLU) is one block.
        if isinstance(result, RecordedArray) and path != outer:
            number = self._number(result, "the result")
            path = _unused(path, self.blocks)
            self.blocks[path] = number
            self.names.setdefault(number, path)
        return result

    def recording(self, inputs: dict[str, int], outputs: dict[str, int]) -> Recording:
        """Name every tensor and return the whole."""
        for name, number in inputs.items():
            self.names[number] = name
        taken = set(self.names.values())
        steps = []
        counts: Counter[str] = Counter()
        for call in self.calls:
            label = f"{call.block}/{call.operation}".lstrip("/")
            counts[label] += 1
            label = label if counts[label] == 1 else f"{label}_{counts[label]}"
            for place, number in enumerate(call.outputs):
                self._name(number, label if len(call.outputs) == 1 else f"{label}:{place}", taken)
            for place, operand in enumerate(call.inputs):
                if operand is not None:
                    self._name(operand, f"{label}/literal_{place}", taken)
            steps.append((label, call))
        return self._assemble(steps, inputs, outputs)

    def _name(self, number: int, proposal: str, taken: set[str]) -> None:
        if number not in self.names:
            self.names[number] = _unused(proposal, taken)
            taken.add(self.names[number])

    def _assemble(
        self, steps: list[tuple[str, _Call]], inputs: dict[str, int], outputs: dict[str, int]
    ) -> Recording:
        def named(numbers: tuple[int | None, ...]) -> tuple[str, ...]:
            return tuple("" if number is None else self.names[number] for number in numbers)

        def step(label: str, call: _Call) -> Step:
            names = named(call.inputs), named(call.outputs)
            return Step(label, call.operation, *names, call.attributes, call.block)

        return Recording(
            steps=[step(label, call) for label, call in steps],
            tensors={
                self.names[number]: value for number, value in enumerate(self.values) if number in self.names
            },
            inputs={name: self.names[number] for name, number in inputs.items()},
            outputs={name: self.names[number] for name, number in outputs.items()},
            weights=[] if self.takes_literals else [self.names[n] for n in self.weight_tensors.values()],
            constants=[self.names[number] for number in self.constants if number in self.names],
            blocks={path: self.names[number] for path, number in self.blocks.items()},
        )


def _check_keywords(operation: str, attributes: dict[str, Any]) -> None:
    """Raise unless every keyword is an attribute: an input given by name would not be recorded as one."""
    inputs = attributes.keys() - _attribute_names(operation)
    if inputs:
        raise UnrecordedComputationError(
            f"{operation} was given {', '.join(sorted(inputs))} by keyword; "
            "give ONNX inputs by position, attributes by keyword"
        )


@functools.cache
def _attribute_names(operation: str) -> frozenset[str]:
    parameters = inspect.signature(OPERATIONS[operation]).parameters.values()
    return frozenset(parameter.name for parameter in parameters if parameter.kind == parameter.KEYWORD_ONLY)


def _tensor_dtype(operation: str, operands: list[Any]) -> np.dtype[Any] | None:
    """Return the dtype of the first tensor; of Where, the first beside the condition."""
    values = operands[1:] if operation == "Where" else operands
    return next((item.dtype for item in values if isinstance(item, np.ndarray)), None)


def _literal(item: Any, operation: str, dtype: np.dtype[Any] | None) -> Array:
    """Return a Python number or sequence as the array that ONNX wants in its place."""
    literal = np.asarray(item)
    if literal.dtype.kind not in "if":
        return literal
    # Whole numbers given to others are indices or sizes.
    if Trait.ELEMENTWISE in TRAITS.get(operation, Trait(0)) or (operation == "Pad" and literal.ndim == 0):
        return literal if dtype is None else literal.astype(dtype)
    if literal.dtype.kind == "i":
        return literal.astype(np.int64)
    if operation == "Resize":
        return literal.astype(np.float32)  # scales are float32 whatever the tensor is
    return literal.astype(dtype) if dtype is not None and dtype.kind == "f" else literal


def _unused(name: str, taken: Any) -> str:
    number, candidate = 1, name
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    return candidate


class RecordableModel(Protocol):
    """What `record` needs of a model: its weights, and a call that returns a dataclass-like result."""

    @property
    def weights(self) -> Mapping[str, Array]:
        """Name → array."""

    def __call__(self, images: Array) -> Any:
        """Compute the outputs; the result has a method ``items()`` or is a mapping of names to tensors."""


def record(
    model: RecordableModel,
    images: Array,
    input_name: str = "images",
    operations: Mapping[str, Callable[..., Any]] = OPERATIONS,
) -> Recording:
    """Run a model and return every operation it did.

    Parameters
    ----------
    model
        A `refimpl.MobileInst`, or anything with ``weights`` that returns a mapping of named tensors.
    images
        The network's input, (B, 3, H, W).
    input_name
        The name of the input in the recording.
    operations
        Operator → the function that computes it.

    Raises
    ------
    UnrecordedComputationError
        The model computed something outside `refimpl.ops`.
    """
    images = images.astype(next(iter(model.weights.values())).dtype, copy=False)
    return record_call(
        lambda inputs: model(inputs[input_name]), {input_name: images}, model.weights, operations
    )


def record_call(
    compute: Callable[[dict[str, Array]], Any],
    inputs: Mapping[str, Array],
    weights: Mapping[str, Array] | None = None,
    operations: Mapping[str, Callable[..., Any]] = OPERATIONS,
) -> Recording:
    """Call a function of named tensors and return every operation it did.

    Parameters
    ----------
    compute
        Takes the inputs by name and returns a mapping of named tensors, or what has ``items()``.
    inputs
        Name → array; the names are also those of the tensors.
    weights
        The arrays that operations may be given besides. None: any array that no operation made is a literal.
    operations
        Operator → the function that computes it.

    Raises
    ------
    UnrecordedComputationError
        Something is computed outside `refimpl.ops`.
    """
    recorder = _Recorder(weights, operations)
    with intercepted(recorder):
        sources = {name: recorder.wrap(array) for name, array in inputs.items()}
        outputs = dict(compute(cast(dict[str, Array], sources)).items())
    numbers = {name: recorder._number(value, f"output {name}") for name, value in outputs.items()}
    return recorder.recording({name: source.tensor for name, source in sources.items()}, numbers)
