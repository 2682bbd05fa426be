"""Indoor floors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..colors import random_rgb
from ..mesh import vec
from ..noise import flat, value_noise
from ..textures import WOODS
from .ground import line_coverage

KINDS = ("planks", "planks", "tiles", "carpet", "concrete")
PLAIN_COLORS = ("grey", "beige", "white")
CARPET_COLORS = ("grey", "beige", "white", "brown", "blue", "red")

Surface = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Colours (n, 3), heights (n,) in metres, roughness (n,)."""
FloorFunction = Callable[[np.ndarray, np.ndarray], Surface]
"""From points (n, 2) and pixel footprints (n,), metres."""


def draw_floor(rng: np.random.Generator, kind: str | None) -> FloorFunction:
    """A floor of a kind, or of any."""
    uniform = rng.uniform
    kind = kind or str(rng.choice(KINDS))
    azimuth = uniform(0, 3.14)
    if kind == "planks":
        color = vec(*WOODS[rng.integers(4)])
    else:
        color = random_rgb(rng, CARPET_COLORS if kind == "carpet" else PLAIN_COLORS) * uniform(0.5, 1)
    width = uniform(0.07, 0.2) if kind == "planks" else uniform(0.25, 0.6)
    second_color = color * uniform(0.35, 1.0)
    return _Floor(kind, azimuth, color, second_color, width, rng)


@dataclass
class _Floor:
    kind: str
    azimuth: float
    color: np.ndarray
    second_color: np.ndarray
    width: float
    """Of a plank or a tile, metres."""
    rng: np.random.Generator

    def __call__(self, points: np.ndarray, footprint: np.ndarray) -> Surface:
        cosine, sine = np.cos(self.azimuth), np.sin(self.azimuth)
        x = points[:, 0] * cosine + points[:, 1] * sine
        y = points[:, 1] * cosine - points[:, 0] * sine
        if self.kind == "planks":
            return self._planks(x, y, footprint)
        if self.kind == "tiles":
            return self._tiles(x, y, footprint)
        return self._plain(x, y)

    def _planks(self, x: np.ndarray, y: np.ndarray, footprint: np.ndarray) -> Surface:
        row = np.floor(y / self.width)
        plank = np.floor((x + row * 1.37) / 1.6)
        tone = _hash(row, plank)
        grain = value_noise(np.c_[x * 1.2, y * 22, tone * 9], 1.0, 4)
        gaps = line_coverage(0.5 - abs(y / self.width - row - 0.5), 0.018, footprint / self.width)
        colors = self.color * ((0.55 + 0.5 * tone) * (0.5 + grain) * (1 - 0.65 * gaps))[:, None]
        return colors, 0 * x, 0.25 + 0.3 * grain

    def _tiles(self, x: np.ndarray, y: np.ndarray, footprint: np.ndarray) -> Surface:
        width = self.width
        column, row = np.floor(x / width), np.floor(y / width)
        tone = _hash(column, row)
        joints = np.maximum(
            line_coverage(0.5 - abs(x / width - column - 0.5), 0.014, footprint / width),
            line_coverage(0.5 - abs(y / width - row - 0.5), 0.014, footprint / width),
        )
        noise = value_noise(np.c_[x, y, 0 * x], 3, 4)
        is_light = ((column + row) % 2 == 0)[:, None]
        shade = 0.8 + 0.15 * tone + 0.3 * (noise - 0.5)
        colors = np.where(is_light, self.color, self.second_color) * shade[:, None]
        colors = colors + (0.12 - colors) * joints[:, None]
        return colors, 0 * x, 0.15 + 0.15 * noise + 0.5 * joints

    def _plain(self, x: np.ndarray, y: np.ndarray) -> Surface:
        """Carpet or concrete."""
        is_carpet = self.kind == "carpet"
        noise = value_noise(np.c_[x, y, 0 * x], 4, 4)
        pile = self.rng.random(len(x))
        shade = 0.6 + 0.5 * noise + 0.35 * (pile - 0.5) * is_carpet
        heights = 0.006 * pile if is_carpet else 0 * x
        return self.color * shade[:, None], heights, np.full(len(x), 0.95 if is_carpet else 0.5)


def _hash(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pseudo-random numbers in 0..1 of pairs of whole numbers, (n,)."""
    return np.sin(first * 127.1 + second * 311.7) * 43758.5 % 1


def studio_floor(color: np.ndarray) -> FloorFunction:
    """Seamless paper of a colour (3,)."""

    def paper(points: np.ndarray, _footprint: np.ndarray) -> Surface:
        shade = 0.97 + 0.06 * value_noise(flat(points), 2, 3)
        colors = np.tile(color, (len(points), 1)) * shade[:, None]
        return colors, 0 * points[:, 0], np.full(len(points), 0.6)

    return paper
