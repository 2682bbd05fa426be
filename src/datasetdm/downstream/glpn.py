"""GLPN (Kim et al. 2022, arXiv 2201.07436): depth in metres."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from datasetdm.backbones.canvas import Placement
from datasetdm.decoder.tasks.depth import DepthTargets, DepthTask
from datasetdm.downstream import Batch, LossOptions, Student, Variant
from datasetdm.downstream.mit import MIT_SETTINGS, TINY_MIT, mit
from datasetdm.errors import ConfigError, DataError
from datasetdm.metrics import DepthMeter, Meter
from datasetdm.records import Annotations, DepthMap, Labels, Sample
from datasetdm.training.cache import place_target

SCALE_FORGIVENESS = 0.5
"""How much of the error that is the same in the whole image is forgiven (the lambda of Eigen et al. 2014, as in the paper)."""
STRIDE = 32
"""Of the coarsest map: images have a whole number of its pixels, or the decoder cannot put the maps together."""
TINY = 1e-6
"""Keeps logarithm and root finite."""


class Glpn(Student[DepthTargets]):
    """See the module."""

    name = model_type = encoder = "glpn"
    encoder_type = "segformer"  # both have a Mix Transformer, with weights of the same names
    reads = (DepthTask.field,)
    outputs = ("predicted_depth",)
    variants: ClassVar[Mapping[str, Variant]] = {
        "tiny": Variant(128, {**TINY_MIT, "decoder_hidden_size": 16}),
        "b0": Variant(480, {}),
        "b4": Variant(480, mit(3, 8, 27, 3)),
    }

    def __init__(self, labels: Labels, options: LossOptions | None = None):
        super().__init__(labels, options)
        self.farthest = 0.0

    def observe(self, sample: Sample) -> None:
        """The largest depth is what the model can say at most. Raises DataError for depth of no known unit."""
        if sample.depth is None:
            return
        if sample.depth.unit != "metre":
            raise DataError(
                "the depth is relative", where=f"sample {sample.key!r}", expected="metres", remedy="use other data"
            )
        self.farthest = max(self.farthest, float(sample.depth.depth.max(initial=0)))

    def classes(self) -> tuple[Any, Any]:
        from transformers import GLPNConfig, GLPNForDepthEstimation

        return GLPNConfig, GLPNForDepthEstimation

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "max_depth": max(1, math.ceil(self.farthest))}

    def sized(self, settings: Mapping[str, Any], side: int) -> dict[str, Any]:
        if side % STRIDE:
            raise ConfigError(
                f"a {self.name} does not see images of {side} pixels",
                expected=f"a --size that is a multiple of {STRIDE}",
            )
        return super().sized(settings, side)

    def around(self, encoder: Mapping[str, Any]) -> dict[str, Any]:
        return {key: encoder[key] for key in MIT_SETTINGS}

    def processor(self, side: int) -> Any:
        from transformers import DPTImageProcessorPil

        return DPTImageProcessorPil(size={"height": side, "width": side}, resample=2)

    def target(self, sample: Sample, place: Placement) -> DepthTargets:
        target = place_target(DepthTask(), sample, place)
        assert isinstance(target, DepthTargets)
        return target

    def rescale_target(self, target: DepthTargets, zoom: float) -> DepthTargets:
        return DepthTask().rescale_target(target, zoom)

    def loss(self, model: Any, images: Float[Tensor, "b 3 H W"], batch: Batch[DepthTargets]) -> Float[Tensor, ""]:
        """The scale-invariant error of the logarithm over all valid pixels of the batch (SiLog)."""
        predicted, true = model(pixel_values=images).predicted_depth.float(), batch.targets.depth
        valid = true > 0
        if not valid.any():
            return predicted.sum() * 0
        error = predicted[valid].clamp_min(TINY).log() - true[valid].log()
        return (error.square().mean() - SCALE_FORGIVENESS * error.mean().square() + TINY).sqrt()

    @torch.no_grad()
    def annotate(self, model: Any, processor: Any, samples: Sequence[Sample]) -> list[Annotations]:
        inputs = processor(images=[s.image for s in samples], return_tensors="pt")
        depths = model(pixel_values=inputs["pixel_values"].to(model.device)).predicted_depth.float()
        found = []
        for own, sample in zip(depths, samples, strict=True):
            full = F.interpolate(own[None, None], sample.size, mode="bilinear", align_corners=False)[0, 0].cpu()
            found.append(Annotations(depth=DepthMap(full.numpy(), torch.ones_like(full, dtype=torch.bool).numpy())))
        return found

    def meters(self) -> dict[str, Meter]:
        return {DepthTask.name: DepthMeter()}
