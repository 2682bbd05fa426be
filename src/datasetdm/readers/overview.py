"""What is in labelled data, and small balanced parts of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from datasetdm.errors import DataError
from datasetdm.readers import Reader
from datasetdm.types import IGNORE, Instances, Labels, Sample, SemanticMap


@dataclass
class Summary:
    """What was found. pictures: by label, in how many it occurs; objects: by label; tasks: annotations by task;
    sizes: (height, width) of the pictures."""

    labels: Labels
    samples: int = 0
    captions: int = 0
    tasks: Counter[str] = field(default_factory=Counter)
    pictures: Counter[str] = field(default_factory=Counter)
    objects: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)


def summarise(samples: Iterable[Sample], labels: Labels) -> Summary:
    """Read everything once."""
    summary = Summary(labels)
    for sample in samples:
        summary.samples += 1
        summary.captions += bool(sample.prompt and sample.prompt.text)
        summary.tasks.update(sample.annotations.keys())
        summary.pictures.update(labels_in(sample))
        summary.sizes[sample.size] += 1
        objects = sample.annotations.get("instance")
        if isinstance(objects, Instances):
            summary.objects.update(sample.labels.names[i] for i in objects.label_ids.tolist())
    return summary


def labels_in(sample: Sample) -> set[str]:
    """The labels that have a pixel or an object."""
    semantic, objects = sample.annotations.get("semantic"), sample.annotations.get("instance")
    ids: set[int] = set()
    if isinstance(semantic, SemanticMap):
        ids |= set(np.unique(semantic.ids[semantic.ids != IGNORE]).tolist())
    if isinstance(objects, Instances):
        ids |= set(objects.label_ids.tolist())
    return {sample.labels.names[i] for i in ids}


class Part:
    """Some samples of a reader, in its order."""

    def __init__(self, reader: Reader, chosen: set[int]):
        self.labels, self._reader, self._chosen = reader.labels, reader, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def __iter__(self) -> Iterator[Sample]:
        last = max(self._chosen, default=-1)
        for i, sample in enumerate(self._reader):
            if i in self._chosen:
                yield sample
            if i >= last:
                return


def part(reader: Reader, limit: int, balance: bool = False, seed: int = 0) -> Part:
    """At most `limit` samples, drawn at random; the same seed draws the same ones.

    balance: again and again a picture of the label that has been drawn least often, so that rare labels are there.
    """
    if limit < 1:
        raise DataError(f"a part of {limit} samples", expected="at least 1")
    order = np.random.default_rng(seed).permutation(len(reader)).tolist()
    if not balance:
        return Part(reader, set(order[:limit]))
    holds = [labels_in(s) for s in reader]
    drawn: Counter[str] = Counter({name: 0 for names in holds for name in names})
    chosen: set[int] = set()
    while len(chosen) < min(limit, len(order)):
        rest = [i for i in order if i not in chosen]
        open_labels = {name for i in rest for name in holds[i]}
        rare = min(sorted(open_labels), key=lambda name: drawn[name], default=None)
        chosen.add(next(i for i in rest if rare is None or rare in holds[i]))
        drawn = Counter({name: 0 for name in drawn})
        drawn.update(name for i in chosen for name in holds[i])
    return Part(reader, chosen)
