"""The matrix of runtimes as Markdown and as a page."""

from __future__ import annotations

import html
from collections.abc import Sequence

from conformance.reports.printable import printable

STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem;color:#1b1f24;background:#fff}
table{border-collapse:collapse}th,td{padding:.3rem .8rem;border-bottom:1px solid #d0d7de;text-align:left}
td.n{text-align:right;font-variant-numeric:tabular-nums}.pass{color:#116329}.fail{color:#a40e26}
@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}.pass{color:#56d364}
.fail{color:#ff7b72}th,td{border-color:#30363d}}"""


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown; bars within cells are escaped."""
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    lines += ["| " + " | ".join(printable(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def page_of_table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], command: str) -> str:
    """Return a table as a page that needs nothing else; cells are escaped, verdicts coloured."""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in heads)
    body = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><main><h1>{html.escape(title)}</h1>\n<table>"
        f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>\n"
        f"<p>Show it again: <code>{html.escape(printable(command))}</code></p></main></body></html>\n"
    )


def _cell(text: str) -> str:
    kind = f' class="{text}"' if text in ("pass", "fail") else ""
    return f"<td{kind}>{html.escape(printable(text))}</td>"
