"""Who makes a table's figure: what is kept of every test image, and the figure of any resample of the images.

What is kept suffices for the figure and its bootstrap intervals, so results can be compared long after their students are gone.
"""

from __future__ import annotations

import base64
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from hotcoco import COCO, COCOeval

from datasetdm.metrics import DepthMeter, InstanceMeter, KeypointMeter, oks_sigmas
from datasetdm.readers.formats.mini import LABELS
from datasetdm.records import IGNORE, Sample

Evidence = Mapping[str, np.ndarray]
"""What is kept, by name; the first array has one row per image."""
Pairs = Iterable[tuple[Sample, Sample]]
"""(true, found)."""

RECALLS = np.linspace(0, 1, 101)
"""At which COCO reads precision."""
THRESHOLDS = 10
"""Overlaps (IoU or OKS) from 0.50 to 0.95."""
MOST_FOUND = 100
"""COCO's figures look at no more objects per image."""


class Judge(ABC):
    """Makes one figure."""

    more: ClassVar[bool] = True
    """Whether more is better."""
    resamples: ClassVar[int] = 1000
    """Of the bootstrap."""

    @property
    @abstractmethod
    def metric(self) -> str:
        """What it is called."""

    @abstractmethod
    def look(self, pairs: Pairs) -> Evidence:
        """What is kept of all images."""

    @abstractmethod
    def figures(self, evidence: Evidence, weights: np.ndarray) -> np.ndarray:
        """The figure of every resample, f[r]; weights: how often each image is taken, f[r images]."""

    def figure(self, evidence: Evidence) -> float:
        """Of all images."""
        return float(self.figures(evidence, np.ones((1, images_of(evidence))))[0])

    def details(self, evidence: Evidence) -> dict[str, float]:
        """Other figures of all images, by name."""
        return {}

    def resampled(self, evidence: Evidence, seed: int = 0) -> np.ndarray:
        """Figures of `resamples` resamples, f[resamples]; the same images are taken for every row of a table."""
        images = images_of(evidence)
        rng = np.random.default_rng(seed)
        weights = rng.multinomial(images, np.full(images, 1 / images), self.resamples).astype(float)
        return self.figures(evidence, weights)


def images_of(evidence: Evidence) -> int:
    """How many images were looked at."""
    return len(next(iter(evidence.values())))


# ---------------------------------------------------------------------- pixels
@dataclass(frozen=True)
class MeanIoU(Judge):
    """Mean IoU of the labels that occur in the truth.

    Keeps counts, i64[images labels 3]: pixels right, true, found (the last only where the truth is known).

    Args:
        names: of the labels that count; none for all.
        groups: names of equal parts of the images, in their order, with figures of their own.
    """

    metric: str = "mIoU"
    names: Sequence[str] = ()
    groups: Sequence[str] = ()

    def look(self, pairs: Pairs) -> Evidence:
        rows = []
        for true, found in pairs:
            assert true.semantic is not None and found.semantic is not None
            known = true.semantic.ids != IGNORE
            t, p = true.semantic.ids[known], found.semantic.ids[known]
            rows.append(np.stack([np.bincount(x, minlength=len(true.labels)) for x in (t[t == p], t, p)], 1))
        return {"counts": np.stack(rows)}

    def figures(self, evidence: Evidence, weights: np.ndarray) -> np.ndarray:
        return _mean(*_ious(evidence["counts"], weights), self.names)

    def details(self, evidence: Evidence) -> dict[str, float]:
        counts = evidence["counts"]
        parts = dict(zip(self.groups, np.split(counts, max(1, len(self.groups))), strict=False))
        own = {name: MeanIoU().figure({"counts": part}) for name, part in parts.items()}
        return own | ({"all labels": MeanIoU().figure(evidence)} if self.names else {})


@dataclass(frozen=True)
class HarmonicIoU(MeanIoU):
    """The harmonic mean of the mean IoU of seen and of unseen things.

    Args:
        names: the seen ones.
        unseen: those that no labelled image knows.
    """

    metric: str = "harmonic mIoU"
    unseen: Sequence[str] = ()

    def figures(self, evidence: Evidence, weights: np.ndarray) -> np.ndarray:
        iou, there = _ious(evidence["counts"], weights)
        seen, unseen = (_mean(iou, there, names) for names in (self.names, self.unseen))
        return 2 * seen * unseen / np.maximum(seen + unseen, 1e-9)

    def details(self, evidence: Evidence) -> dict[str, float]:
        parts = {"seen": MeanIoU(names=self.names), "unseen": MeanIoU(names=self.unseen)}
        return {name: judge.figure(evidence) for name, judge in parts.items()} | super().details(evidence)


def _ious(counts: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """IoU of every resample and label, and whether the truth has the label: [r labels]."""
    flat = weights @ counts.reshape(len(counts), -1).astype(float)
    right, true, found = np.moveaxis(flat.reshape(len(weights), -1, 3), -1, 0)
    return right / np.maximum(true + found - right, 1), true > 0


def _mean(values: np.ndarray, there: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Over the labels of these names that are there; 0 where none is."""
    own = [LABELS.index[n] for n in names] if names else slice(None)
    values, there = values[:, own], there[:, own]
    return np.where(there, values, 0).sum(1) / np.maximum(there.sum(1), 1)


# ---------------------------------------------------------------------- depth
@dataclass(frozen=True)
class AbsRel(Judge):
    """Mean over images of |found - true| / true; less is better.

    Keeps errors, f32[images n]: it, and the other figures of `DepthMeter`; NaN without any true depth.
    """

    metric: str = "AbsRel"
    more = False
    others: ClassVar[tuple[str, ...]] = ("delta1", "rmse", "absrel_scaled", "delta1_scaled")

    def look(self, pairs: Pairs) -> Evidence:
        errors = []
        for true, found in pairs:
            meter = DepthMeter()
            meter.update(found, true)
            own = meter.compute()
            errors.append([own[name] for name in ("absrel", *self.others)])
        return {"errors": np.array(errors, np.float32)}

    def figures(self, evidence: Evidence, weights: np.ndarray) -> np.ndarray:
        return _known_mean(evidence["errors"][:, 0], weights)

    def details(self, evidence: Evidence) -> dict[str, float]:
        once = np.ones((1, images_of(evidence)))
        columns = zip(self.others, evidence["errors"].T[1:], strict=True)
        return {name: float(_known_mean(values, once)[0]) for name, values in columns}


def _known_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean of the values that are no NaN, of every resample."""
    known = np.isfinite(values)
    return (weights @ np.where(known, values, 0).astype(float)) / np.maximum(weights @ known, 1e-9)


# ---------------------------------------------------------------------- objects
class _AP(Judge):
    """COCO's AP, by label then averaged over labels.

    Keeps truth, u32[images labels]: how many objects; and found, u32[n 5]: image, label, score in 1e-6, and as bits at which
    overlaps an object is right, and at which it does not count.
    """

    resamples = 200
    meter: ClassVar[type[InstanceMeter | KeypointMeter]]

    def look(self, pairs: Pairs) -> Evidence:
        meter, labels = self.meter(), 0
        for true, found in pairs:
            meter.update(found, true)
            labels = len(true.labels)
        truth = np.zeros((len(meter.images), labels), np.int64)
        rows = self._rows(meter, truth)
        return {"truth": truth, "found": np.array(rows, np.int64).reshape(-1, 5)}

    @abstractmethod
    def _rows(self, meter: Any, truth: np.ndarray) -> list[tuple[int, ...]]:
        """Rows of `found`; adds to `truth`."""

    def figures(self, evidence: Evidence, weights: np.ndarray) -> np.ndarray:
        truth, found = evidence["truth"], evidence["found"].astype(np.int64)
        found = found[np.argsort(-found[:, 2], kind="stable")]
        sums = []
        for label in np.flatnonzero(truth.sum(0)):
            own = found[found[:, 1] == label]
            hit, out = ((own[:, 3 + i, None] >> np.arange(THRESHOLDS)) & 1 for i in range(2))
            sums.append([_average_precision(w[own[:, 0]], hit, out, float(w @ truth[:, label])) for w in weights])
        return _nanmean(np.array(sums, float).reshape(-1, len(weights)))


def _average_precision(weight: np.ndarray, hit: np.ndarray, out: np.ndarray, total: float) -> float:
    """Mean over overlaps and recalls of the precision of one label.

    Args:
        weight: of every object found, best first, f[n].
        hit, out: whether it is right, and whether it does not count, [n overlaps].
        total: true objects.
    """
    if total <= 0:
        return float("nan")
    if not len(weight):
        return 0.0
    right = np.cumsum(weight[:, None] * (hit * (1 - out)), 0)
    seen = np.cumsum(weight[:, None] * (1 - out), 0)
    precision = np.maximum.accumulate((right / np.maximum(seen, 1e-9))[::-1], 0)[::-1]
    value = 0.0
    for own, recall in zip(precision.T, right.T / total, strict=True):
        place = np.searchsorted(recall, RECALLS - 1e-12)
        value += np.append(own, 0)[place].sum() / len(RECALLS)
    return value / hit.shape[1]


def _nanmean(values: np.ndarray) -> np.ndarray:
    """Over the first axis, without those that are not known; 0 where none is."""
    known = np.isfinite(values)
    return np.where(known, values, 0).sum(0) / np.maximum(known.sum(0), 1)


def _matches(evaluation: COCOeval, images: int, truth: np.ndarray) -> list[tuple[int, ...]]:
    """Rows of `found`; adds to `truth`."""
    evaluation.evaluate()
    rows, bits = [], 1 << np.arange(THRESHOLDS)
    for part in evaluation.eval_imgs:
        if part is None or part["aRng"] != evaluation.params.area_rng[0]:
            continue  # objects of some sizes only
        image, label = part["image_id"] - 1, part["category_id"] - 1
        truth[image, label] += int(np.sum(part["gtInDenominator"]))
        scores = part["dtScores"][:MOST_FOUND]
        hit, out = (np.array(part[k], int).reshape(THRESHOLDS, -1) for k in ("dtMatched", "dtIgnore"))
        rows += [
            (image, label, round(1e6 * s), int(hit[:, i] @ bits), int(out[:, i] @ bits)) for i, s in enumerate(scores)
        ]
    return rows


@dataclass(frozen=True)
class ObjectAP(_AP):
    """COCO's mask AP."""

    metric: str = "AP"
    meter = InstanceMeter

    def _rows(self, meter: InstanceMeter, truth: np.ndarray) -> list[tuple[int, ...]]:
        categories = [{"id": i + 1, "name": str(i)} for i in range(truth.shape[1])]
        coco = COCO({"images": meter.images, "annotations": meter.true, "categories": categories})
        if meter.found:
            return _matches(COCOeval(coco, coco.load_res(meter.found), "segm"), len(meter.images), truth)
        for row in meter.true:
            truth[row["image_id"] - 1, row["category_id"] - 1] += not row["iscrowd"]
        return []


@dataclass(frozen=True)
class PointAP(_AP):
    """COCO's keypoint AP (OKS)."""

    metric: str = "OKS AP"
    meter = KeypointMeter

    def _rows(self, meter: KeypointMeter, truth: np.ndarray) -> list[tuple[int, ...]]:
        rows: list[tuple[int, ...]] = []
        for label, own in meter.true.items():  # counted from 1
            points = meter.points[label - 1]
            if not meter.found.get(label):
                for row in own:
                    truth[row["image_id"] - 1, label - 1] += bool(row["num_keypoints"]) and not row["iscrowd"]
                continue
            category: dict[str, Any] = {"id": label, "name": str(label), "keypoints": list(points)}
            coco = COCO({"images": meter.images, "annotations": own, "categories": [category]})
            evaluation = COCOeval(coco, coco.load_res(meter.found[label]), "keypoints")
            evaluation.params.kpt_oks_sigmas = oks_sigmas(points)
            rows += _matches(evaluation, len(meter.images), truth)
        return rows


# ---------------------------------------------------------------------- JSON
def pack(values: np.ndarray) -> dict[str, Any]:
    """An array as JSON: whole numbers of 32 bits, or floats of 32."""
    kind = "f32" if values.dtype.kind == "f" else "u32"
    data = zlib.compress(np.ascontiguousarray(values, f"<{kind[0]}4").tobytes(), 9)
    return {"shape": list(values.shape), f"zlib_{kind}": base64.b64encode(data).decode()}


def unpack(value: Mapping[str, Any]) -> np.ndarray:
    """Inverse of `pack`."""
    kind = "f" if "zlib_f32" in value else "u"
    data = zlib.decompress(base64.b64decode(value[f"zlib_{kind}32"]))
    return np.frombuffer(data, f"<{kind}4").reshape(value["shape"])


def evidence_of(result: Mapping[str, Any]) -> Evidence:
    """What a result keeps."""
    return {name: unpack(result[name]) for name in ("counts", "errors", "truth", "found") if name in result}
