"""Conversions that kept the meaning pass, the others are named with their trap; the runtime says which."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from tnn_data import TRAP_OF, file, graph, graph_names, inputs, naive_outputs

from conformance.graph.onnx_graph import OnnxGraph
from conformance.tnn.conversion import compare_conversion
from conformance.tnn.graph import TnnGraph, join
from conformance.tnn.lint import lint
from conformance.tnn.model import Model, RawBuffer, Resource
from conformance.tnn.proto import parse_proto, write_proto
from refimpl.errors import ShapeError


@functools.cache
def wrong_conversions() -> set[str]:
    """Return the graphs for which the runtime does not compute what ONNX Runtime makes of their source."""
    return {name for name in graph_names() if _differs(name)}


def _differs(name: str) -> bool:
    session = onnxruntime.InferenceSession(file(name, ".onnx"), providers=["CPUExecutionProvider"])
    expected = session.run(None, inputs(name))
    found = naive_outputs(name)
    return any(
        np.abs(found[output.name] - array).max() > 1e-4 * np.abs(array).max()
        for output, array in zip(session.get_outputs(), expected, strict=True)
    )


def source(name: str) -> OnnxGraph:
    return OnnxGraph.load(file(name, ".onnx"))


def test_the_files_hold_both_kinds():
    assert wrong_conversions() == set(TRAP_OF)
    assert len(graph_names()) > 35


@pytest.mark.parametrize("name", graph_names("more"))
def test_further_conversions_kept_the_meaning(name):
    conversion = compare_conversion(graph(name), source(name))
    assert conversion.kept
    assert conversion.unmatched == ()


@pytest.mark.parametrize("name", graph_names())
def test_real_conversions_are_judged_as_the_runtime_behaves(name):
    conversion = compare_conversion(graph(name), source(name))
    findings = {finding.rule for finding in lint(file(name, ".onnx"))}
    assert conversion.unmatched == ()
    assert {meaning.tensor for meaning in conversion.meanings} >= set(graph(name).proto.outputs)
    if name in wrong_conversions():
        assert not conversion.kept
        (fault,) = conversion.faults
        assert [trap.rule for trap in fault.traps] == [TRAP_OF[name]]
        assert findings == {TRAP_OF[name]}
    else:
        assert conversion.kept
        assert findings == set()


@pytest.mark.parametrize("name", sorted(TRAP_OF))
def test_a_trap_is_found_on_the_runtime_s_own_inputs(name):
    (fault,) = compare_conversion(graph(name), source(name), inputs(name)).faults
    assert fault.error > 0.01
    assert fault.index != ()


def test_different_seeds_judge_alike():
    for seed in range(3):
        assert compare_conversion(graph("mha"), source("mha"), seed=seed).kept
        assert not compare_conversion(graph("resize_asym"), source("resize_asym"), seed=seed).kept


@pytest.mark.parametrize(
    ("name", "old", "new", "layer"),
    [
        ("mha", b"reshape7 transpose8 4 0 2 3 1", b"reshape7 transpose8 4 0 3 1 2", "Transpose_8"),
        ("mha", b"softmax15 3", b"softmax15 2", "Softmax_15"),
        ("mha", b"w16 y 1 1e-05", b"w16 y 1 0.001", "Add_30"),
        ("conv1x1_add_relu", b"ReLU Relu_3", b"Sigmoid Relu_3", "Relu_3"),
        ("conv_bn_relu6", b"ReLU6", b"ReLU", "Clip_3"),
        ("hardsigmoid", b"0.166667", b"0.2", "HardSigmoid_1"),
        ("dwconv_s2", b"3 3 2 2 1 1 1", b"3 3 2 2 0 0 1", "Conv_1"),
        ("maxpool_ceil", b"-1 1 0 0 0", b"-1 0 0 0 0", "MaxPool_1"),
        ("resize_aligncorners", b"2 2 2 1", b"2 2 2 0", "Resize_1"),
        ("split_swap_concat", b"split1_1 split1_0 y", b"split1_0 split1_1 y", "Concat_2"),
        ("slice_gather", b"1 2 1 9", b"1 3 1 10", "Slice_1"),
        ("reshape_transpose", b"3 0 2 1", b"3 0 1 2", "Transpose_2"),
        ("gelu_erf", b"GELU", b"ReLU", "Mul_5"),
    ],
)
def test_a_planted_mistake_is_found_at_its_layer_alone(name, old, new, layer):
    content = write_proto(graph(name).proto)
    assert old in content
    planted = join(parse_proto(content.replace(old, new), name), graph(name).model, name)
    conversion = compare_conversion(planted, source(name))
    assert {fault.name for fault in conversion.faults} == {layer}


def with_buffers(found: TnnGraph, change) -> TnnGraph:
    """Return a graph whose constants went through ``change(owner, role, buffer)``."""
    resources = tuple(
        dataclasses.replace(
            item, buffers={role: change(item.name, role, b) for role, b in item.buffers.items()}
        )
        for item in found.model.resources
    )
    constants = {name: change(name, "map", buffer) for name, buffer in found.constants.items()} or None
    return join(
        found.proto, dataclasses.replace(found.model, resources=resources, constants=constants), "changed"
    )


@pytest.mark.parametrize(
    ("name", "owner", "role"),
    [
        ("mha", "MatMul_9", "constant"),
        ("mha", "w15", "map"),
        ("gemm", "Gemm_1", "bias"),
        ("bn_alone", "", "scale"),
    ],
)
def test_one_altered_constant_is_blamed(name, owner, role):
    def alter(who: str, what: str, buffer: RawBuffer) -> RawBuffer:
        values = buffer.values.copy()
        if (who == owner or not owner) and what == role:
            values.flat[3] *= 1.0001
        return RawBuffer(values, buffer.dtype)

    conversion = compare_conversion(with_buffers(graph(name), alter), source(name))
    names = {fault.name for fault in conversion.faults}
    assert names == {owner or "BatchNormalization_1"}
    assert all((fault.type == "constant") == (role == "map") for fault in conversion.faults)


@pytest.mark.parametrize("name", ["mha", "conv_bn_relu6", "gemm", "se_hsig_mul"])
def test_half_weights_are_storage_not_another_meaning(name):
    half = with_buffers(graph(name), lambda who, what, b: RawBuffer(b.values.astype(np.float16), 1))
    assert compare_conversion(half, source(name)).kept


def test_a_lost_output_and_another_model_are_named():
    proto = dataclasses.replace(graph("multi_io").proto, outputs=("cls",))
    conversion = compare_conversion(dataclasses.replace(graph("multi_io"), proto=proto), source("multi_io"))
    assert conversion.lost_outputs == ("mask",)
    assert not conversion.kept
    with pytest.raises(ShapeError, match="different models"):
        compare_conversion(graph("mha"), source("gemm"))


def test_a_layer_of_another_shape_is_a_fault_not_a_crash():
    content = write_proto(graph("avgpool2").proto).replace(b"1 2 2 2 2", b"1 2 2 1 1")
    (fault,) = compare_conversion(
        join(parse_proto(content, "p"), graph("avgpool2").model, "p"), source("avgpool2")
    ).faults
    assert "shape (1, 16, 7, 11), in the source (1, 16, 4, 6)" in fault.message


def one_node(
    operator: str, dims: tuple[int, ...], constants=(), opset: int = 13, **attributes
) -> onnx.ModelProto:
    """Return a model of one node on ``x`` and constants; a constant of None is an absent operand."""
    held = [(f"c{index}", value) for index, value in enumerate(constants) if value is not None]
    operands = ["x", *("" if value is None else f"c{index}" for index, value in enumerate(constants))]
    node = helper.make_node(operator, operands, ["y"], name="node", **attributes)
    infos = [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    arrays = [numpy_helper.from_array(value, name) for name, value in held]
    found = helper.make_graph([node], "g", infos, [result], arrays)
    return helper.make_model(found, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def converted(line: str, dims: tuple[int, ...], **buffers: np.ndarray) -> TnnGraph:
    """Return the graph the converter makes: one layer from ``x`` to ``y``."""
    lines = ("1 2 1 4206624772", f"x {len(dims)} {' '.join(map(str, dims))} 0", "x y", "y", "1", line)
    proto = parse_proto("".join(f'"{words} ,"\n' for words in lines).encode(), "p")
    held = {role: RawBuffer(values) for role, values in buffers.items()}
    layer_type, name = line.split()[:2]
    return join(proto, Model((Resource(layer_type, name, held, 1),) if held else ()), "p")


WEIGHT = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("model", "line", "buffers", "trap"),
    [
        (
            one_node("Conv", (1, 3, 9, 9), [WEIGHT], pads=[0, 0, 2, 2], strides=[1, 1]),
            "Convolution c 1 1 x y 1 3 4 3 3 1 1 0 0 0 0 1 1 0",
            {"weight": WEIGHT},
            "asymmetric-pads",
        ),
        (
            one_node("Resize", (1, 3, 10, 13), [None, np.float32([1, 1, 1.7, 1.7])], mode="linear"),
            "Upsample u 1 1 x y 2 1.7 1.7 0",
            {},
            "resize-floored-scale",
        ),
        (
            one_node("Resize", (1, 3, 7, 7), [None, None, np.array([1, 3, 10, 10])], mode="nearest"),
            "Upsample u 1 1 x y 1 0 0 0 10 10",
            {},
            "resize-nearest-rule",
        ),
    ],
)
def test_traps_without_a_real_file_are_confirmed_by_replay(model, line, buffers, trap):
    dims = tuple(dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim)
    (fault,) = compare_conversion(converted(line, dims, **buffers), OnnxGraph.load(model)).faults
    assert [item.rule for item in fault.traps] == [trap]


def test_a_mistake_that_no_trap_makes_is_not_blamed_on_one():
    """The source falls into a trap, but the layer computes something else again."""
    content = write_proto(graph("resize_asym").proto).replace(b"2 2 2 0", b"2 2 2 1")
    planted = join(parse_proto(content, "p"), graph("resize_asym").model, "p")
    (fault,) = compare_conversion(planted, source("resize_asym")).faults
    assert fault.traps == ()


def of_one_node(op: str, line: str, x, attributes, **constants):
    """Return a graph of one layer as the converter writes it, and its source of one node."""
    constants = {name: np.asarray(value) for name, value in constants.items()}
    outputs = ["y", "z"] if " y z" in line else ["y"]
    node = helper.make_node(op, ["x", *constants], outputs, **attributes)
    infos = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)]
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    arrays = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    found = helper.make_graph([node], "g", infos, made, arrays)
    model = helper.make_model(found, opset_imports=[helper.make_opsetid("", 21)], ir_version=8)
    mapped = {
        name: RawBuffer(v) for name, v in constants.items() if f" {name} " in line and v.dtype.kind == "f"
    }
    mapped |= {
        name: RawBuffer(v.astype(np.int32), 3)
        for name, v in constants.items()
        if f" {name} " in line and v.dtype.kind == "i"
    }
    names = ["x", *mapped, *outputs]
    lines = (
        f"1 {len(names)} 1 4206624772",
        f"x {len(x)} {' '.join(map(str, x))} 0",
        " ".join(names),
        " ".join(outputs),
        "1",
        line,
    )
    text = "".join(f'"{words} ,"\n' for words in lines).encode()
    return join(parse_proto(text, "proto"), Model((), mapped or None), "made"), OnnxGraph.load(model)


IMAGE = (1, 4, 6, 6)
GRID = np.float32(0.9) * np.random.default_rng(0).standard_normal((1, 3, 3, 2)).astype(np.float32)
ROIS = np.float32([[0.3, 0.4, 4.2, 3.9]])
SCALE = np.float32([1, 2, 3, 4])
LOST = [
    ("Flatten", "Flatten n 1 1 x y 0", (2, 3, 4), {}, {}, "axis of Flatten is 1 by default, 0 in the layer"),
    (
        "Split",
        "SplitV n 1 2 x y z 1 0",
        (2, 4),
        {"num_outputs": 2},
        {},
        "axis of Split is 0 by default, 1 in",
    ),
    ("Selu", "Selu n 1 1 x y 0 0", IMAGE, {}, {}, "gamma of Selu is 1.05"),
    ("LogSoftmax", "LogSoftmax n 1 1 x y 1", IMAGE, {}, {}, "axis of LogSoftmax is -1 by default, 1 in"),
    (
        "LpNormalization",
        "Normalize n 1 1 x y 0 1e-10 0 1 2",
        IMAGE,
        {},
        {},
        "axis of LpNormalization is -1 by default",
    ),
    (
        "MaxPool",
        "Pooling n 1 1 x y 0 2 2 1 1 0 0 -1 -1 -1 0 0 0 0",
        IMAGE,
        {"kernel_shape": [2, 2], "dilations": [2, 2]},
        {},
        "dilations of MaxPool is (2, 2) in the source, None in the layer",
    ),
    (
        "GridSample",
        "GridSample n 2 1 x grid y 2 0 0",
        IMAGE,
        {"align_corners": 1},
        {"grid": GRID},
        "align_corners of GridSample is 1 in the source, 0 in the layer",
    ),
    (
        "RoiAlign",
        "RoiAlign n 3 1 x rois batch y 1 2 2 2 1",
        IMAGE,
        {"output_height": 2, "output_width": 2, "sampling_ratio": 2},
        {"rois": ROIS, "batch": np.array([0])},
        "coordinate_transformation_mode of RoiAlign is half_pixel by default, output_half_pixel in the layer",
    ),
    (
        "GroupNormalization",
        "GroupNorm n 3 1 x scale bias y 2 1e-05",
        IMAGE,
        {"num_groups": 2, "epsilon": 0.1},
        {"scale": SCALE, "bias": SCALE},
        "epsilon of GroupNormalization is 0.1",
    ),
    (
        "Pow",
        "Power n 1 1 x y 1 1 0",
        (2, 2),
        {},
        {"e": np.float32([1, 2])},
        "y of Pow is [1. 2.] in the source, 1.0 in the layer",
    ),
    (
        "ScatterElements",
        "ScatterElements n 3 1 x i u y 1 0",
        (2, 3),
        {"axis": 1, "reduction": "add"},
        {"i": np.array([[0], [2]]), "u": np.float32([[5], [7]])},
        "reduction of ScatterElements is add",
    ),
    (
        "Shape",
        "Shape n 1 1 x y",
        IMAGE,
        {"start": 1},
        {},
        "start of Shape is 1 in the source, 0 in the layer",
    ),
]


@pytest.mark.parametrize(
    ("op", "line", "x", "attributes", "constants", "said"), LOST, ids=[case[0] for case in LOST]
)
def test_an_attribute_that_the_converter_lost_is_named(op, line, x, attributes, constants, said):
    found, read = of_one_node(op, line, x, attributes, **constants)
    (fault, *_) = compare_conversion(found, read).faults
    assert any(said in str(lost) for lost in fault.attributes), fault
    assert len(fault.attributes) <= 2


def product_of_constants(change=lambda product: product):
    """Return x · (a · b) as a converter folds it, in float32, and its source; the product loses digits."""
    generator = np.random.default_rng(0)
    a, b = generator.standard_normal((2, 64, 64)).astype(np.float32)
    # The last rows cancel the others but for a fiftieth.
    b[-32:] = b[:32]
    a[:, -32:] = -a[:, :32] * np.float32(1.02)
    nodes = [helper.make_node("MatMul", ["a", "b"], ["w"]), helper.make_node("MatMul", ["x", "w"], ["y"])]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 64)) for name in ("x", "y")]
    arrays = [numpy_helper.from_array(value, name) for name, value in (("a", a), ("b", b))]
    model = helper.make_model(
        helper.make_graph(nodes, "g", infos[:1], infos[1:], arrays),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    folded = onnxruntime.InferenceSession(product_alone(a, b), providers=["CPUExecutionProvider"]).run(
        None, {}
    )[0]
    head = ("1 2 1 4206624772", "x 2 1 64 0", "x y", "y", "1", "MatMul n 1 1 x y 1")
    text = "".join(f'"{words} ,"\n' for words in head).encode()
    resource = Resource("MatMul", "n", {"constant": RawBuffer(change(folded))}, 105)
    return join(parse_proto(text, "proto"), Model((resource,)), "made"), OnnxGraph.load(model)


def product_alone(a, b) -> bytes:
    node = helper.make_node("MatMul", ["a", "b"], ["w"])
    arrays = [numpy_helper.from_array(value, name) for name, value in (("a", a), ("b", b))]
    w = helper.make_tensor_value_info("w", TensorProto.FLOAT, (64, 64))
    graph = helper.make_graph([node], "g", [], [w], arrays)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return model.SerializeToString()


def test_constants_multiplied_ahead_of_time_are_judged_with_the_roundings_that_this_adds():
    found, read = product_of_constants()
    conversion = compare_conversion(found, read)
    assert conversion.kept
    # Without them it would have been a fault.
    (meaning,) = conversion.meanings
    x = np.random.default_rng(0).standard_normal((1, 64)).astype(np.float32).astype(np.float64)
    weight = found.resources["n"].buffers["constant"].values.astype(np.float64)
    plain = 8 * 2.0**-24 * (np.abs(x) @ np.abs(weight))
    assert meaning.error > plain.min()
    assert meaning.ratio < 0.5


def test_a_wrong_product_of_constants_is_a_fault():
    wrong = product_of_constants(lambda product: product * np.float32(1.05))
    assert [fault.name for fault in compare_conversion(*wrong).faults] == ["n"]


def of_nodes(nodes, given, lines, blobs, resources=(), mapped=None, opset=14, **constants):
    """Return the graph of some lines, and its source; ``given`` is input → dtype and shape."""
    codes = {TensorProto.FLOAT: 0, TensorProto.BOOL: 2, TensorProto.INT64: 3}
    declared = " : ".join(
        f"{name} {len(shape)} {' '.join(map(str, shape))} {codes[kind]}"
        for name, (kind, shape) in given.items()
    )
    head = (f"1 {len(blobs.split())} 1 4206624772", declared, blobs, "y", f"{len(lines)}", *lines)
    text = "".join(f'"{words} ,"\n' for words in head).encode()
    infos = [helper.make_tensor_value_info(name, *info) for name, info in given.items()]
    arrays = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    model = helper.make_model(
        helper.make_graph(nodes, "g", infos, [y], arrays),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=8,
    )
    held = {name: RawBuffer(v, 3 if v.dtype.kind == "i" else 0) for name, v in (mapped or {}).items()}
    return join(parse_proto(text, "proto"), Model(tuple(resources), held or None), "made"), OnnxGraph.load(
        model
    )


FLOATS = (TensorProto.FLOAT, (2, 3))


def test_integers_and_truth_values_may_be_inputs():
    given = {"a": FLOATS, "b": FLOATS, "c": (TensorProto.BOOL, (2, 3))}
    node = helper.make_node("Where", ["c", "a", "b"], ["y"])
    assert compare_conversion(*of_nodes([node], given, ["Where n 3 1 a b c y"], "a b c y")).kept
    swapped = compare_conversion(*of_nodes([node], given, ["Where n 3 1 b a c y"], "a b c y"))
    assert not swapped.kept
    assert "ARM has no kernel for Where" in swapped.remarks[0]

    given = {"a": FLOATS, "i": (TensorProto.INT64, (2,))}
    node = helper.make_node("Gather", ["a", "i"], ["y"], axis=1)
    assert compare_conversion(*of_nodes([node], given, ["Gather n 2 1 a i y 1 0 0"], "a i y")).kept


def test_a_shape_computed_in_the_graph_is_followed():
    nodes = [
        helper.make_node("Shape", ["a"], ["s"]),
        helper.make_node("Gather", ["s", "i"], ["s0"], axis=0),
        helper.make_node("Unsqueeze", ["s0", "z"], ["s1"]),
        helper.make_node("Concat", ["s1", "m"], ["s2"], axis=0),
        helper.make_node("Reshape", ["a", "s2"], ["y"]),
    ]
    lines = [
        "Shape l0 1 1 a s",
        "Gather l1 1 1 s s0 0 0 1",
        "Unsqueeze l2 1 1 s0 s1 1 0",
        "Concat l3 2 1 s1 m s2 0",
        "Reshape l4 2 1 a s2 y 0 0 0 0",
    ]
    index = Resource("Gather", "l1", {"indices": RawBuffer(np.array(0, np.int32), 3)}, 104)
    conversion = compare_conversion(
        *of_nodes(
            nodes,
            {"a": (TensorProto.FLOAT, (2, 3, 4))},
            lines,
            "a s s0 s1 m s2 y",
            [index],
            {"m": np.array([-1], np.int32)},
            i=np.array(0),
            z=np.array([0]),
            m=np.array([-1]),
        )
    )
    assert conversion.kept
    assert len(conversion.meanings) == 6


@pytest.mark.parametrize(("line", "kept"), [("x w r b y 0 3 2", True), ("x r w b y 0 3 2", False)])
def test_a_recurrent_layer_stands_for_what_rearranges_its_result(line, kept):
    generator = np.random.default_rng(0)
    shapes = {"w": (2, 12, 3), "r": (2, 12, 3), "b": (2, 24)}
    weights = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r", "b"], ["h"], hidden_size=3, direction="bidirectional"),
        helper.make_node("Transpose", ["h"], ["t"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["t", "q"], ["y"]),
    ]
    given = {"x": (TensorProto.FLOAT, (5, 2, 3))}
    made = of_nodes(
        nodes, given, [f"LSTMONNX n 4 1 {line}"], "x w r b y", (), weights, q=np.array([0, 0, -1]), **weights
    )
    assert compare_conversion(*made).kept == kept
