"""Conifers and broad-leaved trees."""

from __future__ import annotations

import numpy as np

from ..mesh import Mesh, merge, triangle_soup_faces, vec
from ..noise import smoothstep
from ..shapes import loft

LEAVES = 2600


def make_tree(rng: np.random.Generator, snow: float) -> Mesh:
    """A tree of 4 to 10 m; snow: 0 none .. 1 thick."""
    uniform = rng.uniform
    height = uniform(4, 10)
    is_conifer = uniform(0, 1) < (0.9 if snow else 0.3)
    trunk = _trunk(height, rng)
    share = rng.random(LEAVES)
    positions = _conifer_crown(height, share, rng) if is_conifer else _round_crown(height, rng)
    first, second = rng.normal(0, 1, (2, LEAVES, 3))
    size = height * 0.022
    vertices = np.stack(
        [positions - second * size, positions + second * size * 0.6, positions + first * size], 1
    ).reshape(-1, 3)
    color = _leaf_color(is_conifer, rng)
    normals = positions - vec(0, 0, height * 0.55) + rng.normal(0, 0.15 * height, (LEAVES, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    colors = color * (0.5 + rng.random((LEAVES, 1)) * 0.9)
    white = snow * smoothstep(normals[:, 2:] + rng.normal(0, 0.3, (LEAVES, 1)), 0.0, 0.5)
    colors = colors * (1 - white) + 0.75 * white
    leaves = Mesh.create(
        vertices,
        triangle_soup_faces(LEAVES),
        np.repeat(colors, 3, 0),
        0.7,
        normals=np.repeat(normals, 3, 0).astype(np.float32),
    )
    return merge([trunk, leaves])


def _trunk(height: float, rng: np.random.Generator) -> Mesh:
    path = [(rng.normal(0, 0.12) * q, rng.normal(0, 0.12) * q, q * height * 0.75) for q in np.linspace(0, 1, 7)]
    return loft(path, np.linspace(0.035, 0.008, 7) * height, (0.09, 0.06, 0.04), 10, 0.9)


def _conifer_crown(height: float, share: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Positions of the needles (n, 3): a cone in layers; share: of the height, (n,)."""
    count = len(share)
    positions = np.stack([rng.normal(0, 1, count), rng.normal(0, 1, count), 0 * share], 1)
    positions /= np.linalg.norm(positions, axis=1, keepdims=True)
    layer = (share * 9) % 1
    radius = 0.24 * height * (1 - share) * (0.65 + 0.35 * layer)
    positions *= (radius * rng.random(count) ** 0.3)[:, None]
    positions[:, 2] = height * (0.12 + 0.88 * share) - 0.04 * height * layer
    return positions


def _round_crown(height: float, rng: np.random.Generator) -> np.ndarray:
    """Positions of the leaves (n, 3): nine balls."""
    centers = rng.normal(0, 1, (9, 3)) * vec(0.15, 0.15, 0.12) * height + vec(0, 0, 0.68 * height)
    outward = rng.normal(0, 1, (LEAVES, 3))
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    chosen = centers[rng.integers(0, 9, LEAVES)]
    return chosen + outward * (rng.uniform(0.11, 0.16) * height * rng.random(LEAVES) ** 0.25)[:, None]


def _leaf_color(is_conifer: bool, rng: np.random.Generator) -> np.ndarray:
    uniform = rng.uniform
    if is_conifer:
        return vec(0.03, 0.075, 0.025)
    green = vec(0.06, 0.13, 0.025) * uniform(0.7, 1.4)
    return green + vec(uniform(0, 0.15), 0, 0) * (uniform(0, 1) < 0.2)  # one in five is autumnal
