"""Flat televisions on a foot, on or off."""

from __future__ import annotations

import numpy as np

from ..mesh import Mesh, grid_faces, merge, vec
from ..shapes import rounded_box
from ..textures import picture
from .base import Category, Thing

KEYPOINTS = ("tl", "tr", "bl", "br")


def make(rng: np.random.Generator) -> Thing:
    """A television, looking along +x."""
    uniform = rng.uniform
    half_width = uniform(0.35, 0.62)
    half_height = half_width * uniform(0.55, 0.62)
    stand = uniform(0.08, 0.2)
    center_z = stand + half_height
    dark = (0.03, 0.03, 0.03)
    meshes = [
        rounded_box((0, 0, center_z), (0.025, half_width, half_height), 0.012, (0.015, 0.015, 0.016), 0.3),
        rounded_box((0, 0, 0.015), (0.12, half_width * 0.4, 0.012), 0.01, dark, 0.4, subdivisions=6),
        rounded_box((-0.02, 0, stand * 0.5 + 0.05), (0.02, 0.05, stand * 0.6), 0.01, dark, 0.4, subdivisions=4),
    ]
    is_on = uniform(0, 1) < 0.75
    meshes.append(_screen(half_width, half_height, center_z, is_on, rng))
    keypoints = {
        "tl": vec(0, half_width, center_z + half_height),
        "tr": vec(0, -half_width, center_z + half_height),
        "bl": vec(0, half_width, stand),
        "br": vec(0, -half_width, stand),
    }
    return Thing(merge(meshes), keypoints, "black", "on" if is_on else "off")


def _screen(half_width: float, half_height: float, center_z: float, is_on: bool, rng: np.random.Generator) -> Mesh:
    steps = np.linspace(-1, 1, 56)
    across, up = np.meshgrid(steps, steps, indexing="ij")
    points = np.stack([0 * across + 0.027, across * half_width * 0.955, center_z + up * half_height * 0.93], -1)
    points = points.reshape(-1, 3)
    content = picture(points, rng) * 1.3  # sampled even when the set is off
    color, roughness = (content, 0.9) if is_on else ((0.008, 0.008, 0.01), 0.05)
    return Mesh.create(points, grid_faces(56, 56), color, roughness)


CATEGORY = Category("tv", 20, ("black",), KEYPOINTS, make, faces_camera=True, noun="television")
