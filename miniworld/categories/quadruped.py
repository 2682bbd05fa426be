"""The builder that the four-legged animals share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from ..colors import rgb
from ..fur import fur
from ..mesh import Mesh, merge, triangle_soup_faces, vec
from ..noise import smoothstep, value_noise
from ..sdf import SmoothBody
from .base import SIDES, Category, Keypoints, Thing

KEYPOINTS = (
    *("l_ear", "r_ear"),
    *("lf_knee", "lf_paw", "lh_knee", "lh_paw"),
    *("rf_knee", "rf_paw", "rh_knee", "rh_paw"),
    *("nose", "throat", "withers", "tail_base"),
)
NOSE_COLOR = (0.02, 0.015, 0.015)
EYE_COLOR = (0.01, 0.008, 0.006)
HORN_COLOR = (0.5, 0.45, 0.35)


@dataclass(frozen=True)
class Species:
    """Build and coat of a species. Lengths are shares of the shoulder height unless said otherwise."""

    shoulder_height: tuple[float, float]
    """Least and most, metres."""
    body_length: float
    chest_radius: float
    hip_radius: float
    leg_radius: float
    neck_length: float
    neck_angle: float
    """Degrees above the horizontal."""
    head_radius: float
    snout_length: float
    snout_radius: float
    ear_length: float
    tail_length: float
    colors: tuple[str, ...]
    poses: tuple[str, ...] = ("stand", "walk", "graze")
    patterns: tuple[str, ...] = ("plain", "patch", "belly", "patch")
    floppy_ears: float = 0.0
    """Probability of an ear that hangs."""
    ear_droop: float = 0.2
    horned: bool = False
    dark_face: float = 0.0
    """Probability."""
    lively_tail: bool = False
    """Held up and curved, not hanging."""
    bump: float = 0.012
    bump_frequency: float = 5
    """Cycles a shoulder height."""
    furry: bool = True
    fur_length: float | None = None
    """None: anything from 0.03 to 0.12."""
    fur_jitter: float = 0.25
    mane: bool = False


def category(name: str, class_id: int, species: Species, plural: str = "") -> Category:
    """The category of a species."""
    return Category(name, class_id, species.colors, KEYPOINTS, partial(make, species), plural=plural)


def make(species: Species, rng: np.random.Generator) -> Thing:
    """An animal of the species."""
    return _Quadruped(species, rng).build()


class _Quadruped:
    """One animal being built: first its measures, then part by part. Lengths in metres."""

    def __init__(self, species: Species, rng: np.random.Generator):
        self.species, self.rng = species, rng
        self.body = SmoothBody()
        self.keypoints: Keypoints = {}
        self._draw_measures()
        self._draw_coat()
        self._draw_pose()

    def build(self) -> Thing:
        self._add_torso()
        self._add_head()
        for sign, side in SIDES:
            self._add_ear_and_eye(sign, side)
        stride = {"stand": 0.12, "walk": 0.5}.get(self.pose, 0.1)
        phase = self.rng.uniform(0, 6.28)
        for sign, side in SIDES:
            self._add_front_leg(sign, side, stride, phase)
            self._add_hind_leg(sign, side, stride, phase)
        self._add_tail(phase)
        skin = self.body.mesh(84, 0.014, self.species.bump * self.height, self.species.bump_frequency / self.height)
        self._paint(skin)
        self.keypoints |= {
            "nose": self.nose,
            "throat": self.neck_base,
            "withers": self.shoulder + vec(-0.1 * self.length, 0, self.chest),
            "tail_base": self.tail_base,
        }
        return Thing(merge([skin, *self._hair(skin)]), self.keypoints, self.color_name, self.pose)

    def _draw_measures(self) -> None:
        species, uniform = self.species, self.rng.uniform
        height = uniform(*species.shoulder_height)

        def vary(share: float, spread: float = 0.15) -> float:
            return height * (share * uniform(1 - spread, 1 + spread))

        self.height = height
        self.length = vary(species.body_length, 0.12)
        self.chest = vary(species.chest_radius)
        self.hip_radius = vary(species.hip_radius)
        self.leg = vary(species.leg_radius, 0.2)
        self.head_radius = vary(species.head_radius, 0.1)
        self.snout_radius = vary(species.snout_radius)
        self.snout_length = vary(species.snout_length, 0.3)
        self.neck_length = vary(species.neck_length, 0.2)
        self.neck_angle = np.radians(species.neck_angle + uniform(-12, 12))
        self.blend = 0.09 * height

    def _draw_coat(self) -> None:
        species, uniform = self.species, self.rng.uniform
        self.color_name = str(self.rng.choice(species.colors))
        self.color = rgb(self.color_name) * uniform(0.75, 1.25)
        self.second_color = rgb("white") * 0.8 if uniform(0, 1) < 0.5 else self.color * 0.45
        self.sock_color = self.second_color if uniform(0, 1) < 0.4 else self.color * 0.8
        dark_face = species.dark_face and uniform(0, 1) < species.dark_face
        self.face_color = self.color * 0.25 if dark_face else self.color

    def _draw_pose(self) -> None:
        self.pose = str(self.rng.choice(self.species.poses))
        if self.pose == "graze":
            self.neck_angle = np.radians(self.rng.uniform(-60, -35))
        height, length = self.height, self.length
        if self.pose == "sit":
            self.hip, self.shoulder = vec(-0.22 * length, 0, 0.27 * height), vec(0.25 * length, 0, 0.74 * height)
        else:
            self.hip, self.shoulder = vec(-0.4 * length, 0, 0.8 * height), vec(0.4 * length, 0, 0.8 * height)

    def _add_torso(self) -> None:
        hip, shoulder, color, blend = self.hip, self.shoulder, self.color, self.blend
        chest, hip_radius = self.chest, self.hip_radius
        middle = (hip + shoulder) / 2 - vec(0, 0, 0.03 * self.height)
        breast = shoulder + vec(-0.02 * self.length, 0, -0.02 * self.height)
        self.body.capsule(hip, middle, hip_radius, (chest + hip_radius) / 2, color, blend)
        self.body.capsule(middle, shoulder, (chest + hip_radius) / 2, chest, color, blend)
        self.body.ellipsoid(breast, (chest * 1.1, chest * 0.95, chest * 1.2), color, blend)
        self.body.ellipsoid(hip, (hip_radius * 1.15, hip_radius * 1.0, hip_radius * 1.1), color, blend)

    def _add_head(self) -> None:
        uniform, angle, radius = self.rng.uniform, self.neck_angle, self.head_radius
        self.neck_base = self.shoulder + vec(0.05 * self.length, 0, self.chest * 0.45)
        reach = self.neck_length + self.chest * 0.3
        self.neck_end = self.neck_base + vec(np.cos(angle), 0, np.sin(angle)) * reach
        yaw = uniform(-0.7, 0.7)
        pitch = uniform(-0.15, 0.5) if self.pose != "graze" else uniform(0.7, 1.1)
        ahead = vec(np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), -np.sin(pitch))
        left = vec(-np.sin(yaw), np.cos(yaw), 0)
        upward = np.cross(ahead, left)
        neck_root = self.neck_base - vec(0.08 * self.length, 0, self.chest * 0.3)
        self.body.capsule(neck_root, self.neck_end, self.chest * 0.75, radius * 0.85, self.color, self.blend)

        head = self.neck_end + ahead * radius * 0.4
        self.nose = head + ahead * (self.snout_length + radius * 0.5)
        brow = head + ahead * radius * 0.4 - upward * radius * 0.2
        snout = self.snout_radius
        self.body.ball(head, radius * 1.1, self.face_color, self.blend * 0.6)
        self.body.capsule(
            brow, self.nose - upward * snout * 0.4, snout * 1.25, snout * 0.85, self.face_color, self.blend * 0.5
        )
        self.body.ball(self.nose + ahead * snout * 0.6, snout * 0.42, NOSE_COLOR, 0.01, 0.35)
        self.head, self.ahead, self.left, self.upward = head, ahead, left, upward

    def _add_ear_and_eye(self, sign: int, side: str) -> None:
        species, height, radius = self.species, self.height, self.head_radius
        head, ahead, left, upward = self.head, self.ahead, self.left, self.upward
        ear = head + left * sign * radius * 0.75 + upward * radius * 0.75
        floppy = species.floppy_ears == 1 or (species.floppy_ears > 0 and self.rng.uniform(0, 1) < species.floppy_ears)
        if floppy:
            tip = ear + (left * sign * 0.8 - upward * species.ear_droop) * height * species.ear_length
        else:
            tip = ear + (upward + left * sign * 0.25) * height * species.ear_length
        eye = head + ahead * radius * 0.85 + left * sign * radius * 0.5 + upward * radius * 0.35
        self.body.capsule(ear, tip, radius * 0.3, radius * 0.1, self.face_color * 0.8, 0.02 * height)
        self.body.ball(eye, radius * 0.17, EYE_COLOR, 0.004 * height, 0.1)
        self.keypoints[f"{side}_ear"] = tip
        if species.horned and self.color_name != "black":
            horn_tip = ear + upward * radius * 1.0 + left * sign * radius * 0.7
            self.body.capsule(ear + upward * radius * 0.2, horn_tip, radius * 0.2, radius * 0.08, HORN_COLOR, 0.01)

    def _add_front_leg(self, sign: int, side: str, stride: float, phase: float) -> None:
        height, leg, blend = self.height, self.leg, self.blend
        top = self.shoulder + vec(-0.02 * self.length, sign * self.chest * 0.55, -0.05 * height)
        phase = phase + (0 if sign > 0 else 3.14)
        swing = stride * np.sin(phase)
        bent = swing - abs(stride * 0.9 * max(0, np.cos(phase)))
        reach = top[2] - 0.04 * height if self.pose != "sit" else top[2] - 0.03 * height
        knee = top + vec(np.sin(swing), 0, -np.cos(swing)) * reach * 0.5
        paw = knee + vec(np.sin(bent), 0, -np.cos(bent)) * reach * 0.5
        self.body.capsule(top, knee, leg * 1.9, leg * 1.05, self.color, blend * 0.7)
        self.body.capsule(knee, paw, leg, leg * 0.72, self.sock_color, blend * 0.25)
        self._add_foot(paw)
        self.keypoints[f"{side}f_knee"], self.keypoints[f"{side}f_paw"] = knee, paw

    def _add_hind_leg(self, sign: int, side: str, stride: float, phase: float) -> None:
        height, leg, blend = self.height, self.leg, self.blend
        top = self.hip + vec(0, sign * self.hip_radius * 0.6, -0.03 * height)
        swing = stride * np.sin(phase + (3.14 if sign > 0 else 0))
        if self.pose == "sit":
            outward = sign * self.hip_radius * 0.4
            knee = top + vec(0.27 * height, outward, 0.1 * height)
            hock = top + vec(0.02 * height, outward, -0.17 * height)
            paw = top + vec(0.27 * height, outward, -0.2 * height)
        else:
            knee = top + vec(np.sin(swing + 0.3), 0, -np.cos(swing + 0.3)) * 0.28 * height
            hock = knee + vec(np.sin(swing - 0.55), 0, -np.cos(swing - 0.55)) * 0.27 * height
            paw = hock + vec(np.sin(swing + 0.1), 0, -np.cos(swing + 0.1)) * 0.23 * height
        self.body.capsule(top, knee, leg * 2.3, leg * 1.4, self.color, blend * 0.8)
        self.body.capsule(knee, hock, leg * 1.3, leg * 0.8, self.color, blend * 0.3)
        self.body.capsule(hock, paw, leg * 0.8, leg * 0.7, self.sock_color, blend * 0.2)
        self._add_foot(paw)
        self.keypoints[f"{side}h_knee"], self.keypoints[f"{side}h_paw"] = knee, paw

    def _add_foot(self, paw: np.ndarray) -> None:
        leg = self.leg
        toes = paw + vec(leg * 0.5, 0, -leg * 0.1)
        self.body.ellipsoid(toes, (leg * 1.35, leg, leg * 0.75), self.sock_color * 0.8, self.blend * 0.2)

    def _add_tail(self, phase: float) -> None:
        uniform, height, leg, lively = self.rng.uniform, self.height, self.leg, self.species.lively_tail
        if self.pose == "sit":
            self.tail_base = self.hip + vec(-self.hip_radius, 0, -self.hip_radius * 0.2)
        else:
            self.tail_base = self.hip + vec(-self.hip_radius * 0.9, 0, self.hip_radius * 0.6)
        angle = uniform(0.2, 1.1) if lively else -1.35
        start = self.tail_base
        for i in range(4):
            direction = vec(-np.cos(angle), np.sin(phase + i) * 0.3, np.sin(angle))
            end = start + direction * height * self.species.tail_length / 4
            end[2] = max(end[2], 0.06 * height)
            self.body.capsule(
                start,
                end,
                leg * 0.75 * (1 - i * 0.14),
                leg * 0.75 * (0.86 - i * 0.14),
                self.color * 0.9,
                self.blend * 0.3,
            )
            start = end
            angle += uniform(-0.1, 0.5) if lively else 0

    def _paint(self, skin: Mesh) -> None:
        """Lays the second colour over the skin, in place."""
        points, height = skin.vertices, self.height
        pattern = self.rng.choice(self.species.patterns)
        if pattern == "patch":
            weight = smoothstep(value_noise(points, 2.6 / height, 2, 1), 0.5, 0.56)
        elif pattern == "belly":
            weight = smoothstep(-skin.normals[:, 2] + 0.4 * (value_noise(points, 5 / height, 2) - 0.5), 0.1, 0.7)
        elif pattern == "stripe":
            waves = np.sin(points[:, 0] * 34 / height + 3 * value_noise(points, 4 / height, 2))
            weight = 0.8 * smoothstep(waves, 0.2, 0.7) * (points[:, 2] > 0.3 * height)
        else:
            weight = 0 * points[:, 0]
        weight = (weight * (skin.colors.max(1) > 0.03))[:, None]  # not over the eyes and the nose
        mottling = 0.7 + 0.6 * value_noise(points, 18 / height, 2, 2)[:, None]
        skin.colors = (skin.colors * (1 - weight) + self.second_color * weight) * mottling

    def _hair(self, skin: Mesh) -> list[Mesh]:
        species, hair = self.species, []
        if species.furry:
            sampled = self.rng.uniform(0.03, 0.12)  # even where the length is given: world version 1 does so
            length = sampled if species.fur_length is None else species.fur_length
            hair.append(fur(skin, 9000, self.height * length, self.rng, width=0.1, jitter=species.fur_jitter))
        if species.mane:
            hair.append(self._mane_and_tail_hair())
        return hair

    def _mane_and_tail_hair(self) -> Mesh:
        rng, mane, tail = self.rng, 900, 700
        count = mane + tail
        crest = self.neck_end + self.upward * self.head_radius * 0.8 - self.neck_base
        mane_roots = crest[None] * rng.random((mane, 1)) + self.neck_base + vec(-0.05, 0, self.chest * 0.35)
        tail_roots = self.tail_base + vec(-0.04, 0, 0) + rng.normal(0, 0.03, (tail, 3))
        roots = np.concatenate([mane_roots + rng.normal(0, 0.025, (mane, 3)), tail_roots]).astype(np.float32)
        falling = np.concatenate(
            [
                np.tile(vec(-0.25, 0.35 * rng.choice([-1, 1]), -0.5), (mane, 1)) * 0.28,
                np.tile(vec(-0.15, 0, -1), (tail, 1)) * self.height * 0.42,
            ]
        )
        strands = falling * (0.6 + 0.6 * rng.random((count, 1))) + rng.normal(0, 0.05, (count, 3))
        thickness = rng.normal(0, 0.012, (count, 3))
        vertices = np.stack([roots - thickness, roots + thickness, roots + strands], 1).reshape(-1, 3)
        colors = np.repeat(self.color * 0.25 * (0.6 + rng.random((count, 1))), 3, 0)
        return Mesh.create(vertices, triangle_soup_faces(count), colors, 0.6)
