"""The set: integrity, reproduction, limits, its schema, bad input, export and coverage."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import golden_candidate
import jsonschema
import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from conformance.cli import app
from golden import DATA, SCHEMA
from golden.check import check
from golden.coverage import TESTED, coverage, public_functions
from golden.export import export
from golden.store import read_manifest, rounded_up, write_json
from refimpl.errors import ConfigurationError, FileError
from refimpl.ops import OPERATIONS

ENTRIES = tuple(golden_candidate.ENTRIES.values())
ONE = "operations/conv.same"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A set of its own, to damage."""
    return Path(shutil.copytree(DATA, tmp_path / "data"))


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def manifest(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def rewrite(folder: Path, document: object) -> None:
    (folder / "manifest.json").write_text(json.dumps(document))


def test_this_code_reproduces_every_file() -> None:
    results = check()
    assert not [result for result in results if result.problem]
    assert len(results) == len(ENTRIES)


def test_the_manifest_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(SCHEMA.read_text()))
    jsonschema.validate(manifest(DATA), json.loads(SCHEMA.read_text()))


@pytest.mark.parametrize("key", ["sha256", "confirmed_by", "producer"])
def test_the_schema_misses_nothing_that_is_missing(key: str) -> None:
    document = manifest(DATA)
    record = document["goldens"][0]
    del (record["files"][0] if key == "sha256" else record)[key]
    with pytest.raises(jsonschema.ValidationError, match=key):
        jsonschema.validate(document, json.loads(SCHEMA.read_text()))


def test_limits_of_size() -> None:
    sizes = [
        path.stat().st_size for path in DATA.rglob("*") if path.is_file() and "trained" not in path.parts
    ]
    assert sum(sizes) <= 20_000_000
    assert max(sizes) <= 3_000_000


def test_every_operation_has_a_golden() -> None:
    from golden.declared.operations import CALLS

    assert {call.op_type for call in CALLS} == set(OPERATIONS)


def test_every_golden_is_confirmed_by_somebody_else() -> None:
    others = ("independent nn.Module", "PyTorch", "ONNX Runtime", "onnx.reference", "mpmath")
    others = (*others, "pycocotools", "brute force")
    for entry in ENTRIES:
        sources = [c["source"] for c in entry.record["confirmed_by"]]
        assert sources
        assert all(source.startswith(others) for source in sources)
        if entry.kind in ("block", "model"):
            assert sources[0].startswith("independent nn.Module")


def test_special_functions_are_within_an_ulp() -> None:
    ulps = {
        entry.name: confirmation["largest_disagreement"]
        for entry in ENTRIES
        for confirmation in entry.record["confirmed_by"]
        if confirmation["unit"] == "ulp"
    }
    for function in (
        "exp",
        "log",
        "sin",
        "cos",
        "sqrt",
        "tanh",
        "erf",
        "sigmoid",
        "pow",
        "reciprocal",
        "gelu",
        "swish",
        "mish",
        "softplus",
        "elu",
    ):
        assert any(name.startswith(f"operations/{function}.") for name in ulps)
    assert max(ulps.values()) <= 1


def test_inputs_are_exact_in_float16_and_bounds_are_no_nan() -> None:
    for entry in ENTRIES:
        for name, x in entry.tensors().items():
            if name.startswith("input.") and x.dtype == np.float32:
                with np.errstate(over="ignore"):
                    np.testing.assert_array_equal(x.astype(np.float16).astype(np.float32), x)
            if name.startswith("bound."):
                assert (x >= 0).all()
                assert x.dtype == np.float32


def test_a_bound_is_never_rounded_down() -> None:
    bounds = np.random.default_rng(0).random(1000) * 10.0 ** np.arange(-500, 500, 1).clip(-300, 30)
    assert (rounded_up(bounds).astype(np.float64) >= bounds).all()
    assert rounded_up(np.full((3, 4), 0.1)).shape == ()


def test_json_in_few_lines_says_the_same(tmp_path: Path) -> None:
    content = {
        "a": [1, [2, -3.5e-7], [], {}, {"b": [], "c": "[\n 1,\n 2]", "d": {"e": "{ \n}", "f": None}}],
        "g [": ["x\n  y", "],\n [", '"', "\\\n"],
    }
    write_json(tmp_path / "a.json", content)
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == content
    assert "[2, -3.5e-07]" in text


def test_every_public_function_is_covered() -> None:
    rows = coverage()
    assert not [row.function for row in rows if not row.goldens and not row.test]
    assert all(row.sources for row in rows if row.goldens)
    assert len([row for row in rows if row.goldens]) >= 225


def test_the_tests_named_instead_of_goldens_exist() -> None:
    functions = set(public_functions())
    for function, (reason, test) in TESTED.items():
        file, _, name = test.partition("::")
        assert function in functions
        assert reason
        assert f"\ndef {name}(" in (Path(__file__).parents[1] / file).read_text()


# Bad input.


def test_all_damage_is_listed_together(copied: Path) -> None:
    names = [entry.name for entry in ENTRIES if ".onnx" in entry.suffixes][:3]
    damage(copied / f"{names[0]}.safetensors")
    cut = copied / f"{names[1]}.safetensors"
    cut.write_bytes(cut.read_bytes()[:100])
    (copied / f"{names[2]}.onnx").unlink()
    (copied / "operations" / "mine.npy").write_bytes(b"x")
    with pytest.raises(FileError) as raised:
        check(copied)
    text = str(raised.value)
    for part in ("4 problems", "SHA-256", "cut off", "missing", "mine.npy: not in the manifest"):
        assert part in text


@pytest.mark.parametrize("length", [2**62, 10**6, 0, 3])
def test_a_header_that_lies_about_its_length(copied: Path, length: int) -> None:
    path = copied / f"{ONE}.safetensors"
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    with pytest.raises(FileError, match="no safetensors file"):
        next(entry for entry in read_manifest(copied) if entry.name == ONE).tensors()


def test_a_header_that_lies_about_a_shape(copied: Path) -> None:
    path = copied / f"{ONE}.safetensors"
    content = path.read_bytes()
    shape = json.dumps(list(load_file(path)["input.x"].shape), separators=(",", ":")).encode()
    assert shape in content
    path.write_bytes(content.replace(shape, shape.replace(b"5", b"9"), 1))
    with pytest.raises(FileError, match="no safetensors file"):
        next(entry for entry in read_manifest(copied) if entry.name == ONE).tensors()


def test_a_manifest_that_lies_about_a_shape(copied: Path) -> None:
    document = manifest(copied)
    record = next(r for r in document["goldens"] if r["name"] == ONE)
    record["tensors"]["input.x"]["shape"][0] = 7
    rewrite(copied, document)
    with pytest.raises(FileError, match=r"conv\.same: tensor input\.x"):
        check(copied)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda d: {**d, "version": 2}, "of version 2, this program reads version 1"),
        (lambda d: {**d, "format": "other"}, "expected a manifest"),
        (lambda d: [], "expected a manifest"),
        (lambda d: {k: v for k, v in d.items() if k != "goldens"}, "does not satisfy required"),
        (lambda d: {**d, "goldens": [{"name": "a"}]}, "does not satisfy required"),
    ],
)
def test_a_manifest_that_cannot_be_read(copied: Path, change: object, match: str) -> None:
    rewrite(copied, change(manifest(copied)))  # type: ignore[operator]
    with pytest.raises(FileError, match=match):
        read_manifest(copied)


def test_a_wrong_number_is_found_though_the_hash_is_right(copied: Path) -> None:
    from golden.store import sha256, write_tensors

    path, document = copied / f"{ONE}.safetensors", manifest(copied)
    tensors = load_file(path)
    tensors["truth.output"].flat[3] *= 1 + 1e-9
    write_tensors(path, tensors, ONE)
    file = next(
        f for r in document["goldens"] if r["name"] == ONE for f in r["files"] if "safetensors" in f["path"]
    )
    file.update(sha256=sha256(path), bytes=path.stat().st_size)
    rewrite(copied, document)
    done = CliRunner().invoke(app, ["golden", "check", "--data", str(copied)])
    assert done.exit_code == 1
    assert ONE in done.stdout


# Export.


@pytest.mark.parametrize("form", ["raw", "npy", "tnn-text", "c-header"])
def test_export(form: str, tmp_path: Path) -> None:
    count = export(tmp_path / "out", form, only=["operations/conv.same", "tracker/ordinary"])
    assert count == 2
    truth = next(entry for entry in ENTRIES if entry.name == ONE).tensors("truth.")["output"]
    stem = tmp_path / "out" / ONE
    if form == "raw":
        read = np.fromfile(f"{stem}.truth.output.f64", "<f8").reshape(truth.shape)
        np.testing.assert_array_equal(read, truth)
    elif form == "npy":
        np.testing.assert_array_equal(np.load(f"{stem}.truth.output.npy"), truth)
    elif form == "tnn-text":
        lines = Path(f"{stem}.truth.txt").read_text().split("\n")
        assert lines[:2] == ["1", "output mat_type: 32 dims: 4 " + " ".join(map(str, truth.shape))]
        np.testing.assert_allclose(np.array(lines[2:-1], float), truth.ravel(), atol=1e-6)
    else:
        text = Path(f"{stem}.h").read_text()
        values = text.split("operations_conv_same_truth_output[] = {")[1].split("}")[0].split(", ")
        np.testing.assert_array_equal([float.fromhex(v) for v in values], truth.ravel())
    assert (tmp_path / "out" / "tracker" / "ordinary.json").exists()


def test_export_refuses_a_full_folder_and_unknown_forms(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="is no empty folder"):
        export(tmp_path, "raw")
    with pytest.raises(ConfigurationError, match="no format 'matlab'"):
        export(tmp_path / "new", "matlab")


def test_nothing_of_conformance_or_refimpl_imports_golden() -> None:
    root = DATA.parents[1]
    for package in ("refimpl", "conformance"):
        for path in (root / package).rglob("*.py"):
            text = path.read_text()
            assert "import golden" not in text
            assert "from golden" not in text
