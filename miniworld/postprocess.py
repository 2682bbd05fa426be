"""From radiance to a photograph: fog, exposure, tone curve, colour, vignette, blur, grain."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from .scene import Scene

FOG_SKY_DISTANCE = 1500
"""Metres of fog before the sky."""
GREY_KEY = 0.17
DIM_KEY = 0.1
"""Mean brightness aimed at."""


def add_fog(radiance: np.ndarray, depth: np.ndarray, scene: Scene) -> np.ndarray:
    """Radiance (h, w, 3) seen through the scene's air; depth (h, w) in metres, 0 the sky."""
    if not scene.fog_density:
        return radiance
    rows = scene.environment.shape[0]
    horizon = scene.environment[rows // 2 - 12 : rows // 2 - 2].mean((0, 1))
    sky_distance = FOG_SKY_DISTANCE if scene.light.name == "fog" else 0
    distance = np.where(depth > 0, depth, sky_distance)
    transmittance = np.exp(-distance * scene.fog_density)[..., None]
    transmittance = gaussian_filter(transmittance, (0.6, 0.6, 0))
    return radiance * transmittance + horizon * (1 - transmittance)


def develop(radiance: np.ndarray, scene: Scene) -> np.ndarray:
    """The photograph, (h, w, 3) uint8 sRGB, of linear radiance (h, w, 3)."""
    rng = scene.rng
    image = _expose(radiance, scene)
    image = _tone_curve(image)
    saturation = rng.uniform(0.85, 1.2)
    grey = image.mean(-1, keepdims=True)
    image = grey + (image - grey) * saturation
    image = _vignette(image, rng.uniform(0, 0.25))
    image = np.clip(image, 0, 1) ** (1 / 2.2)
    image = _blur_and_grain(image, rng)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def _expose(radiance: np.ndarray, scene: Scene) -> np.ndarray:
    """Scaled so that its mean has the right brightness and its highlights hold, with an imperfect white balance."""
    rng, luminance = scene.rng, radiance.mean(-1)
    key = (DIM_KEY if scene.light.dim else GREY_KEY) * rng.uniform(0.75, 1.3)
    key = key * (1.5 if scene.place.name in ("snow", "sky") else 1)
    log_mean = np.exp(np.log(np.clip(luminance, 1e-4, 20)).mean())
    gain = min(key / log_mean, 1.3 / np.percentile(luminance, 96))
    return radiance * gain * rng.normal(1, 0.03, 3)


def _tone_curve(image: np.ndarray) -> np.ndarray:
    """Narkowicz's fit of the ACES curve at an exposure of 0.6."""
    return image * (2.51 * image * 0.6 + 0.03) / (image * (2.43 * image * 0.36 + 0.59 * 0.6) + 0.14)


def _vignette(image: np.ndarray, strength: float) -> np.ndarray:
    across = np.linspace(-1, 1, len(image))
    squared_radius = across[:, None] ** 2 + across[None] ** 2
    return image * (1 - strength * squared_radius / 2)[..., None]


def _blur_and_grain(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The lens's blur, and noise in colour and in brightness."""
    noise = rng.uniform(0.002, 0.012)
    blur = rng.uniform(0.0, 0.45) * len(image) / 128
    blurred = gaussian_filter(image, (blur, blur, 0))
    color_grain = gaussian_filter(rng.normal(0, noise, image.shape), (0.4, 0.4, 0))
    return blurred + color_grain + rng.normal(0, noise * 0.5, image.shape[:2])[..., None]
