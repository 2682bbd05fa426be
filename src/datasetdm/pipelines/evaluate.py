"""How good a P-Decoder is on labelled pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from datasetdm.backbones import Backbone
from datasetdm.backbones.canvas import Placement, stack_images
from datasetdm.backbones.features import Features
from datasetdm.decoder.model import PDecoder, read_latents
from datasetdm.errors import DataError
from datasetdm.metrics import PanopticMeter
from datasetdm.records import Instances, Labels, Sample


def annotate(
    decoder: PDecoder,
    backbone: Backbone,
    samples: Iterable[Sample],
    captions: bool = True,
    batch: int = 16,
    true_objects: bool = False,
    labels: Labels | None = None,
) -> Iterator[tuple[Sample, Sample]]:
    """(given, annotated) pairs: existing pictures of any size with the decoder's annotations in place of their own.

    captions: read every picture under its own prompt, as when it was generated; else under an empty one.
    true_objects: place keypoints on the samples' own instances instead of those that the decoder finds.
    labels: what to look for; None is the decoder's own vocabulary.
    """
    iterator = iter(samples)
    labels = labels or decoder.config.labels
    while chunk := list(islice(iterator, batch)):
        features, places = read_features(backbone, chunk, labels, captions)
        given = (
            [Instances.none(s.size) if s.instances is None else s.instances for s in chunk] if true_objects else None
        )
        for sample, records in zip(chunk, decoder.annotate(features, places, labels, given), strict=True):
            yield sample, Sample(sample.key, sample.image, labels, sample.prompt, **records.fields())


def read_features(
    backbone: Backbone, samples: Sequence[Sample], labels: Labels, captions: bool = True
) -> tuple[Features, list[Placement]]:
    """Features of one batch of existing pictures, and where each lies on the backbone's canvas."""
    places = [Placement.fit(s.size, backbone.size) for s in samples]
    latents = backbone.encode(stack_images([s.image for s in samples], places))
    texts = [s.caption if captions else "" for s in samples]
    return read_latents(backbone, latents, texts, labels), places


def evaluate(
    decoder: PDecoder,
    backbone: Backbone,
    samples: Sequence[Sample] | Iterable[Sample],
    captions: bool = True,
    true_objects: bool = False,
    labels: Labels | None = None,
) -> dict[str, dict[str, float]]:
    """Figures of every task of the decoder that the samples have labels for, by task name; `panoptic`, too, where there
    are a semantic map and instances.

    true_objects: measure keypoints only, on the samples' own instances (a decoder without instances always does).
    labels: what to look for; None is the decoder's own vocabulary.
    """
    true_objects = true_objects or ("keypoints" in decoder.tasks and "instance" not in decoder.tasks)
    meters = {name: task.meter() for name, task in decoder.tasks.items() if name == "keypoints" or not true_objects}
    segments = PanopticMeter()
    seen: set[str] = set()
    own = (labels or decoder.config.labels).names
    for given, predicted in annotate(decoder, backbone, samples, captions, true_objects=true_objects, labels=labels):
        known = {name for name in meters if getattr(given, decoder.tasks[name].field) is not None}
        if given.labels.names != own and {"semantic", "instance", "keypoints"} & known:
            raise DataError(
                "the data's labels are not the decoder's",
                where=f"sample {given.key!r}, labels {', '.join(given.labels.names[:6])}, ...",
                expected=f"{len(own)} labels in this order: {', '.join(own[:6])}, ...",
                remedy="use data with the labels that the decoder was fitted on",
            )
        seen |= known
        for name in known:
            found, true = (getattr(s, decoder.tasks[name].field) for s in (predicted, given))
            objects = {"objects": (predicted.instances, given.instances)} if name == "keypoints" else {}
            meters[name].update(found, true, len(given.labels), **objects)
        if {"semantic", "instance"} <= known:
            segments.update(predicted, given)
    panoptic = {"panoptic": segments.compute()} if segments.counts else {}
    return {name: meter.compute() for name, meter in meters.items() if name in seen} | panoptic
