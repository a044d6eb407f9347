"""Pytest plugin: the fixture ``mobileinst_verify`` judges a candidate and fails its test if that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import conformance


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that keeps the reports."""
    parser.getgroup("mobileinst").addoption(
        "--mobileinst-reports",
        metavar="FOLDER",
        type=Path,
        help="Write an HTML page for each candidate that mobileinst_verify judges, named after its test.",
    )


@pytest.fixture
def mobileinst_verify(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Return `conformance.verify`, which here also fails the test unless the candidate conforms.

    Returns
    -------
    callable
        Takes what `conformance.verify` takes; returns the `Report` of a candidate that conforms. What cannot
        be judged, such as a file that is missing, fails the test with what is to be done.
    """
    folder: Path | None = request.config.getoption("--mobileinst-reports")
    count = 0

    def verify(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        from refimpl.errors import MobileInstError

        __tracebackhide__ = True
        report, unfit = None, ""
        try:
            report = conformance.verify(*arguments, **options)
        except MobileInstError as error:
            unfit = str(error)
        if report is None:
            # Out of the handler, or pytest would show the error twice.
            pytest.fail(f"the candidate cannot be judged: {unfit}", pytrace=False)
        count += 1
        if folder is not None:
            _write(report, folder, f"{request.node.nodeid}-{count}")
        if report.verdict == "fail":
            # Without a traceback: the report says where the candidate is wrong, our code does not.
            pytest.fail(report.failure_message(), pytrace=False)
        return report

    return verify


def _write(report: Any, folder: Path, test: str) -> None:
    from conformance.cli.report_files import write_reports

    folder.mkdir(parents=True, exist_ok=True)
    name = "".join(char if char.isalnum() or char in "-_." else "-" for char in test)
    write_reports(report, html=folder / f"{name}.html")
