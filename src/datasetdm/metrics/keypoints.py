"""Keypoints: COCO's keypoint AP (OKS) and PCK."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from hotcoco import COCO, COCOeval

from datasetdm.records import AnnotationName, Sample

COCO_SIGMAS = {
    "nose": 0.026, "eye": 0.025, "ear": 0.035, "shoulder": 0.079, "elbow": 0.072, "wrist": 0.062, "hip": 0.107,
    "knee": 0.087, "ankle": 0.089,
}  # fmt: skip
"""How far annotators of COCO's 17 points disagree, as a fraction of the root of the object's area."""

SIGMA = 0.08
"""The same for points of other skeletons, where nobody measured it: the mean of COCO's points of the body."""


def oks_sigmas(points: Sequence[str]) -> list[float]:
    """COCO's own where a skeleton is COCO's 17 points, else `SIGMA`."""
    parts = [p.rpartition("_")[2] for p in points]
    person = len(points) == 17 and set(parts) == set(COCO_SIGMAS)
    return [COCO_SIGMAS[p] if person else SIGMA for p in parts]


FIGURES = ("oks_ap", "oks_ap50", "pck")
PCK_DISTANCE = 0.1
"""What counts as near, in units of the longer side of the object's box."""


class KeypointMeter:
    """COCO's keypoint AP (object keypoint similarity of 0.50 to 0.95, mean over the labels that occur) and PCK@0.1.

    pck: the fraction of the truth's labelled points that have their own predicted point within a tenth of the larger side of
    the object's box; the object of the same label with the most overlap is compared, and if there is none, all are missed. What is
    found in a true crowd counts neither as right nor as wrong; predicted crowds are left out.
    """

    better = ("oks_ap", True)
    reads: tuple[AnnotationName, ...] = ("instances", "keypoints")
    by_label = True

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []
        self.true: dict[int, list[dict[str, Any]]] = {}
        self.found: dict[int, list[dict[str, Any]]] = {}
        self.points: dict[int, tuple[str, ...]] = {}
        self.near: Counter[int] = Counter()
        self.total: Counter[int] = Counter()

    def update(self, predicted: Sample, true: Sample) -> None:
        """Add one image."""
        self.images.append({"id": len(self.images) + 1})
        found, truth = (self._rows(s) for s in (predicted, true))
        found = [r for r in found if not r["iscrowd"]]
        for rows, kept in ((found, self.found), (truth, self.true)):
            for row in rows:
                kept.setdefault(row["category_id"], []).append(row | {"id": len(kept.get(row["category_id"], [])) + 1})
        for row in (r for r in truth if not r["iscrowd"]):
            same = [r for r in found if r["category_id"] == row["category_id"]]
            x, y, seen = np.array(row["keypoints"]).reshape(-1, 3).T
            self.total[row["category_id"]] += int((seen > 0).sum())
            best = max(same, key=lambda r: _overlap(r["bbox"], row["bbox"]), default=None)
            if best is not None and _overlap(best["bbox"], row["bbox"]) > 0:
                px, py, _ = np.array(best["keypoints"]).reshape(-1, 3).T
                close = np.hypot(px - x, py - y) <= PCK_DISTANCE * max(row["bbox"][2:])
                self.near[row["category_id"]] += int((close & (seen > 0)).sum())

    def _rows(self, sample: Sample) -> list[dict[str, Any]]:
        """COCO's annotation of every object that has points."""
        record, objects = sample.keypoints, sample.instances
        assert record is not None and objects is not None
        rows = []
        for i, names in enumerate(record.names):
            if not names:
                continue
            label = int(objects.label_ids[i])
            order = self.points.setdefault(label, names)
            place = [names.index(n) if n in names else -1 for n in order]
            values = np.concatenate([record.xy[i], record.visibility[i, :, None]], 1).astype(float)
            values = np.where(np.array(place)[:, None] >= 0, values[place], 0.0)
            score = 1.0 if record.scores is None else float(record.scores[i, : len(names)].mean(dtype=np.float64))
            row: dict[str, Any] = {"image_id": len(self.images), "category_id": label + 1}
            row |= {"area": float(objects.masks.areas[i]), "bbox": [float(v) for v in objects.boxes[i]]}
            row |= {"keypoints": values.ravel().tolist(), "num_keypoints": int((values[:, 2] > 0).sum())}
            row |= {"iscrowd": int(objects.crowd[i]), "score": score * float(objects.scores[i])}
            rows.append(row)
        return rows

    def compute(self) -> dict[str, float]:
        """oks_ap, oks_ap50 and pck, 0 to 1."""
        rows = self.by_id().values()
        if not rows:
            return dict.fromkeys(FIGURES, float("nan"))
        ap, ap50 = (float(np.mean([row[name] for row in rows])) for name in FIGURES[:2])
        return dict(zip(FIGURES, (ap, ap50, self.near.total() / max(self.total.total(), 1)), strict=True))

    def by_id(self) -> dict[int, dict[str, float]]:
        """oks_ap, oks_ap50 and pck."""
        found = {}
        for label in sorted(self.true):
            if (curves := self._curves(label)) is not None:
                values = (float(curves.mean()), float(curves[0].mean()), self.near[label] / max(self.total[label], 1))
                found[label - 1] = dict(zip(FIGURES, values, strict=True))
        return found

    def _curves(self, label: int) -> np.ndarray | None:
        """Precision [similarity, recall] of one label, None if the truth has no labelled point of it."""
        if not any(r["num_keypoints"] and not r["iscrowd"] for r in self.true[label]):
            return None
        if not self.found.get(label):
            return np.zeros((10, 101))
        points = self.points[label - 1]  # COCO counts from 1
        categories = [{"id": label, "name": str(label), "keypoints": list(points)}]
        truth = COCO({"images": self.images, "annotations": self.true[label], "categories": categories})
        evaluation = COCOeval(truth, truth.load_res(self.found[label]), "keypoints")
        evaluation.params.kpt_oks_sigmas = oks_sigmas(points)
        evaluation.evaluate()
        evaluation.accumulate()
        return np.asarray((evaluation.eval or {})["precision"])[:, :, 0, 0, -1]


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """IoU of two boxes (x, y, width, height)."""
    w, h = (max(0.0, min(a[k] + a[k + 2], b[k] + b[k + 2]) - max(a[k], b[k])) for k in (0, 1))
    return w * h / max(a[2] * a[3] + b[2] * b[3] - w * h, 1e-9)
