"""What formats of objects take from a sample."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from datasetdm.errors import DataError
from datasetdm.records import BACKGROUND, Annotations, Instances, MaskStack, Sample
from datasetdm.records.edits import keep_objects
from datasetdm.records.objects import encode_runs


def caption_of(sample: Sample) -> str | None:
    """The prompt as a caption; None without a prompt, and for one that only repeats the true labels."""
    return None if sample.prompt is None or sample.prompt.composed else sample.prompt.text


def objects_of(sample: Sample) -> Instances:
    """The sample's instances; without them every label of its semantic map, but `background`, as one object whose score
    is its mean confidence."""
    semantic = sample.semantic
    if sample.instances is not None:
        return sample.instances
    if semantic is None:
        return Instances.none(sample.size)
    found = [i for i in sorted(Annotations(semantic).labels_in()) if sample.labels.names[i] != BACKGROUND]
    confidence, runs, scores = semantic.confidence, [], np.ones(len(found))
    for n, label in enumerate(found):  # one mask at a time is dense
        mask = semantic.ids == label
        runs.append(encode_runs(mask))
        if confidence is not None:
            scores[n] = confidence[mask].mean(dtype=np.float64)
    return Instances(MaskStack(runs, sample.size), np.array(found, np.int64), scores)


def without_crowds(sample: Sample) -> Sample:
    """The sample for formats in which every object is one: without those that stand for a group."""
    objects = sample.instances
    return sample if objects is None or not objects.crowd.any() else keep_objects(sample, ~objects.crowd)


def require_outlines(sample: Sample, instead: str) -> None:
    """Refuse objects that are known as boxes only. instead: the format that holds them."""
    objects = sample.instances
    if objects is not None and objects.boxed and len(objects):
        raise DataError(
            "these objects are boxes, not outlines", where=f"sample {sample.key!r}", expected="masks",
            remedy=f"export {instead}",
        )  # fmt: skip


def points_of(sample: Sample, n: int) -> Float64[np.ndarray, "k 3"] | None:
    """The points (x, y, visibility) of the n-th instance in the order of its label's skeleton; absent ones are 0.

    None where it has no points or its label no skeleton.
    """
    points, objects = sample.keypoints, sample.instances
    if points is None or objects is None:
        return None
    skeleton = sample.labels.skeleton_of(int(objects.label_ids[n]))
    if skeleton is None or not points.names[n]:
        return None
    own = {p: i for i, p in enumerate(points.names[n])}
    rows = np.zeros((len(skeleton.points), 3))
    for row, name in zip(rows, skeleton.points, strict=True):
        if name in own and (seen := int(points.visibility[n, own[name]])):
            row[:] = *points.xy[n, own[name]], seen
    return rows


def paint(masks: MaskStack, values: np.ndarray) -> np.ndarray:
    """The value of the smallest mask at every pixel (of equal ones the last), 0 where there is none: `[h w]`."""
    h, w = masks.size
    columns = np.zeros(w * h, values.dtype)
    for i in np.argsort(-masks.areas, kind="stable").tolist():
        ends = np.cumsum(masks.runs[i])
        for start, stop in zip(ends[:-1:2].tolist(), ends[1::2].tolist(), strict=False):
            columns[start:stop] = values[i]
    return np.ascontiguousarray(columns.reshape(w, h).T)
