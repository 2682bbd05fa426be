"""What prompts shall show: scenes of several labels, sampled by how labels occur together in labelled data.

Dense scenes of several objects train better than single objects, and rare labels need more samples than the data have, so
both are the rule here. A scene is put into words by a grammar (`scene_grammar`) or by a language model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float

from datasetdm.errors import ConfigError
from datasetdm.records import BACKGROUND, Labels, Sample

MOST_COUNTED = 5
"""A count of so many or more is one: `several`."""
DEFAULT_COUNTS = (1, 1, 1, 2, 3)
"""Number of objects of a label of which the data say nothing, each equally often."""
MOST_STUFF = 2
"""Surroundings in a scene at most."""
SMOOTHING = 0.5
"""Images added to every count of labels and pairs, so that what the data never show is rare but possible."""


@dataclass(frozen=True)
class Scene:
    """What one image shall show.

    Args:
        counts: number of objects by label, most important first.
        stuff: surroundings among the labels.
        domain: conditions, for instance `night`; empty if any.
        words: by label, another word that shall stand for it beside the label's own, for instance a breed.
    """

    counts: Mapping[str, int]
    stuff: tuple[str, ...] = ()
    domain: str = ""
    words: Mapping[str, str] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels of it."""
        return (*self.counts, *self.stuff)


@dataclass(frozen=True)
class CoOccurrence:
    """In how many of `images` each label and each pair of labels occurs, and how many objects of a label an image holds."""

    images: int = 0
    labels: Mapping[str, int] = field(default_factory=Counter)
    pairs: Mapping[tuple[str, str], int] = field(default_factory=Counter)
    objects: Mapping[str, Mapping[int, int]] = field(default_factory=dict)

    @classmethod
    def learn(cls, samples: Iterable[Sample]) -> CoOccurrence:
        """Count over labelled images; counts of objects come from those that have instances."""
        images, labels, pairs = 0, Counter[str](), Counter[tuple[str, str]]()
        objects: dict[str, Counter[int]] = {}
        for sample in samples:
            names = sample.labels.names
            there = sorted({names[i] for i in sample.annotations.labels_in()} - {BACKGROUND})
            images += 1
            labels.update(there)
            pairs.update(combinations(there, 2))
            if sample.instances is not None:
                own = Counter(names[i] for i in sample.instances.label_ids[~sample.instances.crowd].tolist())
                for name, count in own.items():
                    objects.setdefault(name, Counter())[min(count, MOST_COUNTED)] += 1
        return cls(images, labels, pairs, objects)

    def frequencies(self, names: Sequence[str]) -> Float[np.ndarray, "n"]:
        """Fraction of the images that hold each label, smoothed."""
        return (np.array([self.labels.get(n, 0) for n in names]) + SMOOTHING) / (self.images + 1)

    def conditionals(self, names: Sequence[str]) -> Float[np.ndarray, "n n"]:
        """[i, j]: fraction of the images with label `j` that hold `i` too, smoothed."""
        together = np.zeros((len(names), len(names)))
        index = {n: i for i, n in enumerate(names)}
        for (a, b), count in self.pairs.items():
            if a in index and b in index:
                together[index[a], index[b]] = together[index[b], index[a]] = count
        return (together + SMOOTHING) / (np.array([self.labels.get(n, 0) for n in names]) + 1)

    def to_json(self) -> dict[str, Any]:
        """All of it, JSON-ready and in a fixed order."""
        pairs = [[a, b, n] for (a, b), n in sorted(self.pairs.items())]
        objects = {n: sorted(c.items()) for n, c in sorted(self.objects.items())}
        return {"images": self.images, "labels": sorted(self.labels.items()), "pairs": pairs, "objects": objects}


class SceneSampler:
    """Scenes by number: scene `i` depends on the settings, a seed and `i` alone.

    The first label has a probability proportional to `frequency ** (1 - rare_weight)`. Every further one is sampled by the
    geometric mean of its fractions given those that are there, times `frequency ** -rare_weight`.

    Args:
        labels: the vocabulary; `background` is left out.
        known: how labels occur in labelled data; without any, all are equally frequent.
        most_labels: countable labels of a scene at most; the number is uniform from 2 (or 1) to it.
        rare_weight: 0 as in the data, 1 all labels equally often at first.
        domains: conditions; each, and none, equally often.

    Raises:
        ConfigError: no label but the background, or two that are the same word.
    """

    def __init__(
        self,
        labels: Labels,
        known: CoOccurrence | None = None,
        *,
        most_labels: int = 4,
        rare_weight: float = 0.5,
        domains: Sequence[str] = (),
    ):
        names = [n for n in labels.names if n != BACKGROUND]
        if not names:
            raise ConfigError("the label set is empty", expected="at least one label beside the background")
        words = [" ".join(n.lower().split()) for n in names]
        if twice := [n for i, n in enumerate(names) if words[i] in words[:i]]:
            raise ConfigError(f"label {twice[0]!r} is the same words as another label", expected="labels that differ")
        self.known = known or CoOccurrence()
        self.things = [n for n in names if n not in labels.stuff] or names
        self.stuff = [n for n in names if n not in self.things]
        self.labels, self.domains, self.rare_weight = labels, ("", *domains), rare_weight
        self.most = min(most_labels, len(self.things))
        self._frequencies = self.known.frequencies(self.things)  # [t]
        self._conditionals = self.known.conditionals((*self.things, *self.stuff))  # [t+s t+s]

    def origin(self) -> dict[str, Any]:
        """All that the scenes depend on but the seed, JSON-ready."""
        return {
            "labels": self.labels.to_json(),
            "known": self.known.to_json(),
            "most_labels": self.most,
            "rare_weight": self.rare_weight,
            "domains": list(self.domains[1:]),
        }

    def scene(self, index: int, seed: int = 0) -> Scene:
        """Scene number `index`."""
        rng = np.random.default_rng((seed, index))
        wanted = int(rng.integers(min(2, self.most), self.most + 1))
        chosen: list[int] = []
        while len(chosen) < wanted:
            weights = self._weights(chosen)
            chosen.append(int(rng.choice(len(weights), p=weights / weights.sum())))
        likely = self._conditionals[len(self.things) :, chosen].max(1, initial=0)  # [s]
        around = np.flatnonzero(rng.random(len(self.stuff)) < likely)
        around = np.sort(rng.permutation(around)[:MOST_STUFF])
        counts = {self.things[i]: self._count(self.things[i], rng) for i in chosen}
        return Scene(counts, tuple(self.stuff[i] for i in around), str(rng.choice(self.domains)))

    def _weights(self, chosen: Sequence[int]) -> Float[np.ndarray, "t"]:
        """How likely each thing is the next one, up to a factor; those that are there are not."""
        if not chosen:
            return self._frequencies ** (1 - self.rare_weight)
        together = np.log(self._conditionals[: len(self.things), chosen]).mean(1)
        weights = np.exp(together) * self._frequencies**-self.rare_weight
        weights[chosen] = 0
        return weights

    def _count(self, label: str, rng: np.random.Generator) -> int:
        seen = self.known.objects.get(label)
        if not seen:
            return int(rng.choice(DEFAULT_COUNTS))
        numbers, times = zip(*sorted(seen.items()), strict=True)
        return int(rng.choice(numbers, p=np.array(times) / sum(times)))
