"""Solids cut out of three outlines (side, top, front), as a car body is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from skimage.measure import marching_cubes

from .mesh import vec

Outline = Sequence[tuple[float, float]]


def polygon_distance(x: np.ndarray, y: np.ndarray, polygon: ArrayLike) -> np.ndarray:
    """Signed distance to a closed polygon (n, 2), negative inside; shaped like x and y."""
    polygon = np.asarray(polygon, np.float32)
    squared = np.full(x.shape, 1e9, np.float32)
    inside = np.zeros(x.shape, bool)
    for i in range(len(polygon)):
        (x0, y0), (x1, y1) = polygon[i], polygon[(i + 1) % len(polygon)]
        edge_x, edge_y = x1 - x0, y1 - y0
        t = np.clip(((x - x0) * edge_x + (y - y0) * edge_y) / (edge_x * edge_x + edge_y * edge_y + 1e-9), 0, 1)
        squared = np.minimum(squared, (x - x0 - t * edge_x) ** 2 + (y - y0 - t * edge_y) ** 2)
        crosses = (y0 > y) != (y1 > y)
        inside ^= crosses & (x < (x1 - x0) * (y - y0) / (y1 - y0 + 1e-9) + x0)
    return np.where(inside, -1, 1) * np.sqrt(squared)


def smooth_max(a: np.ndarray, b: np.ndarray, blend: float) -> np.ndarray:
    """Intersection of two distance fields with an edge rounded over `blend` metres."""
    t = np.clip(0.5 + 0.5 * (a - b) / blend, 0, 1)
    return b + (a - b) * t + blend * t * (1 - t)


def solid_from_outlines(
    side: Outline,
    top: Outline,
    front: Outline,
    resolution: int,
    blend: float,
    rounding: float,
    carved: Sequence[tuple[float, float, float]] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (n, 3) and faces (m, 3) of the solid inside all three outlines.

    side is in (x, z), top in (x, y), front in (y, z); resolution: cells along the longest side; carved:
    (x, z, radius) of cylinders along y to take away, the wheel arches. All lengths in metres.
    """
    xz, xy, yz = (np.asarray(outline, np.float32) for outline in (side, top, front))
    low = vec(xz[:, 0].min(), xy[:, 1].min(), xz[:, 1].min()) - 0.15
    high = vec(xz[:, 0].max(), xy[:, 1].max(), xz[:, 1].max()) + 0.15
    cell = float((high - low).max()) / resolution
    x, y, z = (np.arange(low[i], high[i], cell, dtype=np.float32) for i in range(3))

    def extruded(first: np.ndarray, second: np.ndarray, outline: np.ndarray) -> np.ndarray:
        return polygon_distance(*np.meshgrid(first, second, indexing="ij"), outline) + rounding

    from_side, from_top, from_front = extruded(x, z, xz), extruded(x, y, xy), extruded(y, z, yz)
    distance = smooth_max(from_side[:, None, :], from_top[:, :, None], blend)
    distance = smooth_max(distance, from_front[None], blend) - rounding
    for center_x, center_z, radius in carved:
        cylinder = radius - np.hypot(x[:, None] - center_x, z[None] - center_z)
        distance = smooth_max(distance, cylinder[:, None, :] + 0 * distance, 0.03)
    vertices, faces, _, _ = marching_cubes(distance.astype(np.float32), 0.0)
    return (vertices * cell + low).astype(np.float32), faces[:, ::-1]
