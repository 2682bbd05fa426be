"""Depth along the optical axis: its logarithm by regression, its scale from the labels, where there are any, and how likely it
is right."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from datasetdm.backbones.features import FeatureSpec
from datasetdm.decoder.blocks.pixel import Pyramid, merge
from datasetdm.decoder.blocks.scale import ScaleVotes
from datasetdm.decoder.inputs import DecoderInput
from datasetdm.decoder.tasks import Head, Previous, Tensors, platt_scaling, sample_pixels
from datasetdm.decoder.tasks.semantic import SemanticOutputs
from datasetdm.errors import DataError
from datasetdm.metrics.depth import DepthMeter
from datasetdm.records import AnnotationName, Annotations, DepthMap, Labels, Sample

NEAR = math.log(1.25)
"""Log depth that is off by less is right: what delta1 counts, and what a confidence is the probability of."""

UNKNOWN = -1.0
"""In targets: depth 0 is a pixel without depth, UNKNOWN one that nobody measured."""

SILOG_WEIGHT = 2.0
"""Of the scale-aware logarithmic error beside the L1 error of the logarithm."""

SCALE_FORGIVENESS = 0.5
"""Fraction of an image's mean log error that SiLog forgives (lambda of Eigen et al. 2014)."""

MIN_VALIDITY = 1e-3
"""What every pixel counts at least in an image's mean log depth, so that images without valid depth have one."""


@dataclass(frozen=True)
class DepthOutputs(Tensors):
    """Log depth, and the logits of: there is depth; the depth is `NEAR` the truth."""

    log_depth: Float[Tensor, "*b 1 h w"]
    validity: Float[Tensor, "*b 1 h w"]
    confidence: Float[Tensor, "*b 1 h w"]


@dataclass(frozen=True)
class DepthTargets(Tensors):
    """Depth in the records' unit, 0 where there is none, `UNKNOWN` where nobody measured."""

    depth: Float[Tensor, "*b h w"]


class DepthHead(Head[DepthOutputs, DepthTargets]):
    """Buffers: mean and spread of the fitting set's log depth; whether it is metric; slope and shift of the confidence's logit.

    The confidence learns from the depth's own errors, and its gradient stops at the pyramid.
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

    def forward(self, pyramid: Pyramid, inputs: DecoderInput, previous: Previous) -> DepthOutputs:
        """With a semantic task, the scale that the labels' regions vote for replaces the map's own mean."""
        out = merge({s: self.convs[str(s)](x) for s, x in pyramid.items()}).float()
        shape, validity = out[:, :1], out[:, 1:]
        if (semantic := previous.get(SemanticOutputs)) is not None:
            masks = semantic.logits.detach().float().softmax(1)
            weight = validity.detach().sigmoid() + MIN_VALIDITY
            mean = (shape * weight).sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True)
            shape = shape - mean + self.scale(masks, inputs.text)[:, None, None, None]
        confidence = merge({s: self.sure[str(s)](x.detach()) for s, x in pyramid.items()}).float()
        return DepthOutputs(shape * self.std + self.mean, validity, confidence)

    def fit_statistics(self, samples: Sequence[Sample]) -> None:
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

    def calibrate(self, outputs: Sequence[DepthOutputs], targets: Sequence[DepthTargets]) -> None:
        """The confidence's slope and shift: on fitted images it is too high."""
        pairs = [_rightness(o, t) for o, t in zip(outputs, targets, strict=True)]
        logits, right = (torch.cat(v) for v in zip(*pairs, strict=True))
        if (trust := platt_scaling(logits, right)) is not None:
            self.trust.copy_(trust)


class DepthTask:
    """See `Task`."""

    name = "depth"
    field: AnnotationName = "depth"
    needs: tuple[AnnotationName, ...] = ()

    def head(self, specs: Sequence[FeatureSpec], widths: Mapping[int, int], text_width: int) -> DepthHead:
        return DepthHead(widths, text_width)

    def target(self, sample: Sample) -> DepthTargets | None:
        return None if sample.depth is None else DepthTargets(torch.from_numpy(sample.depth.depth.copy()))

    def fill_values(self) -> DepthTargets:
        return DepthTargets(torch.full((1, 1), UNKNOWN))

    def rescale_target(self, target: DepthTargets, zoom: float) -> DepthTargets:
        """What looks twice as large through the same camera is half as far (Yin et al. 2023, Metric3D)."""
        return target.map(lambda depth: torch.where(depth > 0, depth / abs(zoom), depth))

    def loss(self, head: DepthHead, outputs: DepthOutputs, targets: DepthTargets) -> Tensor:
        """Scale-aware SiLog (Eigen et al. 2014) plus L1 of the log, and cross-entropy of validity and of being right."""
        outputs, targets = sample_pixels(outputs, targets)
        depth = targets.depth
        valid, known = depth > 0, depth >= 0
        log_depth, validity = outputs.log_depth[:, 0], outputs.validity[:, 0]
        if not known.any():
            return log_depth.sum() * 0
        loss = F.binary_cross_entropy_with_logits(validity[known], valid[known].float())
        if valid.any():
            error = log_depth[valid] - depth[valid].log()
            silog = (error.square().mean() - SCALE_FORGIVENESS * error.mean().square() + 1e-6).sqrt()
            loss = loss + SILOG_WEIGHT * silog + error.abs().mean()
            loss = loss + F.binary_cross_entropy_with_logits(*_rightness(outputs, targets))
        return loss

    def postprocess(self, head: DepthHead, outputs: DepthOutputs, labels: Labels, previous: Annotations) -> DepthMap:
        valid = (outputs.validity[0] > 0).cpu().numpy()
        depth = outputs.log_depth[0].float().exp().cpu().numpy()
        unit = "metre" if float(head.metric) else "relative"
        slope, shift = head.trust.tolist()
        confidence = (outputs.confidence[0].float() * slope + shift).sigmoid().cpu().numpy()
        return DepthMap(depth, valid, unit, confidence).quantised()

    def meter(self) -> DepthMeter:
        return DepthMeter()


def _rightness(outputs: DepthOutputs, targets: DepthTargets) -> tuple[Tensor, Tensor]:
    """Of every valid pixel the confidence's logit f[p] and whether its depth is `NEAR` the truth f[p]."""
    valid = targets.depth > 0
    error = outputs.log_depth[:, 0].detach().float()[valid] - targets.depth[valid].log()
    return outputs.confidence[:, 0].float()[valid], (error.abs() < NEAR).float()
