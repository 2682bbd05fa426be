"""SegFormer (Xie et al. 2021, arXiv 2105.15203): semantic segmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from datasetdm.backbones.canvas import Placement
from datasetdm.decoder.tasks.semantic import SemanticTargets, SemanticTask, label_weights
from datasetdm.downstream import Batch, LossOptions, Student, Variant
from datasetdm.downstream.mit import TINY_MIT, mit
from datasetdm.metrics import Meter, SemanticMeter
from datasetdm.records import IGNORE, Annotations, Labels, Sample, SemanticMap
from datasetdm.training.cache import place_target

STRIDE = 2
"""Of the pixels whose loss counts, along rows and columns."""


class Segformer(Student[SemanticTargets]):
    """See the module."""

    name = model_type = encoder = "segformer"
    reads = (SemanticTask.field,)
    outputs = ("logits",)
    self_trains = weighs_pixels = True
    variants: ClassVar[Mapping[str, Variant]] = {
        "tiny": Variant(128, {**TINY_MIT, "decoder_hidden_size": 64}),
        "b0": Variant(512, {}),
        "b1": Variant(512, {**mit(2, 2, 2, 2), "decoder_hidden_size": 256}),
        "b2": Variant(512, {**mit(3, 4, 6, 3), "decoder_hidden_size": 768}),
        "b3": Variant(512, {**mit(3, 4, 18, 3), "decoder_hidden_size": 768}),
        "b4": Variant(512, {**mit(3, 8, 27, 3), "decoder_hidden_size": 768}),
        "b5": Variant(512, {**mit(3, 6, 40, 3), "decoder_hidden_size": 768}),
    }

    def __init__(self, labels: Labels, options: LossOptions | None = None):
        super().__init__(labels, options)
        self.counts = np.zeros(len(labels), np.int64)

    def observe(self, sample: Sample) -> None:
        """Count the pixels of every label."""
        if sample.semantic is not None:
            ids = sample.semantic.ids
            self.counts += np.bincount(ids[ids != IGNORE], minlength=len(self.labels))

    def classes(self) -> tuple[Any, Any]:
        from transformers import SegformerConfig, SegformerForSemanticSegmentation

        return SegformerConfig, SegformerForSemanticSegmentation

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "semantic_loss_ignore_index": IGNORE}

    def processor(self, side: int) -> Any:
        from transformers import SegformerImageProcessorPil

        return SegformerImageProcessorPil(size={"height": side, "width": side})

    def target(self, sample: Sample, place: Placement) -> SemanticTargets:
        target = place_target(SemanticTask(), sample, place)
        assert isinstance(target, SemanticTargets)
        return target

    def logits(self, model: Any, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b l H W"]:
        small = model(pixel_values=images).logits.float()
        return F.interpolate(small, images.shape[-2:], mode="bilinear", align_corners=False)

    def loss(self, model: Any, images: Float[Tensor, "b 3 H W"], batch: Batch[SemanticTargets]) -> Float[Tensor, ""]:
        """Cross-entropy over the pixels with a label, each as heavy as its label, of every second row and column, odd or
        even by chance: logits have every fourth, and all pixels would double the time of a step."""
        logits = model(pixel_values=images).logits
        top, left = torch.randint(STRIDE, (2,)).tolist()
        ids = batch.targets.ids[:, top::STRIDE, left::STRIDE].long()
        full = F.interpolate(logits.float(), ids.shape[-2:], mode="bilinear", align_corners=False)
        weights = label_weights(self.counts).to(full.device) if self.options.class_weights else None
        return cross_entropy(full, ids, weights, batch.synthetic * self.options.label_smoothing)

    @torch.no_grad()
    def annotate(self, model: Any, processor: Any, samples: Sequence[Sample]) -> list[Annotations]:
        inputs = processor(images=[s.image for s in samples], return_tensors="pt")
        logits = model(pixel_values=inputs["pixel_values"].to(model.device)).logits.float()
        found = []
        for own, sample in zip(logits, samples, strict=True):
            full = F.interpolate(own[None], sample.size, mode="bilinear", align_corners=False)[0]
            confidence, ids = full.softmax(0).max(0)
            found.append(Annotations(SemanticMap(ids.cpu().numpy().astype(np.uint16), confidence.cpu().numpy())))
        return found

    def meters(self) -> dict[str, Meter]:
        return {SemanticTask.name: SemanticMeter()}


def cross_entropy(
    logits: Float[Tensor, "b l h w"],
    ids: Int[Tensor, "b h w"],
    weights: Float[Tensor, "l"] | None,
    smoothing: Float[Tensor, "b"],
) -> Float[Tensor, ""]:
    """Mean over the pixels whose id is not `IGNORE`; 0 without any.

    Args:
        weights: of the labels' pixels; None for all equal.
        smoothing: probability that is spread over all labels, by image (Szegedy et al. 2016).
    """
    known = ids != IGNORE
    loss = F.cross_entropy(logits, ids, ignore_index=IGNORE, reduction="none")
    if smoothing.any():
        uniform = -logits.log_softmax(1).mean(1)
        share = smoothing[:, None, None] * known
        loss = loss * (1 - share) + uniform * share
    weight = known.float() if weights is None else weights[ids.where(known, 0)] * known
    return (loss * weight).sum() / weight.sum().clamp_min(1e-6)
