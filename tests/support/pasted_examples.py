"""Five counterexamples as tests to paste, one in each language, as docs/check-tracker.md shows them.

python tests/support/pasted_examples.py
"""

from __future__ import annotations

from conformance.trackers.known_bad_trackers import KNOWN_BAD
from conformance.trackers.pasted_tests import pasted_test
from conformance.trackers.properties import properties
from conformance.trackers.property import check_property

EXAMPLES = {
    "cpp": "greedy claimed optimal",
    "kotlin": "ties in reverse order",
    "swift": "association not composed",
    "javascript": "surplus kernels cut off",
    "python": "mask at one half",
}
"""Language → the known-bad tracker whose counterexample is shown in it."""


def pasted(language: str) -> str:
    """Return the smallest counterexample of the language's known-bad tracker, as a test."""
    make, wanted = KNOWN_BAD[EXAMPLES[language]]
    chosen = next(one for one in properties() if one.name == wanted)
    return pasted_test(check_property(chosen, make()), language).strip()


def shown() -> str:
    """Return all five, as Markdown."""
    return "\n".join(
        f"{name}:\n\n```{language}\n{pasted(language)}\n```\n" for language, name in EXAMPLES.items()
    )


if __name__ == "__main__":
    print(shown(), end="")
