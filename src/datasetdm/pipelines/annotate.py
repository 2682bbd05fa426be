"""Existing images of any size with a decoder's annotations in place of their own."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from datasetdm.backbones import Backbone, RunOptions
from datasetdm.decoder.inference import BATCH, read_batch
from datasetdm.decoder.model import PDecoder, load_pair
from datasetdm.errors import ConfigError, DataError
from datasetdm.pipelines.stream import Data, Keys, Source
from datasetdm.quality.checks import Check, Made
from datasetdm.records import Labels, Provenance, Sample
from datasetdm.store.store import Store


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
        return self._annotated(self.data.samples(done))

    def _annotated(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        found = Provenance(backbone=self.backbone.identity[:12], decoder=self._fingerprint[:12])
        images = iter(samples)
        while chunk := list(islice(images, BATCH)):
            read = read_batch(self.backbone, chunk, self.labels)
            records = self.decoder.annotate(read.inputs, read.places, self.labels)
            annotated = [
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
                    annotated = check(annotated, made)
            yield from annotated

    def check(self, store: Store) -> None:
        """The store's images are those of the data."""
        self.data.check(store)

    # ------------------------------------------------------------------ as a Divisible
    def groups(self, numbers: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """As many as pass the models together, from the first number on."""
        return (tuple(numbers[i : i + BATCH]) for i in range(0, len(numbers), BATCH))

    def make(self, group: Sequence[int], without: Collection[int] = ()) -> list[Sample]:
        """The images of these numbers, annotated."""
        images = [(n, s) for n in group if n not in without and (s := self._data.at(n)) is not None]
        if not images:
            return []
        filled = [*images, *([images[0]] * (len(group) - len(images)))]
        return [*self._annotated(s for _, s in filled)][: len(images)]

    def make_alone(self, number: int) -> list[Sample]:
        """One image by itself."""
        return self.make([number])

    def describe(self, number: int) -> tuple[str, str]:
        """Key and caption of an image; its number if it cannot be read."""
        try:
            sample = self._data.at(number)
        except DataError:
            sample = None
        return (f"image {number}", "") if sample is None else (sample.key, sample.caption)

    @property
    def _data(self) -> Data:
        if not isinstance(self.data, Data):
            raise ConfigError("workers can share data only", expected="a source of the class Data")
        return self.data
