"""What the phones' runtimes share as candidates: options by name, a model file, an import that may fail.

Each is a module here that defines a `PhoneRuntime`, a class in `conformance.candidates.far_side`, and a line
in `conformance.candidates.kinds`. It runs in a process of its own, under any interpreter.
"""

from __future__ import annotations

import importlib.util
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from conformance.bounds import Declaration
from conformance.candidates.arrays import Given, operands_of
from conformance.candidates.candidate import Candidate, OwnGraph
from conformance.candidates.child_process import STARTING
from conformance.candidates.far_process import OWN, FarProcess, Opening
from conformance.conversion.meanings import MEANINGS
from conformance.conversion.stored_weight import StoredWeight
from conformance.graph.onnx_graph import OnnxGraph
from conformance.json_files import read_json
from conformance.named_values import values_in
from refimpl.errors import ConfigurationError, FileError, MissingDependencyError, ShapeError
from refimpl.graph import Graph, Node
from refimpl.ops.operation import Array


@dataclass(frozen=True)
class RuntimeOption:
    """One option of a runtime.

    Attributes
    ----------
    name
    default
        What it is where it is not given.
    says
        What it does, for ``--candidate NAME:help``.
    values
        What it may be; none: a whole number from 1 on.
    """

    name: str
    default: str
    says: str
    values: tuple[str, ...] = ()

    def check(self, value: str) -> None:
        """Raise `ConfigurationError` unless it may be this."""
        fits = value in self.values if self.values else value.isdecimal() and 1 <= int(value) <= MOST_THREADS
        if not fits:
            wanted = ", ".join(self.values) or f"a number from 1 to {MOST_THREADS}"
            raise ConfigurationError(f"{self.name}={value}: expected {wanted}")


MOST_THREADS = 1024
ARM = ("aarch64", "arm64")
"""How an Arm chip of 64 bits names itself."""
RECORD = ".conversion.json"
"""What `mobileinst convert` writes beside a model: from what, by what, for which shapes."""
_SCHEMA = {
    "type": "object",
    "properties": {"inputs": {"type": "object", "additionalProperties": {"type": ["array", "null"]}}},
    "required": ["inputs"],
}
SWITCH = ("on", "off")
STATIC = "int8-static"
"""Weights of integers, of a model that computes in integers throughout: another than the network."""
DYNAMIC = "int8-dynamic"
"""Weights of integers, and what they are multiplied by made integers as it runs."""
THREADS = RuntimeOption("threads", "1", "threads within an operator")


@dataclass(frozen=True)
class Settings:
    """The model and what is asked of its runtime."""

    model: Path
    values: Mapping[str, str]

    @property
    def threads(self) -> int:
        """Return how many threads."""
        return int(self.values["threads"])

    def check_shape(self, images: Array) -> None:
        """Refuse pictures of another shape than the model was converted for, where a record tells.

        Raises
        ------
        ShapeError
            They are: some runtimes would read beyond their memory.
        """
        for wanted in self.shapes.values():
            if (
                wanted is not None
                and list(images.shape) != wanted
                and all(isinstance(n, int) for n in wanted)
            ):
                raise ShapeError(
                    f"{self.model} was converted for pictures {tuple(wanted)}, but the input given has "
                    f"{images.shape}; give --size {wanted[-2]}x{wanted[-1]}"
                )

    @property
    def shapes(self) -> dict[str, list[int | str] | None]:
        """What a record beside the model tells of its inputs; without one, nothing."""
        record = self.model.with_suffix(RECORD)
        return dict(read_json(record, _SCHEMA)["inputs"]) if record.is_file() else {}

    def is_on(self, name: str) -> bool:
        """Tell whether an option is ``on``."""
        return self.values[name] == "on"


class PhoneCandidate(Candidate):
    """A model in a runtime's process.

    Parameters
    ----------
    runtime
    settings
        The model and the options.
    interpreter, timeout
        As of `FarProcess`.

    Raises
    ------
    MobileInstError
        As of `FarProcess.open`; what else the files lack.
    """

    fusion_reach = 8
    """A whole attention may be one layer: eight steps of ours."""
    suffixes: ClassVar[Sequence[str]] = ()
    """Of the files that belong to the model beside the one that names it."""
    read: tuple[tuple[str, int, int], ...] = ()
    """What the truth is computed with as the file has it, as of `Declaration`."""

    def __init__(
        self, runtime: PhoneRuntime, settings: Settings, interpreter: Sequence[str], timeout: float
    ) -> None:
        self.settings = settings
        files = [settings.model, *(settings.model.with_suffix(suffix) for suffix in self.suffixes)]
        self.check_files(files)
        opening = Opening(runtime.name, runtime.package, files, self.said)
        self.process = FarProcess(opening, interpreter, timeout)
        self.known = self.process.open()
        self.nodes: Sequence[Any] = self.known["nodes"]
        self.check_chip()

    @property
    @abstractmethod
    def said(self) -> Mapping[str, Any]:
        """What the runtime is told."""

    @property
    @abstractmethod
    def declaration(self) -> Declaration:
        """The arithmetic it is judged by."""

    @property
    def stored(self) -> Iterable[StoredWeight]:
        """The file's constants, where some are integers, and the file can be read."""
        return ()

    @property
    def version(self) -> str:
        """Of the runtime, where it runs."""
        return str(self.known["version"])

    def check_files(self, files: Sequence[Path]) -> None:
        """Raise `FileError` unless they are there."""
        for path in files:
            if not path.is_file():
                raise FileError(f"{path}: there is no such file; {files[0].name} needs it")

    def check_integers(self, held: str) -> None:
        """Raise `ConfigurationError` unless weights of integers are declared as the model holds them."""
        model, said = self.settings.model.name, self.settings.values["weights"]
        if held and said != held:
            raise ConfigurationError(f"{model} has weights of {held}: declare weights={held}")
        if not held and said.startswith("int8"):
            raise ConfigurationError(
                f"{model} has no weights of {said}, which weights={said} declares; "
                f"convert it by --precision {said}"
            )

    def check_chip(self) -> None:
        """Raise `ConfigurationError` if the chip there does not compute as it is told."""

    def fed(self, images: Given) -> Array:
        """Return what the runtime is given; raise `ShapeError` if it does not fit."""
        array = only_array(images)
        self.settings.check_shape(array)
        return array

    def run(self, images: Given) -> dict[str, Array]:
        """Return the outputs, as users run it."""
        return self._asked("run", images)

    def capture(self, images: Given) -> dict[str, Array]:
        """Return every tensor that can be had, in the order in which they are made."""
        return self._asked("capture", images)

    def own_graph(self, images: Given) -> OwnGraph:
        """Return its operations, as far as it tells."""
        return OwnGraph(
            Graph([Node(name, kind, tuple(given), tuple(made)) for name, kind, given, made in self.nodes])
        )

    @property
    def is_on_arm(self) -> bool:
        """Whether it runs on an Arm chip of 64 bits."""
        return self.known["machine"] in ARM

    def meaning(self, images: Given, outputs: int) -> OnnxGraph:
        """Return the graph that the model's file means, of so many outputs, for pictures of this shape.

        Raises
        ------
        MobileInstError
            It cannot be read so.
        """
        names = [f"output {place}" for place in range(outputs)]
        meaning = MEANINGS[self.settings.model.suffix]
        return OnnxGraph.load(meaning(self.settings.model, {"images": only_array(images).shape}, names))

    def close(self) -> None:
        """End the process."""
        self.process.close()

    def _asked(self, method: str, images: Given) -> dict[str, Array]:
        said, arrays = self.process.ask(method, {"images": self.fed(images)})
        self.nodes = said["nodes"]
        return arrays


@dataclass(frozen=True)
class PhoneRuntime:
    """A runtime that people ship: one module describes it.

    Attributes
    ----------
    name
        The candidate's, and that of the extra that installs it.
    package
        What is imported.
    suffix
        Of its model files.
    options
    make
        Its candidates' class.
    ways
        The options under which `mobileinst matrix` judges it.
    """

    name: str
    package: str
    suffix: str
    options: Sequence[RuntimeOption]
    make: type[PhoneCandidate]
    ways: Sequence[str] = ("",)

    @property
    def is_installed(self) -> bool:
        """Whether its package can be imported."""
        return importlib.util.find_spec(self.package) is not None

    def candidate(
        self, text: str, interpreter: Sequence[str] = (), timeout: float | None = None
    ) -> PhoneCandidate:
        """Return the candidate that ``MODEL,name=value,…`` stands for.

        Parameters
        ----------
        text
        interpreter
            The words that start the Python in which the runtime is installed; none: this one.
        timeout
            Seconds that a run may take.

        Raises
        ------
        ConfigurationError, FileError
            An option is unknown or may not be that; the model is not there.
        MissingDependencyError
            The runtime is not installed.
        MobileInstError
            As of `PhoneCandidate`.
        """
        settings = self.settings(text)
        if tuple(interpreter) in ((), OWN) and not self.is_installed:
            raise MissingDependencyError(
                f"{self.package} is not installed: pip install 'mobileinst-reference[{self.name}]'"
            )
        return self.make(self, settings, interpreter, timeout or STARTING)

    def names_model(self, text: str) -> bool:
        """Tell whether the text begins with a model, not with an option."""
        return not self._is_option(text.partition(",")[0])

    def _is_option(self, word: str) -> bool:
        return not word or word.partition("=")[0] in {option.name for option in self.options}

    def settings(self, text: str) -> Settings:
        """Return what ``MODEL,name=value,…`` says; errors as of `candidate`."""
        path, *pairs = text.split(",")
        given = values_in(pairs, f"--candidate {self.name}")
        known = {option.name: option for option in self.options}
        unknown = [name for name in given if name not in known]
        if unknown:
            raise ConfigurationError(
                f"--candidate {self.name}: there is no option {', '.join(unknown)}; known: {', '.join(known)}"
            )
        for name, value in given.items():
            known[name].check(value)
        if not path.endswith(self.suffix):
            raise ConfigurationError(
                f"--candidate {self.name}:MODEL{self.suffix} names the model, or MODEL.onnx does; "
                f"given is {path or 'none'!r}"
            )
        if not Path(path).is_file():
            raise FileError(f"{path}: there is no such file")
        return Settings(Path(path), {name: option.default for name, option in known.items()} | given)

    @property
    def described(self) -> str:
        """Its options, a line each, for ``--candidate NAME:help``."""
        lines = [f"--candidate {self.name}:MODEL{self.suffix}[,NAME=VALUE…]"]
        for option in self.options:
            values = "|".join(option.values) or "N"
            lines.append(f"  {option.name}={values}  {option.says} (default: {option.default})")
        return "\n".join(lines)


def only_array(given: Given) -> Array:
    """Return the pictures, or the only input of another graph, float32.

    Raises
    ------
    ShapeError
        The graph has several inputs.
    """
    arrays = operands_of(given)
    if len(arrays) != 1:
        raise ShapeError(f"this candidate takes one input, not {len(arrays)}")
    return np.asarray(arrays[0], np.float32, order="C")


def one_picture(images: Array, runtime: str) -> Array:
    """Return the picture of a batch of one, (3, H, W).

    Raises
    ------
    ShapeError
        The batch holds more: the runtime has no batch axis.
    """
    if len(images) != 1:
        raise ShapeError(f"{runtime} has no batch axis; give one picture, not {len(images)} in a batch")
    return images[0]
