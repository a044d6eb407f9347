"""Names that strangers' files bring, before they become a path, a word of a text format, or code."""

from __future__ import annotations

import re

from refimpl.errors import FileError

LONGEST = 255
"""Bytes of a file's name on every file system in use."""
SHOWN = 80
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
FORMS = {
    "path": (rf"{_PART}(/{_PART})*", "parts of letters, digits and _.-, joined by /"),
    "file": (r"(?!\.{1,2}\Z)[^/\\\x00-\x1f\x7f]+", "a file's name, without / or control characters"),
    "word": (r"[^\s\x00-\x20\x7f]+", "one word, without space or control characters"),
    "identifier": (r"[A-Za-z_][A-Za-z0-9_]*", "letters, digits and _, no digit first"),
}
"""What a name becomes → the whole of what it may be, and that in words."""


def plain_name(name: object, form: str, where: str) -> str:
    """Return a name as it is, if it can become what is asked for and nothing else.

    Parameters
    ----------
    name
        From a file.
    form
        Of `FORMS`. Such a path stays in its folder, such a word does not end its line, and such an identifier
        is one in C.
    where
        The file or the thing it names, for the error.

    Raises
    ------
    FileError
        It is no text, too long, or of another form.

    Examples
    --------
    >>> plain_name("operations/conv.same", "path", "manifest.json")
    'operations/conv.same'
    """
    pattern, words = FORMS[form]
    fits = isinstance(name, str) and re.fullmatch(pattern, name) is not None
    if not fits or len(str(name).encode(errors="replace")) > LONGEST:
        raise FileError(
            f"{where}: {shown(name)} cannot be used as a name; expected {words}, at most {LONGEST} bytes"
        )
    return str(name)


def shown(name: object) -> str:
    """Return a name for an error: in quotes, control characters escaped, cut where it is long."""
    text = ascii(name) if isinstance(name, str) else repr(name)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def comment(text: str) -> str:
    """Return a text that can stand in a comment of C, in one line: nothing in it ends the comment.

    Examples
    --------
    >>> comment("halves */ int main;")
    'halves * / int main;'
    """
    one_line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    # A backslash joins lines, and ??/ is one in old C: "*\\" and a new line before "/" would end the comment.
    plain = one_line.replace("\\", "/").replace("??/", "?? /")
    return re.sub(r"\*(?=/)", "* ", plain)
