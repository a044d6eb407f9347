"""The runtimes' own converters, called with their traps avoided; what they write is checked, then kept."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from conformance.candidates.candidate import Candidate
from conformance.candidates.child_process import end, python_command, safe_environment
from conformance.candidates.ncnn_conversion import TO_INTEGERS, TO_TABLE, pnnx
from conformance.candidates.phone_runtime import DYNAMIC, RECORD, STATIC, PhoneRuntime
from conformance.candidates.qnn import CHIPS
from conformance.candidates.qnn_conversion import check_compiled
from conformance.conversion.coreml_model import MANIFEST, read_coreml
from conformance.conversion.executorch_model import DELEGATES, read_executorch
from conformance.conversion.litert_model import read_litert
from conformance.conversion.ncnn_model import read_ncnn
from conformance.files import atomic_write
from conformance.folders import replaced_folder
from conformance.graph.onnx_graph import OnnxGraph
from conformance.named_values import values_in
from conformance.pictures.graph_inputs import named_shapes
from refimpl.errors import ConfigurationError, FileError, MissingDependencyError

LONGEST = 600.0
"""Seconds that a converter may take."""


@dataclass(frozen=True)
class Converter:
    """How a model gets to a runtime.

    Attributes
    ----------
    name
        Of the runtime, and of the extra that installs the converter.
    package
        The module that is installed.
    versions
        Distributions whose versions are recorded.
    suffixes
        Of the files of a converted model, the one that names it first.
    precisions
        Precision → what is said to the converter.
    command
        The ONNX file, the folder, what the precision says → the command.
    made
        The folder → the files that were written, in the order of ``suffixes``.
    check
        Raises `FileError` unless the model is whole.
    delegates
        What may compute a converted model, the first unless told otherwise; said to the converter last.
    chosen
        Whether a delegate has to be named.
    narrower
        The module that narrows further than the converter does; of the same extra.
    programs
        What narrows further if no module does: programs on the path, which no package installs.
    narrowed
        The precisions that these are needed for.
    """

    name: str
    package: str
    versions: Sequence[str]
    suffixes: Sequence[str]
    precisions: dict[str, Sequence[str]]
    command: Callable[[Path, Path, Sequence[str]], list[str]]
    made: Callable[[Path], list[Path]]
    check: Callable[[Path], object]
    delegates: Sequence[str] = ()
    chosen: bool = False
    narrower: str = ""
    programs: Sequence[str] = ()
    narrowed: Sequence[str] = ()

    def packages(self, precision: str) -> list[str]:
        """Return the modules that a conversion needs."""
        return [self.package, *([self.narrower] if self.narrower and precision in self.narrowed else [])]

    def places(self, model: Path) -> list[Path]:
        """Return where the files of a converted model and the record of the conversion go."""
        stem = model.name.removesuffix(self.suffixes[0])
        return [model.with_name(f"{stem}{suffix}") for suffix in (*self.suffixes, RECORD)]


def _ours(runtime: str, model: str) -> Callable[[Path, Path, Sequence[str]], list[str]]:
    """Return the command of a module of ours, which calls the converter in a process of its own."""
    module = f"conformance.candidates.{runtime}_conversion"
    return lambda source, folder, said: python_command(module, str(source), str(folder / model), *said)


def _to_ncnn(source: Path, folder: Path, said: Sequence[str]) -> list[str]:
    made = str(folder / "model.int8.param")
    if STATIC in said:
        return python_command("conformance.candidates.ncnn_conversion", str(source), made)
    return pnnx(source, said)


def _of_ncnn(folder: Path) -> list[Path]:
    """Return the model of integers, if there is one, else that of floats."""
    integers = folder / "model.int8.param"
    made = integers if integers.is_file() else folder / "model.ncnn.param"
    return [made, made.with_suffix(".bin")]


NCNN = Converter(
    "ncnn",
    "pnnx",
    ("pnnx", "ncnn"),
    (".param", ".bin"),
    # Unless told so, it stores weights in float16.
    {"float32": ["fp16=0"], "float16": ["fp16=1"], STATIC: [STATIC]},
    _to_ncnn,
    _of_ncnn,
    read_ncnn,
    programs=(TO_TABLE, TO_INTEGERS),
    narrowed=(STATIC,),
)


def _whole_ir(xml: Path) -> None:
    """Raise `FileError` unless every constant of an IR lies within its weights."""
    held = xml.with_suffix(".bin").stat().st_size
    text = xml.read_text(encoding="utf-8")
    if not text.rstrip().endswith("</net>"):
        raise FileError(f"{xml.name} is cut off")
    ends = [int(offset) + int(size) for offset, size in _CONSTANTS.findall(text)]
    if max(ends, default=0) > held:
        raise FileError(f"{xml.name} has constants up to byte {max(ends)}, its weights are {held}")


_CONSTANTS = re.compile(r'offset="(\d+)" size="(\d+)"')

OPENVINO = Converter(
    "openvino",
    "openvino",
    ("openvino", "nncf"),
    (".xml", ".bin"),
    {weights: [weights] for weights in ("float32", "float16", "int8", STATIC)},
    _ours("openvino", "model.xml"),
    lambda folder: [folder / "model.xml", folder / "model.bin"],
    _whole_ir,
    narrower="nncf",
    narrowed=("int8", STATIC),
)


def _whole_mnn(model: Path) -> None:
    """Raise `FileError` unless the table that a flatbuffer begins with lies within it."""
    content = model.read_bytes()
    root = int.from_bytes(content[:4], "little")
    if not 4 <= root < len(content) - 4:
        raise FileError(f"{model.name} is no flatbuffer, or cut off")


MNN = Converter(
    "mnn",
    "MNN",
    ("MNN",),
    (".mnn",),
    # Whatever --weightQuantAsymmetric is set to, it makes them symmetric.
    {"float32": [], "float16": ["--fp16"], "int8": ["--weightQuantBits", "8"], STATIC: [STATIC]},
    _ours("mnn", "model.mnn"),
    lambda folder: [folder / "model.mnn"],
    _whole_mnn,
)


LITERT = Converter(
    "litert",
    "litert_torch",
    ("litert-torch", "litert-converter", "ai-edge-quantizer", "ai-edge-litert", "torch"),
    (".tflite",),
    {weights: [weights] for weights in ("float32", "float16", "int8", DYNAMIC, STATIC)},
    _ours("litert", "model.tflite"),
    lambda folder: [folder / "model.tflite"],
    read_litert,
)


EXECUTORCH = Converter(
    "executorch",
    "executorch",
    ("executorch", "torch", "torchao"),
    (".pte",),
    {weights: [weights] for weights in ("float32", DYNAMIC, STATIC)},
    _ours("executorch", "model.pte"),
    lambda folder: [folder / "model.pte"],
    read_executorch,
    DELEGATES,
    narrower="torchao",
    narrowed=(DYNAMIC, STATIC),
)


COREML = Converter(
    "coreml",
    "coremltools",
    ("coremltools", "torch"),
    (".mlpackage",),
    {weights: [weights] for weights in ("float32", "float16")},
    _ours("coreml", "model.mlpackage"),
    lambda folder: [folder / "model.mlpackage"],
    read_coreml,
)
QNN = Converter(
    "qnn",
    "onnxruntime_qnn",
    ("onnxruntime-qnn", "onnxruntime"),
    (".qnn.onnx",),
    {"float32": []},
    _ours("qnn", "model.qnn.onnx"),
    lambda folder: [folder / "model.qnn.onnx"],
    check_compiled,
    tuple(CHIPS),
    chosen=True,
)
CONVERTERS = {each.name: each for each in (NCNN, OPENVINO, MNN, LITERT, EXECUTORCH, COREML, QNN)}
"""Runtime → its converter."""


def check_package(place: Path) -> None:
    """Raise `FileError` unless what stands at a place is a package of Core ML, which may be replaced."""
    if not (place / MANIFEST).is_file():
        raise FileError(f"{place} is no package of Core ML; name another place")


def convert(
    converter: Converter,
    source: Path,
    model: Path,
    precision: str = "float32",
    delegate: str | None = None,
) -> list[Path]:
    """Convert an ONNX file, and write the runtime's files and a record of how they were made.

    Parameters
    ----------
    converter
    source
        The ONNX file.
    model
        The first of the files to write.
    precision
        One that the converter knows.
    delegate
        One that it knows; None: the first, if it has any.

    Returns
    -------
    list
        The files that were written; the record, JSON, is the last.

    Raises
    ------
    ConfigurationError
        The precision or the delegate is unknown.
    MissingDependencyError
        The converter is not installed.
    FileError
        It fails, hangs, or leaves files that are not whole; nothing is written.
    """
    if precision not in converter.precisions:
        known = ", ".join(converter.precisions)
        raise ConfigurationError(f"{converter.name} is not converted to in {precision!r}; known: {known}")
    said = [*converter.precisions[precision], *_delegated(converter, delegate)]
    for package in converter.packages(precision):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(
                f"{package}, the converter of {converter.name}, is not installed: "
                f"pip install 'mobileinst-reference[{converter.name}]'"
            )
    for program in converter.programs if precision in converter.narrowed else ():
        if shutil.which(program) is None:
            raise MissingDependencyError(
                f"{program} is not on the path; it comes with {converter.name}'s releases and sources, not "
                "with its Python package"
            )
    with tempfile.TemporaryDirectory(prefix="converting-") as name:
        folder = Path(name)
        own = folder / "model.onnx"
        shutil.copyfile(source, own)
        command = converter.command(own, folder, said)
        _run(converter.package, command, folder)
        files = converter.made(folder)
        _check(converter, files)
        record = _record(converter, source, precision, [word.replace(name, "") for word in command])
        return _kept(files, converter.places(model), record)


def export_module(text: str, target: Path, shapes: Sequence[str], *, trusted: bool = False) -> None:
    """Write a PyTorch module as an ONNX file, by PyTorch's own exporter.

    Parameters
    ----------
    text
        ``FILE.py:NAME`` or ``FILE.pt2``.
    target
    shapes
        ``NAME=1x3x224x224`` of each input, in order.
    trusted
        Whether a program is read although that can run code of whoever wrote it.

    Raises
    ------
    ConfigurationError
        There is no shape, or it is none.
    MissingDependencyError
        PyTorch is not installed.
    FileError
        There is no such file, or PyTorch exports nothing; nothing is written.
    """
    if not shapes:
        raise ConfigurationError("a module says of no input how large it is: give --shape NAME=1x3x224x224")
    named_shapes(shapes)
    if importlib.util.find_spec("torch") is None:
        raise MissingDependencyError("torch is not installed: pip install 'mobileinst-reference[torch]'")
    path, sign, name = text.rpartition(":") if ".py:" in text else (text, "", "")
    if not Path(path).is_file():
        raise FileError(f"{path}: there is no such file")
    with tempfile.TemporaryDirectory(prefix="exporting-") as folder:
        own, place = Path(folder) / "model.onnx", f"{Path(path).resolve()}{sign}{name}"
        trust = "trusted" if trusted else ""
        said = (place, str(own), trust, *shapes)
        _run("torch", python_command("conformance.candidates.module_export", *said), Path(folder))
        OnnxGraph.load(own, partly=True)
        with atomic_write(target) as temporary:
            shutil.copyfile(own, temporary)


def _delegated(converter: Converter, delegate: str | None) -> Sequence[str]:
    if delegate is None and not converter.chosen:
        return converter.delegates[:1]
    if delegate is None:
        known = ", ".join(converter.delegates)
        raise ConfigurationError(f"{converter.name} compiles for one chip: name it by --delegate: {known}")
    if delegate not in converter.delegates:
        known = ", ".join(converter.delegates) or "none"
        raise ConfigurationError(f"{converter.name} has no delegate {delegate!r}; known: {known}")
    return (delegate,)


def shipped(
    runtime: PhoneRuntime,
    text: str,
    source: Path | None,
    interpreter: Sequence[str] = (),
    timeout: float | None = None,
) -> Candidate:
    """Return the candidate of ``MODEL,name=value``, or that of an ONNX file, converted for it.

    Raises
    ------
    ConfigurationError
        There is neither.
    MobileInstError
        As of `convert` and `PhoneRuntime.candidate`.
    """
    if source is None or runtime.names_model(text):
        return runtime.candidate(text, interpreter, timeout)
    folder = tempfile.TemporaryDirectory(prefix=f"{runtime.name}-")
    said = converted(runtime, text, source, Path(folder.name) / f"model{runtime.suffix}")
    candidate = runtime.candidate(said, interpreter, timeout)
    candidate.converted_in = folder  # type: ignore[attr-defined]  # as long as it may read from there
    return candidate


def converted(runtime: PhoneRuntime, text: str, source: Path, model: Path) -> str:
    """Convert an ONNX file as ``name=value,…`` asks, and return ``MODEL,name=value,…``.

    Parameters
    ----------
    runtime
    text
    source
        The ONNX file.
    model
        The first of the files to write.

    Raises
    ------
    MobileInstError
        As of `convert`.
    """
    given = values_in(text.split(","), f"--candidate {runtime.name}")
    convert(CONVERTERS[runtime.name], source, model, given.get("weights", "float32"), given.get("delegate"))
    return ",".join([str(model), *([text] if text else [])])


def _run(package: str, command: list[str], folder: Path) -> None:
    said = [folder / "said", folder / "said_of_errors"]
    with said[0].open("wb") as out, said[1].open("wb") as errors:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=safe_environment(),
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=errors,
            start_new_session=True,
        )
        try:
            process.wait(LONGEST)
        except subprocess.TimeoutExpired as error:
            raise FileError(f"{package} hangs: it has not ended within {LONGEST:g} s") from error
        finally:
            end(process)
            process.communicate()
    if process.returncode:
        raise FileError(f"{package} fails with status {process.returncode}: {_last_words(said)}")


def _last_words(said: Sequence[Path]) -> str:
    text = "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in said)
    lines = [line for line in text.splitlines() if line.strip()]
    return _OURS.sub("", lines[-1].strip())[:200] if lines else "it says nothing"


_OURS = re.compile(r"^refimpl\.errors\.\w+: ")
"""What Python says before an error that a module of ours raises there."""


def _check(converter: Converter, files: list[Path]) -> None:
    """Refuse what a converter leaves that says it succeeded."""
    # A model without weights has an empty file of them; the check knows how much there should be.
    for path in files:
        if not path.exists() or (path == files[0] and not path.stat().st_size):
            raise FileError(f"{converter.package} ends well but writes no {path.name.partition('.')[2]}")
    try:
        converter.check(files[0])
    except FileError as error:
        raise FileError(f"{converter.package} ends well but what it writes is not whole: {error}") from error


def _record(converter: Converter, source: Path, precision: str, command: list[str]) -> dict[str, object]:
    return {
        "source": source.name,
        "source_sha256": sha256(source.read_bytes()).hexdigest(),
        "runtime": converter.name,
        "precision": precision,
        "inputs": {name: info.shape for name, info in OnnxGraph.load(source, partly=True).declared.items()},
        "converter": [Path(command[0]).name, *command[1:]],
        "versions": {name: version for name in converter.versions if (version := _version(name))},
        # They tell no version.
        "programs": {
            name: _hash(Path(place))
            for name in converter.programs
            if precision in converter.narrowed and (place := shutil.which(name))
        },
    }


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _kept(files: list[Path], places: list[Path], record: dict[str, object]) -> list[Path]:
    record["files"] = {place.name: _hash(file) for file, place in zip(files, places, strict=False)}
    for file, place in zip(files, places, strict=False):
        if file.is_dir():
            with replaced_folder(place, check_package) as folder:
                shutil.copytree(file, folder, dirs_exist_ok=True)
            continue
        with atomic_write(place) as temporary:
            shutil.copyfile(file, temporary)
    with atomic_write(places[-1]) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + os.linesep, encoding="utf-8")
    return places


def _hash(path: Path) -> str:
    """Return the hash of a file, or of a folder's files in order of their names, each behind its name."""
    found = sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            found.update(f"{file.relative_to(path)}\0".encode() if path.is_dir() else b"")
            found.update(file.read_bytes())
    return found.hexdigest()
