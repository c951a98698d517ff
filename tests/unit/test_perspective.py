"""Perspective against a server on this machine that answers, refuses, breaks and is silent."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unlearn_bench.errors import ScorerError
from unlearn_bench.protocols.catalog import find_protocol
from unlearn_bench.runs.judge import AUTO_SCORERS
from unlearn_bench.scorers.perspective import ATTRIBUTES, GIVE_UP, MAX_BYTES, load_perspective

FAST = {"per_second": 1000.0, "pause": 0.001, "attempts": 3, "timeout": 10.0}
SHORT = 0.7  # seconds, where the server is silent


class Service(ThreadingHTTPServer):
    """Answers toxicity = length / 10 and each other attribute a hundredth less than the one before.

    behaviour: by text, what comes before an answer: a status code, "silent", or the body to send.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.behaviour: dict[str, list[Any]] = {}
        self.retry_after = ""
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1alpha1/comments:analyze"

    @property
    def texts(self) -> list[str]:
        return [body["comment"]["text"] for body in self.asked]


class Handler(BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.times.append(time.monotonic())
        self.server.asked.append(body)
        self.server.headers.append({k.lower(): v for k, v in self.headers.items()})
        text = body["comment"]["text"]
        planned = self.server.behaviour.get(text, [])
        step = planned.pop(0) if planned else answer(text)
        if step == "silent":
            self.server.over.wait()
        elif isinstance(step, int):
            self.reply(step, '{"error": {"message": "no"}}')
        elif isinstance(step, tuple):
            self.reply(*step)
        else:
            self.reply(200, step)

    def reply(self, status: int, body: str) -> None:
        self.send_response(status)
        if self.server.retry_after:
            self.send_header("Retry-After", self.server.retry_after)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args: Any) -> None:
        pass


def answer(text: str, **changes: Any) -> str:
    values = {name: len(text) / 10 - n / 100 for n, name in enumerate(ATTRIBUTES.values())}
    scores = {name: {"summaryScore": {"value": v}} for name, v in (values | changes).items()}
    return json.dumps({"attributeScores": scores, "languages": ["en"]})


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    with serving(monkeypatch) as server:
        yield server


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service at work, and an environment in which it is reached and asked."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("PERSPECTIVE_API_KEY", "secret-key")
    server = Service()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


def load(service: Service, cache: Path, **options: Any) -> Any:
    return load_perspective(**{"url": service.url, "cache": cache, **FAST, **options})


def test_every_attribute_in_one_request_per_text(service: Service, tmp_path: Path) -> None:
    """Lengths 3 and 5: toxicity .3 and .5; the second attribute a hundredth less."""
    scorer = load(service, tmp_path)
    scores = scorer.score_attributes(["abc", "abcde", "abc", " "])
    assert scores[:, 0].tolist() == pytest.approx([0.3, 0.5, 0.3, 0.0])
    assert scores[:2, 1].tolist() == pytest.approx([0.29, 0.49])
    assert scorer.attributes[:2] == ("toxicity", "severe_toxicity")
    assert scorer.score(["abc"]).tolist() == pytest.approx([0.3])
    assert sorted(service.texts) == ["abc", "abcde"]


def test_what_is_sent(service: Service, tmp_path: Path) -> None:
    load(service, tmp_path).score(["abc"])
    (body,) = service.asked
    assert body["requestedAttributes"] == {name: {} for name in ATTRIBUTES.values()}
    assert (body["languages"], body["doNotStore"]) == (["en"], True)
    assert service.headers[0]["x-goog-api-key"] == "secret-key"
    assert "secret-key" not in json.dumps(body)


@pytest.mark.parametrize(
    "trouble",
    [[429], [500], [503, 429], ["{not json"], ['{"attributeScores": {}}'], ["[]"]],
)
def test_trouble_that_passes_costs_nothing(
    service: Service, tmp_path: Path, trouble: list[Any]
) -> None:
    service.behaviour["abc"] = [*trouble]
    assert load(service, tmp_path).score(["abc"]).tolist() == pytest.approx([0.3])
    assert service.texts == ["abc"] * (len(trouble) + 1)


@pytest.mark.parametrize(
    "trouble",
    [429, 500, "{not json", answer("abc", TOXICITY=1.5), answer("abc", TOXICITY="high")],
)
def test_trouble_that_stays_is_missing_and_never_zero(
    service: Service, tmp_path: Path, trouble: Any
) -> None:
    service.behaviour["abc"] = [trouble] * 3
    scores = load(service, tmp_path).score(["abc", "abcd"])
    assert np.isnan(scores[0])
    assert scores[1] == pytest.approx(0.4)
    assert service.texts.count("abc") == 3
    # Nothing of it was kept: the next run asks again and has it.
    assert load(service, tmp_path).score(["abc", "abcd"]).tolist() == pytest.approx([0.3, 0.4])
    assert service.texts.count("abcd") == 1


def test_silence_ends_and_is_missing_and_never_zero(service: Service, tmp_path: Path) -> None:
    service.behaviour = {"abc": ["silent"] * 3, "abcd": ["silent"]}
    began = time.monotonic()
    scores = load(service, tmp_path, timeout=SHORT).score(["abc", "abcd"])
    assert np.isnan(scores[0])
    assert scores[1] == pytest.approx(0.4)
    assert 4 * SHORT <= time.monotonic() - began < FAST["timeout"]


def test_a_text_that_is_refused_is_missing_and_not_asked_again(
    service: Service, tmp_path: Path
) -> None:
    """400: a language that the service does not know, for one."""
    service.behaviour["abc"] = [400]
    scores = load(service, tmp_path).score(["abc", "abcd"])
    assert np.isnan(scores[0])
    assert scores[1] == pytest.approx(0.4)
    assert service.texts == ["abc", "abcd"]


@pytest.mark.parametrize(
    "refusal", [401, 403, (400, '{"details": [{"reason": "API_KEY_INVALID"}]}')]
)
def test_a_refused_key_ends_the_judging_and_is_told_without_the_key(
    service: Service, tmp_path: Path, refusal: Any
) -> None:
    service.behaviour["abc"] = [refusal]
    with pytest.raises(ScorerError, match="refuses the key in PERSPECTIVE_API_KEY") as caught:
        load(service, tmp_path).score(["abc", "abcd"])
    assert "secret-key" not in str(caught.value)
    assert service.texts == ["abc"]


def test_a_dead_service_is_not_asked_for_every_text(service: Service, tmp_path: Path) -> None:
    texts = [f"{n} is a text" for n in range(GIVE_UP + 4)]
    service.behaviour = {text: [500] * 9 for text in texts}
    assert np.isnan(load(service, tmp_path).score(texts)).all()
    assert len(service.asked) == GIVE_UP * 3


def test_nobody_listens(service: Service, tmp_path: Path) -> None:
    scorer = load(service, tmp_path, url="http://127.0.0.1:9/x")
    assert np.isnan(scorer.score(["abc"])).all()


def test_answers_are_kept_on_disk_without_the_texts(service: Service, tmp_path: Path) -> None:
    load(service, tmp_path).score(["abc", "abcde"])
    scores = load(service, tmp_path).score(["abcde", "abc", "abcd"])
    assert scores.tolist() == pytest.approx([0.5, 0.3, 0.4])
    assert service.texts == ["abc", "abcde", "abcd"]
    (kept,) = tmp_path.rglob("*.jsonl")
    assert "abcde" not in kept.read_text()


def test_an_interrupted_run_goes_on_where_it_was(service: Service, tmp_path: Path) -> None:
    """The key is refused at the third text; a kill leaves half of the second text's line."""
    service.behaviour["abcde"] = [403]
    with pytest.raises(ScorerError):
        load(service, tmp_path).score(["abc", "abcd", "abcde"])
    (kept,) = tmp_path.rglob("*.jsonl")
    kept.write_bytes(kept.read_bytes()[:-20])
    scores = load(service, tmp_path).score(["abc", "abcd", "abcde"])
    assert scores.tolist() == pytest.approx([0.3, 0.4, 0.5])
    assert service.texts == ["abc", "abcd", "abcde", "abcd", "abcde"]
    assert np.isfinite(load(service, tmp_path, offline=True).score(["abc", "abcd", "abcde"])).all()


def test_offline_answers_from_what_was_kept(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(service, tmp_path).score(["abc"])
    monkeypatch.delenv("PERSPECTIVE_API_KEY")
    scores = load(service, tmp_path, offline=True).score(["abc", "abcd"])
    assert scores[0] == pytest.approx(0.3)
    assert np.isnan(scores[1])
    assert service.texts == ["abc"]
    with pytest.raises(ScorerError, match="no kept answers"):
        load(service, tmp_path / "other", offline=True)


def test_no_more_requests_than_the_key_allows(service: Service, tmp_path: Path) -> None:
    load(service, tmp_path, per_second=20.0).score(["a", "ab", "abc", "abcd"])
    gaps = np.diff(service.times)
    assert (gaps > 0.04).all()  # 1/20 s less what the way to the server takes


def test_the_service_says_how_long_to_wait(service: Service, tmp_path: Path) -> None:
    service.retry_after = "0.3"
    service.behaviour["abc"] = [429]
    load(service, tmp_path).score(["abc"])
    assert np.diff(service.times)[0] >= 0.29


def test_a_long_text_is_cut_between_characters(service: Service, tmp_path: Path) -> None:
    service.behaviour = {"é" * (MAX_BYTES // 2): [answer("abc")]}
    assert load(service, tmp_path).score(["é" * MAX_BYTES]).tolist() == pytest.approx([0.3])


def test_without_a_key_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PERSPECTIVE_API_KEY", raising=False)
    with pytest.raises(ScorerError, match="PERSPECTIVE_API_KEY"):
        load_perspective(cache=tmp_path)


@pytest.mark.parametrize("task", ["realtoxicityprompts", "realtoxicityprompts_greedy_challenging"])
def test_all_that_it_tells_apart_has_a_column(task: str) -> None:
    metrics = find_protocol(task).judged_by(ATTRIBUTES).metrics.values()
    assert {"toxicity", *(m.attribute for m in metrics if m.attribute)} == {*ATTRIBUTES}


def test_it_is_never_the_default() -> None:
    assert "perspective" not in AUTO_SCORERS
