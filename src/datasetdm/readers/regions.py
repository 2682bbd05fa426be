"""Outlined objects as records: the part that formats of polygons, run lengths and label maps share.

Masks are run lengths from the start, so that memory does not grow with objects times pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Integer, UInt16

from datasetdm.records import BACKGROUND, IGNORE, Annotations, Instances, Labels, MaskStack, SemanticMap
from datasetdm.records.objects import Runs, spans


class Region(NamedTuple):
    """One outlined object: its run lengths, its label id (`IGNORE`: nothing is known of its pixels), and whether it is a crowd.

    A crowd stands for an uncounted group: its pixels are ignored in the semantic map, and it is a row of `Instances.crowd`.
    """

    runs: Runs
    label_id: int
    crowd: bool = False


def from_regions(
    regions: Sequence[Region], labels: Labels, size: tuple[int, int], elsewhere: int | None = None
) -> Annotations:
    """A semantic map, painted from the largest region to the smallest so that what lies on top stays visible, and the
    objects. Where no region lies, the label is `background`, or `elsewhere`."""
    masks = MaskStack([r.runs for r in regions], size)
    areas = masks.areas
    order = np.argsort(-areas, kind="stable").tolist()
    painted = (regions[i]._replace(runs=masks.runs[i]) for i in order)
    ids = paint(painted, size, labels.index[BACKGROUND] if elsewhere is None else elsewhere)
    kept = [r for r, area in zip(regions, areas.tolist(), strict=True) if r.label_id != IGNORE and area]
    return Annotations(SemanticMap(ids), instances(kept, size))


def paint(regions: Iterable[Region], size: tuple[int, int], elsewhere: int) -> UInt16[np.ndarray, "h w"]:
    """A map of label ids: each region over those before it, `elsewhere` where none lies."""
    h, w = size
    flat = np.full(h * w, elsewhere, np.uint16)  # column by column, as run lengths are
    for runs, label_id, crowd in regions:
        ends = np.cumsum(runs)
        for start, end in zip(ends[:-1:2].tolist(), ends[1::2].tolist(), strict=False):
            flat[start:end] = IGNORE if crowd else label_id
    return flat.reshape(w, h).T


Number = float | int
Edges = tuple[Number, Number, Number, Number]
"""Left, top, right and bottom of a box, in pixels from the image's top left corner."""


def instances(
    objects: Sequence[Region], size: tuple[int, int], boxed: bool = False, boxes: Sequence[Edges] | None = None
) -> Instances:
    """Any number of objects as a record.

    Args:
        objects: none of them of the label `IGNORE`.
        size: (height, width) of the image.
        boxed: the source knows boxes only.
        boxes: the boxes of the source, with its fractions of a pixel; clipped to the image. The masks' unless given.
    """
    label_ids, crowd = np.array([r.label_id for r in objects], np.int64), np.array([r.crowd for r in objects], bool)
    found = Instances(MaskStack([r.runs for r in objects], size), label_ids, crowd=crowd, boxed=boxed)
    if boxes is None:
        return found
    h, w = size
    edges = np.clip(np.array(boxes, np.float64).reshape(-1, 4), 0, (w, h, w, h))  # [n 4]
    clipped = np.concatenate([edges[:, :2], edges[:, 2:] - edges[:, :2]], axis=1).round(9)  # (x + w) - x is w again
    return replace(found, boxes=clipped)


def box_runs(left: Number, top: Number, right: Number, bottom: Number, size: tuple[int, int]) -> Runs:
    """Run lengths of a box given by its edges in pixels, at least one pixel; of none where it has no area or lies outside."""
    h, w = size
    (x0, x1), (y0, y1) = _pixels(left, right, w), _pixels(top, bottom, h)
    if x1 <= x0 or y1 <= y0:
        return np.array([h * w])
    starts = np.arange(x0, x1) * h + y0
    edges = np.stack([starts, starts + (y1 - y0)], axis=1).reshape(-1)
    return np.diff(edges, prepend=0, append=h * w)


def _pixels(low: Number, high: Number, side: int) -> tuple[int, int]:
    """The whole pixels between two edges along one side of the image; the one in the middle where that would be none."""
    first, end = (min(max(round(v), 0), side) for v in (low, high))
    if end > first or low >= high or high <= 0 or low >= side:
        return first, end
    middle = min(max(int((low + high) / 2), 0), side - 1)
    return middle, middle + 1


def clip_points(points: Float32[np.ndarray, "n k 3"], size: tuple[int, int]) -> Float32[np.ndarray, "n k 3"]:
    """Points (x, y, visibility) of which those more than a pixel outside the image are absent, and the others inside it."""
    h, w = size
    limit = np.array([w, h], np.float32)
    outside = ((points[..., :2] < -1) | (points[..., :2] > limit + 1)).any(-1)
    clipped = np.concatenate([np.clip(points[..., :2], 0, limit), points[..., 2:]], -1)
    return np.where((outside | (points[..., 2] == 0))[..., None], 0, clipped)


def value_runs(numbers: Integer[np.ndarray, "h w"]) -> dict[int, Runs]:
    """Run lengths of the pixels of every value of a map, in one pass over it."""
    flat = np.ascontiguousarray(numbers.T).reshape(-1)
    starts, lengths = spans(flat)
    order = np.argsort(flat[starts], kind="stable")
    found, first = np.unique(flat[starts][order], return_index=True)
    runs = {}
    for value, own in zip(found.tolist(), np.split(order, first[1:]), strict=True):
        edges = np.stack([starts[own], starts[own] + lengths[own]], axis=1).reshape(-1)
        runs[value] = np.diff(edges, prepend=0, append=flat.size)
    return runs


def covers(runs: Runs) -> bool:
    """Whether run lengths hold a pixel."""
    return bool(runs[1::2].any())


def labels_in(annotations: Annotations, labels: Labels) -> set[str]:
    """The labels that have a pixel or an object."""
    return {labels.names[i] for i in annotations.labels_in()}


def label_name(name: str) -> str:
    """A class name as a label: one that is called Background, in any case, is the background."""
    return BACKGROUND if name.strip().lower() == BACKGROUND else name


def with_background(names: Sequence[str]) -> tuple[str, ...]:
    """A vocabulary whose first label is `background`, unless it has one."""
    return tuple(names) if BACKGROUND in names else (BACKGROUND, *names)
