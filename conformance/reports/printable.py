"""Names from other people's files, made fit to be shown on one line."""

from __future__ import annotations

import unicodedata

UNSHOWN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode's categories of what is not seen but steers: controls, direction marks, line and paragraph ends."""


def printable(text: str) -> str:
    r"""Return text with every character that would steer a terminal, or end a line, as its escape.

    Examples
    --------
    >>> print(printable("a\x1b[31mb\nc"))
    a\x1b[31mb\nc
    >>> printable("Grüße × 3")
    'Grüße × 3'
    """
    # Python's own test has all of them, and is much quicker.
    return text if text.isprintable() else "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    if unicodedata.category(character) not in UNSHOWN:
        return character
    return character.encode("unicode_escape").decode("ascii")
