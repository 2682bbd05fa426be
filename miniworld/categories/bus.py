"""City buses."""

from __future__ import annotations

import numpy as np

from ..colors import random_rgb, rgb
from ..mesh import Mesh
from .base import Category, Thing
from .car import COLORS, GLASS
from .road_vehicle import KEYPOINTS, Body, assemble, end_windows, paint, paint_details, paint_dirt, random_rim, shell


def make(rng: np.random.Generator) -> Thing:
    """A bus, often with its lower part in a second colour."""
    uniform = rng.uniform
    color_name = str(rng.choice(COLORS))
    color = rgb(color_name) * uniform(0.7, 1.15)
    body = _draw_body(rng)
    mesh = shell(body, color)
    if uniform(0, 1) < 0.6:
        second_color = random_rgb(rng, ("white", "blue", "red", "green"))
        mesh.colors[mesh.vertices[:, 2] < body.beltline * uniform(0.7, 1)] = second_color
    paint(mesh, _windows(mesh, body), GLASS, 0.06)
    paint_details(mesh, body)
    paint_dirt(mesh)
    return Thing(*assemble(mesh, body, random_rim(rng), []), color_name, "bus")


def _draw_body(rng: np.random.Generator) -> Body:
    uniform = rng.uniform
    length, width, height = uniform(8.5, 11.5), 2.5, uniform(2.9, 3.3)
    clearance, belt = 0.35, 1.25
    uniform(0.02, 0.1)  # a car's bonnet; world version 1 draws it for buses too
    front, back, half = length / 2, -length / 2, width / 2
    side = [
        (back, clearance),
        (front, clearance),
        (front + 0.02, 1.2),
        (front - 0.15, height - 0.1),
        (front - 0.4, height),
        (back + 0.2, height),
        (back, height - 0.2),
    ]
    left = [(front, half * 0.85), (front - 0.1, half), (back, half)]
    top = [*((x, -y) for x, y in reversed(left)), *left]
    cabin = [share * length for share in (0.495, 0.475, -0.48, -0.495)]
    axles = [front - 2.3, back + 2.4]
    return Body(length, width, height, 0.5, clearance, belt, cabin, axles, side, top, 0.97, 150)


def _windows(mesh: Mesh, body: Body) -> np.ndarray:
    """Where the glass is, (n,) bool."""
    x, _, z = mesh.vertices.T
    belt, height = body.beltline, body.height
    band = abs(z - (belt + height) / 2 - 0.05) - (height - belt) / 2 + 0.33
    outside = np.maximum(band, abs(x) - body.length / 2 + 0.15)
    to_pillar = np.min([abs(x - pillar) for pillar in np.arange(-5, 6) * 1.35], 0)
    sides = (abs(mesh.normals[:, 1]) > 0.5) & (outside < -0.035) & (to_pillar > 0.05)
    return sides | end_windows(mesh, body, 0.5)


CATEGORY = Category("bus", 6, COLORS, KEYPOINTS, make, plural="buses", only_first=True, follows_road=True)
