"""Points of any skeleton: their names, their target maps, where they are read off, what a decoder gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datasetdm.backbones import Backbone
from datasetdm.decoder.blocks.points import GRID, PointReader, cells, crop, name_vector
from datasetdm.decoder.inference import annotate
from datasetdm.decoder.model import PDecoder
from datasetdm.decoder.tasks.keypoints import (
    KeypointHead,
    KeypointOutputs,
    KeypointTargets,
    KeypointTask,
    find_marks,
    likeliest,
)
from datasetdm.engines.local import write
from datasetdm.errors import DataError
from datasetdm.exporters import export
from datasetdm.metrics import SIGMA
from datasetdm.pipelines.evaluate import evaluate
from datasetdm.pipelines.generate import DatasetGenerator
from datasetdm.records import Instances, Keypoints, Labels, Sample, Skeleton
from datasetdm.records.point_names import mirror, name_words
from datasetdm.store import Store
from datasetdm.training.augment import augment
from factory import make_sample

LABELS = Labels(
    ("sky", "dog", "bird"),
    stuff=("sky",),
    skeletons={"dog": Skeleton(("l_ear", "r_ear", "nose")), "bird": Skeleton(("beak", "left_wing", "right_wing"))},
)
NAMES = ("beak", "l_ear", "left_wing", "nose", "r_ear", "right_wing")


def two_objects(size: tuple[int, int] = (64, 64)) -> Sample:
    """A dog at the left and a bird at the right, one point hidden and one absent."""
    masks = np.zeros((2, *size), bool)
    masks[0, 10:50, 4:30] = masks[1, 20:40, 36:60] = True
    xy = np.array([[[8, 12.5], [20, 12], [6.25, 30]], [[38, 25], [50, 22], [0, 0]]])
    points = Keypoints(xy, [[2, 1, 2], [2, 2, 0]], tuple(LABELS.skeletons[n].points for n in ("dog", "bird")))
    objects = Instances.from_masks(masks, [1, 2])
    return Sample("k", np.zeros((*size, 3), np.uint8), LABELS, instances=objects, keypoints=points)


def target_of(sample: Sample) -> KeypointTargets:
    target = KeypointTask().target(sample)
    assert target is not None
    return target


def marks(target: KeypointTargets) -> dict[tuple[int, str], tuple[float, float, int]]:
    """(object, name) -> (x, y, hidden)."""
    head = KeypointHead({1: 16})
    head.fit_statistics([two_objects()])
    found = zip(*(x.tolist() for x in find_marks(target).named().values()), strict=True)
    return {(o - 1, head.names[j].split(" ")[1]): (*xy, hidden) for o, j, hidden, xy in found}


# ---------------------------------------------------------------------- names
def test_words_of_names() -> None:
    assert name_words("lf_paw") == ("left", "front", "paw") and name_words("leftEar") == ("left", "ear")
    assert name_words("leg0") == ("leg", "0") and name_words("tl") == ("top", "left")


def test_names_of_both_sides_change_places() -> None:
    assert [NAMES[i] for i in mirror(NAMES)] == ["beak", "r_ear", "right_wing", "nose", "l_ear", "left_wing"]
    assert mirror(("left_ear", "nose")) == [0, 1], "no other side, no change"


def test_names_that_share_words_are_near() -> None:
    def alike(a: str, b: str) -> float:
        x, y = name_vector(a), name_vector(b)
        return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))

    assert alike("left_ear", "l_ear") == pytest.approx(1, abs=1e-5)
    parts = ("ear", "eye", "hip", "knee", "wrist", "ankle", "paw", "wing")
    related = np.mean([alike(f"left_{p}", f"right_{p}") for p in parts])
    strange = np.mean([alike(f"left_{p}", f"right_{q}") for p in parts for q in parts if p != q])
    assert 0.2 < related - strange < 0.9


# ---------------------------------------------------------------------- target maps
def test_marks_hold_every_labelled_point() -> None:
    found = marks(target_of(two_objects()))
    expected = {
        (0, "l_ear"): (8, 12.5, 0), (0, "r_ear"): (20, 12, 1), (0, "nose"): (6.25, 30, 0),
        (1, "beak"): (38, 25, 0), (1, "left_wing"): (50, 22, 0),
    }  # fmt: skip
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=0.5)


@pytest.mark.parametrize("seed", range(8))
def test_marks_follow_any_view_and_change_sides_in_a_mirror(seed: int) -> None:
    task, sample = KeypointTask(), two_objects()
    target = target_of(sample)
    columns = torch.arange(64.0).expand(64, 64).contiguous()
    maps = [columns, columns.T.contiguous(), *target.named().values()]
    _, (x, y, *moved), zoom = augment(torch.zeros(1, 3, 64, 64), maps, seed)
    was = torch.stack([x, y], -1) + 0.5
    found = marks(task.rescale_target(KeypointTargets(*moved), zoom))
    assert all(a.dtype == b.dtype for a, b in zip(moved, target.named().values(), strict=True))
    points = sample.keypoints
    other = {n: NAMES[i] for n, i in zip(NAMES, mirror(NAMES), strict=True)}
    for (thing, name), (x, y, _) in found.items():
        name = other[name] if zoom < 0 else name
        column = points.names[thing].index(name)
        origin = was[min(63, int(y)), min(63, int(x))].numpy()
        assert np.abs(origin - points.xy[thing, column]).max() < 2


def test_views_are_mirrored_sometimes() -> None:
    zooms = [augment(torch.zeros(1, 3, 16, 16), [torch.zeros(16, 16)], s)[2] for s in range(8)]
    assert min(zooms) < 0 < max(zooms)


def test_a_view_mirrored_twice_is_itself() -> None:
    task, target = KeypointTask(), target_of(two_objects())
    once = task.rescale_target(target, -1.5)
    assert not torch.equal(once.point, target.point)
    assert torch.equal(task.rescale_target(once, -1.0).point, target.point)
    assert torch.equal(task.rescale_target(target, 2.0).point, target.point)


def test_points_of_a_crowd_are_left_out() -> None:
    sample = two_objects()
    crowded = replace(sample, instances=replace(sample.instances, crowd=[True, False]))
    assert {thing for thing, _ in marks(target_of(crowded))} == {1}


def test_without_a_skeleton_there_is_nothing_to_learn() -> None:
    assert KeypointTask().target(make_sample("k", (24, 24))) is None


# ---------------------------------------------------------------------- reading places off
def test_crops_are_samples_of_the_box() -> None:
    y, x = torch.meshgrid(torch.arange(40.0) + 0.5, torch.arange(60.0) + 0.5, indexing="ij")
    box = torch.tensor([[5.0, 8.0, 41.0, 32.0]])
    got = crop(torch.stack([x, y]), box)
    assert torch.allclose(got[0].movedim(0, -1), cells(box)[0], atol=1e-4)


@settings(deadline=None, max_examples=12)
@given(st.integers(0, GRID - 1), st.integers(0, GRID - 1), st.floats(4, 200), st.floats(4, 200))
def test_a_sure_place_is_reported_as_it_is(row: int, column: int, width: float, height: float) -> None:
    at = cells(torch.tensor([[1.0, 2.0, 1 + width, 2 + height]]))[0].flatten(0, 1)
    p = torch.zeros(1, GRID * GRID)
    p[0, row * GRID + column] = 1
    x, y, score, seen = likeliest(p, torch.full_like(p, -3.0), at, width * height, ("nose",))[0].tolist()
    assert (x, y) == pytest.approx(at[row * GRID + column].tolist(), abs=1e-3)
    assert score == pytest.approx(1, abs=1e-5) and seen == pytest.approx(-3)


def test_the_expected_similarity_is_right_and_none_is_higher() -> None:
    torch.manual_seed(0)
    at = cells(torch.tensor([[0.0, 0.0, 48.0, 48.0]]))[0].flatten(0, 1)
    p = (torch.randn(1, GRID * GRID) * 3).softmax(1)
    area = 900.0
    score = float(likeliest(p, p, at, area, ("nose",))[0, 2])
    far = ((at[:, None] - at[None]) ** 2).sum(-1)
    expected = (p @ torch.exp(-far / (2 * area * (2 * SIGMA) ** 2)))[0]
    assert score == pytest.approx(float(expected.max()), rel=1e-3)


def test_temperature_lowers_false_confidence() -> None:
    head, sample = KeypointHead({1: 16}).eval(), two_objects()
    head.fit_statistics([sample])
    target = KeypointTargets.stack([target_of(sample)])
    torch.manual_seed(0)
    with torch.no_grad():
        [*head.reader.keys.parameters()][-2].mul_(40)
        head.calibrate([KeypointOutputs(torch.randn(1, 32, 64, 64) * 3)], [target])
    assert float(head.temperature) > 2, "it knows nothing, so it shall be unsure"
    head.temperature.fill_(1)
    head.calibrate([KeypointOutputs(torch.zeros(1, 32, 64, 64))], [target.map(torch.zeros_like)])
    assert float(head.temperature) == 1, "no marks, no change"


def test_usual_places_are_learnt_where_features_say_nothing() -> None:
    torch.manual_seed(0)
    reader, blank = PointReader(8), torch.zeros(1, 8, GRID, GRID)
    places = torch.tensor([3 * GRID + 5, 20 * GRID + 18])
    optimiser = torch.optim.Adam([reader.usual.weight, reader.usual.bias], 0.03)
    for _ in range(60):
        logits = reader(blank, ["cat nose", "cat tail"])[0][0].flatten(1)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(logits, places).backward()
        optimiser.step()
    found = logits.detach().argmax(1)
    assert (found // GRID - places // GRID).abs().max() <= 1 and (found % GRID - places % GRID).abs().max() <= 1


# ---------------------------------------------------------------------- a whole decoder
@pytest.fixture(scope="module")
def decoder(tiny: Backbone) -> PDecoder:
    torch.manual_seed(0)
    made = PDecoder.for_backbone(tiny, LABELS, ("instance", "keypoints"), width=32).eval()
    with torch.no_grad():
        made.get_parameter("heads.instance.convs.1.bias")[0] = 9  # everything is an object
    return made


def test_generated_points_are_stored_and_exported(decoder: PDecoder, tiny: Backbone, tmp_path: Path) -> None:
    generator = DatasetGenerator(["a dog", "a bird"], decoder=decoder, backbone=tiny, batch=4, steps=2, device="cpu")
    write(generator, tmp_path / "s", 4)
    stored = list(Store(tmp_path / "s"))
    assert [s.digest() for s in stored] == [s.digest() for s in generator.batch(0)]
    rows = 0
    for sample in stored:
        objects, points = sample.instances, sample.keypoints
        assert len(points.names) == len(objects) and points.scores is not None
        for label, names in zip(objects.label_ids.tolist(), points.names, strict=True):
            bones = LABELS.skeletons.get(LABELS.names[label])
            assert names == (bones.points if bones else ())
            rows += len(names)
    assert rows, "some object has a skeleton"
    assert export(tmp_path / "s", "coco", tmp_path / "coco") == 4


def test_labels_without_skeletons_have_no_points(decoder: PDecoder, tiny: Backbone) -> None:
    settings = dict(decoder=decoder, backbone=tiny, batch=2, steps=2, device="cpu", labels=("dog", "cow"))
    for sample in DatasetGenerator(["a cow"], **settings).batch(0):
        objects, points = sample.instances, sample.keypoints
        named = [sample.labels.names[i] for i in objects.label_ids.tolist()]
        assert [len(p) for p in points.names] == [3 if n == "dog" else 0 for n in named]


def test_points_on_true_objects(decoder: PDecoder, tiny: Backbone) -> None:
    sample = two_objects()
    given, told = next(annotate(decoder, tiny, [sample], true_objects=True))
    assert told.instances.masks == given.instances.masks
    assert told.keypoints.names == given.keypoints.names
    figures = evaluate(decoder, tiny, [sample], true_objects=True)
    assert figures.keys() == {"keypoints"} and 0 <= figures["keypoints"]["pck"] <= 1
    assert evaluate(decoder, tiny, [sample]).keys() == {"instance", "keypoints"}
    alone = PDecoder.for_backbone(tiny, LABELS, ("keypoints",), width=32).eval()
    assert evaluate(alone, tiny, [sample]).keys() == {"keypoints"}


# ---------------------------------------------------------------------- bad input
def test_points_outside_the_image_are_refused() -> None:
    image, dog = np.zeros((10, 20, 3), np.uint8), Instances.from_masks(np.ones((1, 10, 20), bool), [1])
    with pytest.raises(DataError, match=r"outside the image: \(21, 5\)"):
        Sample("k", image, LABELS, instances=dog, keypoints=Keypoints([[[21, 5]]], [[2]], (("nose",),)))
    points = Keypoints([[[21, 5], [20, 10]]], [[0, 2]], (("nose", "l_ear"),))
    Sample("k", image, LABELS, instances=dog, keypoints=points)


def test_points_of_another_skeleton_are_refused() -> None:
    sample = two_objects()
    points = Keypoints(np.zeros((2, 1, 2)), [[2], [2]], (("nose",), ("tail",)))
    with pytest.raises(DataError, match="object 1 has points that are not of its skeleton: tail") as caught:
        replace(sample, keypoints=points)
    assert "beak, left_wing, right_wing" in str(caught.value) and "'k'" in str(caught.value)
    with pytest.raises(DataError, match="more than 1 names"):
        Keypoints(np.zeros((1, 1, 2)), [[2]], (("nose", "l_ear"),))
    with pytest.raises(DataError, match="points of one name: nose"):
        Skeleton(("nose", "nose"))
