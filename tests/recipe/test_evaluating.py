"""What an evaluation writes: figures, the same to read, and a page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from commands import run
from datasetdm.downstream.files import build_model, save_model
from datasetdm.downstream.segformer import Segformer
from datasetdm.engines.progress import label_table
from datasetdm.recipe.evaluating import evaluate
from datasetdm.recipe.schema import EvaluateStage
from datasetdm.records import Labels
from datasetdm.store.writer import write_store
from factory import LABELS, make_sample
from sources import save_decoder


def test_a_folder_with_figures_and_a_page(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("sky", "dog", "<b>grass|</b>")
    labels = Labels(names)
    write_store([make_sample(f"k{i}", seed=i, labels=labels) for i in range(5)], tmp_path / "s", labels)
    decoder = save_decoder(tmp_path / "decoder", tiny_folder)
    config = json.loads((decoder / "config.json").read_text())
    config["labels"]["names"] = list(names)
    (decoder / "config.json").write_text(json.dumps(config))
    asked = ["--data", str(tmp_path / "s"), "--decoder", str(decoder), "--device", "cpu", "--unseen", "dog"]
    assert run("evaluate", *asked, "--shown", "1", "--out", str(tmp_path / "out")) == 0
    told = capsys.readouterr()
    found = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert found["figures"] == json.loads(told.out) and found["counts"]["images"] == 5
    assert {*found["by_label"]["semantic"]} == {*names} and "miou_harmonic" in found["figures"]["semantic"]
    assert all(n in told.err for n in names) and f"next: open {tmp_path / 'out' / 'hits.html'}" in told.err
    markdown = (tmp_path / "out" / "figures.md").read_text()
    assert "| &lt;b>grass\\|&lt;/b> | " in markdown and "| semantic miou | 0." in markdown
    html = (tmp_path / "out" / "hits.html").read_text()
    assert html.count("<figure") == 2 and "<b>grass" not in html
    assert run("evaluate", *asked, "--out", str(tmp_path / "out")) == 2, "what is there is not replaced"


def test_no_page_is_written_if_none_is_wanted(tiny_folder: Path, tmp_path: Path) -> None:
    write_store([make_sample("a")], tmp_path / "s", LABELS)
    decoder = str(save_decoder(tmp_path / "decoder", tiny_folder))
    stage = EvaluateStage(data=str(tmp_path / "s"), decoder=decoder, device="cpu", shown=0)
    outcome = evaluate(stage, tmp_path / "out", lambda _: None)
    assert not (tmp_path / "out" / "hits.html").exists() and outcome.next.startswith("datasetdm annotate")


def test_data_without_what_a_model_finds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    student = Segformer(LABELS)
    model = build_model(student, student.variants["tiny"], 32)
    save_model(tmp_path / "m", model, student.processor(32), {"labels": LABELS.to_json()})
    write_store([replace(make_sample("a"), semantic=None)], tmp_path / "s", LABELS)
    asked = ("--data", str(tmp_path / "s"), "--model", str(tmp_path / "m"), "--device", "cpu")
    assert run("evaluate", *asked, "--out", str(tmp_path / "out")) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "nothing to measure" in said and "a segformer, gives: semantic; the data have" in said
    assert not (tmp_path / "out").exists()


def test_what_a_model_has_no_use_for_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for words, named in ((["--decoder", "d"], "decoder"), (["--no-captions", "--backbone", "b"], "backbone, captions")):
        assert run("evaluate", "--model", "m", "--data", "mini:test", *words) == 2
        assert f"a model has no {named}" in " ".join(capsys.readouterr().err.split())


def test_the_worst_labels_come_first() -> None:
    by_label = {"a": {"x": {"iou": 0.5, "more": 1.0}, "y": {"iou": 0.1}}, "b": {"y": {"ap": 0.3}, "z": {"ap": 0.2}}}
    assert label_table(by_label)[0] == ["a iou", "a more", "b ap"]
    assert label_table(by_label, first=True) == (
        ["a iou", "b ap"],
        [("y", ["0.100", "0.300"]), ("x", ["0.500", ""]), ("z", ["", "0.200"])],
    )
