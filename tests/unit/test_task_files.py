"""Task files of the user's are judged as text: nothing that they name is imported to judge them."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_bench.errors import UnsafeArtefactError, UsageError
from unlearn_bench.protocols.task_files import FLAG, check_task_file, definition_sha256

PLAIN = "task: mine\noutput_type: multiple_choice\ndoc_to_text: '{{question}}'\n"
BOOBY_TRAP = "raise SystemExit('imported')\n"


def write(folder: Path, **files: str) -> str:
    """`a` becomes a.yaml, `a_py` a.py; returns the path of task.yaml."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = f"{name.removesuffix('_py')}.py" if name.endswith("_py") else f"{name}.yaml"
        (folder / path).write_text(text, encoding="utf-8")
    return str(folder / "task.yaml")


def test_plain_yaml_with_an_include_beside_it_needs_no_flag(tmp_path: Path) -> None:
    path = write(tmp_path, task=f"include: base.yaml\n{PLAIN}", base="test_split: test\n")
    files = check_task_file(path, allow_code=False)
    assert [file.name for file in files] == ["task.yaml", "base.yaml"]


@pytest.mark.parametrize(
    "line",
    [
        "process_docs: !function code.run",
        "metric_list: [{metric: !function code.run}]",
        "a: {b: [1, !function code.run ]}",
        "class: code.Task",
        "unsafe_code: true",
        "metric_list: [{metric: exact_match, hf_evaluate: true}]",
        "dataset_kwargs: {trust_remote_code: true}",
        "include: base.yaml",
        "? !function code.run\n: 1",
    ],
)
def test_code_is_refused_with_the_flag_and_passes_with_it(line: str, tmp_path: Path) -> None:
    """Also where the included file names it. The code would end the test if it were imported."""
    path = write(
        tmp_path,
        task=f"{PLAIN}{line}\n",
        base="doc_to_text: !function code.run\n",
        code_py=BOOBY_TRAP,
    )
    with pytest.raises(UnsafeArtefactError) as caught:
        check_task_file(path, allow_code=False)
    assert FLAG in caught.value.next_step
    assert ", line " in caught.value.where
    assert check_task_file(path, allow_code=True)[0].name == "task.yaml"


@pytest.mark.parametrize(
    "line",
    [
        "a: !!python/object/apply:os.system ['true']",
        "a: !!python/name:os.system ''",
        "a: &x !!python/object:os.PathLike {}\nb: *x",
        "? !!python/tuple [1]\n: 2",
        "a: !env HOME",
    ],
)
@pytest.mark.parametrize("allow_code", [False, True])
def test_python_objects_are_refused_whatever_the_flag(
    line: str, allow_code: bool, tmp_path: Path
) -> None:
    with pytest.raises(UnsafeArtefactError):
        check_task_file(write(tmp_path, task=f"{PLAIN}{line}\n"), allow_code=allow_code)


@pytest.mark.parametrize("include", ["../base.yaml", "{parent}/base.yaml", "link.yaml"])
def test_an_include_from_elsewhere_is_refused(include: str, tmp_path: Path) -> None:
    """Upwards, by an absolute path, or through a link that leads out."""
    write(tmp_path, base="test_split: test\n")
    path = write(tmp_path / "own", task=f"include: {include.format(parent=tmp_path)}\n{PLAIN}")
    (tmp_path / "own" / "link.yaml").symlink_to(tmp_path / "base.yaml")
    with pytest.raises(UnsafeArtefactError, match="outside its own folder"):
        check_task_file(path, allow_code=True)


@pytest.mark.parametrize("prompt", ["../p.yaml:x", "{parent}/p.yaml:x", "{own}/link.yaml:x"])
def test_a_prompt_from_elsewhere_is_refused(
    prompt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upwards from where lm-eval looks, by a whole path, or through a link that leads out."""
    own = tmp_path / "own"
    write(tmp_path, p="prompts: {x: {doc_to_text: a, doc_to_target: b}}\n")
    named = prompt.format(parent=tmp_path, own=own)
    path = write(own, task=f"{PLAIN}use_prompt: {named}\n")
    (own / "link.yaml").symlink_to(tmp_path / "p.yaml")
    monkeypatch.chdir(own)
    with pytest.raises(UnsafeArtefactError, match="outside its own folder"):
        check_task_file(path, allow_code=True)


def test_a_prompts_relative_path_is_lm_evals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lm-eval opens it in the working directory: never is another file hashed than is read."""
    path = write(tmp_path / "own", task=f"{PLAIN}use_prompt: p.yaml:x\n", p="prompts: {}\n")
    write(tmp_path / "else", p="prompts: {}\n")
    monkeypatch.chdir(tmp_path / "own")
    assert [file.name for file in check_task_file(path, allow_code=False)] == [
        "task.yaml",
        "p.yaml",
    ]
    monkeypatch.chdir(tmp_path / "else")
    with pytest.raises(UnsafeArtefactError, match="else") as caught:
        check_task_file(path, allow_code=False)
    assert "working directory" in caught.value.next_step


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("prompts: {x: !!python/name:os.system ''}", UnsafeArtefactError),
        ("prompts: {x: !function code.run}", UnsafeArtefactError),
        ("prompts: [", UsageError),
    ],
)
def test_a_prompts_file_is_judged_like_the_task_file(
    text: str, error: type[Exception], tmp_path: Path
) -> None:
    path = write(tmp_path, task=f"{PLAIN}use_prompt: {tmp_path}/p.yaml:x\n", p=text)
    with pytest.raises(error):
        check_task_file(path, allow_code=False)


def test_prompts_of_packages(tmp_path: Path) -> None:
    """lm-eval's own is a name; promptsource's templates are neither hashed nor rendered safely."""
    path = write(tmp_path, task=f"{PLAIN}use_prompt: qa-basic:q-newline-a\n")
    assert len(check_task_file(path, allow_code=False)) == 1
    write(tmp_path, task=f"{PLAIN}use_prompt: 'promptsource:*'\n")
    with pytest.raises(UsageError, match="promptsource") as caught:
        check_task_file(path, allow_code=True)
    assert "doc_to_text" in caught.value.next_step


@pytest.mark.parametrize("text", ["", "- a list\n", "task: [1\n", "a: 1\n---\nb: 2\n", "\x00"])
def test_what_is_no_task_is_a_usage_error(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        check_task_file(write(tmp_path, task=text), allow_code=True)
    with pytest.raises(UsageError, match="there is no task file"):
        check_task_file(str(tmp_path / "absent.yaml"), allow_code=True)


def test_files_that_include_each_other_are_read_once(tmp_path: Path) -> None:
    path = write(tmp_path, task=f"include: base.yaml\n{PLAIN}", base="include: task.yaml\n")
    assert len(check_task_file(path, allow_code=False)) == 2


def test_aliases_do_not_multiply_the_work(tmp_path: Path) -> None:
    """Thirty levels of ten aliases each are 10³⁰ nodes for a reader that walks each alias."""
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 31))
    assert check_task_file(write(tmp_path, task=f"l0: &l0 x\n{levels}"), allow_code=False)


def test_the_hash_is_of_all_files_and_of_no_folder(tmp_path: Path) -> None:
    def digest(folder: str, base: str, code: str) -> str:
        task = f"include: base.yaml\n{PLAIN}process_docs: !function code.run\n"
        path = write(tmp_path / folder, task=task, base=base, code_py=code)
        return definition_sha256(check_task_file(path, allow_code=True))

    first = digest("a", "test_split: test\n", "x = 1\n")
    assert digest("b", "test_split: test\n", "x = 1\n") == first
    assert digest("c", "test_split: dev\n", "x = 1\n") != first
    assert digest("d", "test_split: test\n", "x = 2\n") != first


@settings(max_examples=150, deadline=None)
@given(text=st.text(alphabet="!fpython/:ojectapl&*x{}[],- \n'\"a", max_size=60))
def test_no_text_gets_a_tag_past_that_constructs_something(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("task") / "task.yaml"
    path.write_text(text, encoding="utf-8")
    with contextlib.suppress(UsageError, UnsafeArtefactError):
        check_task_file(str(path), allow_code=False)
        events = list(yaml.parse(text))
        assert all((getattr(event, "tag", None) or "!")[:2] in ("!", "ta") for event in events)
        assert not any("python" in (getattr(event, "tag", None) or "") for event in events)
