"""What is asked of a language model, by number: scenes, captions of images, other words for captions, kinds of labels."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image

from datasetdm.prompts.language_model.journal import Journal
from datasetdm.prompts.language_model.replies import EMPTY, NO_LABEL, TOO_LONG, Check
from datasetdm.prompts.language_model.requests import (
    caption_request,
    paraphrases_request,
    scenes_request,
    subclasses_request,
)
from datasetdm.prompts.language_model.writer import Asked
from datasetdm.prompts.rows import PromptRow
from datasetdm.prompts.scene_grammar import scene_row
from datasetdm.prompts.scenes import Scene, SceneSampler
from datasetdm.records import Labels, Sample

Fits = Callable[[str], bool]
"""Whether a text encoder reads a text to its end."""

IMAGE_SIDE = 512
"""Longer side in pixels of an image that a model looks at."""
LABELS_AT_ONCE = 10
"""Labels of one request for their kinds."""
LONGEST_NAME = 40
"""Characters of the name of a kind."""


@runtime_checkable
class TextSource(Protocol):
    """Requests by number, and the prompt that each text of a reply is."""

    def request(self, number: int) -> Asked | None:
        """What to ask and how to check it; None after the last one."""
        ...

    def row(self, number: int, item: int, text: str) -> PromptRow:
        """The prompt of a text, with what it is meant to show."""
        ...


@dataclass(frozen=True)
class WrittenScenes:
    """Prompts for the scenes of a sampler, `batch` at a time; `kinds` are names of kinds by label."""

    scenes: SceneSampler
    style: str
    batch: int
    seed: int
    fits: Fits
    kinds: Mapping[str, Sequence[str]]

    def request(self, number: int) -> Asked:
        """The next scenes; there is no last one."""
        scenes = [self._scene(number * self.batch + i) for i in range(self.batch)]
        labels = self.scenes.labels

        def check(item: int, text: str) -> str | None:
            if not set(labels.named_in(text)) & set(scenes[item].labels):
                return NO_LABEL
            return None if self.fits(text) else TOO_LONG

        return scenes_request(f"scenes/{number}", scenes, self.style, _seed(self.seed, number)), check

    def row(self, number: int, item: int, text: str) -> PromptRow:
        """The labels that the text names, and the scene's counts of them."""
        scene = self._scene(number * self.batch + item)
        return scene_row(text, scene, self.scenes.labels.named_in(text), "language-model")

    def _scene(self, index: int) -> Scene:
        scene = self.scenes.scene(index, self.seed)
        rng = np.random.default_rng((self.seed, index, 2))
        words = {n: str(rng.choice(self.kinds[n])) for n in scene.counts if self.kinds.get(n)}
        return replace(scene, words=words)


@dataclass(frozen=True)
class Paraphrases:
    """Other words for captions, which are taken in turn."""

    captions: Sequence[str]
    labels: Labels
    style: str
    batch: int
    seed: int
    fits: Fits

    def request(self, number: int) -> Asked:
        """The next captions; after the last one the first again."""
        texts = [self.captions[(number * self.batch + i) % len(self.captions)] for i in range(self.batch)]
        named = [self.labels.named_in(t) for t in texts]
        items = list(zip(texts, named, strict=True))
        request = paraphrases_request(f"paraphrases/{number}", items, self.style, _seed(self.seed, number))
        return request, lambda item, text: _naming(text, named[item], self.labels, self.fits)

    def row(self, number: int, item: int, text: str) -> PromptRow:
        """The labels that the text names."""
        return PromptRow(prompt=text, labels=self.labels.named_in(text), origin="language-model")


@dataclass(frozen=True)
class ImageCaptions:
    """A caption for each image of an iterator; requests are asked for in order."""

    images: Iterator[Sample]
    labels: Labels
    seed: int
    fits: Fits

    def request(self, number: int) -> Asked | None:
        """The next image."""
        sample = next(self.images, None)
        if sample is None:
            return None
        present = [n for n in sample.labels.names if sample.labels.index[n] in sample.annotations.labels_in()]
        request = caption_request(f"captions/{number}", present, _jpeg(sample), _seed(self.seed, number))
        return request, lambda _, text: _naming(text, present, self.labels, self.fits)

    def row(self, number: int, item: int, text: str) -> PromptRow:
        """The labels that the text names."""
        return PromptRow(prompt=text, labels=self.labels.named_in(text), origin="language-model")


class Kinds:
    """Names of kinds of every label, for instance breeds of a dog."""

    def __init__(self, labels: Labels, names: Sequence[str], count: int, seed: int):
        self.labels, self.names, self.count, self.seed = labels, names, count, seed

    def request(self, number: int) -> Asked | None:
        """The next labels."""
        names = self._part(number)
        if not names:
            return None
        check: Check = lambda item, text: None if self._kinds(names[item], text) else EMPTY  # noqa: E731
        return subclasses_request(f"kinds/{number}", names, self.count, _seed(self.seed, number)), check

    def found(self, journal: Journal) -> dict[str, tuple[str, ...]]:
        """The kinds of each label in the replies, at most `count`."""
        kinds: dict[str, tuple[str, ...]] = {}
        for number in range(-(-len(self.names) // LABELS_AT_ONCE)):
            reply = journal.replies.get(f"kinds/{number}")
            for item, text in reply.texts.items() if reply else ():
                name = self._part(number)[item]
                kinds[name] = self._kinds(name, text)
        return kinds

    def _part(self, number: int) -> Sequence[str]:
        return self.names[number * LABELS_AT_ONCE : (number + 1) * LABELS_AT_ONCE]

    def _kinds(self, name: str, text: str) -> tuple[str, ...]:
        """Those in a text that are short, not the label itself, and name no other label."""
        found = dict.fromkeys(" ".join(part.split()).strip(".") for part in re.split(r"[,;]", text))
        good = [k for k in found if 0 < len(k) <= LONGEST_NAME and k.lower() != name.lower()]
        return tuple(k for k in good if set(self.labels.named_in(k)) <= {name})[: self.count]


def _naming(text: str, wanted: Sequence[str], labels: Labels, fits: Fits) -> str | None:
    """Why a text is not usable that should name one of these labels, or any if there are none."""
    named = set(labels.named_in(text))
    if not (named & set(wanted) if wanted else named):
        return NO_LABEL
    return None if fits(text) else TOO_LONG


def _seed(seed: int, number: int) -> int:
    """A seed of 31 bits, which every server takes."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0] >> 1)


def _jpeg(sample: Sample) -> bytes:
    image = Image.fromarray(np.asarray(sample.image))
    image.thumbnail((IMAGE_SIDE, IMAGE_SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()
