"""A gate's judgements as JUnit XML, which every CI system shows."""

from __future__ import annotations

from xml.etree import ElementTree

from unlearn_bench.board.gate import Report, sentence
from unlearn_bench.board.inert import inert
from unlearn_bench.compare.gate import Judgement

SUITE = "unlearn-bench gate"


def render_junit(report: Report) -> str:
    """One test case per metric: a regression is a failure, an incomplete one an error.

    A gate that judged nothing, or was stopped, has one case with the error.
    """
    cases = [_case(one) for one in report.judgements]
    if report.error:
        cases.append(_stopped(report.error))
    counts = {
        "tests": len(cases),
        "failures": sum(case.find("failure") is not None for case in cases),
        "errors": sum(case.find("error") is not None for case in cases),
        "skipped": sum(case.find("skipped") is not None for case in cases),
    }
    suite = ElementTree.Element(
        "testsuite",
        {"name": SUITE, **{name: str(count) for name, count in counts.items()}, "time": "0"},
    )
    suite.extend(cases)
    whole = {name: str(counts[name]) for name in ("tests", "failures", "errors")}
    suites = ElementTree.Element("testsuites", {"name": SUITE, **whole})
    suites.append(suite)
    ElementTree.indent(suites)
    text = ElementTree.tostring(suites, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _case(one: Judgement) -> ElementTree.Element:
    names = {"classname": inert(one.measure.task), "name": inert(one.measure.metric), "time": "0"}
    case = ElementTree.Element("testcase", names)
    said = sentence(one)
    if one.outcome == "skipped":
        ElementTree.SubElement(case, "skipped", {"message": said})
    elif one.outcome in ("regression", "incomplete"):
        kind = "failure" if one.outcome == "regression" else "error"
        ElementTree.SubElement(case, kind, {"message": said, "type": one.outcome}).text = said
    else:
        ElementTree.SubElement(case, "system-out").text = said
    return case


def _stopped(error: str) -> ElementTree.Element:
    case = ElementTree.Element("testcase", {"classname": "gate", "name": "gate", "time": "0"})
    said = inert(error)
    ElementTree.SubElement(case, "error", {"message": said, "type": "stopped"}).text = said
    return case
