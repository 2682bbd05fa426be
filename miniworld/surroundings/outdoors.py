"""Outdoor surroundings: sky, ground, horizon."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..lights import Lamp, unlit_lamp
from ..mesh import Mesh, grid_faces, vec
from ..sky import draw_sky
from ..stage import Stage
from . import terrain
from .backdrop import Backdrop
from .ground import GroundGrid, ground_grid
from .horizon import add_buildings, add_hills, add_trees
from .pavement import paved
from .terrain import Canvas, Ground

FAR = 400.0
"""Metres of ground."""
NATURAL_GROUNDS = {
    "grass": terrain.grass,
    "beach": terrain.beach,
    "desert": terrain.desert,
    "snow": terrain.snow,
    "sea": terrain.sea,
}


def build_outdoors(stage: Stage) -> Backdrop:
    """Adds everything around the things and returns sky, lamps and air."""
    environment, sun = draw_sky(stage.light, stage.heading, stage.rng)
    fog_density = _draw_fog(stage)
    lamp = _street_lamp(stage) if stage.light.name == "night" else unlit_lamp()
    if stage.place.name != "sky":
        _build_ground_and_horizon(stage)
    return Backdrop(environment, [sun, lamp], fog_density)


def _draw_fog(stage: Stage) -> float:
    """Extinction a metre. World version 1 draws both a fog's and clear air's."""
    fog = stage.rng.uniform(0.5, 2) / (stage.distance * 2.5)
    clear = 1 / stage.rng.uniform(500, 2500)
    return fog if stage.light.name == "fog" else clear


def _street_lamp(stage: Stage) -> Lamp:
    """A warm lamp above and in front of the main object."""
    uniform, main, size = stage.rng.uniform, stage.main, stage.size
    aside = stage.left * uniform(-1, 1) * size - stage.forward * uniform(0.2, 0.9) * size
    position = main.position + np.r_[aside, max(2.2, 1.3 * main.height) + uniform(0.5, 2)]
    squared_reach = (position[2]) ** 2 + size
    radiance = vec(1, uniform(0.6, 0.9), uniform(0.25, 0.7)) * 1.6 / 0.045
    return Lamp(position, position * vec(1, 1, 0) + 0.1, 0.12 * np.sqrt(squared_reach), radiance)


def _build_ground_and_horizon(stage: Stage) -> None:
    place, uniform = stage.place, stage.rng.uniform
    grid = ground_grid(stage.camera, FAR)
    canvas = Canvas(stage, grid)
    road = None
    if place.name in NATURAL_GROUNDS:
        ground = NATURAL_GROUNDS[place.name](stage, canvas)
    else:
        ground, road = paved(stage, canvas)
    if place.name != "sea":
        _flatten_under_things(stage, grid, ground)
    _add_ground(stage, grid, ground)
    clear: Any = stage.distance + max(thing.radius * 2 + np.linalg.norm(thing.position) for thing in stage.objects)
    if uniform(0, 1) < place.hills:
        add_hills(stage, clear)
    if road is not None and (place.buildings == 1 or uniform(0, 1) < place.buildings):
        add_buildings(stage, road)
    if place.max_trees:
        add_trees(stage, clear)


def _flatten_under_things(stage: Stage, grid: GroundGrid, ground: Ground) -> None:
    """Lowers the relief where things stand, in place."""
    relative = [
        np.linalg.norm(grid.points - thing.position[:2], axis=1) / (thing.radius + 0.2) for thing in stage.objects
    ]
    near = np.exp(-(np.min(relative, 0) ** 4))
    ground.heights = ground.heights * (1 - 0.75 * near)


def _add_ground(stage: Stage, grid: GroundGrid, ground: Ground) -> None:
    """Adds the ground, a mesh for each class, and a plane under it."""
    faces = grid_faces(*grid.shape)
    mesh = Mesh.create(np.c_[grid.points, ground.heights], faces, ground.colors, ground.roughness)
    face_classes = ground.classes[faces[:, 0]]
    for class_id in np.unique(face_classes):
        stage.add(mesh.submesh(face_classes == class_id), class_id)
    stage.add_backing(-0.35 if stage.place.name != "sea" else -1.5, ground.colors.mean(0), stage.place.ground)
