"""Recipes that come with the package: all are plans that can be made, and one per task runs in small."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from commands import run
from datasetdm.downstream import STUDENTS
from datasetdm.pipelines.filter import make_filters
from datasetdm.recipe.plan import plan
from datasetdm.recipe.run import load_recipe, make_recipe, run_recipe, shipped
from datasetdm.recipe.schema import EvaluateStage, FilterStage, GenerateStage, TrainStage, texts
from datasetdm.recipe.smoke import IMAGES, smoke
from datasetdm.store.store import Store

PAPER = [name for name in shipped() if name.startswith("paper/")]
LARGE = [name for name in shipped() if "/" in name]
ONE_PER_TASK = ["paper/voc-zero-shot", "paper/coco-instance-400", "paper/nyu-50", "paper/coco-pose"]
"""The others run by `make smoke`."""


def test_every_published_result_has_its_recipe() -> None:
    assert {name.removeprefix("paper/") for name in PAPER} == {
        "voc-r50", "voc-swin-b", "voc-zero-shot", "voc-long-tail", "lvis-long-tail", "coco-instance-400", "coco-instance-800",
        "cityscapes", "cityscapes-densepass", "nyu-50", "nyu-250", "kitti", "vkitti", "coco-pose", "deepfashion",
    }  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_heads_say_what_a_recipe_needs_and_gives(name: str) -> None:
    head = re.match(r"(?:#.*\n)+", shipped()[name].read_text())
    assert head and f"datasetdm run {name} --out " in head[0]
    keys = re.findall(r"^#   (\w+)  ", head[0], re.M)
    assert keys[:4] == ["command", "data", "cost", "expected"]
    text = " ".join(re.sub(r"^#", "", head[0], flags=re.M).split())
    if name in PAPER:
        assert "arXiv 2308.06160" in text or "No score" in text, "a score has a source"
        assert "https://" in text or "http://" in text, "data come from somewhere"
        for data in re.findall(r"\w+:(data/[\w-]+)", shipped()[name].read_text()):
            assert data in text, "a head says where data lie"


@pytest.mark.parametrize("name", PAPER)
def test_a_plan_needs_no_data(name: str, tmp_path: Path) -> None:
    """What is lacking is said; time is unknown rather than that of another model; disk is known for what is large."""
    steps = {s.name: s for s in plan(load_recipe(name), tmp_path, without_data=True)}
    assert [s for s in steps.values() if s.why.startswith("lacks data")] and not list(tmp_path.iterdir())
    store, decoder = steps["store"], steps["decoder"]
    assert store.seconds is None and decoder.seconds is None
    assert store.count and store.bytes and store.bytes / store.count > 500_000, "512 x 512 pixels"


@pytest.mark.parametrize("name", [name for name in shipped() if name.startswith("mini/")])
def test_time_and_disk_of_the_mini_world_are_known(name: str, tmp_path: Path) -> None:
    steps = plan(load_recipe(name), tmp_path)
    assert all(s.seconds is not None and s.bytes is not None for s in steps)
    assert 60 < sum(s.seconds or 0 for s in steps) < 3600


@pytest.mark.parametrize("name", sorted(shipped()))
def test_in_small_every_recipe_is_a_recipe(name: str, tmp_path: Path) -> None:
    own, small = load_recipe(name), smoke(load_recipe(name), tmp_path, write=False)
    assert [(n, s.kind) for n, s in own.stages.items()] == [(n, s.kind) for n, s in small.stages.items()]
    assert not list(tmp_path.iterdir())
    for stage in small.stages.values():
        for field in ("data", "synthetic"):
            for value in texts(getattr(stage, field, None)):
                assert value.startswith(("stage:", "mini:", str(tmp_path))), value
        if isinstance(stage, GenerateStage):
            assert stage.count == IMAGES and (stage.steps, stage.backbone) == (1, None)
        if isinstance(stage, TrainStage):
            assert stage.variant == "tiny" and stage.encoder is None and stage.student in STUDENTS


def test_a_model_from_elsewhere_is_the_embedded_decoder_in_small(tmp_path: Path) -> None:
    content = {"stages": {"figures": {"kind": "evaluate", "model": "somebody/model", "data": "coco:a.json"}}}
    stage = smoke(make_recipe(content), tmp_path, write=False).stages["figures"]
    assert isinstance(stage, EvaluateStage) and stage.model is None
    assert (stage.decoder, stage.data, stage.limit) == ("mini", "mini:test", IMAGES)


def test_no_filter_rejects_in_small(tmp_path: Path) -> None:
    filters = {"min_area": 0.1, "tolerate": 0.2, "duplicates": 0.5, "copies_of": "coco:a.json", "teacher": "somewhere"}
    content = {"stages": {"kept": {"kind": "filter", "data": "my-store", **filters}}}
    stage = smoke(make_recipe(content), tmp_path, write=False).stages["kept"]
    assert (
        isinstance(stage, FilterStage) and stage.teacher is None and (stage.copies_of or "").startswith(str(tmp_path))
    )
    assert (stage.min_area, stage.tolerate, stage.duplicates) == (0, 1, 0) and make_filters(stage)


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_PER_TASK)
def test_a_recipe_runs_in_small(name: str, tmp_path: Path) -> None:
    assert run("run", name, "--out", str(tmp_path), "--smoke") == 0
    out = tmp_path / "smoke"
    for stage, own in load_recipe(name).stages.items():
        if own.kind == "evaluate":
            found = json.loads((out / stage / "figures.json").read_text())
            assert found["counts"]["images"] == IMAGES and (out / stage / "hits.html").exists()
            numbers = [v for row in found["figures"].values() for v in row.values()]
            assert numbers and all(map(math.isfinite, numbers))
        if isinstance(own, FilterStage):
            assert [s.accepted for s in Store(out / stage)] == [True] * IMAGES
    small = smoke(load_recipe(name), out)
    assert {step.action for step, _ in run_recipe(small, out)} == {"reuse"}


def test_recipes_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("recipes") == 0 and "paper/voc-r50" in capsys.readouterr().out
    assert run("recipes", "--names") == 0 and capsys.readouterr().out.split() == list(shipped())
    assert run("recipes", "mini/depth") == 0 and capsys.readouterr().out == shipped()["mini/depth"].read_text()
    assert run("recipes", "mini/deph") == 2 and "did you mean 'mini/depth'?" in capsys.readouterr().err
