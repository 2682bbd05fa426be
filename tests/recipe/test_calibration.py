"""Plans whose figures are measured: what is made for that, what follows from it, and what is said where nothing can be made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from commands import run
from datasetdm.engines.progress import Measured
from datasetdm.errors import DecoderError
from datasetdm.recipe import measuring
from datasetdm.recipe.calibration import STAND_IN_PROMPT, calibrate
from datasetdm.recipe.plan import Step
from datasetdm.recipe.runners import MEASURES
from datasetdm.recipe.schema import AnnotateStage, ExportStage, FitStage, GenerateStage, PromptsStage, Stage


def step(name: str, stage: Stage, folder: Path, **more: Any) -> Step:
    return Step(name, stage, folder / name, {}, **{"action": "run", "left": 100, **more})


def test_seconds_are_shared_by_workers_that_each_load_models() -> None:
    measured = Measured("4 images", 2.0, 50.0, 4, 10.0, "cuda", 100.0, 1e6)
    assert measured.seconds == 10 + 2 * 50 / 4


def test_what_earlier_stages_have_yet_to_make_has_a_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, tuple[Stage, Path]] = {}

    def measure(step: Step, folder: Path, _: object) -> Measured:
        if step.name == "broken":
            raise DecoderError("there is no decoder")
        seen[step.name] = step.stage, folder
        return Measured("1 image", 1.0, 9.0, 1, 2.0, "cpu", 9.0, 7.0)

    monkeypatch.setattr(MEASURES, "load", lambda _: measure)
    decoder, store = str(tmp_path / "decoder"), str(tmp_path / "store")
    steps = [
        step("prompts", PromptsStage(data="mini:train", count=5), tmp_path),
        step("decoder", FitStage(data="mini:train"), tmp_path),
        step("store", GenerateStage(decoder=decoder, prompts=(str(tmp_path / "prompts"),), count=100), tmp_path),
        step("again", AnnotateStage(decoder=decoder, data=store), tmp_path),
        step("broken", AnnotateStage(data="images:nowhere"), tmp_path),
        step("done", AnnotateStage(data=store), tmp_path, action="reuse"),
        step("coco", ExportStage(data=store), tmp_path),
    ]
    found = calibrate(steps, lambda _: None)
    assert [s.name for s, _ in found] == ["decoder", "store", "again", "broken"]
    assert [(s.seconds, s.bytes) for s, _ in found] == [(11.0, 7.0)] * 3 + [(None, None)]
    assert found[-1][1] == "there is no decoder"
    generated, annotated = seen["store"][0], seen["again"][0]
    assert isinstance(generated, GenerateStage) and isinstance(annotated, AnnotateStage)
    assert generated.decoder == annotated.decoder == str(seen["decoder"][1]) and generated.prompts == (STAND_IN_PROMPT,)
    assert annotated.data == str(seen["store"][1]) and not list(tmp_path.iterdir())


RECIPE = """
stages:
  decoder: {kind: fit, data: "mini:train", limit: 3, width: 32, steps: 90, variants: 2, tasks: semantic, device: cpu}
  store: {kind: generate, decoder: "stage:decoder", prompts: grammar, count: 50, steps: 1, device: cpu}
  new: {kind: annotate, decoder: "stage:decoder", data: "images:nowhere", device: cpu}
  coco: {kind: export, data: "stage:store"}
"""


@pytest.mark.slow
def test_a_plan_with_measured_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "BATCHES", 2)
    (tmp_path / "r.yaml").write_text(RECIPE)
    out = tmp_path / "out"
    assert run("run", str(tmp_path / "r.yaml"), "--out", str(out), "--dry-run", "--calibrate") == 0
    said = capsys.readouterr()
    lines = {line.partition(":")[0]: line for line in said.err.splitlines()}
    assert "features of 3 images and 2 steps" in lines["decoder"] and "processor hours" in lines["decoder"]
    assert "store: 2 images in" in lines["store"] and "25.0 times as much is left" in lines["store"]
    assert "not measured" in lines["new"]
    assert "coco" in said.out and not out.exists()


def test_it_belongs_to_a_dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("run", "demo", "--out", str(tmp_path), "--calibrate") == 2
    assert "--dry-run" in capsys.readouterr().err and not list(tmp_path.iterdir())
