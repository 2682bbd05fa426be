"""What every export can be asked for, done to the stream of samples before any exporter sees it."""

from __future__ import annotations

import math
import re
import sqlite3
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np

from datasetdm.errors import ConfigError, DataError, unknown_name
from datasetdm.records import BACKGROUND, IGNORE, Labels, Sample, Skeleton
from datasetdm.records.edits import drop_depth, ignore_pixels, keep_objects, relabel


@dataclass(frozen=True)
class Options:
    """Choices that all formats share.

    splits: (name, share) of every part; a sample's part follows from a hash of its key.
    remap: label -> its new name, None to drop it. Several labels may become one. Pixels of a dropped label become
        `background` if the vocabulary has it, else they are ignored; its objects are left out.
    min_score: objects with a lower score are left out, and so are regions of a lower mean confidence; their pixels are ignored.
    min_confidence: pixels of a lower confidence are ignored in semantic maps, and have no depth.
    link: pictures that are files become links instead of copies.
    licence: of the data, an SPDX-like name, for formats that say so.
    """

    splits: tuple[tuple[str, float], ...] = ()
    remap: Mapping[str, str | None] = field(default_factory=dict)
    min_score: float = 0.0
    min_confidence: float = 0.0
    link: bool = False
    licence: str = "unknown"

    def __post_init__(self) -> None:
        names = [n for n, _ in self.splits]
        for name, share in self.splits:
            if not re.fullmatch(r"[A-Za-z0-9_]+", name) or names.count(name) > 1 or not 0 < share <= 1:
                raise ConfigError(
                    f"split {name}={share}", expected="names of letters, digits and _, each once, shares 0..1"
                )
        if names and not math.isclose(sum(s for _, s in self.splits), 1, abs_tol=1e-6):
            raise ConfigError(f"the splits sum to {sum(s for _, s in self.splits):g}", expected="1")
        for name, least in (("score", self.min_score), ("confidence", self.min_confidence)):
            if not 0 <= least <= 1:
                raise ConfigError(f"minimum {name} {least}", expected="0..1")


def parse_splits(text: str) -> tuple[tuple[str, float], ...]:
    """`train=0.8,val=0.1,test=0.1`."""
    pairs = _pairs(text, "split", "train=0.8,val=0.2")
    try:
        return tuple((name, float(share)) for name, share in pairs)
    except ValueError as e:
        raise ConfigError(f"split {text!r}: a share is no number", expected="train=0.8,val=0.2") from e


def parse_remap(text: str) -> dict[str, str | None]:
    """`cat=animal,dog=animal,sky=`: the last drops a label."""
    return {name: new or None for name, new in _pairs(text, "remap", "cat=animal,dog=animal,sky=")}


def _pairs(text: str, option: str, example: str) -> list[tuple[str, str]]:
    pairs = [p.partition("=") for p in text.split(",")]
    if not all(equals and name.strip() for name, equals, _ in pairs):
        raise ConfigError(f"--{option} {text!r} cannot be read", expected=f"for instance {example}")
    return [(name.strip(), value.strip()) for name, _, value in pairs]


def prepare(samples: Iterable[Sample], labels: Labels, options: Options) -> tuple[Generator[Sample], Labels]:
    """The stream and the vocabulary that exporters get. Two samples of one key are an error.

    Raises:
        ConfigError: a label to remap that is not there, or labels that cannot be merged.
    """
    stream: Generator[Sample] = _distinct(samples)
    if options.min_score > 0:
        stream = (_certain(s, options.min_score) for s in stream)
    if options.min_confidence > 0:
        stream = (_sure(s, options.min_confidence) for s in stream)
    if options.remap:
        labels, ids = remapped(labels, options.remap)
        stream = (_renamed(s, labels, options.remap, ids) for s in stream)
    return stream, labels


def _distinct(samples: Iterable[Sample]) -> Generator[Sample]:
    """Keys seen lie in a database on the disk, for any number of samples."""
    with closing(sqlite3.connect("")) as seen:
        seen.execute("create table keys (key text primary key) without rowid")
        for sample in samples:
            if not seen.execute("insert or ignore into keys values (?)", (sample.key,)).rowcount:
                raise DataError(
                    f"two samples have the key {sample.key!r}", expected="unique keys", remedy="rename one of them"
                )
            yield sample


# ---------------------------------------------------------------------- other labels
def remapped(labels: Labels, remap: Mapping[str, str | None]) -> tuple[Labels, list[int]]:
    """The new vocabulary, and for every old label id its new one or `IGNORE`."""
    for name in remap:
        if name not in labels.names:
            raise unknown_name("label", name, labels.names)
    new = [remap.get(n, n) for n in labels.names]
    names = list(dict.fromkeys(n for n in new if n is not None))
    if not names:
        raise ConfigError("all labels are dropped", where="remap", expected="at least one label that stays")
    merged = {n: [o for o, m in zip(labels.names, new, strict=True) if m == n] for n in names}
    words = {o: (o, *s) for o, s in zip(labels.names, labels.synonyms, strict=True)}
    synonyms = tuple(tuple(dict.fromkeys(w for o in merged[n] for w in words[o] if w != n)) for n in names)
    stuff = tuple(n for n in names if set(merged[n]) <= set(labels.stuff))
    bones = {n: b for n in names if (b := _shared_skeleton(n, [labels.skeletons.get(o) for o in merged[n]]))}
    dropped = names.index(BACKGROUND) if BACKGROUND in names else IGNORE
    ids = [dropped if n is None else names.index(n) for n in new]
    return Labels(tuple(names), synonyms, stuff, bones), ids


def _shared_skeleton(name: str, bones: Sequence[Skeleton | None]) -> Skeleton | None:
    found = {b.points: b for b in bones if b is not None}
    if len(found) > 1:
        raise ConfigError(
            f"the labels that become {name!r} have different points", where="remap", expected="labels that share theirs"
        )
    return next(iter(found.values()), None)


def _renamed(sample: Sample, labels: Labels, remap: Mapping[str, str | None], ids: Sequence[int]) -> Sample:
    if sample.instances is not None:
        names = [sample.labels.names[i] for i in sample.instances.label_ids.tolist()]
        sample = keep_objects(sample, np.array([remap.get(n, n) is not None for n in names], bool))
    prompt = sample.prompt
    if prompt:
        asked = {remap.get(n, n) for n in prompt.labels}
        prompt = replace(prompt, labels=tuple(n for n in labels.names if n in asked))
    return replace(relabel(sample, labels, ids), prompt=prompt)


# ---------------------------------------------------------------------- certain enough
def _certain(sample: Sample, least: float) -> Sample:
    semantic, objects = sample.semantic, sample.instances
    doubtful = np.zeros(sample.size, bool)
    if semantic is not None and semantic.confidence is not None:
        for region in (semantic.ids == i for i in np.unique(semantic.ids)):
            doubtful |= region & (semantic.confidence[region].mean(dtype=np.float64) < least)
    if objects is not None:
        keep = objects.scores >= np.float32(least)
        if semantic is not None:
            others = ~objects.masks[keep].union()
            for mask, label in zip(objects.masks[~keep], objects.label_ids[~keep], strict=True):
                doubtful |= mask & others & (semantic.ids == label)
        sample = keep_objects(sample, keep)
    return ignore_pixels(sample, doubtful)


def _sure(sample: Sample, least: float) -> Sample:
    semantic, depth = sample.semantic, sample.depth
    if semantic is not None and semantic.confidence is not None:
        sample = ignore_pixels(sample, semantic.confidence < least)
    if depth is not None and depth.confidence is not None:
        sample = drop_depth(sample, depth.confidence < least)
    return sample
