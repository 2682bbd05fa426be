"""The parts of the data mixes: labelled renders, one cached set of generated images, and twins of both with other labels.

A generated store or a twin is written in shards and goes on where it was stopped. What a part depends on is known without
making it (`Data.identity`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from miniworld.score.oracle import WEIGHTS as ORACLE_WEIGHTS
from miniworld.score.oracle import load_oracle

from benchmarks.baselines.attention import annotate as annotate_by_attention
from benchmarks.baselines.attention import choose_way
from benchmarks.common import RENDERS as FOLDER
from benchmarks.generated import oracle_maps
from benchmarks.students import tables
from datasetdm.decoder.inference import annotate
from datasetdm.decoder.model import load_pair
from datasetdm.downstream.files import TrainedModel
from datasetdm.engines.local import write
from datasetdm.pipelines.filter import make_filters
from datasetdm.pipelines.generate import DatasetGenerator
from datasetdm.pipelines.settings import FilterConfig
from datasetdm.pipelines.stream import Keys, Source
from datasetdm.prompts.grammar import Grammar
from datasetdm.readers import Reader, read
from datasetdm.readers.formats.mini import PACKAGED
from datasetdm.records import Labels, Sample, SemanticMap
from datasetdm.store.store import Store
from datasetdm.transforms import accepted, apply

SEED, BATCH = 0, 16
"""Of the generated set; the batch is a part of what its images depend on."""
SHARD = 64
"""Samples per shard."""
CHUNK = 16
"""Images that get other labels at a time."""
FILTERS = FilterConfig(min_confidence=0.75, min_prompted=0.5, min_contrast=0.02)
"""Of the row `both_filtered`: fixed before any student was measured. A quarter of 512 generated images is below that confidence."""

Relabel = Callable[[list[Sample]], Iterable[Sample]]


@dataclass(frozen=True)
class Twin:
    """The images of a reader with other labels: a source of samples.

    Args:
        images: read in their order.
        story: what the labels depend on, JSON-ready.
        relabel: makes the function that labels a list of samples, when the first one is asked for.
    """

    images: Iterable[Sample]
    labels: Labels
    story: dict[str, Any]
    relabel: Callable[[], Relabel]
    endless: bool = False

    def origin(self) -> dict[str, Any]:
        """What the samples depend on."""
        return self.story

    def check(self, store: Store) -> None:
        """Nothing to check: equal origins give equal samples."""

    def samples(self, done: Keys = ()) -> Iterator[Sample]:
        """All samples, without those whose key is in `done`."""
        missing = (s for s in self.images if s.key not in done)
        relabel = None
        while chunk := list(islice(missing, CHUNK)):
            relabel = relabel or self.relabel()
            yield from relabel(chunk)


def mini_generator() -> Source:
    """The shipped models with one prompt of the grammar per image."""
    return DatasetGenerator(Grammar.load(), decoder="mini", device="cpu", seed=SEED, batch=BATCH)


@dataclass(frozen=True)
class Data:
    """All parts of one size.

    Args:
        count: of generated images, and of renders where a row uses renders in their place.
        work: the folder of the stores.
        labelled, everything, val, test: prefixes of the mini world's files; `everything` holds the labelled ones.
        generator: of the generated set.
    """

    count: int
    work: Path
    labelled: Path = PACKAGED / "train"
    everything: Path = FOLDER / "train"
    val: Path = FOLDER / "val"
    test: Path = FOLDER / "test"
    generator: Callable[[], Source] = mini_generator

    def split(self, prefix: Path) -> Reader:
        """Renders of a split."""
        return read(f"mini:{prefix}")

    @cached_property
    def _files(self) -> dict[str, str]:
        return {name: files_digest(getattr(self, name)) for name in ("labelled", "everything", "val", "test")}

    @cached_property
    def _generated(self) -> Source:
        return self.generator()

    def judges(self) -> dict[str, Any]:
        """What the figures of any student depend on."""
        return {name: self._files[name] for name in ("val", "test")}

    def identity(self, part: str, teacher: str = "") -> dict[str, Any]:
        """What the samples of a part depend on, JSON-ready.

        Args:
            teacher: the name of the result of the student that makes pseudo-labels.
        """
        if part == tables.LABELLED:
            return {"files": self._files["labelled"]}
        if part == tables.ALL:
            return {"files": self._files["everything"]}
        if part == tables.RENDERS:
            return {"pool": self._files["everything"], "without": self._files["labelled"], "count": self.count}
        if part == tables.GENERATED:
            return {**self._generated.origin(), "count": self.count}
        images = tables.RENDERS if part in (tables.DECODED_RENDERS, tables.PSEUDO_RENDERS) else tables.GENERATED
        return {"part": part, "images": self.identity(images), "labels": self._labeller(part, teacher)}

    def _labeller(self, part: str, teacher: str) -> dict[str, Any]:
        if part in tables.PSEUDO:
            return {"teacher": teacher}
        if part == tables.ORACLE:
            return {"oracle": hashlib.sha256(ORACLE_WEIGHTS.read_bytes()).hexdigest()}
        if part == tables.FILTERED:
            return FILTERS.model_dump(mode="json", exclude_none=True)
        origin = self._generated.origin()
        models = {name: origin.get(name) for name in ("backbone", "decoder")}
        return models | ({"labelled": self._files["labelled"]} if part == tables.ATTENTION else {})

    # ------------------------------------------------------------------ samples
    def reader(self, part: str, teacher: tuple[str, Path] | None = None) -> Reader:
        """The samples of a part, made if they are not there yet.

        Args:
            teacher: for pseudo-labels, the name of its result and its folder.
        """
        if part == tables.LABELLED:
            return self.split(self.labelled)
        if part == tables.ALL:
            return self.split(self.everything)
        if part == tables.RENDERS:
            return self._store(part, Twin(self._pool(), self.split(self.everything).labels, self.identity(part), _same))
        if part == tables.GENERATED:
            return self._store(part, self._generated)
        name, folder = teacher or ("", Path())
        base = self.reader(
            tables.RENDERS if part in (tables.DECODED_RENDERS, tables.PSEUDO_RENDERS) else tables.GENERATED
        )
        relabel = {
            tables.ORACLE: _by_oracle,
            tables.FILTERED: lambda: _by_filters(base.labels),
            tables.ATTENTION: lambda: _by_attention(list(self.reader(tables.LABELLED)), base.labels),
            tables.DECODED_RENDERS: _by_decoder,
        }.get(part, lambda: _by_student(folder))
        return self._store(
            f"{part}-{name}" if name else part, Twin(base, base.labels, self.identity(part, name), relabel)
        )

    def _pool(self) -> Iterable[Sample]:
        """Renders that are not among the labelled ones."""
        known = {s.digest() for s in self.reader(tables.LABELLED)}
        return islice((s for s in self.split(self.everything) if s.digest() not in known), self.count)

    def _store(self, name: str, source: Source) -> Store:
        folder = self.work / f"{name}-{self.count}"
        write(source, folder, self.count if source.endless else None, SHARD)
        return Store(folder)


def files_digest(prefix: Path) -> str:
    """SHA-256 of the files of a split of the mini world."""
    digest = hashlib.sha256()
    for path in sorted(prefix.parent.glob(f"{prefix.name}-*.parquet")):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def with_map(sample: Sample, found: SemanticMap) -> Sample:
    """The image with one other annotation and nothing else."""
    return Sample(sample.key, sample.image, sample.labels, sample.prompt, semantic=found)


def _same() -> Relabel:
    return lambda samples: samples


def _by_oracle() -> Relabel:
    oracle = load_oracle()
    return lambda samples: map(with_map, samples, oracle_maps(oracle, [s.image for s in samples]))


def _by_filters(labels: Labels) -> Relabel:
    filters = make_filters(FILTERS)
    return lambda samples: accepted(apply(samples, labels, filters)[0])


def _by_decoder() -> Relabel:
    decoder, backbone = load_pair("mini")
    return lambda samples: (found for _, found in annotate(decoder, backbone, samples))


def _by_attention(labelled: Sequence[Sample], labels: Labels) -> Relabel:
    """The labelled images only choose the stride and the standardisation of the maps."""
    _, backbone = load_pair("mini")
    way = choose_way(backbone, labelled, labels.names)
    return lambda samples: (with_map(s, m) for s, m in annotate_by_attention(backbone, samples, labels.names, way))


def _by_student(folder: Path) -> Relabel:
    trained = TrainedModel.load(folder, "cpu")
    return lambda samples: (
        with_map(given, found.semantic) for given, found in trained.annotate(samples) if found.semantic is not None
    )
