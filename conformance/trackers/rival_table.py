"""Which tracker of Table 2 has which property, as Markdown, and the smallest counterexamples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from conformance.trackers.property import Outcome

LONGEST = 300
"""Characters of a counterexample that is printed; longer ones are in the JSON."""


def columns(table: Mapping[str, Sequence[Outcome]]) -> dict[str, list[str]]:
    """Trackers whose outcomes are the same, by the first: they share a rule."""
    shared: dict[str, list[str]] = {}
    for name, outcomes in table.items():
        same = [first for first in shared if _said(table[first]) == _said(outcomes)]
        shared.setdefault(same[0] if same else name, []).append(name)
    return shared


def _said(outcomes: Sequence[Outcome]) -> list[tuple[object, ...]]:
    return [(one.name, one.holds, one.message, one.line) for one in outcomes]


def properties_markdown(table: Mapping[str, Sequence[Outcome]]) -> str:
    """A row for each property, a column for each tracker: whether it holds."""
    shared = columns(table)
    lines = [f"| property | {' | '.join('<br>'.join(names) for names in shared.values())} |"]
    lines += ["|---|" + "---|" * len(shared)]
    for row in zip(*(table[first] for first in shared), strict=True):
        cells = " | ".join("yes" if one.holds else "**no**" for one in row)
        lines.append(f"| `{row[0].name}` | {cells} |")
    return "\n".join(lines) + "\n"


def counterexamples_markdown(table: Mapping[str, Sequence[Outcome]]) -> str:
    """For each tracker the properties that it lacks, and what is wrong with the smallest counterexamples."""
    lines = []
    for first, names in columns(table).items():
        lines += [f"**{', '.join(names)}**", ""]
        for one in table[first]:
            if one.holds is False:
                lines.append(f"* `{one.name}`: {one.message:.{LONGEST}}")
                lines += [f"  `{one.line}`"] if len(one.line) <= LONGEST else []
        lines.append("")
    return "\n".join(lines)
