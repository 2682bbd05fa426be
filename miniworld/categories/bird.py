"""Birds, from wren to goose: perched, or flying with spread wings."""

from __future__ import annotations

import numpy as np

from ..colors import rgb
from ..fur import fur
from ..mesh import merge, rotation_about, vec
from ..noise import value_noise
from ..sdf import SmoothBody
from .base import SIDES, Category, Keypoints, Thing

KEYPOINTS = ("beak", "crown", "throat", "back", "tail", "l_foot", "l_wing", "r_foot", "r_wing")
COLORS = ("white", "grey", "black", "blue", "red", "yellow", "brown", "green")
EYE = (0.005, 0.005, 0.005)


def make(rng: np.random.Generator) -> Thing:
    """A bird."""
    return _Bird(rng).build()


class _Bird:
    """One bird being built. `size` is about its length in metres; everything scales with it."""

    def __init__(self, rng: np.random.Generator):
        uniform = rng.uniform
        self.rng = rng
        self.body = SmoothBody()
        self.size = uniform(0.1, 0.45)
        self.color_name = str(rng.choice(COLORS))
        self.color = rgb(self.color_name) * uniform(0.7, 1.1)
        self.blend = 0.12 * self.size
        self.flying = uniform(0, 1) < 0.3
        self.beak_color = vec(0.6, 0.3, 0.05) if uniform(0, 1) < 0.6 else vec(0.05, 0.05, 0.05)
        self.center = vec(0, 0, (0.75 if not self.flying else 0.6) * self.size)

    def build(self) -> Thing:
        keypoints = self._add_body_and_head()
        for sign, side in SIDES:
            self._add_eye(sign)
            keypoints[f"{side}_foot"] = self._add_foot(sign)
            keypoints[f"{side}_wing"] = self._add_spread_wing(sign) if self.flying else self._add_folded_wing(sign)
        size = self.size
        skin = self.body.mesh(90, 0.01, 0.015 * size, 6 / size)
        skin.colors *= 0.75 + 0.5 * value_noise(skin.vertices, 12 / size, 2)[:, None]
        feathers = fur(skin, 4000, 0.06 * size, self.rng, width=0.25, jitter=0.15)
        return Thing(merge([skin, feathers]), keypoints, self.color_name, "flying" if self.flying else "perched")

    def _add_body_and_head(self) -> Keypoints:
        uniform, body, color = self.rng.uniform, self.body, self.color
        size, blend, center = self.size, self.blend, self.center
        belly_color = color * 0.4 + vec(0.4, 0.38, 0.33) * 0.6
        length, neck = uniform(0.7, 1.0), uniform(0.2, 0.7)
        head = self.head = center + vec(0.35, 0, 0.28 + neck * 0.3) * size
        rump, breast = center + vec(-0.35 * length, 0, -0.05) * size, center + vec(0.2, 0, 0.08) * size
        body.capsule(rump, breast, 0.2 * size, 0.3 * size, color, blend)
        belly_radii = (0.36 * size, 0.24 * size, 0.24 * size)
        body.ellipsoid(center + vec(0.08, 0, -0.08) * size, belly_radii, belly_color, blend)
        body.capsule(center + vec(0.2, 0, 0.1) * size, head, 0.22 * size, 0.13 * size, color, blend)
        body.ellipsoid(head, (0.19 * size, 0.165 * size, 0.17 * size), color, blend * 0.5)

        beak_length = uniform(0.12, 0.35)
        beak_tip = head + vec(0.17 + beak_length, 0, -0.05) * size
        beak_root = head + vec(0.14, 0, -0.01) * size
        body.capsule(beak_root, beak_tip, 0.06 * size, 0.015 * size, self.beak_color, 0.02 * size, 0.4)
        tail = center + vec(-0.75 * length - 0.2, 0, uniform(-0.15, 0.1)) * size
        tail_middle = (center + vec(-0.35 * length, 0, 0) * size) * 0.4 + tail * 0.6
        tail_radii = (0.38 * size, 0.13 * size, 0.035 * size)
        body.ellipsoid(tail_middle, tail_radii, color * 0.6, blend * 0.5, rotation_about("y", 0.1))
        return {
            "beak": beak_tip,
            "crown": head + vec(0, 0, 0.15 * size),
            "throat": center + vec(0.3, 0, 0.1) * size,
            "back": center + vec(-0.1, 0, 0.27) * size,
            "tail": tail,
        }

    def _add_eye(self, sign: int) -> None:
        size = self.size
        self.body.ball(self.head + vec(0.08, sign * 0.13, 0.04) * size, 0.035 * size, EYE, 0.005 * size, 0.1)

    def _add_foot(self, sign: int) -> np.ndarray:
        size, center, color = self.size, self.center, self.beak_color * 0.8
        if self.flying:
            foot = center + vec(-0.25, sign * 0.08, -0.3) * size
        else:
            foot = center + vec(0.08, sign * 0.1, -0.73) * size
        hip, toes = center + vec(0, sign * 0.1, -0.2) * size, foot + vec(0.14, 0, -0.005) * size
        self.body.capsule(hip, foot, 0.035 * size, 0.02 * size, color, 0.03 * size)
        self.body.capsule(foot, toes, 0.02 * size, 0.012 * size, color, 0.01 * size)
        return foot

    def _add_spread_wing(self, sign: int) -> np.ndarray:
        size, center, color = self.size, self.center, self.color
        angle = self.rng.uniform(-0.2, 0.9)
        elbow = center + vec(0.1, sign * (0.2 + 0.6 * np.cos(angle)), 0.15 + 0.6 * np.sin(angle)) * size
        tip = elbow + vec(-0.25, sign * 0.55, 0.1) * size
        for i in range(4):
            root = center + vec(0.15 - 0.1 * i, sign * 0.18, 0.12) * size
            middle = elbow - vec(0.09 * i, 0, 0) * size
            end = tip - vec(0.06 * i, sign * 0.08 * i, 0) * size
            self.body.capsule(root, middle, 0.05 * size, 0.04 * size, color * 0.8, 0.06 * size)
            self.body.capsule(middle, end, 0.045 * size, 0.02 * size, color * 0.5, 0.05 * size)
        return tip

    def _add_folded_wing(self, sign: int) -> np.ndarray:
        size, center = self.size, self.center
        radii = (0.42 * size, 0.07 * size, 0.2 * size)
        middle = center + vec(-0.14, sign * 0.22, 0.05) * size
        self.body.ellipsoid(middle, radii, self.color * 0.65, 0.03 * size, rotation_about("y", -0.25))
        return center + vec(-0.5, sign * 0.17, -0.05) * size


CATEGORY = Category("bird", 3, COLORS, KEYPOINTS, make, sky_pose="flying")
