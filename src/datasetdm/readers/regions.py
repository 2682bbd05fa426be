"""Outlined objects as records: the part that formats of polygons and run lengths share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from datasetdm.types import BACKGROUND, IGNORE, Annotation, Instances, Labels, SemanticMap

Region = tuple[Bool[np.ndarray, "h w"], int]
"""A mask and its label id; `IGNORE` for pixels (crowds) that nobody knows."""


def from_regions(regions: Sequence[Region], labels: Labels, size: tuple[int, int]) -> dict[str, Annotation]:
    """A semantic map, painted from the largest region to the smallest so that what lies on top stays visible, and the
    objects. Where no region lies, the label is `background`."""
    ids = np.full(size, labels.names.index(BACKGROUND), np.uint16)
    for mask, label in sorted(regions, key=lambda r: -int(r[0].sum())):
        ids[mask] = label
    objects = [(m, i) for m, i in regions if i != IGNORE and m.any()]
    masks = np.stack([m for m, _ in objects]) if objects else np.zeros((0, *size), bool)
    return {"semantic": SemanticMap(ids), "instance": Instances(masks, np.array([i for _, i in objects], np.int64))}


def with_background(names: Sequence[str]) -> tuple[str, ...]:
    """A vocabulary whose first label is `background`, unless it has one."""
    return tuple(names) if BACKGROUND in names else (BACKGROUND, *names)
