"""Semantic segmentation: one mask logit a label and pixel, a softmax over whatever labels are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from datasetdm.backbones.features import FeatureSpec
from datasetdm.decoder.blocks.pixel import Pyramid
from datasetdm.decoder.blocks.transformer import LabelDecoder
from datasetdm.decoder.tasks import Head, Outputs, sample_pixels
from datasetdm.metrics import SemanticMeter
from datasetdm.records import IGNORE, Annotations, Labels, Sample, SemanticMap


class SemanticHead(Head):
    """Label queries. Buffers: loss weights of the fitting labels, softmax temperature."""

    weights: Tensor
    temperature: Tensor

    def __init__(self, specs: Sequence[FeatureSpec], widths: Mapping[int, int], text_width: int):
        super().__init__()
        self.decoder = LabelDecoder(widths, specs, text_width)
        self.register_buffer("weights", torch.ones(0), persistent=False)
        self.register_buffer("temperature", torch.ones(()))

    def forward(
        self, pyramid: Pyramid, maps: Mapping[str, Tensor], text: Tensor, before: Mapping[str, Outputs]
    ) -> dict[str, Tensor]:
        return {"semantic": self.decoder(pyramid, maps, text)}

    def calibrate(self, samples: Sequence[Sample]) -> None:
        """Rare labels weigh more: the inverse root of a label's share, within a factor of 10, mean 1 over pixels."""
        records = [r for s in samples if (r := s.semantic) is not None]
        counts = sum(np.bincount(r.ids[r.ids != IGNORE], minlength=len(samples[0].labels)) for r in records)
        share = torch.as_tensor(counts / max(1, np.sum(counts)), dtype=torch.float32)
        raw = (share.clamp_min(1e-6) ** -0.5).clamp(max=10 * share.max() ** -0.5)
        self.weights = (raw / (raw * share).sum()).to(self.temperature.device)

    def tune(self, outputs: Sequence[Outputs], targets: Sequence[Outputs]) -> None:
        """The temperature that makes held-out confidences most likely (Guo et al. 2017, arXiv 1706.04599)."""
        steps = torch.linspace(0.5, 4, 36).tolist()
        nll = [
            sum(
                float(_cross_entropy(o["semantic"] / s, t["semantic"], None))
                for o, t in zip(outputs, targets, strict=True)
            )
            for s in steps
        ]
        self.temperature.fill_(steps[int(np.argmin(nll))])


class Semantic:
    """See `Task`."""

    name = field = "semantic"

    def head(self, specs: Sequence[FeatureSpec], widths: Mapping[int, int], text_width: int) -> Head:
        return SemanticHead(specs, widths, text_width)

    def target(self, sample: Sample) -> dict[str, Any] | None:
        return None if sample.semantic is None else {"semantic": sample.semantic.ids.astype(np.float32)}

    def blank(self) -> dict[str, float]:
        return {"semantic": float(IGNORE)}

    def zoomed(self, key: str, values: Tensor, zoom: float) -> Tensor:
        return values

    def loss(self, head: Head, outputs: Outputs, targets: Outputs) -> Tensor:
        assert isinstance(head, SemanticHead)
        outputs, targets = sample_pixels(outputs, targets)
        logits, ids = outputs["semantic"].float(), targets["semantic"].long()
        return _cross_entropy(logits, ids, head.weights) + 0.5 * _dice(logits, ids)

    def record(self, head: Head, outputs: Outputs, labels: Labels, before: Annotations) -> SemanticMap:
        assert isinstance(head, SemanticHead)
        confidence, ids = (outputs["semantic"].float() / head.temperature).softmax(0).max(0)
        return SemanticMap(ids.cpu().numpy().astype(np.uint16), confidence.cpu().numpy())

    def meter(self) -> SemanticMeter:
        return SemanticMeter()


def _cross_entropy(logits: Tensor, ids: Tensor, weights: Tensor | None) -> Tensor:
    loss = F.cross_entropy(logits.float(), ids.long(), weight=weights, ignore_index=IGNORE, reduction="sum")
    known = ids.long()[ids.long() != IGNORE]
    mass = torch.ones_like(known).sum() if weights is None else weights[known].sum()
    return loss / mass.clamp_min(1e-6) if len(known) else loss * 0


def _dice(logits: Tensor, ids: Tensor) -> Tensor:
    """1 - Dice over the batch, averaged over the labels that occur in it (Milletari et al. 2016)."""
    known = (ids != IGNORE)[:, None]
    p = logits.softmax(1) * known
    truth = F.one_hot(ids.where(ids != IGNORE, 0), logits.shape[1]).movedim(-1, 1) * known
    hit, total = (p * truth).sum((0, 2, 3)), p.sum((0, 2, 3)) + truth.sum((0, 2, 3))
    present = truth.sum((0, 2, 3)) > 0
    return (1 - 2 * hit[present] / total[present].clamp_min(1)).mean() if present.any() else logits.sum() * 0
