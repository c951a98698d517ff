"""What a gate says stays text: in XML, in Markdown, on a terminal and in GitHub's commands."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from lxml import etree
from rich.console import Console

from tests.unit.stored_cells import items, write_cell
from tests.unit.test_cli import invoke
from unlearn_bench.board.annotations import render_annotations
from unlearn_bench.board.gate import Report, render_gate, render_gate_json, render_gate_markdown
from unlearn_bench.board.inert import inert
from unlearn_bench.board.junit import render_junit
from unlearn_bench.compare.gate import Judgement
from unlearn_bench.compare.loss import Loss
from unlearn_bench.compare.measures import Measure
from unlearn_bench.compare.paired import Comparison

HOSTILE = (
    "</failure><failure>|x|\n::error::owned\r\n::set-output name=a::b\x1b[31mred\x1b[0m"
    "\u202eevil\u2066\u200b`code` [link](http://host.example/x) <b>&amp; ]]> %0A ##[error]z"
    " \ufffe\ud800 /home/someone/secret/file"
)
# The elements and attributes that the common (Jenkins) schema knows, in its order.
SCHEMA = """
<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">
 <xs:element name="testsuites"><xs:complexType>
  <xs:sequence><xs:element ref="testsuite" minOccurs="0" maxOccurs="unbounded"/></xs:sequence>
  <xs:attribute name="name" type="xs:string"/><xs:attribute name="tests" type="xs:integer"/>
  <xs:attribute name="failures" type="xs:integer"/><xs:attribute name="errors" type="xs:integer"/>
 </xs:complexType></xs:element>
 <xs:element name="testsuite"><xs:complexType>
  <xs:sequence><xs:element ref="testcase" minOccurs="0" maxOccurs="unbounded"/></xs:sequence>
  <xs:attribute name="name" type="xs:string" use="required"/>
  <xs:attribute name="tests" type="xs:integer" use="required"/>
  <xs:attribute name="failures" type="xs:integer"/><xs:attribute name="errors" type="xs:integer"/>
  <xs:attribute name="skipped" type="xs:integer"/><xs:attribute name="time" type="xs:decimal"/>
 </xs:complexType></xs:element>
 <xs:element name="testcase"><xs:complexType>
  <xs:sequence>
   <xs:choice minOccurs="0"><xs:element ref="skipped"/><xs:element ref="error"/>
    <xs:element ref="failure"/></xs:choice>
   <xs:element name="system-out" type="xs:string" minOccurs="0"/>
  </xs:sequence>
  <xs:attribute name="classname" type="xs:string" use="required"/>
  <xs:attribute name="name" type="xs:string" use="required"/>
  <xs:attribute name="time" type="xs:decimal"/>
 </xs:complexType></xs:element>
 <xs:complexType name="said"><xs:simpleContent><xs:extension base="xs:string">
  <xs:attribute name="message" type="xs:string"/><xs:attribute name="type" type="xs:string"/>
 </xs:extension></xs:simpleContent></xs:complexType>
 <xs:element name="skipped" type="said"/><xs:element name="error" type="said"/>
 <xs:element name="failure" type="said"/>
</xs:schema>
"""


def judgements(task: str = "quiz", reason: str = "why") -> tuple[Judgement, ...]:
    measure = Measure(task, "acc", "mean", "higher", "share")
    found = Comparison(0.4, 0.8, -0.4, -0.6, -0.2, 0.001, "label swap", 40, 40, 0)
    loss = Loss(0.4, 0.2, 0.6, 0.1, 0.002, 0.0, found)
    return (
        Judgement(measure, "pass", replace(loss, value=0.0), 1.0),
        Judgement(measure, "cannot tell", loss, 0.2, reason),
        Judgement(measure, "regression", loss, 0.01, reason),
        Judgement(measure, "incomplete", reason=reason),
        Judgement(measure, "skipped", reason=reason),
    )


def report(text: str = "") -> Report:
    found = judgements(text, text) if text else judgements()
    return Report(text or "base", text or "edited", 0.05, 1, found, notes=(text or "note",))


def test_every_outcome_has_its_place_in_junit() -> None:
    text = render_junit(report())
    etree.XMLSchema(etree.fromstring(SCHEMA)).assertValid(etree.fromstring(text.encode()))
    suite = ElementTree.fromstring(text)[0]
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "5", "failures": "1", "errors": "1", "skipped": "1",
    }  # fmt: skip
    kinds = [case[0].tag for case in suite]
    assert kinds == ["system-out", "system-out", "failure", "error", "skipped"]
    assert suite[2].attrib == {"classname": "quiz", "name": "acc", "time": "0"}
    failure = suite[2][0]
    assert failure.get("message") == (
        "regression: why; baseline 0.8, candidate 0.4; loss +0.4 (+0.2 to +0.6), margin 0.1, "
        "adjusted p 0.010"
    )


def test_a_stopped_gate_is_an_error_in_junit() -> None:
    text = render_junit(Report("a", "b", 0.0, 4, error=HOSTILE))
    etree.XMLSchema(etree.fromstring(SCHEMA)).assertValid(etree.fromstring(text.encode()))
    assert ElementTree.fromstring(text)[0].get("errors") == "1"


def test_hostile_texts_stay_text_in_junit() -> None:
    text = render_junit(report(HOSTILE))
    root = etree.fromstring(text.encode())
    etree.XMLSchema(etree.fromstring(SCHEMA)).assertValid(root)
    assert len(root.findall(".//failure")) == 1
    assert "</failure><failure>|x|" in root.find(".//failure").get("message")
    for mark in ("\x1b", "\u202e", "\u2066", "\u200b", "\ufffe", "/home/someone"):
        assert mark not in text


def test_hostile_texts_stay_text_in_markdown() -> None:
    lines = render_gate_markdown(report(HOSTILE)).splitlines()
    table = [line for line in lines if line.startswith("| ")]
    assert len(table) == 2 + len(judgements())
    for line in table:
        assert line.replace("\\|", "").count("|") == 11  # ten columns
    for line in lines:
        assert not line.startswith("::")
        for mark in ("\x1b", "\u202e", "\u200b", "host.example", "/home/someone"):
            assert mark not in line
        assert "<b>" not in line.replace("\\<", "")
        assert "`" not in line.replace("\\`", "")
        assert "](" not in line.replace("\\]", "")


def test_hostile_texts_stay_in_one_annotation() -> None:
    """No line end is left, and the percent sign of an encoded one is encoded itself."""
    lines = render_annotations(report(HOSTILE))
    assert [line.partition(" ")[0] for line in lines] == ["::warning", "::error", "::error"]
    for line in lines:
        assert "\n" not in line
        assert "\r" not in line
        properties = line.split("::")[1]
        assert properties.count(",") == properties.count(":") == 0
        assert "%250A" in line
        assert "##[" not in line
    (stopped,) = render_annotations(Report("a", "b", 0.0, 3, error="50% a:b, c"))
    assert stopped == "::error title=gate::50%25 a:b, c"


def test_hostile_texts_are_shown_as_codes_on_a_terminal() -> None:
    """At every width: a line that is broken may begin with any word of it."""
    for width in (60, 80, 250):
        shown = on_terminal(width)
        assert all(not line.lstrip().startswith("::") for line in shown.splitlines())
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "[31mred" in shown  # markup of neither kind was read


def on_terminal(width: int) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(render_gate(report(HOSTILE)))
    return console.export_text()


def test_inert_is_one_line_and_keeps_what_can_be_read() -> None:
    assert inert("θ ≤ 0.5 – naïve\tok\nnext") == "θ ≤ 0.5 – naïve ok next"
    assert inert("a\u202eb\x1bc") == "a\\u202eb\\u001bc"
    assert inert(":::set-env") == ": : :set-env"


def test_an_error_is_printed_as_one_line_that_does_nothing(tmp_path: Path) -> None:
    write_cell(tmp_path / "a", "noop", items("acc", [1.0] * 12))
    write_cell(tmp_path / "b", "noop", items("acc", [1.0] * 12), engine__dtype="x\n::error::own")
    (tmp_path / "gate.yaml").write_text("metrics: {quiz.acc: {margin: 0.1}}")
    result = invoke(
        "gate", "--baseline", str(tmp_path / "a"), "--candidate", str(tmp_path / "b"),
        "--rules", str(tmp_path / "gate.yaml"), "--allow-dirty",
    )  # fmt: skip
    assert result.exit_code == 3
    assert "x : :error: :own" in result.output
    assert all(not line.startswith("::") for line in result.output.splitlines())


def test_json_has_words_for_what_is_no_number() -> None:
    found = json.loads(render_gate_json(report()))
    assert (found["verdict"], found["exit_code"]) == ("regression", 1)
    assert [one["outcome"] for one in found["metrics"]] == [one.outcome for one in judgements()]
    worst = judgements()[2]
    assert worst.loss is not None
    odd = replace(worst, loss=replace(worst.loss, low=math.nan, high=math.inf))
    (metric,) = json.loads(render_gate_json(replace(report(), judgements=(odd,))))["metrics"]
    assert (metric["low"], metric["high"]) == ("nan", "inf")


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    write_cell(tmp_path / "a", "noop", items("acc", [1.0] * 12))
    write_cell(tmp_path / "b", "noop", items("acc", [0.0] * 12))
    (tmp_path / "gate.yaml").write_text("metrics: {quiz.acc: {margin: 0.1}}")
    return [
        "gate", "--baseline", str(tmp_path / "a"), "--candidate", str(tmp_path / "b"), "--rules",
        str(tmp_path / "gate.yaml"), "--allow-dirty", "--junit", str(tmp_path / "junit.xml"),
    ]  # fmt: skip


def test_on_github_the_summary_is_added_to_and_annotations_are_printed(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = tmp_path / "step.md"
    step.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    result = invoke(*words, "--json")
    assert result.exit_code == 1
    assert step.read_text().startswith("before\n## unlearn-bench gate: regression\n")
    assert result.stderr.startswith("::error title=quiz.acc::regression: ")
    assert json.loads(result.stdout)["exit_code"] == 1
    assert 'failures="1"' in (tmp_path / "junit.xml").read_text()


def test_elsewhere_the_summary_is_written_where_it_is_asked_for(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "step.md"))
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    result = invoke(*words, "--summary", str(tmp_path / "own.md"))
    assert "::error" not in result.output
    assert (tmp_path / "own.md").read_text().startswith("## unlearn-bench gate: regression\n")
    assert not (tmp_path / "step.md").exists()


def test_what_stopped_the_gate_is_in_every_report(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "step.md"))
    next((tmp_path / "b").glob("cells/*/items.parquet")).write_bytes(b"x")
    result = invoke(*words)
    assert result.exit_code == 3
    assert "::error title=gate::items.parquet is not what" in result.stderr
    assert "items.parquet is not what" in (tmp_path / "step.md").read_text()
    assert 'errors="1"' in (tmp_path / "junit.xml").read_text()
