"""What formats of objects take from a sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from datasetdm.codecs import encode_rle, rle_box
from datasetdm.errors import DataError
from datasetdm.types import BACKGROUND, IGNORE, Instances, Keypoints, Sample, SemanticMap


def objects_of(sample: Sample) -> Instances:
    """The sample's instances; without them every label of its semantic map, but `background`, as one object whose score
    is its mean confidence."""
    instances, semantic = sample.annotations.get("instance"), sample.annotations.get("semantic")
    if isinstance(instances, Instances):
        return instances
    ids = np.unique(semantic.ids) if isinstance(semantic, SemanticMap) else np.zeros(0, np.uint16)
    found = [i for i in ids.tolist() if i != IGNORE and sample.labels.names[i] != BACKGROUND]
    if not isinstance(semantic, SemanticMap) or not found:
        return Instances(np.zeros((0, *sample.size), bool), np.zeros(0, np.int64))
    masks = np.stack([semantic.ids == i for i in found])
    sure = semantic.confidence
    scores = None if sure is None else np.array([sure[m].mean(dtype=np.float64) for m in masks])
    return Instances(masks, np.array(found), scores)  # ty: ignore[invalid-argument-type]  (None: ones)


def object_rows(sample: Sample, category: Mapping[int, int]) -> Iterator[dict[str, Any]]:
    """The objects as COCO's annotations: category_id (by label id), segmentation (run lengths; empty where only boxes are
    known), bbox, area, iscrowd 0, score, keypoints."""
    objects = objects_of(sample)
    for n, (mask, label) in enumerate(zip(objects.masks, objects.label_ids.tolist(), strict=True)):
        if label in category:
            rle = encode_rle(mask)
            box, area = rle_box(rle)
            points = points_of(sample, n)
            flat = [] if points is None else [v for x, y, s in points.tolist() for v in (x, y, int(s))]
            yield ({"keypoints": flat, "num_keypoints": sum(v > 0 for v in flat[2::3])} if flat else {}) | {
                "category_id": category[label],
                "segmentation": [] if objects.boxed else rle,
                "bbox": box,
                "area": area,
                "iscrowd": 0,
                "score": round(float(objects.scores[n]), 4),
            }


def require_outlines(sample: Sample, instead: str) -> None:
    """Refuse objects that are known as boxes only. instead: the format that holds them."""
    objects = sample.annotations.get("instance")
    if isinstance(objects, Instances) and objects.boxed and len(objects):
        raise DataError(
            "these objects are boxes, not outlines", where=f"sample {sample.key!r}", expected="masks",
            remedy=f"export {instead}",
        )  # fmt: skip


def points_of(sample: Sample, n: int) -> np.ndarray | None:
    """The points f64[k 3] (x, y, visibility) of the n-th instance in the order of its label's skeleton; absent ones are 0.

    None where it has no points or its label no skeleton.
    """
    points, objects = sample.annotations.get("keypoints"), sample.annotations.get("instance")
    if not (isinstance(points, Keypoints) and isinstance(objects, Instances)):
        return None
    skeleton = sample.labels.skeletons.get(sample.labels.names[int(objects.label_ids[n])])
    if skeleton is None or not points.names[n]:
        return None
    own = {p: i for i, p in enumerate(points.names[n])}
    rows = np.zeros((len(skeleton.points), 3))
    for row, name in zip(rows, skeleton.points, strict=True):
        if name in own and (seen := int(points.visibility[n, own[name]])):
            row[:] = *points.xy[n, own[name]], seen
    return rows
