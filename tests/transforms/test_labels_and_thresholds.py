"""RemapLabels, FilterByScore, MaskByConfidence and Split, each on samples small enough to see every pixel."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from random import Random

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_cdt

from datasetdm.errors import ConfigError
from datasetdm.io.settings import validated
from datasetdm.records import (
    BACKGROUND,
    IGNORE,
    DepthMap,
    Instances,
    Keypoints,
    Labels,
    Prompt,
    Sample,
    SemanticMap,
    Skeleton,
)
from datasetdm.transforms.outlines import MaskOutlines
from datasetdm.transforms.remap import RemapLabels, remapped
from datasetdm.transforms.split import Split
from datasetdm.transforms.threshold import FilterByScore, MaskByConfidence
from factory import make_sample

ZOO = Labels(
    ("cat", "sky", "dog"), (("kitten",), (), ()), ("sky",), {"dog": Skeleton(("nose",)), "cat": Skeleton(("nose",))}
)


def zoo() -> Sample:
    ids = np.array([[0, 1, 2, IGNORE]], np.uint16)
    points = Keypoints(np.array([[[0, 1]], [[2, 0]], [[4, 1]]]), np.array([[2], [0], [1]]), (("nose",), (), ("nose",)))
    return Sample(
        "z",
        np.zeros((1, 4, 3), np.uint8),
        ZOO,
        Prompt("a cat under the sky", ("cat", "sky")),
        semantic=SemanticMap(ids, np.array([[0.9, 0.2, 0.8, 0.1]])),
        instances=Instances.from_masks(np.eye(4, dtype=bool)[:3, None], np.array([0, 1, 2]), np.array([0.3, 0.6, 0.9])),
        keypoints=points,
    )


# ---------------------------------------------------------------------- other labels
def test_labels_merge_and_drop() -> None:
    (sample,) = validated(RemapLabels, mapping="cat=animal, dog=animal,sky=")([zoo()])
    assert sample.labels.names == ("animal",) and sample.labels.synonyms == (("cat", "kitten", "dog"),)
    assert sample.labels.skeletons == {"animal": Skeleton(("nose",))} and sample.labels.stuff == ()
    assert sample.prompt == Prompt("a cat under the sky", ("animal",))
    assert sample.semantic.ids.tolist() == [[0, IGNORE, 0, IGNORE]]
    objects, points = sample.instances, sample.keypoints
    assert objects.label_ids.tolist() == [0, 0] and np.allclose(objects.scores, [0.3, 0.9])
    assert objects.masks.dense().argmax(-1).ravel().tolist() == [0, 2] and points.xy[:, 0].tolist() == [[0, 1], [4, 1]]


def test_dropped_pixels_become_background_where_there_is_one() -> None:
    labels = Labels((BACKGROUND, "cat", "dog"))
    assert remapped(labels, {"dog": None}) == (Labels((BACKGROUND, "cat")), [0, 1, 0])
    objects = Instances.from_masks(np.eye(3, dtype=bool)[1:, None], np.array([1, 2]))
    image = np.zeros((1, 3, 3), np.uint8)
    (sample,) = RemapLabels(mapping={"dog": None})([Sample("k", image, labels, instances=objects)])
    assert sample.instances.label_ids.tolist() == [1], "its objects are removed"


def test_bad_remaps() -> None:
    with pytest.raises(ConfigError, match="did you mean 'cat'"):
        RemapLabels(mapping={"catt": "x"}).vocabulary(ZOO)
    with pytest.raises(ConfigError, match="all labels are dropped"):
        RemapLabels(mapping=dict.fromkeys(ZOO.names)).vocabulary(ZOO)
    with pytest.raises(ConfigError, match="different points"):
        skeletons = {"cat": Skeleton(("nose",)), "dog": Skeleton(("tail",))}
        remapped(Labels(("cat", "dog"), skeletons=skeletons), {"cat": "x", "dog": "x"})
    with pytest.raises(ConfigError, match="mapping: .* expected name=value"):
        validated(RemapLabels, mapping="cat")


@hypothesis.given(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=3, max_size=3))
def test_remapping_is_renaming_pixel_by_pixel(new: list[str | None]) -> None:
    hypothesis.assume(any(new))
    labels = Labels(("x", "y", "z"))
    sample = Sample("k", np.zeros((1, 3, 3), np.uint8), labels, semantic=SemanticMap(np.array([[0, 1, 2]])))
    (result,) = RemapLabels(mapping=dict(zip(labels.names, new, strict=True)))([sample])
    assert [None if i == IGNORE else result.labels.names[i] for i in result.semantic.ids[0]] == new


# ---------------------------------------------------------------------- certain enough
def test_minimum_score() -> None:
    (sample,) = FilterByScore(minimum=0.5)([zoo()])
    assert sample.instances.label_ids.tolist() == [1, 2] and len(sample.keypoints.names) == 2
    ids = sample.semantic.ids.tolist()
    assert ids == [[IGNORE, IGNORE, 2, IGNORE]], "the cat's object and the sky's region are too uncertain"
    (untouched,) = FilterByScore(minimum=0)([zoo()])
    assert untouched.digest() == zoo().digest()
    with pytest.raises(ConfigError, match="minimum score"):
        FilterByScore(minimum=2.0)


def test_minimum_confidence() -> None:
    sample = make_sample()
    semantic, depth, mask = sample.semantic, sample.depth, MaskByConfidence(minimum=0.5)
    (left,) = mask([sample])
    assert semantic.confidence is not None and depth.confidence is not None
    assert np.array_equal(left.semantic.ids == IGNORE, semantic.confidence < 0.5)
    assert np.array_equal(left.depth.valid, depth.valid & (depth.confidence >= 0.5))
    assert 0.3 < left.depth.valid.sum() / depth.valid.sum() < 0.7
    certain = replace(sample, semantic=SemanticMap(semantic.ids), depth=DepthMap(depth.depth, depth.valid))
    assert next(mask([certain])).digest() == certain.digest(), "people's labels have no confidence"
    with pytest.raises(ConfigError, match="minimum confidence"):
        MaskByConfidence(minimum=-1.0)


@pytest.mark.parametrize("width", [0, 1, 3])
def test_pixels_near_an_outline_are_ignored(width: int) -> None:
    """By the distance to the nearest pixel of another label; pixels that are ignored already have no outline."""
    ids = np.random.default_rng(width).integers(0, 3, (4, 5)).astype(np.uint16).repeat(6, 0).repeat(7, 1)
    ids[:12, :7], ids[:12, 7:14] = IGNORE, 2
    (left,) = MaskOutlines(width=width)([replace(make_sample(size=ids.shape), semantic=SemanticMap(ids))])
    near = np.zeros(ids.shape, bool)
    for label in range(3):
        to_others = distance_transform_cdt(~((ids != label) & (ids != IGNORE)), "chessboard")
        near |= (ids == label) & (to_others <= width)
    assert np.array_equal(left.semantic.ids == IGNORE, near | (ids == IGNORE))
    assert near.any() == (width > 0) and (left.semantic.ids[:12, :7] == IGNORE).all()
    blank = replace(make_sample(), semantic=None)
    assert next(MaskOutlines(width=width)([blank])).digest() == blank.digest()


# ---------------------------------------------------------------------- splits
KEYS = [f"{i:05d}" for i in range(100)]


def test_parts_follow_the_key_alone() -> None:
    split = Split(parts={"train": 0.8, "val": 0.1, "test": 0.1})
    parts = {f"{i:05d}": split.part_of(f"{i:05d}") for i in range(4000)}
    counts = Counter(parts.values())
    assert abs(counts["train"] / 4000 - 0.8) < 0.02 and abs(counts["val"] / 4000 - 0.1) < 0.02
    bare = Sample("", np.zeros((1, 1, 3), np.uint8), ZOO)
    assert all(s.split == parts[s.key] for s in split(replace(bare, key=k) for k in reversed(parts)))


weighted_parts = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 9), min_size=2).map(
    lambda weights: {name: w / sum(weights.values()) for name, w in weights.items()}
)


@hypothesis.given(weighted_parts, st.randoms(use_true_random=False))
def test_the_order_of_parts_means_nothing(parts: dict[str, float], random: Random) -> None:
    """Splits that are equal, and so have the same hash in a store's stream, give every sample the same part."""
    split, other = Split(parts=parts), Split(parts=dict(random.sample([*parts.items()], len(parts))))
    assert split == other and json.dumps(split.to_json()) == json.dumps(other.to_json())
    assert all(split.part_of(key) == other.part_of(key) for key in KEYS)


@hypothesis.given(weighted_parts, st.data(), st.floats(0.1, 0.9))
def test_a_part_that_alone_grows_keeps_its_samples(parts: dict[str, float], data: st.DataObject, left: float) -> None:
    name = data.draw(st.sampled_from([*parts]))
    shrunk = {n: fraction * left for n, fraction in parts.items() if n != name}
    larger = Split(parts={**shrunk, name: 1 - sum(shrunk.values())})
    kept = [key for key in KEYS if Split(parts=parts).part_of(key) == name]
    assert all(larger.part_of(key) == name for key in kept)


@hypothesis.given(st.text(), st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_every_key_has_a_part(key: str, weights: list[int]) -> None:
    hypothesis.assume(not any("\ud800" <= c <= "\udfff" for c in key))
    parts = {f"p{i}": w / sum(weights) for i, w in enumerate(weights)}
    assert Split(parts=parts).part_of(key) in parts


@pytest.mark.parametrize(
    "text", ["train", "train=x", "train=0.5,val=0.6", "a=0.5,a=0.5", "../x=1", "a=0,b=1", "=1", "a=nan"]
)
def test_bad_splits(text: str) -> None:
    with pytest.raises(ConfigError):
        validated(Split, parts=text)
