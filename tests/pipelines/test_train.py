"""Training an ordinary model from the command line and in recipes: places, locks, references."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from commands import run
from datasetdm.downstream.pool import Pool
from datasetdm.errors import ConfigError, DataError, OutputError
from datasetdm.io.files import locked
from datasetdm.pipelines.settings import TrainConfig
from datasetdm.pipelines.train import LOCK, iter_train, train
from datasetdm.recipe.plan import plan
from datasetdm.recipe.run import make_recipe, run_recipe
from datasetdm.records import Labels
from datasetdm.records.edits import reject, relabel
from datasetdm.store.store import Store
from datasetdm.store.writer import write_store
from factory import LABELS, make_sample

QUICK: dict[str, Any] = dict(size=32, batch=2, steps=2, save_every=1)
WORDS = [word for k, v in QUICK.items() for word in (f"--{k.replace('_', '-')}", str(v))]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Three samples, and one that was rejected."""
    samples = [make_sample(f"s{i}", seed=i) for i in range(3)]
    write_store([*samples, reject(make_sample("s3"), "blank")], tmp_path / "given", LABELS)
    return tmp_path / "given"


@pytest.mark.slow
def test_from_the_command_line(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, figures = tmp_path / "m", tmp_path / "f.json"
    more = ("--synthetic", str(store), "--self-training", str(store), "--tensorboard")
    assert run("train", "--data", str(store), *more, "--out", str(out), *WORDS) == 0
    said = capsys.readouterr()
    assert said.out == f"{out}\n" and "trained on 3 images and 3 synthetic ones and 3 without labels" in said.err
    assert run("evaluate", "--model", str(out), "--data", str(store), "--json", str(figures)) == 0
    assert 0 <= json.loads(figures.read_text())["semantic"]["miou"] <= 1
    assert [*(out / "tensorboard").iterdir()]
    story = json.loads((out / "datasetdm.json").read_text())["trained"]
    assert (
        story["config"]["steps"] == 2
        and story["images"] == story["synthetic_images"] == story["unlabelled_images"] == 3
    )
    assert run("train", "--data", str(store), "--out", str(out), *WORDS) == 2, "a finished model is not overwritten"
    assert "not empty" in capsys.readouterr().err
    again = tmp_path / "again"
    assert run("train", "--data", str(store), "--out", str(again), "--encoder", str(out), "--frozen", *WORDS) == 0
    first, second = (load_file(p / "model.safetensors") for p in (out, again))
    same = {name for name in first if (first[name] == second[name]).all()}
    assert {n for n in first if n.startswith("segformer.")} <= same
    assert "decode_head.classifier.weight" not in same


@pytest.mark.slow
def test_in_a_recipe(store: Path, tmp_path: Path) -> None:
    content: dict[str, Any] = {
        "stages": {
            "kept": {"kind": "filter", "data": str(store), "min_contrast": 0.0},
            "student": {
                "kind": "train",
                "data": [str(store), "stage:kept"],
                "synthetic": "stage:kept",
                "self_training": str(store),
                **QUICK,
            },
            "figures": {"kind": "evaluate", "data": str(store), "model": "stage:student"},
        }
    }
    out = tmp_path / "out"

    def actions() -> list[str]:
        return [f"{s.name}: {s.action}" for s, _ in run_recipe(make_recipe(content), out)]

    assert actions() == ["kept: run", "student: run", "figures: run"]
    story = json.loads((out / "student" / "datasetdm.json").read_text())["trained"]
    assert [story[f"{n}images"] for n in ("", "synthetic_", "unlabelled_")] == [6, 3, 3]
    assert actions() == ["kept: reuse", "student: reuse", "figures: reuse"]
    content["stages"]["student"]["seed"] = 1
    assert actions() == ["kept: reuse", "student: run again", "figures: run again"]
    content["stages"]["figures"]["model"] = "stage:figures"
    with pytest.raises(ConfigError):
        make_recipe(content)
    content["stages"]["figures"]["model"] = str(store)
    with pytest.raises(ConfigError, match="no model can be read"):
        actions()


@pytest.mark.slow
def test_several_stores_are_one_mix(tmp_path: Path) -> None:
    """Labels come together by name: the second store has them in another order, and one more."""
    samples = [make_sample(f"s{i}", seed=i) for i in range(4)]
    others = Labels((*LABELS.names[::-1], "boat"), skeletons=LABELS.skeletons, stuff=LABELS.stuff)
    ids = [others.index[n] for n in LABELS.names]
    write_store(samples, tmp_path / "whole", LABELS)
    write_store(samples[:2], tmp_path / "first", LABELS)
    write_store([relabel(s, others, ids) for s in samples[2:]], tmp_path / "second", others)
    parts = [Store(tmp_path / name) for name in ("first", "second")]
    whole = Store(tmp_path / "whole")
    train(whole, tmp_path / "one", synthetic=whole, **QUICK)
    train(parts, tmp_path / "two", synthetic=tuple(parts), **QUICK)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all((two[name] == value).all() for name, value in one.items())
    stories = [json.loads((tmp_path / n / "datasetdm.json").read_text())["trained"] for n in ("one", "two")]
    assert stories[0] == stories[1] and stories[1]["images"] == stories[1]["synthetic_images"] == 4


def test_places_and_settings_that_are_refused(store: Path, tmp_path: Path) -> None:
    data = Store(store)

    def begin(out: Path, **changes: Any) -> None:
        next(iter_train(data, out, config=TrainConfig(**{**QUICK, **changes}), device="cpu"))

    with pytest.raises(ConfigError, match="unknown variant 'tinny'"):
        begin(tmp_path / "m", variant="tinny")
    with pytest.raises(ConfigError, match="unknown student"):
        begin(tmp_path / "m", student="resnet")
    with pytest.raises(ConfigError, match="a glpn knows no label smoothing"):
        begin(tmp_path / "m", student="glpn", label_smoothing=0.1)
    with pytest.raises(ConfigError, match=r"no model can be read: the folder has no config\.json") as caught:
        begin(tmp_path / "e", encoder=str(tmp_path))
    assert "training was stopped" in str(caught.value) and not (tmp_path / "e").exists(), "the right one can be given"
    with pytest.raises(ConfigError, match="would keep its random weights"):
        begin(tmp_path / "m", frozen=True)
    with locked(tmp_path / "l" / LOCK, "model"), pytest.raises(OutputError, match="being written by another"):
        begin(tmp_path / "l")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("")
    with pytest.raises(OutputError, match="not empty"):
        begin(tmp_path / "mine")
    begin(tmp_path / "begun")
    with pytest.raises(OutputError, match="another, unfinished training"):
        begin(tmp_path / "begun", seed=1)


class _OnDisk(Pool):
    __init__ = partialmethod(Pool.__init__, memory=0)


@pytest.mark.slow
def test_samples_that_do_not_fit_into_memory(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They lie in the folder before it is known whose it is, also where the command was killed meanwhile."""
    monkeypatch.setattr("datasetdm.pipelines.train.Pool", _OnDisk)
    work, config = tmp_path / "m" / "work", TrainConfig(**QUICK)
    with monkeypatch.context() as patch:
        patch.setattr("datasetdm.pipelines.train.claim", lambda *_: pytest.exit("killed"))
        with pytest.raises(pytest.exit.Exception):
            next(iter_train(Store(store), tmp_path / "m", config=config, device="cpu"))
    (samples,) = work.iterdir()
    assert next(iter_train(Store(store), tmp_path / "m", config=config, device="cpu")).done == 1
    assert samples in [*work.iterdir()]
    (tmp_path / "mine" / "work").mkdir(parents=True)
    (tmp_path / "mine" / "work" / "mine.arrow").write_text("")
    with pytest.raises(OutputError, match="not empty"):
        next(iter_train(Store(store), tmp_path / "mine", config=config, device="cpu"))


def test_a_plan_knows_that_images_without_labels_take_time(store: Path, tmp_path: Path) -> None:
    stage = {"kind": "train", "data": str(store)}
    recipe = make_recipe({"stages": {"one": stage, "two": {**stage, "self_training": str(store)}}})
    one, two = (step.seconds for step in plan(recipe, tmp_path / "out"))
    assert one and two == 2 * one


def test_a_stage_that_failed_before_its_first_step_goes_on(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe({"stages": {"student": {"kind": "train", "data": str(store), **QUICK}}})

    def refuse(*_: object) -> None:
        raise ConfigError("the batches cannot be made")

    monkeypatch.setattr("datasetdm.pipelines.train.Batches", refuse)
    for action in ("run", "continue"):
        assert [s.action for s in plan(recipe, tmp_path / "out")] == [action]
        with pytest.raises(ConfigError, match="cannot be made"):
            [*run_recipe(recipe, tmp_path / "out")]


@pytest.mark.slow
def test_labels_that_only_one_side_has_are_named(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name in other letters would be ignored in silence."""
    names = tuple("Dog" if n == "dog" else n for n in LABELS.names)
    other = Labels(names, stuff=LABELS.stuff)
    plain = [replace(s, instances=None, keypoints=None) for s in Store(store)]
    write_store([relabel(s, other, range(len(names))) for s in plain], tmp_path / "other", other)
    out = str(tmp_path / "m")
    assert run("train", "--data", str(store), "--synthetic", str(tmp_path / "other"), "--out", out, *WORDS) == 0
    assert "of this name: Dog" in capsys.readouterr().err
    assert run("evaluate", "--data", str(tmp_path / "other"), "--model", out) == 0
    said = capsys.readouterr().err
    assert "that the model does not know, so that it finds none: Dog" in said
    assert "that the data do not know; what is found under them is wrong: dog" in said
    assert run("evaluate", "--data", str(store), "--model", out) == 0
    assert "note:" not in capsys.readouterr().err


def test_a_loss_that_is_not_finite_names_the_samples(store: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the loss is not finite") as caught:
        for _ in iter_train(
            Store(store), tmp_path / "m", config=TrainConfig(**{**QUICK, "steps": 40, "learning_rate": 1e30})
        ):
            pass
    assert "s1" in str(caught.value.where) or "s2" in str(caught.value.where)
