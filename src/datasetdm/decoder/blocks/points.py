"""Where named points lie inside objects: names as vectors, objects as crops of one size, a map for every point.

The read-out follows Mask R-CNN's keypoint head (He et al. 2017): one distribution over the crop's cells per point. Weights are
shared by all points: a point's map follows from the words of its name, so any skeletons mix, and a cat's ear and a dog's
learn together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from datasetdm.records.point_names import name_words

NAME_WIDTH = 64

GRID = 24
"""Cells per side of an object's crop."""

WAVES = 6
"""Patterns per side that a point's usual place is made of."""


@cache
def name_vector(name: str) -> Float[np.ndarray, "d"]:
    """A fixed random vector: names that share words are near each other, no two are the same."""
    words = name_words(name)
    return np.stack([_random(w) for w in (*words, " ".join(words))]).sum(0) / (len(words) + 1) ** 0.5


def _random(word: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
    return np.random.default_rng(seed).standard_normal(NAME_WIDTH).astype(np.float32)


def crop(image: Float[Tensor, "c h w"], boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n c g g"]:
    """`GRID` x `GRID` samples of every box (x0, y0, x1, y1 in pixels from the image's corner)."""
    h, w = image.shape[-2:]
    at = cells(boxes) / image.new_tensor([w, h]) * 2 - 1
    sampled = F.grid_sample(image[None], at.view(1, -1, GRID, 2), align_corners=False, padding_mode="zeros")
    return sampled[0].unflatten(1, (len(boxes), GRID)).transpose(0, 1)


def cells(boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n g g 2"]:
    """The centre (x, y) of every cell of every box, in pixels."""
    steps = (torch.arange(GRID, device=boxes.device) + 0.5) / GRID
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    unit = torch.stack([x, y], -1)
    return boxes[:, None, None, :2] + unit * (boxes[:, 2:] - boxes[:, :2])[:, None, None]


def waves(like: Tensor) -> Float[Tensor, "q g g"]:
    """`WAVES` x `WAVES` smooth patterns over a crop (cosines, as in a discrete cosine transform), slow ones first."""
    steps = (torch.arange(GRID, device=like.device, dtype=like.dtype) + 0.5) / GRID
    line = torch.cos(torch.pi * torch.arange(WAVES, device=like.device)[:, None] * steps)
    return torch.einsum("ih,jw->ijhw", line, line).flatten(0, 1)


class PointReader(nn.Module):
    """Crops and names in, two maps per point out: where it is (logits over cells), and whether it is seen there.

    A point's map is a product of its name's key with the crop's features, plus where such points usually lie in their box.
    """

    def __init__(self, channels: int, width: int = 64):
        super().__init__()
        self.near = nn.Sequential(
            nn.Conv2d(channels + 2, width, 3, padding=1), nn.GroupNorm(8, width), nn.GELU(),
            nn.Conv2d(width, width, 3, padding=2, dilation=2), nn.GroupNorm(8, width), nn.GELU(),
        )  # fmt: skip
        self.whole = nn.Linear(width, width)
        self.far = nn.Sequential(nn.Conv2d(width, width, 3, padding=4, dilation=4), nn.GroupNorm(8, width), nn.GELU())
        self.keys = nn.Sequential(nn.Linear(NAME_WIDTH, 2 * width), nn.GELU(), nn.Linear(2 * width, 2 * (width + 1)))
        self.usual = nn.Linear(NAME_WIDTH, WAVES**2)
        nn.init.zeros_(self.usual.weight)
        nn.init.zeros_(self.usual.bias)

    def forward(
        self, crops: Float[Tensor, "n c g g"], names: Sequence[str]
    ) -> tuple[Float[Tensor, "n k g g"], Float[Tensor, "n k g g"]]:
        steps = torch.linspace(-1, 1, GRID, device=crops.device)
        place = torch.stack(torch.meshgrid(steps, steps, indexing="ij")).expand(len(crops), -1, -1, -1)
        x = self.near(torch.cat([crops, place], 1))
        x = self.far(x + self.whole(x.mean((2, 3)))[..., None, None])
        vectors = torch.from_numpy(np.stack([name_vector(n) for n in names])).to(crops)
        key = self.keys(vectors).unflatten(1, (2, -1))
        maps = torch.einsum("kac,nchw->ankhw", key[..., 1:] * x.shape[1] ** -0.5, x)
        where, seen = maps + key[..., 0].T[:, None, :, None, None]
        return where + torch.einsum("kq,qhw->khw", self.usual(vectors), waves(where)), seen
