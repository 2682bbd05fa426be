"""Indoor surroundings: a room, a tabletop in one, a studio."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..categories import CATEGORIES
from ..classes import STUFF
from ..colors import random_rgb
from ..lights import Lamp
from ..mesh import Mesh, grid_faces, vec
from ..sky import map_directions
from ..stage import Stage
from .backdrop import Backdrop
from .floors import draw_floor, studio_floor
from .ground import ground_grid
from .walls import add_paper_sweep, add_pictures, add_rug, add_walls

FAR = 14.0
"""Metres of floor."""
TABLE_HEIGHT = 0.75
"""Of the table whose top is z = 0 in a tabletop scene, metres."""
FLOOR_KINDS = {"tabletop": "planks", "studio": "concrete"}
PAPER_COLORS = ("white", "grey", "blue", "beige", "black", "pink", "green", "yellow")
WALL_COLORS = ("white", "white", "beige", "grey", "blue", "green", "yellow", "pink")
ENVIRONMENT_HEIGHT = 64


def build_indoors(stage: Stage) -> Backdrop:
    """Adds everything around the things and returns the light."""
    rng, place_name = stage.rng, stage.place.name
    is_tabletop, is_studio = place_name == "tabletop", place_name == "studio"
    floor = draw_floor(rng, FLOOR_KINDS.get(place_name))
    grid = ground_grid(stage.camera, FAR)
    paper_color = random_rgb(rng, PAPER_COLORS) * rng.uniform(0.6, 1)
    if is_studio:
        floor = studio_floor(paper_color)
    colors, heights, roughness = floor(grid.points * (2.0 if is_tabletop else 1), grid.footprint)
    room_half_width, wall_distance = _draw_room(stage)

    edge = wall_distance * 0.6 if is_tabletop else wall_distance
    before_edge = (grid.points @ stage.forward) < edge
    faces = grid_faces(*grid.shape)
    faces = faces[before_edge[faces].all(1)]
    mesh = Mesh.create(np.c_[grid.points, heights], faces, colors, roughness)
    stage.add(mesh, CATEGORIES["table"].class_id if is_tabletop else STUFF["floor"])

    wall_color = random_rgb(rng, WALL_COLORS) * rng.uniform(0.6, 1) + 0.08
    if is_studio:
        add_paper_sweep(stage, wall_distance, paper_color)
    else:
        floor_z = 0 if place_name == "room" else -TABLE_HEIGHT
        add_walls(stage, wall_color, wall_distance, room_half_width, floor_z)
        add_pictures(stage, wall_distance, floor_z)
        if place_name == "room" and rng.uniform(0, 1) < 0.45:
            add_rug(stage)
    stage.add_backing(-0.8 if is_tabletop else -0.02, vec(0.25, 0.22, 0.2), "floor")
    environment = _draw_environment(stage)
    return Backdrop(environment, _draw_lamps(stage))


def _draw_room(stage: Stage) -> tuple[float, float]:
    """Half the room's width and the distance of its back wall along the heading, metres."""
    uniform, main, place_name = stage.rng.uniform, stage.main, stage.place.name
    if place_name == "tabletop":
        half_width = uniform(0.8, 2.2)
    else:
        half_width = main.radius * 2 + stage.size * uniform(0.3, 1.4)
    farthest: Any = max([(thing.position[:2] @ stage.forward) + thing.radius for thing in stage.objects] + [0])
    free = uniform(0.05, 1.6) if place_name == "room" else uniform(0.3, 2)
    if place_name == "studio":
        free = free * (main.radius * 2 + 0.5)
    return half_width, farthest + free


def _draw_environment(stage: Stage) -> np.ndarray:
    """Dim light from all around, more of it from the camera's side."""
    height, is_day = ENVIRONMENT_HEIGHT, stage.light.name == "day"
    tint = vec(0.9, 0.97, 1.1) if is_day else vec(1, 0.8, 0.55)
    brightness = 0.28 if is_day else 0.06
    environment = np.ones((height, 2 * height, 3), np.float32) * tint * brightness
    brightest = np.r_[-stage.forward + stage.left * stage.rng.uniform(-1, 1), 0.8]
    falloff = 0.6 + 0.8 * np.clip(map_directions(height) @ brightest, 0, 1)
    return (environment * falloff[..., None]).astype(np.float32)


def _draw_lamps(stage: Stage) -> list[Lamp]:
    """A key lamp beside the camera and a weak one opposite."""
    rng, uniform, place_name = stage.rng, stage.rng.uniform, stage.place.name
    ceiling = 1.4 if place_name == "tabletop" else 2.5
    side = rng.choice([-1, 1])
    size = max(stage.size, 0.4)
    softness = uniform(0.15, 0.5)
    aside = -stage.forward * uniform(0.2, 1.0) + stage.left * side * uniform(0.6, 1.4)
    reach = max(size, 1.2 if place_name == "room" else 0.3)
    position = np.r_[aside * reach * 1.6, uniform(0.9, 1.5) * max(size * 1.6, ceiling * 0.7)]
    distance = np.sqrt(np.sum(position**2))
    color = vec(1, 0.97, 0.92) if stage.light.name == "day" else vec(1, 0.68, 0.35)
    key_radiance = color * uniform(1, 2.4) / (np.pi * softness**2)
    fill_radiance = vec(0.8, 0.9, 1) * uniform(0.05, 0.5) / 0.28
    return [
        Lamp(position, np.array((0, 0, 0.3 * size)), softness * distance, key_radiance),
        Lamp(position * vec(-1, -1, 0.8), np.array((0, 0, 0)), 0.3 * distance, fill_radiance),
    ]
