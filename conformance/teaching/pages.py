"""The templates of the pages, each compiled once."""

from __future__ import annotations

import functools
from pathlib import Path

import jinja2

from conformance.reports.html_report import marked, subscript


@functools.cache
def page_template(name: str) -> jinja2.Template:
    """Return a template that stands in this folder."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(subscript=subscript, marked=marked)
    return environment.get_template(name)
