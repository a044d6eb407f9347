"""A verification as JUnit XML: a test case for each output, step, node and kind of decision."""

from __future__ import annotations

import re
import xml.etree.ElementTree as tree
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conformance.reports.report import Comparison, Decision, InputReport, Report


KINDS = ("outputs", "steps", "nodes")
UNPRINTABLE = re.compile("[^\\t\\n\\r -\\ud7ff\\ue000-\\ufffd\U00010000-\U0010ffff]")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def junit_report(report: Report) -> str:
    """Return the document: what fails is a failure; what inherits, is absent or is not judged is skipped."""
    root = tree.Element("testsuites", name=f"mobileinst verify {_printable(report.candidate)}")
    for item in report.inputs:
        for kind in KINDS:
            root.append(_suite(item, kind, report.candidate))
        cases = [_decision_case(decision, item.name) for decision in item.decisions]
        root.append(_counted(f"{item.name}: decisions", cases))
        root.append(_checks(item))
    for name in ("tests", "failures", "skipped"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))
    tree.indent(root)
    return tree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(item: InputReport, kind: str, candidate: str) -> tree.Element:
    rows: list[Comparison] = getattr(item, kind)
    cases = [_case(row, f"{kind}.{item.name}", candidate) for row in rows]
    return _counted(f"{item.name}: {kind}", cases)


def _checks(item: InputReport) -> tree.Element:
    """Return what is wrong with the run as a whole, as one case that fails if anything is."""
    case = tree.Element("testcase", classname=f"checks.{_printable(item.name)}", name="verdict")
    if item.verdict == "fail":
        fault = item.first_fault
        said = [f"first fault at {fault.step} ({fault.operation})"] if fault else []
        said += [f"likely {likely.named}: {likely.happens}" for likely in item.diagnoses[:1]]
        _said(case, "failure", "; ".join([*said, *item.problems]) or "outputs leave the reference")
    return _counted(f"{item.name}: checks", [case])


def _counted(name: str, cases: list[tree.Element]) -> tree.Element:
    suite = tree.Element("testsuite", name=_printable(name), tests=str(len(cases)), errors="0")
    suite.set("failures", str(sum(case.find("failure") is not None for case in cases)))
    suite.set("skipped", str(sum(case.find("skipped") is not None for case in cases)))
    suite.extend(cases)
    return suite


def _case(row: Comparison, classname: str, candidate: str) -> tree.Element:
    case = tree.Element("testcase", classname=_printable(classname), name=_printable(row.name))
    if row.verdict == "fail":
        _said(case, "failure", failure_message(row))
    elif row.verdict == "inherited":
        _said(case, "skipped", "inherited: its operands are wrong already")
    elif row.verdict == "absent":
        _said(case, "skipped", f"{candidate} holds no such tensor")
    elif row.verdict != "pass":
        _said(case, "skipped", f"{row.verdict}: {row.operation} has no bound")
    return case


def _decision_case(decision: Decision, input_name: str) -> tree.Element:
    """Return a case that fails if decisions flip; its output gives the figures."""
    classname = f"decisions.{_printable(input_name)}"
    case = tree.Element("testcase", classname=classname, name=_printable(decision.kind))
    if decision.flips:
        _said(case, "failure", f"{decision.flips} of {decision.count} {decision.kind} flipped: {decision}")
    elif decision.not_judged:
        _said(case, "skipped", f"not judged: {decision.not_judged}")
    tree.SubElement(case, "system-out").text = _printable(str(decision))
    return case


def _said(case: tree.Element, kind: str, message: str) -> None:
    tree.SubElement(case, kind, message=_printable(message)).text = _printable(message)


def failure_message(row: Comparison) -> str:
    """Say in one line what is wrong with a tensor."""
    return ", ".join(_failure_parts(row))


def _failure_parts(row: Comparison) -> Iterator[str]:
    yield f"{row.operation} {row.name} {list(row.shape)}"
    if row.candidate is None:
        yield "the candidate holds nothing like it"
        return
    yield f"the candidate's {row.candidate!r}"
    error = row.max_abs_error if row.introduced_error is None else row.introduced_error
    if error is not None and row.tolerance is not None:
        yield f"error {error:.2e} where {row.tolerance:.2e} is allowed"
    if row.utilisation is not None:
        yield f"error / bound {row.utilisation:.3g}"
    if row.systematic:
        yield f"each within its bound, but systematic: {row.reason or 'unlike rounding'}"
    if row.worst_index is not None:
        yield f"worst element {list(row.worst_index)}"


def _printable(text: str) -> str:
    """Replace what XML 1.0 cannot hold; tensor names come from other people's files."""
    return UNPRINTABLE.sub(REPLACEMENT, text)
