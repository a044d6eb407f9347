"""Files of wrong models are what the runtime's own converter makes of them."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from conformance.candidates.converters import CONVERTERS, convert
from conformance.candidates.phone_runtime import RECORD
from conformance.evidence.planted_files import WrongFiles, patched
from refimpl.ops.operation import Array

IMAGES = [1, 3, 6, 8]
RNG = np.random.default_rng(3)
CONSTANTS = {
    "kernel": RNG.standard_normal((5, 3, 3, 3), np.float32),
    "bias": RNG.standard_normal(5, np.float32),
    "matrix": RNG.standard_normal((8, 7), np.float32),
    "factor": np.float32(0.3),
}


def right() -> onnx.ModelProto:
    """Return a convolution and a product."""
    nodes = [
        helper.make_node("Conv", ["images", "kernel", "bias"], ["map"], "Conv", pads=[1, 1, 1, 1]),
        helper.make_node("MatMul", ["map", "matrix"], ["product"], "MatMul"),
        helper.make_node("Mul", ["product", "factor"], ["output"], "Mul"),
    ]
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
        for name, shape in (("images", IMAGES), ("output", [1, 5, 6, 7]))
    ]
    constants = [numpy_helper.from_array(array, name) for name, array in CONSTANTS.items()]
    graph = helper.make_graph(nodes, "small", *ends, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def with_constant(model: onnx.ModelProto, name: str, array: Array) -> onnx.ModelProto:
    """Return a copy of which a constant is another."""
    other = onnx.ModelProto()
    other.CopyFrom(model)
    held = next(each for each in other.graph.initializer if each.name == name)
    held.CopyFrom(numpy_helper.from_array(array, name))
    return other


def wrong(name: str = "kernel") -> onnx.ModelProto:
    """Return a model of which half a constant is 5 % off."""
    array = np.array(CONSTANTS[name])
    array[: len(array) // 2] *= np.float32(1.05)
    return with_constant(right(), name, array)


def file_of(model: onnx.ModelProto, kernel: Callable[[Array], Array] = lambda array: array) -> bytes:
    """Return what a runtime might be given: the constants behind each other, among other things."""
    held = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    parts = [kernel(held[name]) if name == "kernel" else held[name].T for name in held]
    return b"header" + b"between".join(np.ascontiguousarray(part).tobytes() for part in parts)


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 2, 3, 1), (2, 3, 1, 0)])
def test_a_constant_is_found_in_any_order_of_its_axes(axes: tuple[int, ...]) -> None:
    for name in ("kernel", "bias", "matrix"):
        files = [file_of(model, lambda array: array.transpose(axes)) for model in (right(), wrong(name))]
        assert files[0] != files[1]
        assert patched(files[0], right(), wrong(name)) == files[1]


def two_of_the_same() -> onnx.ModelProto:
    """Return a model of which two constants are the same numbers."""
    model = right()
    model.graph.initializer.append(numpy_helper.from_array(CONSTANTS["bias"][::-1].copy(), "other"))
    return model


def two_users() -> onnx.ModelProto:
    """Return a model whose matrix is used twice."""
    model = right()
    model.graph.node.append(helper.make_node("MatMul", ["map", "matrix"], ["again"], "Again"))
    return model


def test_a_constant_that_another_may_have_is_not_patched() -> None:
    """XNNPACK's are kept once, under their hash, whoever uses them."""
    plain = file_of(right())
    key = sha256(CONSTANTS["kernel"].tobytes()).hexdigest().encode()
    made = patched(plain + 2 * key, right(), wrong())
    assert made is not None
    assert key not in made
    assert patched(plain + 3 * key, right(), wrong()) is None


def test_what_may_be_converted_otherwise_is_not_patched() -> None:
    plain = file_of(right())
    several = with_constant(wrong("kernel"), "bias", CONSTANTS["bias"] * 2)
    attribute = right()
    attribute.graph.node[0].attribute[0].ints[0] = 2
    cases = {
        "nothing is otherwise": (plain, right(), right()),
        "an attribute": (plain, right(), attribute),
        "several constants": (plain, right(), several),
        "one number": (plain, right(), with_constant(right(), "factor", np.float32(0.4))),
        "folded": (plain.replace(CONSTANTS["kernel"].tobytes(), b""), right(), wrong()),
        "twice in the file": (plain + CONSTANTS["kernel"].tobytes(), right(), wrong()),
        "two constants of the same numbers": (
            plain,
            two_of_the_same(),
            with_constant(two_of_the_same(), "bias", CONSTANTS["bias"] * 2),
        ),
        "two users": (plain, two_users(), with_constant(two_users(), "matrix", CONSTANTS["matrix"] * 2)),
    }
    assert {name for name, case in cases.items() if patched(*case) is not None} == set()


@pytest.mark.runtimes
@pytest.mark.parametrize(
    "candidate", ["litert:xnnpack=on", "executorch:delegate=portable", "executorch:delegate=xnnpack"]
)
def test_what_is_patched_is_what_the_converter_makes(tmp_path: Path, candidate: str) -> None:
    name, _, options = candidate.partition(":")
    files = WrongFiles(candidate, right())
    sources = {}
    for which, model in (("right", right()), ("wrong", wrong())):
        sources[which] = tmp_path / f"{which}.onnx"
        onnx.save(model, sources[which])
        said = files.candidate_of(model, sources[which])
        held = Path(said.removeprefix(f"{name}:").removesuffix(f",{options}"))
    assert sources["right"].with_suffix(RECORD).is_file()
    assert not sources["wrong"].with_suffix(RECORD).exists()
    suffix = CONVERTERS[name].suffixes[0]
    delegate = options.removeprefix("delegate=") if name == "executorch" else None
    made = convert(CONVERTERS[name], sources["wrong"], tmp_path / f"made{suffix}", delegate=delegate)[0]
    assert held.read_bytes() == made.read_bytes()
    assert held.read_bytes() != sources["right"].with_suffix(suffix).read_bytes()
