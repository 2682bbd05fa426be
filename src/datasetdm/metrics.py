"""Figures over annotations, accumulated picture by picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hotcoco import COCO, COCOeval
from jaxtyping import Int64

from datasetdm.codecs import encode_rle, rle_box
from datasetdm.types import IGNORE, DepthMap, Instances, Keypoints, Sample, SemanticMap


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


# ---------------------------------------------------------------------- keypoints
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
        """Add one picture. objects: the instances that the predicted and the true rows belong to; without them every
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
            area = objects.masks[i].sum() if objects else box[2] * box[3]
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


# ---------------------------------------------------------------------- panoptic
def panoptic(sample: Sample) -> tuple[Int64[np.ndarray, "h w"], list[int]]:
    """One segment for every pixel, from a sample's semantic map and instances (Kirillov et al. 2019).

    The surest objects come first and keep their pixels; one of which more than half is taken already is dropped. Then every
    stuff label is one segment of what is left of its region.

    Returns:
        ids: 0 where there is no segment (pixels of a thing outside all objects, ignored pixels), else 1, 2, ...
        labels: the label id of segment 1, 2, ...
    """
    semantic, objects = sample.annotations["semantic"], sample.annotations["instance"]
    assert isinstance(semantic, SemanticMap) and isinstance(objects, Instances)
    ids, labels = np.zeros(sample.size, np.int64), []
    for i in np.argsort(-objects.scores, kind="stable").tolist():
        free = objects.masks[i] & (ids == 0)
        if free.sum() * 2 > objects.masks[i].sum():
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

    Segments of one label match where their IoU exceeds 0.5; pixels without a segment in the truth do not count.
    """

    better = ("pq", True)

    def __init__(self) -> None:
        self.counts: dict[int, np.ndarray] = {}

    def update(self, predicted: Sample, true: Sample) -> None:
        """Add one picture, both with semantic map and instances."""
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
            return {"pq": float("nan"), "sq": float("nan"), "rq": float("nan")}
        rows = np.array([self.counts[k] for k in sorted(self.counts)])
        iou, hits, extra, missed = rows.T
        sq, rq = iou / np.maximum(hits, 1), hits / (hits + extra / 2 + missed / 2)
        return {"pq": float((sq * rq).mean()), "sq": float(sq.mean()), "rq": float(rq.mean())}
