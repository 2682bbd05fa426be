"""Scenarios of the students' tables: what is labelled, generated and tested on; the encoder that was pretrained on words."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from benchmarks.students import pretrain, renders
from benchmarks.students.pretrain import Pretraining
from benchmarks.students.scenarios import (
    HIDDEN,
    LONG_TAIL,
    PLAIN,
    RARE_IMAGES,
    SEEN,
    SHIFT,
    ZERO_SHOT,
    is_strange,
    names_in,
    without,
)
from miniworld.pretrain.data import Captioned

from datasetdm.downstream import STUDENTS
from datasetdm.downstream.files import build_model
from datasetdm.readers import read
from datasetdm.readers.formats.mini import LABELS, PACKAGED
from datasetdm.records import Sample


@pytest.fixture(scope="module")
def own() -> list[Sample]:
    return list(read("mini:train"))


@pytest.fixture(scope="module")
def others() -> list[Sample]:
    return list(read("mini:test"))


def test_rare_labels_are_in_one_to_three_images(own: list[Sample], others: list[Sample]) -> None:
    chosen = LONG_TAIL.labelled(own, [*own, *others])
    shown = Counter(n for s in chosen for n in names_in(s))
    assert len(chosen) == len({s.digest() for s in chosen}) == 100
    assert {n: shown[n] for n in RARE_IMAGES} == RARE_IMAGES and sorted(RARE_IMAGES.values()) == [1, 1, 2, 2, 3, 3]
    assert Counter(n for s in own for n in names_in(s))["car"] == shown["car"] or shown["car"] > 3


def test_no_strange_condition_is_labelled(own: list[Sample], others: list[Sample]) -> None:
    chosen = SHIFT.labelled(own, others)
    assert len(chosen) == 100 and not any(map(is_strange, chosen)) and any(map(is_strange, own))
    assert not any(map(is_strange, SHIFT.val(others))) and list(PLAIN.val(others)) == others
    lights = SHIFT.grammar().lights["outdoors"]
    assert lights.count("at night") == lights.count("in the fog") == 2 and len(lights) == 8
    assert PLAIN.grammar().origin() == ZERO_SHOT.grammar().origin() != SHIFT.grammar().origin()


def test_unseen_labels_are_hidden(own: list[Sample]) -> None:
    chosen = ZERO_SHOT.labelled(own[:20], [])
    assert {*HIDDEN} | {*SEEN} == {*LABELS.names[:18]} and len(HIDDEN) == 6
    assert not {n for s in chosen for n in names_in(s)} & {*HIDDEN}
    assert {n for s in own[:20] for n in names_in(s)} & {*HIDDEN} and all(s.labels == LABELS for s in chosen)
    known = without(chosen[0], HIDDEN)
    assert len(known.labels) == 24 and names_in(known) == names_in(chosen[0])


def test_recipes_show_the_condition() -> None:
    for condition in renders.CONDITIONS:
        found = list(islice(renders.recipes(condition), 20))
        assert len({seed for seed, _ in found}) == 20
        own = {(r.place.name if condition == "snow" else r.light.name) for _, r in found}
        assert own == {condition} and not any(r.place.indoor for _, r in found)
    assert renders.identity(3) != renders.identity(4)


@pytest.mark.slow
def test_a_render_of_every_condition(tmp_path: Path) -> None:
    pytest.importorskip("mitsuba")
    prefixes = renders.render_all(tmp_path, 1)
    samples = [s for p in prefixes for s in read(f"mini:{p}")]
    assert len(samples) == 3 and all(map(is_strange, samples))
    assert samples[0].image.mean() < 90 < samples[2].image.mean()
    before = [p.stat().st_mtime_ns for p in sorted(tmp_path.rglob("*.parquet"))]
    renders.render_all(tmp_path, 1)
    assert [p.stat().st_mtime_ns for p in sorted(tmp_path.rglob("*.parquet"))] == before


@pytest.mark.slow
def test_the_encoder_knows_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its loss falls, and a student that begins with it has its weights; stopped and begun again it is the same."""
    monkeypatch.setattr(pretrain, "SAVE_EVERY", 4)
    rows = pq.read_table(next(PACKAGED.glob("train-*.parquet"))).slice(0, 40).to_pydict()
    data = Captioned(rows["image"], rows["caption"], {"1"})
    small, folder = Pretraining(small_steps=8, steps=4, batch=8, side=64), tmp_path / "encoder"
    next(small.make(data, folder))
    losses = [loss for _, loss in small.make(data, folder)]
    whole = [loss for _, loss in small.make(data, tmp_path / "whole")]
    assert losses == whole[1:] and whole[-1] < whole[0]
    assert pretrain.encoder_digest(folder) == pretrain.encoder_digest(tmp_path / "whole")
    kind = STUDENTS.load("segformer")
    tiny = kind.variants["tiny"]
    one, two, fresh = (build_model(kind(LABELS), tiny, 32, e) for e in (str(folder), str(folder), None))
    encoders = [dict(m.segformer.named_parameters()) for m in (one, two, fresh)]
    for name, value in encoders[0].items():
        assert torch.equal(value, encoders[1][name]), name
        assert "proj.weight" not in name or not torch.equal(value, encoders[2][name]), name
    assert not torch.equal(one.decode_head.classifier.weight, two.decode_head.classifier.weight)  # the head is new
    story = json.loads((folder / "datasetdm.json").read_text())["pretrained"]
    assert "horse" in story["words"] and "a" not in story["words"] and story["images"] == 30
