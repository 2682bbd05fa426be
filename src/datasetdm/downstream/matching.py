"""The loss of mask classification: every true segment is matched to one query (Cheng et al. 2021, MaskFormer)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

CLASS, MASK, DICE, NO_OBJECT = 2.0, 5.0, 5.0, 0.1
"""Weights of the paper. Its 12,544 sampled points are more than a mask here has: all pixels are used."""


def matched_loss(
    masks: Tensor, classes: Tensor, truth: Sequence[Tensor], labels: Sequence[Tensor], known: Tensor
) -> Tensor:
    """Summed over predictions, averaged over images and segments.

    Args:
        masks: logits f[n b q h w]. classes: logits f[n b q labels + 1], "nothing" last, of n predictions.
        truth: by image, segments f[t h w]. labels: by image, their labels i64[t].
        known: pixels that count b[b h w]; an image without any has no part in the loss.
    """
    total = masks.sum() * 0
    some = known.flatten(1).any(1)
    truth = [t if there else t[:0] for t, there in zip(truth, some.tolist(), strict=True)]
    count = max(1, sum(len(t) for t in truth))
    for mask, logits in zip(masks, classes, strict=True):
        aims = torch.full(logits.shape[:2], logits.shape[-1] - 1, device=logits.device)
        for i, (segments, own) in enumerate(zip(truth, labels, strict=True)):
            if not len(segments):
                continue
            m, t = mask[i].flatten(1)[:, known[i].flatten()], segments.flatten(1)[:, known[i].flatten()]
            rows, columns = _match(m.detach(), t, logits[i].detach(), own)
            aims[i, rows] = own[columns]
            bce = F.binary_cross_entropy_with_logits(m[rows], t[columns], reduction="none").mean(1)
            total = total + (MASK * bce + DICE * _dice(m[rows].sigmoid(), t[columns])).sum() / count
        if some.any():
            weight = torch.ones(logits.shape[-1], device=logits.device)
            weight[-1] = NO_OBJECT
            total = total + CLASS * F.cross_entropy(logits[some].flatten(0, 1), aims[some].flatten(), weight)
    return total


def _match(masks: Tensor, truth: Tensor, classes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The cheapest pairs of queries f[q n] and segments f[t n] (Hungarian algorithm)."""
    pixels = truth.shape[1]
    bce = (F.softplus(-masks) @ truth.T + F.softplus(masks) @ (1 - truth).T) / pixels
    p = masks.sigmoid()
    dice = 1 - (2 * p @ truth.T + 1) / (p.sum(1)[:, None] + truth.sum(1)[None] + 1)
    cost = MASK * bce + DICE * dice - CLASS * classes.softmax(-1)[:, labels]
    rows, columns = linear_sum_assignment(cost.nan_to_num().cpu().numpy())  # of NaN, too: then the loss is NaN
    return torch.as_tensor(rows, device=masks.device), torch.as_tensor(columns, device=masks.device)


def _dice(p: Tensor, truth: Tensor) -> Tensor:
    return 1 - (2 * (p * truth).sum(1) + 1) / (p.sum(1) + truth.sum(1) + 1)
