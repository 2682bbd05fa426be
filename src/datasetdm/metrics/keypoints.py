"""Keypoints: COCO's keypoint AP (OKS) and PCK."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hotcoco import COCO, COCOeval

from datasetdm.records import Instances, Keypoints

COCO_SIGMAS = {
    "nose": 0.026, "eye": 0.025, "ear": 0.035, "shoulder": 0.079, "elbow": 0.072, "wrist": 0.062, "hip": 0.107,
    "knee": 0.087, "ankle": 0.089,
}  # fmt: skip
"""How far annotators of COCO's 17 points disagree, as a share of the root of the object's area."""

SIGMA = 0.08
"""The same for points of other skeletons, where nobody measured it: the mean of COCO's points of the body."""


def oks_sigmas(points: Sequence[str]) -> list[float]:
    """COCO's own where a skeleton is COCO's 17 points, else `SIGMA`."""
    parts = [p.rpartition("_")[2] for p in points]
    person = len(points) == 17 and set(parts) == set(COCO_SIGMAS)
    return [COCO_SIGMAS[p] if person else SIGMA for p in parts]


class KeypointMeter:
    """COCO's keypoint AP (object keypoint similarity of 0.50 to 0.95, mean over the labels that occur) and PCK@0.1.

    pck: the share of the truth's labelled points that have their own predicted point within a tenth of the larger side of
    the object's box; the object of the same label with the most overlap is asked, and if there is none, all are missed.
    """

    better = ("oks_ap", True)

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []
        self.true: dict[int, list[dict[str, Any]]] = {}
        self.found: dict[int, list[dict[str, Any]]] = {}
        self.points: dict[int, tuple[str, ...]] = {}
        self.near = self.total = 0

    def update(
        self, predicted: Keypoints, true: Keypoints, labels: int, objects: tuple[Instances, Instances] | None = None
    ) -> None:
        """Add one image. objects: the instances that the predicted and the true rows belong to; without them every
        skeleton is a label and a row's box is its points'."""
        self.images.append({"id": len(self.images) + 1})
        both = [self._rows(record, own) for record, own in zip((predicted, true), objects or (None, None), strict=True)]
        for rows, kept in zip(both, (self.found, self.true), strict=True):
            for row in rows:
                kept.setdefault(row["category_id"], []).append(row | {"id": len(kept.get(row["category_id"], [])) + 1})
        for row in both[1]:
            same = [r for r in both[0] if r["category_id"] == row["category_id"]]
            x, y, seen = np.array(row["keypoints"]).reshape(-1, 3).T
            self.total += int((seen > 0).sum())
            best = max(same, key=lambda r: _overlap(r["bbox"], row["bbox"]), default=None)
            if best is not None and _overlap(best["bbox"], row["bbox"]) > 0:
                px, py, _ = np.array(best["keypoints"]).reshape(-1, 3).T
                close = np.hypot(px - x, py - y) <= 0.1 * max(row["bbox"][2:])
                self.near += int((close & (seen > 0)).sum())

    def _rows(self, record: Keypoints, objects: Instances | None) -> list[dict[str, Any]]:
        """COCO's annotation of every object that has points."""
        rows = []
        for i, names in enumerate(record.names):
            if not names:
                continue
            label = int(objects.label_ids[i]) if objects else self._number(names)
            order = self.points.setdefault(label, names)
            place = [names.index(n) if n in names else -1 for n in order]
            values = np.concatenate([record.xy[i], record.visibility[i, :, None]], 1).astype(float)
            values = np.where(np.array(place)[:, None] >= 0, values[place], 0.0)
            xy = record.xy[i, : len(names)]
            box = objects.boxes[i] if objects else np.concatenate([xy.min(0), np.maximum(np.ptp(xy, 0), 1)])
            sure = 1.0 if record.scores is None else float(record.scores[i, : len(names)].mean(dtype=np.float64))
            area = int(objects.masks.areas[i]) if objects else box[2] * box[3]
            row: dict[str, Any] = {"image_id": len(self.images), "category_id": label + 1, "area": float(area)}
            row |= {"keypoints": values.ravel().tolist()}
            row |= {"bbox": [float(v) for v in box], "iscrowd": 0, "num_keypoints": int((values[:, 2] > 0).sum())}
            rows.append(row | {"score": sure * float(objects.scores[i] if objects else 1)})
        return rows

    def _number(self, names: tuple[str, ...]) -> int:
        return next((k for k, v in self.points.items() if v == names), len(self.points))

    def compute(self) -> dict[str, float]:
        """oks_ap, oks_ap50 and pck, 0 to 1."""
        curves = [self._curves(label) for label in self.true]
        kept = [c for c in curves if c is not None]
        if not kept:
            return {"oks_ap": float("nan"), "oks_ap50": float("nan"), "pck": float("nan")}
        ap, ap50 = (float(np.mean([c[part].mean() for c in kept])) for part in (slice(None), 0))
        return {"oks_ap": ap, "oks_ap50": ap50, "pck": self.near / max(self.total, 1)}

    def _curves(self, label: int) -> np.ndarray | None:
        """Precision [similarity, recall] of one label, None if the truth has no labelled point of it."""
        if not any(r["num_keypoints"] for r in self.true[label]):
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
