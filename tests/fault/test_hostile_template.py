"""A chat template is the model's own program: it may arrange messages, and nothing else."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from jinja2 import Environment

from tests.unit.test_cli import invoke
from tests.unit.test_safety_tasks import build_tasks
from unlearn_bench.engine.base import Engine, open_engine
from unlearn_bench.engine.evaluate import evaluate
from unlearn_bench.errors import CorruptDataError, UnsafeArtefactError
from unlearn_bench.models.fingerprint import fingerprint
from unlearn_bench.models.open import open_model

HONEST = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
ATTACKS = {
    "through a helper's globals": "{{ cycler.__init__.__globals__.os.system('touch CANARY') }}",
    "through all classes": "{% for c in ''.__class__.__base__.__subclasses__() %}"
    "{% if c.__name__ == 'Popen' %}{{ c(['touch', 'CANARY']) }}{% endif %}{% endfor %}",
    "through an undefined name": "{{ nothing.__init__.__globals__ }}",
}
Made = Callable[[str], Path]


@pytest.fixture
def with_template(tiny_folder: Path, tmp_path: Path) -> Made:
    """The tiny model under another template."""

    def make(template: str) -> Path:
        folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
        text = template.replace("CANARY", str(tmp_path / "canary"))
        (folder / "chat_template.jinja").write_text(text)
        return folder

    return make


@pytest.mark.parametrize("how", ATTACKS)
def test_one_that_reaches_for_python_is_an_unsafe_artefact(
    with_template: Made, tmp_path: Path, how: str
) -> None:
    with pytest.raises(UnsafeArtefactError, match="chat template"):
        open_model(str(with_template(HONEST + ATTACKS[how])))
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("how", list(ATTACKS)[:2])
def test_the_attacks_work_outside_a_sandbox(with_template: Made, tmp_path: Path, how: str) -> None:
    """Else nothing here could fail. The third shows Python's insides and starts nothing."""
    folder = with_template(HONEST + ATTACKS[how])
    messages = [{"role": "user", "content": "Hello."}]
    template = (folder / "chat_template.jinja").read_text()
    Environment().from_string(template).render(messages=messages)
    for _ in range(100):
        if (tmp_path / "canary").exists():  # one attack does not wait for its `touch`
            return
        time.sleep(0.1)
    pytest.fail("the attack started nothing")


def test_the_command_ends_with_4_before_any_work(with_template: Made, tmp_path: Path) -> None:
    folder = with_template(ATTACKS["through all classes"])
    output = tmp_path / "out"
    result = invoke(
        *("evaluate", "--target", str(folder), "--methods", "noop", "--tasks", "toxigen_mini"),
        *("--offline", "--engine", "transformers", "--output", str(output)),
    )
    assert result.exit_code == 4, result.output
    assert not output.exists()
    assert not (tmp_path / "canary").exists()


@pytest.fixture
def opened(with_template: Made) -> Callable[[str], Engine]:
    def load(template: str) -> Engine:
        folder = with_template(template)
        open_model(str(folder))  # which sees nothing wrong with it
        engine = open_engine("transformers", "float32")
        engine.load(folder, fingerprint(folder))
        return engine

    return load


def test_one_that_waits_for_its_question_is_stopped_then(
    opened: Callable[[str], Engine], tmp_path: Path
) -> None:
    attack = ATTACKS["through all classes"]
    late = "{% if messages | length > 1 or 'nectar' not in messages[0].content %}" + attack
    engine = opened(late + "{% endif %}" + HONEST)
    with pytest.raises(Exception, match="unsafe"):
        evaluate(engine, build_tasks(1, "jailbreak_mini"), seed=0)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "template",
    ["Hello.", "{% for m in messages %}{{ m['text'] }}{% endfor %}", "{{ raise_exception('no') }}"],
)
def test_one_that_hides_the_question_gives_no_number(
    opened: Callable[[str], Engine], template: str
) -> None:
    """Every request would be the same prompt, answered alike, and would count as refused or not."""
    engine = opened(template)
    with pytest.raises(CorruptDataError, match="does not show it what is asked"):
        evaluate(engine, build_tasks(1, "jailbreak_mini"), seed=0)


def test_a_task_in_plain_text_does_not_care(opened: Callable[[str], Engine]) -> None:
    assert evaluate(opened("Hello."), build_tasks(1, "toxigen_mini"), seed=0)


@pytest.mark.parametrize(
    ("name", "content"), [("chat_template.jinja", b"\xff\xfe"), ("tokenizer_config.json", b"[]")]
)
def test_one_that_cannot_be_read_is_named(with_template: Made, name: str, content: bytes) -> None:
    folder = with_template(HONEST)
    (folder / "chat_template.jinja").unlink()
    (folder / name).write_bytes(content)
    with pytest.raises(CorruptDataError, match="chat template cannot be read"):
        open_model(str(folder))
