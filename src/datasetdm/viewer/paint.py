"""Annotations as images: overlays with an alpha channel, and the colours that they use."""

from __future__ import annotations

import colorsys
from dataclasses import replace

import numpy as np
from jaxtyping import UInt8

from datasetdm.records import BACKGROUND, IGNORE, DepthMap, Instances, Labels, SemanticMap

Overlay = UInt8[np.ndarray, "h w 4"]

DEPTH_COLOURS = np.array(
    [[252, 253, 191], [254, 159, 109], [222, 73, 104], [140, 41, 129], [59, 15, 112], [0, 0, 4]], float
)
"""Near to far, light to dark."""

NEAREST = 1e-3
"""Added to depth before its logarithm is taken, in its unit."""

GOLDEN_ANGLE = 0.61803398875
"""Step from one hue to the next, as a fraction of the circle: no two of many are close."""

CLOSE_ENOUGH = 1.5
"""Images up to this many times as large as asked for are not made smaller."""

INNER_ALPHA, EDGE_ALPHA = 120, 255
HATCH = 6
"""Crowds are hatched: diagonal stripes of this period, in pixels."""


def css(colour: UInt8[np.ndarray, "3"]) -> str:
    """A colour as style sheets write it."""
    return "#" + bytes(colour.tolist()).hex()


def label_colours(labels: Labels) -> UInt8[np.ndarray, "l 3"]:
    """One colour per label, neighbours far apart; the background is black."""
    rows = []
    for i, name in enumerate(labels.names):
        hue, light, saturation = (i * GOLDEN_ANGLE) % 1, (0.52, 0.68, 0.38)[i % 3], (0.85, 0.55)[i // 3 % 2]
        rgb = colorsys.hls_to_rgb(hue, light, saturation)
        rows.append((0, 0, 0) if name == BACKGROUND else tuple(round(255 * c) for c in rgb))
    return np.array(rows, np.uint8)


def reduced_semantic(record: SemanticMap, side: int) -> SemanticMap:
    """The map at most about `side` pixels wide and high (0: as it is), by the nearest pixel."""
    chosen = _nearest(record.size, side)
    confidence = None if record.confidence is None else record.confidence[chosen]
    return SemanticMap(record.ids[chosen], confidence)


def reduced_depth(record: DepthMap, side: int) -> DepthMap:
    """The map at most about `side` pixels wide and high (0: as it is), by the nearest pixel."""
    chosen = _nearest(record.size, side)
    confidence = None if record.confidence is None else record.confidence[chosen]
    return replace(record, depth=record.depth[chosen], valid=record.valid[chosen], confidence=confidence)


def reduced_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """`size` scaled so that its longer edge is `side`; as it is if it is hardly longer, or `side` is 0."""
    longest = max(size)
    if not side or longest <= CLOSE_ENOUGH * side:
        return size
    return max(1, round(size[0] * side / longest)), max(1, round(size[1] * side / longest))


def _nearest(size: tuple[int, int], side: int) -> tuple[np.ndarray, ...]:
    """An index that takes the nearest pixels of the reduced size."""
    wanted = reduced_size(size, side)
    return np.ix_(*((2 * np.arange(new) + 1) * old // (2 * new) for old, new in zip(size, wanted, strict=True)))


def paint_semantic(record: SemanticMap, colours: UInt8[np.ndarray, "l 3"]) -> Overlay:
    """Every label in its colour; ignored pixels are clear."""
    known = record.ids != IGNORE
    rgb = colours[np.where(known, record.ids, 0)]
    return np.dstack([rgb, np.where(known, 255, 0).astype(np.uint8)])


def paint_uncertainty(record: SemanticMap | DepthMap) -> Overlay:
    """Red where the map is unsure; clear where it is certain or has no value."""
    certain = np.ones(record.size, np.float32) if record.confidence is None else record.confidence.astype(np.float32)
    if isinstance(record, DepthMap):
        certain[~record.valid] = 1
    out = np.empty((*record.size, 4), np.uint8)
    out[..., :3] = 255, 0, 60
    out[..., 3] = np.rint(255 * (1 - certain))
    return out


def depth_range(record: DepthMap) -> tuple[float, float]:
    """(near, far) that a depth image's colours span: the 2nd and 98th percentile of valid depth."""
    values = record.depth[record.valid]
    if not values.size:
        return 0.0, 1.0
    near, far = (float(v) for v in np.percentile(values, (2, 98)))
    return near, max(far, near * 1.01 + 1e-6)


def paint_depth(record: DepthMap, span: tuple[float, float] | None = None) -> Overlay:
    """Light is near, dark is far, on a logarithmic scale over `span` (near, far); clear where there is no depth."""
    near, far = (np.log(v + NEAREST) for v in span or depth_range(record))
    x = np.clip((np.log(record.depth + NEAREST) - near) / (far - near), 0, 1) * (len(DEPTH_COLOURS) - 1)
    out = np.empty((*record.size, 4), np.uint8)
    for channel in range(3):
        out[..., channel] = np.rint(np.interp(x, range(len(DEPTH_COLOURS)), DEPTH_COLOURS[:, channel]))
    out[..., 3] = np.where(record.valid, 255, 0)
    return out


def paint_instances(record: Instances) -> Overlay:
    """Every object in a colour of its own, its edge opaque; crowds are hatched."""
    out = np.zeros((*record.size, 4), np.uint8)
    for i in range(len(record)):
        mask, (x, y) = record.masks.crop(i)
        colour = [round(255 * c) for c in colorsys.hls_to_rgb((i * GOLDEN_ANGLE + 0.1) % 1, 0.55, 0.9)]
        inner = np.zeros_like(mask)
        inner[1:-1, 1:-1] = mask[1:-1, 1:-1] & mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
        if record.crowd[i]:
            inner &= np.add.outer(np.arange(mask.shape[0]), np.arange(mask.shape[1])) % HATCH >= HATCH // 2
        part = out[y : y + mask.shape[0], x : x + mask.shape[1]]
        part[mask] = [*colour, EDGE_ALPHA]
        part[inner] = [*colour, INNER_ALPHA]
    return out
