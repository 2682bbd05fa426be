"""A multilayer perceptron on every pixel's hypercolumn (Baranchuk et al. 2022, arXiv 2112.03126, "DatasetDDPM").

One network of two hidden layers, as theirs, instead of an ensemble of ten. Its first layer is applied to every feature
map at the map's own size and then upsampled, which is the same as a linear layer on the upsampled maps. The finest have
64 positions a side: as many pixels as a loss looks at.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from benchmarks.baselines.base import Baseline, PlainDepthHead
from datasetdm.decoder.blocks.pixel import Pyramid, Standardise, level_widths, merge, module_key
from datasetdm.decoder.tasks import Head

HIDDEN = (256, 128)


class Hypercolumn(nn.Module):
    """Hidden and VAE maps -> f[b 128 h w]."""

    def __init__(self, specs: tuple, side: int):
        super().__init__()
        specs = tuple(s for s in specs if s.kind != "attention")
        strides = level_widths(specs, side, 32, finest=64)
        self.finest = min(strides)
        self.widths = {self.finest: HIDDEN[1]}
        self.names = {k: [s.name for s in specs if s.stride == k] for k in strides}
        channels = {s.name: s.channels for s in specs}
        self.norms = nn.ModuleDict({module_key(n): Standardise(channels[n]) for ns in self.names.values() for n in ns})
        sizes = {k: sum(channels[n] for n in ns) for k, ns in self.names.items()}
        self.first = nn.ModuleDict(
            {str(k): nn.Conv2d(c, HIDDEN[0], 1, bias=k == self.finest) for k, c in sizes.items()}
        )
        self.rest = nn.Sequential(
            nn.BatchNorm2d(HIDDEN[0]),
            nn.ReLU(),
            nn.Conv2d(HIDDEN[0], HIDDEN[1], 1),
            nn.BatchNorm2d(HIDDEN[1]),
            nn.ReLU(),
        )

    def forward(self, maps: Mapping[str, Tensor]) -> Pyramid:
        columns = {k: torch.cat([self.norms[module_key(n)](maps[n]) for n in ns], 1) for k, ns in self.names.items()}
        return {self.finest: self.rest(merge({k: self.first[str(k)](x) for k, x in columns.items()}))}


class PixelMLP(Baseline):
    """See the module."""

    TASKS = ("semantic", "depth")

    def trunk(self) -> nn.Module:
        return Hypercolumn(self.config.specs, self.config.side)

    def head(self, name: str) -> Head:
        return PlainDepthHead(self.pixels.widths) if name == "depth" else super().head(name)
