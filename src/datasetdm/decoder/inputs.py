"""What a P-Decoder reads of a batch of images."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from datasetdm.backbones.features import Features
from datasetdm.records import Labels


@dataclass(frozen=True)
class DecoderInput:
    """A batch of images as backbone and captions describe them, and the labels that are asked for.

    Args:
        maps: a backbone's feature maps by name, hidden and VAE maps `f[b c h w]`, attention maps `f[b l c h w]`.
        text: embedding of every label.
        mentioned: 1 where an image's caption mentions the label, -1 where it does not, 0 where there is no caption; None reads
            the images without caption labels.
        in_vocabulary: 1 for labels that the decoder's fit saw, 0 for others; None takes all as seen.
    """

    maps: Mapping[str, Tensor]
    text: Float[Tensor, "l d"]
    mentioned: Float[Tensor, "b l"] | None = None
    in_vocabulary: Float[Tensor, "l"] | None = None

    @classmethod
    def from_features(
        cls,
        features: Features,
        captions: Sequence[str],
        labels: Labels,
        asked: Sequence[Collection[str]] | None = None,
    ) -> DecoderInput:
        """Features of images with captions.

        Args:
            features: of the images.
            captions: what the text encoders kept of them.
            labels: those that the features were taken for.
            asked: the labels that each caption asks for; None takes those that its words name.
        """
        flags = mention_flags(captions, labels, asked)
        return cls(features.maps, features.text, flags.to(features.text.device))

    def to(self, device: torch.device | str) -> DecoderInput:
        """The same on another device."""
        flags = (None if x is None else x.to(device) for x in (self.mentioned, self.in_vocabulary))
        return DecoderInput({n: x.to(device) for n, x in self.maps.items()}, self.text.to(device), *flags)

    def for_vocabulary(self, asked: Labels, seen: Collection[str]) -> DecoderInput:
        """The same with flags that say which of the labels asked for a fit saw."""
        flags = [float(name in seen) for name in asked.names]
        return replace(self, in_vocabulary=torch.tensor(flags, device=self.text.device))


def mention_flags(
    captions: Sequence[str], labels: Labels, asked: Sequence[Collection[str]] | None = None
) -> Float[Tensor, "b l"]:
    """Which labels each caption asks for (those that it names, if nothing else is known): `DecoderInput.mentioned`."""
    rows = []
    for text, mentioned in zip(captions, asked or map(labels.named_in, captions), strict=True):
        rows.append([0.0 if not text else 1.0 if name in mentioned else -1.0 for name in labels.names])
    return torch.tensor(rows).reshape(len(captions), len(labels))
