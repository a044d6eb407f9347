"""ExecuTorch (extra ``executorch``): a ``.pte``, every instruction's results captured by its event dump."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from conformance.bounds import (
    EXECUTORCH,
    EXECUTORCH_DYNAMIC,
    EXECUTORCH_PORTABLE_DYNAMIC,
    FLOAT32,
    INT8,
    Declaration,
)
from conformance.candidates.arrays import Given
from conformance.candidates.candidate import OwnGraph
from conformance.candidates.far_side import Executorch
from conformance.candidates.phone_runtime import (
    DYNAMIC,
    STATIC,
    THREADS,
    PhoneCandidate,
    PhoneRuntime,
    RuntimeOption,
)
from conformance.conversion.executorch_graph import XNNPACK, stored_in_executorch
from conformance.conversion.executorch_model import (
    DELEGATES,
    DTYPES,
    ExecutorchTensor,
    laid_out,
    read_executorch,
)
from conformance.conversion.flatbuffer import Table, root
from conformance.conversion.stored_weight import StoredWeight
from refimpl.errors import CandidateError, ConfigurationError, FileError, ShapeError
from refimpl.graph import Graph, Node
from refimpl.ops.operation import Array

_CHOOSES = "quantized_decomposed::choose_qparams"
"""The instruction that finds the scale of what it is given."""
OPTIONS = (
    THREADS,
    RuntimeOption(
        "delegate",
        "portable",
        "who computes: ExecuTorch's own kernels; XNNPACK, each operation alone; XNNPACK as it fuses them",
        DELEGATES,
    ),
    RuntimeOption(
        "weights",
        "float32",
        "of the file; int8-dynamic: what they are multiplied by is made integers, too; "
        "int8-static: all is of integers, with --graph-only",
        ("float32", DYNAMIC, STATIC),
    ),
)
_EVENTS, _DEBUG = 3, 2
"""Places of a run's events, and of what an event shows, in ``etdump_schema_flatcc.fbs``."""
_OUTPUT = 7
"""Where a value says that it is one of the program's outputs."""
_PADDING, _ROOM = 64, 2**20
"""Bytes that the event dump may leave between two tensors, and at the end."""


class ExecutorchCandidate(PhoneCandidate):
    """A program in ExecuTorch.

    Parameters and errors as of `PhoneCandidate`; a file that is cut off is a `FileError`, one that is not
    delegated as declared a `ConfigurationError`.
    """

    def check_files(self, files: Sequence[Path]) -> None:
        """Read the program: what is malformed may end the process."""
        super().check_files(files)
        self.program = read_executorch(files[0])
        self.delegate = self.settings.values["delegate"]
        given = {call.kind for call in self.program.calls.values() if call.delegated}
        wanted = set() if self.delegate == "portable" else {XNNPACK}
        if given - wanted:
            raise ConfigurationError(
                f"{files[0]} hands instructions to {', '.join(sorted(given))}: declare it, delegate=xnnpack, "
                "or convert it for another delegate"
            )
        if wanted - given:
            raise ConfigurationError(
                f"{files[0]} hands nothing to XNNPACK, which delegate={self.delegate} declares"
            )
        self.check_integers(self._integers)

    @property
    def _integers(self) -> str:
        """The weights that the program should be declared to have, if of integers."""
        chosen = any(call.kind.startswith(_CHOOSES) for call in self.program.calls.values())
        if not chosen and any(each.dtype == np.int8 for each in self._computed):
            return STATIC
        held = stored_in_executorch(self.program)
        return DYNAMIC if chosen or any(each.scale is not None for each in held) else ""

    @property
    def stored(self) -> Iterable[StoredWeight]:
        """The constants of the program."""
        if self.settings.values["weights"] != DYNAMIC:
            return ()
        floats = (array for array in self.program.constants.values() if array.dtype == np.float32)
        return [*stored_in_executorch(self.program), *map(StoredWeight, floats)]

    @property
    def _computed(self) -> Iterator[ExecutorchTensor]:
        """The tensors that instructions make."""
        return (self.program.tensors[each] for made in self.program.made.values() for each in made)

    @property
    def said(self) -> dict[str, Any]:
        """Threads, the outputs' names, how much the event dump may hold, and whether it is of integers."""
        # The outputs are shown once more at the end.
        places = [*itertools.chain.from_iterable(self._shown.values()), *self.program.outputs.values()]
        room = sum(self.program.tensors[place].size + _PADDING for place in places) + _ROOM
        integers = self.settings.values["weights"] != "float32"
        outputs = [*self.program.outputs]
        return {"threads": self.settings.threads, "outputs": outputs, "room": room, "integers": integers}

    @property
    def declaration(self) -> Declaration:
        """Float32 arithmetic and tensors; weights as declared."""
        if self.settings.values["weights"] != DYNAMIC:
            return Declaration(FLOAT32, FLOAT32, EXECUTORCH)
        runtime = EXECUTORCH_PORTABLE_DYNAMIC if self.delegate == "portable" else EXECUTORCH_DYNAMIC
        return Declaration(FLOAT32, FLOAT32, runtime, INT8, self.read)

    @property
    def captures_all(self) -> bool:
        """Whether each operation is an instruction of its own."""
        return self.delegate != "xnnpack-whole"

    def fed(self, images: Given) -> Array:
        """Return what the program is given; raise `ShapeError` if it does not fit."""
        array = super().fed(images)
        if len(self.program.inputs) != 1:
            raise CandidateError(f"the program has {len(self.program.inputs)} inputs; expected one")
        wanted = self.program.tensors[self.program.inputs[0]].shape
        if wanted != array.shape:
            raise ShapeError(f"{self.settings.model} takes {wanted}, but the input given has {array.shape}")
        return array

    def capture(self, images: Given) -> dict[str, Array]:
        """Return every instruction's results, and the outputs."""
        found = super().capture(images)
        events, numbers = (found.pop(name).tobytes() for name in Executorch.dump)
        try:
            # A length stands before the flatbuffer.
            return self._tensors(root(events[4:]), numbers) | found
        except (FileError, ValueError, KeyError) as error:
            raise CandidateError(f"ExecuTorch's event dump is malformed: {str(error)[:100]}") from error

    def own_graph(self, images: Given) -> OwnGraph:
        """Return its instructions; results of the same name as those captured."""
        program = self.program
        nodes = []
        for number, call in program.calls.items():
            made = program.made[number]
            operands = [place for place in program.within(call.arguments) if place not in made]
            nodes.append(Node(f"{call.kind}_{number}", call.kind, self._named(operands), self._named(made)))
        return OwnGraph(Graph(nodes))

    def _named(self, places: Iterable[int]) -> tuple[str, ...]:
        return tuple(self.program.names[place] for place in dict.fromkeys(places))

    @property
    def _shown(self) -> dict[int, list[int]]:
        """Place of an instruction → the tensors of its events, in order."""
        return {
            number: self.program.within(call.arguments if call.delegated else call.arguments[-1:])
            for number, call in self.program.calls.items()
        }

    def _tensors(self, dump: Table, numbers: bytes) -> dict[str, Array]:
        """Return what the events show, by the names of the values."""
        shown: dict[int, list[Array]] = {}
        for run in dump.tables(1):
            for event in run.tables(_EVENTS):
                debug = event.table(_DEBUG)
                if debug is not None:
                    shown.setdefault(debug.whole(1, default=-1), []).extend(_values(debug, numbers))
        found: dict[str, Array] = {}
        for number, places in self._shown.items():
            for place, array in zip(places, shown.get(number, []), strict=True):
                if place in self.program.made[number] and array.size:
                    found[self.program.names[place]] = array
        return found


def _values(debug: Table, numbers: bytes) -> Iterator[Array]:
    """Yield the tensors of an event."""
    value = debug.table(2)
    if value is not None and value.table(_OUTPUT) is not None:
        return  # the program's outputs, once more
    single, several = (value.table(1), value.table(2)) if value is not None else (None, None)
    for tensor in [*([single] if single else []), *(several.tables(0) if several else [])]:
        shape, strides = tensor.wholes(1, "i8"), tensor.wholes(2, "i8")
        count = math.prod(shape)
        begin = tensor.whole(3, "q") if count else 0
        flat = np.frombuffer(numbers, DTYPES[tensor.whole(0, "b")], count, begin)
        yield laid_out(flat, shape, sorted(range(len(shape)), key=lambda axis: -strides[axis]))


WAYS = (
    "delegate=portable",
    "delegate=xnnpack",
    f"weights={DYNAMIC}",
    f"delegate=xnnpack,weights={DYNAMIC}",
)
EXECUTORCH_RUNTIME = PhoneRuntime("executorch", "executorch", ".pte", OPTIONS, ExecutorchCandidate, WAYS)
