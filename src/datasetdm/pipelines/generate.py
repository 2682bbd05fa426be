"""Generated images with annotations: prompts -> latents -> image and features -> annotations -> samples.

Sample `i` of a stream is a pure function of the stream and `i`: its noise comes from a seed of its own, and batch `k`
always holds the same indices, so a restart changes no byte (on the same machine with the same number of threads).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import count as count_from
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from datasetdm.backbones import Backbone, RunOptions
from datasetdm.backbones.canvas import Placement, to_uint8
from datasetdm.backbones.pipeline import no_contrast
from datasetdm.decoder.inputs import DecoderInput
from datasetdm.decoder.model import PDecoder, load_pair
from datasetdm.errors import ConfigError
from datasetdm.io.settings import validated
from datasetdm.pipelines.settings import GenerateConfig
from datasetdm.pipelines.stream import Keys
from datasetdm.prompts import PromptList, PromptRow, PromptSource, asked_labels
from datasetdm.quality.checks import Check, Made, make_checks
from datasetdm.records import Prompt, Provenance, Sample
from datasetdm.store.store import Store


class DatasetGenerator:
    """A source of generated images that never ends: a loaded backbone and decoder with prompts.

    Args:
        prompts: used in turn; or an open file of prompts, or a grammar, which composes one per sample.
        decoder: a name, a folder, or a loaded one.
        backbone: likewise; None is the one that the decoder was fitted on.
        options: how a backbone that is loaded here is held and run.
        checks: filters that look at latents and features while samples are made; by default what the settings ask for.
        settings: fields of `GenerateConfig`.

    Raises:
        ConfigError: no prompt, an impossible setting, or a negative prompt that would have no effect.
        DecoderError: a decoder that was fitted on another backbone.
    """

    endless = True

    def __init__(
        self,
        prompts: Sequence[str] | PromptSource,
        *,
        decoder: str | Path | PDecoder = "mini",
        backbone: str | Backbone | None = None,
        device: str = "auto",
        options: RunOptions | None = None,
        checks: Sequence[Check] | None = None,
        **settings: Any,
    ):
        self.config = validated(GenerateConfig, **settings)
        self.checks = make_checks(self.config.flip_agreement) if checks is None else checks
        self.prompts = prompts if isinstance(prompts, PromptSource) else PromptList(prompts)
        self.decoder, self.backbone = load_pair(decoder, backbone, device, options)
        self.steps = self.config.steps or self.backbone.steps
        self.guidance = self.backbone.guidance if self.config.guidance is None else self.config.guidance
        self.contrasts = self.backbone.contrasts(self.guidance)
        if self.config.negative and not self.contrasts:
            raise no_contrast(self.backbone.name, self.guidance)
        self.labels = self.decoder.config.labels.with_names(self.config.labels)
        self._fingerprint = self.decoder.fingerprint(self.labels)
        self._origin = Provenance(backbone=self.backbone.identity[:12], decoder=self._fingerprint[:12])

    def origin(self) -> dict[str, Any]:
        """All that the samples depend on: prompts and models by hash, and the settings."""
        negative = {"negative": self.config.negative} if self.config.negative else {}
        checks = {"checks": [c.to_json() for c in self.checks]} if self.checks else {}
        return {
            "source": "generate",
            "prompts": self.prompts.origin(),
            "seed": self.config.seed,
            "batch": self.config.batch,
            "steps": self.steps,
            "guidance": self.guidance,
            "backbone": self.backbone.identity,
            "decoder": self._fingerprint,
            **negative,
            **checks,
        }

    def check(self, store: Store) -> None:
        """Nothing to check: equal origins give equal samples."""

    def row(self, index: int) -> PromptRow:
        """The prompt of one sample, as its source has it."""
        return self.prompts.row(index, self.config.seed)

    def prompt(self, index: int) -> Prompt:
        """Prompt and seed of one sample."""
        return self._prompt(index, self.row(index))

    def _prompt(self, index: int, row: PromptRow) -> Prompt:
        labels = asked_labels(row, self.backbone.kept_texts([row.prompt])[0], self.labels)
        return Prompt(row.prompt, labels, self._seed(index, row), row.origin)

    def _seed(self, index: int, row: PromptRow) -> int:
        """The row's own seed when it is used first; else one that follows from all seeds and the index."""
        own = () if row.seed is None else (row.seed,)
        if own and (self.prompts.count is None or index < self.prompts.count):
            return own[0]
        sequence = np.random.SeedSequence((self.config.seed, index, *own))
        return int(sequence.generate_state(1, np.uint64)[0] >> 1)

    def _negative(self, row: PromptRow) -> str:
        """The row's own negative prompt, or that of the settings; none where it has no effect."""
        return (self.config.negative if row.negative is None else row.negative) if self.contrasts else ""

    def batch(self, number: int) -> list[Sample]:
        """All samples of one batch."""
        return self._made(self._batch(number))

    def _batch(self, number: int) -> range:
        """The indices of one batch."""
        return range(number * self.config.batch, (number + 1) * self.config.batch)

    def _made(self, indices: Sequence[int]) -> list[Sample]:
        """The samples of these indices, which pass the models together."""
        asked = [self.row(i) for i in indices]
        prompts = [self._prompt(i, row) for i, row in zip(indices, asked, strict=True)]
        negatives = [self._negative(row) for row in asked]
        latents = self.backbone.sample(prompts, self.steps, self.guidance, negatives)
        texts = [p.text for p in prompts]
        features = self.backbone.features(latents, texts, self.labels.names)
        inputs = DecoderInput.from_features(features, texts, self.labels, [p.labels for p in prompts])
        places = [Placement.fit(self.backbone.size, self.backbone.size)] * len(prompts)
        found = self.decoder.annotate(inputs, places, self.labels)
        details = [row.details() | ({"negative": n} if n else {}) for row, n in zip(asked, negatives, strict=True)]
        origins = [replace(self._origin, index=i, details=own) for i, own in zip(indices, details, strict=True)]
        samples = [
            Sample(key(i), image, self.labels, prompt, **own.fields(), provenance=origin)
            for i, image, prompt, own, origin in zip(
                indices, to_uint8(features.images), prompts, found, origins, strict=True
            )
        ]
        mentioned = [p.labels for p in prompts]
        made = Made(latents, features, texts, mentioned, self.labels, self.backbone, self.decoder, places)
        for check in self.checks:
            samples = check(samples, made)
        return samples

    def samples(self, done: Keys = ()) -> Iterator[Sample]:
        """Samples 0, 1, ... without end, but for those whose key is in `done`."""
        for number in count_from():
            if any(key(i) not in done for i in self._batch(number)):
                yield from (s for s in self.batch(number) if s.key not in done)

    # ------------------------------------------------------------------ as a Divisible
    def groups(self, numbers: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """Those of one batch together."""
        return (tuple(group) for _, group in groupby(numbers, lambda i: i // self.config.batch))

    def make(self, group: Sequence[int], without: Collection[int] = ()) -> list[Sample]:
        """The samples of one batch that are in `group` but not in `without`."""
        whole = self._batch(group[0] // self.config.batch)
        there = next((i for i in group if i not in without), None)
        if there is None:
            return []
        samples = self._made([there if i in without else i for i in whole])
        return [s for i, s in zip(whole, samples, strict=True) if i in group and i not in without]

    def make_alone(self, number: int) -> list[Sample]:
        """One sample as a batch of its own."""
        return self._made([number])

    def describe(self, number: int) -> tuple[str, str]:
        """Key and prompt of a sample."""
        return key(number), self.row(number).prompt


def pending(done: Keys | None) -> Iterator[int]:
    """The numbers of all samples of a generation whose key is not in `done`."""
    return (i for i in count_from() if done is None or key(i) not in done)


def key(index: int) -> str:
    """The key of sample `index`."""
    return f"{index:08d}"


def generate(
    prompts: Sequence[str] | PromptSource, *, count: int | None = None, start: int = 0, **settings: Any
) -> Iterator[Sample]:
    """Annotated images, one after the other.

    Args:
        prompts: used in turn; or an open file of prompts, or a grammar.
        count: of samples; without it the iterator never ends.
        start: the first sample's number.
        settings: of `DatasetGenerator`: decoder, backbone, device, seed, batch, steps, guidance, labels.
    """
    if count is not None and count < 1:
        raise ConfigError(f"count {count}", expected="at least 1")
    if count is not None and "batch" not in settings:
        settings["batch"] = min(16, count)
    return islice(DatasetGenerator(prompts, **settings).samples({key(i) for i in range(start)}), count)
