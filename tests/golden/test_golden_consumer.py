"""The consumer in C++17: compiled without warnings, it passes on the goldens and refuses what is damaged."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from golden import DATA

pytestmark = pytest.mark.runtimes
SOURCE = Path(__file__).parents[2] / "docs" / "golden" / "consumer.cpp"


@pytest.fixture(scope="module")
def consumer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("consumer") / "consumer"
    flags = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["g++", *flags, str(SOURCE), "-o", str(program)], check=True)
    return program


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("operations/conv.same", ["conv", 1]),
        ("operations/conv.pointwise", ["conv", 0]),
        ("operations/conv.wide_sum", ["conv", 1]),
        ("operations/softmax.last", ["softmax"]),
        ("probes/softmax.hundred", ["softmax"]),
    ],
)
def test_it_passes(consumer: Path, name: str, arguments: list[object]) -> None:
    done = run(consumer, DATA / f"{name}.safetensors", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("pass\n")


def test_the_page_shows_what_it_prints(consumer: Path) -> None:
    page = (SOURCE.parent.parent / "check-your-port.md").read_text()
    for name, arguments in (("operations/conv.same", ["conv", 1]), ("probes/softmax.hundred", ["softmax"])):
        printed = run(consumer, DATA / f"{name}.safetensors", *arguments).stdout
        # The figure depends on the compiler; the words do not.
        words, _, _ = printed.partition("error / bound")
        assert words in page


def test_a_wrong_operation_fails(consumer: Path, tmp_path: Path) -> None:
    tensors = load_file(DATA / "operations" / "conv.same.safetensors")
    tensors["input.w"] = tensors["input.w"][:, :, ::-1, ::-1].copy()
    save_file(tensors, tmp_path / "flipped.safetensors")
    done = run(consumer, tmp_path / "flipped.safetensors", "conv", 1)
    assert done.returncode == 1
    assert done.stdout.endswith("fail\n")


@pytest.mark.parametrize("length", [0, 7, 100, 2000])
def test_a_file_cut_off_is_an_error(consumer: Path, tmp_path: Path, length: int) -> None:
    content = (DATA / "operations" / "conv.same.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[:length])
    done = run(consumer, tmp_path / "cut.safetensors", "conv", 1)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
