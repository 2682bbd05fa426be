"""Prompts in rounds: after each, the labels that few accepted samples show are asked for more often.

A round has a fixed number of samples. The weights of a round follow from the samples of all rounds before it, as they were
written. So a sample is a pure function of its stream, its round and its index, and an interrupted store goes on as if nothing
had happened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from datasetdm.prompts import PromptRow, PromptSource, asked_labels
from datasetdm.records import Labels

CANDIDATES = 16
"""Prompts among which one is chosen by its weight."""
STRONGEST = 4.0
"""How much more often than on average a label is asked for at most, and how much more seldom."""
FAR = 1 << 40
"""The number of a prompt that no file reaches: reading it finds out how many there are."""


@dataclass
class Tally:
    """What finished rounds gave.

    Args:
        shown: by label, the accepted samples that were asked for it and show it.
        accepted: by round, how many of its samples were accepted.
    """

    shown: Counter[str] = field(default_factory=Counter)
    accepted: list[int] = field(default_factory=list)

    def add(self, asked: Collection[str], found: Collection[str], accepted: bool, number: int) -> None:
        """Count one sample.

        Args:
            asked: the labels of its prompt.
            found: the labels that it shows; none if its annotations have no labels.
            number: of its round.
        """
        self.accepted += [0] * (number + 1 - len(self.accepted))
        if accepted:
            self.accepted[number] += 1
            self.shown.update(name for name in asked if name in found or not found)

    def weight(self, label: str) -> float:
        """How often a label is to be asked for, 1 on average: the inverse root of how often it is shown. Labels that the
        filters reject often (hard ones) and those that few prompts name (rare ones) are both shown seldom."""
        mean = sum(self.shown.values()) / max(1, len(self.shown))
        return float(np.clip(((mean + 1) / (self.shown[label] + 1)) ** 0.5, 1 / STRONGEST, STRONGEST))


class RoundPrompts:
    """Prompts of another source, those of rare and hard labels more often from the second round on. Satisfies `PromptSource`.

    The first round takes the prompts in turn. Later, every sample chooses one of `CANDIDATES` by the weight of the rarest label
    that it asks for; a prompt without labels has weight 1.

    Args:
        prompts: the other source.
        labels: the vocabulary.
        size: samples per round.
    """

    def __init__(self, prompts: PromptSource, labels: Labels, size: int):
        self.prompts, self.labels, self.size = prompts, labels, size
        if prompts.count is None:
            prompts.row(FAR)
        self._total = prompts.count
        self._weights: dict[int, Mapping[str, float]] = {}

    @property
    def count(self) -> int:
        """The samples that have prompts of their own, so that a prompt's own seed is used once."""
        return min(self.size, self._total or self.size)

    def origin(self) -> dict[str, Any]:
        """The prompts, and how rounds are made of them."""
        return {**self.prompts.origin(), "round": self.size}

    def begin(self, number: int, tally: Tally) -> None:
        """Set the weights of a round from all rounds before it."""
        self._weights = {number: {name: tally.weight(name) for name in self.labels.names}}

    def row(self, index: int, seed: int = 0) -> PromptRow:
        """The prompt of sample `index`, whose round must have begun."""
        number = index // self.size
        if number == 0:
            return self.prompts.row(index, seed)
        weights = self._weights[number]
        rng = np.random.default_rng((seed, 3, index))
        numbers = index * CANDIDATES + np.arange(CANDIDATES)
        if self._total is not None:
            numbers = rng.integers(self._total, size=CANDIDATES)
        rows = [self.prompts.row(n, seed) for n in numbers.tolist()]
        asked = [asked_labels(row, row.prompt, self.labels) for row in rows]
        chances = np.array([max((weights[name] for name in names), default=1.0) for names in asked])
        return rows[int(rng.choice(CANDIDATES, p=chances / chances.sum()))]
