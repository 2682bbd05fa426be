"""People: standing, walking, waving, or sitting on a chair of their own."""

from __future__ import annotations

import numpy as np

from ..colors import COLOR_NAMES, random_rgb, rgb
from ..mesh import Mesh, vec
from ..noise import value_noise
from ..sdf import SmoothBody
from .base import SIDES, Captioned, Category, Keypoints, Thing

JOINTS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
KEYPOINTS = (*(f"{side}_{joint}" for side in "lr" for joint in JOINTS), "head", "neck")
POSES = ("standing", "walking", "waving", "sitting")
TROUSERS = ("blue", "black", "grey", "brown", "beige", "white")
SHOES = ("black", "white", "brown", "red")
HAIR = ((0.02, 0.015, 0.01), (0.1, 0.05, 0.02), (0.4, 0.27, 0.1), (0.25, 0.24, 0.23))
EYE = (0.03, 0.02, 0.015)
HIP_ABOVE_CHAIR = 0.06
"""Metres."""


def make(rng: np.random.Generator) -> Thing:
    """A person; the colour is the shirt's."""
    return _Person(rng).build()


def phrase(person: Captioned, rng: np.random.Generator) -> str:
    """A caption's words for a single person."""
    return f"a {person.pose} person in a {person.color} shirt" if rng.random() < 0.7 else "a person"


class _Person:
    """One person being built: first every random number, then part by part. Lengths in metres."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.body = SmoothBody()
        self.keypoints: Keypoints = {}
        self._draw_looks()
        self._draw_pose()

    def build(self) -> Thing:
        self._add_trunk()
        self._add_head()
        for sign, side in SIDES:
            leg_joints, swing = self._add_leg(sign)
            joints = self._add_arm(sign, swing) | leg_joints
            self.keypoints |= {f"{side}_{name}": point for name, point in joints.items()}
        height = self.height
        if self.skirt:
            waist, hem = (0, 0, self.hip_z + 0.02 * height), (0.0, 0, self.hip_z - 0.16 * height)
            self.body.capsule(waist, hem, 0.07 * height, 0.125 * height, self.trousers, 0.02 * height)
        mesh = self.body.mesh(100, 0.006, 0.008 * height, 9)
        mesh.colors *= 0.8 + 0.4 * value_noise(mesh.vertices, 22, 2)[:, None]
        self._maybe_stripe_shirt(mesh)
        self.keypoints |= {"head": self.head, "neck": vec(0, 0, self.shoulder_z + 0.04 * height)}
        seat_height = self.keypoints["l_hip"][2] - HIP_ABOVE_CHAIR if self.pose == "sitting" else None
        return Thing(mesh, self.keypoints, self.shirt_name, self.pose, seat_height)

    def _draw_looks(self) -> None:
        rng, uniform = self.rng, self.rng.uniform
        self.height = uniform(1.5, 1.92)
        self.girth = uniform(0.9, 1.25)
        self.skin = vec(0.62, 0.38, 0.27) * uniform(0.18, 1.15)
        self.shirt_name = str(rng.choice(COLOR_NAMES))
        trousers_name = rng.choice(TROUSERS)
        self.shirt = rgb(self.shirt_name) * uniform(0.6, 1.2)
        self.trousers = rgb(trousers_name) * uniform(0.5, 1)
        self.hair = vec(*HAIR[rng.integers(4)])
        self.long_sleeves = uniform(0, 1) < 0.5
        self.skirt = uniform(0, 1) < 0.22
        self.long_hair = uniform(0, 1) < 0.4

    def _draw_pose(self) -> None:
        rng, uniform, height = self.rng, self.rng.uniform, self.height
        self.pose = str(rng.choice(POSES, p=[0.35, 0.35, 0.2, 0.1]))
        self.blend = 0.035 * height
        self.hip_z = 0.52 * height if self.pose != "sitting" else 0.29 * height
        self.shoulder_z = 0.81 * height + (self.hip_z - 0.52 * height)
        self.phase = uniform(0, 6.28)
        self.stride = {"standing": 0.08, "walking": 0.45}.get(self.pose, 0.1)
        self.sleeve_color = self.shirt if self.long_sleeves else self.skin
        self.leg_color = self.skin if self.skirt or uniform(0, 1) < 0.15 else self.trousers
        self.lean = uniform(-0.1, 0.1) * 0.3
        self.shoe_color = random_rgb(rng, SHOES) * 0.7

    def _add_trunk(self) -> None:
        height, girth, hip_z, shoulder_z = self.height, self.girth, self.hip_z, self.shoulder_z
        shirt, blend, lean = self.shirt, self.blend, self.lean
        pelvis_z, chest_z = hip_z + 0.01 * height, shoulder_z - 0.05 * height
        pelvis_radius = 0.054 * height * girth
        body = self.body
        body.capsule(
            (0, 0.055 * height, pelvis_z),
            (0, -0.055 * height, pelvis_z),
            pelvis_radius,
            pelvis_radius,
            self.trousers,
            blend,
        )
        belly, ribs = (0, 0, hip_z + 0.05 * height), (lean, 0, shoulder_z - 0.11 * height)
        body.capsule(belly, ribs, 0.072 * height * girth, 0.085 * height * girth, shirt, blend)
        left, right = (lean, 0.06 * height, chest_z), (lean, -0.06 * height, chest_z)
        body.capsule(left, right, 0.07 * height, 0.07 * height, shirt, blend)
        left, right = (0, 0.1 * height, shoulder_z), (0, -0.1 * height, shoulder_z)
        body.capsule(left, right, 0.037 * height, 0.037 * height, shirt, blend)
        nape = (0.01 * height, 0, shoulder_z + 0.06 * height)
        body.capsule((0, 0, shoulder_z), nape, 0.032 * height, 0.03 * height, self.skin, 0.02 * height)

    def _add_head(self) -> None:
        height, skin, hair, body = self.height, self.skin, self.hair, self.body

        def scaled(x: float, y: float, z: float) -> tuple[float, float, float]:
            return x * height, y * height, z * height

        head = self.head = vec(0.015 * height, 0, self.shoulder_z + 0.115 * height)
        body.ellipsoid(head, scaled(0.06, 0.05, 0.072), skin, 0.015 * height, roughness=0.5)
        body.ellipsoid(head + vec(*scaled(0.055, 0, -0.01)), scaled(0.016, 0.01, 0.014), skin, 0.012 * height)
        scalp = head + vec(*scaled(-0.014, 0, 0.022))
        body.ellipsoid(scalp, scaled(0.062, 0.057, 0.064), hair, 0.004 * height, roughness=0.5)
        for sign in (1, -1):
            eye = head + vec(0.056 * height, sign * 0.019 * height, 0.008 * height)
            body.ellipsoid(eye, scaled(0.006, 0.009, 0.006), EYE, 0.002 * height, roughness=0.2)
        mouth = head + vec(*scaled(0.055, 0, -0.034))
        lips = skin * vec(0.8, 0.4, 0.4)
        body.ellipsoid(mouth, scaled(0.006, 0.017, 0.005), lips, 0.002 * height)
        if self.long_hair:
            crown, ends = head + vec(*scaled(-0.045, 0, 0)), head + vec(*scaled(-0.05, 0, -0.13))
            body.capsule(crown, ends, 0.045 * height, 0.04 * height, hair, 0.02 * height, 0.5)

    def _add_leg(self, sign: int) -> tuple[Keypoints, float]:
        """Adds a leg; returns its joints and its swing in radians, forward positive."""
        height, girth, phase = self.height, self.girth, self.phase + (0 if sign > 0 else 3.14)
        swing = self.stride * np.sin(phase)
        hip = vec(0, sign * 0.055 * height, self.hip_z)
        if self.pose == "sitting":
            knee = hip + vec(0.235 * height, sign * 0.02 * height, 0.01)
            ankle = knee + vec(0.02 * height, 0, -0.24 * height)
        else:
            knee = hip + vec(np.sin(swing), 0, -np.cos(swing)) * 0.24 * height
            bent = swing - self.stride * max(0, np.cos(phase))
            ankle = knee + vec(np.sin(bent), 0, -np.cos(bent)) * 0.235 * height
        thigh_color = self.leg_color if self.skirt else self.trousers
        heel = ankle + vec(-0.015 * height, 0, -0.025 * height)
        toes = ankle + vec(0.085 * height, sign * 0.01 * height, -0.03 * height)
        body = self.body
        body.capsule(hip, knee, 0.05 * height * girth, 0.04 * height, thigh_color, self.blend)
        body.capsule(knee, ankle, 0.04 * height, 0.026 * height, self.leg_color, 0.015 * height)
        body.capsule(heel, toes, 0.026 * height, 0.022 * height, self.shoe_color, 0.01 * height, 0.4)
        return {"hip": hip, "knee": knee, "ankle": ankle}, swing

    def _add_arm(self, sign: int, leg_swing: float) -> Keypoints:
        """Adds an arm that swings against its leg; returns its joints."""
        uniform, height = self.rng.uniform, self.height
        shoulder = vec(self.lean, sign * 0.115 * height, self.shoulder_z - 0.01 * height)
        swing = -leg_swing * 1.1 if self.pose == "walking" else uniform(-0.2, 0.3)
        spread = uniform(0.08, 0.25)
        upper = vec(np.sin(swing), sign * np.sin(spread), -np.cos(swing) * np.cos(spread))
        elbow = shoulder + upper * 0.165 * height
        bend = uniform(0.1, 0.6)
        forearm = vec(np.sin(swing + bend), sign * 0.08, -np.cos(swing + bend))
        if self.pose == "waving" and sign > 0:
            elbow = shoulder + vec(0.02, sign * 0.85, 0.15 + uniform(0, 0.6)) * 0.16 * height
            forearm = vec(0.1, uniform(-0.3, 0.5), 1)
        direction = forearm / np.linalg.norm(forearm)
        wrist = elbow + direction * 0.15 * height
        body = self.body
        body.capsule(shoulder, elbow, 0.036 * height, 0.028 * height, self.shirt, 0.03 * height)
        body.capsule(elbow, wrist, 0.027 * height, 0.02 * height, self.sleeve_color, 0.012 * height)
        body.ball(wrist + direction * 0.035 * height, 0.024 * height, self.skin, 0.01 * height, 0.5)
        return {"shoulder": shoulder, "elbow": elbow, "wrist": wrist}

    def _maybe_stripe_shirt(self, mesh: Mesh) -> None:
        uniform, shirt, height = self.rng.uniform, self.shirt, mesh.vertices[:, 2]
        if uniform(0, 1) < 0.3:
            striped = np.sin(height * uniform(60, 130)) > 0
            on_shirt = abs(mesh.colors - shirt).sum(1) < 0.25 * shirt.sum() + 0.1
            mesh.colors[striped & on_shirt & (height > self.hip_z)] = rgb("white") * 0.8


CATEGORY = Category("person", 15, COLOR_NAMES, KEYPOINTS, make, plural="people", phrase=phrase)
