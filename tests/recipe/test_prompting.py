"""The stage that makes prompts: offline by default, reused by content, and a stage that generate reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chat_server import chat_server
from commands import run
from datasetdm.errors import ConfigError, DatasetDMError, OutputError
from datasetdm.prompts import PromptFile
from datasetdm.recipe.plan import plan
from datasetdm.recipe.prompting import prompts
from datasetdm.recipe.run import make_recipe, run_recipe
from datasetdm.recipe.schema import PromptsStage
from datasetdm.recipe.text_encoder import TextEncoder
from datasetdm.records import Labels
from datasetdm.store.store import Store
from datasetdm.store.writer import write_store
from factory import LABELS, make_sample
from sources import save_decoder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_store([make_sample(f"s{i}", seed=i) for i in range(3)], tmp_path / "given", LABELS)
    return tmp_path / "given"


def make(out: Path, count: int = 20, **settings: Any) -> list[Any]:
    prompts(PromptsStage(count=count, **settings), out, lambda _: None)
    return list(PromptFile(out))


def actions(content: dict[str, Any], out: Path) -> list[str]:
    return [f"{step.name}: {step.action}" for step, _ in run_recipe(make_recipe(content), out)]


def test_prompts_of_labelled_data_with_a_report(store: Path, tmp_path: Path) -> None:
    rows = make(tmp_path / "p.jsonl", data=str(store), domains="night, fog")
    assert len(rows) == 20 and {r.origin for r in rows} == {"grammar"}
    assert {n for r in rows for n in r.labels} == {*LABELS.names}
    assert {r.place for r in rows} == {None, "at night", "in thick fog"}
    report = json.loads((tmp_path / "p.report.json").read_text())
    assert report["candidates"] == 40 and report["diversity"]["distance"] > report["class_names"]["distance"]
    assert make(tmp_path / "q.jsonl", data=str(store), domains=("night", "fog")) == rows
    assert make(tmp_path / "p.jsonl", data=str(store), seed=1) != rows, "a file of ours is replaced"


def test_other_labels_and_other_sources(store: Path, tmp_path: Path) -> None:
    some = make(tmp_path / "p.jsonl", data=str(store), labels="dog,owl", style="old paintings")
    assert {n for r in some for n in r.labels} == {"dog", "owl"} and all(", old paintings" in r.prompt for r in some)
    names = make(tmp_path / "n.jsonl", count=3, labels="dog,owl", source="names")
    assert [r.prompt for r in names] == ["a photo of a dog", "a photo of an owl", "a photo of a dog"]
    own = make(tmp_path / "c.jsonl", data=str(store), source="captions")
    assert [(r.prompt, r.labels, r.origin) for r in own] == [("a photo of a dog", ("dog",), "user")], (
        "captions of their own"
    )


def test_what_is_refused(store: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.jsonl"
    mine.write_text('"a dog"\n')
    for settings, out, what in (
        ({}, "p.jsonl", "there are no labels"),
        ({"labels": ("background",)}, "p.jsonl", "label set is empty"),
        ({"labels": ("dog",)}, "p.txt", "JSON lines"),
        ({"labels": ("dog",)}, "mine.jsonl", "did not write"),
        ({"labels": ("dog",), "source": "captions"}, "p.jsonl", "captions are those of labelled images"),
        ({"labels": ("dog",), "source": "llm"}, "p.jsonl", "no language model"),
        ({"labels": ("dog",), "encoder": "mimi"}, "p.jsonl", "did you mean 'mini'"),
        ({"labels": ("red dog", "red  dog")}, "p.jsonl", "the same words as another"),
        ({"labels": ("dog",), "encoder": "mini", "style": "very " * 50}, "p.jsonl", "too long for the text encoder"),
    ):
        with pytest.raises(DatasetDMError, match=what):
            make(tmp_path / out, **settings)
    assert mine.read_text() == '"a dog"\n' and not (tmp_path / "p.jsonl").exists()


def test_labels_that_the_text_encoder_cannot_tell_apart() -> None:
    encoder = TextEncoder("mini")
    encoder.require_different(Labels(("dog", "cat", "potted plant")))
    long = "very " * 60
    for first, second in (("a dog", "a\u00a0dog"), (f"{long} dog", f"{long} cat")):
        with pytest.raises(ConfigError, match="the text encoder cannot tell it from"):
            encoder.require_different(Labels((first, second)))
    assert encoder.fits("a photo of a dog") and not encoder.fits("dog " * 100)


def test_the_stage_is_reused_continued_and_run_again(store: Path, tmp_path: Path) -> None:
    stage: dict[str, Any] = {"kind": "prompts", "data": str(store), "count": 5}
    content, out = {"stages": {"words": stage}}, tmp_path / "out"
    assert actions(content, out) == ["words: run"]
    before = (out / "words.jsonl").read_bytes()
    assert actions(content, out) == ["words: reuse"]
    stage["count"] = 8
    assert actions(content, out) == ["words: continue"] and len(list(PromptFile(out / "words.jsonl"))) == 8
    stage["seed"] = 1
    assert actions(content, out) == ["words: run again"]
    assert len(list(out.glob("words.jsonl.before-*"))) == 1 and (out / "words.jsonl").read_bytes() != before
    (out / "words.jsonl").write_text("a dog\n")
    with pytest.raises(OutputError, match="something is already"):
        actions(content, out)


def test_a_stage_that_was_stopped_by_a_limit_goes_on(tmp_path: Path) -> None:
    with chat_server() as server:
        stage: dict[str, Any] = {
            "kind": "prompts", "source": "llm", "labels": ["dog", "cat", "bench"], "count": 30, "candidates": 1,
            "model": "m", "base_url": server.url, "max_tokens": 3500, "batch": 5,
        }  # fmt: skip
        content, out = {"stages": {"words": stage}}, tmp_path / "out"
        assert actions(content, out) == ["words: run"]
        few = len(list(PromptFile(out / "words.jsonl")))
        assert 0 < few < 30
        del stage["max_tokens"]
        assert actions(content, out) == ["words: continue"]
        assert len(list(PromptFile(out / "words.jsonl"))) == 30 and len(server.asked) == 6
        assert actions(content, out) == ["words: reuse"] and len(server.asked) == 6


def test_generate_refers_to_prompts(store: Path, tmp_path: Path) -> None:
    stages: dict[str, Any] = {
        "words": {"kind": "prompts", "data": str(store), "count": 5},
        "images": {"kind": "generate", "prompts": "stage:words", "count": 5},
    }
    steps = plan(make_recipe({"stages": stages}), tmp_path / "out")
    assert steps[1].stage.prompts == (str(tmp_path / "out" / "words.jsonl"),) and steps[0].seconds is not None
    stages["words"] = {"kind": "page", "data": str(store)}
    with pytest.raises(ConfigError, match="makes no prompts"):
        make_recipe({"stages": stages})


def test_generate_reads_them(tiny_folder: Path, store: Path, tmp_path: Path) -> None:
    decoder = save_decoder(tmp_path / "decoder", tiny_folder)
    content = {
        "stages": {
            "words": {"kind": "prompts", "data": str(store), "count": 2},
            "images": {"kind": "generate", "prompts": "stage:words", "count": 2, "decoder": str(decoder), "steps": 1,
                       "device": "cpu", "batch": 2},
        }
    }  # fmt: skip
    out = tmp_path / "out"
    assert actions(content, out) == ["words: run", "images: run"]
    rows, samples = list(PromptFile(out / "words.jsonl")), list(Store(out / "images"))
    assert [(s.prompt.text, s.prompt.origin) for s in samples] == [(r.prompt, "grammar") for r in rows]
    assert all(set(s.prompt.labels) <= set(r.labels) for s, r in zip(samples, rows, strict=True))
    assert actions(content, out) == ["words: reuse", "images: reuse"]
    content["stages"]["words"]["seed"] = 3
    assert actions(content, out) == ["words: run again", "images: run again"]


def test_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("prompts", "--labels", "dog,bus,traffic light", "--count", "9", "--out", str(tmp_path / "p.jsonl"))
    assert run(*words, "--domains", "night,fog") == 0
    said = capsys.readouterr()
    assert said.out == f"{tmp_path / 'p.jsonl'}\n" and "9 prompts (grammar)" in said.err
    assert "prompts per label: " in said.err and "distance: " in said.err and "generate --prompts" in said.err
