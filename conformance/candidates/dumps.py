"""A folder of dumped tensors as a candidate: what a phone, or any program, wrote down of one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from conformance.bounds import BFLOAT16, Declaration
from conformance.candidates.arrays import Given, operands_of
from conformance.candidates.plain import GraphlessCandidate
from conformance.pictures.graph_inputs import read_array
from refimpl.errors import CandidateError, FileError
from refimpl.ops.operation import Array
from refimpl.weights import read_arrays

INPUT_NAMES = ("images", "input")
"""Names under which a folder may keep the input it belongs to."""
ABSURD = 1e15
"""Numbers this large, that are small with their bytes swapped, were written in the other order."""


class DumpCandidate(GraphlessCandidate):
    """The tensors in a folder.

    ``.npy`` and ``.txt`` hold one, named after the file, ``.npz`` and ``.safetensors`` many.

    Parameters
    ----------
    folder
        Nothing but dumps of one run may be in it. A tensor named ``images`` or ``input`` is compared with the
        input that the reference is given.
    outputs
        Names of the tensors that are the run's outputs; all others are looked for among the reference's.
    declaration
        What it was computed with; floats must be stored as its storage says.
    optional
        Names of tensors that are outputs, too, if there are any of that name.

    Raises
    ------
    FileError
        A file is missing, extra, of another format, dtype or byte order; each is named.
    """

    reruns = False

    def __init__(
        self,
        folder: Path,
        outputs: Sequence[str],
        declaration: Declaration | None = None,
        optional: Sequence[str] = (),
    ) -> None:
        super().__init__(declaration)
        self.folder = folder
        self.tensors = read_dumps(folder)
        self.outputs = (*outputs, *(name for name in optional if name in {*self.tensors} - {*outputs}))
        missing = [name for name in outputs if name not in self.tensors]
        if missing:
            raise FileError(
                f"{folder}: missing {', '.join(missing)}; "
                f"expected a file for each output, as {missing[0]}.npy"
            )
        for name, array in self.tensors.items():
            self._check(name, array)

    def _check(self, name: str, array: Array) -> None:
        where, storage = f"{self.folder}: tensor {name!r}", self.declaration.storage
        if not array.dtype.isnative:
            raise FileError(f"{where} is of byte order {array.dtype.str[0]!r}; write it in the machine's own")
        if array.dtype.kind in "iub" and name not in (*self.outputs, *INPUT_NAMES):
            return
        wanted = "float32" if storage == BFLOAT16 else storage.name
        if array.dtype.name != wanted:
            raise FileError(
                f"{where} is of {array.dtype}; expected {wanted}: "
                "dump what was computed, or declare --storage"
            )
        if _absurd(array) and not _absurd(array.byteswap()):
            raise FileError(
                f"{where} has numbers up to {_largest(array[np.isfinite(array)]):.1e}: its bytes are in "
                "reverse order"
            )

    def run(self, images: Given) -> dict[str, Array]:
        """Return the outputs, if the folder is of these images as far as it tells.

        Raises
        ------
        CandidateError
            The folder's own input is another.
        """
        (fed,) = operands_of(images)
        for name in INPUT_NAMES:
            given = self.tensors.get(name)
            if given is not None and not np.array_equal(given.ravel(), fed.astype(given.dtype).ravel()):
                raise CandidateError(
                    f"the dumps in {self.folder} are of another input: "
                    f"its {name!r} differs from the one judged"
                )
        return {name: self.tensors[name] for name in self.outputs}

    def capture(self, images: Given) -> dict[str, Array]:
        """Return all tensors but the input."""
        return {name: array for name, array in self.tensors.items() if name not in INPUT_NAMES}


def _absurd(array: Array) -> bool:
    finite = array[np.isfinite(array)]
    return _largest(finite) >= min(ABSURD, float(np.finfo(array.dtype).max) / 4)


def _largest(array: Array) -> float:
    return float(np.abs(array).max(initial=0.0))


def read_dumps(folder: Path) -> dict[str, Array]:
    """Return the tensors of every file in a folder, in the files' order; hidden files are passed over.

    Raises
    ------
    FileError
        The folder is missing or empty, a file is of an unknown or another format, or two hold the same
        tensor.
    """
    if not folder.is_dir():
        raise FileError(f"{folder}: there is no such folder of dumps")
    tensors: dict[str, Array] = {}
    for path in (each for each in sorted(folder.iterdir()) if not each.name.startswith(".")):
        if path.suffix in READERS and not path.is_file():
            raise FileError(f"{path}: is no regular file; a folder of dumps holds files of tensors")
        if path.suffix not in READERS:
            raise FileError(
                f"{path}: an extra file; a folder of dumps holds nothing but {', '.join(sorted(READERS))}"
            )
        for name, array in READERS[path.suffix](path).items():
            if name in tensors:
                raise FileError(f"{path}: an extra file: another holds tensor {name!r} already")
            tensors[name] = array
    if not tensors:
        raise FileError(f"{folder}: the folder has no dumps")
    return tensors


def _read_one(path: Path) -> dict[str, Array]:
    return {path.stem: read_array(path)}


def _read_text(path: Path) -> dict[str, Array]:
    """Read numbers between white space, float32; a first line ``# 1 5 7`` gives the shape."""
    try:
        head, _, rest = path.read_text(encoding="ascii").partition("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{path}: is no text of numbers: {error}") from error
    shape = head[1:].split() if head.startswith("#") else None
    words = (rest if shape is not None else f"{head}\n{rest}").split()
    try:
        values = np.array(words, np.float32)
        lengths = [-1] if shape is None else [int(word) for word in shape]
        return {path.stem: values.reshape(lengths)}
    except ValueError as error:
        raise FileError(
            f"{path}: is no text of numbers, with its shape in a first line '# 1 5 7': {error}"
        ) from error


READERS: dict[str, Callable[[Path], dict[str, Array]]] = {
    ".npy": _read_one,
    ".txt": _read_text,
    ".npz": read_arrays,
    ".safetensors": read_arrays,
}
