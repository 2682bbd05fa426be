"""Chooses a scene's objects, stands them up and aims the camera."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from .camera import Camera
from .categories import CATEGORIES, Category, Thing
from .mesh import Mesh, rotation_about, vec
from .stage import SceneObject, Stage

MAX_TRIES = 40
SEATED_ON_INSTANCE = 50
"""Instance ids from here on are chairs under seated people: labelled, not in captions."""
CHAIR_SEAT_HEIGHT = 0.47
"""Metres, about; the chair under a person is stretched to fit."""


def place_objects(stage: Stage, subject: str) -> None:
    """Adds the main object and up to three more; none when none fits the place."""
    rng, residents = stage.rng, stage.place.categories
    count = 1 + rng.choice(4, p=[0.34, 0.36, 0.2, 0.1])
    names = [subject]
    for _ in range(count - 1):
        names.append(subject if rng.uniform(0, 1) < 0.25 else str(rng.choice(residents)))
    others = [name for name in names[1:] if not CATEGORIES[name].only_first]
    stage.road_azimuth = stage.heading + rng.uniform(0.25, 1.3) * rng.choice([-1, 1])
    for name in (subject, *others):
        category = CATEGORIES[name]
        thing = category.make(rng)
        in_sky = stage.place.name == "sky"
        if not (in_sky and category.sky_pose and thing.pose != category.sky_pose):
            _place(stage, category, thing)


def _place(stage: Stage, category: Category, thing: Thing) -> None:
    """Adds the thing to the stage if there is room for it."""
    rng, uniform, in_sky = stage.rng, stage.rng.uniform, stage.place.name == "sky"
    low, high = thing.mesh.bounds
    radius = float(np.linalg.norm((high - low)[:2])) / 2
    azimuth = _draw_azimuth(stage, category)
    rotation = rotation_about("z", azimuth)
    if in_sky:
        rotation = rotation @ rotation_about("y", uniform(-0.3, 0.2)) @ rotation_about("x", uniform(-0.4, 0.4))
    position = _find_room(stage, radius)
    if position is None:
        return
    if thing.pose == "flying" and not in_sky:
        position[2] = uniform(0.3, 1.2)
    if in_sky:
        position[2] = uniform(-1, 1) * radius * 0.8
    if category.floats:
        rotation = rotation @ rotation_about("x", uniform(-0.06, 0.06))
    if thing.seat_height is not None:
        chair = _seat(thing.seat_height, rng).transformed(rotation_about("z", azimuth), position)
        stage.add(chair, CATEGORIES["chair"].class_id, SEATED_ON_INSTANCE + len(stage.objects))
    sunk = 0 if category.floats or in_sky else low[2]
    translation = position - vec(0, 0, sunk)
    keypoints = {name: rotation @ point + translation for name, point in thing.keypoints.items()}
    center = rotation @ ((low + high) / 2) + translation
    height = float(high[2] - low[2])
    stage.objects.append(SceneObject(category, thing.color, thing.pose, keypoints, position, radius, height, center))
    stage.add(thing.mesh.transformed(rotation, translation), category.class_id, len(stage.objects))


def _draw_azimuth(stage: Stage, category: Category) -> float:
    """Where the thing looks, radians."""
    rng, uniform = stage.rng, stage.rng.uniform
    if category.faces_camera:
        azimuth = stage.heading + 3.14 + uniform(-0.9, 0.9)
    else:
        azimuth = stage.heading + uniform(0, 6.28)
    if stage.place.name == "street" and category.follows_road:
        azimuth = stage.road_azimuth + (0 if uniform(0, 1) < 0.5 else 3.14) + rng.normal(0, 0.04)
    return azimuth


def _find_room(stage: Stage, radius: float) -> np.ndarray | None:
    """A position (3,) on the ground at which a circle of `radius` hardly meets another; the first is at the origin."""
    uniform, position = stage.rng.uniform, vec(0, 0, 0)
    if not stage.objects:
        return position
    reach = stage.main.radius + radius
    for _ in range(MAX_TRIES):
        position[:2] = stage.left * uniform(-1.2, 1.2) * reach + stage.forward * uniform(-0.5, 1.6) * reach
        if all(
            np.linalg.norm(position[:2] - other.position[:2]) > 0.8 * (radius + other.radius) for other in stage.objects
        ):
            return position
    return None


def _seat(height: float, rng: np.random.Generator) -> Mesh:
    """A chair whose seat is at `height` metres."""
    chair = CATEGORIES["chair"].make(rng).mesh
    return replace(chair, vertices=chair.vertices * vec(1, 1, height / CHAIR_SEAT_HEIGHT))


def aim_camera(stage: Stage) -> None:
    """Sets the stage's size, distance and camera."""
    rng, uniform, main, place = stage.rng, stage.rng.uniform, stage.main, stage.place
    spread: list[Any] = [0.75 * np.linalg.norm(other.position - main.position) for other in stage.objects[1:]]
    size = max(main.height, 1.2 * main.radius, *spread)
    fov = uniform(28, 55)
    distance = size * uniform(0.95, 1.9) / np.tan(np.radians(fov) / 2) * 0.62 + main.radius * 0.5
    if place.name == "sky":
        eye_height = -distance * uniform(0.25, 0.8)
    else:
        eye_height = main.center[2] + distance * uniform(-0.05, 0.4)
        eye_height = np.clip(eye_height, max(0.12, 0.25 * main.height), place.max_eye_height)
    middle = np.mean([other.center for other in stage.objects], 0) * 0.5 + main.center * 0.5
    target = middle + np.r_[stage.left * uniform(-0.2, 0.2) * size, uniform(-0.1, 0.18) * size]
    eye = np.r_[target[:2] - stage.forward * distance, eye_height]
    aperture = distance * uniform(0, 0.012) if uniform(0, 1) < 0.7 else 0.0
    focus = float(np.dot(main.center - eye, (target - eye) / np.linalg.norm(target - eye)))
    stage.size, stage.distance = size, distance
    stage.camera = Camera(eye, target, fov, stage.resolution, aperture, focus, rng.normal(0, 0.03))
