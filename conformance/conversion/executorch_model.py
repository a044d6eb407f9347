"""ExecuTorch's ``.pte``, read by its own schema: the instructions of its only method, values and constants.

Source: github.com/pytorch/executorch, ``schema/program.fbs`` and ``schema/extended_header.cpp``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from conformance.conversion.flatbuffer import Content, Table, root, unpacked
from refimpl.errors import FileError, UnsupportedOperationError
from refimpl.ops.operation import Array

MAGIC, HEADER = b"ET12", b"eh00"
"""Stand at bytes 4 and 8."""
_SEGMENTS_AT = 24
"""Where the header says where the segments begin."""
DTYPES = {0: "u1", 1: "i1", 2: "i2", 3: "i4", 4: "i8", 5: "f2", 6: "f4", 7: "f8", 11: "?"}
"""``ScalarType`` → its numbers."""
TENSOR, TENSORS, _PLACES = 5, (10, 11), 7
"""Places in the union ``KernelTypes``."""
_PLAIN: dict[int, Any] = {
    1: lambda table: None,
    2: lambda table: table.whole(0, "q"),
    3: lambda table: bool(table.whole(0, "b")),
    4: lambda table: float(table.number(0, "d")),
    6: lambda table: table.text(0),
    7: lambda table: table.wholes(0, "i8"),
    8: lambda table: tuple(map(float, table.array(0, "f8"))),
    9: lambda table: tuple(map(bool, table.array(0, "u1"))),
    10: lambda table: table.wholes(0, "i4"),
    11: lambda table: table.wholes(0, "i4"),
}
DELEGATES = ("portable", "xnnpack", "xnnpack-whole")
"""Who computes: ExecuTorch's own kernels; XNNPACK, each operation alone; XNNPACK, fused as it can."""
_KERNEL, _DELEGATE, _JUMPS = 1, 2, (3, 4)
"""Places in the union ``InstructionArguments``."""
_SEGMENT = 1
"""``DataLocation`` of what lies behind the flatbuffer."""


@dataclass(frozen=True)
class ExecutorchTensor:
    """A tensor of the program.

    Attributes
    ----------
    shape, dtype
    order
        Its axes in the order in which they lie in memory.
    memory
        Where it lies as it runs: another that lay there before is the same in another shape, unless the
        instruction that makes it stands between; None: it has no fixed place.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: tuple[int, ...]
    memory: tuple[int, ...] | None = None

    @property
    def size(self) -> int:
        """Return how many bytes it takes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class ExecutorchCall:
    """One instruction.

    Attributes
    ----------
    kind
        The operator with its overload, ``aten::add.out``, or the delegate's name.
    arguments
        Places of values; of an operator the last is what it returns.
    delegated
        Whether a delegate computes it.
    part
        Of a delegate's call: which of the program's parts it is.
    """

    kind: str
    arguments: tuple[int, ...]
    delegated: bool = False
    part: int = 0


@dataclass(frozen=True)
class ExecutorchProgram:
    """The only method of a program.

    Attributes
    ----------
    calls
        Place of an instruction → what it calls, in order.
    tensors
        Place of a value → the tensor.
    lists
        Place → tensors by their places.
    constants
        Place → array.
    plain
        Place → number, text, or several.
    inputs
        Places, in order.
    outputs
        Name, as the program keeps it of its source → place, in order.
    places
        Places of those lists in ``plain`` that hold places of numbers.
    jumps
        How many instructions jump or move values: they are not among the calls.
    parts
        What delegates are handed, each a file of its own.
    named
        Key → constants that such files refer to.
    """

    calls: Mapping[int, ExecutorchCall]
    tensors: Mapping[int, ExecutorchTensor]
    lists: Mapping[int, tuple[int, ...]]
    constants: Mapping[int, Array]
    plain: Mapping[int, Any]
    inputs: Sequence[int]
    outputs: Mapping[str, int]
    places: frozenset[int] = frozenset()
    jumps: int = 0
    parts: Sequence[Content] = ()
    named: Mapping[str, Content] = field(default_factory=dict)

    def within(self, places: Iterable[int]) -> list[int]:
        """Return the tensors among values, those of lists too."""
        return [each for place in places for each in self.lists.get(place, (place,)) if each in self.tensors]

    @cached_property
    def made(self) -> dict[int, list[int]]:
        """Place of an instruction → the tensors that it makes."""
        return self._followed[0]

    @cached_property
    def shared(self) -> dict[int, int]:
        """Place of a tensor that no instruction makes → the one in whose memory it is another shape."""
        return self._followed[1]

    @cached_property
    def _followed(self) -> tuple[dict[int, list[int]], dict[int, int]]:
        known = {*self.inputs, *self.constants}
        lying = {self.tensors[place].memory: place for place in self.inputs}
        made: dict[int, list[int]] = {}
        shared: dict[int, int] = {}
        for number, call in self.calls.items():
            # What an operator returns stands last, what a delegate does behind its operands.
            made[number] = self.within(call.arguments[-1:])
            for place in self.within(call.arguments):
                base = lying.get(self.tensors[place].memory)
                if place in known or place in made[number]:
                    continue
                if call.delegated and (base is None or not self._reshaped(place, base)):
                    made[number].append(place)
                elif base is not None:
                    shared[place] = base
            known |= {*made[number]}
            lying |= {self.tensors[place].memory: place for place in made[number]}
        return made, shared | {
            place: lying[memory]
            for place in self.outputs.values()
            if place not in known and (memory := self.tensors[place].memory) in lying
        }

    def _reshaped(self, place: int, other: int) -> bool:
        one, base = self.tensors[place], self.tensors[other]
        return one.size == base.size and one.shape != base.shape

    @cached_property
    def names(self) -> dict[int, str]:
        """Place of a tensor → a name: the file has none."""
        names = {place: f"constant_{place}" for place in self.constants}
        names |= {place: f"input_{number}" for number, place in enumerate(self.inputs)}
        for number, places in self.made.items():
            for count, place in enumerate(places):
                names[place] = f"{self.calls[number].kind}_{number}" + (f":{count}" if count else "")
        return names | {place: names[base] for place, base in self.shared.items()}


def read_executorch(path: Path) -> ExecutorchProgram:
    """Return the method of a ``.pte``.

    Raises
    ------
    FileError
        The file is missing, of another runtime, cut off or malformed.
    UnsupportedOperationError
        It has several methods or chains, or its constants lie in another file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from error
    if content[4:8] != MAGIC:
        raise FileError(
            f"{path}: bytes 4 to 8 are {content[4:8]!r}, not {MAGIC!r}: it is no program of ExecuTorch"
        )
    try:
        return _read(content, root(content))
    except UnsupportedOperationError as error:
        raise UnsupportedOperationError(f"{path}: {error}") from error
    except (FileError, ValueError, IndexError, KeyError) as error:
        raise FileError(f"{path}: {str(error)[:120]}") from error


def _read(content: bytes, program: Table) -> ExecutorchProgram:
    plans = program.tables(1)
    if len(plans) != 1 or len(plans[0].tables(5)) != 1:
        raise UnsupportedOperationError(f"it has {len(plans)} methods; expected one, of one chain")
    (plan,) = plans
    values = [(value.whole(0, "B"), value.table(1)) for value in plan.tables(2)]
    held = {place: table for place, (kind, table) in enumerate(values) if kind == TENSOR and table}
    plain = {
        place: _PLAIN[kind](table) for place, (kind, table) in enumerate(values) if kind in _PLAIN and table
    }
    tensors = {place: _tensor(table) for place, table in held.items()}
    buffers = _Buffers(content, program)
    return ExecutorchProgram(
        _calls(plan),
        tensors,
        {place: plain[place] for place, (kind, _) in enumerate(values) if kind in TENSORS},
        {
            place: buffers.array(table.whole(5, "I"), tensors[place])
            for place, table in held.items()
            if table.whole(5, "I") and table.table(6) is None
        },
        plain,
        plan.wholes(3),
        _outputs(plan),
        frozenset(place for place, (kind, _) in enumerate(values) if kind == _PLACES),
        sum(each.whole(0, "B") in _JUMPS for each in plan.tables(5)[0].tables(2)),
        [buffers.part(each.table(1), program) for each in plan.tables(7)],
        {each.text(0): buffers.segment_of(each.whole(1, "I")) for each in program.tables(7)},
    )


def _outputs(plan: Table) -> dict[str, int]:
    """Return the outputs by their names in what the source returned, if it returned them by name."""
    places, said = plan.wholes(4), plan.table(1)
    names = [f"output_{number}" for number in range(len(places))]
    try:
        held = json.loads(said.text(1))[1] if said else {}
        listed = json.loads(held["context"]) if held.get("type") == "builtins.dict" else names
    except (ValueError, LookupError, TypeError):
        listed = names
    return dict(zip(map(str, listed) if len(listed) == len(places) else names, places, strict=True))


def _calls(plan: Table) -> dict[int, ExecutorchCall]:
    operators = [".".join(filter(None, (each.text(0), each.text(1)))) for each in plan.tables(6)]
    delegates = [each.text(0) for each in plan.tables(7)]
    calls = {}
    for number, instruction in enumerate(plan.tables(5)[0].tables(2)):
        kind, said = instruction.whole(0, "B"), instruction.table(1)
        if kind in (_KERNEL, _DELEGATE) and said is not None:
            names = operators if kind == _KERNEL else delegates
            which = said.whole(0)
            calls[number] = ExecutorchCall(names[which], said.wholes(1), kind == _DELEGATE, which)
    return calls


def _tensor(table: Table) -> ExecutorchTensor:
    kind = table.whole(0, "b")
    if kind not in DTYPES:
        raise UnsupportedOperationError(f"numbers of ScalarType {kind} are not read")
    return ExecutorchTensor(table.wholes(2), np.dtype(DTYPES[kind]), table.wholes(3, "u1"), _memory(table))


def _memory(table: Table) -> tuple[int, ...] | None:
    place = table.table(6)
    return None if place is None else tuple(place.whole(each, "I") for each in range(3))


class _Buffers:
    """Where constants, and what delegates are handed, lie: in segments behind the flatbuffer."""

    def __init__(self, content: bytes, program: Table) -> None:
        self.content = content
        self.segments = [(each.whole(0, "Q"), each.whole(1, "Q")) for each in program.tables(4)]
        where = program.table(5)
        self.segment = where.whole(0, "I") if where else 0
        self.offsets = where.wholes(1, "u8") if where else ()
        begins = content[8:12] == HEADER
        self.base = int(unpacked(content, _SEGMENTS_AT, "Q")) if begins else 0
        end = max((self.base + sum(each) for each in self.segments), default=0)
        if end > len(content):
            raise FileError(f"its segments end at byte {end}, it has {len(content)}: cut off or malformed")

    def segment_of(self, number: int) -> Content:
        """Return a segment, not copied: several names may be given to one."""
        begin, size = self.segments[number]
        return memoryview(self.content)[self.base + begin : self.base + begin + size]

    def part(self, where: Table | None, program: Table) -> Content:
        """Return what a delegate is handed: a segment, or bytes within the flatbuffer."""
        if where is None:
            raise FileError("a delegate is handed nothing: malformed")
        number = where.whole(1, "I")
        if where.whole(0, "b") == _SEGMENT:
            return self.segment_of(number)
        return program.tables(3)[number].array(0, "u1").data

    def array(self, number: int, tensor: ExecutorchTensor) -> Array:
        """Return a constant, its axes in their order."""
        if not self.offsets:
            raise UnsupportedOperationError("its constants lie in no segment of this file")
        begin = self.base + self.segments[self.segment][0] + self.offsets[number]
        if begin + tensor.size > len(self.content):
            raise FileError(f"constant {number} lies outside of the file: cut off or malformed")
        flat = np.frombuffer(self.content, tensor.dtype, math.prod(tensor.shape), begin)
        return laid_out(flat, tensor.shape, tensor.order)


def laid_out(flat: Array, shape: Sequence[int], order: Sequence[int]) -> Array:
    """Return numbers as they lie in memory in their shape."""
    stored = flat.reshape([shape[axis] for axis in order])
    return np.ascontiguousarray(stored.transpose(np.argsort(order))) if len(shape) else stored.reshape(())
