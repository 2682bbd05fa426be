"""Random views of a labelled picture: mirror, crop and zoom, colour. Geometry moves picture and label maps together."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor


def augment(
    image: Float[Tensor, "1 3 H W"], maps: Mapping[str, Tensor], seed: int
) -> tuple[Float[Tensor, "1 3 H W"], dict[str, Tensor], float]:
    """One random view.

    Args:
        image: 0..1. maps: label maps f[1 1 H W], resampled by nearest neighbour (a crop never leaves the picture).
        seed: the same seed gives the same view.

    Returns:
        The picture, the maps, and the zoom: by how much larger things appear than before, negative if mirrored.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # kornia imports deprecated parts of torch
        from kornia import augmentation as K
        from kornia.constants import DataKey

    size = (image.shape[-2], image.shape[-1])
    crop = K.RandomResizedCrop(size, scale=(0.4, 1.0), ratio=(0.8, 1.25), p=0.8, cropping_mode="resample")
    geometry = [K.RandomHorizontalFlip(p=0.5), crop]
    colour = [K.ColorJiggle(0.2, 0.2, 0.2, 0.02, p=0.8)]
    keys = [DataKey.IMAGE] + [DataKey.MASK] * len(maps)
    nearest = {DataKey.MASK: {"resample": "nearest", "align_corners": None}}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        view = K.AugmentationSequential(*geometry, *colour, data_keys=keys, extra_args=nearest)
        result = view(image, *maps.values())
    area = torch.linalg.det(torch.as_tensor(view.transform_matrix)[0])
    zoom = float(area.sign() * area.abs().sqrt())
    return result[0].clamp(0, 1), dict(zip(maps, result[1:], strict=True)), zoom
