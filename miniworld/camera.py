"""A thin-lens camera; z is up, u runs right and v down."""

from __future__ import annotations

import numpy as np

from .mesh import Triple


class Camera:
    """A camera at `eye` looking at `target` (3,), metres; labels take it for a pinhole."""

    def __init__(
        self,
        eye: Triple,
        target: Triple,
        fov: float,
        resolution: int,
        aperture: float,
        focus: float,
        roll: float,
    ):
        """fov: vertical field of view, degrees; resolution: pixels a side; aperture: lens radius, metres;
        focus: distance in focus, metres; roll: tilt of the horizon, about radians."""
        self.eye, self.target = np.array(eye, float), np.array(target, float)
        self.fov, self.resolution, self.aperture, self.focus = fov, resolution, aperture, focus
        self.forward = (self.target - self.eye) / np.linalg.norm(self.target - self.eye)
        level = np.cross(self.forward, (0, 0, 1))
        self.up_hint = np.array([0, 0, 1.0]) + roll * level / np.linalg.norm(level)
        right = np.cross(self.forward, self.up_hint)
        self.right = right / np.linalg.norm(right)
        self.up = np.cross(self.right, self.forward)
        self.tan_half_fov = np.tan(np.radians(fov) / 2)

    def project(self, points: np.ndarray) -> np.ndarray:
        """World points (n, 3) or (3,) as (n, 3): u and v in pixels, z-depth in metres."""
        relative = np.atleast_2d(points) - self.eye
        z = relative @ self.forward
        half, slope = self.resolution / 2, z * self.tan_half_fov
        u = half * (1 + relative @ self.right / slope)
        v = half * (1 - relative @ self.up / slope)
        return np.stack([u, v, z], 1)

    def rays(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Directions (n, 3) through pixel positions (n,); a point at t times one has z-depth t metres."""
        x = (2 * u / self.resolution - 1) * self.tan_half_fov
        y = (1 - 2 * v / self.resolution) * self.tan_half_fov
        return self.forward + x[..., None] * self.right + y[..., None] * self.up
