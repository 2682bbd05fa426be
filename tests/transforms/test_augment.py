"""Mosaics and pasted objects: what they show is what their labels say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from datasetdm.errors import DataError
from datasetdm.pipelines.stream import Data, Stream
from datasetdm.records import IGNORE, Instances, Keypoints, Labels, Prompt, Sample, SemanticMap
from datasetdm.records.edits import reject
from datasetdm.transforms.paste import PasteObjects
from datasetdm.transforms.splice import GRIDS, Splice, mosaic, resized
from sources import InMemoryReader

LABELS = Labels(("sky", "dog", "cat"))
COLOURS = np.array([[40, 80, 160], [200, 60, 20], [30, 160, 40]], np.uint8)


def animal(i: int, size: tuple[int, int] = (40, 60)) -> Sample:
    """A dog or a cat, a rectangle of its colour on sky, its nose at its upper left corner."""
    label, rng = 1 + i % 2, np.random.default_rng(i)
    top, left = int(rng.integers(2, 16)), int(rng.integers(2, 30))
    ids = np.zeros(size, np.uint16)
    ids[top : top + 12, left : left + 16] = label
    objects = Instances.from_masks((ids == label)[None], np.array([label]), np.array([0.9]))
    points = Keypoints(np.array([[[left + 0.5, top + 0.5]]]), np.array([[2]]), (("nose",),), np.array([[0.8]]))
    prompt = Prompt(f"a {LABELS.names[label]}", (LABELS.names[label],))
    semantic = SemanticMap(ids, np.full(size, 0.5))
    return Sample(f"a{i}", COLOURS[ids], LABELS, prompt, semantic=semantic, instances=objects, keypoints=points)


def consistent(sample: Sample, edge: int = 0) -> None:
    """Colours, semantic map, objects and points say the same, but for so many pixels along edges."""
    wrong = (COLOURS[sample.semantic.ids] != sample.image).any(-1)
    assert wrong.mean() <= edge / 100
    for mask, label, box in zip(
        sample.instances.masks, sample.instances.label_ids, sample.instances.boxes, strict=True
    ):
        assert (sample.semantic.ids[mask] == label).all()
        rows, columns = np.nonzero(mask)
        extent = [columns.min(), rows.min(), columns.max() - columns.min() + 1, rows.max() - rows.min() + 1]
        assert box.tolist() == extent
    for mask, (x, y) in zip(sample.instances.masks, sample.keypoints.xy[:, 0], strict=True):
        assert mask[int(y), int(x)]


# ---------------------------------------------------------------------- splicing
@pytest.mark.parametrize("grid", GRIDS)
def test_a_mosaic_shows_all_its_tiles(grid: tuple[int, int]) -> None:
    rows, columns = grid
    tiles = [animal(i, (40 * rows, 60 * rows)) for i in range(rows * columns)]
    found = mosaic(tiles, rows, columns, tiles[0])
    assert found.size == (rows * 40 * rows // max(grid), columns * 60 * rows // max(grid))
    assert [s for s in range(len(tiles)) if f"a{s}" in found.provenance.details["spliced"]] == [*range(1, len(tiles))]
    assert len(found.instances) == len(found.keypoints) <= len(tiles) and found.prompt.labels == ("dog", "cat")
    assert found.semantic.confidence.min() == np.float16(128 / 255)


def test_tiles_keep_their_labels_and_their_aspect() -> None:
    tiles = [animal(i) for i in range(4)]
    found = mosaic(tiles, 2, 2, tiles[0])
    assert found.size == (40, 60) and len(found.instances) == 4
    consistent(found, edge=4)
    assert found.instances.label_ids.tolist() == [1, 2, 1, 2] and found.key == "a0"
    assert np.allclose(found.keypoints.xy[3, 0], tiles[3].keypoints.xy[0, 0] / 2 + [30, 20])
    square = resized(animal(0, (40, 60)), (20, 20))
    assert square.size == (20, 20) and resized(animal(0), (40, 60)).digest() == animal(0).digest()


def test_what_the_crop_leaves_out_is_gone() -> None:
    """The middle of a wide image holds no object at its side."""
    sample = animal(0, (40, 200))
    found = resized(sample, (40, 40))
    assert len(found.instances) == len(found.keypoints) == 0 and (found.semantic.ids == 0).all()


def test_an_annotation_that_a_tile_lacks_is_not_known() -> None:
    tiles = [animal(0), replace(animal(1), keypoints=None), animal(2), replace(animal(3), semantic=None)]
    found = mosaic(tiles, 2, 2, tiles[0])
    assert found.semantic is None and found.keypoints is None and len(found.instances) == 4
    assert IGNORE not in mosaic(tiles[:2], 1, 2, tiles[0]).semantic.ids


def test_a_part_of_the_samples_is_spliced_with_earlier_ones() -> None:
    given = [animal(i) for i in range(30)]
    given[3] = reject(given[3], "bad")
    found = list(Splice(fraction=0.5, grids=((1, 2), (2, 2)))(given))
    others = {s.key: s.provenance.details.get("spliced") for s in found}
    assert 8 < sum(v is not None for v in others.values()) < 24 and others["a0"] is None, "none is before the first"
    for i, (key, keys) in enumerate(others.items()):
        assert all(int(k[1:]) < i for k in keys or ()) and "a3" not in (keys or ()), key
    assert [s.digest() for s in Splice(fraction=0)(given)] == [s.digest() for s in given]


# ---------------------------------------------------------------------- copy and paste
def test_pasted_objects_are_in_all_annotations() -> None:
    given = [animal(i) for i in range(20)]
    found = list(PasteObjects(fraction=1, feather=0)(given))
    more = [len(s.instances) for s in found]
    assert more[0] == 1 and max(more) >= 3
    for before, after in zip(given, found, strict=True):
        consistent(after)
        assert len(after.instances) == 1 + len(after.provenance.details.get("pasted", ()))
        assert (after.keypoints.visibility == 2).all() and (after.instances.masks.areas >= 0.7 * 192).all()
        assert np.allclose(after.instances.scores, 0.9) and after.quality == before.quality


def test_points_that_leave_the_image_are_absent() -> None:
    """A hidden point may lie far from what is seen of its object."""
    first = animal(0)
    far = replace(first.keypoints, xy=np.array([[[50.0, 30.0]]]), visibility=np.array([[1]]))
    found = [[*PasteObjects(fraction=1, seed=s)([replace(first, keypoints=far), animal(1)])][1] for s in range(6)]
    assert {int(s.keypoints.visibility[-1, 0]) for s in found if len(s.keypoints) > 1} == {0, 1}


def test_edges_are_blended() -> None:
    found = list(PasteObjects(fraction=1, feather=1.0)([animal(i) for i in range(4)]))[-1]
    assert len(found.instances) > 1
    consistent(found, edge=20)
    known = {tuple(c) for c in COLOURS.tolist()}
    assert {tuple(c) for c in found.image.reshape(-1, 3).tolist()} - known, "colours between object and background"


def test_objects_at_the_border_crowds_and_boxes_are_not_taken() -> None:
    def objects(sample: Sample, **changes: object) -> Sample:
        return replace(sample, instances=replace(sample.instances, **changes))

    border = animal(0)
    ids = np.roll(border.semantic.ids, -int(np.nonzero(border.semantic.ids)[1].min()), 1)
    border = replace(border, instances=Instances.from_masks((ids == 1)[None], np.array([1])), keypoints=None)
    for first in (
        border,
        objects(animal(0), crowd=np.array([True])),
        objects(animal(0), boxed=True),
        reject(animal(0), "bad"),
    ):
        _, second = PasteObjects(fraction=1)([first, animal(1)])
        assert second.digest() == animal(1).digest()
    _, second = PasteObjects(fraction=1, most_area=0.01)([animal(0), animal(1)])
    assert second.digest() == animal(1).digest()
    tight = replace(animal(1), image=animal(1).image[:13, :17], semantic=None, instances=None, keypoints=None)
    assert list(PasteObjects(fraction=1)([animal(0), tight]))[1].size == (13, 17), "no place is the sample itself"


# ---------------------------------------------------------------------- refused
@pytest.mark.parametrize("kind", [Splice, PasteObjects])
def test_depth_is_refused_or_left_out(kind: type[Splice] | type[PasteObjects]) -> None:
    from factory import make_sample

    given = [make_sample(f"s{i}", (30, 40), i) for i in range(3)]
    with pytest.raises(DataError, match="would make the depth of sample 's1' wrong"):
        list(kind(fraction=1)(given))
    found = list(kind(fraction=1, without_depth=True)(given))
    assert found[0].depth is not None and all(s.depth is None for s in found[1:])


@pytest.mark.parametrize("transform", [Splice(), PasteObjects()])
def test_they_look_at_a_source_from_its_start(transform: Splice | PasteObjects) -> None:
    """So a store that is continued gets the same samples."""
    stream = Stream(Data(InMemoryReader([animal(i) for i in range(12)])), [transform])
    whole = [(s.key, s.digest()) for s in stream.samples()]
    assert [(s.key, s.digest()) for s in stream.samples(done={f"a{i}" for i in range(7)})] == whole[7:]
