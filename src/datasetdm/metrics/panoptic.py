"""Panoptic quality, and the segments of a sample."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int64

from datasetdm.records import IGNORE, AnnotationName, Sample

FIGURES = ("pq", "sq", "rq")


def panoptic(sample: Sample) -> tuple[Int64[np.ndarray, "h w"], list[int]]:
    """One segment for every pixel, from a sample's semantic map and instances (Kirillov et al. 2019).

    The surest objects come first and keep their pixels; one of which more than half is taken already is dropped. Then every
    stuff label is one segment of what is left of its region.

    Returns:
        ids: 0 where there is no segment (pixels of a thing outside all objects, of a crowd, or ignored), else 1, 2, ...
        labels: the label id of segment 1, 2, ...
    """
    semantic, objects = sample.semantic, sample.instances
    assert semantic is not None and objects is not None
    ids, labels = np.zeros(sample.size, np.int64), []
    for i in np.argsort(-objects.scores, kind="stable").tolist():
        if objects.crowd[i]:
            continue
        free = objects.masks[i] & (ids == 0)
        if free.sum() * 2 > objects.masks.areas[i]:
            labels.append(int(objects.label_ids[i]))
            ids[free] = len(labels)
    for label in np.unique(semantic.ids).tolist():
        rest = (semantic.ids == label) & (ids == 0)
        if label != IGNORE and sample.labels.names[label] in sample.labels.stuff and rest.any():
            labels.append(label)
            ids[rest] = len(labels)
    return ids, labels


class PanopticMeter:
    """Panoptic quality (Kirillov et al. 2019), mean over the labels that occur in truth or prediction.

    Segments of one label match where their IoU exceeds 0.5; pixels without a segment in the truth (a crowd's among them) do
    not count.
    """

    better = ("pq", True)
    reads: tuple[AnnotationName, ...] = ("semantic", "instances")
    by_label = True

    def __init__(self) -> None:
        self.counts: dict[int, np.ndarray] = {}

    def update(self, predicted: Sample, true: Sample) -> None:
        """Add one image, both with semantic map and instances."""
        p, p_labels = panoptic(predicted)
        t, t_labels = panoptic(true)
        shape = (len(t_labels) + 1, len(p_labels) + 1)
        shared = np.bincount((t * shape[1] + p).ravel(), minlength=shape[0] * shape[1]).reshape(shape)
        t_area, p_area, void = shared.sum(1), shared.sum(0), shared[0]
        union = t_area[:, None] + p_area[None] - void[None] - shared
        same = np.equal.outer([-1, *t_labels], [-2, *p_labels])
        iou = np.where(same, shared / np.maximum(union, 1), 0.0)
        hit = iou > 0.5
        for i, label in enumerate(t_labels, 1):
            found = hit[i].any()
            self._add(label, [iou[i][hit[i]].sum(), found, 0, not found])
        for j, label in enumerate(p_labels, 1):
            if not hit[:, j].any() and void[j] <= p_area[j] / 2:
                self._add(label, [0, 0, 1, 0])

    def _add(self, label: int, row: list[Any]) -> None:
        self.counts[label] = self.counts.get(label, np.zeros(4)) + np.array(row, float)

    def compute(self) -> dict[str, float]:
        """pq, and its factors: sq (mean IoU of matches) and rq (F1 of finding segments); 0 to 1."""
        if not self.counts:
            return dict.fromkeys(FIGURES, float("nan"))
        return dict(zip(FIGURES, self._rows().mean(0).tolist(), strict=True))

    def by_id(self) -> dict[int, dict[str, float]]:
        """pq, sq and rq; also of labels that only the prediction has, which count in the mean."""
        labels = sorted(self.counts)
        return {k: dict(zip(FIGURES, row, strict=True)) for k, row in zip(labels, self._rows().tolist(), strict=True)}

    def _rows(self) -> np.ndarray:
        """`FIGURES` of the labels in order, f64[labels 3]."""
        iou, hits, extra, missed = np.array([self.counts[k] for k in sorted(self.counts)]).reshape(-1, 4).T
        sq, rq = iou / np.maximum(hits, 1), hits / (hits + extra / 2 + missed / 2)
        return np.stack([sq * rq, sq, rq], 1)
