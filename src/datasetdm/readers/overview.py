"""What is in labelled data, and small balanced parts of it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from datasetdm.errors import DataError
from datasetdm.readers.regions import labels_in
from datasetdm.readers.source import ValidatingReader
from datasetdm.records import Labels, Sample


@dataclass
class Summary:
    """What was found. images: by label, in how many it occurs; objects: by label; tasks: annotations by task;
    sizes: (height, width) of the images."""

    labels: Labels
    samples: int = 0
    captions: int = 0
    tasks: Counter[str] = field(default_factory=Counter)
    images: Counter[str] = field(default_factory=Counter)
    objects: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)


def summarise(samples: Iterable[Sample], labels: Labels) -> Summary:
    """Read everything once."""
    summary = Summary(labels)
    for sample in samples:
        summary.samples += 1
        summary.captions += bool(sample.caption)
        summary.tasks.update(n for n, r in sample.annotations.fields().items() if r is not None)
        summary.images.update(labels_in(sample.annotations, sample.labels))
        summary.sizes[sample.size] += 1
        objects = sample.instances
        if objects is not None:
            summary.objects.update(sample.labels.names[i] for i in objects.label_ids.tolist())
    return summary


def part(reader: ValidatingReader, limit: int, balance: bool = False, seed: int = 0) -> ValidatingReader:
    """At most `limit` samples, drawn at random; the same seed draws the same ones.

    balance: again and again an image of the label that has been drawn least often, so that rare labels are there.
    """
    if limit < 1:
        raise DataError(f"a part of {limit} samples", expected="at least 1")
    rng = np.random.default_rng(seed)
    if not balance:
        return reader.only(rng.permutation(reader.numbers).tolist()[:limit])
    holds = {n: labels_in(s.annotations, s.labels) for n, s in reader.numbered()}
    order = rng.permutation(list(holds)).tolist()
    waiting: dict[str, deque[int]] = {}
    for number in order:
        for name in holds[number]:
            waiting.setdefault(name, deque()).append(number)
    drawn: Counter[str] = Counter()
    chosen: set[int] = set()
    while waiting and len(chosen) < limit:
        rare = min(sorted(waiting), key=lambda name: drawn[name])
        if not waiting[rare]:
            del waiting[rare]
        elif (number := waiting[rare].popleft()) not in chosen:
            chosen.add(number)
            drawn.update(holds[number])
    rest = [n for n in order if n not in chosen]
    return reader.only([*chosen, *rest[: limit - len(chosen)]])
