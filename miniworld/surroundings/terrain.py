"""Natural ground: grass, beach, desert, snow, sea."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..classes import STUFF
from ..mesh import Mesh, Triple, triangle_soup_faces, vec
from ..noise import flat, smoothstep, value_noise
from ..stage import Stage
from .ground import GroundGrid, ground_grid

BLADES = 14_000
"""Blades of grass at 128 pixels a side."""
DESERT_COLORS = ((0.45, 0.25, 0.12), (0.4, 0.3, 0.2), (0.3, 0.22, 0.16))


@dataclass
class Ground:
    """The ground's surface at the points of a grid."""

    colors: np.ndarray  # (n, 3) linear RGB
    heights: np.ndarray  # (n,) metres
    roughness: np.ndarray  # (n,)
    classes: np.ndarray  # (n,) class ids


class Canvas:
    """A grid with the noise that every kind of ground is made of."""

    def __init__(self, stage: Stage, grid: GroundGrid):
        rng, uniform = stage.rng, stage.rng.uniform
        self.grid = grid
        count = len(grid.points)
        self.points = flat(grid.points)  # (n, 3)
        self.grain = rng.random(count)  # white noise
        self.coarse = value_noise(self.points, 0.35, 4)
        self.fine = value_noise(self.points, 3, 4, 1)
        self.fade = np.clip(0.02 / grid.footprint, 0.15, 1)  # of the grain with distance
        self.grass_base = vec(0.075, 0.14, 0.03) * uniform(0.6, 1.3)
        self.grass_base = self.grass_base + vec(uniform(0, 0.09), uniform(0, 0.03), 0)
        self.class_id = STUFF[stage.place.ground]

    def grass(self, points: np.ndarray) -> np.ndarray:
        """The meadow's colours (n, 3) at points (n, 2)."""
        patches = 0.6 + 0.8 * value_noise(flat(points), 0.35, 4)
        dry = smoothstep(value_noise(flat(points, 3), 0.7, 3), 0.55, 0.7)
        return self.grass_base * patches[:, None] + vec(0.1, 0.08, 0.02) * dry[:, None]

    def ground(
        self, colors: np.ndarray, heights: np.ndarray | None = None, roughness: np.ndarray | None = None
    ) -> Ground:
        """Ground of the place's class; flat and matt by default."""
        count = len(self.points)
        return Ground(
            colors,
            np.zeros(count) if heights is None else heights,
            np.full(count, 0.95) if roughness is None else roughness,
            np.full(count, self.class_id),
        )


def grass(stage: Stage, canvas: Canvas) -> Ground:
    """A meadow; its blades are added to the stage."""
    shade = 0.45 + 0.6 * canvas.fine + 0.5 * canvas.grain * canvas.fade
    colors = canvas.grass(canvas.grid.points) * shade[:, None]
    blade_length = stage.rng.uniform(0.03, 0.1) * (1 if stage.main.height > 0.4 else 0.6)
    stage.add_stuff(_blades(stage, blade_length, canvas.grass), "grass")
    return canvas.ground(colors, 0.02 * canvas.grain * canvas.fade - 0.02)


def _blades(stage: Stage, length: float, color: Callable[[np.ndarray], np.ndarray]) -> Mesh:
    """Blades of grass within 60 m, one triangle each; length in metres."""
    rng, count = stage.rng, BLADES * stage.resolution // 128
    grid = ground_grid(stage.camera, 60)
    chosen = rng.integers(0, len(grid.points), count)
    footprint = grid.footprint[chosen]
    points = grid.points[chosen] + rng.normal(0, 1, (count, 2)) * np.minimum(footprint[:, None] * 2, 0.3)
    density = value_noise(flat(points), 0.8, 3)
    farther_longer = np.minimum(1 + grid.ranges[chosen] * 0.03, 2.5)
    lengths = length * (0.35 + rng.random(count)) * (0.5 + density) * farther_longer
    half_widths = np.maximum(0.004, footprint * 0.45)
    azimuths = rng.uniform(0, 6.28, count)
    sideways = vec(1, 0, 0) * np.cos(azimuths)[:, None] + vec(0, 1, 0) * np.sin(azimuths)[:, None]
    sideways = sideways * half_widths[:, None]
    roots = flat(points)
    lean = rng.normal(0, 0.35, (count, 3)) * lengths[:, None]
    lean[:, 2] = lengths
    vertices = np.stack([roots - sideways, roots + sideways, roots + lean], 1)
    base = color(points) * (0.6 + 0.9 * rng.random((count, 1)))
    colors = np.stack([base * 0.45, base * 0.45, base * 1.35], 1)
    normals = np.repeat(vec(0, 0, 1)[None] + rng.normal(0, 0.35, (count, 3)), 3, 0)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return Mesh.create(
        vertices.reshape(-1, 3),
        triangle_soup_faces(count),
        colors.reshape(-1, 3),
        0.6,
        normals=normals.astype(np.float32),
    )


def desert(stage: Stage, canvas: Canvas) -> Ground:
    """Sand or dry earth, rippled."""
    return _sand(stage, canvas, stage.rng.choice(DESERT_COLORS))


def beach(stage: Stage, canvas: Canvas) -> Ground:
    """Sand that runs into the sea behind the main object."""
    sand = _sand(stage, canvas, (0.5, 0.4, 0.27))
    uniform, main = stage.rng.uniform, stage.main
    grid, points = canvas.grid, canvas.points
    # Metres beyond the waterline.
    beyond = (grid.points - main.position[:2]) @ stage.forward - (main.radius + uniform(1.5, 9))
    beyond = beyond + 1.2 * (value_noise(points, 0.12, 2, 3) - 0.5) * 4
    wetness = smoothstep(beyond, -2.5, 0)
    colors = sand.colors * (1 - 0.5 * wetness)[:, None]
    roughness = sand.roughness - 0.6 * wetness
    is_water = beyond > 0
    water_color = vec(0.02, 0.09, 0.12) * uniform(0.6, 1.6)
    waves = value_noise(points, 0.6, 4, 2)
    surf = smoothstep(beyond, 0, 0.15) * smoothstep(-beyond, -0.9, -0.1)
    crests = smoothstep(waves, 0.62, 0.7) * smoothstep(-beyond, -14, 0)
    foam = (surf + crests) * is_water
    sea_height = 0.1 * (waves - 0.5) * np.minimum(1, beyond * 0.3) - 0.02
    heights = np.where(is_water, sea_height, sand.heights * (1 - wetness) + 0.02 * (1 - wetness))
    colors[is_water] = water_color * (0.8 + 0.4 * waves[is_water, None])
    colors = colors * (1 - foam[:, None]) + 0.8 * foam[:, None]
    roughness = np.where(is_water, 0.12 + 0.6 * foam, roughness)
    sand.classes[is_water] = STUFF["water"]
    return Ground(colors, heights, roughness, sand.classes)


def _sand(stage: Stage, canvas: Canvas, color: Triple) -> Ground:
    """Rippled sand of a colour, with pebbles."""
    tint = vec(*color) * stage.rng.uniform(0.7, 1.1)
    coarse, fine, points = canvas.coarse, canvas.fine, canvas.grid.points
    across_ripples = points @ vec(np.cos(1 + stage.heading), np.sin(1 + stage.heading))
    ripples = 0.012 * np.sin(across_ripples * 22 + coarse * 14)
    heights = (0.05 * (coarse - 0.5) + 0.03 * (fine - 0.5) + ripples) * np.minimum(1, stage.main.height + 0.2)
    shade = 0.7 + 0.4 * coarse + 0.25 * (fine - 0.5) + 0.3 * (canvas.grain - 0.5) * canvas.fade
    colors = tint * shade[:, None]
    pebbles = value_noise(canvas.points, 9, 2, 2) > 0.73
    colors[pebbles] *= 0.5
    return canvas.ground(colors, heights)


def snow(stage: Stage, canvas: Canvas) -> Ground:
    """A field under snow."""
    coarse, fine = canvas.coarse, canvas.fine
    heights = 0.12 * (coarse - 0.5) * np.minimum(1, stage.main.height) + 0.03 * (fine - 0.5) - 0.01
    shade = 0.86 + 0.12 * coarse + 0.06 * (canvas.grain - 0.5)
    return canvas.ground(vec(0.82, 0.84, 0.88) * shade[:, None], heights)


def sea(stage: Stage, canvas: Canvas) -> Ground:
    """Open water, waves in proportion to the boat."""
    uniform = stage.rng.uniform
    color = vec(0.012, 0.05, 0.075) * uniform(0.5, 1.8) + vec(0, uniform(0, 0.03), 0)
    chop = uniform(0.02, 0.12) * stage.main.height * 0.25
    waves = value_noise(canvas.points, 1.1 / max(1, chop * 10), 5, 2, 0.6)
    foam = smoothstep(waves, 0.7, 0.76)
    colors = color * (0.7 + 0.6 * waves)[:, None]
    colors += 0.5 * foam[:, None]
    return canvas.ground(colors, chop * 2 * (waves - 0.5), 0.08 + 0.3 * foam)
