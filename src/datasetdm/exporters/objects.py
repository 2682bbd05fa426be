"""What formats of objects take from a sample."""

from __future__ import annotations

import numpy as np

from datasetdm.types import BACKGROUND, IGNORE, Instances, Sample, SemanticMap


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
