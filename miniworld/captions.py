"""Captions: what is seen, where, and in which light."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .categories import Category
from .scene import Scene
from .stage import SceneObject

MIN_AREA = 0.004
"""Share of the image below which a thing is not mentioned."""
NUMBERS = {2: "two", 3: "three", 4: "four"}
POSES = {"sit": " sitting", "walk": " walking", "graze": " grazing", "flying": " flying"}
OPENINGS = ("a photo of ", "a photograph of ", "", "a picture of ")


def caption(scene: Scene, areas: Sequence[float]) -> str:
    """A caption of the scene; areas: each object's share of the image."""
    rng = scene.rng
    seen = [thing for thing, area in zip(scene.objects, areas, strict=True) if area > MIN_AREA] or scene.objects[:1]
    groups: dict[str, list[SceneObject]] = {}
    for thing in seen:
        groups.setdefault(thing.category.name, []).append(thing)
    phrases = [_single(group[0], rng) if len(group) == 1 else _several(group) for group in groups.values()]
    if len(seen) == 2 and len(groups) == 2 and rng.random() < 0.6:
        things = f"{phrases[0]} {_relation(scene, *seen)} {phrases[1]}"
    elif len(phrases) == 1:
        things = phrases[0]
    else:
        things = ", ".join(phrases[:-1]) + " and " + phrases[-1]
    opening = rng.choice(OPENINGS, p=[0.5, 0.15, 0.25, 0.1])
    light = rng.choice(scene.light.phrases)
    return " ".join(f"{opening}{things} {scene.place_phrase} {light}".split())


def _single(thing: SceneObject, rng: np.random.Generator) -> str:
    """Words for one thing, article included."""
    category = thing.category
    if category.phrase is not None:
        words = category.phrase(thing, rng)
    else:
        noun = category.noun
        if category.pose_as_noun and rng.random() < 0.4:
            noun = thing.pose
        color = f"{thing.color} " if category.color_in_caption else ""
        words = f"a {color}{noun}" + POSES.get(thing.pose, "") * (rng.random() < 0.6)
    return words.replace("a orange", "an orange")


def _several(group: list[SceneObject]) -> str:
    """Words for two to four things of a category."""
    category, color = group[0].category, group[0].color
    same_color = _color_in_plural(category) and all(thing.color == color for thing in group)
    return f"{NUMBERS[len(group)]} {color + ' ' if same_color else ''}{category.plural}"


def _color_in_plural(category: Category) -> bool:
    return category.color_in_caption and category.phrase is None


def _relation(scene: Scene, first: SceneObject, second: SceneObject) -> str:
    """How the first thing stands to the second, as seen."""
    (first_u, _, first_z), (second_u, _, second_z) = scene.camera.project(np.stack([first.center, second.center]))
    apart = abs(first_z - second_z) / max(first.radius, second.radius)
    if apart > 1.1:
        return "in front of" if first_z < second_z else "behind"
    if scene.rng.random() < 0.5:
        return "to the left of" if first_u < second_u else "to the right of"
    return "next to"
