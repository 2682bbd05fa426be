"""Existing images of any size with a decoder's annotations in place of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from datasetdm.backbones import Backbone, RunOptions
from datasetdm.decoder.inference import read_batch
from datasetdm.decoder.model import PDecoder, load_pair
from datasetdm.pipelines.stream import Keys, Source
from datasetdm.quality.checks import Check, Made
from datasetdm.records import Labels, Provenance, Sample
from datasetdm.store.store import Store

BATCH = 16
"""Images that go through the models at a time."""


class Annotator:
    """A source of annotated images: those of other data, in their order.

    Args:
        data: the images, with captions if they have some.
        decoder: a name, a folder, or a loaded one.
        backbone: likewise; None is the one that the decoder was fitted on.
        options: how a backbone that is loaded here is held and run.
        checks: filters that look at latents and features.
    """

    def __init__(
        self,
        data: Source,
        *,
        decoder: str | Path | PDecoder = "mini",
        backbone: str | Backbone | None = None,
        device: str = "auto",
        options: RunOptions | None = None,
        checks: Sequence[Check] = (),
    ):
        self.data, self.checks = data, checks
        self.decoder, self.backbone = load_pair(decoder, backbone, device, options)
        self.labels: Labels = self.decoder.config.labels
        self._fingerprint = self.decoder.fingerprint()

    @property
    def endless(self) -> bool:
        """Whether the data never end."""
        return self.data.endless

    def origin(self) -> dict[str, Any]:
        """What the images come from, and the models by hash."""
        checks = {"checks": [c.to_json() for c in self.checks]} if self.checks else {}
        return {
            "source": "annotate",
            "data": self.data.origin(),
            "backbone": self.backbone.identity,
            "decoder": self._fingerprint,
            **checks,
        }

    def samples(self, done: Keys = ()) -> Iterator[Sample]:
        """The images that are not done, annotated."""
        found = Provenance(backbone=self.backbone.identity[:12], decoder=self._fingerprint[:12])
        images = self.data.samples(done)
        while chunk := list(islice(images, BATCH)):
            read = read_batch(self.backbone, chunk, self.labels)
            records = self.decoder.annotate(read.inputs, read.places, self.labels)
            samples = [
                Sample(
                    given.key,
                    given.image,
                    self.labels,
                    given.prompt,
                    **own.fields(),
                    provenance=replace(found, file=given.provenance.file),
                )
                for given, own in zip(chunk, records, strict=True)
            ]
            if self.checks:
                made = Made(
                    read.latents, read.features, read.captions, read.mentioned, self.labels, self.backbone, self.decoder,
                    read.places,
                )  # fmt: skip
                for check in self.checks:
                    samples = check(samples, made)
            yield from samples

    def check(self, store: Store) -> None:
        """The store's images are those of the data."""
        self.data.check(store)
