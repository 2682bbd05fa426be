"""Wooden chairs, padded or not, with slats, a panel or a ladder back."""

from __future__ import annotations

import numpy as np

from ..colors import rgb
from ..mesh import Mesh, merge, rotation_about, vec
from ..shapes import loft, rounded_box
from ..textures import WOOD_NAMES, WOODS, wooden
from .base import Category, Thing

KEYPOINTS = ("seat", "top", "leg0", "leg1", "leg2", "leg3")
PAD_COLORS = ("red", "blue", "green", "grey", "black", "beige", "yellow")
COLORS = (*dict.fromkeys(WOOD_NAMES), *PAD_COLORS)
BACKS = ("slats", "panel", "ladder")


def make(rng: np.random.Generator) -> Thing:
    """A chair; its colour is the pad's if it has one."""
    return _Chair(rng).build()


class _Chair:
    """One chair being built; metres."""

    def __init__(self, rng: np.random.Generator):
        uniform = rng.uniform
        self.rng = rng
        self.half_width = uniform(0.2, 0.26)
        self.half_depth = uniform(0.2, 0.25)
        self.seat_z = uniform(0.42, 0.5)
        self.back_height = uniform(0.35, 0.55)
        kind = rng.integers(5)
        self.color_name = WOOD_NAMES[kind]
        self.wood = vec(*WOODS[kind])
        self.padded = uniform(0, 1) < 0.5
        self.splay = uniform(0, 0.05)
        self.recline = uniform(0.02, 0.12)

    def build(self) -> Thing:
        width, depth, seat_z = self.half_width, self.half_depth, self.seat_z
        seat = rounded_box((0, 0, seat_z), (depth, width, 0.025), 0.015, self.wood, subdivisions=24)
        meshes = [wooden(seat, self.wood)]
        if self.padded:
            self.color_name = str(self.rng.choice(PAD_COLORS))
            pad_size = (depth * 0.95, width * 0.95, 0.035)
            pad = rounded_box((0, 0, seat_z + 0.04), pad_size, 0.033, rgb(self.color_name), 0.9, subdivisions=14)
            meshes.append(pad)
        meshes += [self._leg(sign_x, sign_y) for sign_x in (-1, 1) for sign_y in (-1, 1)]
        meshes += self._back()
        keypoints = {"seat": vec(0, 0, seat_z), "top": vec(-depth - self.recline, 0, seat_z + self.back_height)}
        for i, (sign_x, sign_y) in enumerate(((1, 1), (1, -1), (-1, 1), (-1, -1))):
            keypoints[f"leg{i}"] = vec(sign_x * depth, sign_y * width, 0)
        return Thing(merge(meshes), keypoints, self.color_name, "chair")

    def _leg(self, sign_x: int, sign_y: int) -> Mesh:
        top_x, top_y = sign_x * (self.half_depth - 0.03), sign_y * (self.half_width - 0.03)
        path = [
            (top_x + (sign_x * self.splay) * (1 - q), top_y + sign_y * self.splay * (1 - q), self.seat_z * q)
            for q in np.linspace(0, 1, 8)
        ]
        return wooden(loft(path, np.linspace(0.016, 0.023, 8), self.wood, 8, 0.5), self.wood, axis=2)

    def _on_back(self, y: float, share: float) -> np.ndarray:
        """The point of the back's plane at a fraction of its height, (3,)."""
        x = -self.half_depth + 0.02 - self.recline * share
        return vec(x, y, self.seat_z + self.back_height * share)

    def _back(self) -> list[Mesh]:
        width, wood, height = self.half_width, self.wood, self.back_height
        style = self.rng.choice(BACKS)
        meshes = []
        for sign in (-1, 1):
            path = [self._on_back(sign * (width - 0.025), q) for q in np.linspace(0, 1, 8)]
            meshes.append(wooden(loft(path, [0.02] * 8, wood, 8), wood, axis=2))
        if style == "slats":
            for y in np.linspace(-width * 0.7, width * 0.7, 5):
                path = [self._on_back(y, 0), self._on_back(y, 1)]
                meshes.append(loft(path, [(0.02, 0.008)] * 2, wood * 0.9, 8, up=(1, 0, 0)))
            rail_size = (0.015, width, 0.045)
            meshes.append(rounded_box(self._on_back(0, 1), rail_size, 0.014, wood, subdivisions=10))
        elif style == "panel":
            panel_size = (0.02 + 0.02 * self.padded, width * 0.95, height * 0.38)
            color = rgb(self.color_name) if self.padded else wood
            rotation = rotation_about("y", -np.arctan2(self.recline, height))
            center = self._on_back(0, 0.62)
            meshes.append(rounded_box(center, panel_size, 0.02, color, 0.8, subdivisions=14, rotation=rotation))
        else:
            for q in (0.3, 0.6, 0.95):
                meshes.append(rounded_box(self._on_back(0, q), (0.012, width, 0.035), 0.01, wood, subdivisions=10))
        return meshes


CATEGORY = Category("chair", 9, COLORS, KEYPOINTS, make, faces_camera=True)
