"""What can be set: one class a stage, and the presets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from . import PretrainError

IMAGE_SIDE = 128
"""Side of the images, pixels."""
STRIDE = 8
"""Image pixels per latent pixel: three halvings."""
TOKENS = 32
"""Length of a caption, tokens; longer ones are cut."""
TIMESTEPS = 1000
"""Noise levels of the diffusion."""


@dataclass(frozen=True)
class VaeConfig:
    """Stage `vae`: images to latents and back.

    channels: widths from the image down to the latents. batch: whole images per step, or four times as many crops.
    ema: the most that the averaged weights keep per step. gan: weight of the adversarial loss; 0 leaves it out.
    critic_from: the step at which its critic begins to learn; critic_lead: steps it learns before it is listened to.
    decoder_only: this run leaves the encoder, and so the latents, as they are. held_out: images, the first ones, kept
    for the figures. minutes: default of the command `all`.
    """

    channels: tuple[int, int, int, int]
    norm_groups: int
    batch: int
    learning_rate: float
    latent_channels: int = 8
    gan: float = 0.0
    critic_from: int = 2500
    critic_lead: int = 500
    ema: float = 0.999
    decoder_only: bool = False
    held_out: int = 256
    minutes: float = 60.0


@dataclass(frozen=True)
class LatentsConfig:
    """Stage `latents`: every image and its mirror, encoded once. batch: images at a time."""

    batch: int = 64


@dataclass(frozen=True)
class UnetConfig:
    """Stage `unet`: the denoiser and its text encoder.

    channels and heads: by level, from 16 x 16 latents down. batch: latents per step, four times as many at half size.
    drop_captions: fraction of empty captions, for classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598).
    timesteps: noise levels evenly, or more of the middle ones (Esser et al. 2024, arXiv 2403.03206).
    words: fraction of the images that are hardly noisy and have no caption, and whose words the features must predict.
    half: this run sees 8 x 8 latents of half-size images. minutes: default of the command `all`.
    """

    channels: tuple[int, ...]
    heads: tuple[int, ...]
    norm_groups: int
    text_width: int
    text_layers: int
    batch: int
    learning_rate: float
    ema: float = 0.9995
    drop_captions: float = 0.1
    words: float = 0.0
    timesteps: Literal["uniform", "logit-normal"] = "uniform"
    half: bool = False
    minutes: float = 60.0


@dataclass(frozen=True)
class Preset:
    """A size of the model with the settings that suit it."""

    name: str
    vae: VaeConfig
    unet: UnetConfig
    latents: LatentsConfig = field(default_factory=LatentsConfig)
    compile: bool = True


_PRESETS = (
    # 31 M weights, 62 MB in fp16. The minutes are a first guess: this preset has only ever run on a CPU.
    Preset(
        name="gpu",
        vae=VaeConfig((32, 64, 128, 128), norm_groups=16, batch=64, learning_rate=4e-4, gan=0.05, minutes=10),
        unet=UnetConfig(
            channels=(96, 192, 288),
            heads=(3, 6, 9),
            norm_groups=16,
            text_width=192,
            text_layers=4,
            batch=512,
            learning_rate=5e-4,
            minutes=20,
        ),
        latents=LatentsConfig(batch=512),
    ),
    # 21 M weights, 41 MB in fp16: the embedded model.
    Preset(
        name="cpu",
        vae=VaeConfig((16, 48, 96, 128), norm_groups=16, batch=8, learning_rate=1e-3, minutes=60),
        unet=UnetConfig(
            channels=(64, 128, 256),
            heads=(1, 2, 4),
            norm_groups=16,
            text_width=128,
            text_layers=3,
            batch=32,
            learning_rate=6e-4,
            minutes=240,
        ),
    ),
    # Learns nothing worth a look; for tests.
    Preset(
        name="smoke",
        vae=VaeConfig(
            (8, 8, 16, 16), norm_groups=4, batch=2, learning_rate=1e-3, gan=0.05, critic_from=2, critic_lead=2
        ),
        unet=UnetConfig(
            channels=(16, 32),
            heads=(1, 1),
            norm_groups=4,
            text_width=64,
            text_layers=1,
            batch=8,
            learning_rate=1e-3,
        ),
        compile=False,
    ),
)
PRESETS = {preset.name: preset for preset in _PRESETS}


def find_preset(name: str) -> Preset:
    """The preset of this name."""
    if name not in PRESETS:
        raise PretrainError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
