"""Instances: COCO's mask AP."""

from __future__ import annotations

from typing import Any

import numpy as np
from hotcoco import COCO, COCOeval

from datasetdm.io.codecs import compress_runs
from datasetdm.records import AnnotationName, Sample

FIGURES = ("ap", "ap50", "ap_small", "ap_medium", "ap_large")


class InstanceMeter:
    """COCO's mask AP: averaged over IoU 0.50 to 0.95 and the labels that occur in the truth; ap50 at IoU 0.5; ap_small below
    32 x 32 pixels, ap_medium, and ap_large from 96 x 96 on.

    What is found in a true crowd of its label counts neither as right nor as wrong; predicted crowds are left out.
    """

    better = ("ap", True)
    reads: tuple[AnnotationName, ...] = ("instances",)
    by_label = True

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []
        self.true: list[dict[str, Any]] = []
        self.found: list[dict[str, Any]] = []
        self.labels = 0

    def update(self, predicted: Sample, true: Sample) -> None:
        """Add one image."""
        self.labels = len(true.labels)
        number, (h, w) = len(self.images) + 1, true.size
        self.images.append({"id": number, "file_name": str(number), "height": h, "width": w})
        assert predicted.instances is not None and true.instances is not None
        found = predicted.instances.take(~predicted.instances.crowd)
        for record, rows in ((true.instances, self.true), (found, self.found)):
            values = (
                v.tolist() for v in (record.label_ids, record.boxes, record.masks.areas, record.scores, record.crowd)
            )
            for runs, label, box, area, score, crowd in zip(record.masks.runs, *values, strict=True):
                rle = {"size": list(record.size), "counts": compress_runs(runs, record.size)}
                row = {"id": len(rows) + 1, "image_id": number, "category_id": label + 1, "segmentation": rle}
                rows.append(row | {"bbox": box, "area": float(area), "iscrowd": int(crowd), "score": score})

    def compute(self) -> dict[str, float]:
        """`FIGURES`, 0 to 1, without those of sizes that no true object has."""
        if all(row["iscrowd"] for row in self.true):
            return dict.fromkeys(FIGURES[:2], float("nan"))
        if not self.found:
            return dict.fromkeys(FIGURES[:2], 0.0)
        return _figures(self._precision())

    def by_id(self) -> dict[int, dict[str, float]]:
        """`FIGURES` of one label."""
        present = sorted({row["category_id"] - 1 for row in self.true if not row["iscrowd"]})
        if not present or not self.found:
            return {i: dict.fromkeys(FIGURES[:2], 0.0) for i in present}
        precision = self._precision()
        return {i: _figures(precision[:, :, [i]]) for i in present}

    def _precision(self) -> np.ndarray:
        """Precision at [IoU recall label area], -1 where the truth has nothing."""
        categories = [{"id": i + 1, "name": str(i)} for i in range(self.labels)]
        truth = COCO({"images": self.images, "annotations": self.true, "categories": categories})
        evaluation = COCOeval(truth, truth.load_res(self.found), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        return np.asarray((evaluation.eval or {})["precision"])[..., -1]


def _figures(precision: np.ndarray) -> dict[str, float]:
    sizes = [_mean(precision[..., area]) for area in range(4)]  # all, small, medium, large
    values = (sizes[0], _mean(precision[0, ..., 0]), *sizes[1:])
    return {name: v for name, v in zip(FIGURES, values, strict=True) if v is not None}


def _mean(precision: np.ndarray) -> float | None:
    """Over what the truth has (the others are -1); None if it has none."""
    known = precision[precision >= 0]
    return float(known.mean()) if known.size else None
