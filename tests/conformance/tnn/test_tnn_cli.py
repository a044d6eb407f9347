"""The commands on TNN's files: the real runtime's are judged rightly, planted faults are named."""

from __future__ import annotations

import io
import json
import shlex
import shutil
import sys
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
from narrow_network import OPTIONS, picture, weights
from onnx import TensorProto, helper
from tnn_converter import converted
from tnn_data import TRAP_OF, file, graph, graph_names, inputs, unpacked

import conformance.tnn.archive
from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate
from conformance.cli import main
from conformance.graph.onnx_graph import OnnxGraph
from conformance.tnn.export import for_tnn
from conformance.tnn.graph import read_graph, write_graph
from conformance.tnn.text import DumpName, parse_dump_name, read_dump, write_check, write_dump, write_output
from refimpl.errors import ConfigurationError

pytestmark = pytest.mark.usefixtures("small_backbones")

STAND_IN = Path(__file__).parents[2] / "support" / "tnn_stand_in.py"
PROGRAM = f"{shlex.quote(sys.executable)} {shlex.quote(str(STAND_IN))}"


class Finished(NamedTuple):
    """What a command left behind; ``data`` is its JSON."""

    code: int
    out: str
    err: str
    data: Any


def run(*arguments: Any) -> Finished:
    """Run `mobileinst` as from a shell, in this process, with its JSON on standard output if asked for."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["mobileinst", *map(str, arguments)])
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    written = out.getvalue()
    return Finished(code, written, err.getvalue(), json.loads(written) if written.startswith("{") else None)


def verify(*arguments: Any) -> Finished:
    return run("verify", *arguments, "--json", "-")


# --- many files -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def surveyed() -> Finished:
    folder = unpacked("ops") / "ops"
    assert unpacked("arm") / "ops" == folder
    return verify(folder)


@pytest.mark.parametrize("name", graph_names())
def test_real_conversions_and_runs_are_judged_without_a_false_alarm(name, surveyed):
    (row,) = [row for row in surveyed.data["models"] if Path(row["proto"]).stem == name]
    runs = {item["label"]: (item["arithmetic"], item["verdict"]) for item in row["runs"]}
    assert runs.pop("ARM_AUTO") == ("float16", "pass")
    assert runs.pop("ARM_HIGH") == ("float32", "pass")
    assert runs.pop("NAIVE") == ("float32", "pass")
    assert set(runs.values()) <= {("float32", "pass")}
    traps = [trap["rule"] for layer in row["conversion"]["layers"] for trap in layer["traps"]]
    assert traps == ([TRAP_OF[name]] if name in TRAP_OF else [])
    assert row["verdict"] == ("conversion lost the meaning" if name in TRAP_OF else "correct")


def test_a_table_with_lost_conversions_is_a_failure(surveyed):
    assert (surveyed.code, surveyed.data["verdict"], len(surveyed.data["models"])) == (1, "fail", 41)


@pytest.fixture
def copied(tmp_path):
    """Return a function that copies a graph and all beside it into a folder."""

    def copy(name: str) -> Path:
        unpacked("arm")
        proto = file(name, ".tnnproto")
        for path in proto.parent.glob(f"{proto.stem}.*"):
            shutil.copy(path, tmp_path)
        return tmp_path / proto.name

    return copy


def replaced(path: Path, change) -> None:
    path.write_text(change(path.read_text()))


def with_value(text: str, value: str) -> str:
    lines = text.splitlines()
    return "\n".join([*lines[:-1], value, ""])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: with_value(text, "0.25"), "error"),
        (lambda text: with_value(text, "-nan"), "NaN or infinite at"),
        (lambda text: text[: len(text) // 2], "too short"),
        (lambda text: text.replace("y mat_type", "z mat_type"), "are not the graph's"),
        (lambda text: "", "empty"),
    ],
)
def test_a_wrong_run_is_a_runtime_error_with_its_reason(change, reason, copied):
    proto = copied("dotprod_mask")
    replaced(proto.with_suffix(".NAIVE.out"), change)
    found = run("verify", proto)
    assert found.code == 1
    assert "runtime error" in found.out
    assert f"{proto.name}: NAIVE:" in found.out
    assert reason in found.out


def test_a_file_that_cannot_be_read_is_a_row_and_not_an_end(copied):
    first, second = copied("gemm"), copied("mha")
    first.write_bytes(first.read_bytes()[:40])
    found = verify(first, second)
    assert found.code == 2
    assert [row["verdict"] for row in found.data["models"]] == ["unreadable", "correct"]


def test_a_conversion_that_lost_an_attribute_says_which(copied):
    proto = copied("mha")
    replaced(proto, lambda text: text.replace("softmax15 3", "softmax15 2"))
    found = run("verify", proto)
    assert found.code == 1
    said = " ".join(found.out.split())
    assert "first at SoftmaxCaffe 'Softmax_15': attribute axis" in said
    assert "axis of Softmax is 3 in the source, 2 in the layer" in said


def test_a_conversion_lost_to_no_known_trap_says_where(copied):
    proto = copied("more/un_abs")
    replaced(proto, lambda text: text.replace('"Abs n', '"Neg n'))
    found = run("verify", proto)
    assert found.code == 1
    assert "first at Neg 'n': no known trap explains it" in " ".join(found.out.split())


def test_reduced_precision_does_not_pass_as_float32(copied):
    proto = copied("mha")
    shutil.copy(proto.with_suffix(".ARM_AUTO.out"), proto.with_suffix(".ARM_HIGH.out"))
    assert verify(proto).data["models"][0]["verdict"] == "runtime error"


# --- conversion -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mha", *TRAP_OF])
def test_against_its_source(name):
    found = run("verify", file(name, ".tnnproto"), "--against", file(name, ".onnx"))
    assert found.code == (1 if name in TRAP_OF else 0)
    assert TRAP_OF.get(name, "PASS") in found.out


def test_against_another_model_is_bad_input():
    found = verify(file("mha", ".tnnproto"), "--against", file("gemm", ".onnx"))
    assert found.code == 2
    assert found.err.count("\n") == 1
    assert "different models" in found.err


# --- dumps ----------------------------------------------------------------------------------------


def dump_of(device: str) -> Path:
    return unpacked("mha_dumps") / "mha_dumps" / device


@pytest.mark.parametrize(
    ("device", "arithmetic"),
    [("dump_mha_x86", "float32"), ("dump_mha_arm_HIGH", "float32"), ("dump_mha_arm_AUTO", "float16")],
)
def test_a_real_dump_passes_in_the_arithmetic_declared(device, arithmetic, tmp_path):
    archive = tmp_path / "dump.tar.xz"
    with tarfile.open(archive, "w:xz") as content:
        content.add(dump_of(device), "some/place")
    for place in (dump_of(device), archive):
        found = verify(file("mha", ".tnnproto"), "--dump", place, "--arithmetic", arithmetic)
        assert (found.code, found.data["first_fault"]) == (0, None)


def test_half_precision_declared_as_single_is_suspected():
    found = run("verify", file("mha", ".tnnproto"), "--dump", dump_of("dump_mha_arm_AUTO"))
    assert found.code == 1
    assert "another precision? See --arithmetic" in found.out


def member(name: str, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([member("../../escaped.txt")], "cannot be used as a name"),
        ([member("link", type=tarfile.SYMTYPE, linkname="/etc/passwd")], "is a link or a device"),
        ([member("a/x.txt"), member("b/y.txt")], "files in 2 folders"),
        ([member("x.txt", size=9 << 30)], "unexpected end of data"),
    ],
)
def test_an_archive_is_not_trusted(members, message, tmp_path):
    archive = tmp_path / "dump.tar"
    archive.write_bytes(b"".join(item.tobuf() for item in members) + bytes(1024))
    found = verify(file("mha", ".tnnproto"), "--dump", archive)
    assert found.code == 2
    assert message in found.err
    assert not (tmp_path.parent / "escaped.txt").exists()


class Repeated(io.RawIOBase):
    """A file of zeros, so many."""

    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, size: int = -1) -> bytes:
        given = min(size, self.left)
        self.left -= given
        return bytes(given)


@pytest.mark.parametrize("where", ["a file", "a header", "many files"])
def test_an_archive_does_not_unpack_without_end(where, tmp_path, monkeypatch):
    """A header is a member like any other, and is read whole by `tarfile`."""
    monkeypatch.setattr(conformance.tnn.archive, "MOST_BYTES", 2**20)
    archive = tmp_path / "dump.tar.xz"
    with tarfile.open(archive, "w:xz") as content:
        for index in range(30 if where == "many files" else 1):
            size = 2**16 if where == "many files" else 2**22
            kind = tarfile.XHDTYPE if where == "a header" else tarfile.REGTYPE
            content.addfile(member(f"{index}.txt", size=size, type=kind), Repeated(size))
    assert archive.stat().st_size < 10_000
    found = verify(file("mha", ".tnnproto"), "--dump", archive)
    assert (found.code, found.err.count("\n")) == (2, 1)
    assert "unpacks to more than 1 MiB; unpack it yourself" in found.err


def test_archives_need_no_filters_of_a_later_python(tmp_path, monkeypatch):
    """Python 3.11.2, that of Debian 12, has none."""
    for name in ("data_filter", "tar_filter", "fully_trusted_filter"):
        monkeypatch.delattr(tarfile, name)
    plain = tarfile.TarFile.extract
    monkeypatch.setattr(tarfile.TarFile, "extract", lambda self, member, path="": plain(self, member, path))
    archive = tmp_path / "dump.tar.gz"
    with tarfile.open(archive, "w:gz") as content:
        content.add(dump_of("dump_mha_x86"), "some/place")
    assert verify(file("mha", ".tnnproto"), "--dump", archive).code == 0


def test_a_damaged_archive_is_one_line(tmp_path):
    archive = tmp_path / "dump.tar.xz"
    with tarfile.open(archive, "w:xz") as content:
        content.add(dump_of("dump_mha_x86"), "dump")
    archive.write_bytes(archive.read_bytes()[:-3000])
    found = verify(file("mha", ".tnnproto"), "--dump", archive)
    assert (found.code, found.err.count("\n")) == (2, 1)
    assert str(archive) in found.err


@pytest.mark.parametrize("error", [0.0, 1e-3])
def test_what_model_check_and_tnntest_write_is_judged(error, tmp_path):
    session = onnxruntime.InferenceSession(file("mha", ".onnx"), providers=["CPUExecutionProvider"])
    outputs = {"y": session.run(["y"], inputs("mha"))[0] + np.float32(error)}
    write_output(tmp_path / "tnntest.txt", outputs)
    write_check(tmp_path / "check.txt", outputs)
    (tmp_path / "do").mkdir()
    for side in ("cpu", "device"):
        text = "\n".join(f"{value:.6g}" for value in outputs["y"].ravel())
        (tmp_path / "do" / f"{side}_y.txt").write_text(text)
    for place in ("tnntest.txt", "check.txt", "do"):
        found = verify(file("mha", ".tnnproto"), "--dump", tmp_path / place)
        assert found.code == (1 if error else 0)


# --- runs -----------------------------------------------------------------------------------------


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """Return a function that runs a graph by the stand-in of TNNTest, which plays a trap."""

    def play(name: str, mode: str, *arguments: Any, flags: str = "") -> Finished:
        monkeypatch.setenv("STAND_IN_ONNX", str(file(name, ".onnx")))
        monkeypatch.setenv("STAND_IN_MODE", mode)
        monkeypatch.setenv("STAND_IN_CALLS", str(tmp_path / "calls"))
        return verify(file(name, ".tnnproto"), "--runner", f"{PROGRAM} {flags}", *arguments)

    return play


@pytest.mark.parametrize(
    ("mode", "flags", "code", "said"),
    [
        ("", "-dt X86", 0, "float32"),
        ("half", "-dt ARM -pr AUTO", 0, "reduced"),
        ("nan", "-dt X86", 1, ""),
        ("half", "-dt ARM -pr HIGH", 2, "the errors of float16"),
        ("error", "-dt ARM", 2, "empty implemented_layouts"),
        ("silent", "", 2, "exited with 0"),
        ("short", "", 2, "too short"),
        ("renamed", "", 2, "the graph has ['y']"),
        ("status", "", 2, "exited with 3"),
    ],
)
def test_a_run_through_a_command_and_each_trap(mode, flags, code, said, stand_in):
    found = stand_in("mha", mode, flags=flags)
    assert found.code == code
    if code == 2:
        assert said in found.err
        assert found.err.count("\n") == 1
    else:
        assert found.data["runs"][0]["found"] == said


def test_a_run_that_hangs_is_ended(stand_in):
    found = stand_in("mha", "hang", "--timeout", 1)
    assert (found.code, "no answer within 1 s" in found.err) == (2, True)


def test_a_batch_goes_on_where_it_stopped(stand_in, tmp_path):
    shape = graph("gemm").proto.inputs[0].dims
    paths = []
    for index in range(3):
        values = np.random.default_rng(index).standard_normal(shape)
        paths += [tmp_path / f"{index}.txt"]
        np.savetxt(paths[-1], values.ravel(), "%.9g")
    given = [word for path in paths for word in ("--input", path)]
    assert stand_in("gemm", "", *given[:4], "--keep-outputs", tmp_path / "kept").code == 0
    found = stand_in("gemm", "", *given, "--keep-outputs", tmp_path / "kept")
    assert [row["label"] for row in found.data["runs"]] == ["0.txt", "1.txt", "2.txt"]
    assert (tmp_path / "calls").read_text().count("\n") == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--adb"], "--adb has no effect on a table of converted models"),
        (["--adb", "--weights", "w.npz"], "--adb has no effect without --runner"),
        (["--serial", "x", "--runner", "r"], "--serial has no effect without --adb"),
        (["--dump", "d", "--runner", "r"], "--runner has no effect on a dump"),
        (["--dump", "d", "--runner", "r", "--weights", "w.npz"], "two runs"),
        (["--dump", "d", "--against", "m.onnx"], "--dump has no effect on a conversion"),
        (["--arithmetic", "float16"], "--arithmetic has no effect on a table"),
        (["--dump", "absent"], "no such file or folder"),
        (["--runner", "'"], "command"),
        (["--html", "r.html"], "(MODEL.tnnproto with --weights or --model)"),
        (["--input", "absent.txt", "--runner", "absent"], "cannot be read"),
        (["--dump", str(Path(__file__).parent), "--arithmetic", "float64"], "expected one of float32"),
    ],
)
def test_options_that_do_not_go_together(arguments, message):
    found = run("verify", file("gemm", ".tnnproto"), *arguments)
    assert (found.code, found.out) == (2, "")
    assert message in found.err


def test_options_of_tnn_need_its_files(tmp_path):
    assert "--dump has no effect" in run("verify", file("gemm", ".onnx"), "--dump", "x").err
    assert "no .tnnproto in this folder" in run("verify", tmp_path).err
    two = [file("gemm", ".tnnproto"), file("mha", ".tnnproto")]
    assert "exactly one .tnnproto" in run("verify", *two, "--against", "x.onnx").err


# --- the whole network ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    """A folder with a whole network exported for TNN, and converted."""
    folder = tmp_path_factory.mktemp("network")
    weights().save(folder / "w.safetensors")
    given = ["--weights", folder / "w.safetensors", "--size", "64x96"]
    assert run("export", folder / "m.onnx", "--target", "tnn", *OPTIONS, *given).code == 0
    write_graph(converted(onnx.load(folder / "m.onnx")), folder / "m.tnnproto")
    return folder


def mobileinst(folder: Path, model: str, *arguments: Any) -> Finished:
    return verify(folder / model, *OPTIONS, "--weights", folder / "w.safetensors", *arguments)


def test_the_export_is_static_explicit_and_clean(network):
    assert run("lint", network / "m.onnx", "--target", "tnn").code == 0
    model = onnx.load(network / "m.onnx")
    assert not {"Expand", "Where", "Einsum", "Erf", "BatchNormalization", "Shape"} & {
        node.op_type for node in model.graph.node
    }
    for info in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        assert all(dim.dim_value > 0 for dim in info.type.tensor_type.shape.dim)
    constants = {item.name for item in model.graph.initializer}
    for node in model.graph.node:
        assert not set(node.input) <= constants
        assert not set("/: ") & set("".join([node.name, *node.input, *node.output]))
    pools = [node for node in model.graph.node if node.op_type in ("Conv", "MaxPool", "AveragePool")]
    assert all({"pads", "strides"} <= {item.name for item in node.attribute} for node in pools)


def test_the_export_and_what_becomes_of_it_are_mobileinst(network):
    assert mobileinst(network, "m.onnx", "--input", save(network)).code == 0
    assert verify(network / "m.tnnproto", "--against", network / "m.onnx").code == 0
    assert mobileinst(network, "m.tnnproto").code == 0


def save(folder: Path) -> Path:
    np.save(folder / "x.npy", picture())
    return folder / "x.npy"


def test_a_converted_network_with_another_weight_is_not_mobileinst(network, tmp_path):
    for path in network.iterdir():
        shutil.copy(path, tmp_path)
    found = read_graph(tmp_path / "m.tnnproto")
    layer = next(item for item in found.proto.layers if item.outputs[0] == "mask_decoder.top_down.1.conv")
    buffer = found.resources[layer.name].buffers["weight"]
    buffer.values.flags.writeable or object.__setattr__(buffer, "values", buffer.values.copy())
    buffer.values[3, 2, 1, 1] *= 1.5
    write_graph(found, tmp_path / "m.tnnproto")
    judged = mobileinst(tmp_path, "m.tnnproto")
    assert (judged.code, judged.data["first_fault"]["step"].split("/")[0]) == (1, "mask_decoder.top_down.1")
    compared = verify(tmp_path / "m.tnnproto", "--against", tmp_path / "m.onnx")
    assert {row["name"] for row in compared.data["layers"] if row["verdict"] == "fail"} == {layer.name}


@pytest.fixture(scope="module")
def dumped(network) -> Path:
    """The blob dump of a run of the whole network by ONNX Runtime, slopes of six digits as in the file."""
    model, found = onnx.load(network / "m.onnx"), read_graph(network / "m.tnnproto")
    for node in model.graph.node:
        if node.op_type == "HardSigmoid":
            for item in node.attribute:
                item.f = float(f"{item.f:g}")
    captured = OnnxRuntimeCandidate(OnnxGraph.load(model)).capture(picture())
    blobs = (
        {name: buffer.values for name, buffer in found.constants.items()} | {"images": picture()} | captured
    )
    (network / "dump").mkdir()
    for index, layer in enumerate(found.proto.layers):
        for is_input, names in ((True, layer.inputs), (False, layer.outputs)):
            for operand, blob in enumerate(names):
                name = DumpName(index, layer.name, is_input, operand, blob, blobs[blob].shape)
                write_dump(network / "dump", name, blobs[blob])
    return network / "dump"


def test_a_dump_of_the_whole_network_passes(network, dumped):
    found = mobileinst(network, "m.tnnproto", "--dump", dumped, "--input", save(network))
    assert found.code == 0
    assert len(found.data["nodes"]) > 200


def test_ten_planted_errors_are_found_each_at_its_layer(network, dumped, tmp_path):
    """Who reads the blob was given another one than it shows, so nobody else is wrong."""
    shutil.copytree(dumped, tmp_path / "dump")
    blobs = sorted({parse_dump_name(path.name).blob for path in dumped.glob("*-out-*")})
    planted = set(np.random.default_rng(0).choice(blobs, 10, replace=False).tolist())
    for path in (tmp_path / "dump").iterdir():
        name = parse_dump_name(path.name)
        if name.blob in planted:
            values = read_dump(path)
            values.flat[values.size // 3] += 1e-3 * np.abs(values).max()
            write_dump(tmp_path / "dump", name, values)
    found = verify(network / "m.tnnproto", "--dump", tmp_path / "dump", "--input", save(network))
    failed = [row for row in found.data["steps"] if row["verdict"] == "fail"]
    assert {row["tensor"] for row in failed} >= planted
    assert all(row["tensor"] in planted or planted & set(row["operands"]) for row in failed)


# --- the other commands ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*TRAP_OF, "mha"])
def test_lint(name):
    found = run("lint", file(name, ".onnx"), "--target", "tnn", "--json", "-")
    assert found.code == (1 if name in TRAP_OF else 0)
    assert [item["rule"] for item in found.data["findings"]] == ([TRAP_OF[name]] if name in TRAP_OF else [])
    assert TRAP_OF.get(name, "nothing known to break") in run("lint", file(name, ".onnx")).out


def test_lint_of_nothing_and_for_nowhere(tmp_path):
    assert run("lint", tmp_path / "absent.onnx").code == 2
    assert "known: tnn" in run("lint", file("mha", ".onnx"), "--target", "nowhere").err


def test_explain_counts_the_products_of_a_matrix_product():
    found = run("explain", file("gemm", ".tnnproto"), "--json", "-")
    rows, inner = graph("gemm").proto.inputs[0].dims
    outputs = found.data["layers"][0]["outputs"]
    ((_, columns),) = outputs.values()
    assert found.data["totals"]["products"] == rows * inner * columns
    assert "Transpose_4" in run("explain", file("mha", ".tnnproto")).out


@pytest.mark.parametrize("operator", ["ReduceSum", "Erf"])
def test_what_the_converter_does_not_know_is_refused(operator):
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy")
    found = helper.make_graph([helper.make_node(operator, ["x"], ["y"])], "g", [x], [y])
    with pytest.raises(ConfigurationError, match=operator):
        for_tnn(helper.make_model(found, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def test_targets_are_named(tmp_path):
    assert "known: tnn" in run("export", tmp_path / "m.onnx", "--target", "ncnn").err


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("lrn", "0.01 0.75 1 3", "0.01 0.75 1", "parameter length is missing"),
        ("lrn", "0.01 0.75 1 3", "0.01 0.75 1 3 5", "1 parameters too many: 5"),
        ("expand", "4 1 4 6 8", "5 1 4 6 8", "parameter dims is missing"),
        ("expand", "4 1 4 6 8", "-1", "the count of dims is -1"),
        ("un_elu", "b y 1", "b y", "parameter alpha is missing"),
        ("prelu", "0 0", "0 2", "parameter has_filler is 2"),
        ("pow2", "2 1 0", "2 nan 0", "parameter scale is 'nan'"),
    ],
)
def test_parameters_too_few_or_too_many_are_one_line_and_exit_code_2(copied, name, old, new, said):
    proto = copied(f"more/{name}")
    replaced(proto, lambda text: text.replace(f" {old} ,", f" {new} ,"))
    for command in (("explain", proto), ("verify", proto, "--against", proto.with_suffix(".onnx"))):
        found = run(*command)
        assert found.code == 2
        assert said in " ".join(found.err.split())
        assert "Traceback" not in found.err
