"""Recipes: stages that are reused while their inputs are the same, and never take what they did not make."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from datasetdm.errors import ConfigError, DatasetDMError, OutputError
from datasetdm.io.files import locked
from datasetdm.quality import copies
from datasetdm.readers import read
from datasetdm.recipe.plan import Digests, plan
from datasetdm.recipe.run import load_recipe, make_recipe, run_recipe, shipped
from datasetdm.records import Quality
from datasetdm.records.edits import reject
from datasetdm.store.quality import append_quality
from datasetdm.store.reviews import Review, append_review
from datasetdm.store.store import Store
from datasetdm.store.writer import write_store
from factory import LABELS, make_sample
from sources import save_decoder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_store([make_sample(f"s{i}", seed=i) for i in range(3)], tmp_path / "given", LABELS)
    return tmp_path / "given"


@pytest.fixture
def generated(tiny_folder: Path, tmp_path: Path) -> dict[str, Any]:
    """A recipe that generates with a tiny model, then exports and shows."""
    decoder = save_decoder(tmp_path / "decoder", tiny_folder)
    make = dict(kind="generate", prompts=["a dog"], count=2, decoder=str(decoder), steps=1, device="cpu", batch=2)
    return {
        "stages": {
            "store": make,
            "coco": {"kind": "export", "data": "stage:store"},
            "page": {"kind": "page", "data": "stage:store"},
        }
    }


def run(content: Mapping[str, Any], out: Path) -> list[str]:
    """What was done with each stage."""
    return [f"{step.name}: {step.action}" for step, _ in run_recipe(make_recipe(content), out)]


def snapshot(folder: Path) -> dict[str, str]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_stages_are_reused_while_their_inputs_are_the_same(store: Path, tmp_path: Path) -> None:
    content: dict[str, Any] = {
        "stages": {
            "coco": {"kind": "export", "data": str(store)},
            "few": {"kind": "export", "data": str(store), "limit": 2, "format": "voc"},
            "page": {"kind": "page", "data": str(store)},
        }
    }
    out = tmp_path / "out"
    assert run(content, out) == ["coco: run", "few: run", "page: run"]
    assert len(list((out / "few" / "JPEGImages").iterdir())) == 2 and (out / "page.html").is_file()
    before = snapshot(out)
    assert run(content, out) == ["coco: reuse", "few: reuse", "page: reuse"]
    assert snapshot(out) == before
    content["stages"]["few"]["limit"] = 1
    assert run(content, out) == ["coco: reuse", "few: run again", "page: reuse"]
    assert len(list((out / "few" / "JPEGImages").iterdir())) == 1
    append_review(store, Review("s0", "reject"))
    assert run(content, out) == ["coco: run again", "few: run again", "page: run again"]
    assert len(list((out / "coco" / "images").iterdir())) == 2


def test_a_changed_stage_runs_again_with_those_after_it(generated: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(generated, out) == ["store: run", "coco: run", "page: run"]
    first = [s.digest() for s in Store(out / "store")]
    generated["stages"]["store"]["count"] = 3
    assert run(generated, out) == ["store: continue", "coco: run again", "page: run again"]
    assert [s.digest() for s in Store(out / "store")][:2] == first
    assert len(list((out / "coco" / "images").iterdir())) == 3
    generated["stages"]["store"]["device"] = "auto"
    assert run(generated, out) == ["store: reuse", "coco: reuse", "page: reuse"], "the device changes nothing"
    generated["stages"]["store"]["seed"] = 5
    steps = plan(make_recipe(generated), out)
    assert [s.action for s in steps] == ["run again"] * 3
    assert steps[0].why == "seed was 0, is 5" and steps[1].why == "stage store changes"
    assert run(generated, out)[0] == "store: run again"
    assert len(Store(out / "store")) == 3 and Store(out / "store").stream["seed"] == 5


def test_an_unfinished_stage_goes_on(generated: dict[str, Any], tmp_path: Path) -> None:
    out, seen = tmp_path / "out", []

    def stop(progress: Any) -> None:
        seen.append(progress.done)
        if progress.done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run_recipe(make_recipe(generated), out, stop))
    assert len(Store(out / "store")) == 1 and seen == [0, 1]
    assert run(generated, out) == ["store: continue", "coco: run", "page: run"]
    assert len(Store(out / "store")) == 2


@pytest.mark.parametrize("place", ["coco/mine.txt", "page.html", "coco"])
def test_what_no_recipe_made_is_left_alone(place: str, store: Path, tmp_path: Path) -> None:
    content: dict[str, Any] = {
        "stages": {n: {"kind": k, "data": str(store)} for n, k in (("coco", "export"), ("page", "page"))}
    }
    mine = tmp_path / "out" / place
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(OutputError, match="where something is already"):
        run(content, tmp_path / "out")
    assert mine.read_text() == "mine" and [p for p in (tmp_path / "out").rglob("*") if p.is_file()] == [mine]


def test_a_page_that_somebody_changed_is_left_alone(store: Path, tmp_path: Path) -> None:
    run({"stages": {"page": {"kind": "page", "data": str(store)}}}, tmp_path / "out")
    (tmp_path / "out" / "page.html").write_text("mine")
    content: dict[str, Any] = {"stages": {"page": {"kind": "page", "data": str(store), "limit": 1}}}
    with pytest.raises(OutputError, match="something is already"):
        run(content, tmp_path / "out")
    assert (tmp_path / "out" / "page.html").read_text() == "mine"


def test_what_was_made_before_is_set_aside(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stages: dict[str, Any] = {n: {"kind": k, "data": str(store)} for n, k in (("coco", "export"), ("page", "page"))}
    (out / "coco").mkdir(parents=True)  # an empty folder is in nobody's way
    run({"stages": stages}, out)
    (out / "coco" / "mine.txt").write_text("mine")
    old = (out / "page.html").read_bytes()
    stages["coco"]["licence"], stages["page"]["limit"] = "cc0-1.0", 1
    made = [outcome for _, outcome in run_recipe(make_recipe({"stages": stages}), out)]
    (aside,), (page,) = out.glob("coco.before-*"), out.glob("page.html.before-*")
    assert (aside / "mine.txt").read_text() == "mine" and page.read_bytes() == old
    assert [str(p) in str(o and o.notes) for p, o in zip((aside, page), made, strict=True)] == [True, True]
    assert run({"stages": stages}, out) == ["coco: reuse", "page: reuse"]


def test_a_stage_that_cannot_begin_takes_nothing_away(
    generated: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run(generated, out)
    before = snapshot(out)
    right = generated["stages"]["store"]["decoder"]
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", lambda *_: pytest.fail("nothing is moved for a name that is wrong"))
        for wrong in (
            {"decoder": "nowhere"},
            {"backbone": "nowhere"},
            {"backbone": "mini+no.safetensors"},
            {"device": "tpu9"},
        ):
            changed = {"stages": {**generated["stages"], "store": {**generated["stages"]["store"], "seed": 5, **wrong}}}
            with pytest.raises(DatasetDMError, match=r"no decoder|unknown backbone|no LoRA file|device 'tpu9'"):
                run(changed, out)
            assert snapshot(out) == before
    generated["stages"]["store"] |= {"decoder": right, "seed": 7}
    with locked(out / "store" / ".store.lock", "store"), pytest.raises(OutputError, match="written by another"):
        run(generated, out)
    assert snapshot(out) == before
    generated["stages"]["store"] |= {"seed": 0, "count": 1}
    with pytest.raises(OutputError, match="holds 2 samples, more than the count of 1"):
        run(generated, out)
    assert snapshot(out) == before


def test_one_recipe_at_a_time_per_folder(store: Path, tmp_path: Path) -> None:
    content = {"stages": {"coco": {"kind": "export", "data": str(store)}, "page": {"kind": "page", "data": str(store)}}}
    first = run_recipe(make_recipe(content), tmp_path / "out")
    next(first)
    with pytest.raises(OutputError, match="recipe's folder is being written by another process"):
        run(content, tmp_path / "out")
    assert [step.name for step, _ in first] == ["page"]
    assert run(content, tmp_path / "out") == ["coco: reuse", "page: reuse"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [".page.html.stage.json", "coco", "page.html"]


def test_a_limit_chooses_among_accepted_samples(store: Path, tmp_path: Path) -> None:
    append_review(store, Review("s0", "reject"))
    append_quality(store, "s2", Quality({}, ("blurred",)))
    for balance in (False, True):
        content = {"stages": {"coco": {"kind": "export", "data": str(store), "limit": 1, "balance": balance}}}
        out = tmp_path / f"out{balance}"
        run(content, out)
        assert [p.stem for p in (out / "coco" / "images").iterdir()] == ["s1"]


def test_an_export_into_the_store_that_is_read_is_refused(store: Path) -> None:
    with pytest.raises(OutputError, match="inside the store"):
        run({"stages": {"coco": {"kind": "export", "data": f"store:{store}"}}}, store / "more")
    assert not (store / "more").exists()


def test_transforms_of_an_annotation_change_what_it_finds(
    generated: dict[str, Any], store: Path, tmp_path: Path
) -> None:
    remap = {"name": "remap-labels", "mapping": {"dog": "animal"}}
    decoder = generated["stages"]["store"]["decoder"]
    stage = {"kind": "annotate", "data": str(store), "decoder": decoder, "device": "cpu", "transforms": [remap]}
    run({"stages": {"a": stage}}, tmp_path / "out")
    made = Store(tmp_path / "out" / "a")
    assert "animal" in made.labels.names and made.stream["transforms"][0]["name"] == "remap-labels"


def test_a_link_in_a_stages_place_is_refused(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    content: dict[str, Any] = {"stages": {"coco": {"kind": "export", "data": str(store)}}}
    run(content, out)
    (out / "coco").rename(tmp_path / "elsewhere")
    (out / "coco").symlink_to(tmp_path / "elsewhere")
    assert run(content, out) == ["coco: reuse"]
    content["stages"]["coco"]["licence"] = "cc0-1.0"
    with pytest.raises(OutputError, match="symbolic link"):
        run(content, out)


def test_a_store_with_reviews_is_not_made_again(generated: dict[str, Any], tmp_path: Path) -> None:
    run(generated, tmp_path / "out")
    append_review(tmp_path / "out" / "store", Review("00000000", "reject"))
    assert run(generated, tmp_path / "out") == ["store: reuse", "coco: run again", "page: run again"]
    generated["stages"]["store"]["seed"] = 1
    with pytest.raises(OutputError, match="holds reviews"):
        run(generated, tmp_path / "out")
    assert len(Store(tmp_path / "out" / "store")) == 2


def test_planning_writes_nothing(store: Path, tmp_path: Path) -> None:
    content = {"stages": {"coco": {"kind": "export", "data": str(store)}}}
    step = plan(make_recipe(content), tmp_path / "out")[0]
    assert step.action == "run" and step.count == 3 and not (tmp_path / "out").exists()
    run(content, tmp_path / "out")
    again = {"stages": {"coco": {"kind": "export", "data": str(store), "licence": "cc0-1.0"}}}
    step = plan(make_recipe(again), tmp_path / "out")[0]
    assert step.action == "run again" and step.seconds and step.bytes and step.bytes > 1000, "measured by the first run"


def test_everything_that_samples_say_is_an_input(tmp_path: Path) -> None:
    """Labels, prompts, parts and qualities change what is exported, as pixels do."""
    one, other = make_sample("s0", seed=0), replace(LABELS, synonyms=(("x",), *LABELS.synonyms[1:]))
    assert one.prompt is not None
    ways = [
        one,
        replace(one, prompt=replace(one.prompt, text="another caption")),
        replace(one, prompt=None),
        replace(one, split="val"),
        reject(one, "blurred"),
        replace(one, labels=other),
    ]
    found = []
    for number, sample in enumerate(ways):
        write_store([sample, make_sample("s1", seed=1)] if sample.labels == LABELS else [sample],
                    tmp_path / str(number), sample.labels)  # fmt: skip
        content = {"stages": {"coco": {"kind": "export", "data": str(tmp_path / str(number))}}}
        found.append(plan(make_recipe(content), tmp_path / "out")[0].inputs["content"])
    assert len(set(found)) == len(ways)


def test_qualities_models_and_transforms_are_inputs(tiny_folder: Path, store: Path, tmp_path: Path) -> None:
    folder, lora = tmp_path / "backbone", tmp_path / "a.safetensors"
    shutil.copytree(tiny_folder, folder)
    lora.write_bytes(b"1")
    content: dict[str, Any] = {
        "stages": {
            "fit": {"kind": "fit", "data": str(store), "backbone": str(folder), "lora": [str(lora)]},
            "coco": {
                "kind": "export",
                "data": str(store),
                "transforms": [{"name": "apply-reviews", "store": str(store)}],
            },
        }
    }

    def changed(before: list[Any]) -> list[str]:
        after = plan(make_recipe(content), tmp_path / "out")
        return sorted({k for a, b in zip(before, after, strict=True) for k in a.inputs if a.inputs[k] != b.inputs[k]})

    first = plan(make_recipe(content), tmp_path / "out")
    lora.write_bytes(b"2")
    assert changed(first) == ["lora"]
    (folder / "more.json").write_text("{}")
    assert changed(first) == ["backbone", "lora"]
    append_quality(store, "s0", Quality({}, ("blurred",)))
    assert changed(first) == ["backbone", "content", "lora"]
    append_review(store, Review("s1", "reject"))
    assert changed(first) == ["backbone", "content", "lora", "transforms"]


def test_transforms_of_a_stage_are_applied(store: Path, tmp_path: Path) -> None:
    remap = {"name": "remap-labels", "mapping": {"dog": "animal"}}
    content = {"stages": {"coco": {"kind": "export", "data": str(store), "transforms": [remap]}}}
    run(content, tmp_path / "out")
    text = (tmp_path / "out" / "coco" / "annotations" / "instances.json").read_text()
    assert '"animal"' in text and '"dog"' not in text


EXPORT = {"kind": "export", "data": "STORE"}
TRAIN = {"kind": "train", "data": "STORE"}
MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no stage": ({}, "at least 1"),
    "unknown kind": ({"a": {"kind": "exprt", "data": "x"}}, "exprt"),
    "unknown setting": ({"a": {**EXPORT, "formt": "coco"}}, "did you mean 'format'?"),
    "impossible setting": ({"a": {**EXPORT, "min_score": 2}}, "a.min_score"),
    "name that is no file name": ({"../a": EXPORT}, "pattern"),
    "later stage": ({"a": {**EXPORT, "data": "stage:b"}, "b": EXPORT}, "names no earlier stage"),
    "stage without a store": ({"a": EXPORT, "b": {**EXPORT, "data": "stage:a"}}, "makes no store"),
    "stage without a decoder": (
        {"a": EXPORT, "b": {"kind": "evaluate", "data": "mini:test", "decoder": "stage:a"}},
        "makes no decoder",
    ),
    "unknown format": ({"a": {**EXPORT, "format": "coca"}}, "did you mean 'coco'?"),
    "unknown transform": ({"a": {**EXPORT, "transforms": [{"name": "remap"}]}}, "unknown transform"),
    "split": ({"a": {**EXPORT, "split": "train=0.5"}}, "sum to 0.5"),
    "setting called model": ({"a": {**EXPORT, "transforms": [{"name": "choose", "limit": 1, "model": 3}]}}, "'model'"),
    "unknown student": ({"a": EXPORT, "b": {**TRAIN, "student": "segfomer"}}, "did you mean 'segformer'?"),
    "unknown size": ({"a": EXPORT, "b": {**TRAIN, "variant": "b9"}}, "unknown variant"),
    "setting without effect": (
        {"a": EXPORT, "b": {**TRAIN, "student": "glpn", "self_training": "STORE"}},
        "cannot learn",
    ),
    "long name": ({"a" * 300: EXPORT}, "at most 100"),
    "missing data": ({"a": EXPORT, "b": {**EXPORT, "data": "coco:nowhere.json"}}, "no such file"),
    "missing prompts": ({"a": {"kind": "generate", "prompts": "nowhere.txt", "count": 1}}, "no such prompt file"),
}


@pytest.mark.parametrize("case", sorted(MISTAKES))
def test_mistakes_are_found_before_any_stage_runs(case: str, store: Path, tmp_path: Path) -> None:
    stages, hint = MISTAKES[case]
    stages = {n: {k: str(store) if v == "STORE" else v for k, v in s.items()} for n, s in stages.items()}
    with pytest.raises(DatasetDMError) as caught:
        run({"stages": stages}, tmp_path / "out")
    assert hint in str(caught.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text", ["", "- a\n", "stages: 3\n", "stages: [a]\n", "a: [\n", "\0", "[" * 5000, "1: 2\n", "stages: {a: {1: 2}}\n"]
)
def test_files_that_are_no_recipe(text: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(ConfigError):
        load_recipe(tmp_path / "r.yaml")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("a: &x [1]\nstages: *x\n", "aliases"),
        ("stages: {}\nstages: {a: {kind: page}}\n", "'stages' is there twice"),
        ("stages: {a: {kind: page, data: x, limit: [" + "1, " * 9000 + "]}}\n", "a.limit"),
    ],
    ids=["alias", "key", "long"],
)
def test_what_recipe_files_may_not_hold(text: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_recipe(tmp_path / "r.yaml")
    assert hint in str(caught.value) and len(str(caught.value)) < 1000
    with pytest.raises(ConfigError, match="unknown recipe"):
        load_recipe("x" * 5000)


def test_recipes_that_ship(tmp_path: Path) -> None:
    assert {n for n in shipped() if "/" not in n} == {"demo", "demo-fit", "own-data"}
    for name, path in shipped().items():
        recipe = load_recipe(name)
        assert recipe.description and recipe == load_recipe(path)
    parts = [s for s in load_recipe("paper/coco-pose").stages.values() if getattr(s, "limit", None)]
    assert parts and all(s.balance for s in parts), "half of COCO's images show nobody"
    steps = plan(load_recipe("demo", {"store.count": 7}), tmp_path)
    assert [(s.name, s.out.name, s.count) for s in steps] == [
        ("store", "store", 7), ("coco", "coco", 7), ("gallery", "gallery.html", 7)
    ]  # fmt: skip
    assert all(s.seconds and s.bytes for s in steps)


def test_changes_name_a_stage_and_a_setting() -> None:
    assert load_recipe("demo", {"store.prompts": "a dog"}).stages["store"].model_dump()["prompts"] == ("a dog",)
    for place, hint in (
        ("stor.count", "did you mean 'store'?"),
        ("store.coun", "did you mean 'count'?"),
        ("x", "stage"),
    ):
        with pytest.raises(ConfigError) as caught:
            load_recipe("demo", {place: 1})
        assert hint in str(caught.value)
    with pytest.raises(ConfigError, match="unknown recipe 'dem'"):
        load_recipe("dem")


def test_a_recipe_survives_yaml(generated: dict[str, Any], tmp_path: Path) -> None:
    recipe = make_recipe(generated)
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False))
    assert load_recipe(tmp_path / "r.yaml") == recipe


def test_filters_make_a_store_of_their_own(store: Path, tmp_path: Path) -> None:
    """Its shards are links; the store that it reads stays as it is, and what reads the result skips what was rejected."""
    content: dict[str, Any] = {
        "stages": {
            "kept": {"kind": "filter", "data": str(store), "min_contrast": 0.0, "duplicates": 1.0},
            "coco": {"kind": "export", "data": "stage:kept"},
        }
    }
    before, out = snapshot(store), tmp_path / "out"
    assert run(content, out) == ["kept: run", "coco: run"]
    assert snapshot(store) == before and [s.accepted for s in Store(out / "kept")] == [True, False, False]
    assert [p.name for p in (out / "coco" / "images").iterdir()] == ["s0.png"]
    shards = [next((folder / "data").glob("*.parquet")) for folder in (store, out / "kept")]
    assert shards[0].samefile(shards[1])
    assert run(content, out) == ["kept: reuse", "coco: reuse"]
    content["stages"]["kept"]["duplicates"] = 0.0
    assert run(content, out) == ["kept: run again", "coco: run again"]
    assert len(list((out / "coco" / "images").iterdir())) == 3
    with pytest.raises(ConfigError, match="no filter was chosen"):
        run({"stages": {"kept": {"kind": "filter", "data": str(store)}}}, tmp_path / "none")


def test_a_stage_runs_again_when_what_its_filters_compare_with_changes(store: Path, tmp_path: Path) -> None:
    """The data of a filter are an input by their content."""
    labelled, out = tmp_path / "labelled", tmp_path / "out"
    write_store([make_sample("l0", seed=0)], labelled, LABELS)
    copies = {"name": "filter-copies", "data": f"store:{labelled}"}
    content: dict[str, Any] = {"stages": {"coco": {"kind": "export", "data": str(store), "transforms": [copies]}}}
    assert run(content, out) == ["coco: run"] and run(content, out) == ["coco: reuse"]
    shutil.rmtree(labelled)
    write_store([make_sample("l0", seed=9)], labelled, LABELS)
    (step,) = plan(make_recipe(content), out)
    assert step.action == "run again" and "transforms" in step.why


def test_what_filters_compare_with_is_read_once(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(copies, "read", lambda data: opened.append(data) or read(data))
    own = [{"name": "filter-copies", "data": f"store:{store}"}]
    stages = {
        "kept": {"kind": "filter", "data": str(store), "copies_of": f"store:{store}"},
        **{name: {"kind": "export", "data": str(store), "transforms": own} for name in ("coco", "again")},
    }
    digests: Digests = {}
    first, second = (plan(make_recipe({"stages": stages}), tmp_path / "out", digests=digests) for _ in range(2))
    assert opened == [f"store:{store}"] and [s.inputs for s in first] == [s.inputs for s in second]
    assert plan(make_recipe({"stages": stages}), tmp_path / "out") == first and len(opened) == 2


def test_filters_are_settings_of_stages(generated: dict[str, Any], tmp_path: Path) -> None:
    """With the same defaults as on the command line; settings that change nothing are no inputs."""
    make = generated["stages"]["store"]
    (plain, *_) = plan(make_recipe(generated), tmp_path / "out")
    assert not {"filters", "round", "tolerate", "min_area", "min_yield"} & plain.inputs.keys()
    make |= {"min_contrast": 0.01, "min_yield": 0.5}
    (filtered, *_) = plan(make_recipe(generated), tmp_path / "out")
    assert [f["name"] for f in filtered.inputs["filters"]] == ["filter-by-contrast"]
    del make["count"]
    (aimed, *_) = plan(make_recipe({"stages": {"store": make | {"target": 5}}}), tmp_path / "out")
    assert aimed.inputs["target"] == 5 and aimed.inputs["round"] == 64 and aimed.count is None
    for wrong in (make, make | {"target": 1, "count": 1}):
        with pytest.raises(ConfigError, match="--count"):
            make_recipe({"stages": {"store": wrong}})
