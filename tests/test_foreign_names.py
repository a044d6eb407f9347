"""What a name from a file can become: one path in its folder, one word, one identifier; or an error."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from conformance.foreign_names import FORMS, comment, plain_name
from refimpl.errors import FileError

HOSTILE = [
    "../escaped", "a/../../b", "/etc/passwd", "a//b", "a/", "", ".", "..", ".hidden", "a/.b", "a\0b", "a\n",
    "a\nb", "a b", "a\\..\\b", "C:x", "~root", "-rf", "$(id)", "`id`",
    "a;b", "a*b", "x" * 256, "é", "a\u202eb", "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("form", ["path", "identifier"])
def test_a_name_that_is_more_than_a_name_is_refused(name, form):
    with pytest.raises(FileError, match="cannot be used as a name") as raised:
        plain_name(name, form, "manifest.json")
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", [None, 3, ["a"], {}, b"a"])
def test_only_text_is_a_name(name, form):
    with pytest.raises(FileError):
        plain_name(name, form, "x")


@given(st.text(max_size=20))
@example("a/../b")
def test_what_is_accepted_stays_in_its_folder(name):
    for form in ("path", "file"):
        try:
            accepted = plain_name(name, form, "x")
        except FileError:
            continue
        parts = PurePosixPath("/folder", accepted).parts
        assert parts[:2] == ("/", "folder")
        assert len(parts) > 2
        assert ".." not in parts
        assert "\0" not in accepted


@given(st.text(max_size=20))
def test_a_word_is_one_word_of_one_line(name):
    try:
        accepted = plain_name(name, "word", "x")
    except FileError:
        return
    assert accepted.split() == [accepted]
    assert accepted.splitlines() == [accepted]


@given(st.text(alphabet="*/\\?\n\r\u2028 ax", max_size=30))
@example('*/\nint main(void){return system("id");}\n/*')
@example("**//")
@example("\\\n*/")
def test_no_text_ends_a_comment(text):
    made = comment(text)
    assert "*/" not in made
    assert made.splitlines() in ([made], [])


@pytest.mark.runtimes
@given(st.text(alphabet="*/\\?\n\rax ;{}#", max_size=30))
def test_a_compiler_sees_nothing_of_a_comment(text):
    source = f"/* {comment(text)} */\nalone"
    done = subprocess.run(
        ["gcc", "-E", "-P", "-std=c99", "-trigraphs", "-x", "c", "-"],
        input=source.encode(), capture_output=True, check=True,
    )  # fmt: skip
    assert re.sub(rb"\s", b"", done.stdout) == b"alone"


def test_names_in_use_are_accepted(tmp_path: Path):
    for name in ("operations/conv.same", "a", "a/b/c.d_e-f", "0"):
        assert plain_name(name, "path", "x") == name
    assert plain_name("/backbone/conv:0", "word", "x") == "/backbone/conv:0"
