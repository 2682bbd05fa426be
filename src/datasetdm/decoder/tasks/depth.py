"""Depth along the optical axis: its logarithm by regression, its scale from the labels, where there is any, and how likely it
is right."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasetdm.backbones.features import FeatureSpec
from datasetdm.decoder.blocks.pixel import Pyramid, merge
from datasetdm.decoder.blocks.scale import ScaleVotes
from datasetdm.decoder.tasks import Head, Outputs, calibrated, sample_pixels
from datasetdm.errors import DataError
from datasetdm.metrics import DepthMeter
from datasetdm.records import Annotations, DepthMap, Labels, Sample

NEAR = math.log(1.25)
"""Log depth that is off by less is right: what delta1 counts, and what a confidence is the probability of."""

UNKNOWN = -1.0
"""In target maps: depth 0 is a pixel without depth, UNKNOWN one that nobody measured."""


class DepthHead(Head):
    """Buffers: mean and spread of the fitting set's log depth; whether it is metric; slope and shift of the confidence's logit.

    The confidence learns from the depth's own errors and teaches the rest nothing.
    """

    mean: Tensor
    std: Tensor
    metric: Tensor
    trust: Tensor

    def __init__(self, widths: Mapping[int, int], text_width: int):
        super().__init__()
        self.scale = ScaleVotes(text_width)
        self.convs = nn.ModuleDict({str(s): nn.Conv2d(w, 2, 1) for s, w in widths.items()})
        self.sure = nn.ModuleDict({str(s): nn.Conv2d(w, 1, 1) for s, w in widths.items()})
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))
        self.register_buffer("metric", torch.ones(()))
        self.register_buffer("trust", torch.tensor([1.0, 0.0]))

    def forward(
        self, pyramid: Pyramid, maps: Mapping[str, Tensor], text: Tensor, before: Mapping[str, Outputs]
    ) -> dict[str, Tensor]:
        """With a semantic task, the map's own mean gives way to what the labels' regions say."""
        out = merge({s: self.convs[str(s)](x) for s, x in pyramid.items()}).float()
        shape, validity = out[:, :1], out[:, 1:]
        if "semantic" in before:
            masks = before["semantic"]["semantic"].detach().float().softmax(1)
            some = validity.detach().sigmoid() + 1e-3
            mean = (shape * some).sum((2, 3), keepdim=True) / some.sum((2, 3), keepdim=True)
            shape = shape - mean + self.scale(masks, text)[:, None, None, None]
        sure = merge({s: self.sure[str(s)](x.detach()) for s, x in pyramid.items()}).float()
        return {"log_depth": shape * self.std + self.mean, "validity": validity, "confidence": sure}

    def calibrate(self, samples: Sequence[Sample]) -> None:
        records = [r for s in samples if (r := s.depth) is not None]
        units = {r.unit for r in records}
        if len(units) > 1:
            raise DataError("some depth is in metres and some is relative", expected="one unit in all fitting samples")
        logs = np.log(np.concatenate([r.depth[r.valid & (r.depth > 0)] for r in records]))
        if logs.size < 2:
            raise DataError("no sample has valid depth", expected="valid pixels", remedy="leave depth out of --tasks")
        self.mean.fill_(float(logs.mean()))
        self.std.fill_(max(float(logs.std()), 1e-3))
        self.metric.fill_(float(units == {"metre"}))

    def tune(self, outputs: Sequence[Outputs], targets: Sequence[Outputs]) -> None:
        """The confidence's slope and shift: fitted pictures are known too well."""
        pairs = [_rightness(o, t) for o, t in zip(outputs, targets, strict=True)]
        logits, right = (torch.cat(v) for v in zip(*pairs, strict=True))
        if (trust := calibrated(logits, right)) is not None:
            self.trust.copy_(trust)


class Depth:
    """See `Task`."""

    name = field = "depth"

    def head(self, specs: Sequence[FeatureSpec], widths: Mapping[int, int], text_width: int) -> Head:
        return DepthHead(widths, text_width)

    def target(self, sample: Sample) -> dict[str, Any] | None:
        return None if sample.depth is None else {"depth": sample.depth.depth}

    def blank(self) -> dict[str, float]:
        return {"depth": UNKNOWN}

    def zoomed(self, key: str, values: Tensor, zoom: float) -> Tensor:
        """What looks twice as large through the same camera is half as far (Yin et al. 2023, Metric3D)."""
        return torch.where(values > 0, values / abs(zoom), values)

    def loss(self, head: Head, outputs: Outputs, targets: Outputs) -> Tensor:
        """Scale-aware SiLog (Eigen et al. 2014) plus L1 of the log, and cross-entropy of validity and of being right."""
        outputs, targets = sample_pixels(outputs, targets)
        depth = targets["depth"]
        valid, known = depth > 0, depth >= 0
        log_depth, validity = outputs["log_depth"][:, 0], outputs["validity"][:, 0]
        if not known.any():
            return log_depth.sum() * 0
        loss = F.binary_cross_entropy_with_logits(validity[known], valid[known].float())
        if valid.any():
            error = log_depth[valid] - depth[valid].log()
            loss = loss + 2 * (error.square().mean() - 0.5 * error.mean().square() + 1e-6).sqrt() + error.abs().mean()
            loss = loss + F.binary_cross_entropy_with_logits(*_rightness(outputs, targets))
        return loss

    def record(self, head: Head, outputs: Outputs, labels: Labels, before: Annotations) -> DepthMap:
        assert isinstance(head, DepthHead)
        valid = (outputs["validity"][0] > 0).cpu().numpy()
        depth = outputs["log_depth"][0].float().exp().cpu().numpy()
        unit = "metre" if float(head.metric) else "relative"
        slope, shift = head.trust.tolist()
        confidence = (outputs["confidence"][0].float() * slope + shift).sigmoid().cpu().numpy()
        return DepthMap(depth, valid, unit, confidence).quantised()

    def meter(self) -> DepthMeter:
        return DepthMeter()


def _rightness(outputs: Outputs, targets: Outputs) -> tuple[Tensor, Tensor]:
    """Of every valid pixel the confidence's logit f[p] and whether its depth is `NEAR` the truth f[p]."""
    depth = targets["depth"]
    valid = depth > 0
    error = outputs["log_depth"][:, 0].detach().float()[valid] - depth[valid].log()
    return outputs["confidence"][:, 0].float()[valid], (error.abs() < NEAR).float()
