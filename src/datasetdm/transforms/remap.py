"""Labels renamed, merged and dropped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from datasetdm.errors import ConfigError, unknown_name
from datasetdm.io.settings import NewNames
from datasetdm.records import BACKGROUND, IGNORE, Labels, Sample, Skeleton
from datasetdm.records.edits import keep_objects, relabel
from datasetdm.transforms import Transform


class RemapLabels(Transform):
    """Another vocabulary.

    Args:
        mapping: label -> its new name, None to drop it. Several labels may become one. Pixels of a dropped label become
            `background` if the new vocabulary has it, else they are ignored; its objects are removed.
    """

    name: ClassVar[str] = "remap-labels"
    mapping: NewNames

    def __call__(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        old: Labels | None = None
        for sample in samples:
            if sample.labels != old:
                old = sample.labels
                labels, new_ids = remapped(old, self.mapping)
            objects, prompt = sample.instances, sample.prompt
            if objects is not None:  # a dropped label's objects do not become background, as its pixels do
                stays = np.array([self.mapping.get(n, n) is not None for n in old.names])
                sample = keep_objects(sample, stays[objects.label_ids])
            if prompt is not None:
                asked = {self.mapping.get(n, n) for n in prompt.labels}
                prompt = replace(prompt, labels=tuple(n for n in labels.names if n in asked))
            yield replace(relabel(sample, labels, new_ids), prompt=prompt)

    def vocabulary(self, labels: Labels) -> Labels:
        """The new labels. Raises ConfigError for a label that is not there, or labels that cannot be merged."""
        return remapped(labels, self.mapping)[0]


def remapped(labels: Labels, mapping: Mapping[str, str | None]) -> tuple[Labels, list[int]]:
    """The new vocabulary, and for every old label id its new one or `IGNORE`."""
    for name in mapping:
        if name not in labels.index:
            raise unknown_name("label", name, labels.names)
    new_names = [mapping.get(n, n) for n in labels.names]
    merged: dict[str, list[int]] = {}
    for i, new in enumerate(new_names):
        if new is not None:
            merged.setdefault(new, []).append(i)
    if not merged:
        raise ConfigError("all labels are dropped", where="remap", expected="at least one label that stays")
    names, stuff, skeletons = tuple(merged), set(labels.stuff), {}
    for new, ids in merged.items():
        if skeleton := _shared_skeleton(new, [labels.skeleton_of(i) for i in ids]):
            skeletons[new] = skeleton
    words = [[w for i in ids for w in (labels.names[i], *labels.synonyms[i])] for ids in merged.values()]
    result = Labels(
        names,
        tuple(tuple(dict.fromkeys(w for w in all_of if w != n)) for n, all_of in zip(names, words, strict=True)),
        tuple(n for n, ids in merged.items() if {labels.names[i] for i in ids} <= stuff),
        skeletons,
    )
    dropped = result.index.get(BACKGROUND, IGNORE)
    return result, [dropped if n is None else result.index[n] for n in new_names]


def _shared_skeleton(name: str, skeletons: Sequence[Skeleton | None]) -> Skeleton | None:
    found = {s.points: s for s in skeletons if s is not None}
    if len(found) > 1:
        raise ConfigError(
            f"the labels that become {name!r} have different points", where="remap", expected="labels that share theirs"
        )
    return next(iter(found.values()), None)
