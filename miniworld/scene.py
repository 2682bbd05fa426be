"""Builds a whole scene from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .camera import Camera
from .layout import aim_camera, place_objects
from .lights import Lamp, Light
from .mesh import Mesh
from .places import Place
from .recipe import Recipe
from .stage import SceneObject, Stage
from .surroundings.indoors import build_indoors
from .surroundings.outdoors import build_outdoors

RETRY_STEP = 1_000_000
"""Added to the seed when nothing sampled fits the place."""


@dataclass
class Scene:
    """Everything that an image and its labels need."""

    mesh: Mesh
    face_classes: np.ndarray  # (m,) uint8
    face_instances: np.ndarray  # (m,) uint8, 0 none
    camera: Camera
    environment: np.ndarray  # (h, 2h, 3) linear RGB
    lamps: list[Lamp]
    objects: list[SceneObject]
    place: Place
    light: Light
    fog_density: float
    """Extinction a metre."""
    place_phrase: str
    rng: np.random.Generator
    """Goes on to draw the photograph's development and the caption."""


def build_scene(seed: int, recipe: Recipe, resolution: int) -> Scene:
    """The scene of a seed; resolution: pixels a side."""
    stage = _filled_stage(seed, recipe, resolution)
    aim_camera(stage)
    backdrop = build_indoors(stage) if recipe.place.indoor else build_outdoors(stage)
    mesh, classes, instances = stage.merged()
    return Scene(
        mesh=mesh,
        face_classes=classes,
        face_instances=instances,
        camera=stage.camera,
        environment=backdrop.environment,
        lamps=_out_of_view(backdrop.lamps, stage),
        objects=stage.objects,
        place=recipe.place,
        light=recipe.light,
        fog_density=backdrop.fog_density,
        place_phrase=str(stage.rng.choice(recipe.place.phrases)),
        rng=stage.rng,
    )


def _filled_stage(seed: int, recipe: Recipe, resolution: int) -> Stage:
    """A stage with at least one object."""
    while True:
        rng = np.random.default_rng(seed)
        stage = Stage(rng, recipe.place, recipe.light, resolution, heading=rng.uniform(0, 6.28))
        place_objects(stage, recipe.subject)
        if stage.objects:
            return stage
        seed += RETRY_STEP


def _out_of_view(lamps: list[Lamp], stage: Stage) -> list[Lamp]:
    """The lamps where no bare disc is seen; the sun may be."""
    if stage.place.name == "sky":
        return lamps
    movable = lamps if stage.place.indoor else lamps[1:]
    moved = [lamp.moved_out_of_view(stage.camera, stage.forward, stage.distance) for lamp in movable]
    return lamps[: len(lamps) - len(moved)] + moved
