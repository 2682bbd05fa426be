"""A sample: an image with its caption and labels, a pure function of its seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import WORLD_VERSION
from .captions import caption
from .labels import Labels, make_labels
from .postprocess import add_fog, develop
from .recipe import Recipe, draw_recipe
from .renderer import mitsuba_scene, render_radiance
from .scene import Scene, build_scene

RESOLUTION = 128
"""Pixels a side."""
RETRY_STEP = 7_000_003
"""Added to the seed when an image does not show its main object."""
MIN_MAIN_AREA = 0.012
"""Share of the image that the main object must cover."""
MIN_CONTRAST = 1e-3


@dataclass
class Sample:
    """A image and everything known of it."""

    image: np.ndarray  # (128, 128, 3) uint8 sRGB
    labels: Labels
    info: dict
    """Caption, place, light, field of view, objects and keypoints, ready for JSON."""


def render_sample(seed: int, samples_per_pixel: int, recipe: Recipe | None = None) -> Sample:
    """The sample of a seed; the recipe is the seed's own unless one is given."""
    recipe = recipe or draw_recipe(seed)
    while True:
        scene = build_scene(seed, recipe, RESOLUTION)
        prepared = mitsuba_scene(scene.mesh, scene.camera, scene.environment, scene.lamps, samples_per_pixel)
        labels = make_labels(scene, prepared)
        if labels.areas[0] >= MIN_MAIN_AREA:
            max_depth = 4 if scene.place.indoor else 3
            radiance = render_radiance(prepared, samples_per_pixel, seed, max_depth)
            radiance = add_fog(radiance, labels.depth, scene)
            if radiance.mean(-1).std() >= MIN_CONTRAST:
                image = develop(radiance, scene)
                return Sample(image, labels, _info(scene, labels, seed))
        seed += RETRY_STEP


def _info(scene: Scene, labels: Labels, seed: int) -> dict:
    objects = [
        {
            "id": i,
            "cat": thing.category.name,
            "color": thing.color,
            "pose": thing.pose,
            "area": round(float(area), 4),
        }
        for i, (thing, area) in enumerate(zip(scene.objects, labels.areas, strict=True), start=1)
    ]
    return {
        "caption": caption(scene, labels.areas),
        "place": scene.place.name,
        "light": scene.light.name,
        "seed": seed,
        "fov": scene.camera.fov,
        "objects": objects,
        "keypoints": labels.keypoints,
        "world_version": WORLD_VERSION,
    }
