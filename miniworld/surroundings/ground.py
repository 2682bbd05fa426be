"""Ground sampled as the camera sees it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..camera import Camera


@dataclass
class GroundGrid:
    """Points on z = 0, about one a pixel: a polar grid around the camera, n = rows x columns."""

    points: np.ndarray  # (n, 2) metres
    ranges: np.ndarray  # (n,) metres from the camera
    footprint: np.ndarray  # (n,) metres that a pixel covers
    shape: tuple[int, int]


def ground_grid(camera: Camera, far: float) -> GroundGrid:
    """The grid of a camera, out to `far` metres."""
    pixel = 2 * camera.tan_half_fov / camera.resolution  # radians
    azimuth = np.arctan2(camera.forward[1], camera.forward[0])
    half_width = np.arctan(camera.tan_half_fov * 1.5) + 0.12
    steepest = min(1.45, np.arctan(camera.tan_half_fov) * 1.25 - np.arcsin(camera.forward[2]))
    shallowest = camera.eye[2] / far
    rows = int(max(24, min(1.4 * camera.resolution, (steepest - shallowest) / pixel)))
    depressions = np.linspace(max(steepest, shallowest * 2), shallowest, rows)
    azimuths = azimuth + np.linspace(-half_width, half_width, int(2 * half_width / pixel) + 2)
    depression, angle = np.meshgrid(depressions, azimuths, indexing="ij")
    ranges = camera.eye[2] / np.tan(depression)
    x = camera.eye[0] + ranges * np.cos(angle)
    y = camera.eye[1] + ranges * np.sin(angle)
    return GroundGrid(np.stack([x, y], -1).reshape(-1, 2), ranges.ravel(), ranges.ravel() * pixel, depression.shape)


def line_coverage(distance: np.ndarray, half_width: float, footprint: np.ndarray) -> np.ndarray:
    """Share of a pixel that a line covers, (n,): distance from its middle and half width in metres."""
    blurred = np.clip((half_width - abs(distance)) / np.maximum(footprint, 1e-3) + 0.5, 0, 1)
    return blurred * np.minimum(1, 2 * half_width / np.maximum(footprint, 1e-3))
