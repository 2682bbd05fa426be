"""What formats of objects take from a sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from datasetdm.errors import DataError
from datasetdm.io.codecs import compress_runs
from datasetdm.records import BACKGROUND, Annotations, Instances, Sample


def objects_of(sample: Sample) -> Instances:
    """The sample's instances; without them every label of its semantic map, but `background`, as one object whose score
    is its mean confidence."""
    semantic = sample.semantic
    if sample.instances is not None:
        return sample.instances
    if semantic is None:
        return Instances.none(sample.size)
    labels = sorted(Annotations(semantic).labels_in())
    found = [i for i in labels if sample.labels.names[i] != BACKGROUND]
    if not found:
        return Instances.none(sample.size)
    masks, sure = [semantic.ids == i for i in found], semantic.confidence
    scores = None if sure is None else np.array([sure[m].mean(dtype=np.float64) for m in masks])
    return Instances.from_masks(masks, np.array(found), scores)


def object_rows(sample: Sample, category: Mapping[int, int]) -> Iterator[dict[str, Any]]:
    """The objects as COCO's annotations: category_id (by label id), segmentation (run lengths; empty where only boxes are
    known), bbox, area, iscrowd 0, score, keypoints."""
    objects = objects_of(sample)
    areas = objects.masks.areas.tolist()
    for n, (runs, label) in enumerate(zip(objects.masks.runs, objects.label_ids.tolist(), strict=True)):
        if label in category:
            rle = {"size": list(objects.size), "counts": compress_runs(runs, objects.size)}
            points = points_of(sample, n)
            flat = [] if points is None else [v for x, y, s in points.tolist() for v in (x, y, int(s))]
            yield ({"keypoints": flat, "num_keypoints": sum(v > 0 for v in flat[2::3])} if flat else {}) | {
                "category_id": category[label],
                "segmentation": [] if objects.boxed else rle,
                "bbox": objects.boxes[n].tolist(),
                "area": float(areas[n]),
                "iscrowd": 0,
                "score": round(float(objects.scores[n]), 4),
            }


def require_outlines(sample: Sample, instead: str) -> None:
    """Refuse objects that are known as boxes only. instead: the format that holds them."""
    objects = sample.instances
    if objects is not None and objects.boxed and len(objects):
        raise DataError(
            "these objects are boxes, not outlines", where=f"sample {sample.key!r}", expected="masks",
            remedy=f"export {instead}",
        )  # fmt: skip


def points_of(sample: Sample, n: int) -> np.ndarray | None:
    """The points f64[k 3] (x, y, visibility) of the n-th instance in the order of its label's skeleton; absent ones are 0.

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
