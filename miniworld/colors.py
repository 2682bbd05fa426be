"""Named colours, linear RGB. Captions use these names."""

from __future__ import annotations

import numpy as np

from .mesh import vec

COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.55, 0.03, 0.03),
    "blue": (0.04, 0.1, 0.5),
    "green": (0.05, 0.28, 0.08),
    "yellow": (0.75, 0.52, 0.04),
    "white": (0.8, 0.8, 0.78),
    "black": (0.02, 0.02, 0.022),
    "grey": (0.22, 0.22, 0.23),
    "brown": (0.2, 0.09, 0.035),
    "orange": (0.7, 0.22, 0.03),
    "pink": (0.7, 0.25, 0.32),
    "purple": (0.2, 0.06, 0.3),
    "beige": (0.55, 0.43, 0.28),
    "silver": (0.5, 0.51, 0.53),
    "tan": (0.42, 0.26, 0.12),
}
COLOR_NAMES = tuple(COLORS)


def rgb(name: str) -> np.ndarray:
    """The named colour as (3,) float32 linear RGB."""
    return vec(*COLORS[name])


def random_rgb(rng: np.random.Generator, names: tuple[str, ...] = COLOR_NAMES) -> np.ndarray:
    """One of the named colours, (3,) float32 linear RGB."""
    return rgb(rng.choice(names))
