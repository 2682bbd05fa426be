"""Colour patterns that several things share."""

from __future__ import annotations

import numpy as np

from .mesh import Mesh, Triple, vec
from .noise import smoothstep, value_noise

WOODS = ((0.3, 0.15, 0.06), (0.13, 0.06, 0.03), (0.45, 0.28, 0.14), (0.6, 0.58, 0.53), (0.06, 0.04, 0.03))
WOOD_NAMES = ("brown", "brown", "tan", "white", "black")

_PICTURE_PALETTE = (
    (0.55, 0.65, 0.75),
    (0.7, 0.6, 0.45),
    (0.15, 0.25, 0.12),
    (0.3, 0.2, 0.12),
    (0.08, 0.1, 0.15),
    (0.75, 0.72, 0.68),
    (0.5, 0.15, 0.1),
    (0.12, 0.2, 0.35),
)


def wooden(mesh: Mesh, color: Triple, axis: int = 0) -> Mesh:
    """Paints a mesh, in place, with wood whose grain runs along an axis (0 x, 1 y, 2 z)."""
    points = mesh.vertices * vec(*[0.12 if i == axis else 1 for i in range(3)])
    grain = value_noise(points, 9, 4)
    rings = 0.5 + 0.5 * np.sin(grain * 38)
    shade = 0.55 + 0.9 * (0.5 * grain + 0.5 * rings)
    mesh.colors = (vec(*color) * shade[:, None]).astype(np.float32)
    return mesh


def picture(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A muted composition with a horizon and blobs, for paintings and screens.

    points (n, 3) of the picture's plane, z up; the colours are (n, 3) linear RGB.
    """
    uniform = rng.uniform
    palette = np.array(_PICTURE_PALETTE)[rng.permutation(8)[:4]] * uniform(0.6, 1.1)
    height = (points[:, 2] - points[:, 2].min()) / np.ptp(points[:, 2])
    scaled = points * uniform(1, 3) / np.ptp(points[:, 2]) + uniform(0, 9)
    clouds = smoothstep(value_noise(scaled, 2, 4), 0.4, 0.6)[:, None]
    colors = palette[0] + (palette[1] - palette[0]) * clouds
    above = smoothstep(height + 0.35 * (value_noise(scaled, 3, 3, 1) - 0.5), 0.48, 0.5)[:, None]
    land = palette[2] * (0.5 + value_noise(scaled, 6, 3, 2))[:, None]
    colors = colors * above + land * (1 - above)
    blobs = smoothstep(value_noise(scaled, 2.2, 2, 3), 0.6, 0.64)[:, None]
    return colors * (1 - blobs) + palette[3] * blobs
