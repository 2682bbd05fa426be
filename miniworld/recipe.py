"""What a seed decides before anything is built: the main object, the place and the light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .categories import CATEGORIES
from .lights import INDOOR_LIGHTS, LIGHTS, OUTDOOR_LIGHTS, Light
from .places import PLACES, Place

SPLITS = {"captioned": 0, "train": 10_000_000, "val": 20_000_000, "test": 30_000_000}
"""Seed of each split's first sample."""
UNLABELLED_SPLIT = "captioned"
_STREAM = 77  # sets these draws apart from the scene's own


@dataclass(frozen=True)
class Recipe:
    """The chosen category's name, place and light."""

    subject: str
    place: Place
    light: Light


def draw_recipe(seed: int) -> Recipe:
    """The main category evenly, then a place where it belongs, then the light."""
    rng = np.random.default_rng([seed, _STREAM])
    subject = str(rng.choice(sorted(CATEGORIES)))
    homes = [place for place in PLACES.values() if subject in place.categories]
    if not homes:
        raise ValueError(f"no place lists the category {subject!r}: name one in its `places`")
    weights = np.array([place.weight for place in homes], float)
    place = PLACES[str(rng.choice([home.name for home in homes], p=weights / weights.sum()))]
    lights = INDOOR_LIGHTS if place.indoor else OUTDOOR_LIGHTS
    light = LIGHTS[str(rng.choice([light.name for light in lights], p=[light.weight for light in lights]))]
    if place.name == "sky" and light.name in ("fog", "night"):
        light = LIGHTS["noon"]
    return Recipe(subject, place, light)
