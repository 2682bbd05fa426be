"""Sofas of one to three seats, with cushions."""

from __future__ import annotations

import numpy as np

from ..colors import random_rgb, rgb
from ..mesh import Mesh, merge, rotation_about, vec
from ..noise import value_noise
from ..shapes import loft, rounded_box
from .base import Category, Thing

KEYPOINTS = ("l_arm", "r_arm", "back")
COLORS = ("red", "blue", "green", "grey", "brown", "beige", "white", "black", "purple", "yellow")


def make(rng: np.random.Generator) -> Thing:
    """A sofa, looking along +x."""
    return _Sofa(rng).build()


class _Sofa:
    """One sofa being built; metres."""

    def __init__(self, rng: np.random.Generator):
        uniform = rng.uniform
        self.rng = rng
        self.color_name = str(rng.choice(COLORS))
        self.color = rgb(self.color_name) * uniform(0.7, 1.1) + 0.02
        self.seats = rng.integers(1, 4)
        self.half_seat = uniform(0.3, 0.36)
        self.half_width = self.half_seat * self.seats + 0.18
        self.half_depth = uniform(0.4, 0.46)
        self.height = uniform(0.38, 0.46)
        self.back_height = uniform(0.36, 0.5)
        self.arm_height = uniform(0.13, 0.26)
        self.rounding = uniform(0.05, 0.13)

    def build(self) -> Thing:
        width, depth, height, back_height = self.half_width, self.half_depth, self.height, self.back_height
        meshes = self._frame()
        for i in range(self.seats):
            meshes += self._seat((i - (self.seats - 1) / 2) * 2 * self.half_seat)
        meshes += [self._cushion() for _ in range(self.rng.integers(0, 3))]
        mesh = merge(meshes)
        mesh.vertices += mesh.normals * (0.02 * (value_noise(mesh.vertices, 7, 2)[:, None] - 0.5))
        mesh.colors *= 0.8 + 0.4 * value_noise(mesh.vertices, 60, 2)[:, None]
        keypoints = {
            "l_arm": vec(depth, width - 0.09, height + self.arm_height),
            "r_arm": vec(depth, -width + 0.09, height + self.arm_height),
            "back": vec(-depth, 0, height + back_height),
        }
        return Thing(merge([mesh, *self._feet()]), keypoints, self.color_name, "sofa")

    def _upholstered(self, center: tuple, half_size: tuple, radius: float) -> Mesh:
        color = self.color * self.rng.uniform(0.93, 1.07)
        return rounded_box(center, half_size, radius, color, 0.9, subdivisions=18)

    def _frame(self) -> list[Mesh]:
        """Base, back and arms."""
        width, depth, height, back_height = self.half_width, self.half_depth, self.height, self.back_height
        half_arm, rounding = self.arm_height / 2, self.rounding
        base = self._upholstered((0, 0, height * 0.42), (depth, width - 0.05, height * 0.28), 0.04)
        back_center = (-depth + 0.1, 0, height + back_height * 0.4)
        back = self._upholstered(back_center, (0.13, width - 0.06, back_height * 0.75), rounding)
        arms = [
            self._upholstered(
                (0.0, sign * (width - 0.09), height * 0.55 + half_arm),
                (depth, 0.1, height * 0.42 + half_arm),
                min(rounding, 0.095),
            )
            for sign in (-1, 1)
        ]
        return [base, back, *arms]

    def _seat(self, y: float) -> list[Mesh]:
        depth, height, back_height, half_seat = self.half_depth, self.height, self.back_height, self.half_seat
        seat = self._upholstered((0.06, y, height * 0.82), (depth * 0.86, half_seat * 0.98, 0.085), 0.06)
        back = self._upholstered((0, 0, 0), (0.09, half_seat * 0.95, back_height * 0.5), 0.085)
        back_center = (-depth + 0.27, y, height + back_height * 0.52)
        return [seat, back.transformed(rotation_about("y", -0.18), back_center)]

    def _cushion(self) -> Mesh:
        uniform, width = self.rng.uniform, self.half_width
        cushion = rounded_box((0, 0, 0), (0.06, 0.19, 0.19), 0.058, random_rgb(self.rng), 0.9, subdivisions=12)
        rotation = rotation_about("z", uniform(-0.3, 0.3)) @ rotation_about("y", -0.35)
        center = (-self.half_depth + 0.42, uniform(-width + 0.35, width - 0.35), self.height + 0.25)
        return cushion.transformed(rotation, center)

    def _feet(self) -> list[Mesh]:
        feet = []
        for sign_x in (-1, 1):
            for sign_y in (-1, 1):
                x, y = sign_x * (self.half_depth - 0.06), sign_y * (self.half_width - 0.12)
                feet.append(loft([(x, y, 0), (x, y, self.height * 0.18)], [0.02, 0.03], (0.05, 0.03, 0.02), 8))
        return feet


CATEGORY = Category("sofa", 18, COLORS, KEYPOINTS, make, only_first=True, faces_camera=True)
