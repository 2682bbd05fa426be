"""Changes of a sample's annotations that keep them consistent. Every transform, reader and review uses these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from datasetdm.records.labels import IGNORE, Labels
from datasetdm.records.maps import SemanticMap
from datasetdm.records.sample import Quality, Sample


def keep_objects(sample: Sample, keep: Bool[np.ndarray, "n"]) -> Sample:
    """The sample with only the chosen objects, and their keypoints with their scores."""
    if sample.instances is None:
        return sample
    points = None if sample.keypoints is None else sample.keypoints.take(keep)
    return replace(sample, instances=sample.instances.take(keep), keypoints=points)


def relabel(sample: Sample, labels: Labels, new_ids: Sequence[int]) -> Sample:
    """The sample in another vocabulary.

    Args:
        new_ids: for every old label id its id in `labels`, or `IGNORE`: such pixels are ignored, such objects removed.
    """
    table = np.full(IGNORE + 1, IGNORE, np.uint16)
    table[: len(new_ids)] = new_ids
    semantic, objects, points = sample.semantic, sample.instances, sample.keypoints
    if semantic is not None:
        semantic = replace(semantic, ids=table[semantic.ids])
    if objects is not None:
        ids = table[objects.label_ids].astype(np.int64)
        keep = ids != IGNORE
        objects = replace(objects, label_ids=np.where(keep, ids, 0)).take(keep)
        points = None if points is None else points.take(keep)
    return replace(sample, labels=labels, semantic=semantic, instances=objects, keypoints=points)


def relabel_object(sample: Sample, index: int, label_id: int) -> Sample:
    """The sample with another label for one object, and for its pixels that had the object's label."""
    objects, semantic = sample.instances, sample.semantic
    if objects is None:
        return sample
    if semantic is not None:
        pixels = objects.masks[index] & (semantic.ids == objects.label_ids[index])
        semantic = replace(semantic, ids=np.where(pixels, np.uint16(label_id), semantic.ids))
    ids = objects.label_ids.copy()
    ids[index] = label_id
    return replace(sample, semantic=semantic, instances=replace(objects, label_ids=ids))


def ignore_pixels(sample: Sample, pixels: Bool[np.ndarray, "h w"]) -> Sample:
    """The sample without labels at these pixels of its semantic map."""
    if sample.semantic is None:
        return sample
    ids = np.where(pixels, np.uint16(IGNORE), sample.semantic.ids)
    return replace(sample, semantic=SemanticMap(ids, sample.semantic.confidence))


def drop_depth(sample: Sample, pixels: Bool[np.ndarray, "h w"]) -> Sample:
    """The sample without depth at these pixels."""
    if sample.depth is None:
        return sample
    return replace(sample, depth=replace(sample.depth, valid=sample.depth.valid & ~pixels))


def reject(sample: Sample, reason: str) -> Sample:
    """The sample with one more reason against it."""
    if reason in sample.quality.reasons:
        return sample
    return replace(sample, quality=Quality(sample.quality.scores, (*sample.quality.reasons, reason)))


def score(sample: Sample, name: str, value: float) -> Sample:
    """The sample with a filter's score."""
    return replace(sample, quality=Quality({**sample.quality.scores, name: value}, sample.quality.reasons))
