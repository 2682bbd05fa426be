"""The eight lights, and the lamps that a scene is lit with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .camera import Camera
from .mesh import vec


@dataclass(frozen=True)
class Light:
    """A time of day or a weather."""

    name: str
    weight: float
    """Probability among the lights outdoors or indoors."""
    phrases: tuple[str, ...]
    """What captions say of it."""
    indoor: bool = False
    dim: bool = False
    """Exposed darker than the rest."""
    sun_elevation: tuple[float, float] = (0.1, 0.1)
    """Least and most, radians."""
    sun_irradiance: float = 0.0
    """Relative to the sky's."""


OUTDOOR_LIGHTS = (
    Light("noon", 0.33, ("on a sunny day", "under a clear sky", ""), sun_elevation=(0.6, 1.25), sun_irradiance=5),
    Light("afternoon", 0.25, ("in the afternoon", "in warm light", ""), sun_elevation=(0.3, 0.6), sun_irradiance=4.5),
    Light("sunset", 0.16, ("at sunset", "at dusk"), sun_elevation=(0.03, 0.13), sun_irradiance=3),
    Light("overcast", 0.16, ("on a cloudy day", ""), sun_elevation=(0.5, 1), sun_irradiance=0.25),
    Light("fog", 0.04, ("in the fog", "on a foggy day"), sun_elevation=(0.4, 0.9), sun_irradiance=0.12),
    Light("night", 0.06, ("at night",), dim=True),
)
INDOOR_LIGHTS = (
    Light("day", 0.7, ("", "in daylight"), indoor=True),
    Light("lamp", 0.3, ("in warm lamp light", "in the evening"), indoor=True, dim=True),
)
LIGHTS: dict[str, Light] = {light.name: light for light in (*OUTDOOR_LIGHTS, *INDOOR_LIGHTS)}


@dataclass
class Lamp:
    """A glowing disc."""

    position: np.ndarray  # (3,) metres
    target: np.ndarray  # (3,) metres, what it looks at
    radius: float  # metres
    radiance: np.ndarray  # (3,) linear RGB

    def moved_out_of_view(self, camera: Camera, forward: np.ndarray, distance: float) -> Lamp:
        """The lamp raised and moved back until no part of it is in the image, as bright as before.

        forward: (2,) the scene's heading; distance: from the camera to the main object, metres.
        """
        position = np.array(self.position, float)
        size = camera.resolution
        for _ in range(60):
            u, v, z = camera.project(position)[0]
            margin = self.radius / max(z, 0.1) / camera.tan_half_fov * size / 2
            in_view = -margin < u < size + margin and -margin < v < size + margin
            if z < -self.radius or not in_view:
                break
            position[2] *= 1.06
            position[:2] -= forward * 0.04 * distance
        before = np.sum((np.array(self.position) - self.target) ** 2)
        growth = np.sum((position - self.target) ** 2) / max(before, 1e-6)
        return Lamp(position, self.target, self.radius * np.sqrt(growth), self.radiance)


def unlit_lamp() -> Lamp:
    """A dark lamp under the ground: with two lamps in every scene the compiled kernels stay the same."""
    return Lamp(vec(0, 0, -50), vec(0, 0, -60), 0.1, vec(0, 0, 0))
