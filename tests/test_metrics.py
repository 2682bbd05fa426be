"""Figures against independent references: torchmetrics, and formulas written out pixel by pixel."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from datasetdm.metrics import DepthMeter, InstanceMeter, SemanticMeter
from datasetdm.types import IGNORE, DepthMap, Instances, SemanticMap

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
        meter.update(SemanticMap(predicted), SemanticMap(true), 4)
    present = np.unique(np.concatenate([t.ravel() for _, t in pairs]))
    expected = reference.compute().numpy()[present]
    assert np.allclose(meter.iou()[present], expected, atol=1e-6)
    assert meter.compute()["miou"] == pytest.approx(expected.mean(), abs=1e-6)


def test_ignored_pixels() -> None:
    true = SemanticMap(np.array([[0, 1, IGNORE, 1]], np.uint16))
    predicted = SemanticMap(np.array([[0, IGNORE, 1, 1]], np.uint16))
    meter = SemanticMeter()
    meter.update(predicted, true, 2)
    assert meter.iou().tolist() == [1.0, 0.5]
    assert meter.compute()["accuracy"] == pytest.approx(2 / 3)


def test_nothing_measured_is_no_number() -> None:
    assert np.isnan(SemanticMeter().compute()["miou"]) and np.isnan(DepthMeter().compute()["absrel"])
    meter = DepthMeter()
    none = DepthMap(np.zeros((2, 2)), np.zeros((2, 2), bool))
    meter.update(none, none)
    assert np.isnan(meter.compute()["delta1"])


def test_depth_by_hand() -> None:
    true = DepthMap(np.array([[2.0, 4.0, 10.0, 0.0]]), np.array([[True, True, True, False]]))
    predicted = DepthMap(np.array([[2.4, 4.0, 5.0, 9.0]]), np.ones((1, 4), bool))
    meter = DepthMeter()
    meter.update(predicted, true)
    figures = meter.compute()
    assert figures["absrel"] == pytest.approx((0.2 + 0 + 0.5) / 3, rel=1e-5)
    assert figures["delta1"] == pytest.approx(2 / 3)
    assert figures["rmse"] == pytest.approx(np.sqrt((0.16 + 25) / 3), rel=1e-5)
    # per-picture scale: the median ratio of truth to prediction is 1, so nothing changes here
    assert figures["absrel_scaled"] == pytest.approx(figures["absrel"], rel=1e-5)


def test_scaled_depth_forgives_a_wrong_scale_only() -> None:
    true = DepthMap(np.array([[1.0, 2.0, 4.0]]), np.ones((1, 3), bool))
    meter = DepthMeter()
    meter.update(DepthMap(true.depth * 3, true.valid), true)
    figures = meter.compute()
    assert figures["delta1"] == 0 and figures["absrel"] == pytest.approx(2)
    assert figures["delta1_scaled"] == 1 and figures["absrel_scaled"] == pytest.approx(0, abs=1e-6)


def boxes(rng: np.random.Generator, n: int) -> Instances:
    masks = np.zeros((n, 24, 24), bool)
    for mask in masks:
        y, x = rng.integers(0, 16, 2)
        mask[y : y + rng.integers(4, 9), x : x + rng.integers(4, 9)] = True
    return Instances(masks, rng.integers(0, 3, n), rng.random(n))


@pytest.mark.parametrize("seed", range(4))
def test_ap_is_pycocotools(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rng, meter = np.random.default_rng(seed), InstanceMeter()
    for _ in range(12):
        true, extra = boxes(rng, int(rng.integers(0, 4))), boxes(rng, 2)
        near = np.roll(true.masks, 1, axis=int(rng.integers(1, 3)))
        ids, scores = np.concatenate([true.label_ids, extra.label_ids]), rng.random(len(true) + 2)
        meter.update(Instances(np.concatenate([near, extra.masks]), ids, scores), true, 3)
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
