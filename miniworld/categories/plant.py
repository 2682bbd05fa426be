"""Potted plants: broad leaves, grass or a bush."""

from __future__ import annotations

import numpy as np

from ..colors import rgb
from ..mesh import Mesh, grid_faces, merge, vec
from ..shapes import loft, revolve
from .base import Category, Thing

KEYPOINTS = ("base", "rim", "top")
POTS = ("white", "brown", "orange", "grey", "blue", "black")
LEAF_COUNTS = {"broad": 22, "grassy": 60, "bush": 170}


def make(rng: np.random.Generator) -> Thing:
    """A plant in a pot; the pose names the pot."""
    uniform = rng.uniform
    pot_height, pot_radius = uniform(0.14, 0.3), uniform(0.1, 0.2)
    pot_name = str(rng.choice(POTS))
    meshes = [_pot(pot_height, pot_radius, rgb(pot_name) * 0.9)]
    green = vec(0.04, 0.17, 0.03) * uniform(0.6, 1.6) + vec(0.05, 0, 0.01) * uniform(0, 1)
    kind = str(rng.choice(tuple(LEAF_COUNTS)))
    height = uniform(0.25, 0.8)
    soil = vec(0, 0, pot_height * 0.88)
    for _ in range(LEAF_COUNTS[kind]):
        meshes += _shoot(kind, soil, height, green, rng)
    if kind == "bush":
        trunk = [(0, 0, pot_height * 0.8), (0.01, 0, pot_height + height * 0.5)]
        meshes.append(loft(trunk, [0.02, 0.012], (0.12, 0.07, 0.04), 8))
    keypoints = {"base": vec(0, 0, 0), "rim": vec(0, 0, pot_height), "top": vec(0, 0, pot_height + height)}
    return Thing(merge(meshes), keypoints, "green", f"{pot_name} pot")


def _pot(height: float, radius: float, color: np.ndarray) -> Mesh:
    profile = [
        (0, 0),
        (radius * 0.68, 0),
        (radius * 0.72, 0.02),
        (radius * 0.85, height * 0.5),
        (radius * 0.97, height * 0.85),
        (radius * 1.08, height * 0.86),
        (radius * 1.08, height),
        (radius * 0.95, height),
        (radius * 0.93, height * 0.88),
        (radius * 0.9, height * 0.88),
        (0, height * 0.9),
    ]
    pot = revolve(profile, color, 30, 0.5)
    x, y, z = pot.vertices.T
    pot.colors[(z > height * 0.87) & (np.hypot(x, y) < radius * 0.9)] = vec(0.03, 0.02, 0.012)
    return pot


def _shoot(kind: str, soil: np.ndarray, height: float, green: np.ndarray, rng: np.random.Generator) -> list[Mesh]:
    """One leaf, with its stalk where it has one; height: the plant's above the pot, metres."""
    uniform = rng.uniform
    azimuth, elevation = uniform(0, 6.28), uniform(0.25, 1.35)
    direction = vec(np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation))
    if kind == "broad":
        tip = soil + direction * height * uniform(0.25, 0.8)
        stalk = loft([soil, (soil + tip) / 2 + vec(0, 0, 0.04), tip], [0.006] * 3, green * 0.7, 5)
        return [stalk, _leaf(tip, direction + vec(0, 0, -0.3), uniform(0.18, 0.34), uniform(0.06, 0.1), green, rng)]
    if kind == "grassy":
        return [_leaf(soil, direction + vec(0, 0, 0.6), height * uniform(0.6, 1.2), 0.016, green, rng, 9)]
    crown = soil + vec(0, 0, height * 0.55)
    root = crown + direction * height * 0.5 * uniform(0.4, 1) ** 0.5 * vec(1, 1, 0.9)
    return [_leaf(root, direction + rng.normal(0, 0.4, 3), uniform(0.07, 0.12), uniform(0.02, 0.035), green, rng, 5)]


def _leaf(
    root: np.ndarray,
    direction: np.ndarray,
    length: float,
    half_width: float,
    green: np.ndarray,
    rng: np.random.Generator,
    rows: int = 7,
) -> Mesh:
    """A folded leaf that sags towards its tip; metres."""
    t = np.linspace(0, 1, rows)
    direction = direction / np.linalg.norm(direction)
    side = np.cross(direction, (0, 0, 1)) + 1e-4
    side /= np.linalg.norm(side)
    sag = vec(0, 0, -1) * (t**2 * length * rng.uniform(0.1, 0.6))[:, None]
    rib = root + direction * (t * length)[:, None] + sag
    width = (half_width * np.sin(np.pi * np.clip(t * 0.93 + 0.04, 0, 1)) ** 0.8)[:, None]
    fold = vec(0, 0, 0.25 * half_width)
    vertices = np.stack([rib - side * width + fold, rib, rib + side * width + fold], 1).reshape(-1, 3)
    return Mesh.create(vertices, grid_faces(rows, 3), green * rng.uniform(0.6, 1.3), 0.4)


CATEGORY = Category("plant", 16, ("green",), KEYPOINTS, make, noun="potted plant", color_in_caption=False)
