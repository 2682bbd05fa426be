"""Prompts from a language model: a real server that answers well, slowly, wrongly, without end or not at all."""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from chat_server import Answer, Server, always, as_items, chat_server, good, items_of, scene_text
from commands import run
from datasetdm.engines.progress import Outcome
from datasetdm.errors import ConfigError, DatasetDMError, OutputError
from datasetdm.io.files import locked
from datasetdm.prompts import PromptFile
from datasetdm.prompts.language_model import endpoint as endpoint_module
from datasetdm.prompts.language_model import writer as writer_module
from datasetdm.recipe.prompting import prompts
from datasetdm.recipe.schema import PromptsStage

KEY = "sk-secret-0123456789abcdef"
LABELS = ("dog", "cat", "bench", "bicycle")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short waits, and no key from outside."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(endpoint_module, "RATE_LIMIT_PAUSES", (0.01, 0.02))
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.005)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.01)


def stage(server: Server | str, count: int = 12, **settings: Any) -> PromptsStage:
    url = server if isinstance(server, str) else server.url
    values = {"source": "llm", "model": "tiny-model", "labels": LABELS, "candidates": 1, "batch": 4} | settings
    return PromptsStage(count=count, base_url=url, **values)


def make(server: Server | str, out: Path, count: int = 12, **settings: Any) -> Outcome:
    return prompts(stage(server, count, **settings), out, lambda _: None)


def texts(path: Path) -> list[str]:
    return [row.prompt for row in PromptFile(path)]


def report(path: Path) -> dict[str, Any]:
    return json.loads(path.with_suffix(".report.json").read_text())


def replies(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.with_suffix(".replies.jsonl").read_text().splitlines()[1:]]


# ---------------------------------------------------------------------- what is asked and written
def test_prompts_carry_what_they_show_and_requests_a_schema(tmp_path: Path) -> None:
    with chat_server() as server:
        outcome = make(
            server, tmp_path / "p.jsonl", style="dashcam photos", domains=("night",), price_in=1, price_out=2
        )
    rows = list(PromptFile(tmp_path / "p.jsonl"))
    assert len(rows) == 12 and {r.origin for r in rows} == {"language-model"}
    assert all(r.labels and all(n in r.prompt for n in r.labels) and set(r.counts or ()) <= {*r.labels} for r in rows)
    assert {r.place for r in rows} == {None, "at night"}
    first = server.asked[0]
    assert first["response_format"]["json_schema"]["schema"]["properties"].keys() == {"items"}
    assert "dashcam photos" in first["messages"][0]["content"] and first["model"] == "tiny-model"
    assert [m["role"] for m in first["messages"]] == ["system", "user", "assistant", "user"], (
        "an example for base models"
    )
    assert first["max_tokens"] < 1000 and "temperature" not in first
    assert report(tmp_path / "p.jsonl")["cost"] == pytest.approx(3 * (100 + 2 * 50) / 1e6)
    assert "3 requests, 300 tokens in, 150 out, cost 0.0006" in outcome.notes[0]
    assert outcome.complete and sum(outcome.labels.values()) >= 12


@pytest.mark.slow
def test_requests_run_in_parallel_but_not_in_more_than_asked(tmp_path: Path) -> None:
    def slow(server: Server, request: dict[str, Any]) -> Answer:
        answer = good(server, request)
        answer.pause = 0.05
        return answer

    with chat_server(slow) as server:
        make(server, tmp_path / "p.jsonl", 40, parallel=3)
    assert server.most_running == 3


@pytest.mark.slow
def test_the_order_of_replies_changes_nothing(tmp_path: Path) -> None:
    def uneven(server: Server, request: dict[str, Any]) -> Answer:
        answer = good(server, request)
        answer.pause = 0.08 if len(server.asked) % 3 == 1 else 0.0
        return answer

    with chat_server(uneven) as server:
        make(server, tmp_path / "a.jsonl", 30, parallel=5)
        make(server, tmp_path / "b.jsonl", 30, parallel=1)
    assert texts(tmp_path / "a.jsonl") == texts(tmp_path / "b.jsonl")


def test_kinds_of_labels_are_asked_first_and_used(tmp_path: Path) -> None:
    def answer(server: Server, request: dict[str, Any]) -> Answer:
        if "different kinds" in request["messages"][0]["content"]:
            kinds = {"dog": "beagle, poodle, dog, cat dog, " + "x" * 99}
            return Answer(as_items([kinds.get(name, f"{name} one, {name} two") for name in items_of(request)]))
        return good(server, request)

    with chat_server(answer) as server:
        make(server, tmp_path / "p.jsonl", 40, subclasses=3)
    items = "\n".join(i for r in server.asked[1:] for i in items_of(r))
    assert "dog (a beagle)" in items and "dog (a poodle)" in items
    assert "(a dog)" not in items and "cat dog" not in items and "xxx" not in items


def test_captions_by_a_model_that_looks_and_paraphrases(tmp_path: Path) -> None:
    def answer(server: Server, request: dict[str, Any]) -> Answer:
        content = request["messages"][-1]["content"]
        if isinstance(content, list):
            assert content[1]["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/")
        n = len(server.asked)
        return Answer(as_items([scene_text(item, f"{n} {i}") + item for i, item in enumerate(items_of(request))]))

    own = {"data": "mini:train", "limit": 4, "labels": None, "parallel": 1}
    with chat_server(answer) as server:
        make(server, tmp_path / "c.jsonl", 4, source="captions", **own)
        given = len(server.asked)
        make(server, tmp_path / "p.jsonl", 8, source="paraphrases", **own)
    rows = list(PromptFile(tmp_path / "c.jsonl"))
    assert rows and all(r.labels for r in rows) and {r.origin for r in rows} <= {"user", "language-model"}
    assert len(texts(tmp_path / "p.jsonl")) == 8 and len(server.asked) > given


@pytest.mark.slow
# ---------------------------------------------------------------------- resume
def test_a_killed_run_goes_on_and_loses_nothing(tmp_path: Path) -> None:
    def dies(server: Server, request: dict[str, Any]) -> Answer:
        return good(server, request) if len(server.asked) <= 3 else Answer(status=401, body=b"{}")

    out = tmp_path / "p.jsonl"
    with chat_server(dies) as server, pytest.raises(ConfigError, match="refuses the key"):
        make(server, out, 40, parallel=1)
    assert len(replies(out)) == 3 and not out.exists()
    held = out.with_suffix(".replies.jsonl").read_text()
    with out.with_suffix(".replies.jsonl").open("a") as file:
        file.write('{"request": "scenes/3", "te')  # killed within a line
    server.behaviour = good
    with chat_server() as other:
        content = held.replace(server.url, other.url)
        out.with_suffix(".replies.jsonl").write_text(content + '{"request": "scenes/3", "te')
        make(other, out, 40)
        assert len(other.asked) == 7 and out.with_suffix(".replies.jsonl").read_text().startswith(content)
        whole = texts(out)
        make(other, out, 40)
        assert len(other.asked) == 7 and texts(out) == whole, "nothing is asked twice"
        make(other, out, 48)
        assert len(other.asked) == 9 and texts(out)[:40] == whole, "a larger count goes on"
        make(other, tmp_path / "again.jsonl", 40)
    assert len(set(whole)) == 40
    assert texts(tmp_path / "again.jsonl") == whole, "as if it had never been stopped"


def test_replies_of_another_command_and_of_another_process_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "p.jsonl"
    with chat_server() as server:
        make(server, out)
        with pytest.raises(OutputError, match="another command: other seed, style"):
            make(server, out, style="x", seed=1)
        with locked(tmp_path / ".p.replies.jsonl.lock", "x"), pytest.raises(OutputError, match="another process"):
            make(server, out)
        out.write_text("a dog of mine\n")
        with pytest.raises(OutputError, match="did not write"):
            make(server, out)
        lines = out.with_suffix(".replies.jsonl").read_text().splitlines()
        out.unlink()
        out.with_suffix(".replies.jsonl").write_text("\n".join([lines[0], "{}", *lines[1:]]) + "\n")
        with pytest.raises(OutputError, match="cannot be read") as caught:
            make(server, out)
        assert "line 2" in str(caught.value)


# ---------------------------------------------------------------------- bad replies
def scripted(*answers: Answer) -> Callable[[Server, dict[str, Any]], Answer]:
    """These answers first, then good ones."""
    return lambda server, request: (
        answers[len(server.asked) - 1] if len(server.asked) <= len(answers) else good(server, request)
    )


BAD: dict[str, tuple[Answer, dict[str, int]]] = {
    "prose": (Answer("Sure! Here are your prompts."), {"not JSON": 4}),
    "nothing": (Answer(""), {"empty": 4}),
    "no content": (Answer(None), {"empty": 4}),
    "refused": (Answer(None, refusal="I can't help with that"), {"refused": 4}),
    "filtered": (Answer("", finish="content_filter"), {"refused": 4}),
    "html": (Answer(body=b"<html>a login page</html>"), {"no chat completion": 4}),
    "no choices": (Answer(body=b'{"choices": []}'), {"no chat completion": 4}),
    "deep": (Answer("[" * 100_000), {"not JSON": 4}),
    "surrogates": (Answer('{"items": ["a dog \\ud800", "a \\u001b[2J cat"]}'), {"not plain text": 2, "left out": 2}),
    "no label": (Answer(as_items(["a fish", "a fish", "", "a fish"])), {"names no label": 3, "empty": 1}),
    "too long": (Answer(as_items(["dog cat bench bicycle " * 15] * 4)), {"too long for the text encoder": 4}),
    "endless text": (Answer(as_items(["dog cat bench bicycle " * 99] * 4)), {"too long for the text encoder": 4}),
    "wrong types": (Answer('{"items": [{"number": "x", "text": 5}, 7, null, [1]]}'), {"empty": 4}),
    "one": (Answer(as_items(["dog cat bench bicycle"])), {"left out": 3}),
    "key": (Answer(as_items([f"dog cat {KEY}"] * 4)), {"holds the key": 4}),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_bad_replies_are_counted_by_reason(case: str, tmp_path: Path) -> None:
    answer, reasons = BAD[case]
    with chat_server(scripted(answer)) as server:
        outcome = make(server, tmp_path / "p.jsonl", 8, parallel=1)
    assert report(tmp_path / "p.jsonl")["rejected"] == reasons
    assert len(texts(tmp_path / "p.jsonl")) == 8
    assert next(iter(reasons)) in " ".join(outcome.notes)


def test_json_in_fences_explanations_and_behind_thoughts(tmp_path: Path) -> None:
    def wrapped(server: Server, request: dict[str, Any]) -> Answer:
        found = [scene_text(item, f"{len(server.asked)}-{i}") for i, item in enumerate(items_of(request))]
        forms = [
            f"```json\n{as_items(found)}\n```",
            f"<think>{{not this}}</think>{as_items(found)} I hope that helps [really]!",
            json.dumps(found),
            json.dumps({"prompts": [{"text": t} for t in found]}),
        ]
        return Answer(forms[(len(server.asked) - 1) % 4])

    with chat_server(wrapped) as server:
        make(server, tmp_path / "p.jsonl", 16, parallel=1)
    assert len(server.asked) == 4 and report(tmp_path / "p.jsonl")["rejected"] == {}


def test_what_was_whole_before_a_reply_was_cut_off_is_used(tmp_path: Path) -> None:
    def cut(server: Server, request: dict[str, Any]) -> Answer:
        whole = good(server, request)
        whole.content, whole.finish = whole.content[: int(len(whole.content) * 0.7)], "length"
        return whole

    with chat_server(cut) as server:
        make(server, tmp_path / "p.jsonl", 8, parallel=1)
    assert report(tmp_path / "p.jsonl")["rejected"]["cut off"] >= 3
    assert all(t.endswith(" end") for t in texts(tmp_path / "p.jsonl"))


def test_a_model_that_repeats_itself_ends(tmp_path: Path) -> None:
    same = lambda server, request: Answer(as_items([scene_text("1 dog, 1 cat, 1 bench, 1 bicycle", 0)] * 4))  # noqa: E731
    with chat_server(same) as server:
        outcome = make(server, tmp_path / "p.jsonl", 40)
    assert len(texts(tmp_path / "p.jsonl")) == 1 and not outcome.complete
    assert len(server.asked) <= writer_module.MOST_BARREN + 8
    assert report(tmp_path / "p.jsonl")["rejected"]["duplicate"] == 4 * len(server.asked) - 1
    assert "brought nothing new" in " ".join(outcome.notes)


def test_a_model_that_only_refuses_is_one_error(tmp_path: Path) -> None:
    with chat_server(always(Answer(None, refusal="no"))) as server, pytest.raises(ConfigError) as caught:
        make(server, tmp_path / "p.jsonl", 40)
    assert "no usable text (refused" in str(caught.value) and "remedy" in str(caught.value)
    assert not (tmp_path / "p.jsonl").exists() and len(server.asked) < 20


def test_a_server_without_schemas_is_asked_for_plain_text(tmp_path: Path) -> None:
    def old(server: Server, request: dict[str, Any]) -> Answer:
        return (
            Answer(status=400, body=b'{"error": "response_format?"}')
            if "response_format" in request
            else good(server, request)
        )

    with chat_server(old) as server:
        make(server, tmp_path / "p.jsonl", 20, parallel=1)
    assert len(server.asked) == 6 and len(texts(tmp_path / "p.jsonl")) == 20


def test_usage_that_is_not_said_is_estimated(tmp_path: Path) -> None:
    def silent(server: Server, request: dict[str, Any]) -> Answer:
        answer = good(server, request)
        answer.usage = None
        return answer

    with chat_server(silent) as server:
        make(server, tmp_path / "p.jsonl", 4)
    assert report(tmp_path / "p.jsonl")["tokens_in"] > 200 and report(tmp_path / "p.jsonl")["tokens_out"] == 600


# ---------------------------------------------------------------------- limits
@pytest.mark.parametrize(("limit", "value"), [("max_tokens", 3000), ("max_cost", 0.003)])
def test_limits_stop_before_they_are_passed_and_the_same_command_goes_on(
    limit: str, value: float, tmp_path: Path
) -> None:
    out, prices = tmp_path / "p.jsonl", {"price_in": 1.0, "price_out": 1.0}
    with chat_server() as server:
        outcome = make(server, out, 200, **prices, **{limit: value})
        found = report(out)
        assert found["tokens_in"] + found["tokens_out"] <= 3000 and found["cost"] <= 0.003
        assert 8 <= len(texts(out)) < 200 and not outcome.complete
        assert f"stopped early: --{limit.replace('_', '-')}" in " ".join(outcome.notes)
        before = len(server.asked)
        assert make(server, out, 80).complete
        assert len(server.asked) == 20 > before


def test_a_limit_that_allows_nothing_is_an_error(tmp_path: Path) -> None:
    with chat_server() as server:
        with pytest.raises(ConfigError, match="no usable text"):
            make(server, tmp_path / "p.jsonl", max_tokens=10)
        with pytest.raises(ConfigError, match="without prices"):
            make(server, tmp_path / "p.jsonl", max_cost=1.0)
    assert not server.asked


# ---------------------------------------------------------------------- servers that fail
def test_rate_limits_are_waited_for(tmp_path: Path) -> None:
    def busy(server: Server, request: dict[str, Any]) -> Answer:
        limited = len(server.asked) % 2
        return Answer(status=429, headers={"Retry-After": "0.02"}, body=b"{}") if limited else good(server, request)

    with chat_server(busy) as server:
        make(server, tmp_path / "p.jsonl", 12, parallel=1)
    assert len(server.asked) == 6 and len(texts(tmp_path / "p.jsonl")) == 12


def endless() -> Generator[bytes]:
    for _ in range(10_000):
        yield b" " * 65536


def trickle() -> Generator[bytes]:
    while True:
        time.sleep(0.01)
        yield b" "


def error(status: int, message: str, code: str | None = None, **headers: str) -> Answer:
    """An error as the interface has it."""
    body = json.dumps({"error": {"message": message, "code": code}}).encode()
    return Answer(status=status, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})


FAILING: dict[str, tuple[Answer, str, str]] = {
    "wrong key": (error(401, f"Incorrect key {KEY}"), "refuses the key: Incorrect key [key]", "OPENAI_API_KEY"),
    "no such model": (error(404, "none"), "no model 'tiny-model'", "it has: tiny-model, other"),
    "always busy": (error(429, "busy", Retry_After="0.001"), "limits the rate: busy", "--parallel"),
    "no credit": (error(429, "pay", "insufficient_quota", x_should_retry="false"), "no credit left: pay", "add some"),
    "broken": (Answer(status=500, body=b"oops \x1b[2J"), "the server failed", "log"),
    "unfit": (error(400, "bad\x1b[2J\nwords"), "refuses the request: bad[2J words", "--model"),
    "slow": (Answer("x", pause=1.0), "no answer within 0.05 s", "--timeout"),
    "trickles": (Answer(parts=trickle), "no usable text (too long", "remedy"),
    "endless": (Answer(parts=endless), "no usable text (too long", "remedy"),
}


@pytest.mark.parametrize("case", sorted(FAILING))
def test_failures_are_one_error_with_a_remedy(case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    answer, what, remedy = FAILING[case]
    timeout = {"slow": 0.05, "trickles": 0.1}.get(case, 20)
    with chat_server(always(answer)) as server, pytest.raises(DatasetDMError) as caught:
        make(server, tmp_path / "p.jsonl", parallel=2, timeout=timeout, batch=12)
    assert what in str(caught.value) and remedy in str(caught.value)
    assert "\x1b" not in str(caught.value)
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    frames = [f"{f.line} {f.locals}" for f in told.stack if "tests" not in Path(f.filename).parts]
    shown = "\n".join([*frames, *told.format_exception_only()])
    assert len(frames) > 2 and told.__cause__ is None and told.__context__ is None
    assert server.keys[0] == f"Bearer {KEY}"
    assert KEY not in shown and KEY not in caplog.text
    assert not any(KEY.encode() in p.read_bytes() for p in tmp_path.iterdir())


@pytest.mark.parametrize(("url", "what"), [
    ("http://127.0.0.1:9/v1", "cannot be reached"),
    ("localhost:8080", "is no URL"),
    ("http://me:word@localhost/v1", "holds a name, a password"),
])  # fmt: skip
def test_servers_that_are_none(url: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=what):
        make(url, tmp_path / "p.jsonl")


def test_without_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ConfigError, match="no key in OPENAI_API_KEY"):
        make("https://api.openai.com/v1", tmp_path / "p.jsonl")
    with chat_server() as server:
        make(server, tmp_path / "p.jsonl")
    assert len(texts(tmp_path / "p.jsonl")) == 12, "servers of one's own need none"
    with chat_server(always(Answer(status=401, body=b"{}"))) as server, pytest.raises(ConfigError, match="wants a key"):
        make(server, tmp_path / "q.jsonl")


def test_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "prompts",
        "--labels",
        "dog,cat,bench",
        "--count",
        "6",
        "--source",
        "llm",
        "--out",
        str(tmp_path / "p.jsonl"),
    )
    assert run(*words) == 2 and "--model NAME" in capsys.readouterr().err
    with chat_server() as server:
        assert run(*words, "--model", "m", "--base-url", server.url, "--candidates", "1") == 0
    said = capsys.readouterr()
    assert said.out == f"{tmp_path / 'p.jsonl'}\n" and "6 prompts (llm)" in said.err and "distance:" in said.err
    assert KEY not in said.out + said.err
