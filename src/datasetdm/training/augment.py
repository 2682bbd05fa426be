"""Random views of a labelled image: mirror, crop and zoom, colour. Geometry moves image and label maps together."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

CROP_AREA, CROP_ASPECT = (0.4, 1.0), (0.8, 1.25)
"""Ranges of a crop's area, as a fraction of the image, and of its aspect."""

BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.2, 0.2, 0.2, 0.02
"""The most that colours change."""

MIRROR_PROBABILITY, CROP_PROBABILITY, COLOUR_PROBABILITY = 0.5, 0.8, 0.8


def augment(
    image: Float[Tensor, "1 3 H W"], maps: Sequence[Tensor], seed: int
) -> tuple[Float[Tensor, "1 3 H W"], list[Tensor], float]:
    """One random view of one image; maps are [... H W]. See `augment_batch`."""
    seen, moved, (zoom,) = augment_batch(image, [m[None] for m in maps], seed)
    return seen, [m[0] for m in moved], zoom


def augment_batch(
    images: Float[Tensor, "b 3 H W"], maps: Sequence[Tensor], seed: int
) -> tuple[Float[Tensor, "b 3 H W"], list[Tensor], list[float]]:
    """One random view of every image.

    Args:
        images: 0..1.
        maps: label maps [b ... H W] of any type, resampled by nearest neighbour (a crop never leaves the image); integers
            below 2^24 stay exact.
        seed: the same seed gives the same views.

    Returns:
        The images, the maps, and the zooms: by how much larger things appear than before, negative if mirrored.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # kornia imports deprecated parts of torch
        from kornia import augmentation as K
        from kornia.constants import DataKey

    count, size = len(images), (images.shape[-2], images.shape[-1])
    crop = K.RandomResizedCrop(size, scale=CROP_AREA, ratio=CROP_ASPECT, p=CROP_PROBABILITY, cropping_mode="resample")
    colour = K.ColorJiggle(BRIGHTNESS, CONTRAST, SATURATION, HUE, p=COLOUR_PROBABILITY)
    keys = [DataKey.IMAGE] + [DataKey.MASK] * len(maps)
    nearest = {DataKey.MASK: {"resample": "nearest", "align_corners": None}}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        view = K.AugmentationSequential(
            K.RandomHorizontalFlip(p=MIRROR_PROBABILITY), crop, colour, data_keys=keys, extra_args=nearest
        )
        seen, *moved = view(images, *(m.reshape(count, -1, *size).float() for m in maps))
    areas = torch.linalg.det(torch.as_tensor(view.transform_matrix))
    zooms = (areas.sign() * areas.abs().sqrt()).tolist()
    return seen.clamp(0, 1), [x.reshape(m.shape).to(m.dtype) for x, m in zip(moved, maps, strict=True)], zooms
