"""Random views of labelled images: mirror, crop and zoom, or turn, scale and shift; colour. Geometry moves image and labels
together."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

CROP_AREA, CROP_ASPECT = (0.4, 1.0), (0.8, 1.25)
"""Ranges of a crop's area, as a fraction of the image, and of its aspect."""

BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.2, 0.2, 0.2, 0.02
"""The most that colours change."""

TURN, SHIFT, SCALE = 30.0, 0.1, (0.75, 1.3)
"""Ranges in which whole images are turned (degrees), shifted (fraction of a side) and scaled."""

STRONG_COLOUR = (0.5, 0.5, 0.5, 0.25)
"""The same where a view is to differ strongly (UniMatch's)."""

BLUR_KERNEL, BLUR_SIGMA = (9, 9), (0.1, 2.0)
"""Of blurred views, in pixels."""

MIRROR_PROBABILITY, CROP_PROBABILITY, TURN_PROBABILITY, COLOUR_PROBABILITY = 0.5, 0.8, 0.8, 0.8
GREY_PROBABILITY, BLUR_PROBABILITY = 0.2, 0.5


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
    seen, moved, matrices = _view(images, maps, seed, _mirror, _crop, _colour)
    areas = torch.linalg.det(matrices)
    return seen, moved, (areas.sign() * areas.abs().sqrt()).tolist()


def turn_batch(images: Float[Tensor, "b 3 H W"], seed: int) -> tuple[Float[Tensor, "b 3 H W"], Float[Tensor, "b 3 3"]]:
    """One random view of every image, which shows the whole of it, more or less: black where the image ends.

    Args:
        images: 0..1.
        seed: the same seed gives the same views.

    Returns:
        The images, and the matrices that map a place (x, y, 1) in an image, in pixels from the centre of the first one, to its
        place in the view. The determinant is negative if the view is mirrored.
    """
    seen, _, matrices = _view(images, (), seed, _mirror, _turn, _colour)
    return seen, matrices


def weak_batch(images: Float[Tensor, "b 3 H W"], seed: int) -> Float[Tensor, "b 3 H W"]:
    """Images 0..1, each mirrored and cropped at random; the same seed gives the same views."""
    return _view(images, (), seed, _mirror, _crop)[0]


def strong_batch(images: Float[Tensor, "b 3 H W"], seed: int) -> Float[Tensor, "b 3 H W"]:
    """Images 0..1 in other colours, some grey, some blurred, as in UniMatch; nothing moves."""
    return _view(images, (), seed, _jitter, _grey, _blur)[0]


Step = Callable[[Any, tuple[int, int]], Any]
"""One step of a view, from the module `kornia.augmentation` and the images' (height, width)."""


def _mirror(K: Any, size: tuple[int, int]) -> Any:
    return K.RandomHorizontalFlip(p=MIRROR_PROBABILITY)


def _crop(K: Any, size: tuple[int, int]) -> Any:
    return K.RandomResizedCrop(size, scale=CROP_AREA, ratio=CROP_ASPECT, p=CROP_PROBABILITY, cropping_mode="resample")


def _turn(K: Any, size: tuple[int, int]) -> Any:
    return K.RandomAffine(TURN, translate=(SHIFT, SHIFT), scale=SCALE, p=TURN_PROBABILITY)


def _colour(K: Any, size: tuple[int, int]) -> Any:
    return K.ColorJiggle(BRIGHTNESS, CONTRAST, SATURATION, HUE, p=COLOUR_PROBABILITY)


def _jitter(K: Any, size: tuple[int, int]) -> Any:
    return K.ColorJiggle(*STRONG_COLOUR, p=COLOUR_PROBABILITY)


def _grey(K: Any, size: tuple[int, int]) -> Any:
    return K.RandomGrayscale(p=GREY_PROBABILITY)


def _blur(K: Any, size: tuple[int, int]) -> Any:
    return K.RandomGaussianBlur(BLUR_KERNEL, BLUR_SIGMA, p=BLUR_PROBABILITY)


def _view(images: Tensor, maps: Sequence[Tensor], seed: int, *steps: Step) -> tuple[Tensor, list[Tensor], Tensor]:
    """Images and maps after the steps, and the matrices of their moves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # kornia imports deprecated parts of torch
        from kornia import augmentation as K
        from kornia.constants import DataKey

    count, size = len(images), (images.shape[-2], images.shape[-1])
    keys = [DataKey.IMAGE] + [DataKey.MASK] * len(maps)
    nearest = {DataKey.MASK: {"resample": "nearest", "align_corners": None}}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        view = K.AugmentationSequential(*(step(K, size) for step in steps), data_keys=keys, extra_args=nearest)
        found = view(images, *(m.reshape(count, -1, *size).float() for m in maps))
    seen, *moved = found if maps else [found]
    moved = [x.reshape(m.shape).to(m.dtype) for x, m in zip(moved, maps, strict=True)]
    return seen.clamp(0, 1), moved, torch.as_tensor(view.transform_matrix)
