"""TNN's files: real ones come back byte for byte; hostile ones are named errors before any allocation."""

from __future__ import annotations

import contextlib
import dataclasses
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tnn_data import file, graph, graph_names

from conformance.tnn.graph import join, read_graph, write_graph
from conformance.tnn.model import Model, RawBuffer, Resource, parse_model, read_model, write_model
from conformance.tnn.proto import MAGIC, MAGIC_V1, parse_proto, read_proto, write_proto
from refimpl.errors import FileError, MobileInstError, UnsupportedOperationError


@pytest.mark.parametrize("name", [*graph_names(), *graph_names("more")])
def test_real_files_come_back_byte_for_byte(name):
    for suffix, parse, write in (
        (".tnnproto", parse_proto, write_proto),
        (".tnnmodel", parse_model, write_model),
    ):
        content = file(name, suffix).read_bytes()
        assert write(parse(content, name)) == content
    assert graph(name).proto.magic == MAGIC


def test_written_graph_is_read_back(tmp_path):
    write_graph(graph("mha"), tmp_path / "again.tnnproto")
    assert (tmp_path / "again.tnnproto").read_bytes() == file("mha", ".tnnproto").read_bytes()
    assert (tmp_path / "again.tnnmodel").read_bytes() == file("mha", ".tnnmodel").read_bytes()


def test_weights_are_those_of_the_onnx_file():
    onnx = pytest.importorskip("onnx")
    model = onnx.load(file("mha", ".onnx"))
    arrays = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
    found = graph("mha")
    np.testing.assert_array_equal(found.resources["MatMul_1"].buffers["constant"].values, arrays["w0"])
    np.testing.assert_array_equal(found.constants["w15"].values, arrays["w15"])


@pytest.mark.parametrize("name", ["bn_alone", "conv_pad_h1_w0", "gemm"])
def test_every_truncation_of_a_model_is_a_named_error(name):
    content = file(name, ".tnnmodel").read_bytes()
    for length in range(len(content)):
        with pytest.raises(FileError, match=r"m: byte \d+"):
            parse_model(content[:length], "m")


@pytest.mark.parametrize("name", ["mha", "multi_io"])
def test_every_truncation_of_a_proto_is_a_named_error(name):
    content = file(name, ".tnnproto").read_bytes().rstrip()
    for length in range(len(content)):
        with pytest.raises(MobileInstError):
            parse_proto(content[:length], "m")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_files_never_crash(data):
    name = data.draw(st.sampled_from(["mha", "se_hsig_mul", "layernorm_decomp"]))
    suffix, parse = data.draw(st.sampled_from([(".tnnproto", parse_proto), (".tnnmodel", parse_model)]))
    content = bytearray(file(name, suffix).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        # Headers are where the counts stand, so most damage goes there.
        content[data.draw(st.integers(0, min(len(content) - 1, 200)))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(MobileInstError):
        parse(bytes(content), name)


@pytest.mark.parametrize("position", [4, 12, 28, 60, 64, 68])
def test_lying_counts_allocate_nothing(position):
    """Number of layers, length of a type and a name, size, rank and dimension of a buffer: past the end."""
    content = bytearray(file("bn_alone", ".tnnmodel").read_bytes())
    assert struct.unpack_from("<i", content, position)[0] in (1, 12, 20, 64, 16)  # the count that is replaced
    struct.pack_into("<i", content, position, 0x7FFFFFF0)
    tracemalloc.start()
    try:
        with pytest.raises(FileError, match="byte"):
            parse_model(bytes(content), "m")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_bytes_after_the_end_are_an_error():
    with pytest.raises(FileError):
        parse_model(file("mha", ".tnnmodel").read_bytes() + b"\0", "m")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"Convolution Conv_1", b"Convolution Conv_1 1", "byte"),
        (b"ReLU Relu_3", b"Wobble Relu_3", "unknown layer type 'Wobble'"),
        (b"1 4 1 4206624772", b"1 5 1 4206624772", "announces 5 blobs"),
        (b"1 4 1 4206624772", b"1 4 1 123", "magic 0x7b"),
        (b'" 3 ,"', b'" 4 ,"', "3 lines follow"),
        (b"4 1 16 16 24 0", b"4 1 16 16 -1 0", "static"),
        (b"4 1 16 16 24 0", b"4 1 16 16 24 9", "dtype 9"),
        (b"4 1 16 16 24 0", b"5 1 16 16 24 0", "rank 5"),
        (b"conv1 x add2 -1", b"conv1 z add2 -1", "does not list"),
        (b"1 16 16 1 1 1 1 0 0 1 -1 1 1 0", b"1 16 16 1 1 1 1 0 0 1 -1 1", "dilation_w is missing"),
        (b"1 16 16 1 1 1 1 0 0 1 -1 1 1 0", b"1 16 16 1 1 1 1 0 0 1 -1 1 1 0 0", "too many"),
        (b"1 16 16 1 1 1 1 0 0 1 -1 1 1 0", b"1 16 16 1 1 0 1 0 0 1 -1 1 1 0", "stride_h is 0"),
        (b"1 16 16 1 1 1 1 0 0 1 -1 1 1 0", b"1 16 16 1 1 1 1 0 0 1 -1 1 1 3", "activation is 3"),
        (b"1 16 16 1 1 1 1 0 0 1 -1 1 1 0", b"1 16 16 1 1 1 1 0 0 1 -1 1 1 x", "expected an integer"),
        (b'"y ,"', b'"q ,"', "no layer computes"),
        (b"ReLU Relu_3", b"ReLU Add_2", "second layer named"),
        (b"add2 y", b"add2 conv1", "exists already"),
        (b'"y ,"', b"y", "truncated"),
    ],
)
def test_malformed_protos_are_named(old, new, message):
    content = file("conv1x1_add_relu", ".tnnproto").read_bytes()
    assert old in content
    with pytest.raises(MobileInstError, match=message):
        parse_proto(content.replace(old, new), "m.tnnproto")


def test_an_unknown_layer_type_says_what_to_do():
    content = file("sigmoid", ".tnnproto").read_bytes().replace(b"Sigmoid Sig", b"Wobble Sig")
    with pytest.raises(UnsupportedOperationError, match=r"line 6 \(byte \d+\), layer 'Sigmoid_1'.*lint"):
        parse_proto(content, "m.tnnproto")


def test_files_of_different_models_are_named(tmp_path):
    for proto, model in (
        ("mha", "gemm"),
        ("gemm", "bn_alone"),
        ("conv3x3_c64", "conv_pad_h1_w0"),
        ("gemm", "gap"),
    ):
        with pytest.raises(FileError, match="different models"):
            read_graph(file(proto, ".tnnproto"), file(model, ".tnnmodel"))
    with pytest.raises(FileError, match="cannot be read"):
        read_graph(tmp_path / "absent.tnnproto")
    with pytest.raises(FileError, match="magic"):
        read_model(file("gap", ".tnnproto"))
    with pytest.raises(FileError, match="tnnmodel"):
        read_proto(file("mha", ".tnnmodel"))


def test_a_missing_constant_map_is_named():
    found = graph("layernorm_decomp")
    with pytest.raises(FileError, match=r"reads \['w2', 'w3'\]"):
        join(found.proto, dataclasses.replace(found.model, constants=None), "m")


def test_version_1_has_no_dims_and_is_read():
    found = graph("conv_pad_h1_w0")
    proto = dataclasses.replace(found.proto, magic=MAGIC_V1)
    model = dataclasses.replace(found.model, magic=MAGIC_V1)
    assert b'"x 1 3 32 48 ,"' in write_proto(proto)
    again = join(parse_proto(write_proto(proto), "p"), parse_model(write_model(model), "m"), "v1")
    weight = again.resources["Conv_1"].buffers["weight"].values
    assert again.proto == proto
    assert len(write_model(model)) < len(write_model(found.model))
    np.testing.assert_array_equal(weight, found.resources["Conv_1"].buffers["weight"].values.ravel())


@pytest.mark.parametrize(("dtype", "stored"), [(1, np.float16), (2, np.int8), (3, np.int32)])
def test_dtypes_come_back(dtype, stored):
    values = np.arange(6, dtype=stored).reshape(2, 3)
    model = Model((Resource("Add", "a", {"constant": RawBuffer(values, dtype)}, 38),))
    (resource,) = parse_model(write_model(model), "m").resources
    np.testing.assert_array_equal(resource.buffers["constant"].numbers(), values)
    assert resource.buffers["constant"].values.dtype == stored


def test_bfloat16_is_widened():
    values = np.array([1.0, -2.5, 3.0e38], np.float32)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    model = Model((Resource("Add", "a", {"constant": RawBuffer(bits, 4)}, 38),))
    widened = parse_model(write_model(model), "m").resources[0].buffers["constant"].numbers()
    np.testing.assert_allclose(widened, values, rtol=2**-7)


def test_a_50_megabyte_model_parses_without_copies():
    weight = RawBuffer(np.ones((1024, 1024, 3, 4), np.float32))
    layers = (Resource("Convolution", "c", {"weight": weight}, 1, "c"),)
    content = write_model(Model(layers, {"k": RawBuffer(np.zeros(1000, np.float32))}))
    assert len(content) > 50_000_000
    model = parse_model(content, "m")
    assert np.shares_memory(model.resources[0].buffers["weight"].values, np.frombuffer(content, np.uint8))
