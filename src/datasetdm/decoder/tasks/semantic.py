"""Semantic segmentation: one mask logit per label and pixel, a softmax over whatever labels are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from datasetdm.backbones.features import FeatureSpec
from datasetdm.decoder.blocks.pixel import Pyramid
from datasetdm.decoder.blocks.transformer import UNSEEN_WORD_LOGIT, LabelDecoder
from datasetdm.decoder.inputs import DecoderInput
from datasetdm.decoder.tasks import TEMPERATURES, Head, Previous, Tensors, sample_pixels
from datasetdm.metrics.semantic import SemanticMeter
from datasetdm.records import IGNORE, AnnotationName, Annotations, Labels, Sample, SemanticMap

DICE_WEIGHT = 0.5
"""Of the Dice loss beside the cross-entropy."""

MAX_WEIGHT_RATIO = 10.0
"""The most that a rare label's pixels weigh, in units of the most frequent label's."""


@dataclass(frozen=True)
class SemanticOutputs(Tensors):
    """A mask logit per label."""

    logits: Float[Tensor, "*b l h w"]


@dataclass(frozen=True)
class SemanticTargets(Tensors):
    """Label ids, `IGNORE` where unknown."""

    ids: Int[Tensor, "*b h w"]


class SemanticHead(Head[SemanticOutputs, SemanticTargets]):
    """Label queries. Buffers: loss weights of the fitting labels, softmax temperature."""

    weights: Tensor
    temperature: Tensor

    def __init__(self, specs: Sequence[FeatureSpec], widths: Mapping[int, int], text_width: int):
        super().__init__()
        self.decoder = LabelDecoder(widths, specs, text_width)
        self.register_buffer("weights", torch.ones(0), persistent=False)
        self.register_buffer("temperature", torch.ones(()))

    def forward(self, pyramid: Pyramid, inputs: DecoderInput, previous: Previous) -> SemanticOutputs:
        logits = self.decoder(pyramid, inputs)
        if not self.training and inputs.mentioned is not None and inputs.in_vocabulary is not None:
            new = (inputs.mentioned > 0) * (1 - inputs.in_vocabulary)
            logits = logits + UNSEEN_WORD_LOGIT * self.temperature * new[..., None, None]
        return SemanticOutputs(logits)

    def fit_statistics(self, samples: Sequence[Sample]) -> None:
        """Rare labels weigh more: the inverse root of a label's fraction, mean 1 over pixels."""
        records = [r for s in samples if (r := s.semantic) is not None]
        counts = sum(np.bincount(r.ids[r.ids != IGNORE], minlength=len(samples[0].labels)) for r in records)
        self.weights = label_weights(np.asarray(counts)).to(self.temperature.device)

    def calibrate(self, outputs: Sequence[SemanticOutputs], targets: Sequence[SemanticTargets]) -> None:
        """The temperature that makes held-out confidences most likely (Guo et al. 2017, arXiv 1706.04599)."""
        pairs = list(zip(outputs, targets, strict=True))
        nll = [sum(float(_cross_entropy(o.logits / s, t.ids, None)) for o, t in pairs) for s in TEMPERATURES]
        self.temperature.fill_(TEMPERATURES[int(np.argmin(nll))])


class SemanticTask:
    """See `Task`."""

    name = "semantic"
    field: AnnotationName = "semantic"
    needs: tuple[AnnotationName, ...] = ()

    def head(self, specs: Sequence[FeatureSpec], widths: Mapping[int, int], text_width: int) -> SemanticHead:
        return SemanticHead(specs, widths, text_width)

    def target(self, sample: Sample) -> SemanticTargets | None:
        if sample.semantic is None:
            return None
        return SemanticTargets(torch.from_numpy(sample.semantic.ids.astype(np.int32)))

    def fill_values(self) -> SemanticTargets:
        return SemanticTargets(torch.full((1, 1), IGNORE, dtype=torch.int32))

    def rescale_target(self, target: SemanticTargets, zoom: float) -> SemanticTargets:
        return target

    def loss(self, head: SemanticHead, outputs: SemanticOutputs, targets: SemanticTargets) -> Tensor:
        outputs, targets = sample_pixels(outputs, targets)
        logits, ids = outputs.logits.float(), targets.ids.long()
        return _cross_entropy(logits, ids, head.weights) + DICE_WEIGHT * _dice(logits, ids)

    def postprocess(
        self, head: SemanticHead, outputs: SemanticOutputs, labels: Labels, previous: Annotations
    ) -> SemanticMap:
        confidence, ids = (outputs.logits.float() / head.temperature).softmax(0).max(0)
        return SemanticMap(ids.cpu().numpy().astype(np.uint16), confidence.cpu().numpy())

    def meter(self) -> SemanticMeter:
        return SemanticMeter()


def label_weights(counts: np.ndarray) -> Float[Tensor, "l"]:
    """How heavy a pixel of each label is: the inverse root of the label's fraction of all `counts` pixels, mean 1 over them."""
    fraction = torch.as_tensor(counts / max(1, np.sum(counts)), dtype=torch.float32)
    raw = (fraction.clamp_min(1e-6) ** -0.5).clamp(max=MAX_WEIGHT_RATIO * fraction.max() ** -0.5)
    return raw / (raw * fraction).sum()


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
