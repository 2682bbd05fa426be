"""Edits: other things in the place of labels, the other pixels as they were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datasetdm.backbones import Backbone
from datasetdm.decoder.model import PDecoder
from datasetdm.engines.local import write
from datasetdm.errors import ConfigError, StoreError
from datasetdm.pipelines.edit import Editor, erode, grow, plan_edit, replace_labels
from datasetdm.pipelines.settings import EditConfig
from datasetdm.pipelines.stream import Data, Source
from datasetdm.records import Labels, Prompt, Sample, SemanticMap
from datasetdm.store.store import Store
from factory import LABELS, make_sample
from sources import InMemoryReader

CAT = Labels(("sky", "dog", "grass", "cat"), ((), ("puppy",), (), ()), ("sky", "grass"))


@pytest.fixture(scope="module")
def decoder(tiny: Backbone) -> PDecoder:
    torch.manual_seed(0)
    return PDecoder.for_backbone(tiny, CAT, ("semantic", "instance"), width=32).eval()


def editor(decoder: PDecoder, tiny: Backbone, samples: list[Sample] | None = None, **settings: Any) -> Editor:
    samples = [make_sample(k, seed=i, size=(48, 64)) for i, k in enumerate("abc")] if samples is None else samples
    settings = {"replace": {"dog": "cat"}, "steps": 2, **settings}
    return Editor(Data(InMemoryReader(samples)), decoder=decoder, backbone=tiny, **settings)


def test_other_things_and_other_pixels_only_in_the_region(decoder: PDecoder, tiny: Backbone, tmp_path: Path) -> None:
    source = editor(decoder, tiny, margin=0.1, room=0)
    assert isinstance(source, Source) and write(source, tmp_path / "s") == 3
    for parent, edited in zip(source.data.samples(), Store(tmp_path / "s"), strict=True):
        assert edited.prompt is not None and edited.size == parent.size and edited.labels == CAT
        assert (edited.prompt.text, edited.prompt.labels) == ("a photo of a cat", ("cat",))
        assert edited.provenance.details["parent"] == parent.key
        assert edited.provenance.details["edit"] == {"replace": {"dog": "cat"}}
        changed = (edited.image != parent.image).any(-1)
        assert parent.instances is not None
        reach = grow(torch.from_numpy(parent.instances.masks[0])[None], round(0.1 * 64) + 1)[0].numpy()
        assert changed[parent.instances.masks[0]].mean() > 0.5 and not changed[~reach].any()


def test_the_same_edits_go_on_and_others_are_refused(decoder: PDecoder, tiny: Backbone, tmp_path: Path) -> None:
    whole = [s.digest() for s in editor(decoder, tiny).samples()]
    write(editor(decoder, tiny), tmp_path / "s", 1)
    assert write(editor(decoder, tiny), tmp_path / "s") == 3
    store = Store(tmp_path / "s")
    assert store[0].digest() == whole[0] and len({*store.keys()}) == 3
    with pytest.raises(StoreError, match="belongs to another stream"):
        write(editor(decoder, tiny, remove=("dog",), replace={}), tmp_path / "s")
    other = [make_sample(k, seed=9, size=(48, 64)) for k in "abc"]
    with pytest.raises(StoreError, match="another one than the store's samples come from"):
        write(editor(decoder, tiny, other), tmp_path / "s")
    with pytest.raises(StoreError, match="which these data lack"):
        write(editor(decoder, tiny, [make_sample("z", size=(48, 64))]), tmp_path / "s")


def test_edits_of_one_image_have_keys_of_their_own(decoder: PDecoder, tiny: Backbone) -> None:
    sample = make_sample()
    keys = {editor(decoder, tiny, **s).key(sample) for s in ({}, {"seed": 1}, {"background": "in the snow"})}
    assert len(keys) == 3 and sample.key not in keys


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"replace": {}}, "nothing to edit"),
        ({"replace": {"dog": None}}, "names nothing new"),
        ({"replace": {"horse": "cat"}}, "no label horse"),
        ({"replace": {"dog": "whale"}}, "would not find the new whale"),
        ({"margin": 2}, "margin"),
        ({"colour": 2}, "unknown setting"),
    ],
)
def test_impossible_edits_are_refused(
    settings: dict[str, Any], message: str, decoder: PDecoder, tiny: Backbone
) -> None:
    with pytest.raises(ConfigError, match=message):
        editor(decoder, tiny, **settings)


def test_images_without_the_label_are_no_edits() -> None:
    sample = make_sample()
    assert sample.semantic is not None
    bare = replace(
        sample, instances=None, keypoints=None, semantic=replace(sample.semantic, ids=sample.semantic.ids * 0)
    )
    assert plan_edit(bare, EditConfig(replace={"dog": "cat"})) is None
    assert plan_edit(bare, EditConfig(remove=("sky",))) is not None
    assert plan_edit(sample, EditConfig(replace={"dog": "cat"}, min_region=0.9)) is None


def test_regions_and_prompts_of_every_kind() -> None:
    sample = make_sample()
    assert sample.instances is not None and sample.semantic is not None
    dog = sample.instances.masks[0]
    swap, remove, background = (
        plan_edit(sample, EditConfig(**settings))
        for settings in ({"replace": {"Puppy": "cat"}, "room": 0}, {"remove": ("dog",)}, {"background": "in the snow"})
    )
    assert swap and remove and background
    assert np.array_equal(swap.region, dog) and swap.prompt.text == "a photo of a cat" and swap.negative == ""
    assert np.array_equal(remove.region, dog) and remove.prompt.labels == () and remove.negative == "dog"
    assert np.array_equal(background.region, ~dog)
    assert background.prompt.text == "a photo of a dog in the snow" and background.prompt.labels == ("dog",)
    assert (
        swap.prompt.seed == remove.prompt.seed != plan_edit(make_sample("b"), EditConfig(remove=("dog",))).prompt.seed
    )
    silent = replace(sample, prompt=Prompt("", (), 0, "caption"))
    composed = plan_edit(silent, EditConfig(replace={"dog": "cat"}))
    assert composed and composed.prompt.text == "a photo of a sky, a cat and a grass"


@pytest.mark.parametrize(
    ("caption", "new", "expected"),
    [
        ("a photo of a dog", "airplane", "a photo of an airplane"),
        ("Two dogs and a puppy", "cat", "Two cats and a cat"),
        ("an old dog, hotdogs", "cat", "an old cat, hotdogs"),
        ("two dogs, a dog", "person", "two people, a person"),
    ],
)
def test_words_are_replaced_with_article_and_number(caption: str, new: str, expected: str) -> None:
    assert replace_labels(caption, LABELS, {"dog": new}) == expected


def test_what_takes_the_place_of_a_thing_has_room() -> None:
    """The box around the thing, wider, but no pixel of another thing; specks have no box."""
    ids = np.zeros((40, 60), np.uint16)
    ids[10:20, 10] = ids[19, 10:20] = 1
    ids[14:17, 14:30] = 3
    ids[35, 55] = 1
    sample = Sample("a", np.zeros((40, 60, 3), np.uint8), CAT, semantic=SemanticMap(ids))
    swap = {"replace": {"dog": "cat"}, "min_region": 0.002}
    plain, roomy = (plan_edit(sample, EditConfig(**swap, room=room)) for room in (0, 0.05))
    assert plain and roomy and np.array_equal(plain.region, ids == 1)
    expected = np.zeros((40, 60), bool)
    expected[7:23, 7:23] = expected[35, 55] = True
    assert np.array_equal(roomy.region, expected & (ids != 3))


def test_irregular_plurals_are_plurals() -> None:
    labels = Labels(("person", "sheep", "bus"), (("people",), (), ()))
    new = {"person": "bus", "sheep": "person", "bus": "sheep"}
    text = "two people, a person, a white sheep, three black sheep, buses"
    assert replace_labels(text, labels, new) == "two buses, a bus, a white person, three black people, sheep"


def test_labels_that_the_caption_does_not_name_stay_out_of_it_unless_asked_for() -> None:
    """What the decoder found beside is edited, too, but does not cost the caption its words."""
    sample = make_sample()
    swap = EditConfig(replace={"dog": "cat", "grass": "car"})
    (beside, asked) = (
        plan_edit(replace(sample, prompt=Prompt("a dog in the evening", labels)), swap)
        for labels in (("dog",), ("dog", "grass"))
    )
    assert beside and asked and np.array_equal(beside.region, asked.region)
    assert (beside.prompt.text, beside.prompt.labels) == ("a cat in the evening", ("cat",))
    assert (asked.prompt.text, asked.prompt.labels) == ("a cat in the evening, a car", ("cat", "car"))
    same = plan_edit(
        replace(sample, prompt=Prompt("", ("dog", "grass"))), EditConfig(replace={"dog": "cat", "grass": "cat"})
    )
    assert same and same.prompt.text == "a photo of a cat"


def test_growing_and_eroding_leave_the_border_of_the_image_alone() -> None:
    region = torch.zeros(1, 8, 8, dtype=torch.bool)
    region[0, :, :4] = True
    assert grow(region, 1)[0].sum() == 40 and erode(region, 1)[0].sum() == 24
    assert torch.equal(erode(grow(region, 2), 2), region)


def test_labels_that_change_places_are_replaced_at_once() -> None:
    swap = {"dog": "cat", "cat": "dog"}
    assert replace_labels("a cat, a dog and puppies", CAT, swap) == "a dog, a cat and cats"
