"""Outlined objects as records: the part that formats of polygons and run lengths share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from datasetdm.records import BACKGROUND, IGNORE, Annotations, Instances, Labels, SemanticMap

Region = tuple[Bool[np.ndarray, "h w"], int]
"""A mask and its label id; `IGNORE` for pixels (crowds) that nobody knows."""


def from_regions(
    regions: Sequence[Region], labels: Labels, size: tuple[int, int], elsewhere: int | None = None
) -> Annotations:
    """A semantic map, painted from the largest region to the smallest so that what lies on top stays visible, and the
    objects. Where no region lies, the label is `background`, or `elsewhere`."""
    ids = np.full(size, labels.index[BACKGROUND] if elsewhere is None else elsewhere, np.uint16)
    for mask, label in sorted(regions, key=lambda r: -int(r[0].sum())):
        ids[mask] = label
    objects = [(m, i) for m, i in regions if i != IGNORE and m.any()]
    return Annotations(SemanticMap(ids), instances([m for m, _ in objects], [i for _, i in objects], size))


Number = float | int
Edges = tuple[Number, Number, Number, Number]
"""Left, top, right and bottom of a box, in pixels from the image's top left corner."""


def instances(
    masks: Sequence[np.ndarray],
    label_ids: Sequence[int],
    size: tuple[int, int],
    boxed: bool = False,
    boxes: Sequence[Edges] | None = None,
) -> Instances:
    """Any number of objects as a record.

    Args:
        masks: bool[h w] each.
        size: (height, width) of the image.
        boxed: the source knows boxes only.
        boxes: the boxes of the source, with its fractions of a pixel; clipped to the image. The masks' unless given.
    """
    stacked = np.stack(masks) if len(masks) else np.zeros((0, *size), bool)
    clipped = None
    if boxes is not None:
        h, w = size
        edges = np.clip(np.array(boxes, np.float64).reshape(-1, 4), 0, (w, h, w, h))  # [n 4]
        clipped = np.concatenate([edges[:, :2], edges[:, 2:] - edges[:, :2]], axis=1).round(9)  # (x + w) - x is w again
    return Instances.from_masks(stacked, np.array(label_ids, np.int64), boxes=clipped, boxed=boxed)


def box_mask(
    left: Number, top: Number, right: Number, bottom: Number, size: tuple[int, int]
) -> Bool[np.ndarray, "h w"]:
    """The pixels of a box given by its edges in pixels."""
    mask = np.zeros(size, bool)
    mask[max(round(top), 0) : max(round(bottom), 0), max(round(left), 0) : max(round(right), 0)] = True
    return mask


def labels_in(annotations: Annotations, labels: Labels) -> set[str]:
    """The labels that have a pixel or an object."""
    return {labels.names[i] for i in annotations.labels_in()}


def with_background(names: Sequence[str]) -> tuple[str, ...]:
    """A vocabulary whose first label is `background`, unless it has one."""
    return tuple(names) if BACKGROUND in names else (BACKGROUND, *names)
