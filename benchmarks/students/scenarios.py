"""Which images are labelled, what images are generated of, and what figures are measured on.

In all but the plain one the P-Decoder of the package would know too much, so another is fitted on the scenario's own labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from datasetdm.prompts.grammar import Grammar
from datasetdm.readers.formats.mini import LABELS, THINGS
from datasetdm.records import IGNORE, Labels, Sample
from datasetdm.records.edits import ignore_pixels, relabel

RULES = 1
"""Raised whenever a scenario begins to choose other images or labels."""

HIDDEN = LABELS.names[0:THINGS:3]
"""Every third thing: without any label in the scenario zero_shot."""
SEEN = tuple(n for n in LABELS.names[:THINGS] if n not in HIDDEN)
RARE_IMAGES = dict(zip(LABELS.names[1:THINGS:3], (1, 1, 2, 2, 3, 3), strict=True))
"""Six things, and in how many labelled images of the scenario long_tail they occur."""
RARE = tuple(RARE_IMAGES)
STRANGE_LIGHTS, STRANGE_PLACES = ("night", "fog"), ("snow",)
"""Without any labelled image in the scenario shift."""
STRANGE_PHRASES = ("at night", "in the fog")
"""What prompts of the scenario shift say beside the grammar's own lights, as often as those together."""


@dataclass(frozen=True)
class Scenario:
    """See the module.

    Args:
        name: empty for the plain one.
        unseen: labels whose pixels are ignored in all labelled images.
        rare: label -> labelled images that show it at most.
        known_conditions: whether labelled and val images show none of the conditions of `is_strange`.
        strange_test: whether only such images are tested on, rendered for it.
        count: of labelled images; None for as many as are packaged.
    """

    name: str = ""
    unseen: tuple[str, ...] = ()
    rare: Mapping[str, int] = field(default_factory=dict)
    known_conditions: bool = False
    strange_test: bool = False
    count: int | None = None

    def story(self) -> dict[str, Any]:
        """What it depends on, JSON-ready."""
        return {"name": self.name, "rules": RULES}

    def grammar(self) -> Grammar:
        """The prompts of generated images."""
        plain = Grammar.load()
        if not self.strange_test:
            return plain
        own = plain.lights["outdoors"]
        times = len(own) // len(STRANGE_PHRASES)
        return replace(plain, lights={**plain.lights, "outdoors": [*own, *STRANGE_PHRASES * times]})

    def labelled(self, own: Iterable[Sample], others: Iterable[Sample]) -> list[Sample]:
        """`count` labelled images, or as many as `own`: those of `own` that the scenario allows, then of `others`."""
        own = list(own)
        count, shown = self.count or len(own), Counter[str]()
        chosen = [s for s in own if self._allowed(s, shown)][:count]
        known = {s.digest() for s in chosen}
        for sample in others:
            if len(chosen) >= count:
                break
            if sample.digest() not in known and self._allowed(sample, shown):
                chosen.append(sample)
        return [hide(s, self.unseen) for s in chosen]

    def _allowed(self, sample: Sample, shown: Counter[str]) -> bool:
        """Whether one more such image may be labelled; counts it."""
        if self.known_conditions and is_strange(sample):
            return False
        rare = [n for n in names_in(sample) if n in self.rare]
        if any(shown[n] >= self.rare[n] for n in rare):
            return False
        shown.update(rare)
        return True

    def val(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """What learning rates are chosen on."""
        return (s for s in samples if not (self.known_conditions and is_strange(s)))


def is_strange(sample: Sample) -> bool:
    """Whether a render shows night, fog or snow."""
    details = sample.provenance.details
    return details["light"] in STRANGE_LIGHTS or details["place"] in STRANGE_PLACES


def names_in(sample: Sample) -> list[str]:
    """The labels that occur in the pixels of a sample."""
    assert sample.semantic is not None
    return [sample.labels.names[i] for i in np.unique(sample.semantic.ids) if i != IGNORE]


def hide(sample: Sample, names: tuple[str, ...]) -> Sample:
    """The sample without these labels: their pixels are ignored, and there is no other annotation."""
    if not names:
        return sample
    assert sample.semantic is not None
    plain = replace(sample, instances=None, depth=None, keypoints=None)
    return ignore_pixels(plain, np.isin(sample.semantic.ids, [sample.labels.index[n] for n in names]))


def without(sample: Sample, names: tuple[str, ...]) -> Sample:
    """The sample in a vocabulary without these labels, so that a decoder cannot learn them."""
    labels = sample.labels
    kept = [i for i, n in enumerate(labels.names) if n not in names]
    stuff = tuple(n for n in labels.stuff if n not in names)
    own = Labels(tuple(labels.names[i] for i in kept), tuple(labels.synonyms[i] for i in kept), stuff)
    return relabel(sample, own, [kept.index(i) if i in kept else IGNORE for i in range(len(labels))])


def few(count: int) -> Scenario:
    """The plain one with another number of labelled images."""
    return Scenario(f"labels_{count}", count=count)


PLAIN = Scenario()
ZERO_SHOT = Scenario("zero_shot", unseen=HIDDEN)
LONG_TAIL = Scenario("long_tail", rare=RARE_IMAGES)
SHIFT = Scenario("shift", known_conditions=True, strange_test=True)
