"""Indoor walls and what is on them and before them: pictures, rugs, a studio's paper sweep."""

from __future__ import annotations

import numpy as np

from ..colors import random_rgb
from ..mesh import Mesh, grid_faces, vec
from ..noise import value_noise
from ..stage import Stage
from ..textures import picture

PAPERS = ("plain", "plain", "stripes", "brick", "panel")
FRAMES = ("black", "brown", "white")
HALF_WIDTH = 3.5
HEIGHT = 2.8
"""Of a wall, metres."""


def add_paper_sweep(stage: Stage, wall_distance: float, color: np.ndarray) -> None:
    """A studio's background: paper that curves up from the floor; wall_distance: along the heading, metres."""
    size, t = stage.size, np.linspace(0, 1, 40)
    radius = size * 0.6
    curve = np.c_[
        wall_distance - radius + radius * np.sin(t * 1.571),
        radius - radius * np.cos(t * 1.571),
    ]
    profile = np.concatenate([curve, [[wall_distance, 60 * size]]])
    across = np.linspace(-40, 40, 9) * size
    vertices = np.concatenate(
        [
            np.c_[np.tile(stage.forward * away, (9, 1)) + across[:, None] * stage.left, np.full(9, up + 0.002)]
            for away, up in profile
        ]
    )
    stage.add_stuff(Mesh.create(vertices, grid_faces(41, 9), color, 0.6), "wall")


def add_walls(stage: Stage, color: np.ndarray, wall_distance: float, room_half_width: float, floor_z: float) -> None:
    """The wall behind the things and, in rooms, sometimes one at a side. Metres."""
    rng, uniform = stage.rng, stage.rng.uniform
    paper = str(rng.choice(PAPERS))
    columns, rows = (380, 200) if paper == "brick" else (200, 90)
    for side in (0, 1, -1):
        if side:
            absent = side * (uniform(0, 1) - 0.45) > 0
            if absent or stage.place.name == "tabletop":
                continue
        along, up = np.meshgrid(np.linspace(-1, 1, columns) * HALF_WIDTH, np.linspace(0, HEIGHT, rows), indexing="ij")
        along, up = along.reshape(-1), up.reshape(-1)
        colors, relief = _wall_surface(paper, along, up, color)
        if side == 0:
            ground = stage.forward * (wall_distance - relief[:, None]) + along[:, None] * stage.left
        else:
            ground = stage.forward * (wall_distance - HALF_WIDTH + along[:, None])
            ground = ground + stage.left * side * (room_half_width + 1.2)
        stage.add_stuff(Mesh.create(np.c_[ground, up + floor_z], grid_faces(columns, rows), colors, 0.85), "wall")


def _wall_surface(paper: str, along: np.ndarray, up: np.ndarray, color: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours (n, 3) and relief (n,) in metres at points `along` and `up` (n,) of a wall, with a skirting board."""
    noise = value_noise(np.stack([along, up, 0 * along], -1), 2, 4)
    colors = color * (0.9 + 0.12 * noise)[:, None]
    relief = 0 * noise
    if paper == "stripes":
        colors[(along % 0.3) < 0.15] *= 0.75
    if paper == "brick":
        course = np.floor(up / 0.085)
        shifted = along + course * 0.12
        mortar = ((up % 0.085) < 0.014) | ((shifted % 0.24) < 0.018)
        tone = np.sin(course * 12.9 + np.floor(shifted / 0.24) * 78.2) * 43758 % 1
        colors = vec(0.36, 0.13, 0.08) * (0.6 + 0.7 * tone + 0.4 * (noise - 0.5))[:, None]
        colors[mortar] = vec(0.3, 0.28, 0.26)
        relief = 0.008 * ~mortar
    if paper == "panel":
        colors[(up > 1) & (up < 1.04)] *= 0.6
        colors[(up < 1) & ((along % 0.7) < 0.03)] *= 0.65
    colors[up < 0.1] = vec(0.75, 0.74, 0.7)
    return colors, relief


def add_pictures(stage: Stage, wall_distance: float, floor_z: float) -> None:
    """Up to three framed pictures on the back wall; metres."""
    rng, uniform = stage.rng, stage.rng.uniform
    for _ in range(rng.integers(0, 4)):
        half_width, half_height = uniform(0.15, 0.5), uniform(0.15, 0.45)
        center, center_z = uniform(-2, 2), uniform(1.3, 1.8) + floor_z
        along, up = np.meshgrid(
            np.linspace(-half_width, half_width, 24), np.linspace(-half_height, half_height, 24), indexing="ij"
        )
        along, up = along.reshape(-1), up.reshape(-1)
        colors = picture(np.stack([0 * along, along, up], -1), rng)
        frame = (abs(along) > half_width * 0.88) | (abs(up) > half_height * 0.88)
        colors[frame] = random_rgb(rng, FRAMES)
        ground = stage.forward * (wall_distance - 0.03) + (along[:, None] + center) * stage.left
        stage.add_stuff(Mesh.create(np.c_[ground, up + center_z], grid_faces(24, 24), colors, 0.3), "other")


def add_rug(stage: Stage) -> None:
    """A patterned rug under the main object."""
    rng, uniform, side = stage.rng, stage.rng.uniform, 110
    half_depth, half_width = uniform(0.8, 1.4), uniform(0.8, 1.6)
    away, across = np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side), indexing="ij")
    first_color, second_color = random_rgb(rng) * 0.6, random_rgb(rng) * 0.6
    rings = np.maximum(abs(away), abs(across)) * uniform(3, 7)
    wobble = 0.3 * np.sin(away * uniform(4, 12)) * np.sin(across * uniform(4, 12))
    pattern = ((rings + wobble) % 1 < 0.5).reshape(-1, 1)
    colors = np.where(pattern, first_color, second_color) * (0.6 + 0.6 * rng.random((side**2, 1)))
    ground = away.reshape(-1, 1) * half_depth * stage.forward + across.reshape(-1, 1) * half_width * stage.left
    ground = ground + stage.main.position[:2]
    heights = 0.008 + 0.006 * rng.random(side**2)
    stage.add_stuff(Mesh.create(np.c_[ground, heights], grid_faces(side, side), colors, 0.95), "floor")
