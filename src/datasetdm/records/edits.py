"""Changes of a sample's annotations that keep them consistent. Every transform, reader and review uses these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
from jaxtyping import Bool

from datasetdm.records.labels import IGNORE, Labels
from datasetdm.records.maps import SemanticMap
from datasetdm.records.objects import Instances
from datasetdm.records.sample import Quality, Sample


def keep_objects(sample: Sample, keep: Bool[np.ndarray, "n"]) -> Sample:
    """The sample with only the chosen objects, and their keypoints with their scores."""
    if sample.instances is None:
        return sample
    points = None if sample.keypoints is None else sample.keypoints.take(keep)
    return replace(sample, instances=sample.instances.take(keep), keypoints=points)


def drop_objects(sample: Sample, keep: Bool[np.ndarray, "n"]) -> Sample:
    """The sample with only the chosen objects; pixels of the others that no chosen one covers are ignored."""
    objects, semantic = sample.instances, sample.semantic
    if objects is None or keep.all():
        return sample
    if semantic is not None:
        others, dropped = ~objects.masks[keep].union(), np.zeros(sample.size, bool)
        for mask, label in zip(objects.masks[~keep], objects.label_ids[~keep], strict=True):
            dropped |= mask & others & (semantic.ids == label)
        sample = ignore_pixels(sample, dropped)
    return keep_objects(sample, keep)


def relabel(
    sample: Sample, labels: Labels, new_ids: Sequence[int], objects: Mapping[int, int] = MappingProxyType({})
) -> Sample:
    """The sample in another vocabulary, or with other labels of the same one.

    Args:
        sample: what is changed.
        labels: the vocabulary of the result.
        new_ids: for every old label id its id in `labels`, or `IGNORE`: such pixels are ignored, such objects removed.
        objects: number of an object -> its id in `labels`, whatever `new_ids` says. The pixels of its mask that have its
            old label get the new one too.
    """
    table = np.full(IGNORE + 1, IGNORE, np.uint16)
    table[: len(new_ids)] = new_ids
    semantic, instances, points = sample.semantic, sample.instances, sample.keypoints
    if semantic is not None:
        pixels = table[semantic.ids]
        if instances is not None:
            for i, new in objects.items():
                pixels[instances.masks[i] & (semantic.ids == instances.label_ids[i])] = new
        semantic = replace(semantic, ids=pixels)
    if instances is not None:
        ids = table[instances.label_ids].astype(np.int64)
        ids[[*objects]] = [*objects.values()]
        keep = ids != IGNORE
        instances = replace(instances, label_ids=np.where(keep, ids, 0)).take(keep)
        points = None if points is None else points.take(keep)
    return replace(sample, labels=labels, semantic=semantic, instances=instances, keypoints=points)


def repaint(sample: Sample, gone: Instances, there: Instances, changed: Sequence[bool]) -> Sample:
    """The sample after regions of its semantic map were redrawn.

    Args:
        sample: what is changed.
        gone: the regions as they were; their pixels that have their label are ignored.
        there: all regions that there are now, smaller ones on top of larger ones.
        changed: for each of these whether it gives its pixels its label, with confidence 1; others keep what they had, also on
            top of a larger one that was redrawn.
    """
    if sample.semantic is None:
        return sample
    given, confidence = sample.semantic.ids, sample.semantic.confidence
    ids, touched = given.copy(), np.zeros(sample.size, bool)
    for mask, label in zip(gone.masks, gone.label_ids.tolist(), strict=True):
        ids[mask & (given == label)] = IGNORE
    for n in np.argsort(-there.masks.areas, kind="stable").tolist():
        mask, label = there.masks[n], int(there.label_ids[n])
        pixels = mask if changed[n] else mask & (given == label)
        ids[pixels], touched[pixels] = label, changed[n]
    if confidence is not None:
        confidence = np.where(touched, np.float16(1), confidence)
    return replace(sample, semantic=SemanticMap(ids, confidence))


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


def judge(sample: Sample, name: str, value: float, minimum: float, reason: str) -> Sample:
    """The sample with a filter's score; a score below the minimum rejects it.

    Args:
        name: of the filter; the reason begins with it.
        reason: what a lower score means, in a few words.
    """
    sample = score(sample, name, value)
    return reject(sample, f"{name}: {reason}") if value < minimum else sample


def reject(sample: Sample, reason: str) -> Sample:
    """The sample with one more reason against it."""
    if reason in sample.quality.reasons:
        return sample
    return replace(sample, quality=Quality(sample.quality.scores, (*sample.quality.reasons, reason)))


def score(sample: Sample, name: str, value: float) -> Sample:
    """The sample with a filter's score."""
    return replace(sample, quality=Quality({**sample.quality.scores, name: value}, sample.quality.reasons))
