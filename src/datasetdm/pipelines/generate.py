"""Generated images with annotations: prompts -> latents -> image and features -> annotations -> samples.

Sample `i` of a stream is a pure function of the stream and `i`: its noise comes from a seed of its own, and batch `k`
always holds the same indices, so a restart changes no byte (on the same machine with the same number of threads).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count as count_from
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from datasetdm.backbones import Backbone, RunOptions
from datasetdm.backbones.canvas import Placement, to_uint8
from datasetdm.decoder.inputs import DecoderInput
from datasetdm.decoder.model import PDecoder, load_pair
from datasetdm.errors import ConfigError
from datasetdm.io.settings import validated
from datasetdm.pipelines.settings import GenerateConfig
from datasetdm.pipelines.stream import Keys
from datasetdm.prompts.grammar import Grammar
from datasetdm.records import Labels, Prompt, Provenance, Sample
from datasetdm.store.store import Store


class DatasetGenerator:
    """A source of generated images that never ends: a loaded backbone and decoder with prompts.

    Args:
        prompts: used in turn; or a grammar, which composes one per sample.
        decoder: a name, a folder, or a loaded one.
        backbone: likewise; None is the one that the decoder was fitted on.
        options: how a backbone that is loaded here is held and run.
        settings: fields of `GenerateConfig`.

    Raises:
        ConfigError: no prompt, or an impossible setting.
        DecoderError: a decoder that was fitted on another backbone.
    """

    endless = True

    def __init__(
        self,
        prompts: Sequence[str] | Grammar,
        *,
        decoder: str | Path | PDecoder = "mini",
        backbone: str | Backbone | None = None,
        device: str = "auto",
        options: RunOptions | None = None,
        **settings: Any,
    ):
        self.config = validated(GenerateConfig, **settings)
        if not isinstance(prompts, Grammar) and not len(prompts):
            raise ConfigError("there is no prompt", expected="one or more")
        self.prompts = prompts if isinstance(prompts, Grammar) else tuple(prompts)
        self.decoder, self.backbone = load_pair(decoder, backbone, device, options)
        self.steps = self.config.steps or self.backbone.steps
        self.guidance = self.backbone.guidance if self.config.guidance is None else self.config.guidance
        self.labels = _choose_labels(self.config.labels, self.decoder.config.labels)
        self._fingerprint = self.decoder.fingerprint()
        self._origin = Provenance(backbone=self.backbone.identity[:12], decoder=self._fingerprint[:12])

    def origin(self) -> dict[str, Any]:
        """All that the samples depend on: prompts by number and hash, models by hash, and the settings."""
        negative = {"negative": self.config.negative} if self.config.negative else {}
        return {
            "source": "generate",
            "prompts": _prompts_origin(self.prompts),
            "seed": self.config.seed,
            "batch": self.config.batch,
            "steps": self.steps,
            "guidance": self.guidance,
            "backbone": self.backbone.identity,
            "decoder": self._fingerprint,
            **negative,
        }

    def check(self, store: Store) -> None:
        """Nothing to check: equal origins give equal samples."""

    def prompt(self, index: int) -> Prompt:
        """Prompt and seed of one sample."""
        if isinstance(self.prompts, Grammar):
            text, origin = self.prompts.prompt(index, self.config.seed), "grammar"
        else:
            text, origin = self.prompts[index % len(self.prompts)], "user"
        seed = int(np.random.SeedSequence((self.config.seed, index)).generate_state(1, np.uint64)[0] >> 1)
        return Prompt(text, self.labels.named_in(text), seed, origin)

    def batch(self, number: int) -> list[Sample]:
        """All samples of one batch."""
        first = number * self.config.batch
        prompts = [self.prompt(i) for i in range(first, first + self.config.batch)]
        latents = self.backbone.sample(prompts, self.steps, self.guidance, self.config.negative)
        texts = [p.text for p in prompts]
        features = self.backbone.features(latents, texts, self.labels.names)
        inputs = DecoderInput.from_features(features, texts, self.labels)
        places = [Placement.fit(self.backbone.size, self.backbone.size)] * len(prompts)
        found = self.decoder.annotate(inputs, places, self.labels)
        rows = enumerate(zip(to_uint8(features.images), prompts, found, strict=True), first)
        return [
            Sample(key(i), image, self.labels, prompt, **own.fields(), provenance=replace(self._origin, index=i))
            for i, (image, prompt, own) in rows
        ]

    def samples(self, done: Keys = ()) -> Iterator[Sample]:
        """Samples 0, 1, ... without end, but for those whose key is in `done`."""
        for number in count_from():
            first = number * self.config.batch
            if any(key(i) not in done for i in range(first, first + self.config.batch)):
                yield from (s for s in self.batch(number) if s.key not in done)


def key(index: int) -> str:
    """The key of sample `index`."""
    return f"{index:08d}"


def generate(
    prompts: Sequence[str] | Grammar, *, count: int | None = None, start: int = 0, **settings: Any
) -> Iterator[Sample]:
    """Annotated images, one after the other.

    Args:
        prompts: used in turn; or a grammar.
        count: of samples; without it the iterator never ends.
        start: the first sample's number.
        settings: of `DatasetGenerator`: decoder, backbone, device, seed, batch, steps, guidance, labels.
    """
    if count is not None and count < 1:
        raise ConfigError(f"count {count}", expected="at least 1")
    if count is not None and "batch" not in settings:
        settings["batch"] = min(16, count)
    return islice(DatasetGenerator(prompts, **settings).samples({key(i) for i in range(start)}), count)


def _prompts_origin(prompts: Sequence[str] | Grammar) -> dict[str, Any]:
    if isinstance(prompts, Grammar):
        return {"grammar": prompts.fingerprint()}
    return {"count": len(prompts), "sha256": hashlib.sha256("\n".join(prompts).encode()).hexdigest()}


def _choose_labels(names: Sequence[str] | None, known: Labels) -> Labels:
    """The decoder's own labels, or others (with what is known about those among them)."""
    if names is None:
        return known
    synonyms = dict(zip(known.names, known.synonyms, strict=True))
    stuff = tuple(n for n in known.stuff if n in names)
    skeletons = {n: s for n, s in known.skeletons.items() if n in names}
    return Labels(tuple(names), tuple(synonyms.get(n, ()) for n in names), stuff, skeletons)
