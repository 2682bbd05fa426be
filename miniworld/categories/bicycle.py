"""Bicycles with a diamond frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ..colors import rgb
from ..mesh import Mesh, merge, vec
from ..shapes import loft
from .base import Category, Thing

KEYPOINTS = ("f_wheel", "b_wheel", "seat", "handlebar")
COLORS = ("red", "blue", "black", "green", "white", "orange")
WHEEL_RADIUS = 0.34
STEEL = (0.5, 0.5, 0.5)
RUBBER = (0.03, 0.03, 0.03)
# Points of the frame, metres.
FRONT_HUB = vec(0.52, 0, WHEEL_RADIUS)
BACK_HUB = vec(-0.52, 0, WHEEL_RADIUS)
CRANK = vec(-0.08, 0, 0.29)
SEAT = vec(-0.24, 0, 0.82)
HEAD = vec(0.36, 0, 0.88)


def make(rng: np.random.Generator) -> Thing:
    """A bicycle; only its colour varies."""
    color_name = str(rng.choice(COLORS))
    rng.uniform(-0.25, 0.25)  # the steering angle, which world version 1 draws and does not use
    handlebar = HEAD + vec(-0.02, 0, 0.12)
    meshes = [*_wheel(FRONT_HUB), *_wheel(BACK_HUB), *_frame(rgb(color_name)), *_fittings(handlebar)]
    keypoints = {
        "f_wheel": FRONT_HUB.copy(),
        "b_wheel": BACK_HUB.copy(),
        "seat": SEAT + vec(0, 0, 0.1),
        "handlebar": handlebar,
    }
    return Thing(merge(meshes), keypoints, color_name, "bicycle")


def _tube(
    start: np.ndarray,
    end: np.ndarray,
    radius: float,
    color: ArrayLike,
    metallic: float = 0.0,
) -> Mesh:
    return loft([start, end], [radius, radius], color, 8, 0.3, metallic, up=(0.3, 1, 0.2))


def _wheel(hub: np.ndarray) -> list[Mesh]:
    """Tyre, rim and twenty spokes."""
    angles = np.linspace(0, 2 * np.pi, 41)
    radius = WHEEL_RADIUS

    def ring(radius: float) -> np.ndarray:
        return np.stack([hub[0] + radius * np.cos(angles), 0 * angles, hub[2] + radius * np.sin(angles)], 1)

    tire = loft(ring(radius), np.full(41, 0.021), (0.015, 0.015, 0.015), 8, 0.7, up=(0, 1, 0), capped=False)
    rim = loft(ring(0.92 * radius), np.full(41, 0.011), STEEL, 6, 0.25, 0.9, up=(0, 1, 0), capped=False)
    spokes = [
        _tube(hub, hub + radius * 0.92 * vec(np.cos(angle), 0, np.sin(angle)), 0.0028, STEEL, 0.9)
        for angle in angles[:40:2]
    ]
    return [tire, rim, *spokes]


def _frame(color: np.ndarray) -> list[Mesh]:
    left, right = vec(0, 0.04, 0), vec(0, -0.04, 0)
    seat_lug = SEAT - vec(0, 0, 0.1)
    tubes = [
        (CRANK, SEAT),
        (CRANK, HEAD - vec(0, 0, 0.12)),
        (seat_lug, HEAD - vec(0, 0, 0.06)),
        (HEAD, FRONT_HUB + left),
        (HEAD - vec(0, 0, 0.2), FRONT_HUB + right),
        (CRANK, BACK_HUB + left),
        (CRANK, BACK_HUB + right),
        (seat_lug, BACK_HUB + left),
        (seat_lug, BACK_HUB + right),
    ]
    return [_tube(start, end, 0.017, color) for start, end in tubes]


def _fittings(handlebar: np.ndarray) -> list[Mesh]:
    """Seat, handlebar, pedals and chainwheel."""
    seat_path = [SEAT + vec(-0.14, 0, 0.1), SEAT + vec(-0.05, 0, 0.11), SEAT + vec(0.13, 0, 0.09)]
    chainwheel_path = [CRANK + vec(0, -0.05, 0), CRANK + vec(0, -0.06, 0)]
    pedal = vec(0.1, 0.1, -0.12)
    return [
        _tube(SEAT - vec(0, 0, 0.1), SEAT + vec(-0.02, 0, 0.08), 0.014, STEEL, 0.9),
        loft(seat_path, [(0.075, 0.03), (0.06, 0.03), (0.02, 0.02)], RUBBER, 12),
        _tube(HEAD, handlebar, 0.014, STEEL, 0.9),
        _tube(handlebar + vec(0, 0.27, 0.02), handlebar - vec(0, 0.27, -0.02), 0.014, RUBBER),
        _tube(CRANK + pedal, CRANK - pedal, 0.012, (0.4, 0.4, 0.4), 0.9),
        loft(chainwheel_path, [0.1, 0.1], (0.3, 0.3, 0.3), 20, 0.3, 0.8),
    ]


CATEGORY = Category("bicycle", 2, COLORS, KEYPOINTS, make, follows_road=True)
