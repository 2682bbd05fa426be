"""Annotations as pictures: overlays with an alpha channel, and the colours that they use."""

from __future__ import annotations

import colorsys

import numpy as np
from jaxtyping import UInt8

from datasetdm.records import BACKGROUND, IGNORE, DepthMap, Instances, Labels, SemanticMap

Overlay = UInt8[np.ndarray, "h w 4"]

_STOPS = np.array([[252, 253, 191], [254, 159, 109], [222, 73, 104], [140, 41, 129], [59, 15, 112], [0, 0, 4]], float)
"""Near to far, light to dark."""

NEAREST = 1e-3
"""Added to depth before its logarithm is taken, in its unit."""


def css(colour: UInt8[np.ndarray, "3"]) -> str:
    """A colour as style sheets write it."""
    return "#" + bytes(colour.tolist()).hex()


def label_colours(labels: Labels) -> UInt8[np.ndarray, "l 3"]:
    """A colour a label, neighbours far apart (hues by the golden angle); the background is black."""
    rows = []
    for i, name in enumerate(labels.names):
        hue, light, pure = (i * 0.61803398875) % 1, (0.52, 0.68, 0.38)[i % 3], (0.85, 0.55)[i // 3 % 2]
        rgb = colorsys.hls_to_rgb(hue, light, pure)
        rows.append((0, 0, 0) if name == BACKGROUND else tuple(round(255 * c) for c in rgb))
    return np.array(rows, np.uint8)


def paint_semantic(record: SemanticMap, colours: UInt8[np.ndarray, "l 3"]) -> Overlay:
    """Every label in its colour; ignored pixels are clear."""
    known = record.ids != IGNORE
    rgb = colours[np.where(known, record.ids, 0)]
    return np.dstack([rgb, np.where(known, 255, 0).astype(np.uint8)])


def paint_confidence(record: SemanticMap | DepthMap) -> Overlay:
    """Clear where the map is sure or says nothing, red where it is unsure."""
    sure = np.ones(record.size) if record.confidence is None else record.confidence.astype(float)
    if isinstance(record, DepthMap):
        sure = np.where(record.valid, sure, 1)
    alpha = np.rint(255 * (1 - sure)).astype(np.uint8)
    return np.dstack([np.full(record.size, v, np.uint8) for v in (255, 0, 60)] + [alpha])


def depth_range(record: DepthMap) -> tuple[float, float]:
    """(near, far) that a depth picture's colours span: the 2nd and 98th percentile of valid depth."""
    values = record.depth[record.valid]
    if not values.size:
        return 0.0, 1.0
    near, far = (float(v) for v in np.percentile(values, (2, 98)))
    return near, max(far, near * 1.01 + 1e-6)


def paint_depth(record: DepthMap) -> Overlay:
    """Light is near, dark is far, on a logarithmic scale; clear where there is no depth."""
    near, far = (np.log(v + NEAREST) for v in depth_range(record))
    x = np.clip((np.log(record.depth + NEAREST) - near) / (far - near), 0, 1) * (len(_STOPS) - 1)
    rgb = np.stack([np.interp(x, range(len(_STOPS)), _STOPS[:, c]) for c in range(3)], -1)
    return np.dstack([np.rint(rgb).astype(np.uint8), np.where(record.valid, 255, 0).astype(np.uint8)])


def paint_instances(record: Instances) -> Overlay:
    """Every object in a colour of its own, its rim opaque."""
    out = np.zeros((*record.size, 4), np.uint8)
    for i, mask in enumerate(record.masks):
        colour = [round(255 * c) for c in colorsys.hls_to_rgb((i * 0.61803398875 + 0.1) % 1, 0.55, 0.9)]
        inner = mask.copy()
        inner[1:] &= mask[:-1]
        inner[:-1] &= mask[1:]
        inner[:, 1:] &= mask[:, :-1]
        inner[:, :-1] &= mask[:, 1:]
        out[mask] = [*colour, 120]
        out[mask & ~inner] = [*colour, 255]
    return out
