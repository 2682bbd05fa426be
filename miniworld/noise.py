"""Value noise and smooth steps: what every natural surface here is made of."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import map_coordinates

_LATTICES = np.random.default_rng(7).random((4, 32, 32, 32)).astype(np.float32)


def value_noise(
    points: ArrayLike, frequency: float = 1, octaves: int = 3, channel: int = 0, gain: float = 0.55
) -> np.ndarray:
    """Fractal value noise in 0..1 at points (n, 3), (n,); channels are independent of one another."""
    total, amplitude, weight = np.zeros((), np.float32), 1.0, 0.0
    for octave in range(octaves):
        lattice = _LATTICES[(channel + octave) % 4]
        coordinates = (np.asarray(points, np.float32) * frequency * 2**octave + 17.3 * octave + 5.1 * channel).T
        total = total + amplitude * map_coordinates(lattice, coordinates, order=1, mode="grid-wrap")
        weight += amplitude
        amplitude *= gain
    return total / weight


def smoothstep(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, a cubic between."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def flat(points: np.ndarray, third: ArrayLike = 0) -> np.ndarray:
    """Points (n, 2) of a plane as points (n, 3) with a constant third coordinate, for noise on a plane."""
    return np.c_[points, 0 * points[:, :1] + third]
