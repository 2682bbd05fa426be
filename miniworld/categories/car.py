"""Cars: sedans, hatchbacks, SUVs, vans and pickups."""

from __future__ import annotations

import numpy as np

from ..colors import rgb
from ..mesh import Mesh
from ..outline import polygon_distance
from ..shapes import rounded_box
from .base import Category, Thing
from .road_vehicle import KEYPOINTS, Body, assemble, end_windows, paint, paint_details, paint_dirt, random_rim, shell

COLORS = ("red", "blue", "white", "black", "silver", "yellow", "green", "grey", "orange", "brown")
SIZES = {  # length, width, height, metres
    "sedan": (4.6, 1.8, 1.43),
    "hatchback": (4.0, 1.75, 1.5),
    "suv": (4.6, 1.9, 1.72),
    "van": (4.9, 1.92, 1.95),
    "pickup": (5.2, 1.9, 1.78),
}
CABINS = {  # x of the windscreen's foot and head and of the rear window's head and foot, shares of the length
    "sedan": (0.21, 0.02, -0.28, -0.42),
    "hatchback": (0.2, 0.02, -0.36, -0.47),
    "suv": (0.22, 0.06, -0.4, -0.47),
    "van": (0.36, 0.2, -0.44, -0.49),
    "pickup": (0.2, 0.06, -0.1, -0.15),
}
GLASS = (0.012, 0.015, 0.018)


def make(rng: np.random.Generator) -> Thing:
    """A car; the pose is its make."""
    uniform = rng.uniform
    color_name = str(rng.choice(COLORS))
    color = rgb(color_name) * uniform(0.7, 1.15)
    kind = str(rng.choice(tuple(SIZES)))
    body = _draw_body(kind, rng)
    mesh = shell(body, color)
    windows = _windows(mesh, body, kind)
    if kind == "van" and uniform(0, 1) < 0.5:
        windows &= ~((mesh.vertices[:, 0] < 0) & (abs(mesh.normals[:, 1]) > 0.5))
    paint(mesh, windows, GLASS, 0.06)
    paint_details(mesh, body)
    _paint_seams(mesh, body)
    paint_dirt(mesh)
    rim = random_rim(rng)
    mirrors = [_mirror(sign, body, color, rng) for sign in (-1, 1)]
    return Thing(*assemble(mesh, body, rim, mirrors), color_name, kind)


def _draw_body(kind: str, rng: np.random.Generator) -> Body:
    uniform = rng.uniform
    length, width, height = SIZES[kind]
    length, width, height = length * uniform(0.94, 1.06), width * uniform(0.96, 1.04), height * uniform(0.95, 1.06)
    wheel_radius = (0.31 if kind in ("sedan", "hatchback") else 0.36) * uniform(0.95, 1.08)
    clearance = 0.2 + (wheel_radius - 0.3)
    belt = 0.6 * height * uniform(0.97, 1.05)
    hood = belt - uniform(0.02, 0.1)
    cabin = [share * length for share in CABINS[kind]]
    front, back, half = length / 2, -length / 2, width / 2
    side = [
        (back + 0.04, clearance),
        (front - 0.05, clearance),
        (front, 0.5 * belt),
        (front - 0.06, hood * 0.9),
        (front - 0.3, hood),
        (cabin[0], belt + 0.02),
        (cabin[1], height - 0.02),
        ((cabin[1] + cabin[2]) / 2, height),
        (cabin[2], height - 0.04),
        (cabin[3], belt + 0.04),
        (back + 0.05, belt),
        (back, 0.55 * belt),
    ]
    left = [
        (front, half * 0.4),
        (front - 0.05, half * 0.78),
        (front - 0.7, half),
        (back + 0.35, half),
        (back, half * 0.86),
    ]
    top = [*((x, -y) for x, y in reversed(left)), *left]
    axles = [front - uniform(0.17, 0.2) * length, back + uniform(0.17, 0.2) * length]
    return Body(length, width, height, wheel_radius, clearance, belt, cabin, axles, side, top, 0.76, 120)


def _windows(mesh: Mesh, body: Body, kind: str) -> np.ndarray:
    """Where the glass is, (n,) bool."""
    x, _, z = mesh.vertices.T
    cabin, belt, height = body.cabin, body.beltline, body.height
    outline = [
        (cabin[0] - 0.05, belt + 0.06),
        (cabin[1] - 0.03, height - 0.05),
        (cabin[2] + 0.03, height - 0.06),
        (cabin[3] + 0.08, belt + 0.07),
    ]
    pillars = ((cabin[0] + cabin[3]) / 2 - 0.1, cabin[3] + 0.55 if kind in ("suv", "van") else 9)
    to_pillar = np.min([abs(x - pillar) for pillar in pillars], 0)
    sides = (abs(mesh.normals[:, 1]) > 0.5) & (polygon_distance(x, z, outline) < -0.035) & (to_pillar > 0.05)
    return sides | end_windows(mesh, body, 0.09)


def _paint_seams(mesh: Mesh, body: Body) -> None:
    """The doors' edges, in place."""
    x, _, z = mesh.vertices.T
    cabin = body.cabin
    edges = (cabin[0] * 0.8, (cabin[0] + cabin[3]) / 2 - 0.1, cabin[3] * 0.75)
    to_edge = np.min([abs(x - edge) for edge in edges], 0)
    seam = (to_edge < 0.018) & (abs(mesh.normals[:, 1]) > 0.6) & (z < body.beltline) & (z > body.clearance + 0.2)
    mesh.colors[seam] *= 0.35


def _mirror(sign: int, body: Body, color: np.ndarray, rng: np.random.Generator) -> Mesh:
    center = (body.cabin[0] - 0.1, sign * (body.half_width + 0.06), body.beltline + 0.1)
    mirror_color = color if rng.uniform(0, 1) < 0.7 else (0.02, 0.02, 0.02)
    return rounded_box(center, (0.06, 0.1, 0.07), 0.05, mirror_color, 0.3, subdivisions=6)


CATEGORY = Category("car", 7, COLORS, KEYPOINTS, make, follows_road=True, pose_as_noun=True)
