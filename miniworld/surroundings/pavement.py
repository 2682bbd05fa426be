"""Streets and runways."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..classes import STUFF
from ..mesh import vec
from ..noise import smoothstep, value_noise
from ..stage import Stage
from .ground import line_coverage
from .terrain import Canvas, Ground


@dataclass
class Road:
    """A straight road past the main object; metres."""

    along: np.ndarray  # (2,) unit vector
    across: np.ndarray  # (2,) unit vector
    half_width: float
    offset: float
    shift: float
    """With `offset`, how far its middle is from the main object, against `across`."""


def paved(stage: Stage, canvas: Canvas) -> tuple[Ground, Road]:
    """A street with kerbs, pavements and a verge, or a runway in the grass."""
    is_street = stage.place.name == "street"
    road = _draw_road(stage, is_street)
    grid, coarse, fine, grain = canvas.grid, canvas.coarse, canvas.fine, canvas.grain
    relative = grid.points - stage.main.position[:2]
    across = relative @ road.across + road.offset + road.shift
    along = relative @ road.along
    colors = _asphalt(stage, canvas)
    _paint_markings(stage, canvas, road, across, along, colors)
    beside = abs(across) > road.half_width
    heights = None
    if is_street:
        _paint_pavement(canvas, road, across, along, beside, colors)
        heights = np.where(beside, 0.03, 0)
        on_grass = abs(across) > road.half_width + stage.rng.uniform(2, 4)
    else:
        on_grass = beside
    colors[on_grass] = (canvas.grass(grid.points) * (0.5 + 0.8 * grain)[:, None])[on_grass]
    wet = 0.3 * smoothstep(coarse, 0.5, 0.6) if stage.rng.uniform(0, 1) < 0.2 else 0
    ground = canvas.ground(colors, heights, np.where(beside, 0.9, 0.55 + 0.3 * fine) - wet)
    ground.classes[on_grass] = STUFF["grass"]
    return ground, road


def _draw_road(stage: Stage, is_street: bool) -> Road:
    uniform = stage.rng.uniform
    azimuth = stage.road_azimuth if is_street else stage.heading + uniform(-1.2, 1.2)
    offset = 0 if is_street else uniform(-4, 4)
    half_width = uniform(3.4, 7) if is_street else uniform(16, 25)
    return Road(
        along=vec(np.cos(azimuth), np.sin(azimuth)),
        across=vec(-np.sin(azimuth), np.cos(azimuth)),
        half_width=half_width,
        offset=offset,
        shift=uniform(-1.2, 1.2),
    )


def _asphalt(stage: Stage, canvas: Canvas) -> np.ndarray:
    """Cracked asphalt everywhere, (n, 3)."""
    grain = 0.5 * (canvas.grain - 0.5) * canvas.fade
    shade = 0.75 + 0.35 * canvas.coarse + 0.25 * (canvas.fine - 0.5) + grain
    colors = vec(0.09, 0.09, 0.095) * stage.rng.uniform(0.5, 1.7) * shade[:, None]
    cracks = abs(value_noise(canvas.points, 0.7, 4, 3) - 0.5) < 0.006
    colors[cracks] *= 0.5
    return colors


def _paint_markings(
    stage: Stage, canvas: Canvas, road: Road, across: np.ndarray, along: np.ndarray, colors: np.ndarray
) -> None:
    """Edge lines and a middle line, broken as a rule, in place."""
    uniform, footprint = stage.rng.uniform, canvas.grid.footprint
    edges = line_coverage(abs(across) - road.half_width + 0.35, 0.08, footprint)
    painted = (along % 6 < 3.2) | (uniform(0, 1) < 0.3)
    markings = np.maximum(edges, line_coverage(across, 0.09, footprint) * painted)
    color = vec(0.75, 0.75, 0.72) if uniform(0, 1) < 0.65 else vec(0.7, 0.45, 0.05)
    worn = color * (0.75 + 0.35 * canvas.fine[:, None])
    colors += (worn - colors) * markings[:, None]


def _paint_pavement(
    canvas: Canvas, road: Road, across: np.ndarray, along: np.ndarray, beside: np.ndarray, colors: np.ndarray
) -> None:
    """Slabs and kerb beside the road, in place."""
    footprint, slab = canvas.grid.footprint, 0.9
    joints = np.maximum(
        line_coverage(across % slab - 0.03, 0.02, footprint), line_coverage(along % slab - 0.03, 0.02, footprint)
    )
    shade = 0.7 + 0.3 * canvas.coarse[beside, None] + 0.25 * (canvas.grain[beside, None] - 0.5)
    colors[beside] = vec(0.28, 0.27, 0.25) * shade
    colors *= (1 - 0.4 * joints * beside)[:, None]
    kerb = beside & (abs(across) < road.half_width + 0.25)
    colors[kerb] = vec(0.35, 0.34, 0.32)
