"""Glass bottles, most with a label."""

from __future__ import annotations

import numpy as np

from ..colors import random_rgb, rgb
from ..mesh import vec
from ..noise import value_noise
from ..shapes import revolve
from .base import Category, Thing

KEYPOINTS = ("base", "shoulder", "top")
COLORS = ("green", "brown", "blue", "white", "red", "black", "orange")
LABELS = ("white", "beige", "yellow", "red", "black")
CAPS = ("red", "black", "silver", "yellow", "blue")


def make(rng: np.random.Generator) -> Thing:
    """A bottle."""
    uniform = rng.uniform
    height, radius = uniform(0.2, 0.34), uniform(0.03, 0.05)
    color_name = str(rng.choice(COLORS))
    color = rgb(color_name) * uniform(0.5, 1)
    neck = radius * uniform(0.28, 0.45)
    shoulder = uniform(0.5, 0.7)
    mesh = revolve(_profile(height, radius, neck, shoulder), color, 32, 0.07)
    x, y, z = mesh.vertices.T
    share = z / height
    on_label = (share > 0.14) & (share < shoulder - 0.08)
    label_color = random_rgb(rng, LABELS)
    if uniform(0, 1) < 0.8:
        around = np.stack([np.arctan2(y, x) * 2, share * 9, 0 * share], 1)
        print_ = value_noise(around, 1.5, 2)[on_label, None] > 0.5
        mesh.colors[on_label] = label_color * (0.6 + 0.6 * print_)
        mesh.roughness[on_label] = 0.6
    mesh.colors[share > 0.93] = random_rgb(rng, CAPS)
    keypoints = {"base": vec(0, 0, 0), "shoulder": vec(0, 0, shoulder * height), "top": vec(0, 0, height)}
    return Thing(mesh, keypoints, color_name, "bottle")


def _profile(height: float, radius: float, neck: float, shoulder: float) -> list[tuple[float, float]]:
    """(radius, height) pairs; neck: its radius; shoulder: its share of the height."""
    return [
        (0, 0),
        (radius * 0.9, 0),
        (radius, 0.02 * height),
        (radius, 0.3 * height),
        (radius, 0.5 * height),
        (radius, shoulder * height),
        (radius * 0.85, (shoulder + 0.08) * height),
        (neck * 1.2, (shoulder + 0.2) * height),
        (neck, 0.88 * height),
        (neck, 0.93 * height),
        (neck * 1.25, 0.935 * height),
        (neck * 1.25, 0.965 * height),
        (neck * 1.1, height),
        (0, height),
    ]


CATEGORY = Category("bottle", 5, COLORS, KEYPOINTS, make)
