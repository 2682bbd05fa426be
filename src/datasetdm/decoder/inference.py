"""A decoder and its backbone on existing images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from jaxtyping import Float
from torch import Tensor

from datasetdm.backbones import Backbone
from datasetdm.backbones.canvas import Placement, stack_images
from datasetdm.backbones.features import Features
from datasetdm.decoder.inputs import DecoderInput
from datasetdm.decoder.model import PDecoder
from datasetdm.records import PROMPTED, Annotations, Instances, Labels, Sample

BATCH = 16
"""Images that go through the models at a time."""


def annotate(
    decoder: PDecoder,
    backbone: Backbone,
    samples: Iterable[Sample],
    captions: bool = True,
    batch: int = BATCH,
    true_objects: bool = False,
    labels: Labels | None = None,
) -> Iterator[tuple[Sample, Sample]]:
    """(given, annotated) pairs: existing images of any size with the decoder's annotations in place of their own.

    Args:
        captions: read every image under its own prompt, as when it was generated; else under an empty one.
        batch: images that go through the models at a time.
        true_objects: place keypoints on the samples' own instances instead of those that the decoder finds.
        labels: what to look for; None is the decoder's own vocabulary.
    """
    iterator = iter(samples)
    labels = labels or decoder.config.labels
    while chunk := list(islice(iterator, batch)):
        inputs, places = read_images(backbone, chunk, labels, captions)
        known = [Annotations(instances=s.instances or Instances.none(s.size)) for s in chunk] if true_objects else None
        for sample, found in zip(chunk, decoder.annotate(inputs, places, labels, known), strict=True):
            yield sample, Sample(sample.key, sample.image, labels, sample.prompt, **found.fields())


@dataclass(frozen=True)
class ImagesRead:
    """One batch of existing images as models read them.

    Args:
        latents, features: of the images on the backbone's canvas.
        captions, mentioned: what the text encoder kept of their captions, and the labels that these ask for.
        places: where each lies on the canvas.
        inputs: what a decoder reads.
    """

    latents: Float[Tensor, "b c h w"]
    features: Features
    captions: list[str]
    mentioned: list[set[str]]
    places: list[Placement]
    inputs: DecoderInput


def read_batch(backbone: Backbone, samples: Sequence[Sample], labels: Labels, captions: bool = True) -> ImagesRead:
    """Encode one batch of existing images, under their captions or under empty ones."""
    places = [Placement.fit(s.size, backbone.size) for s in samples]
    latents = backbone.encode(stack_images([s.image for s in samples], places))
    texts = [s.caption if captions else "" for s in samples]
    kept = backbone.kept_texts(texts)
    asked = [asked_of(s, text, labels) for s, text in zip(samples, kept, strict=True)]
    features = backbone.features(latents, texts, labels.names)
    inputs = DecoderInput.from_features(features, kept, labels, asked)
    return ImagesRead(latents, features, kept, asked, places, inputs)


def read_images(
    backbone: Backbone, samples: Sequence[Sample], labels: Labels, captions: bool = True
) -> tuple[DecoderInput, list[Placement]]:
    """One batch of existing images as a decoder reads them, and where each lies on the backbone's canvas."""
    read = read_batch(backbone, samples, labels, captions)
    return read.inputs, read.places


def asked_of(sample: Sample, kept: str, labels: Labels) -> set[str]:
    """The labels that a sample's caption asks for: those that the words name which were kept of it, and for generated images
    those that the prompt came with."""
    named = {*labels.named_in(kept)}
    if kept and sample.prompt is not None and sample.prompt.origin in PROMPTED:
        named |= {*sample.prompt.labels} & {*labels.names}
    return named
