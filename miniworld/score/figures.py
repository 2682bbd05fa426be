"""The figures by themselves: arrays in, numbers out."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def psnr(made: Tensor, true: Tensor) -> float:
    """Mean over images f[n c h w] in 0..1, dB."""
    return float((-10 * torch.log10(((made - true) ** 2).mean((1, 2, 3)).clamp_min(1e-10))).mean())


def opponents(images: Tensor) -> Tensor:
    """f[n 3 h w] in 0..1 -> f[n 2 h/4 w/4]: R - G and B - (R + G) / 2 of 4x4 blocks, brought to 0..1 by (x + 1) / 2."""
    red, green, blue = F.avg_pool2d(images, 4).unbind(1)
    return (torch.stack([red - green, blue - (red + green) / 2], 1) + 1) / 2


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Distance of the Gaussians of two sets of features f[n d] (Dowson & Landau 1982):
    |ma - mb|^2 + tr(Ca + Cb - 2 (Ca Cb)^(1/2))."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    ca, cb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    half = _root(ca)
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(half @ cb @ half), 0, None)).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca) + np.trace(cb) - 2 * cross)


def _root(symmetric: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(symmetric)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def nearest(rows: Tensor, among: Tensor) -> Tensor:
    """Distance of each row f[n d] to its nearest f[m d], every feature in units of its spread over `among`."""
    spread = among.std(0).clamp_min(1e-6)
    return torch.cdist(rows / spread, among / spread).amin(1)


def memorised(made: Tensor, held_out: Tensor, training: Tensor) -> float:
    """Fraction of images that are nearer to a training render than 99 % of held-out renders are."""
    close = torch.quantile(nearest(held_out, training), 0.01)
    return float((nearest(made, training) < close).float().mean())


def found(presence: Tensor, thresholds: Tensor, counts: Tensor, kinds: int) -> float:
    """Fraction of the images whose caption names `kinds` categories in which all of them are found.

    presence: f[n c]; thresholds: f[c]; counts: objects that the caption names, i64[n c].
    """
    asked = counts > 0
    chosen = asked.sum(1) == kinds
    there = (presence > thresholds) | ~asked
    return float(there[chosen].all(1).float().mean()) if chosen.any() else float("nan")


def choose_thresholds(presence: Tensor, seen: Tensor, alarms: float = 0.02) -> Tensor:
    """The lowest thresholds f[c], at least 0.2, at which at most a share `alarms` of the renders without a category
    seem to show it."""
    rows = [torch.quantile(presence[seen[:, c] == 0, c], 1 - alarms) for c in range(presence.shape[1])]
    return torch.stack(rows).clamp(0.2, 0.95)


def false_alarms(presence: Tensor, thresholds: Tensor, seen: Tensor) -> float:
    """How often a category is found where it is not: mean over categories and images."""
    return float((presence > thresholds)[seen == 0].float().mean())


def counted(counts: Tensor, asked: Tensor) -> float:
    """Fraction of named categories whose number of objects (0, 1, 2, 3 or more) is read as it was asked for.

    counts: logits f[n c 4]. asked: i64[n c].
    """
    named = asked > 0
    return float((counts.argmax(-1)[named] == asked.clamp(max=counts.shape[-1] - 1)[named]).float().mean())
