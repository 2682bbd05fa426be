"""Annotations held against what a teacher sees: whole samples, or single pixels by their loss."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Float32, Int64
from pydantic import Field, PrivateAttr

from datasetdm.errors import ConfigError
from datasetdm.io.digests import files_digest, place_name
from datasetdm.metrics.keypoints import oks_sigmas
from datasetdm.quality.seen import Boxes, Seen, Teacher
from datasetdm.quality.teachers import load_teacher
from datasetdm.readers import read
from datasetdm.records import IGNORE, Keypoints, Labels, Sample
from datasetdm.records.edits import ignore_pixels, judge, keep_objects, relabel
from datasetdm.records.point_names import name_words
from datasetdm.transforms import Transform

OTHER = IGNORE - 1
"""What the vocabulary has no label for."""
LEAST_AREA = 0.01
"""Labels that both show on a smaller fraction of the labelled pixels are not compared."""
LEAST_IOU = 0.5
"""From this IoU on two boxes are the same object."""
LEAST_PROBABILITY = 1e-6
"""Of a label, for its loss."""


class _Taught(Transform):
    """Compares with a teacher.

    Args:
        teacher: a folder of transformers, or an ONNX file.
        device: auto, cpu or cuda.
    """

    teacher: str
    device: str = Field("auto", exclude=True)
    _loaded: Teacher | None = PrivateAttr(None)

    def origin(self) -> dict[str, Any]:
        """The settings, and the teacher by its files."""
        named = {"teacher": place_name(self.teacher), "sha256": files_digest(Path(self.teacher))}
        return {**self.to_json(), **named}

    def _seen(self, sample: Sample) -> tuple[Seen, Int64[np.ndarray, "l"]]:
        """What the teacher sees, and for every label of the teacher its id in the sample's vocabulary."""
        if self._loaded is None:
            self._loaded = load_teacher(self.teacher, self.device)
        labels = self._loaded.labels
        ids = own_ids(labels, sample.labels, self.teacher)
        theirs = {own: k for k, own in reversed([*enumerate(ids.tolist())])}  # of two labels of one meaning the first
        bare = replace(sample, semantic=None, depth=None, keypoints=None)
        shown = relabel(bare, labels, [theirs.get(i, IGNORE) for i in range(len(sample.labels))])
        return self._loaded.look(shown), ids


def own_ids(theirs: Labels, own: Labels, where: str) -> Int64[np.ndarray, "l"]:
    """For every label of another vocabulary its id in ours, by name or synonym; `OTHER` for one that we lack.

    Raises:
        ConfigError: no label is in both.
    """
    names = [own.by_word.get(name.lower()) for name in theirs.names]
    if not any(names):
        raise ConfigError(
            "the teacher knows none of the labels",
            where=where,
            expected=f"one or more of: {', '.join(own.names[:8])}; it has {', '.join(theirs.names[:8])}",
            remedy="rename its labels (`id2label` in its config.json)",
        )
    return np.array([OTHER if n is None else own.index[n] for n in names], np.int64)


class FilterByTeacher(_Taught):
    """Rejects samples whose annotations a teacher does not confirm. Its score is the agreement, 0 to 1.

    With a teacher of segmentation: the mean IoU over the labels that both vocabularies have and either shows. With one of
    detection: twice the matching boxes over all boxes of such labels. With one of keypoints: the mean object keypoint similarity
    of the objects. Samples with nothing to compare are left as they are.

    Args:
        minimum: agreement.
    """

    name: ClassVar[str] = "filter-by-teacher"
    minimum: float = Field(0.5, ge=0, le=1)

    def __call__(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        return map(self._judge, samples)

    def _judge(self, sample: Sample) -> Sample:
        seen, ids = self._seen(sample)
        found = None
        if seen.probabilities is not None:
            found = map_agreement(sample, ids[seen.probabilities.argmax(0)], set(ids.tolist()) - {OTHER})
        elif seen.boxes is not None:
            found = box_agreement(sample, Boxes(seen.boxes.xywh, ids[seen.boxes.label_ids]), set(ids.tolist()))
        elif seen.keypoints is not None and sample.instances is not None:
            known = keep_objects(sample, np.isin(sample.instances.label_ids, ids))
            found = keypoint_agreement(known, seen.keypoints)
        return sample if found is None else judge(sample, self.name, found, self.minimum, "the teacher disagrees")


def map_agreement(sample: Sample, theirs: Int64[np.ndarray, "h w"], shared: set[int]) -> float | None:
    """Mean IoU of a sample's semantic map and another one over the shared labels; None where none of them is there."""
    if sample.semantic is None:
        return None
    own = sample.semantic.ids.astype(np.int64)
    labelled = own != IGNORE
    ious = []
    for label in shared & {*np.unique(own).tolist(), *np.unique(theirs).tolist()}:
        a, b = own == label, (theirs == label) & labelled
        if (either := (a | b).sum()) >= LEAST_AREA * labelled.sum():
            ious.append((a & b).sum() / either)
    return float(np.mean(ious)) if ious else None


def box_agreement(sample: Sample, theirs: Boxes, shared: set[int]) -> float | None:
    """F-measure of a sample's objects and other boxes, matched greedily by IoU; None without any. Crowds are not compared."""
    objects = sample.instances
    if objects is None:
        return None
    mine = ~objects.crowd & np.isin(objects.label_ids, [*shared])
    other = theirs.label_ids != OTHER
    boxes, labels = objects.boxes[mine], objects.label_ids[mine]
    rest, names = theirs.xywh[other], theirs.label_ids[other]
    if not len(boxes) + len(rest):
        return None
    ious = box_ious(boxes, rest) * (labels[:, None] == names[None])
    matches = 0
    while ious.size and ious.max() >= LEAST_IOU:
        i, j = np.unravel_index(ious.argmax(), ious.shape)
        ious[i], ious[:, j] = 0, 0
        matches += 1
    return 2 * matches / (len(boxes) + len(rest))


def keypoint_agreement(sample: Sample, theirs: Keypoints) -> float | None:
    """Mean object keypoint similarity (OKS) of the objects with present points; None without any. Crowds are not compared.

    Points are matched by the words of their names. A point that only the sample has present counts 0; one that the teacher has
    no name for does not count.
    """
    objects, own = sample.instances, sample.keypoints
    if objects is None or own is None:
        return None
    found = []
    for i in np.flatnonzero(~objects.crowd).tolist():
        place = {name_words(n): k for k, n in enumerate(theirs.names[i])}
        sigmas = oks_sigmas(own.names[i])
        area = float(objects.masks.areas[i])
        similarities = []
        for k, name in enumerate(own.names[i]):
            if own.visibility[i, k] and (other := place.get(name_words(name))) is not None:
                distance = np.square(own.xy[i, k] - theirs.xy[i, other]).sum()
                near = float(np.exp(-distance / (2 * area * (2 * sigmas[k]) ** 2)))
                similarities.append(near * bool(theirs.visibility[i, other]))
        if similarities:
            found.append(np.mean(similarities))
    return float(np.mean(found)) if found else None


def box_ious(a: Float[np.ndarray, "n 4"], b: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "n m"]:
    """IoU of every pair of boxes (x, y, width, height)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum((a[:, :2] + a[:, 2:])[:, None], (b[:, :2] + b[:, 2:])[None])
    both = np.clip(high - low, 0, None).prod(-1)
    return both / (a[:, 2:].prod(-1)[:, None] + b[:, 2:].prod(-1)[None] - both)


class MaskByLoss(_Taught):
    """Ignores pixels whose loss under a teacher is far above the mean of their label: its cross-entropy there is more than
    `factor` times that. From FreeMask (Yang et al., NeurIPS 2023, arXiv 2310.15160, section 3.3), which fits the teacher on the
    labelled images, takes the mean of a label over all synthetic pixels of it, and a factor of 1.25.

    Pixels with a label that the teacher does not know, and samples without a semantic map, are left as they are.

    Args:
        factor: loss above which a pixel is ignored, in units of its label's mean.
        data: the samples whose means count, FORMAT:PATH, for sources that never end; None for the samples themselves, which are
            then read twice.
    """

    name: ClassVar[str] = "mask-by-loss"
    factor: float = Field(1.25, gt=0)
    data: str | None = None
    _of_data: Mapping[int, float] | None = PrivateAttr(None)

    @property
    def compares(self) -> bool:  # ty: ignore[incompatible-property-override]
        return self.data is None

    def _means(self) -> Mapping[int, float]:
        """Those of `data`, read once."""
        if self._of_data is None:
            self._of_data = self._mean_losses(read(self.data or ""))
        return self._of_data

    def origin(self) -> dict[str, Any]:
        """Also the means, where they are those of other data."""
        if self.data is None:
            return super().origin()
        means = {str(k): round(v, 6) for k, v in self._means().items()}
        return {**super().origin(), "data": place_name(self.data), "means": means}

    def __call__(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        if self.data is None and isinstance(samples, Iterator):
            samples = list(samples)
        means = self._mean_losses(samples) if self.data is None else self._means()
        for sample in samples:
            loss, ids = self._losses(sample)
            limits = np.full(OTHER + 2, np.inf, np.float32)
            limits[[*means]] = [self.factor * m for m in means.values()]
            yield ignore_pixels(sample, loss > limits[ids])

    def _mean_losses(self, samples: Iterable[Sample]) -> dict[int, float]:
        """By label id."""
        sums, counts = np.zeros(OTHER + 2), np.zeros(OTHER + 2)
        for sample in samples:
            loss, ids = self._losses(sample)
            known = ~np.isnan(loss)
            sums += np.bincount(ids[known], loss[known].astype(np.float64), OTHER + 2)
            counts += np.bincount(ids[known], minlength=OTHER + 2)
        return {int(i): float(sums[i] / counts[i]) for i in np.flatnonzero(counts)}

    def _losses(self, sample: Sample) -> tuple[Float32[np.ndarray, "h w"], Int64[np.ndarray, "h w"]]:
        """(loss, label id) of every pixel; NaN where the teacher knows nothing about the label.

        Raises:
            ConfigError: a teacher that makes no semantic maps.
        """
        if sample.semantic is None:
            return np.full(sample.size, np.nan, np.float32), np.full(sample.size, IGNORE, np.int64)
        seen, ids = self._seen(sample)
        if seen.probabilities is None:
            raise ConfigError("this teacher makes no semantic maps", where=self.teacher, expected="one of segmentation")
        own = sample.semantic.ids.astype(np.int64)
        rows = np.full(OTHER + 2, -1)
        rows[ids[::-1]] = np.arange(len(ids))[::-1]  # of two labels of one meaning the first
        row = np.where(own == IGNORE, -1, rows[own])
        chance = np.take_along_axis(seen.probabilities, np.maximum(row, 0)[None], 0)[0]
        loss = -np.log(np.maximum(chance, LEAST_PROBABILITY))
        return np.where(row < 0, np.float32(np.nan), loss).astype(np.float32), own
