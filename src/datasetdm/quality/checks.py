"""Filters that look at what the models saw: they receive every batch of samples while it is made.

Flip consistency ignores labels that the mirror image does not confirm (as S3OD does for its masks).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from datasetdm.backbones import Backbone
from datasetdm.backbones.canvas import Placement
from datasetdm.backbones.features import Features
from datasetdm.decoder.blocks.transformer import upsample
from datasetdm.decoder.inputs import DecoderInput
from datasetdm.decoder.model import PDecoder, autocast
from datasetdm.decoder.tasks.semantic import SemanticHead, SemanticOutputs
from datasetdm.errors import ConfigError
from datasetdm.records import Labels, Sample
from datasetdm.records.edits import ignore_pixels, judge


@dataclass(frozen=True)
class Made:
    """What a batch of samples was made from.

    Args:
        latents: clean ones, f[b c h w].
        features: of the latents, for these labels.
        captions, mentioned: the text of every image, and the labels that it names.
        places: where every image lies on the backbone's canvas.
    """

    latents: Float[Tensor, "b c h w"]
    features: Features
    captions: Sequence[str]
    mentioned: Sequence[Collection[str]]
    labels: Labels
    backbone: Backbone
    decoder: PDecoder
    places: Sequence[Placement]

    def inputs(self, features: Features) -> DecoderInput:
        """What the decoder reads of features of these images, or of their mirror images."""
        return DecoderInput.from_features(features, self.captions, self.labels, self.mentioned)

    def mirrored(self) -> Features:
        """Features of the mirrored latents: a second pass of the backbone."""
        return self.backbone.features(self.latents.flip(-1), self.captions, self.labels.names)


@runtime_checkable
class Check(Protocol):
    """A filter of samples while they are made; it must give a sample the same quality whatever else is in the batch."""

    def to_json(self) -> dict[str, Any]:
        """Name and settings, JSON-ready."""
        ...

    def __call__(self, samples: Sequence[Sample], made: Made) -> list[Sample]:
        """The samples with scores and reasons, or with ignored pixels."""
        ...


class FlipConsistency(BaseModel):
    """Ignores pixels of the semantic map on which image and mirror image agree less. Its score is the mean agreement.

    Args:
        minimum: agreement of a pixel, 0 to 1: the probability that both distributions over the labels share.
        mean: mean agreement of an image below which it is rejected.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar[str] = "flip-consistency"
    minimum: float = Field(0.5, ge=0, le=1)
    mean: float = Field(0.0, ge=0, le=1)

    def to_json(self) -> dict[str, Any]:
        """Name and settings."""
        return {"name": self.name, **self.model_dump(mode="json")}

    def __call__(self, samples: Sequence[Sample], made: Made) -> list[Sample]:
        """Raises ConfigError for a decoder without semantic maps."""
        judged = []
        for sample, own in zip(samples, agreement(made), strict=True):
            masked = ignore_pixels(sample, own < self.minimum)
            judged.append(judge(masked, self.name, float(own.mean()), self.mean, "the mirror image has other labels"))
        return judged


def make_checks(flip_agreement: float | None) -> list[Check]:
    """The checks that the settings of a generation or an annotation stand for."""
    return [FlipConsistency(minimum=flip_agreement)] if flip_agreement else []


def agreement(made: Made) -> list[Float[np.ndarray, "h w"]]:
    """The probability that the semantic distributions of every pixel of image and mirror image share, at each image's size."""
    own, mirrored = (
        semantic_probabilities(made.decoder, made.inputs(f), made.labels, made.backbone.size, "flip consistency")
        for f in (made.features, made.mirrored())
    )
    maps = torch.minimum(own, mirrored.flip(-1)).sum(1)
    return [place.undo(m[None, None])[0, 0].cpu().numpy() for place, m in zip(made.places, maps, strict=True)]


@torch.no_grad()
def semantic_probabilities(
    decoder: PDecoder, inputs: DecoderInput, labels: Labels, size: tuple[int, int], what: str
) -> Float[Tensor, "b l h w"]:
    """The calibrated probability of every label at every pixel of images of this size.

    Args:
        what: needs them, for the error.

    Raises:
        ConfigError: a decoder without semantic maps.
    """
    head = next((h for h in decoder.heads.values() if isinstance(h, SemanticHead)), None)
    if head is None:
        raise ConfigError(
            f"{what} compares semantic maps, and this decoder makes none",
            expected="a decoder with the task semantic",
            remedy=f"fit one, or leave {what} out",
        )
    device = next(decoder.parameters()).device
    with autocast(device):
        outputs = decoder(inputs.to(device).for_vocabulary(labels, decoder.config.seen))
    logits = next(o.logits for o in outputs.values() if isinstance(o, SemanticOutputs))
    return (upsample(logits.float(), size) / head.temperature).softmax(1)
