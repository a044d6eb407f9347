"""Which tracker of Table 2 has which property, as Markdown, and the smallest counterexamples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from conformance.trackers.property import Outcome

LONGEST, LONGEST_MESSAGE = 600, 200
"""Characters of a counterexample and of a message that are printed; longer ones are in the JSON."""


def properties_markdown(table: Mapping[str, Sequence[Outcome]]) -> str:
    """A row for each property, a column for each rule, whose names are keys: whether it holds."""
    lines = [f"| property | {' | '.join(names.replace(', ', '<br>') for names in table)} |"]
    lines += ["|---|" + "---|" * len(table)]
    for row in zip(*table.values(), strict=True):
        cells = " | ".join("yes" if one.holds else "**no**" for one in row)
        lines.append(f"| `{row[0].name}` | {cells} |")
    return "\n".join(lines) + "\n"


def counterexamples_markdown(table: Mapping[str, Sequence[Outcome]]) -> str:
    """For each tracker the properties that it lacks, and what is wrong with the smallest counterexamples."""
    lines = []
    for names, outcomes in table.items():
        lines += [f"**{names}**", ""]
        for one in outcomes:
            if one.holds is False:
                lines.append(f"* `{one.name}`: {one.message:.{LONGEST_MESSAGE}}")
                lines += [f"  `{one.line}`"] if len(one.line) <= LONGEST else []
        lines.append("")
    return "\n".join(lines)
