"""Samples made for the tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from datasetdm.records import (
    ANNOTATIONS,
    Annotations,
    DepthMap,
    Instances,
    Keypoints,
    Labels,
    Prompt,
    Provenance,
    Sample,
    SemanticMap,
)

LABELS = Labels(("sky", "dog", "grass"), ((), ("puppy",), ()))


def make_sample(key: str = "a", size: tuple[int, int] = (24, 32), seed: int = 0, labels: Labels = LABELS) -> Sample:
    """A picture of sky over grass with a dog, and everything known about it."""
    rng = np.random.default_rng(seed)
    h, w = size
    ids = np.zeros(size, np.uint16)
    ids[h // 2 :] = 2
    top, left = rng.integers(1, h // 2), rng.integers(1, w // 2)
    dog = np.zeros(size, bool)
    dog[top : top + h // 3, left : left + w // 3] = True
    ids[dog] = 1
    colours = np.array([[120, 170, 250], [120, 80, 40], [60, 150, 60]])
    image = np.clip(colours[ids] + rng.normal(0, 8, (h, w, 3)), 0, 255).astype(np.uint8)
    depth = np.where(ids == 0, 0, 2 + 8 * (h - np.arange(h)[:, None]) / h).astype(np.float32)
    bones = labels.skeletons.get(labels.names[1])
    points = bones.points[:2] if bones else ("nose", "tail")
    return Sample(
        key,
        image,
        labels,
        Prompt("a photo of a dog", ("dog",), 7),
        semantic=SemanticMap(ids, rng.random(size)),
        depth=DepthMap(depth, ids != 0, confidence=rng.random(size)).quantised(),
        instances=Instances.from_masks(dog[None], np.array([1]), np.array([0.75])),
        keypoints=Keypoints(np.array([[[left, top], [0, 0]]]), np.array([[2, 0]]), (points,)),
        provenance=Provenance(details={"source": "test"}),
    )


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """A mask as COCO's compressed run lengths, by its own tools: {"size": [h, w], "counts": str}."""
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(s) for s in rle["size"]], "counts": rle["counts"].decode("ascii")}


def known(found: Sample | Annotations) -> list[str]:
    """The names of the annotations that are there."""
    return [name for name in ANNOTATIONS if getattr(found, name) is not None]
