"""Models in packages: what is taken of an archive, what is fed, what becomes of those that crash or hang."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser
from onnx.reference import ReferenceEvaluator

from conformance.evidence import models
from conformance.evidence.model_files import ModelFile, Package, declared, package_models
from conformance.evidence.model_trial import Trial, fed, trial
from conformance.evidence.program import end_with
from conformance.graph.onnx_graph import OnnxGraph
from refimpl.errors import FileError

TEXT = """<ir_version: 8, opset_import: ["" : 17]> g (float[N, 4] x, int64 k) => (float[N, 4] y)
{ r = Relu(x)  c = Cast<to = 1>(k)  y = Mul(r, c) }"""


def model() -> bytes:
    return bytes(parser.parse_model(TEXT).SerializeToString())


def placed(folder: Path, package: Package, suffix: str) -> Path:
    """Return where a package's archive is looked for, so that nothing is downloaded."""
    place = folder / "packages" / package.name / package.version
    place.mkdir(parents=True)
    return place / f"it{suffix}"


def wheel(folder: Path, files: dict[str, bytes], name: str = "it") -> Package:
    package = Package("pypi", name, "1.0", {"*": {"x": "2x4", "k": "=3"}})
    with zipfile.ZipFile(placed(folder, package, ".whl"), "w") as archive:
        for each, content in files.items():
            archive.writestr(each, content)
    return package


def test_a_model_is_taken_once_whatever_packages_it_ships_in(tmp_path: Path) -> None:
    known: set[str] = set()
    one = wheel(tmp_path, {"a/net.onnx": model(), "a/same.onnx": model(), "a/code.py": b"raise SystemExit"})
    two = wheel(tmp_path, {"../../net.onnx": model()}, "other")
    found = [*package_models(tmp_path, known, one), *package_models(tmp_path, known, two)]
    assert [(each.name, each.source, each.path.read_bytes()) for each in found] == [
        ("net.onnx", "it 1.0", model())
    ]
    assert {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")} == {"packages", "files"}


def test_a_library_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(models, "declared", list)
    monkeypatch.setattr(models, "architectures", lambda: [("of_nobody", "net")])
    monkeypatch.setattr(
        "sys.argv", ["models", "--folder", str(tmp_path), "--page", str(tmp_path / "page.md")]
    )
    with pytest.raises(SystemExit) as ended:
        end_with(models.main)
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "error: of_nobody is not installed; pip install 'mobileinst-reference[models]'\n"
    )
    assert not (tmp_path / "page.md").exists()


def test_a_model_in_chunks_is_joined(tmp_path: Path) -> None:
    package = Package("npm", "it", "1.0", chunks="package/dist/list.json")
    said = {"/models/small": {"chunks": [{"hash": "aa"}, {"hash": "bb"}]}, "/wasm/x": {"chunks": []}}
    content = model()
    files = {"list.json": json.dumps(said).encode(), "bb": content[20:], "aa": content[:20]}
    with tarfile.open(placed(tmp_path, package, ".tgz"), "w:gz") as archive:
        for name, part in files.items():
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(part)
            archive.addfile(entry, io.BytesIO(part))
    (found,) = package_models(tmp_path, set(), package)
    assert (found.name, found.path.read_bytes()) == ("small.onnx", content)


def test_archives_that_are_damaged_or_claim_too_much_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = wheel(tmp_path, {"net.onnx": model()})
    monkeypatch.setattr("conformance.limits.MOST_BYTES", 10)
    with pytest.raises(FileError, match="claims"):
        list(package_models(tmp_path, set(), package))
    file = next((tmp_path / "packages").rglob("*.whl"))
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(FileError, match="damaged"):
        list(package_models(tmp_path, set(), package))


def test_what_an_input_is_fed(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(model())
    found = trial(path, {"x": "2x4", "k": "=3"})
    assert (found.verdict, found.nodes, found.judged, found.says) == ("pass", 3, 1.0, "")
    assert found.forwards > 1
    feeds = fed(OnnxGraph.load(path), {"x": "2x4<5", "k": "=3"}, 0)
    assert feeds["x"].dtype == np.float32
    assert set(feeds["x"].ravel()) <= {0, 1, 2, 3, 4}
    (expected,) = ReferenceEvaluator(onnx.load(path)).run(None, feeds)
    np.testing.assert_array_equal(expected, 3 * feeds["x"])


def test_a_crash_a_hang_and_a_refusal_are_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(model())
    file = ModelFile(path, "net", "it 1.0", {"x": "2x4", "k": "=3"})
    assert models.judged(file).trial.verdict == "pass"
    refused = models.judged(ModelFile(path, "net", "it 1.0")).trial
    assert (refused.verdict, "dynamic axes" in refused.says) == ("refused", True)
    misread = models.judged(ModelFile(path, "net", "it 1.0", {"x": "2x4<zero"})).trial
    assert (misread.verdict, "'2x4<zero'" in misread.says) == ("refused", True)
    crashed = models.judged(ModelFile(path, "net", "it 1.0", {"x": "2x4<0"})).trial
    assert (crashed.verdict, crashed.says[:9]) == ("crash", "status 1:")
    monkeypatch.setattr(models, "LONGEST", 0.01)
    hung = models.judged(file).trial
    assert (hung.verdict, hung.says) == ("hang", "no end within 0.01 s")


def test_the_page_says_what_the_rows_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(model())
    found = [(models.PACKAGES, ModelFile(path, name, "it 1.0", {"x": "2x4", "k": "=3"})) for name in "ab"]
    broken = (models.PACKAGES, models.Row("c", "it 1.0", Trial("not fetched", says="no such package")))
    monkeypatch.setattr(models, "models", lambda folder, pattern: iter([*found, broken]))
    monkeypatch.setattr(
        "sys.argv", ["models", "--folder", str(tmp_path), "--page", str(tmp_path / "page.md")]
    )
    models.main()
    text = (tmp_path / "page.md").read_text()
    assert "3 models: 1 not fetched, 2 pass." in text
    assert text.count("| 3 | 100.0% | pass |") == 2
    assert "- c (it 1.0): no such package" in text
    before = (tmp_path / "page.json").read_bytes()
    models.main()
    assert (tmp_path / "page.json").read_bytes() == before


def test_the_list_names_each_package_once_at_one_version() -> None:
    packages = declared()
    assert len({package.name for package in packages}) == len(packages) >= 20
    assert {package.registry for package in packages} == {"pypi", "npm"}
