"""Filters, each on samples made to be right or wrong in one way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasetdm.quality.copies import FilterCopies
from datasetdm.quality.limbs import FilterByLimbs
from datasetdm.readers import read
from datasetdm.records import IGNORE, Instances, Keypoints, Labels, Prompt, Sample, SemanticMap, Skeleton
from datasetdm.store import write_store
from datasetdm.transforms.duplicates import FilterDuplicates, describe
from datasetdm.transforms.images import FilterByClipping, FilterByContrast
from datasetdm.transforms.objects import FilterByArea, FilterByBoundary, FilterFragments, edge_ranks
from datasetdm.transforms.prompted import FilterByPrompt
from datasetdm.transforms.threshold import FilterByConfidence
from factory import make_sample

LABELS = Labels(("sky", "dog"))
SKELETONS = Labels(("sky", "dog", "grass"), (), (), {"dog": Skeleton(("nose", "tail"), ((0, 1),))})


def with_points(sample: Sample, seed: int) -> Sample:
    """A limb whose length depends on the seed."""
    points = np.array([[[2, 2], [6 + seed / 10, 2]]])
    return replace(sample, keypoints=Keypoints(points, np.array([[2, 2]]), (("nose", "tail"),)))


def squares(*sides: int, key: str = "a") -> Sample:
    """Bright dogs, squares of these sides beside each other on dark sky."""
    masks = np.zeros((len(sides), 20, 20 * len(sides)), bool)
    for i, side in enumerate(sides):
        masks[i, 2 : 2 + side, 20 * i + 2 : 20 * i + 2 + side] = True
    image = np.where(masks.max(0)[..., None], np.uint8(200), np.uint8(40)).repeat(3, -1)
    objects = Instances.from_masks(masks, np.ones(len(sides)))
    return Sample(key, image, LABELS, semantic=SemanticMap(masks.any(0).astype(np.uint16)), instances=objects)


def textures(count: int, seed: int = 0) -> list[Sample]:
    rng = np.random.default_rng(seed)
    return [Sample(f"t{i}", rng.integers(0, 256, (16, 24, 3)).astype(np.uint8), LABELS) for i in range(count)]


def test_small_objects_go_and_their_pixels_are_ignored() -> None:
    given = squares(10, 2, 9)
    (found,) = FilterByArea(minimum=0.01)([given])
    assert found.instances.masks.areas.tolist() == [100, 81] and found.accepted
    assert np.array_equal(found.semantic.ids == IGNORE, given.instances.masks[1])
    assert found.quality.scores == {"filter-by-area": pytest.approx(2 / 3)}
    (strict,) = FilterByArea(minimum=0.01, tolerate=0.2)([given])
    assert strict.quality.reasons == ("filter-by-area: small objects",)


def test_crowds_are_not_judged() -> None:
    given = squares(10, 2)
    crowd = replace(given, instances=replace(given.instances, crowd=np.array([False, True])))
    (found,) = FilterByArea(minimum=0.01, tolerate=0)([crowd])
    assert len(found.instances) == 2 and found.accepted and found.quality.scores == {"filter-by-area": 1}


def test_objects_in_pieces() -> None:
    masks = np.zeros((3, 20, 20), bool)
    masks[0, :10] = True
    masks[1, 0, :10] = masks[1, 10, :5] = True  # two thirds in one piece
    masks[2, ::4, ::4] = True
    masks[2, 8:, 10:] = True  # most in one piece, but many pieces
    given = Sample("a", np.zeros((20, 20, 3), np.uint8), LABELS, instances=Instances.from_masks(masks, np.ones(3)))
    for transform, left in (
        (FilterFragments(), [0]), (FilterFragments(minimum=0.6), [0, 1]), (FilterFragments(parts=99), [0, 2]),
    ):  # fmt: skip
        assert np.array_equal(next(transform([given])).instances.masks.dense(), masks[left])


def test_outlines_follow_edges() -> None:
    given = squares(10, 8)
    (found,) = FilterByBoundary(minimum=0.8)([given])
    assert len(found.instances) == 2
    shifted = replace(
        given, instances=Instances.from_masks(np.roll(given.instances.masks.dense(), 5, (1, 2)), np.ones(2))
    )
    assert next(FilterByBoundary(minimum=0.8)([shifted])).quality.reasons
    flat = edge_ranks(np.full((8, 9, 3), 7, np.uint8))
    assert flat.shape == (8, 9) and np.all(flat == 0.5), "an image without edges says nothing"


def test_labels_that_are_not_there_leave_the_prompt() -> None:
    labels = Labels(("sky", "dog", "cat"))
    given = replace(squares(10), labels=labels, prompt=Prompt("a cat and a dog", ("cat", "dog")))
    (found,) = FilterByPrompt()([given])
    assert found.prompt == Prompt("a cat and a dog", ("dog",)) and found.provenance.details == {"missing": ["cat"]}
    assert found.quality.scores == {"filter-by-prompt": 0.5} and len(found.quality.reasons) == 1
    (again,) = FilterByPrompt(minimum=0.5)([replace(found, quality=given.quality)])
    assert again.quality.scores == {"filter-by-prompt": 0.5} and again.accepted, "what was missing is not forgotten"
    assert next(FilterByPrompt(area=0.5)([given])).prompt.labels == ()


def test_uncertain_samples() -> None:
    given = squares(10)
    certain = replace(given, semantic=SemanticMap(given.semantic.ids, np.full(given.size, 0.8)))
    (found,) = FilterByConfidence(minimum=0.9)([certain])
    assert found.quality.reasons == ("filter-by-confidence: uncertain labels",)
    assert next(FilterByConfidence(minimum=0.75)([certain])).accepted
    assert next(FilterByConfidence(minimum=0.9)([given])).quality == given.quality, "people's labels have no confidence"


def test_blank_and_over_saturated_images() -> None:
    (noise,) = textures(1)
    blank, clipped = (
        replace(noise, image=i) for i in (np.full_like(noise.image, 90), (noise.image > 127) * np.uint8(255))
    )
    assert [s.accepted for s in FilterByContrast()([noise, blank, clipped])] == [True, False, True]
    assert [s.accepted for s in FilterByClipping()([noise, blank, clipped])] == [True, True, False]


# ---------------------------------------------------------------------- copies
def altered(sample: Sample, change: str) -> Sample:
    image = sample.image.astype(int)
    changed = {
        "noise": np.clip(image + np.random.default_rng(9).normal(0, 8, image.shape), 0, 255),
        "mirrored": image[:, ::-1],
        "larger": image.repeat(2, 0).repeat(2, 1),
    }[change]
    return replace(sample, key=f"{sample.key}-{change}", image=changed.astype(np.uint8))


@pytest.mark.parametrize("change", ["noise", "mirrored", "larger"])
def test_near_duplicates_are_found(change: str, tmp_path: Path) -> None:
    images = textures(100)
    copy = altered(images[70], change)
    found = list(FilterDuplicates()([*images, copy]))
    assert [s.key for s in found if not s.accepted] == [copy.key] and found[0].quality.scores == {
        "filter-duplicates": 1
    }
    write_store(images, tmp_path / "labelled", LABELS)
    of_labelled = FilterCopies(data=f"store:{tmp_path / 'labelled'}")
    assert [s.accepted for s in of_labelled([copy, *textures(5, seed=1)])] == [False] + [True] * 5


def test_a_rejected_sample_does_not_reject_others() -> None:
    (image,) = textures(1)
    bad = replace(image, quality=replace(image.quality, reasons=("wrong",)))
    assert [s.quality.reasons for s in FilterDuplicates()([bad, replace(image, key="b")])] == [("wrong",), ()]


def test_renders_of_the_mini_world_are_no_duplicates_of_each_other() -> None:
    train = list(read("mini:train"))
    assert all(s.accepted for s in FilterDuplicates()(train))
    own = np.stack([describe(s.image) for s in train])
    assert np.allclose(own[:, 1], np.stack([describe(s.image[:, ::-1].copy()) for s in train])[:, 0], atol=0.005)


@pytest.mark.parametrize("kind", [FilterCopies, FilterByLimbs])
def test_what_a_filter_compares_with_is_part_of_its_origin(
    kind: type[FilterCopies] | type[FilterByLimbs], tmp_path: Path
) -> None:
    """By its content: the same place with other data is another stream."""

    def origin(name: str, seed: int) -> dict[str, Any]:
        place = tmp_path / name
        write_store(
            [with_points(make_sample(f"l{i}", (24, 32), seed + i, SKELETONS), seed) for i in range(6)], place, SKELETONS
        )
        (tmp_path / "labelled").unlink(missing_ok=True)
        (tmp_path / "labelled").symlink_to(place)
        return kind(data=f"store:{tmp_path / 'labelled'}").origin()

    first, other, again = origin("a", 0), origin("b", 50), origin("c", 0)
    assert first == again != other and {**first, "sha256": ""} == {**other, "sha256": ""}
