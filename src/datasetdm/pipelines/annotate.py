"""Existing images of any size with a decoder's annotations in place of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasetdm.backbones import Backbone, RunOptions
from datasetdm.decoder.inference import annotate
from datasetdm.decoder.model import PDecoder, load_pair
from datasetdm.pipelines.stream import Keys, Source
from datasetdm.records import Labels, Provenance, Sample
from datasetdm.store.store import Store


class Annotator:
    """A source of annotated images: those of other data, in their order.

    Args:
        data: the images, with captions if they have some.
        decoder: a name, a folder, or a loaded one.
        backbone: likewise; None is the one that the decoder was fitted on.
        options: how a backbone that is loaded here is held and run.
    """

    def __init__(
        self,
        data: Source,
        *,
        decoder: str | Path | PDecoder = "mini",
        backbone: str | Backbone | None = None,
        device: str = "auto",
        options: RunOptions | None = None,
    ):
        self.data = data
        self.decoder, self.backbone = load_pair(decoder, backbone, device, options)
        self.labels: Labels = self.decoder.config.labels
        self._fingerprint = self.decoder.fingerprint()

    @property
    def endless(self) -> bool:
        """Whether the data never end."""
        return self.data.endless

    def origin(self) -> dict[str, Any]:
        """What the images come from, and the models by hash."""
        return {
            "source": "annotate",
            "data": self.data.origin(),
            "backbone": self.backbone.identity,
            "decoder": self._fingerprint,
        }

    def samples(self, done: Keys = ()) -> Iterator[Sample]:
        """The images that are not done, annotated."""
        found = Provenance(backbone=self.backbone.identity[:12], decoder=self._fingerprint[:12])
        for given, sample in annotate(self.decoder, self.backbone, self.data.samples(done)):
            yield replace(sample, provenance=replace(found, file=given.provenance.file))

    def check(self, store: Store) -> None:
        """The store's images are those of the data."""
        self.data.check(store)
