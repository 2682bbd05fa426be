"""Pixel decoder: every feature map of a backbone -> one pyramid of embeddings, coarse to fine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasetdm.backbones.features import FINEST, FeatureSpec

Pyramid = dict[int, Tensor]
"""Embeddings f[b width h w] by stride, coarsest first."""


def level_widths(specs: Sequence[FeatureSpec], side: int, width: int, finest: int = FINEST) -> dict[int, int]:
    """Channels for each stride, coarsest first.

    Strides finer than `finest` positions per side are left out. From 16 positions per side on (or from the coarsest level, if
    that is finer), the width halves where the side doubles, so that every level costs about the same arithmetic.
    """
    strides = sorted({s.stride for s in specs if side // s.stride <= finest}, reverse=True)
    wide = max(16, side // strides[0])
    return {s: max(16, min(width, width * wide * s // side)) for s in strides}


def merge(levels: Mapping[int, Tensor]) -> Tensor:
    """Sum predictions of all strides, each upsampled to the next finer one: {stride: f[b c h w]} -> f[b c H W]."""
    total: Tensor | None = None
    for _, x in sorted(levels.items(), reverse=True):
        if total is not None:
            x = x + F.interpolate(total, size=x.shape[-2:], mode="bilinear", align_corners=False)
        total = x
    assert total is not None
    return total


class Standardise(nn.Module):
    """Per-channel zero mean and unit spread over the fitting set; activations beyond 6 deviations are clipped."""

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def measure(self, batches: Sequence[Tensor]) -> None:
        """Set the statistics from maps f[... c h w]."""
        flat = torch.cat([b.float().movedim(-3, 0).flatten(1) for b in batches], 1)
        self.mean.copy_(flat.mean(1))
        self.std.copy_(flat.std(1).clamp_min(1e-5))

    def forward(self, x: Tensor) -> Tensor:
        shape = (-1, 1, 1)
        return ((x.float() - self.mean.view(shape)) / self.std.view(shape)).clamp(-6, 6)


class Block(nn.Module):
    """Residual 3x3 convolution."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(F.gelu(self.norm(x)))


class PixelDecoder(nn.Module):
    """1x1 projections of every level, self-attention over the two coarsest, top-down fusion.

    Args:
        specs: the backbone's hidden and VAE maps; attention maps belong to labels, not to pixels.
        side: image side in pixels that the specs were taken at.
        width: channels of the coarse levels.
    """

    def __init__(self, specs: Sequence[FeatureSpec], side: int, width: int, dropout: float = 0.4):
        super().__init__()
        specs = [s for s in specs if s.kind != "attention"]
        self.widths = level_widths(specs, side, width)
        self.names = {stride: [s.name for s in specs if s.stride == stride] for stride in self.widths}
        channels = {s.name: s.channels for s in specs}
        self.norms = nn.ModuleDict(
            {module_key(n): Standardise(channels[n]) for names in self.names.values() for n in names}
        )
        self.drop = nn.Dropout2d(dropout)
        self.projections = nn.ModuleDict()
        self.tops = nn.ModuleDict()
        self.blocks = nn.ModuleDict()
        above = None
        for stride, w in self.widths.items():
            self.projections[str(stride)] = nn.Conv2d(sum(channels[n] for n in self.names[stride]) + 2, w, 1)
            self.blocks[str(stride)] = Block(w)
            if above is not None:
                self.tops[str(stride)] = nn.Conv2d(above, w, 1)
            above = w
        self.coarse = [s for s, w in self.widths.items() if w == width][:2]
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.1, "gelu", batch_first=True, norm_first=True)
        self.context = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, maps: Mapping[str, Tensor]) -> Pyramid:
        levels: Pyramid = {}
        for stride, names in self.names.items():
            x = self.drop(torch.cat([self.norms[module_key(n)](maps[n]) for n in names], 1))
            levels[stride] = self.projections[str(stride)](torch.cat([x, coordinates(x)], 1))
        self._add_context(levels)
        above: Tensor | None = None
        for stride, x in levels.items():
            if above is not None:
                top = self.tops[str(stride)](above)
                x = x + F.interpolate(top, size=x.shape[-2:], mode="bilinear", align_corners=False)
            above = levels[stride] = self.blocks[str(stride)](x)
        return levels

    def _add_context(self, levels: Pyramid) -> None:
        """Let the coarsest levels see the whole image."""
        shapes = [levels[s].shape[-2:] for s in self.coarse]
        tokens = self.context(tokenise([levels[s] for s in self.coarse]))
        start = 0
        for stride, (h, w) in zip(self.coarse, shapes, strict=True):
            part = tokens[:, start : start + h * w]
            levels[stride] = part.transpose(1, 2).unflatten(-1, (h, w))
            start += h * w


def tokenise(levels: Sequence[Tensor]) -> Tensor:
    """f[b c h w] of several sizes -> one sequence f[b n c] with 2-D sinusoidal positions added."""
    return torch.cat([(x + positions(x)).flatten(2).transpose(1, 2) for x in levels], 1)


def coordinates(x: Tensor) -> Tensor:
    """Row and column of every position, -1 to 1: f[b 2 h w]. Up is sky, down is near."""
    rows = torch.linspace(-1, 1, x.shape[-2], device=x.device, dtype=x.dtype)
    columns = torch.linspace(-1, 1, x.shape[-1], device=x.device, dtype=x.dtype)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij")).expand(len(x), -1, -1, -1)


def positions(x: Tensor) -> Tensor:
    """Sinusoidal positions f[c h w] on a unit square, so that levels of different size agree (c divisible by 4)."""
    c, h, w = x.shape[1:]
    frequency = torch.pi * 2.0 ** torch.linspace(0, 5, c // 4, device=x.device)
    rows = (torch.arange(h, device=x.device) + 0.5) / h
    columns = (torch.arange(w, device=x.device) + 0.5) / w
    y = (rows[None] * frequency[:, None])[:, :, None].expand(-1, h, w)
    z = (columns[None] * frequency[:, None])[:, None].expand(-1, h, w)
    return torch.cat([y.sin(), y.cos(), z.sin(), z.cos()]).to(x.dtype)


def module_key(name: str) -> str:
    """A feature's name as a module's, which may hold no dot."""
    return name.replace(".", "_")
