"""A small segmentation network that learns from the images themselves.

An encoder of residual blocks takes the place of the frozen model's features; pixel decoder, heads, losses and records
are ours, except that labels are indices and the semantic head is a linear classifier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from miniworld.score.oracle import Block
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks import common  # noqa: F401  (finds the package miniworld)
from benchmarks.baselines.base import Baseline
from datasetdm.backbones import Backbone, FeatureConfig
from datasetdm.backbones.features import Features, FeatureSpec
from datasetdm.decoder.blocks.pixel import PixelDecoder, Pyramid, Standardise
from datasetdm.decoder.model import PDecoder
from datasetdm.records import Labels, Prompt

PIXELS = FeatureSpec("pixels", 3, 1, "vae")
WIDTHS = (16, 32, 64, 128, 192, 256)


class PixelBackbone:
    """A `Backbone` whose only feature is the image and for which a label is its index."""

    name = identity = "pixels"
    config = FeatureConfig(timesteps=(0,))
    steps, guidance = 1, 1.0
    specs = (PIXELS,)

    def __init__(self, labels: int, side: int = 128):
        self.device, self.size, self.text_width = torch.device("cpu"), (side, side), labels

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(self, latents: Tensor) -> Tensor:
        return latents

    def sample(self, prompts: Sequence[Prompt], steps: int, guidance: float, negatives: Sequence[str] = ()) -> Tensor:
        raise NotImplementedError("this backbone generates no images")

    def contrasts(self, guidance: float) -> bool:
        return False

    def kept_texts(self, texts: Sequence[str]) -> list[str]:
        return list(texts)

    def features(self, latents: Tensor, captions: Sequence[str], labels: Sequence[str]) -> Features:
        return Features({PIXELS.name: latents}, torch.eye(self.text_width), latents)


class Encoder(nn.Module):
    """f[b 3 H W] -> maps at strides 1, 2, 4, ... of growing width: residual blocks, two per level from stride 4 on."""

    def __init__(self) -> None:
        super().__init__()
        self.specs = tuple(FeatureSpec(f"level{i}", w, 2**i, "hidden") for i, w in enumerate(WIDTHS))
        self.stem = nn.Sequential(nn.Conv2d(3, WIDTHS[0], 3, 1, 1), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU())
        levels = enumerate(pairwise(WIDTHS))
        self.levels = nn.ModuleList(
            nn.Sequential(Block(a, b, 2), Block(b, b) if i else nn.Identity()) for i, (a, b) in levels
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = [self.stem(x)]
        for level in self.levels:
            maps.append(level(maps[-1]))
        return {spec.name: x for spec, x in zip(self.specs, maps, strict=True)}


class PixelTrunk(nn.Module):
    """Encoder, then our pixel decoder."""

    def __init__(self, side: int, width: int):
        super().__init__()
        self.norm = Standardise(3)
        self.encoder = Encoder()
        specs = self.encoder.specs[1:]  # labels at half the side, as ours
        self.decoder = PixelDecoder(specs, side, width, dropout=0.2)  # ours has more: it learns from many more channels
        self.widths = self.decoder.widths

    def forward(self, maps: Mapping[str, Tensor]) -> Pyramid:
        return self.decoder(self.encoder(self.norm(maps[PIXELS.name])))


class PixelNet(Baseline):
    """See the module. It costs less a step than ours and has no features to wait for, so it gets more views."""

    RATES = (5e-4, 1.5e-3, 4e-3)
    VARIANTS = 18

    def trunk(self) -> nn.Module:
        return PixelTrunk(self.config.side, self.config.width)

    def normalisers(self) -> Iterator[tuple[str, Standardise]]:
        yield PIXELS.name, self.pixels.norm


class CaptionPixelNet(PixelNet):
    """The same with caption labels."""

    CAPTION_LABELS = True


def with_encoder(path: Path) -> Callable[[Backbone, Labels, Sequence[str], int], PDecoder]:
    """`PixelNet.for_backbone` with the encoder that `baselines.words` wrote to `path`."""

    def build(backbone: Backbone, labels: Labels, tasks: Sequence[str], width: int) -> PDecoder:
        net = PixelNet.for_backbone(backbone, labels, tasks, width)
        encoder: Any = net.pixels.encoder
        encoder.load_state_dict(load_file(path))
        return net

    return build
