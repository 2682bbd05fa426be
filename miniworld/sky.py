"""Skies: environment maps with clouds, and the sun.

An environment map is (h, 2h, 3), linear RGB radiance over latitude (the zenith first) and longitude.
"""

from __future__ import annotations

import functools

import numpy as np
from scipy.ndimage import gaussian_filter

from .lights import OUTDOOR_LIGHTS, Lamp, Light
from .mesh import vec
from .noise import smoothstep, value_noise
from .renderer import clear_sky

HEIGHT = 256
"""Rows of a sky's map."""
SUN_DISTANCE = 900
"""Metres."""


def map_directions(height: int) -> np.ndarray:
    """Unit vectors (h, 2h, 3) towards the pixels of an environment map."""
    latitude = ((np.arange(height) + 0.5) / height * np.pi)[:, None]
    longitude = ((np.arange(2 * height) + 0.5) / height * np.pi)[None]
    x = np.sin(longitude) * np.sin(latitude)
    y = np.cos(longitude) * np.sin(latitude)
    return np.stack([x, y, np.cos(latitude) + 0 * longitude], -1)


def draw_sky(light: Light, heading: float, rng: np.random.Generator) -> tuple[np.ndarray, Lamp]:
    """A sky's environment map and its sun; heading: azimuth of the view, radians."""
    uniform, name = rng.uniform, light.name
    elevation = _draw_elevation(light, rng)
    turbidity = rng.choice([2.0, 3.0, 4.0, 6.0])
    ahead = name == "sunset" and uniform(0, 1) < 0.5
    azimuth = heading + (uniform(-0.7, 0.7) if ahead else uniform(-2.9, 2.9))
    sky = _turned_clear_sky(elevation, turbidity, azimuth)
    sun_irradiance = light.sun_irradiance * uniform(0.7, 1.2)
    sun_color = vec(1, 0.95, 0.87)
    if name == "sunset":
        sun_color = vec(1, 0.55, 0.25) * vec(1, uniform(0.7, 1.1), uniform(0.6, 1.3))
        sky = sky * vec(1.25, 0.95, 0.8)
    if name == "afternoon":
        sun_color = vec(1, 0.86, 0.66)
    if name in ("overcast", "fog"):
        sky = _grey_sky()
    if name != "fog" and (uniform(0, 1) < 0.75 or name == "overcast"):
        sky = _with_clouds(sky.astype(np.float32), uniform(0.1, 1.0), azimuth, rng)
    if name == "night":
        sky = sky * vec(0.25, 0.4, 0.9) * 0.06
    sky = sky.copy()
    sky[HEIGHT // 2 :] = sky[HEIGHT // 2 - 2].mean(0) * vec(0.35, 0.33, 0.3)  # light from below the horizon
    return sky.astype(np.float32), _sun(elevation, azimuth, sun_irradiance, sun_color, name)


def _draw_elevation(light: Light, rng: np.random.Generator) -> float:
    """The sun's elevation in radians. World version 1 draws one for every light and keeps this light's."""
    sampled = {other.name: rng.uniform(*other.sun_elevation) for other in OUTDOOR_LIGHTS if other.name != "night"}
    return sampled.get(light.name, light.sun_elevation[0])


def _sun(elevation: float, azimuth: float, irradiance: float, color: np.ndarray, light_name: str) -> Lamp:
    direction = vec(np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation))
    angular_radius = 0.02 if light_name in ("overcast", "fog") else 0.012
    radiance = color * max(irradiance, 1e-3) / (np.pi * angular_radius**2)
    return Lamp(direction * SUN_DISTANCE, vec(0, 0, 0), SUN_DISTANCE * angular_radius, radiance)


@functools.lru_cache(64)
def _clear_sky_map(elevation: float, turbidity: float, height: int) -> np.ndarray:
    """The clear sky's map with the sun at azimuth 0, normalised to unit horizontal irradiance."""
    directions = map_directions(height)
    above = directions.reshape(-1, 3).copy()
    above[:, 2] = np.abs(above[:, 2]) + 0.01
    above /= np.linalg.norm(above, axis=1, keepdims=True)
    radiance = np.maximum(clear_sky(elevation, turbidity, above).reshape(height, 2 * height, 3), 0)
    sines = np.sin((np.arange(height) + 0.5) / height * np.pi)[:, None]
    weights = np.maximum(directions[..., 2], 0) * sines * (np.pi / height) ** 2
    return (radiance / ((radiance.mean(-1) * weights).sum() + 1e-9)).astype(np.float32)


def _turned_clear_sky(elevation: float, turbidity: float, azimuth: float) -> np.ndarray:
    """The clear sky with the sun at an azimuth; elevations are rounded so that maps are used again."""
    rounded = round(elevation, 2) if elevation > 0.2 else round(elevation * 50) / 50
    sky = _clear_sky_map(rounded, turbidity, 64)
    sky = np.repeat(np.repeat(sky, 4, 0), 4, 1)
    sky = gaussian_filter(sky, (2, 2, 0), mode=("nearest", "wrap", "nearest"))
    # The map's longitude is measured from +y towards +x, so azimuth decreases along it.
    return np.roll(sky, round(-azimuth / 6.2832 * 2 * HEIGHT), 1)


def _grey_sky() -> np.ndarray:
    brightness = 0.22 + 0.12 * np.maximum(map_directions(HEIGHT)[..., 2:], 0)
    return (vec(0.95, 1, 1.06) * brightness).astype(np.float32)


def _with_clouds(sky: np.ndarray, cover: float, sun_azimuth: float, rng: np.random.Generator) -> np.ndarray:
    """The sky with clouds on a plane overhead, brighter on the sun's side; cover: 0 few .. 1 all."""
    upper = HEIGHT // 2
    directions = map_directions(HEIGHT)[:upper].reshape(-1, 3)
    on_plane = directions[:, :2] / (directions[:, 2:] + 0.12)
    points = np.c_[
        on_plane * rng.uniform(0.7, 1.6) + rng.uniform(0, 20, 2),
        0 * on_plane[:, 0] + rng.uniform(0, 9),
    ]
    density = value_noise(points, 1, 6, gain=0.52)
    towards_sun = points + vec(0.12 * np.cos(sun_azimuth), 0.12 * np.sin(sun_azimuth), 0)
    shadow = value_noise(towards_sun, 1, 4, gain=0.52)
    threshold = 0.62 - 0.3 * cover
    opacity = smoothstep(density, threshold, threshold + 0.16) * smoothstep(directions[:, 2], 0.01, 0.12) * 0.95

    clear = sky[:upper].reshape(-1, 3)
    shade = np.clip(1.25 - 3.2 * (shadow - threshold) * 1.1, 0.45, 1.3)
    horizon = sky[upper - 3]
    tint = vec(1, 1, 1) * 0.75 + 0.25 * horizon.mean(0) / horizon.mean()
    clouds = (clear.mean() * 1.5 * shade)[:, None] * tint
    result = sky.copy()
    blended = clear * (1 - opacity[:, None]) + clouds * opacity[:, None]
    result[:upper] = blended.reshape(upper, 2 * HEIGHT, 3)
    return result
