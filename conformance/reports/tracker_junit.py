"""A tracker's properties as JUnit XML: one test case for each property."""

from __future__ import annotations

import xml.etree.ElementTree as tree
from collections.abc import Sequence

from conformance.reports.junit_report import REPLACEMENT, UNPRINTABLE
from conformance.trackers.property import Outcome


def tracker_junit(outcomes: Sequence[Outcome], tracker: str) -> str:
    """Return the document; a property that does not hold is a failure, one not run is skipped."""
    root = tree.Element("testsuites", name="mobileinst check-tracker")
    suite = tree.SubElement(root, "testsuite", name=_printable(tracker), tests=str(len(outcomes)), errors="0")
    suite.set("failures", str(sum(one.holds is False for one in outcomes)))
    suite.set("skipped", str(sum(one.holds is None for one in outcomes)))
    suite.extend(_case(one, tracker) for one in outcomes)
    tree.indent(root)
    return tree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(outcome: Outcome, tracker: str) -> tree.Element:
    case = tree.Element("testcase", classname=_printable(tracker), name=outcome.name)
    if outcome.holds is False:
        failure = tree.SubElement(case, "failure", message=_printable(outcome.message))
        failure.text = _printable(f"{outcome.message}\n{outcome.line}")
    elif outcome.holds is None:
        tree.SubElement(case, "skipped", message=_printable(outcome.message))
    return case


def _printable(text: str) -> str:
    return UNPRINTABLE.sub(REPLACEMENT, text)
