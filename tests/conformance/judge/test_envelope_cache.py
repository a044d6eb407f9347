"""Envelopes kept between runs: found again for the same content only, whatever happens to the files."""

from __future__ import annotations

from pathlib import Path

import narrow_network
import numpy as np
import pytest

from conformance.bounds import FLOAT16, Declaration, envelope
from conformance.judge import envelope_cache
from conformance.judge.envelope_cache import cached_envelope
from refimpl import Recording, record
from refimpl.errors import FileError

pytestmark = pytest.mark.usefixtures("small_backbones")

DECLARED = Declaration()


@pytest.fixture(scope="module")
def recording() -> Recording:
    """The reference's run."""
    return record(narrow_network.network(np.float64), narrow_network.picture().astype(np.float64))


def test_the_same_content_is_found_again(
    recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "new" / "cache"
    expected = envelope.envelope(recording, DECLARED)
    assert cached_envelope(recording, DECLARED, None) == expected
    assert cached_envelope(recording, DECLARED, folder) == expected
    (path,) = folder.iterdir()

    def refuse(*_: object, **__: object) -> dict[str, float]:
        raise AssertionError("computed again")

    monkeypatch.setattr(envelope, "envelope", refuse)
    assert cached_envelope(recording, DECLARED, folder) == expected
    with pytest.raises(AssertionError, match="computed again"):
        cached_envelope(recording, Declaration(storage=FLOAT16), folder)
    for torn in ("", "{", "[]", '{"masks": 1.0}', path.read_text().replace(": ", ": -")):
        path.write_text(torn)
        with pytest.raises(AssertionError, match="computed again"):
            cached_envelope(recording, DECLARED, folder)


def test_another_input_has_another_envelope(recording: Recording) -> None:
    other = record(narrow_network.network(np.float64), 2 * narrow_network.picture().astype(np.float64))
    assert envelope_cache._key(recording, DECLARED) != envelope_cache._key(other, DECLARED)
    assert envelope_cache._key(recording, DECLARED) == envelope_cache._key(recording, DECLARED)


def test_the_oldest_go(recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope_cache, "MOST_FILES", 2)
    monkeypatch.setattr(envelope, "envelope", lambda *_, **__: dict.fromkeys(recording.outputs, 1.0))
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text("{}")
    cached_envelope(recording, DECLARED, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_be_made(recording: Recording, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    expected = envelope.envelope(recording, DECLARED)
    assert cached_envelope(recording, DECLARED, tmp_path / "file") == expected


def test_no_flipped_bit_is_believed(tmp_path: Path) -> None:
    """Every bit of a file, and the same file under another name."""
    path, written = tmp_path / "key.json", {"logits": 1.25e-6, "masks": np.inf, "kernels": 0.0}
    envelope_cache._write(path, "key", written)
    assert envelope_cache._read(path, "key", written) == written
    with pytest.raises(FileError):
        envelope_cache._read(path, "other", written)
    content = path.read_bytes()
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            found = envelope_cache._read(path, "key", written)
        except FileError:
            continue
        assert found == written, f"bit {bit}"


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"envelope": {"masks": NaN}, "sha256": ""}', "\xff", "{" * 9]
)
def test_what_is_no_envelope_is_computed_again(content: str, recording: Recording, tmp_path: Path) -> None:
    expected = cached_envelope(recording, DECLARED, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(content.encode("latin-1"))
    assert cached_envelope(recording, DECLARED, tmp_path) == expected
