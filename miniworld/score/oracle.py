"""The oracle: a small network that says what an image of the mini world shows.

It learns from labelled renders of the captioned split, never from val or test, and is not part of what users get.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from ..pretrain import hardware
from .renders import CATEGORIES, CLASSES, MOST, PLACES

FOLDER = Path(__file__).parent / "weights"
WEIGHTS, EMBEDDINGS = FOLDER / "oracle.safetensors", FOLDER / "embeddings.safetensors"
FEATURES = 64
WIDTHS = (32, 64, 128, 192)


@dataclass(frozen=True)
class Reading:
    """What the oracle sees in n images.

    features: f[n 64]. places: logits f[n 11]. counts: logits f[n 18 4] of 0, 1, 2, 3 or more objects.
    classes: logits f[n 33 32 32] of pixel labels at a quarter of the side.
    """

    features: Tensor
    places: Tensor
    counts: Tensor
    classes: Tensor

    @property
    def presence(self) -> Tensor:
        """Probability that a category is there, f[n 18]."""
        return 1 - self.counts.softmax(-1)[..., 0]


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, the first with a stride (He et al. 2016)."""

    def __init__(self, given: int, made: int, stride: int = 1):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(given, made, 3, stride, 1, bias=False),
            nn.BatchNorm2d(made),
            nn.ReLU(),
            nn.Conv2d(made, made, 3, 1, 1, bias=False),
            nn.BatchNorm2d(made),
        )
        self.shortcut = nn.Conv2d(given, made, 1, stride) if stride > 1 or given != made else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class Oracle(nn.Module):
    """f[n 3 128 128] in -1..1 -> Reading. Counts are read from the 64 features and from each category's own pixels."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c, d = WIDTHS
        self.stem = nn.Sequential(nn.Conv2d(3, a, 5, 2, 2), nn.BatchNorm2d(a), nn.ReLU())
        self.down = nn.ModuleList([Block(a, b, 2), nn.Sequential(Block(b, c, 2), Block(c, c)), Block(c, d, 2)])
        self.tops = nn.ModuleList([nn.Conv2d(d, c, 1), nn.Conv2d(c, b, 1)])
        self.merge = nn.ModuleList([Block(c, c), Block(b, b)])
        self.classes = nn.Conv2d(b, CLASSES, 1)
        self.features = nn.Sequential(nn.Linear(2 * d, 128), nn.ReLU(), nn.Dropout(0.1), nn.Linear(128, FEATURES))
        self.places = nn.Linear(FEATURES, len(PLACES))
        self.counts = nn.Linear(FEATURES, len(CATEGORIES) * (MOST + 1))
        self.evidence = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, MOST + 1))

    def forward(self, x: Tensor) -> Reading:
        quarter = self.down[0](self.stem(x))
        eighth = self.down[1](quarter)
        last = self.down[2](eighth)
        features = self.features(torch.cat([last.mean((2, 3)), last.amax((2, 3))], 1))
        y = self.merge[0](eighth + F.interpolate(self.tops[0](last), scale_factor=2))
        y = self.merge[1](quarter + F.interpolate(self.tops[1](y), scale_factor=2))
        classes = self.classes(y).float()
        own = classes.softmax(1)[:, _category_ids(x.device)]
        smooth = F.avg_pool2d(own, 3, 1)
        evidence = torch.stack([own.mean((2, 3)).clamp_min(1e-5).log(), own.amax((2, 3)), smooth.amax((2, 3))], -1)
        counts = self.counts(features).view(len(x), len(CATEGORIES), MOST + 1) + self.evidence(evidence)
        return Reading(features.float(), self.places(features).float(), counts.float(), classes)


def _category_ids(device: torch.device) -> Tensor:
    """The pixel labels of `CATEGORIES` (Pascal VOC's ids)."""
    return torch.tensor([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16, 17, 18, 20], device=device)


def normal(images: Tensor) -> Tensor:
    """u8 -> f32 in -1..1."""
    return images.float() / 127.5 - 1


def load_oracle(path: Path = WEIGHTS) -> Oracle:
    """The committed oracle, in evaluation mode."""
    oracle = Oracle()
    oracle.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()})
    return oracle.eval()


@torch.no_grad()
def look(oracle: Oracle, images: Tensor, batch: int = 64) -> Reading:
    """What the oracle sees in u8[n 3 128 128]."""
    return join(oracle(normal(part)) for part in images.split(batch))


def join(readings: Iterable[Reading]) -> Reading:
    """Several readings as one."""
    rows = list(readings)
    names = ("features", "places", "counts", "classes")
    return Reading(*(torch.cat([getattr(r, name) for r in rows]) for name in names))


def precision() -> torch.autocast:
    """bfloat16 for learning only: figures are read in float32, alike on all machines."""
    return hardware.autocast()
