"""Boats: sailboats, motorboats and fishing boats. z = 0 is the waterline."""

from __future__ import annotations

import numpy as np

from ..colors import random_rgb, rgb
from ..mesh import Mesh, grid_faces, merge, vec
from ..noise import smoothstep
from ..shapes import loft, rounded_box
from .base import Category, Thing

KEYPOINTS = ("bow", "stern", "mast")
COLORS = ("white", "blue", "red", "green", "brown", "yellow")
KINDS = ("sailboat", "motorboat", "fishing boat")
STATIONS = 30
"""Cross-sections of the hull."""


def make(rng: np.random.Generator) -> Thing:
    """A boat; the pose is its make."""
    return _Boat(rng).build()


class _Boat:
    """One boat being built; `beam` is half its width, `depth` the height of the hull. Metres."""

    def __init__(self, rng: np.random.Generator):
        uniform = rng.uniform
        self.rng = rng
        self.length = uniform(4, 9)
        self.beam = self.length * uniform(0.24, 0.33) / 2
        self.depth = self.length * uniform(0.09, 0.13)
        self.color_name = str(rng.choice(COLORS))
        self.color = rgb(self.color_name)
        self.kind = str(rng.choice(KINDS))
        # From stern (0) to bow (1): half width, keel and gunwale.
        t = self.stations = np.linspace(0, 1, STATIONS)
        self.half_width = self.beam * np.clip(1 - smoothstep(t, 0.45, 1) ** 1.5 * 0.97, 0.02, 1)
        self.keel_z = -self.depth * 0.45 + self.depth * 0.9 * smoothstep(t, 0.6, 1) ** 2
        self.gunwale_z = self.depth * (0.75 + 0.5 * t**2)
        self.deck_z = self.depth * 0.75

    def build(self) -> Thing:
        length, depth, deck_z = self.length, self.depth, self.deck_z
        transom_size = (0.03 * length, self.beam * 0.95, depth * 0.3)
        transom = rounded_box((-0.44 * length, 0, depth * 0.5), transom_size, 0.02, self.color, subdivisions=3)
        meshes = [self._hull(), self._deck(), transom]
        if self.kind != "sailboat":
            meshes += self._cabin()
        mast_z = length * self.rng.uniform(0.9, 1.25) if self.kind == "sailboat" else depth * 4
        mast = [(0.08 * length, 0, deck_z * 0.8), (0.08 * length, 0, mast_z)]
        meshes.append(loft(mast, [0.012 * length, 0.006 * length], (0.6, 0.6, 0.6), 8, 0.3))
        if self.kind == "sailboat":
            meshes += self._sails(mast_z)
        keypoints = {
            "bow": vec(length * 0.53, 0, deck_z + depth * 0.5),
            "stern": vec(-length / 2, 0, deck_z),
            "mast": vec(0.08 * length, 0, mast_z),
        }
        return Thing(merge(meshes), keypoints, self.color_name, self.kind)

    def _hull(self) -> Mesh:
        length, depth, t = self.length, self.depth, self.stations
        around = np.linspace(-1, 1, 17)
        keel, gunwale = self.keel_z[:, None], self.gunwale_z[:, None]
        x = np.broadcast_to((length * (t - 0.5))[:, None], (STATIONS, 17)) + 0.06 * length * (t[:, None] ** 6) * (
            around[None] ** 2
        )
        y = self.half_width[:, None] * (np.sign(around) * abs(around) ** 0.6)
        z = keel + (gunwale - keel) * abs(around) ** 2.2
        vertices = np.stack([x, y, z], -1).reshape(-1, 3)
        mesh = Mesh.create(vertices, grid_faces(STATIONS, 17), self.color, 0.35)
        mesh.colors[vertices[:, 2] > 0.45 * depth] = rgb("white") * 0.85
        mesh.colors[vertices[:, 2] < 0.08 * depth] = self.color * 0.3
        return mesh

    def _deck(self) -> Mesh:
        x = np.broadcast_to((self.length * (self.stations - 0.5))[:, None], (STATIONS, 5))
        y = self.half_width[:, None] * np.linspace(-0.97, 0.97, 5)
        z = (self.gunwale_z - 0.12 * self.depth)[:, None] * np.ones(5)
        return Mesh.create(np.stack([x, y, z], -1).reshape(-1, 3), grid_faces(STATIONS, 5), (0.4, 0.24, 0.12), 0.6)

    def _cabin(self) -> list[Mesh]:
        uniform, length, deck_z = self.rng.uniform, self.length, self.deck_z
        height = uniform(0.6, 1.0) * self.depth * 1.6
        center = (uniform(-0.12, 0.08) * length, 0, deck_z + height * 0.5)
        half_size = (length * uniform(0.1, 0.16), self.beam * 0.62, height)
        cabin = rounded_box(center, half_size, 0.1 * height, (0.75, 0.75, 0.73), 0.4, subdivisions=22)
        x, y, z = cabin.vertices.T
        windows = (abs(z - deck_z - height * 0.95) < height * 0.25) & (np.sin(x * 9 + y * 5) > -0.8)
        cabin.colors[windows] = vec(0.02, 0.025, 0.03)
        cabin.roughness[windows] = 0.08
        roof_center = (cabin.vertices[:, 0].mean(), 0, deck_z + height * 1.55)
        roof_size = (length * 0.17, self.beam * 0.7, 0.05 * height)
        return [cabin, rounded_box(roof_center, roof_size, 0.02, self.color, subdivisions=4)]

    def _sails(self, mast_z: float) -> list[Mesh]:
        rng, length = self.rng, self.length
        color = random_rgb(rng, ("white", "white", "beige", "red", "blue"))
        up, along = np.meshgrid(np.linspace(0, 1, 16), np.linspace(0, 1, 16), indexing="ij")
        belly = rng.uniform(0.05, 0.12) * length * rng.choice([-1, 1])
        foot_z = self.deck_z + 0.08 * length
        sails = []
        for luff_x, clew_x, top in ((0.07, -0.42, 0.98), (0.1, 0.52, 0.85)):  # main sail, jib
            x = luff_x * length + (clew_x * length - luff_x * length) * along * (1 - up)
            y = belly * np.sin(np.pi * along) * (1 - up)
            z = foot_z + up * (mast_z * top - self.deck_z - 0.08 * length)
            vertices = np.stack([x, y, z], -1).reshape(-1, 3)
            sails.append(Mesh.create(vertices, grid_faces(16, 16), color * 0.95, 0.8))
        return sails


CATEGORY = Category("boat", 4, COLORS, KEYPOINTS, make, floats=True, pose_as_noun=True)
