"""Instances: COCO's mask AP."""

from __future__ import annotations

from typing import Any

import numpy as np
from hotcoco import COCO, COCOeval

from datasetdm.io.codecs import compress_runs
from datasetdm.records import AnnotationName, Sample


class InstanceMeter:
    """COCO's mask AP: averaged over IoU 0.50 to 0.95 and the labels that occur in the truth; ap50 at IoU 0.5.

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
        """ap and ap50, 0 to 1."""
        if all(row["iscrowd"] for row in self.true):
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
