"""The runtime's side of a candidate: this file alone is sent to the Python that has NumPy and the runtime.

It imports nothing of ours, and needs Python 3.10. Questions come on standard input, answers go to standard
output: a line of JSON, then the bytes of the files and arrays that the line lists.

The first question, ``open``, names the runtime, gives its model and how it is to be set; then follow ``run``
and ``capture``, each with arrays. What goes wrong is answered as an error's kind and words.
"""

from __future__ import annotations

import errno
import importlib
import importlib.metadata
import json
import math
import os
import platform
import tempfile
import warnings
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

Arrays = dict[str, np.ndarray[Any, Any]]
Nodes = list[tuple[str, str, tuple[str, ...], tuple[str, ...]]]
"""Name, operator, operands, results."""
File = tuple[str, bytes]
"""Name and content."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where no space is left."""
MARK = b"mobileinst "
"""What an answer's line begins with."""


class Refusal(Exception):
    """What cannot be done: the kind of error, and why."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind


class Runtime:
    """A model in a runtime.

    Parameters
    ----------
    package
        The runtime's, imported.
    files
        The model's, the one that names it first.
    options
        How the runtime is set.
    """

    def __init__(self, package: Any, files: list[str], options: dict[str, Any]) -> None:
        self.package, self.files, self.options = package, files, options
        self.nodes: Nodes = []
        self.load()

    def load(self) -> None:
        """Read the model."""
        raise NotImplementedError

    def run(self, given: Arrays) -> Arrays:
        """Return the outputs, as users run it."""
        raise NotImplementedError

    def capture(self, given: Arrays) -> Arrays:
        """Return every tensor that can be had, in the order in which they are made."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """Return what else is to be known of the runtime there."""
        return {}


class Ncnn(Runtime):
    """ncnn; its options are those of ``Net.opt``."""

    def load(self) -> None:
        """Read ``.param`` and ``.bin``; refuse operators that it lacks."""
        self.net = self.package.Net()
        for name, value in self.options.items():
            setattr(self.net.opt, name, value)
        if self.net.load_param(self.files[0]) != 0:
            raise Refusal("ConfigurationError", f"cannot read the .param: {self._unknown()}")
        if self.net.load_model(self.files[1]) != 0:
            raise Refusal(
                "FileError", "the .bin does not hold the weights: it ends too early or is another's"
            )
        self.blobs = [blob.name for blob in self.net.blobs()]
        self.nodes = [
            (layer.name, layer.type, *(tuple(self.blobs[at] for at in ends) for ends in _ends(layer)))
            for layer in self.net.layers()
        ]

    def _unknown(self) -> str:
        with open(self.files[0], encoding="utf-8") as stream:
            words = [line.split() for line in stream.read().splitlines()[2:]]
        types = dict.fromkeys(line[0] for line in words if line)
        lacking = [kind for kind in types if self.package.layer_to_index(kind) < 0]
        return f"it lacks the operators {', '.join(lacking)}" if lacking else "it is malformed"

    def facts(self) -> dict[str, Any]:
        """Tell whether the chip computes in float16."""
        return {"float16": bool(self.package.cpu_support_arm_asimdhp())}

    def run(self, given: Arrays) -> Arrays:
        """Free blobs when they are used up."""
        return self._extracted(given, self.net.output_names(), light=True)

    def capture(self, given: Arrays) -> Arrays:
        """Return every blob, none overwritten in place."""
        inputs = self.net.input_names()
        return self._extracted(given, [name for name in self.blobs if name not in inputs], light=False)

    def _extracted(self, given: Arrays, names: list[str], light: bool) -> Arrays:
        extractor = self.net.create_extractor()
        extractor.set_light_mode(light)
        (picture,) = given.values()
        # A copy of its own: a layer that works in place ends the process on NumPy's memory.
        fed = self.package.Mat(np.ascontiguousarray(picture)).clone()
        extractor.input(self.net.input_names()[0], fed)
        return {name: self._blob(extractor, name) for name in names}

    def _blob(self, extractor: Any, name: str) -> Any:
        status, blob = extractor.extract(name)
        if status != 0:
            raise Refusal(
                "CandidateError",
                f"ncnn cannot compute blob {name!r}: it returns {status}; was the model converted for "
                "another size of picture?",
            )
        # The array is a view of memory that ncnn frees.
        return np.array(blob, copy=True)


def _ends(layer: Any) -> tuple[Any, Any]:
    return layer.bottoms, layer.tops


class Mnn(Runtime):
    """MNN; options: ``threads``, ``precision``, ``memory``, a number, and ``hints``: numbers and values."""

    def load(self) -> None:
        """Read a ``.mnn`` and make a session."""
        try:
            self.interpreter = self.package.Interpreter(self.files[0])
        except Exception as error:  # MNN raises its own types
            raise Refusal("FileError", "MNN cannot read it: it is no model of MNN") from error
        for hint, value in self.options["hints"]:
            self.interpreter.setSessionHint(hint, value)
        how = {"backend": "CPU", "numThread": self.options["threads"]}
        how |= {name: self.options[name] for name in ("precision", "memory")}
        self.session = self.interpreter.createSession(how)
        if self.session is None:
            raise Refusal("ConfigurationError", "MNN makes no session of it: it lacks an operator of it")

    def run(self, given: Arrays) -> Arrays:
        """Run the session."""
        self._feed(given)
        self.interpreter.runSession(self.session)
        return self._outputs()

    def capture(self, given: Arrays) -> Arrays:
        """Return every operation's results, and the outputs; MNN does not say what each takes."""
        found: Arrays = {}
        made: Nodes = []

        def note(tensors: list[Any], operation: Any) -> bool:
            own = operation.getName()
            names = tuple(f"{own}:{place}" if place else own for place in range(len(tensors)))
            found.update(zip(names, map(self._values, tensors), strict=True))
            made.append((own, operation.getType(), (), names))
            return True

        self._feed(given)
        self.interpreter.runSessionWithCallBackInfo(self.session, lambda tensors, operation: True, note)
        self.nodes = made
        return found | self._outputs()

    def _outputs(self) -> Arrays:
        outputs = self.interpreter.getSessionOutputAll(self.session)
        return {name: self._values(tensor) for name, tensor in outputs.items()}

    def _feed(self, given: Arrays) -> None:
        (array,) = given.values()
        inputs = self.interpreter.getSessionInputAll(self.session)
        if len(inputs) != 1:
            raise Refusal("CandidateError", f"the model has {len(inputs)} inputs; expected one, the pictures")
        (place,) = inputs.values()
        if tuple(place.getShape()) != array.shape:
            self.interpreter.resizeTensor(place, array.shape)
            self.interpreter.resizeSession(self.session)
        place.copyFromHostTensor(self._host(array.shape, array))

    def _host(self, shape: tuple[int, ...], values: Any) -> Any:
        mnn = self.package
        return mnn.Tensor(shape, mnn.Halide_Type_Float, values, mnn.Tensor_DimensionType_Caffe)

    def _values(self, tensor: Any) -> Any:
        shape = tuple(tensor.getShape())
        host = self._host(shape, np.zeros(math.prod(shape), np.float32))
        if not tensor.copyToHostTensor(host):
            raise Refusal("CandidateError", f"MNN does not give a tensor of shape {shape}")
        return np.array(host.getNumpyData(), np.float32, copy=True).reshape(shape)


class Litert(Runtime):
    """LiteRT; options: ``threads``, ``xnnpack``, and the places of ``outputs`` and ``tensors`` by name."""

    def load(self) -> None:
        """Read a ``.tflite``."""
        self.module = importlib.import_module(f"{self.package.__name__}.interpreter")
        self.shipped = self._interpreter(keep=False)
        self.kept: Any = None

    def run(self, given: Arrays) -> Arrays:
        """Run it with tensors that take each other's memory."""
        self._invoke(self.shipped, given)
        return self._values(self.shipped, self.options["outputs"])

    def capture(self, given: Arrays) -> Arrays:
        """Keep all tensors, which makes XNNPACK compute operator by operator."""
        if self.kept is None:
            self.kept = self._interpreter(keep=True)
        self._invoke(self.kept, given)
        return self._values(self.kept, {**self.options["tensors"], **self.options["outputs"]})

    def _interpreter(self, keep: bool) -> Any:
        kinds = self.module.OpResolverType
        plain = kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        with warnings.catch_warnings():  # keeping all tensors takes memory
            warnings.simplefilter("ignore")
            try:
                interpreter = self.module.Interpreter(
                    self.files[0],
                    num_threads=self.options["threads"],
                    experimental_op_resolver_type=kinds.AUTO if self.options["xnnpack"] else plain,
                    experimental_preserve_all_tensors=keep,
                )
                interpreter.allocate_tensors()
            except (ValueError, RuntimeError) as error:
                raise Refusal("ConfigurationError", f"LiteRT refuses it: {_first_line(error)}") from error
        return interpreter

    def _invoke(self, interpreter: Any, given: Arrays) -> None:
        (array,) = given.values()
        held = interpreter.get_input_details()
        if len(held) != 1:
            raise Refusal("CandidateError", f"the model has {len(held)} inputs; expected one, the pictures")
        wanted, shape = tuple(int(side) for side in held[0]["shape"]), array.shape
        if wanted != shape and array.ndim == len(wanted) == 4:
            array = np.ascontiguousarray(array.transpose(0, 2, 3, 1))
        if wanted != array.shape:
            raise Refusal("ShapeError", f"the model takes {wanted}, but the input given has {shape}")
        interpreter.set_tensor(held[0]["index"], array)
        interpreter.invoke()

    def _values(self, interpreter: Any, places: dict[str, int]) -> Arrays:
        return {name: np.array(interpreter.get_tensor(place), copy=True) for name, place in places.items()}


class OpenVino(Runtime):
    """OpenVINO's CPU plugin.

    Options: ``threads``; ``precision``, ``f32`` or ``bf16``; ``group``, how many operands of a product with
    integer weights share a scale when they are made integers, too; 0: they are not; ``shown``, the only
    operation whose results are to be captured; empty: all.
    """

    still = ("Parameter", "Constant", "Result")
    """Operations that compute nothing."""

    def load(self) -> None:
        """Read an IR's ``.xml``, beside which its ``.bin`` lies."""
        self.core = self.package.Core()
        try:
            self.model = self.core.read_model(self.files[0])
        except Exception as error:  # OpenVINO raises RuntimeError
            raise Refusal("FileError", f"OpenVINO cannot read it: {_first_line(error)}") from error
        self.compiled, self.exposed = self._compiled(self.model), None
        self.nodes = [
            (
                operation.get_friendly_name(),
                operation.get_type_name(),
                tuple(_own_name(value.get_source_output()) for value in operation.inputs()),
                tuple(map(_own_name, operation.outputs())),
            )
            for operation in self.model.get_ordered_ops()
            if operation.get_type_name() not in self.still
        ]

    def run(self, given: Arrays) -> Arrays:
        """Run the model as it is."""
        return self._results(self.compiled, given)

    def capture(self, given: Arrays) -> Arrays:
        """Show every result, which keeps the plugin from fusing most of them; but for what is constant."""
        if self.exposed is None:
            model = self.model.clone()
            constant: set[str] = set()
            for operation in model.get_ordered_ops():
                kind, operands = operation.get_type_name(), operation.input_values()
                if kind == "Constant" or (operands and constant.issuperset(map(_maker, operands))):
                    constant.add(operation.get_name())
                elif kind not in self.still and self.options["shown"] in ("", kind):
                    for output in operation.outputs():
                        # Else the one that shows it is called after itself.
                        output.get_tensor().set_names({_own_name(output)})
                        model.add_outputs(output)
            self.exposed = self._compiled(model)
        return self._results(self.exposed, given)

    def _compiled(self, model: Any) -> Any:
        wanted = self.options["precision"]
        options = {
            "INFERENCE_PRECISION_HINT": wanted,
            "INFERENCE_NUM_THREADS": self.options["threads"],
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": self.options["group"],
        }
        if wanted == "bf16" and "BF16" not in self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise Refusal(
                "ConfigurationError", "this CPU has no bfloat16; OpenVINO would compute in float32 unasked"
            )
        try:
            return self.core.compile_model(model, "CPU", options)
        except Exception as error:  # OpenVINO raises RuntimeError
            raise Refusal(
                "ConfigurationError", f"OpenVINO refuses the model: {_first_line(error)}"
            ) from error

    def _results(self, compiled: Any, given: Arrays) -> Arrays:
        (array,) = given.values()
        try:
            results = compiled(array)
        except Exception as error:  # OpenVINO raises RuntimeError
            why = f"OpenVINO cannot run the model: {_first_line(error)}"
            raise Refusal("CandidateError", why) from error
        return {_own_name(output): np.array(values, copy=True) for output, values in results.items()}


def _maker(value: Any) -> str:
    return str(value.get_node().get_name())


def _own_name(output: Any) -> str:
    """Return a tensor's own name, else that of the operation and the place."""
    names = sorted(output.get_names())
    return str(names[0]) if names else f"{output.get_node().get_friendly_name()}:{output.get_index()}"


class Executorch(Runtime):
    """ExecuTorch; options: ``threads``, ``outputs`` in order, ``room`` for the dump, ``integers`` or not."""

    dump = ("event dump", "event dump's numbers")
    """What `capture` adds to the outputs, as bytes: it says of every instruction what it made."""

    def load(self) -> None:
        """Read a ``.pte``."""
        importlib.import_module("torch")  # the bindings need its libraries
        if self.options["integers"]:
            importlib.import_module(f"{self.package.__name__}.kernels.quantized")
        self.bindings = importlib.import_module(f"{self.package.__name__}.extension.pybindings._C")
        self.bindings._unsafe_reset_threadpool(self.options["threads"])
        self.shipped = self._module()

    def run(self, given: Arrays) -> Arrays:
        """Return the outputs."""
        return self._forward(self.shipped, given)

    def capture(self, given: Arrays) -> Arrays:
        """Run it anew with an event dump."""
        module = self._module(enable_etdump=True, debug_buffer_size=self.options["room"])
        found = self._forward(module, given)
        with tempfile.TemporaryDirectory(prefix="executorch-") as folder:
            places = [os.path.join(folder, name) for name in ("events", "numbers")]
            module.write_etdump_result_to_file(*places)
            for name, place in zip(self.dump, places, strict=True):
                found[name] = np.fromfile(place, np.uint8)
        return found

    def _module(self, **how: Any) -> Any:
        try:
            return self.bindings._load_for_executorch(self.files[0], **how)
        except RuntimeError as error:
            raise Refusal("ConfigurationError", f"ExecuTorch refuses it: {_first_line(error)}") from error

    def _forward(self, module: Any, given: Arrays) -> Arrays:
        torch = importlib.import_module("torch")
        results = module.forward([torch.from_numpy(np.array(array)) for array in given.values()])
        made = [np.array(each.numpy(), copy=True) for each in results]
        return dict(zip(self.options["outputs"], made, strict=True))


class OnnxRuntime(Runtime):
    """ONNX Runtime's CPU provider; options: ``level``, ``threads`` and ``disabled``, optimisers left out."""

    def load(self) -> None:
        """Read an ONNX file."""
        options = self.package.SessionOptions()
        levels = self.package.GraphOptimizationLevel
        options.graph_optimization_level = getattr(levels, self.options["level"])
        options.intra_op_num_threads = self.options["threads"]
        options.log_severity_level = 4
        options.enable_cpu_mem_arena = self.options["level"] != "ORT_DISABLE_ALL"
        disabled = self.options["disabled"]
        providers = ["CPUExecutionProvider"]
        try:
            self.session = self.package.InferenceSession(
                self.files[0], options, providers=providers, disabled_optimizers=disabled or None
            )
        except Exception as error:  # ONNX Runtime raises its own unrelated types
            raise Refusal("CandidateError", f"ONNX Runtime refuses it: {_first_line(error)}") from error

    def run(self, given: Arrays) -> Arrays:
        """Return the outputs."""
        names = [output.name for output in self.session.get_outputs()]
        try:
            results = self.session.run(names, given)
        except Exception as error:  # ONNX Runtime raises its own unrelated types
            raise Refusal("CandidateError", f"ONNX Runtime cannot run it: {_first_line(error)}") from error
        # What is no array is a sequence, or an optional that holds nothing.
        found = zip(names, results, strict=True)
        return {name: result for name, result in found if isinstance(result, np.ndarray)}


RUNTIMES: dict[str, type[Runtime]] = {
    "ncnn": Ncnn,
    "mnn": Mnn,
    "litert": Litert,
    "openvino": OpenVino,
    "executorch": Executorch,
    "onnxruntime": OnnxRuntime,
}


# --- what is said ---------------------------------------------------------------------------------


def read_exactly(stream: BinaryIO, size: int) -> bytes:
    """Return so many bytes; memory is taken as they come. Raise `EOFError` if there are fewer."""
    parts, missing = [], size
    while missing:
        part = stream.read(min(missing, 1 << 20))
        if not part:
            raise EOFError(f"{missing} of {size} bytes are missing")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def write_frame(
    stream: BinaryIO, said: dict[str, Any], arrays: Arrays, files: Sequence[File] = (), mark: bytes = b""
) -> None:
    """Write a line of JSON, then the files and arrays that it lists."""
    plain = {name: _little(array) for name, array in arrays.items()}
    listed = {
        "files": [(name, len(content)) for name, content in files],
        "arrays": [(name, array.dtype.str, array.shape) for name, array in plain.items()],
    }
    stream.write(mark + json.dumps({**said, **listed}).encode() + b"\n")
    for content in (*(content for _, content in files), *(array.tobytes() for array in plain.values())):
        stream.write(content)
    stream.flush()


def _little(array: Any) -> Any:
    """Return an array whose numbers have their least byte first."""
    return np.asarray(array, array.dtype.newbyteorder("<"))


def size_of(code: str, shape: Sequence[int]) -> int:
    """Return how many bytes an array has."""
    return np.dtype(code).itemsize * math.prod(shape)


def read_arrays(stream: BinaryIO, listed: list[Any]) -> Arrays:
    """Return the arrays that a line lists."""
    found = {}
    for name, code, shape in listed:
        content = read_exactly(stream, size_of(code, shape))
        found[name] = np.frombuffer(bytearray(content), np.dtype(code)).reshape(shape)
    return found


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


# --- answering ------------------------------------------------------------------------------------


class Answering:
    """What answers one question after the other."""

    def __init__(self, questions: BinaryIO, answers: BinaryIO) -> None:
        self.questions, self.answers = questions, answers
        self.runtime: Runtime | None = None
        self.folder = tempfile.TemporaryDirectory(prefix="far-side-")

    def answer_all(self) -> None:
        """Say that this is ready, then answer until there are no questions any more."""
        with self.folder:
            write_frame(self.answers, {}, {}, mark=MARK)
            for line in self.questions:
                question = json.loads(line)
                files = [(name, read_exactly(self.questions, size)) for name, size in question["files"]]
                given = read_arrays(self.questions, question["arrays"])
                said, arrays = self._tried(question, files, given)
                write_frame(self.answers, said, arrays, mark=MARK)

    def _tried(
        self, question: dict[str, Any], files: list[File], given: Arrays
    ) -> tuple[dict[str, Any], Arrays]:
        try:
            if question["ask"] == "open":
                return self._open(question, files), {}
            assert self.runtime is not None
            found = getattr(self.runtime, question["ask"])(given)
            return {"nodes": self.runtime.nodes}, found
        except Refusal as error:
            return {"error": error.kind, "says": _first_line(error)}, {}
        except ImportError as error:
            return {"error": "MissingDependencyError", "says": _first_line(error)}, {}
        except Exception as error:  # the runtime's own
            if isinstance(error, OSError) and error.errno in FULL:
                return {"error": "SpaceError", "says": f"cannot write temporary files: {error.strerror}"}, {}
            says = f"it crashes: {type(error).__name__}: {_first_line(error)}"
            return {"error": "CandidateError", "says": says}, {}

    def _open(self, question: dict[str, Any], files: list[File]) -> dict[str, Any]:
        places = []
        for name, content in files:
            places.append(os.path.join(self.folder.name, name))
            with open(places[-1], "wb") as stream:
                stream.write(content)
        package = importlib.import_module(question["package"])
        self.runtime = RUNTIMES[question["runtime"]](package, places, question["options"])
        known = {"version": _version(question["package"]), "machine": platform.machine()}
        return {**known, **self.runtime.facts(), "nodes": self.runtime.nodes}


def _version(package: str) -> str:
    names = importlib.metadata.packages_distributions().get(package, [])
    return importlib.metadata.version(names[0]) if names else ""


def main() -> None:
    """Answer on standard output, to which nobody else may write any more."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    questions = os.fdopen(os.dup(0), "rb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    Answering(questions, answers).answer_all()


if __name__ == "__main__":
    main()
