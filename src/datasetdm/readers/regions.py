"""Outlined objects as records: the part that formats of polygons and run lengths share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool

from datasetdm.types import BACKGROUND, IGNORE, Annotation, Instances, Labels, SemanticMap

Region = tuple[Bool[np.ndarray, "h w"], int]
"""A mask and its label id; `IGNORE` for pixels (crowds) that nobody knows."""


def from_regions(
    regions: Sequence[Region], labels: Labels, size: tuple[int, int], elsewhere: int | None = None
) -> dict[str, Annotation]:
    """A semantic map, painted from the largest region to the smallest so that what lies on top stays visible, and the
    objects. Where no region lies, the label is `background`, or `elsewhere`."""
    ids = np.full(size, labels.names.index(BACKGROUND) if elsewhere is None else elsewhere, np.uint16)
    for mask, label in sorted(regions, key=lambda r: -int(r[0].sum())):
        ids[mask] = label
    objects = [(m, i) for m, i in regions if i != IGNORE and m.any()]
    return {"semantic": SemanticMap(ids), "instance": instances([m for m, _ in objects], [i for _, i in objects], size)}


def instances(
    masks: Sequence[np.ndarray], label_ids: Sequence[int], size: tuple[int, int], boxed: bool = False
) -> Instances:
    """Any number of masks bool[h w] as a record."""
    stacked = np.stack(masks) if len(masks) else np.zeros((0, *size), bool)
    return Instances(stacked, np.array(label_ids, np.int64), boxed=boxed)


Number = float | int


def box_mask(
    left: Number, top: Number, right: Number, bottom: Number, size: tuple[int, int]
) -> Bool[np.ndarray, "h w"]:
    """The pixels of a box given by its edges in pixels."""
    mask = np.zeros(size, bool)
    mask[max(round(top), 0) : max(round(bottom), 0), max(round(left), 0) : max(round(right), 0)] = True
    return mask


def labels_in(records: Mapping[str, Annotation], labels: Labels) -> set[str]:
    """The labels that have a pixel or an object."""
    semantic, objects = records.get("semantic"), records.get("instance")
    ids: set[int] = set()
    if isinstance(semantic, SemanticMap):
        ids |= set(np.flatnonzero(np.bincount(semantic.ids.ravel(), minlength=IGNORE + 1)[:IGNORE]).tolist())
    if isinstance(objects, Instances):
        ids |= set(objects.label_ids.tolist())
    return {labels.names[i] for i in ids}


def with_background(names: Sequence[str]) -> tuple[str, ...]:
    """A vocabulary whose first label is `background`, unless it has one."""
    return tuple(names) if BACKGROUND in names else (BACKGROUND, *names)
