"""Figures against independent references: torchmetrics, and formulas written out pixel by pixel."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from datasetdm.metrics import (
    SIGMA,
    DepthMeter,
    InstanceMeter,
    KeypointMeter,
    PanopticMeter,
    SemanticMeter,
    oks_sigmas,
    panoptic,
)
from datasetdm.records import IGNORE, DepthMap, Instances, Keypoints, Labels, Sample, SemanticMap
from factory import encode_rle


def sample_of(size: tuple[int, int], labels: int, **annotations: Any) -> Sample:
    """An image with these annotations, in a vocabulary of so many labels."""
    names = Labels(tuple(f"label {i}" for i in range(labels)))
    return Sample("k", np.zeros((*size, 3), np.uint8), names, **annotations)


def semantic(ids: np.ndarray, labels: int) -> Sample:
    return sample_of(ids.shape, labels, semantic=SemanticMap(ids))


def depth(record: DepthMap) -> Sample:
    return sample_of(record.size, 1, depth=record)


def posed(points: Keypoints, objects: Instances, labels: int = 2) -> Sample:
    return sample_of(objects.size, labels, instances=objects, keypoints=points)


IDS = arrays(np.uint16, (6, 5), elements=st.integers(0, 3))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(IDS, IDS), min_size=1, max_size=4))
def test_miou_is_torchmetrics(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchmetrics.classification import MulticlassJaccardIndex

        reference = MulticlassJaccardIndex(4, average="none")
    meter = SemanticMeter()
    for predicted, true in pairs:
        reference.update(torch.from_numpy(predicted.astype(int)), torch.from_numpy(true.astype(int)))
        meter.update(semantic(predicted, 4), semantic(true, 4))
    present = np.unique(np.concatenate([t.ravel() for _, t in pairs]))
    expected = reference.compute().numpy()[present]
    assert np.allclose(meter.iou()[present], expected, atol=1e-6)
    assert meter.compute()["miou"] == pytest.approx(expected.mean(), abs=1e-6)


def test_ignored_pixels() -> None:
    true, predicted = np.array([[0, 1, IGNORE, 1]], np.uint16), np.array([[0, IGNORE, 1, 1]], np.uint16)
    meter = SemanticMeter()
    meter.update(semantic(predicted, 2), semantic(true, 2))
    assert meter.iou().tolist() == [1.0, 0.5] and meter.by_id() == {0: {"iou": 1.0}, 1: {"iou": 0.5}}
    assert meter.compute()["accuracy"] == pytest.approx(2 / 3)


def test_nothing_measured_is_no_number() -> None:
    assert np.isnan(SemanticMeter().compute()["miou"]) and np.isnan(DepthMeter().compute()["absrel"])
    meter = DepthMeter()
    none = DepthMap(np.zeros((2, 2)), np.zeros((2, 2), bool))
    meter.update(depth(none), depth(none))
    assert np.isnan(meter.compute()["delta1"])


def test_depth_by_hand() -> None:
    true = DepthMap(np.array([[2.0, 4.0, 10.0, 0.0]]), np.array([[True, True, True, False]]))
    predicted = DepthMap(np.array([[2.4, 4.0, 5.0, 9.0]]), np.ones((1, 4), bool))
    meter = DepthMeter()
    meter.update(depth(predicted), depth(true))
    figures = meter.compute()
    assert figures["absrel"] == pytest.approx((0.2 + 0 + 0.5) / 3, rel=1e-5)
    assert figures["delta1"] == pytest.approx(2 / 3)
    assert figures["rmse"] == pytest.approx(np.sqrt((0.16 + 25) / 3), rel=1e-5)
    assert figures["delta2"] == pytest.approx(2 / 3) and figures["delta3"] == pytest.approx(2 / 3)
    # per-picture scale: the median ratio of truth to prediction is 1, so nothing changes here
    assert figures["absrel_scaled"] == pytest.approx(figures["absrel"], rel=1e-5)


def test_scaled_depth_forgives_a_wrong_scale_only() -> None:
    true = DepthMap(np.array([[1.0, 2.0, 4.0]]), np.ones((1, 3), bool))
    meter = DepthMeter()
    meter.update(depth(DepthMap(true.depth * 3, true.valid)), depth(true))
    figures = meter.compute()
    assert figures["delta1"] == figures["delta3"] == 0 and figures["absrel"] == pytest.approx(2)
    near = DepthMeter()
    near.update(depth(DepthMap(true.depth * 1.5, true.valid)), depth(true))
    assert [near.compute()[f"delta{n}"] for n in (1, 2, 3)] == [0, 1, 1]
    assert figures["delta1_scaled"] == 1 and figures["absrel_scaled"] == pytest.approx(0, abs=1e-6)


def boxes(rng: np.random.Generator, n: int) -> Instances:
    masks = np.zeros((n, 24, 24), bool)
    for mask in masks:
        y, x = rng.integers(0, 16, 2)
        mask[y : y + rng.integers(4, 9), x : x + rng.integers(4, 9)] = True
    return Instances.from_masks(masks, rng.integers(0, 3, n), rng.random(n))


@pytest.mark.parametrize("seed", range(4))
def test_ap_is_pycocotools(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rng, meter = np.random.default_rng(seed), InstanceMeter()
    for _ in range(12):
        true, extra = boxes(rng, int(rng.integers(0, 4))), boxes(rng, 2)
        near = np.roll(true.masks.dense(), 1, axis=int(rng.integers(1, 3)))
        ids, scores = np.concatenate([true.label_ids, extra.label_ids]), rng.random(len(true) + 2)
        crowd = rng.random(len(true)) < 0.3
        found = Instances.from_masks(np.concatenate([near, extra.masks.dense()]), ids, scores)
        true = replace(true, crowd=crowd)
        meter.update(*(sample_of((24, 24), 3, instances=o) for o in (found, true)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pycocotools decodes with a call that NumPy 2 deprecates
        truth = COCO()
        categories = [{"id": i + 1, "name": str(i)} for i in range(3)]
        truth.dataset = {"images": meter.images, "annotations": meter.true, "categories": categories, "info": {}}
        truth.createIndex()
        reference = COCOeval(truth, truth.loadRes([dict(r) for r in meter.found]), "segm")
        reference.evaluate()
        reference.accumulate()
        reference.summarize()
    figures = meter.compute()
    assert 0 < figures["ap"] < 1
    assert (figures["ap"], figures["ap50"]) == pytest.approx(tuple(reference.stats[:2]), abs=1e-9)
    by_id = meter.by_id()
    assert np.mean([row["ap"] for row in by_id.values()]) == pytest.approx(figures["ap"], abs=1e-9)
    for i, row in by_id.items():  # pycocotools: precision at [IoU, recall, label, area, number of objects]
        own = vars(reference)["eval"]["precision"][:, :, i, 0, -1]
        assert (row["ap"], row["ap50"]) == pytest.approx((own.mean(), own[0].mean()), abs=1e-9)
    sizes = [figures.get(f"ap_{size}", -1) for size in ("small", "medium", "large")]
    assert sizes == pytest.approx(list(reference.stats[3:6]), abs=1e-9)


def test_what_is_found_in_a_crowd_is_neither_right_nor_wrong() -> None:
    masks = np.zeros((3, 24, 24), bool)
    masks[0, :6, :6] = masks[1, 10:, :] = masks[2, 12:16, 4:9] = True
    true = Instances.from_masks(masks[:2], [0, 0], crowd=[False, True])
    found = Instances.from_masks(masks[[2, 0]], [0, 0], [0.9, 0.5])
    meter = InstanceMeter()
    meter.update(*(sample_of((24, 24), 1, instances=o) for o in (found, true)))
    assert meter.compute()["ap"] == pytest.approx(1)
    counted = InstanceMeter()
    counted.update(*(sample_of((24, 24), 1, instances=o) for o in (found, true.take([0]))))
    assert counted.compute()["ap"] < 0.6, "without the crowd it is a false alarm"
    guess = replace(found, crowd=[True, False])
    alone = InstanceMeter()
    alone.update(*(sample_of((24, 24), 1, instances=o) for o in (guess, true.take([0]))))
    assert alone.compute()["ap"] == pytest.approx(1), "predicted crowds are left out"
    nothing = InstanceMeter()
    nothing.update(*(sample_of((24, 24), 1, instances=o) for o in (found, true.take([1]))))
    assert np.isnan(nothing.compute()["ap"]), "a crowd alone is no truth"


# ---------------------------------------------------------------------- keypoints
COCO_POINTS = (
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist "
    "left_hip right_hip left_knee right_knee left_ankle right_ankle"
).split()


def people(rng: np.random.Generator, n: int) -> tuple[Keypoints, Instances]:
    objects = boxes(rng, n)
    shares = rng.random((n, 17, 2))
    xy = objects.boxes[:, None, :2] + shares * objects.boxes[:, None, 2:]
    visibility = rng.choice([0, 1, 2], (n, 17), p=[0.2, 0.2, 0.6])
    return Keypoints(xy, visibility, (tuple(COCO_POINTS),) * n), Instances.from_masks(
        objects.masks, np.zeros(n), objects.scores
    )


def moved(rng: np.random.Generator, points: Keypoints, objects: Instances) -> tuple[Keypoints, Instances]:
    """Predictions near the truth, some far off, with scores of their own."""
    n = len(objects)
    spread = rng.choice([0.1, 0.5, 2.0], n)[:, None, None]
    xy = np.clip(points.xy + rng.normal(0, 1, points.xy.shape) * spread, 0, 24)
    found = Keypoints(xy, np.full((n, 17), 2), points.names, rng.random((n, 17)))
    return found, Instances.from_masks(objects.masks, objects.label_ids, rng.random(n))


@pytest.mark.parametrize("seed", range(3))
def test_oks_ap_is_pycocotools(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rng, meter = np.random.default_rng(seed), KeypointMeter()
    true_rows: list[dict] = []
    found_rows: list[dict] = []
    for image in range(1, 13):
        true = people(rng, int(rng.integers(0, 4)))
        found = moved(rng, *true)
        crowd = rng.random(len(true[1])) < 0.2
        true = true[0], replace(true[1], crowd=crowd)
        meter.update(posed(*found), posed(*true))
        for (points, objects), rows in ((true, true_rows), (found, found_rows)):
            for i in range(len(objects)):
                flat = np.concatenate([points.xy[i], points.visibility[i, :, None]], 1).astype(float).ravel().tolist()
                score = float(objects.scores[i]) * (1 if points.scores is None else float(points.scores[i].mean()))
                row = {"id": len(rows) + 1, "image_id": image, "category_id": 1, "keypoints": flat, "score": score}
                row |= {"num_keypoints": int((points.visibility[i] > 0).sum()), "iscrowd": int(objects.crowd[i])}
                rows.append(row | {"area": float(objects.masks[i].sum()), "bbox": objects.boxes[i].tolist()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        truth = COCO()
        category = {"id": 1, "name": "person", "keypoints": COCO_POINTS}
        images = [{"id": i} for i in range(1, 13)]
        truth.dataset = {"images": images, "annotations": true_rows, "categories": [category], "info": {}}
        truth.createIndex()
        reference = COCOeval(truth, truth.loadRes(found_rows), "keypoints")
        reference.evaluate()
        reference.accumulate()
        reference.summarize()
    figures = meter.compute()
    assert 0.05 < figures["oks_ap"] < 0.95
    assert (figures["oks_ap"], figures["oks_ap50"]) == pytest.approx(tuple(reference.stats[:2]), abs=1e-6)


def test_sigmas_are_cocos_for_a_person_only() -> None:
    from pycocotools.cocoeval import Params

    assert oks_sigmas(COCO_POINTS) == pytest.approx(Params(iouType="keypoints").kpt_oks_sigmas.tolist())
    assert oks_sigmas(("l_ear", "nose")) == [SIGMA, SIGMA]


def test_pck_by_hand_with_two_skeletons() -> None:
    masks = np.zeros((2, 60, 60), bool)
    masks[0, 10:30, 5:45] = masks[1, 40:50, 10:20] = True
    objects, names = Instances.from_masks(masks, [0, 1]), (("nose", "tail"), ("beak",))
    true = Keypoints([[[10, 10], [40, 20]], [[12, 42], [0, 0]]], [[2, 1], [2, 0]], names)
    # sides 40 and 10: 4 pixels are near for the first object, 1 for the second
    near = Keypoints([[[13, 12], [40, 25]], [[12.5, 42.5], [0, 0]]], [[2, 2], [2, 0]], names)
    meter = KeypointMeter()
    meter.update(posed(near, objects), posed(true, objects))
    assert meter.compute()["pck"] == pytest.approx(2 / 3)
    swapped = Instances.from_masks(masks, [1, 0])  # the other label: neither object is found
    meter.update(posed(Keypoints(near.xy, near.visibility, names[::-1]), swapped), posed(true, objects))
    assert meter.compute()["pck"] == pytest.approx(2 / 6)
    nothing = Keypoints(np.zeros((0, 0, 2)), np.zeros((0, 0)), ())
    meter.update(posed(nothing, Instances.none((60, 60))), posed(true, objects))
    assert meter.compute()["pck"] == pytest.approx(2 / 9)


def test_every_label_weighs_the_same_in_oks_ap() -> None:
    masks = np.zeros((2, 60, 60), bool)
    masks[0, 10:30, 5:45] = masks[1, 40:50, 10:20] = True
    objects, names = Instances.from_masks(masks, [0, 1]), (("nose",), ("beak",))
    true = Keypoints([[[10, 10]], [[12, 42]]], [[2], [2]], names)
    half = Keypoints([[[10, 10]], [[50, 5]]], [[2], [2]], names)
    meter = KeypointMeter()
    meter.update(posed(half, objects), posed(true, objects))
    assert meter.compute()["oks_ap"] == pytest.approx(0.5)
    assert [row["pck"] for row in meter.by_id().values()] == [1, 0] and meter.by_id()[0]["oks_ap"] == pytest.approx(1)


# ---------------------------------------------------------------------- panoptic
STUFF = Labels(("sky", "dog", "grass", "cat"), stuff=("sky", "grass"))


def scene(ids: np.ndarray, masks: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> Sample:
    objects = Instances.from_masks(masks, labels, scores)
    return Sample("k", np.zeros((*ids.shape, 3), np.uint8), STUFF, semantic=SemanticMap(ids), instances=objects)


def random_scene(rng: np.random.Generator) -> Sample:
    ids = np.repeat(np.repeat(rng.integers(0, 4, (2, 2)), 12, 0), 12, 1).astype(np.uint16)
    objects = boxes(rng, int(rng.integers(0, 4)))
    return scene(ids, objects.masks, rng.choice([1, 3], len(objects)), objects.scores)


def test_surer_objects_keep_their_pixels_and_stuff_fills_the_rest() -> None:
    ids = np.zeros((4, 6), np.uint16)
    ids[2:] = 2
    ids[3, 5], ids[0, 0] = 1, IGNORE
    masks = np.zeros((3, 4, 6), bool)
    masks[0, 1:3, 0:4] = masks[1, 1:3, 2:6] = masks[2, 1:3, 3:6] = True
    segments, labels = panoptic(scene(ids, masks, np.array([1, 3, 1]), np.array([0.5, 0.9, 0.7])))
    assert labels == [3, 0, 2], "what is mostly taken already is no object, nor is a thing outside all objects"
    assert segments.tolist() == [
        [0, 2, 2, 2, 2, 2],
        [2, 2, 1, 1, 1, 1],
        [3, 3, 1, 1, 1, 1],
        [3, 3, 3, 3, 3, 0],
    ]


def test_a_crowd_is_no_segment() -> None:
    ids, masks = np.zeros((4, 6), np.uint16), np.zeros((2, 4, 6), bool)
    masks[0, :2] = masks[1, 2:] = True
    ids[:] = 1
    sample = scene(ids, masks, np.array([1, 1]), np.ones(2))
    crowded = replace(sample, instances=replace(sample.instances, crowd=[False, True]))
    assert panoptic(crowded)[1] == [1] and (panoptic(crowded)[0][2:] == 0).all()
    meter = PanopticMeter()
    meter.update(sample, crowded)
    assert meter.compute()["pq"] == 1, "the object found in the crowd is no false alarm"


def segment_rows(sample: Sample, image: int, start: int) -> list[dict]:
    ids, labels = panoptic(sample)
    rows = []
    for k, label in enumerate(labels, 1):
        rle = encode_rle(ids == k)
        box = coco_mask.toBbox(rle).tolist()
        row = {"id": start + k, "image_id": image, "category_id": label + 1, "segmentation": rle, "score": 1.0}
        rows.append(row | {"area": int((ids == k).sum()), "bbox": box, "iscrowd": 0})
    return rows


@pytest.mark.parametrize("seed", range(4))
def test_panoptic_quality_is_that_of_the_coco_panoptic_task(seed: int) -> None:
    """Against hotcoco, which gives panopticapi's figures; pixels without a segment are on both sides."""
    from hotcoco import COCO
    from hotcoco.panoptic import PanopticEval

    rng, meter = np.random.default_rng(seed), PanopticMeter()
    true_rows: list[dict] = []
    found_rows: list[dict] = []
    for image in range(1, 11):
        true, other = random_scene(rng), random_scene(rng)
        old = true.instances
        objects = Instances.from_masks(np.roll(old.masks.dense(), 1, 2), old.label_ids, old.scores)
        predicted = replace(true, instances=objects) if rng.random() < 0.7 else other
        meter.update(predicted, true)
        true_rows += segment_rows(true, image, len(true_rows))
        found_rows += segment_rows(predicted, image, len(found_rows))
    images = [{"id": i, "file_name": f"{i}.png", "height": 24, "width": 24} for i in range(1, 11)]
    names = enumerate(STUFF.names, 1)
    categories = [{"id": i, "name": n, "isthing": int(n not in STUFF.stuff)} for i, n in names]
    truth = COCO({"images": images, "annotations": true_rows, "categories": categories})
    reference = PanopticEval(truth, truth.load_res(found_rows))
    reference.run()
    expected = reference.results()["All"]
    figures = meter.compute()
    assert 0.1 < figures["pq"] < 0.95
    assert [figures[k] for k in ("pq", "sq", "rq")] == pytest.approx(
        [expected[k] for k in ("pq", "sq", "rq")], abs=1e-9
    )
