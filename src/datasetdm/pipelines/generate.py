"""The one generation loop: prompts -> latents -> picture and features -> annotations -> samples.

Sample `i` of a recipe is a pure function of the recipe and `i`: its noise comes from a seed of its own, and batch `k`
always holds the same indices, so a restart changes no byte (on the same machine with the same number of threads).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count as count_from
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from datasetdm.backbones import Backbone, RunOptions
from datasetdm.backbones.canvas import Placement, to_uint8
from datasetdm.decoder.model import PDecoder, load_pair, read_latents
from datasetdm.errors import ConfigError, StoreError
from datasetdm.io.settings import validated
from datasetdm.pipelines.settings import GenerateConfig
from datasetdm.records import Labels, Prompt, Provenance, Sample
from datasetdm.store import META, Store, Writer

FLUSH_SECONDS = 30
"""Finished batches are on disk after at most this time (or when the run ends, whatever ends it)."""


class DatasetGenerator:
    """A loaded backbone and decoder with a recipe: `samples` yields annotated pictures for ever.

    Args:
        decoder: a name, a folder, or a loaded one. backbone: likewise; None is the one the decoder was fitted on.
        options: how a backbone that is loaded here is held and run.
        settings: fields of `GenerateConfig`.
    """

    def __init__(
        self,
        prompts: Sequence[str],
        *,
        decoder: str | Path | PDecoder = "mini",
        backbone: str | Backbone | None = None,
        device: str = "auto",
        options: RunOptions | None = None,
        **settings: Any,
    ):
        self.config = validated(GenerateConfig, **settings)
        if not prompts:
            raise ConfigError("there are no prompts", expected="one or more")
        self.prompts = tuple(prompts)
        self.decoder, self.backbone = load_pair(decoder, backbone, device, options)
        self.steps = self.config.steps or self.backbone.steps
        self.guidance = self.backbone.guidance if self.config.guidance is None else self.config.guidance
        self.labels = _choose_labels(self.config.labels, self.decoder.config.labels)
        self._fingerprint = self.decoder.fingerprint()
        self._origin = Provenance(backbone=self.backbone.identity[:12], decoder=self._fingerprint[:12])

    @property
    def recipe(self) -> dict[str, Any]:
        """All that the samples depend on, JSON-ready."""
        texts = hashlib.sha256("\n".join(self.prompts).encode()).hexdigest()
        negative = {"negative": self.config.negative} if self.config.negative else {}
        return {
            "prompts": {"count": len(self.prompts), "sha256": texts},
            "seed": self.config.seed,
            "batch": self.config.batch,
            "steps": self.steps,
            "guidance": self.guidance,
            "backbone": self.backbone.identity,
            "decoder": self._fingerprint,
            "tasks": list(self.decoder.config.tasks),
            **negative,
        }

    def prompt(self, index: int) -> Prompt:
        """Prompt and seed of one sample."""
        text = self.prompts[index % len(self.prompts)]
        seed = int(np.random.SeedSequence((self.config.seed, index)).generate_state(1, np.uint64)[0] >> 1)
        return Prompt(text, self.labels.named_in(text), seed)

    def batch(self, number: int) -> list[Sample]:
        """All samples of one batch."""
        first = number * self.config.batch
        prompts = [self.prompt(i) for i in range(first, first + self.config.batch)]
        latents = self.backbone.sample(prompts, self.steps, self.guidance, self.config.negative)
        features = read_latents(self.backbone, latents, [p.text for p in prompts], self.labels)
        places = [Placement.fit(self.backbone.size, self.backbone.size)] * len(prompts)
        found = self.decoder.annotate(features, places, self.labels)
        rows = enumerate(zip(to_uint8(features.images), prompts, found, strict=True), first)
        return [
            Sample(f"{i:08d}", picture, self.labels, prompt, **own.fields(), provenance=replace(self._origin, index=i))
            for i, (picture, prompt, own) in rows
        ]

    def samples(self, start: int = 0) -> Iterator[Sample]:
        """Samples `start`, `start + 1`, ... without end."""
        number, skip = divmod(start, self.config.batch)
        for k in count_from(number):
            yield from self.batch(k)[skip:]
            skip = 0

    def write(self, out: Path | str, count: int, shard_size: int = 256) -> Iterator[int]:
        """Bring the store `out` to `count` samples; yields how many it holds, at the start and after every batch."""
        with Writer(out, self.labels, self.recipe, shard_size) as writer:
            yield writer.written
            flushed = time.monotonic()
            while writer.written < count:
                number, skip = divmod(writer.written, self.config.batch)
                for sample in self.batch(number)[skip : skip + count - writer.written]:
                    writer.add(sample)
                if time.monotonic() - flushed > FLUSH_SECONDS:
                    writer.flush()
                    flushed = time.monotonic()
                yield writer.written


def generate(prompts: Sequence[str], *, count: int | None = None, start: int = 0, **settings: Any) -> Iterator[Sample]:
    """Annotated pictures, one after the other; without `count` the iterator never ends.

    Prompts are used in turn. See `DatasetGenerator` for the settings: decoder, backbone, device, seed, batch, steps,
    guidance, labels.
    """
    if count is not None and count < 1:
        raise ConfigError(f"count {count}", expected="at least 1")
    if count is not None and "batch" not in settings:
        settings["batch"] = min(16, count)
    return islice(DatasetGenerator(prompts, **settings).samples(start), count)


def default_batch(out: Path, count: int) -> int:
    """The batch of the store that is already in `out`, or at most 16."""
    if (out / META).exists():
        try:
            return int(Store(out).stream["batch"])
        except (KeyError, TypeError, ValueError) as e:
            raise StoreError("this store was not made by generate", where=out, remedy="choose another --out") from e
    return min(16, count)


def _choose_labels(names: Sequence[str] | None, known: Labels) -> Labels:
    """The decoder's own labels, or others (with what is known about those among them)."""
    if names is None:
        return known
    synonyms = dict(zip(known.names, known.synonyms, strict=True))
    stuff = tuple(n for n in known.stuff if n in names)
    bones = {n: s for n, s in known.skeletons.items() if n in names}
    return Labels(tuple(names), tuple(synonyms.get(n, ()) for n in names), stuff, bones)
