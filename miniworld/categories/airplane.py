"""Twin-engined passenger jets."""

from __future__ import annotations

import numpy as np

from ..colors import random_rgb, rgb
from ..mesh import Mesh, merge, rotation_about, vec
from ..noise import smoothstep
from ..shapes import loft, rounded_box
from .base import Category, Keypoints, Thing
from .road_vehicle import wheel

KEYPOINTS = ("nose", "tail", "l_wingtip", "r_wingtip")
COLORS = ("white", "silver", "white", "blue", "red", "yellow")
STRUT = (0.4, 0.4, 0.4)
GLASS = (0.01, 0.012, 0.02)


def make(rng: np.random.Generator) -> Thing:
    """An airplane on its wheels."""
    return _Airplane(rng).build()


class _Airplane:
    """One airplane being built; `length` and fuselage `radius` in metres set the scale."""

    def __init__(self, rng: np.random.Generator):
        uniform = rng.uniform
        self.rng = rng
        self.length = uniform(12, 22)
        self.radius = self.length * uniform(0.045, 0.062)
        self.color_name = str(rng.choice(COLORS))
        self.color = rgb(self.color_name)
        self.accent = random_rgb(rng, ("blue", "red", "orange", "green"))
        self.axis_z = self.radius * 2.1

    def build(self) -> Thing:
        meshes = [self._fuselage()]
        for sign in (-1, 1):
            meshes += [self._wing(sign), self._tailplane(sign), *self._engine(sign)]
            meshes += [*self._windows(sign), *self._main_gear(sign)]
        meshes += [self._fin(), *self._nose_gear(), self._cockpit()]
        return Thing(merge(meshes), self._keypoints(), self.color_name, "jet")

    def _keypoints(self) -> Keypoints:
        length, radius, z = self.length, self.radius, self.axis_z
        return {
            "nose": vec(length / 2, 0, z),
            "tail": vec(-length * 0.48, 0, z + length * 0.15),
            "l_wingtip": vec(-length * 0.15, length * 0.45 + radius, z),
            "r_wingtip": vec(-length * 0.15, -length * 0.45 - radius, z),
        }

    def _fuselage(self) -> Mesh:
        length, radius, z = self.length, self.radius, self.axis_z
        t = np.linspace(0, 1, 60)
        nose = np.minimum(1, np.sqrt(np.clip(t / 0.1, 0, 1)) ** 0.9)
        radii = radius * nose * (1 - 0.88 * smoothstep(t, 0.62, 1.0))
        path = np.stack([length / 2 - length * t, 0 * t, z + radius * 0.75 * smoothstep(t, 0.65, 1)], 1)
        mesh = loft(path, np.maximum(radii, 0.02), self.color, 32, 0.3)
        height = (mesh.vertices - vec(0, 0, z))[:, 2]
        mesh.colors[abs(height + radius * 0.15) < radius * 0.14] = self.accent
        mesh.colors[height < -radius * 0.45] = self.color * 0.55
        return mesh

    def _wing(self, sign: int) -> Mesh:
        length, radius, z = self.length, self.radius, self.axis_z
        path = [
            (
                length * 0.1 - length * 0.25 * q,
                sign * (radius * 0.7 + length * 0.45 * q),
                z - radius * 0.35 + radius * q * 0.8,
            )
            for q in (0, 0.3, 0.6, 0.95, 1)
        ]
        radii = [(length * 0.1 * (1 - 0.68 * q), radius * 0.17 * (1 - 0.6 * q)) for q in (0, 0.3, 0.6, 0.95, 1.05)]
        return loft(path, radii, self.color * 0.85, 16, 0.35)

    def _tailplane(self, sign: int) -> Mesh:
        length, radius, z = self.length, self.radius, self.axis_z
        path = [
            (-length * 0.42 - length * 0.09 * q, sign * (radius * 0.2 + length * 0.17 * q), z + radius * 0.6)
            for q in (0, 0.5, 1)
        ]
        radii = [(length * 0.055 * (1 - 0.5 * q), radius * 0.09) for q in (0, 0.5, 1)]
        return loft(path, radii, self.color * 0.9, 12, 0.35)

    def _engine(self, sign: int) -> list[Mesh]:
        length, radius, z = self.length, self.radius, self.axis_z
        center = vec(length * 0.07, sign * length * 0.16, z - radius * 0.85)
        path = [center + vec(q * length * 0.06, 0, 0) for q in (1, 0.9, 0, -0.9)]
        radii = radius * vec(0.38, 0.46, 0.44, 0.25)
        color = self.accent if self.rng.uniform(0, 1) < 0.5 else self.color * 0.8
        intake = [center + vec(0.05 * length, 0, 0), center + vec(0.049 * length, 0, 0)]
        return [
            loft(path, radii, color, 18, 0.3, capped=False),
            loft(intake, [radius * 0.36, 0.01], (0.01, 0.01, 0.01), 18, 0.5),
        ]

    def _windows(self, sign: int) -> list[Mesh]:
        length, radius, z = self.length, self.radius, self.axis_z
        return [
            rounded_box(
                (length / 2 - length * q, sign * radius * 0.985, z + radius * 0.2),
                (radius * 0.055, 0.02, radius * 0.085),
                0.015,
                GLASS,
                0.1,
                subdivisions=3,
            )
            for q in np.arange(0.17, 0.72, 0.022)
        ]

    def _main_gear(self, sign: int) -> list[Mesh]:
        length, radius = self.length, self.radius
        x, y = -length * 0.03, sign * radius * 1.1
        strut = loft([(x, y, self.axis_z - radius), (x, y, radius * 0.3)], [radius * 0.06, radius * 0.06], STRUT, 8)
        return [strut, *wheel(x, y, radius * 0.3, radius * 0.3, radius * 0.2, vec(*STRUT))]

    def _nose_gear(self) -> list[Mesh]:
        length, radius = self.length, self.radius
        x = length * 0.4
        strut = loft([(x, 0, self.axis_z - radius * 0.8), (x, 0, radius * 0.3)], [radius * 0.05] * 2, STRUT, 8)
        return [strut, *wheel(x, 0.01, radius * 0.25, radius * 0.25, radius * 0.2, vec(*STRUT))]

    def _fin(self) -> Mesh:
        length, radius, z = self.length, self.radius, self.axis_z
        path = [(-length * 0.36 - length * 0.12 * q, 0, z + radius * 0.6 + length * 0.15 * q) for q in (0, 0.5, 1)]
        radii = [(radius * 0.09, length * 0.085 * (1 - 0.55 * q)) for q in (0, 0.5, 1)]
        return loft(path, radii, self.accent, 12, 0.35, up=(1, 0, 0))

    def _cockpit(self) -> Mesh:
        radius = self.radius
        center = (self.length / 2 - radius * 0.62, 0, self.axis_z + radius * 0.5)
        half_size = (radius * 0.22, radius * 0.5, radius * 0.13)
        rotation = rotation_about("y", 0.5)
        return rounded_box(center, half_size, radius * 0.12, GLASS, 0.08, subdivisions=8, rotation=rotation)


CATEGORY = Category("airplane", 1, COLORS, KEYPOINTS, make, only_first=True)
