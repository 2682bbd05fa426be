"""What stands behind the things outdoors: hills, buildings, trees."""

from __future__ import annotations

import numpy as np

from ..mesh import Mesh, grid_faces, rotation_about, vec
from ..noise import value_noise
from ..stage import Stage
from .pavement import Road
from .tree import make_tree

HILL_COLORS = {"snow": (0.6, 0.62, 0.68), "desert": (0.35, 0.2, 0.11)}
GREEN_HILLS = ((0.04, 0.075, 0.03), (0.07, 0.09, 0.04), (0.13, 0.11, 0.08))
FACADE_COLORS = (
    (0.35, 0.15, 0.09),
    (0.5, 0.42, 0.3),
    (0.6, 0.58, 0.54),
    (0.25, 0.24, 0.23),
    (0.45, 0.3, 0.2),
    (0.5, 0.5, 0.45),
)
FACADE_CELL = 0.22
"""Metres between a facade's vertices."""


def add_hills(stage: Stage, clear: float) -> None:
    """A range of hills all along the horizon; clear: metres from the camera to behind the things."""
    rng, uniform, eye = stage.rng, stage.rng.uniform, stage.camera.eye
    distance = max(clear * 3, uniform(60, 300))
    azimuth = stage.heading + np.linspace(-1.1, 1.1, 160)
    crest = distance * uniform(0.03, 0.16)
    skyline = np.c_[azimuth * uniform(2, 6) + uniform(0, 9), 0 * azimuth, 0 * azimuth]
    height = crest * np.clip(value_noise(skyline, 1, 5) * 2.4 - 0.6, 0.03, 2)
    up = np.linspace(0, 1, 24)[None]
    away = distance * (1 + 0.5 * up)
    vertices = np.stack(
        [
            eye[0] + away * np.cos(azimuth)[:, None],
            eye[1] + away * np.sin(azimuth)[:, None],
            height[:, None] * up**0.8 * 1.3 - 0.2,
        ],
        -1,
    ).reshape(-1, 3)
    vertices[:, 2] += height.max() * 0.12 * (value_noise(vertices, 14 / distance, 4) - 0.5)
    green = GREEN_HILLS[rng.integers(3)]
    color = vec(*HILL_COLORS.get(stage.place.name, green))
    colors = color * (0.45 + 1.1 * value_noise(vertices, 40 / distance, 4, 1))[:, None]
    stage.add_stuff(Mesh.create(vertices, grid_faces(160, 24), colors, 0.95), "hill")


def add_buildings(stage: Stage, road: Road) -> None:
    """A row of buildings on either side of the road, sometimes on one only."""
    uniform = stage.rng.uniform
    for side in (1, -1):
        if uniform(0, 1) < 0.2:
            continue
        start = -40.0
        while start < 60:
            width = _add_building(stage, road, side, start)
            start += width + (uniform(1, 7) if uniform(0, 1) < 0.35 else 0.02)


def _add_building(stage: Stage, road: Road, side: int, start: float) -> float:
    """Adds a building from `start` metres along the road on; returns its width, metres."""
    uniform, main, eye = stage.rng.uniform, stage.main, stage.camera.eye
    width, height, setback = uniform(7, 18), uniform(5, 18), uniform(0, 2)
    columns, rows = int(width / FACADE_CELL), int(height / FACADE_CELL)
    x, z = np.meshgrid(np.linspace(0, width, columns), np.linspace(0, height, rows), indexing="ij")
    colors, wall_color, windows = _facade(stage, x, z, start)

    # How far it is from the main object across the road: behind the pavement, and behind the camera too.
    gap = 3.5 if stage.place.name == "street" else 45
    behind_eye = (eye[:2] - main.position[:2]) @ road.across * side + 2.0
    across = side * max(road.half_width + gap + setback, behind_eye) - road.shift - road.offset

    def standing(along: np.ndarray | float, across: np.ndarray, up: np.ndarray) -> np.ndarray:
        ground = along * road.along + across * road.across + main.position[:2]
        return np.c_[ground, up]

    x, z = (x + start).reshape(-1), z.reshape(-1)
    front = standing(x[:, None], (across + side * 0.15 * windows)[:, None], z)
    roughness = np.where(windows, 0.06, 0.9)
    stage.add_stuff(Mesh.create(front, grid_faces(columns, rows), colors, roughness), "building")
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]) * vec(side * 8, height)
    for end in (start, start + width):
        gable = standing(end, across + corners[:, :1], corners[:, 1])
        stage.add_stuff(Mesh.create(gable, [(0, 1, 2), (1, 3, 2)], wall_color * 0.8, 0.9), "building")
    return width


def _facade(stage: Stage, x: np.ndarray, z: np.ndarray, start: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A facade over a grid of metres along and up: colours (n, 3), the wall's colour (3,), windows (n,) bool."""
    rng, uniform = stage.rng, stage.rng.uniform
    window_width, storey = uniform(2.2, 3.8), uniform(2.7, 3.4)
    off_x, off_z = abs((x % window_width) / window_width - 0.5), abs((z % storey) / storey - 0.5)
    windows = ((off_x < uniform(0.15, 0.32)) & (off_z < uniform(0.18, 0.34))).ravel()
    wall_color = vec(*FACADE_COLORS[rng.integers(6)]) * uniform(0.6, 1.1)
    points = np.stack([x + start, z, 0 * x], -1).reshape(-1, 3)
    colors = wall_color * (0.75 + 0.5 * value_noise(points, 0.6, 5))[:, None]
    courses = ((z / FACADE_CELL).astype(int) % 2 == 0).ravel()
    colors[courses] *= uniform(0.8, 1)
    colors[windows] = vec(0.03, 0.035, 0.04)
    room = np.floor(x / window_width) * 7 + np.floor(z / storey) * 13
    lit = windows & (room % 5 < 1).ravel()
    colors[lit] = vec(0.5, 0.45, 0.33)
    colors[(z < 0.5).ravel()] *= 0.6
    return colors, wall_color, windows


def add_trees(stage: Stage, clear: float) -> None:
    """Some trees behind the things; clear: metres from the camera to behind the things."""
    rng, uniform, eye = stage.rng, stage.rng.uniform, stage.camera.eye
    snow = 0.9 * (stage.place.name == "snow")
    for _ in range(rng.integers(0, stage.place.max_trees)):
        distance = max(clear * 1.25, 10) + rng.exponential(25)
        azimuth = stage.heading + uniform(-0.75, 0.75)
        foot = eye + vec(np.cos(azimuth) * distance, np.sin(azimuth) * distance, 0) - vec(0, 0, eye[2])
        tree = make_tree(rng, snow)
        stage.add_stuff(tree.transformed(rotation_about("z", uniform(0, 6)), foot, uniform(0.7, 1.3)), "tree")
