"""A sheet of images, for the eye."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from . import hardware
from .config import IMAGE_SIDE
from .pipeline import assemble
from .work import Work

STEPS, GUIDANCE = 20, 6.0
"""How the images are sampled."""
PROMPTS = (
    "a photo of a red bus on a city street",
    "a photo of a white horse on a grass field under a clear sky",
    "a brown dog on a beach at sunset",
    "a photo of two boats on the water",
    "a photo of a green sofa in a living room",
    "a black cat in a studio",
    "a yellow car on a snowy field",
    "a photo of a blue bicycle to the left of a person in a red shirt in a park",
    "a photo of three sheep in a meadow",
    "a white airplane against the sky",
    "a photo of a wooden chair and a black television in a room in the evening",
    "a photo of two bottles on a wooden table",
    "a red bird in a park",
    "a photo of a potted plant in a studio",
    "a photo of a cow grazing on the grass on a cloudy day",
    "a photo of an orange car on a road at night",
)


def sheet(work: Work, out: Path, prompts: Sequence[str] = (), seed: int = 0) -> None:
    """Generates images of prompts, or the usual ones four times, into one image; the i-th has seed + i."""
    pipeline = assemble(work).to(hardware.device())
    prompts, images = list(prompts) or list(PROMPTS) * 4, []
    for first in range(0, len(prompts), 16):
        texts = prompts[first : first + 16]
        seeds = [torch.Generator(hardware.device()).manual_seed(seed + first + i) for i in range(len(texts))]
        size = {"height": IMAGE_SIDE, "width": IMAGE_SIDE}
        with hardware.autocast():
            made = pipeline(texts, num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=seeds, **size)
        images += made.images
    columns = math.ceil(math.sqrt(len(images)))
    page = Image.new("RGB", (columns * IMAGE_SIDE, math.ceil(len(images) / columns) * IMAGE_SIDE))
    for i, image in enumerate(images):
        page.paste(image, (i % columns * IMAGE_SIDE, i // columns * IMAGE_SIDE))
    out.parent.mkdir(parents=True, exist_ok=True)
    page.save(out)
