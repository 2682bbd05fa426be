"""Semantic segmentation: mean intersection over union."""

from __future__ import annotations

import numpy as np

from datasetdm.records import IGNORE, AnnotationName, Sample


class SemanticMeter:
    """Mean intersection over union of the labels that occur in the truth; ignored pixels of the truth do not count."""

    better = ("miou", True)
    reads: tuple[AnnotationName, ...] = ("semantic",)
    by_label = True

    def __init__(self) -> None:
        self.confusion = np.zeros((0, 0), np.int64)

    def update(self, predicted: Sample, true: Sample) -> None:
        """Add one image. A pixel predicted as ignored counts as wrong."""
        assert predicted.semantic is not None and true.semantic is not None
        labels, guess, truth = len(true.labels), predicted.semantic.ids, true.semantic.ids
        if not self.confusion.size:
            self.confusion = np.zeros((labels, labels + 1), np.int64)
        known = truth != IGNORE
        t, p = truth[known].astype(np.int64), np.minimum(guess[known].astype(np.int64), labels)
        self.confusion += np.bincount(t * (labels + 1) + p, minlength=self.confusion.size).reshape(self.confusion.shape)

    def iou(self) -> np.ndarray:
        """IoU per label; NaN where the truth has none of it."""
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

    def by_id(self) -> dict[int, dict[str, float]]:
        """iou."""
        return {i: {"iou": float(v)} for i, v in enumerate(self.iou()) if not np.isnan(v)}
