"""Figures over annotations, accumulated picture by picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from hotcoco import COCO, COCOeval

from datasetdm.codecs import encode_rle, rle_box
from datasetdm.types import IGNORE, DepthMap, Instances, SemanticMap


class SemanticMeter:
    """Mean intersection over union of the labels that occur in the truth; ignored pixels of the truth do not count."""

    better = ("miou", True)

    def __init__(self) -> None:
        self.confusion = np.zeros((0, 0), np.int64)

    def update(self, predicted: SemanticMap, true: SemanticMap, labels: int) -> None:
        """Add one picture. A pixel predicted as ignored counts as wrong."""
        if not self.confusion.size:
            self.confusion = np.zeros((labels, labels + 1), np.int64)
        known = true.ids != IGNORE
        t, p = true.ids[known].astype(np.int64), np.minimum(predicted.ids[known].astype(np.int64), labels)
        self.confusion += np.bincount(t * (labels + 1) + p, minlength=self.confusion.size).reshape(self.confusion.shape)

    def iou(self) -> np.ndarray:
        """IoU a label; NaN where the truth has none of it."""
        square = self.confusion[:, :-1]
        hit, truth = np.diag(square).astype(float), self.confusion.sum(1)
        union = truth + square.sum(0) - hit
        return np.where(truth > 0, hit / np.maximum(union, 1), np.nan)

    def compute(self) -> dict[str, float]:
        """miou and pixel accuracy, 0 to 1."""
        total = self.confusion.sum()
        if not total:
            return {"miou": float("nan"), "accuracy": float("nan")}
        return {"miou": float(np.nanmean(self.iou())), "accuracy": float(np.trace(self.confusion) / total)}


class DepthMeter:
    """Errors of depth over the truth's valid pixels, averaged in each picture, then over pictures (Eigen et al. 2014).

    absrel: |predicted - true| / true. delta1: share with max(predicted / true, true / predicted) < 1.25.
    rmse in the truth's unit. `_scaled`: after the picture's median ratio has been divided out, which leaves its shape.
    Pixels that the prediction calls invalid are compared with its depth of 0.
    """

    better = ("delta1", True)
    figures = ("absrel", "delta1", "rmse", "absrel_scaled", "delta1_scaled")

    def __init__(self) -> None:
        self.rows: list[tuple[float, ...]] = []

    def update(self, predicted: DepthMap, true: DepthMap, labels: int = 0) -> None:
        """Add one picture."""
        ok = true.valid & (true.depth > 0)
        if not ok.any():
            return
        p, t = predicted.depth[ok].astype(np.float64), true.depth[ok].astype(np.float64)
        some = p > 0
        scale = np.median(t[some] / p[some]) if some.any() else 1.0
        rmse = float(np.sqrt(np.mean((p - t) ** 2)))
        self.rows.append((*_absrel_delta1(p, t), rmse, *_absrel_delta1(p * scale, t)))

    def compute(self) -> dict[str, float]:
        """All figures."""
        mean = np.mean(self.rows, 0) if self.rows else [float("nan")] * len(self.figures)
        return {n: float(v) for n, v in zip(self.figures, mean, strict=True)}


def _absrel_delta1(p: np.ndarray, t: np.ndarray) -> tuple[float, float]:
    ratio = np.maximum(np.maximum(p, 1e-6) / t, t / np.maximum(p, 1e-6))
    return float(np.mean(np.abs(p - t) / t)), float(np.mean(ratio < 1.25))


class InstanceMeter:
    """COCO's mask AP: averaged over IoU 0.50 to 0.95 and the labels that occur in the truth; ap50 at IoU 0.5."""

    better = ("ap", True)

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []
        self.true: list[dict[str, Any]] = []
        self.found: list[dict[str, Any]] = []
        self.labels = 0

    def update(self, predicted: Instances, true: Instances, labels: int) -> None:
        """Add one picture."""
        self.labels = labels
        number, (h, w) = len(self.images) + 1, true.size
        self.images.append({"id": number, "file_name": str(number), "height": h, "width": w})
        for record, rows in ((true, self.true), (predicted, self.found)):
            for mask, label, score in zip(record.masks, record.label_ids.tolist(), record.scores.tolist(), strict=True):
                rle = encode_rle(mask)
                box, area = rle_box(rle)
                row = {"id": len(rows) + 1, "image_id": number, "category_id": label + 1, "segmentation": rle}
                rows.append(row | {"bbox": box, "area": area, "iscrowd": 0, "score": score})

    def compute(self) -> dict[str, float]:
        """ap and ap50, 0 to 1."""
        if not self.true:
            return {"ap": float("nan"), "ap50": float("nan")}
        if not self.found:
            return {"ap": 0.0, "ap50": 0.0}
        categories = [{"id": i + 1, "name": str(i)} for i in range(self.labels)]
        truth = COCO({"images": self.images, "annotations": self.true, "categories": categories})
        evaluation = COCOeval(truth, truth.load_res(self.found), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        curves = evaluation.eval or {}
        precision = np.asarray(curves["precision"])[..., 0, -1]  # IoU, recall, label; -1: not in the truth
        ap, ap50 = (float(p[p >= 0].mean()) for p in (precision, precision[0]))
        return {"ap": ap, "ap50": ap50}
